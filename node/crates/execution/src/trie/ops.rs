//! Reading and editing one trie.
//!
//! Steps that can fail (resolving a node) come before any change, so an operation that fails leaves
//! the contents as they were. Nodes on the path may have been copied and have lost their cached
//! hash, no more.

use std::sync::Arc;

use alloy_primitives::Bytes;
use alloy_trie::Nibbles;

use super::codec::{DEPTH, Scratch, no_children};
use super::node::{Kind, Link, Node, Origin, Value};
use crate::state::SourceError;

/// The value at `key`.
pub(super) fn get<'a, V: Value>(
    mut link: &'a Link<V>,
    origin: Origin<'_>,
    key: &Nibbles,
) -> Result<Option<&'a V>, SourceError> {
    let mut depth = 0;
    while let Some(node) = link.resolve(origin, key, depth)? {
        match &node.kind {
            Kind::Leaf { key: own, value } => {
                return Ok((*own == key.slice(depth..)).then_some(value));
            }
            Kind::Extension { key: own, child } => {
                if !key.slice(depth..).starts_with(own) {
                    return Ok(None);
                }
                depth += own.len();
                link = child;
            }
            Kind::Branch(children) => {
                link = &children[nibble(key, depth)];
                depth += 1;
            }
        }
    }
    Ok(None)
}

/// The value at `key`, to change it.
pub(super) fn get_mut<'a, V: Value>(
    link: &'a mut Link<V>,
    origin: Origin<'_>,
    key: &Nibbles,
    depth: usize,
) -> Result<Option<&'a mut V>, SourceError> {
    match link.edit(origin, key, depth)? {
        None => Ok(None),
        Some(Kind::Leaf { key: own, value }) => Ok((*own == key.slice(depth..)).then_some(value)),
        Some(Kind::Extension { key: own, child }) => {
            if !key.slice(depth..).starts_with(own) {
                return Ok(None);
            }
            get_mut(child, origin, key, depth + own.len())
        }
        Some(Kind::Branch(children)) => {
            get_mut(&mut children[nibble(key, depth)], origin, key, depth + 1)
        }
    }
}

/// Sets the value at `key`, of which `depth` nibbles lead to `link`.
pub(super) fn insert<V: Value>(
    link: &mut Link<V>,
    origin: Origin<'_>,
    key: &Nibbles,
    depth: usize,
    value: V,
) -> Result<(), SourceError> {
    let rest = key.slice(depth..);
    let Some(kind) = link.edit(origin, key, depth)? else {
        *link = Node::leaf(rest, value);
        return Ok(());
    };
    // What stands here is split where its key and ours part.
    let (common, other, rear) = match kind {
        Kind::Branch(children) => {
            return insert(&mut children[nibble(key, depth)], origin, key, depth + 1, value);
        }
        Kind::Leaf { key: own, value: old } => {
            let common = own.common_prefix_length(&rest);
            if common == own.len() {
                *old = value;
                return Ok(());
            }
            (common, nibble(own, common), Node::leaf(own.slice(common + 1..), old.clone()))
        }
        Kind::Extension { key: own, child } => {
            let common = own.common_prefix_length(&rest);
            if common == own.len() {
                return insert(child, origin, key, depth + common, value);
            }
            (common, nibble(own, common), extend(own.slice(common + 1..), child.clone()))
        }
    };
    let mut children = no_children();
    children[other] = rear;
    children[nibble(&rest, common)] = Node::leaf(rest.slice(common + 1..), value);
    let branch = Kind::Branch(children);
    *kind = match common {
        0 => branch,
        _ => Kind::Extension {
            key: rest.slice(..common),
            child: Link::Held(Arc::new(Node::new(branch))),
        },
    };
    Ok(())
}

