//! Nodes and the links between them.
//!
//! A node is immutable once somebody else can see it: an edit goes through [`Link::edit`], which
//! copies a node that is shared and forgets the reference (the hash, or the RLP of a node below
//! 32 bytes) of one that is not. A link to a node that is not held knows its hash and keeps what
//! it resolves to, so that all versions that share the link profit from one resolution.
//!
//! Invariant, which decoding checks and editing keeps: a node that stands at a path of `n`
//! nibbles has a key so short that nothing lies deeper than 64, and leaves lie at 64 exactly.
//! Joining keys can therefore not overflow.

use std::sync::{Arc, OnceLock};

use alloy_primitives::{B256, Bytes, U256, keccak256};
use alloy_trie::nodes::RlpNode;
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles};

use super::codec::{self, Scratch};
use super::{TrieId, TrieNodes};
use crate::state::{Account, SourceError};

/// The value of a trie's leaves.
pub(super) trait Value: Clone {
    /// Writes the RLP to `scratch.value`, which may hold anything.
    fn encode(&self, scratch: &mut Scratch);
    /// Reads the RLP; `None` if it is malformed.
    fn decode(rlp: &[u8]) -> Option<Self>;
    /// The number of held nodes below it.
    fn held(&self) -> usize;
    /// The same value without the nodes below it.
    fn forget(&self, scratch: &mut Scratch) -> Self;
}

/// An account with its storage.
#[derive(Clone)]
pub(super) struct AccountLeaf {
    pub(super) account: Account,
    pub(super) storage: Link<U256>,
}

/// The source of a trie's nodes.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) trie: TrieId,
    pub(super) nodes: &'a dyn TrieNodes,
}

/// The children of a branch.
pub(super) type Children<V> = [Link<V>; 16];

#[derive(Clone)]
pub(super) enum Kind<V> {
    Leaf { key: Nibbles, value: V },
    Extension { key: Nibbles, child: Link<V> },
    Branch(Box<Children<V>>),
}

#[derive(Clone)]
pub(super) struct Node<V> {
    pub(super) kind: Kind<V>,
    /// The reference in its parent, if that was computed since the last edit.
    reference: OnceLock<RlpNode>,
}

/// A node by its hash, and the node itself once it was resolved.
pub(super) struct HashNode<V> {
    hash: B256,
    resolved: OnceLock<Arc<Node<V>>>,
}

#[derive(Clone)]
pub(super) enum Link<V> {
    Empty,
    Held(Arc<Node<V>>),
    Hash(Arc<HashNode<V>>),
}

/// What is known of a link's target without asking a source.
pub(super) enum Known<'a, V> {
    Empty,
    Held(&'a Arc<Node<V>>),
    Unknown,
}

impl<V: Value> Node<V> {
    pub(super) fn new(kind: Kind<V>) -> Self {
        Self { kind, reference: OnceLock::new() }
    }

    pub(super) fn leaf(key: Nibbles, value: V) -> Link<V> {
        Link::Held(Arc::new(Self::new(Kind::Leaf { key, value })))
    }

    /// The reference in its parent.
    pub(super) fn reference(&self, scratch: &mut Scratch) -> &RlpNode {
        if let Some(reference) = self.reference.get() {
            return reference;
        }
        codec::encode(&self.kind, scratch);
        let reference = RlpNode::from_rlp(&scratch.rlp);
        self.reference.get_or_init(|| reference)
    }

    pub(super) fn rlp(&self, scratch: &mut Scratch) -> Bytes {
        codec::encode(&self.kind, scratch);
        Bytes::copy_from_slice(&scratch.rlp)
    }

    fn held(&self) -> usize {
        1 + match &self.kind {
            Kind::Leaf { value, .. } => value.held(),
            Kind::Extension { child, .. } => child.held(),
            Kind::Branch(children) => children.iter().map(Link::held).sum(),
        }
    }
}

impl<V: Value> Link<V> {
    /// The trie with this root.
    pub(super) fn from_root(root: B256) -> Self {
        if root == EMPTY_ROOT_HASH { Self::Empty } else { Self::unknown(root) }
    }

    pub(super) fn unknown(hash: B256) -> Self {
        Self::Hash(Arc::new(HashNode { hash, resolved: OnceLock::new() }))
    }

