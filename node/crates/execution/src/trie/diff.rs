//! The difference between two versions, by path.
//!
//! Both tries are walked at once, path by path rather than node by node: a subtree that moved
//! under an extension still stands at its path, and is skipped there if it is the same. A key of
//! several nibbles is walked nibble by nibble ([`AtPath::Within`]). Nothing is resolved.

use std::collections::BTreeMap;

use alloy_primitives::{B256, Bytes, U256};
use alloy_trie::Nibbles;

use super::codec::Scratch;
use super::node::{AccountLeaf, Kind, Known, Link, Node, Value};
use super::{NodeChange, TrieDiff, TrieId};

/// The contents of a trie at a path.
enum AtPath<'a, V> {
    /// There is nothing, neither here nor below.
    Nothing,
    /// A node is here.
    Node(&'a Link<V>),
    /// An extension above leads to this link, this many nibbles further down.
    Within(Nibbles, &'a Link<V>),
}

impl<V> Clone for AtPath<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for AtPath<'_, V> {}

impl<'a, V: Value> AtPath<'a, V> {
    fn node(self) -> Option<&'a Node<V>> {
        match self {
            Self::Node(link) => match link.known() {
                Known::Held(node) => Some(node),
                Known::Empty | Known::Unknown => None,
            },
            Self::Nothing | Self::Within(..) => None,
        }
    }

    /// The contents one nibble further down.
    fn step(self, nibble: u8) -> Self {
        let (key, child) = match self {
            Self::Nothing => return Self::Nothing,
            Self::Within(key, child) => (key, child),
            Self::Node(_) => match self.node().map(|node| &node.kind) {
                None | Some(Kind::Leaf { .. }) => return Self::Nothing,
                Some(Kind::Branch(children)) => {
                    let child = &children[usize::from(nibble)];
                    return if child.is_empty() { Self::Nothing } else { Self::Node(child) };
                }
                Some(Kind::Extension { key, child }) => (*key, child),
            },
        };
        match key.len() {
            _ if key.first() != Some(nibble) => Self::Nothing,
            1 => Self::Node(child),
            _ => Self::Within(key.slice(1..), child),
        }
    }
}

/// A walk over two versions of one trie.
struct Walk<'d> {
    trie: TrieId,
    scratch: &'d mut Scratch,
    changes: &'d mut Vec<NodeChange>,
    /// Whether to report equal nodes too, because the store forgets the whole trie first.
    everything: bool,
    /// Whether a part of `before` is gone that was not held.
    lost: bool,
}

impl Walk<'_> {
    fn walk<'a, V: Value>(
        &mut self,
        path: Nibbles,
        before: AtPath<'a, V>,
        after: AtPath<'a, V>,
        leaves: &mut impl FnMut(&Nibbles, Option<&'a V>, Option<&'a V>),
    ) {
        if !self.everything && self.same(&path, before, after) {
            return;
        }
        if let AtPath::Node(link) = before
            && let Known::Unknown = link.known()
        {
            self.lost = true;
        }
        let (old, new) = (before.node(), after.node());
        let (was, is) = (self.stored(&path, old), self.stored(&path, new));
        if was.is_some() || is.is_some() {
            self.changes.push(NodeChange { trie: self.trie, path, before: was, after: is });
        }
        for (node, new) in [(old, false), (new, true)] {
            if let Some(Kind::Leaf { key, value }) = node.map(|node| &node.kind) {
                let (old, new) = if new { (None, Some(value)) } else { (Some(value), None) };
                leaves(&path.join(key), old, new);
            }
        }
        for nibble in 0..16 {
            let (before, after) = (before.step(nibble), after.step(nibble));
            if let (AtPath::Nothing, AtPath::Nothing) = (before, after) {
                continue;
            }
            let mut path = path;
            path.push(nibble);
            self.walk(path, before, after, leaves);
        }
    }

    fn same<V: Value>(&mut self, path: &Nibbles, a: AtPath<'_, V>, b: AtPath<'_, V>) -> bool {
        match (a, b) {
            (AtPath::Node(a), AtPath::Node(b)) => a.same(b, path.is_empty(), self.scratch),
            (AtPath::Within(a_key, a), AtPath::Within(b_key, b)) => {
                a_key == b_key && a.same(b, false, self.scratch)
            }
            _ => false,
        }
    }

    /// A node's RLP, unless it is embedded in its parent.
    fn stored<V: Value>(&mut self, path: &Nibbles, node: Option<&Node<V>>) -> Option<Bytes> {
        let node = node?;
        (path.is_empty() || node.reference(self.scratch).is_hash()).then(|| node.rlp(self.scratch))
    }
}

/// See [`super::StateTrie::diff`].
pub(super) fn diff(before: &Link<AccountLeaf>, after: &Link<AccountLeaf>) -> TrieDiff {
    type Storages<'a> = (Option<&'a Link<U256>>, Option<&'a Link<U256>>);
    let mut diff = TrieDiff::default();
    let mut scratch = Scratch::default();
    let mut walk = Walk {
        trie: TrieId::Accounts,
        scratch: &mut scratch,
        changes: &mut diff.changes,
        everything: false,
        lost: false,
    };
    // A leaf's path may differ between versions: storages meet by address.
    let mut storages: BTreeMap<B256, Storages<'_>> = BTreeMap::new();
    walk.walk(Nibbles::new(), AtPath::Node(before), AtPath::Node(after), &mut |key,
                                                                               old: Option<
        &AccountLeaf,
    >,
                                                                               new: Option<
        &AccountLeaf,
    >| {
        let storages = storages.entry(B256::from_slice(&key.pack())).or_default();
        storages.0 = storages.0.or(old.map(|leaf| &leaf.storage));
        storages.1 = storages.1.or(new.map(|leaf| &leaf.storage));
    });
    for (address, (old, new)) in storages {
        let (old, new) = (old.unwrap_or(&Link::Empty), new.unwrap_or(&Link::Empty));
        let first = diff.changes.len();
        for everything in [false, true] {
            let mut walk = Walk {
                trie: TrieId::Storage(address),
                scratch: &mut scratch,
                changes: &mut diff.changes,
                everything,
                lost: false,
            };
            walk.walk(Nibbles::new(), AtPath::Node(old), AtPath::Node(new), &mut |_, _, _| ());
            if !walk.lost {
                break;
            }
            if !everything {
                diff.changes.truncate(first);
                diff.wiped.push(address);
            }
        }
    }
    diff
}