/// Removes `key`, of which `depth` nibbles lead to `link`.
///
/// Only the branch above the leaf can lose a child, so the one sibling that remains is all that
/// must be known beyond the path.
pub(super) fn remove<V: Value>(
    link: &mut Link<V>,
    origin: Origin<'_>,
    key: &Nibbles,
    depth: usize,
) -> Result<(), SourceError> {
    let Some(kind) = link.edit(origin, key, depth)? else { return Ok(()) };
    match kind {
        Kind::Leaf { key: own, .. } => {
            if *own == key.slice(depth..) {
                *link = Link::Empty;
            }
        }
        Kind::Extension { key: own, child } => {
            if !key.slice(depth..).starts_with(own) {
                return Ok(());
            }
            let below = depth + own.len();
            remove(child, origin, key, below)?;
            // The way down is known, so this asks nobody.
            let merged = match child.resolve(origin, key, below)? {
                None => None,
                Some(node) => match prefixed(own, node) {
                    Some(kind) => Some(kind),
                    None => return Ok(()),
                },
            };
            match merged {
                Some(merged) => *kind = merged,
                None => *link = Link::Empty,
            }
        }
        Kind::Branch(children) => {
            let at = nibble(key, depth);
            let vanishes = children[at].resolve(origin, key, depth + 1)?.is_some_and(
                |node| matches!(&node.kind, Kind::Leaf { key: own, .. } if *own == key.slice(depth + 1..)),
            );
            if !vanishes {
                return remove(&mut children[at], origin, key, depth + 1);
            }
            let mut others = (0..16u8)
                .filter(|i| usize::from(*i) != at && !children[usize::from(*i)].is_empty());
            match (others.next(), others.next()) {
                (None, _) => *link = Link::Empty,
                (Some(_), Some(_)) => children[at] = Link::Empty,
                (Some(last), None) => {
                    let step = Nibbles::from_nibbles_unchecked([last]);
                    let way = key.slice(..depth).join(&step);
                    let child = &children[usize::from(last)];
                    let merged = match child.resolve(origin, &way, depth + 1)? {
                        Some(node) => prefixed(&step, node),
                        None => None,
                    };
                    *kind = merged
                        .unwrap_or_else(|| Kind::Extension { key: step, child: child.clone() });
                }
            }
        }
    }
    Ok(())
}

/// The nodes from the root towards `key` that are stored on their own.
pub(super) fn proof<V: Value>(
    mut link: &Link<V>,
    origin: Origin<'_>,
    key: &Nibbles,
) -> Result<Vec<Bytes>, SourceError> {
    let mut scratch = Scratch::default();
    let mut proof = Vec::new();
    let mut depth = 0;
    while let Some(node) = link.resolve(origin, key, depth)? {
        if depth == 0 || node.reference(&mut scratch).is_hash() {
            proof.push(node.rlp(&mut scratch));
        }
        match &node.kind {
            Kind::Leaf { .. } => break,
            Kind::Extension { key: own, child } => {
                if !key.slice(depth..).starts_with(own) {
                    break;
                }
                depth += own.len();
                link = child;
            }
            Kind::Branch(children) => {
                link = &children[nibble(key, depth)];
                depth += 1;
            }
        }
    }
    Ok(proof)
}

/// The node with its key extended at the front; `None` for a branch, which has no key.
fn prefixed<V: Value>(prefix: &Nibbles, node: &Node<V>) -> Option<Kind<V>> {
    match &node.kind {
        Kind::Leaf { key, value } => {
            Some(Kind::Leaf { key: prefix.join(key), value: value.clone() })
        }
        Kind::Extension { key, child } => {
            Some(Kind::Extension { key: prefix.join(key), child: child.clone() })
        }
        Kind::Branch(_) => None,
    }
}

fn extend<V: Value>(key: Nibbles, child: Link<V>) -> Link<V> {
    if key.is_empty() {
        return child;
    }
    Link::Held(Arc::new(Node::new(Kind::Extension { key, child })))
}

/// Keys are 64 nibbles long and no branch stands deeper than 63, see [`super::node`].
fn nibble(key: &Nibbles, at: usize) -> usize {
    debug_assert!(at < DEPTH.min(key.len()));
    usize::from(key.get(at).unwrap_or_default())
}