    pub(super) fn known(&self) -> Known<'_, V> {
        match self {
            Self::Empty => Known::Empty,
            Self::Held(node) => Known::Held(node),
            Self::Hash(link) => link.resolved.get().map_or(Known::Unknown, Known::Held),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// The node that is `depth` nibbles down `key`, from the origin if it is not held.
    pub(super) fn resolve(
        &self,
        origin: Origin<'_>,
        key: &Nibbles,
        depth: usize,
    ) -> Result<Option<&Arc<Node<V>>>, SourceError> {
        match self {
            Self::Empty => Ok(None),
            Self::Held(node) => Ok(Some(node)),
            Self::Hash(link) => {
                if let Some(node) = link.resolved.get() {
                    return Ok(Some(node));
                }
                let node = link.fetch(origin, &key.slice(..depth))?;
                Ok(Some(link.resolved.get_or_init(|| Arc::new(node))))
            }
        }
    }

    /// Like [`Link::resolve`], for a change that no other version sees.
    pub(super) fn edit(
        &mut self,
        origin: Origin<'_>,
        key: &Nibbles,
        depth: usize,
    ) -> Result<Option<&mut Kind<V>>, SourceError> {
        if let Self::Hash(_) = self {
            let node = self.resolve(origin, key, depth)?.map(Arc::clone);
            *self = node.map_or(Self::Empty, Self::Held);
        }
        let Self::Held(node) = self else { return Ok(None) };
        let node = Arc::make_mut(node);
        node.reference = OnceLock::new();
        Ok(Some(&mut node.kind))
    }

    /// The reference in the node above.
    pub(super) fn reference(&self, scratch: &mut Scratch) -> RlpNode {
        match self {
            Self::Empty => RlpNode::default(),
            Self::Held(node) => node.reference(scratch).clone(),
            Self::Hash(link) => RlpNode::word_rlp(&link.hash),
        }
    }

    /// The root of the trie that begins here.
    pub(super) fn root(&self, scratch: &mut Scratch) -> B256 {
        match self {
            Self::Empty => EMPTY_ROOT_HASH,
            Self::Held(node) => {
                let reference = node.reference(scratch);
                reference.as_hash().unwrap_or_else(|| keccak256(reference.as_slice()))
            }
            Self::Hash(link) => link.hash,
        }
    }

    /// Whether both lead to the same subtree.
    pub(super) fn same(&self, other: &Self, at_root: bool, scratch: &mut Scratch) -> bool {
        match (self, other) {
            (Self::Empty, Self::Empty) => true,
            (Self::Empty, _) | (_, Self::Empty) => false,
            (Self::Held(a), Self::Held(b)) if Arc::ptr_eq(a, b) => true,
            (Self::Hash(a), Self::Hash(b)) if Arc::ptr_eq(a, b) => true,
            // Only a root may be small and yet known by its hash.
            _ if at_root => self.root(scratch) == other.root(scratch),
            _ => self.reference(scratch) == other.reference(scratch),
        }
    }

    pub(super) fn held(&self) -> usize {
        match self.known() {
            Known::Held(node) => node.held(),
            Known::Empty | Known::Unknown => 0,
        }
    }

    /// The same subtree without what stands `keep` nibbles deep or deeper; `depth` is its own.
    pub(super) fn prune(&self, depth: usize, keep: usize, scratch: &mut Scratch) -> Self {
        let node = match self.known() {
            Known::Empty | Known::Unknown => return self.clone(),
            Known::Held(node) => node,
        };
        if depth >= keep {
            // What is embedded in its parent has no hash to be found by, and is small.
            let hash = match depth {
                0 => Some(self.root(scratch)),
                _ => node.reference(scratch).as_hash(),
            };
            return hash.map_or_else(|| self.clone(), Self::unknown);
        }
        let reference = OnceLock::from(node.reference(scratch).clone());
        let kind = match &node.kind {
            Kind::Leaf { key, value } => Kind::Leaf { key: *key, value: value.forget(scratch) },
            Kind::Extension { key, child } => {
                Kind::Extension { key: *key, child: child.prune(depth + key.len(), keep, scratch) }
            }
            Kind::Branch(children) => Kind::Branch(Box::new(std::array::from_fn(|i| {
                children[i].prune(depth + 1, keep, scratch)
            }))),
        };
        Self::Held(Arc::new(Node { kind, reference }))
    }
}

impl<V: Value> HashNode<V> {
    fn fetch(&self, origin: Origin<'_>, path: &Nibbles) -> Result<Node<V>, SourceError> {
        let rlp = origin.nodes.node(origin.trie, path, self.hash)?;
        let wrong = |why: &str| {
            let Origin { trie, .. } = origin;
            SourceError::Corrupt(format!("node {} at {path:?} of {trie:?}: {why}", self.hash))
        };
        if keccak256(&rlp) != self.hash {
            return Err(wrong("its bytes have another hash"));
        }
        if rlp.len() < 32 && !path.is_empty() {
            return Err(wrong("it belongs into its parent"));
        }
        let kind = codec::decode(&rlp, path.len()).map_err(wrong)?;
        let reference = match rlp.len() {
            ..32 => RlpNode::from_rlp(&rlp),
            _ => RlpNode::word_rlp(&self.hash),
        };
        Ok(Node { kind, reference: OnceLock::from(reference) })
    }
}
