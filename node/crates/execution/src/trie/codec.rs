//! Nodes as RLP.
//!
//! Decoding checks everything: lengths, the depth that a key reaches, the form of values, and
//! finally that the node encodes to the same bytes, which excludes every second way to write it.

use std::sync::Arc;

use alloy_primitives::{B256, U256};
use alloy_rlp::{Decodable, Encodable};
use alloy_trie::nodes::{BranchNodeRef, ExtensionNodeRef, LeafNodeRef, RlpNode, TrieNode};
use alloy_trie::{Nibbles, TrieAccount, TrieMask};

use super::node::{AccountLeaf, Kind, Link, Node, Value};
use crate::state::Account;

/// The depth of leaves: the nibbles of a hash.
pub(super) const DEPTH: usize = 64;

/// First byte of a hash in a node.
const HASH_CODE: u8 = alloy_rlp::EMPTY_STRING_CODE + 32;

/// Buffers that encoding reuses: a node is at most 532 bytes, a value 110.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) rlp: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// Writes a node's RLP to `scratch.rlp`, hashing what has changed below it.
pub(super) fn encode<V: Value>(kind: &Kind<V>, scratch: &mut Scratch) {
    match kind {
        Kind::Leaf { key, value } => {
            value.encode(scratch);
            let Scratch { rlp, value } = scratch;
            rlp.clear();
            LeafNodeRef::new(key, value).encode(rlp);
        }
        Kind::Extension { key, child } => {
            let child = child.reference(scratch);
            scratch.rlp.clear();
            ExtensionNodeRef::new(key, &child).encode(&mut scratch.rlp);
        }
        Kind::Branch(children) => {
            let mut stack: [RlpNode; 16] = Default::default();
            let (mut mask, mut len) = (TrieMask::default(), 0);
            for (nibble, child) in (0..).zip(children.iter()).filter(|(_, child)| !child.is_empty())
            {
                stack[len] = child.reference(scratch);
                mask.set_bit(nibble);
                len += 1;
            }
            scratch.rlp.clear();
            BranchNodeRef::new(&stack[..len], mask).encode(&mut scratch.rlp);
        }
    }
}

/// Decodes the node that is `depth` nibbles down.
pub(super) fn decode<V: Value>(rlp: &[u8], depth: usize) -> Result<Kind<V>, &'static str> {
    let kind = decode_loose(rlp, depth)?;
    let mut scratch = Scratch::default();
    encode(&kind, &mut scratch);
    if scratch.rlp == rlp { Ok(kind) } else { Err("it is not written the canonical way") }
}

fn decode_loose<V: Value>(mut rlp: &[u8], depth: usize) -> Result<Kind<V>, &'static str> {
    let node = TrieNode::decode(&mut rlp).map_err(|_| "it is not the RLP of a node")?;
    if !rlp.is_empty() {
        return Err("bytes follow it");
    }
    match node {
        TrieNode::EmptyRoot => Err("it is empty"),
        TrieNode::Leaf(leaf) => {
            if depth + leaf.key.len() != DEPTH {
                return Err("it is a leaf whose key has not 64 nibbles");
            }
            let value = V::decode(&leaf.value).ok_or("its value is not of this trie")?;
            Ok(Kind::Leaf { key: leaf.key, value })
        }
        TrieNode::Extension(extension) => {
            let key = extension.key;
            if key.is_empty() || depth + key.len() >= DEPTH {
                return Err("it is an extension whose key is empty or too long");
            }
            Ok(Kind::Extension { key, child: decode_child(&extension.child, depth + key.len())? })
        }
        TrieNode::Branch(branch) => {
            if depth >= DEPTH || branch.stack.len() < 2 {
                return Err("it is a branch too deep or with fewer than two children");
            }
            let mut children = no_children();
            for (nibble, child) in branch.as_ref().children() {
                if let Some(child) = child {
                    children[usize::from(nibble)] = decode_child(child, depth + 1)?;
                }
            }
            Ok(Kind::Branch(children))
        }
    }
}

fn decode_child<V: Value>(reference: &RlpNode, depth: usize) -> Result<Link<V>, &'static str> {
    match reference.as_slice() {
        [HASH_CODE, hash @ ..] if hash.len() == 32 => Ok(Link::unknown(B256::from_slice(hash))),
        // Each level is deeper by a nibble at least, so this ends.
        rlp if rlp.len() < 32 => Ok(Link::Held(Arc::new(Node::new(decode_loose(rlp, depth)?)))),
        _ => Err("a child is neither a hash nor a small node"),
    }
}

pub(super) fn no_children<V: Value>() -> Box<[Link<V>; 16]> {
    Box::new([const { Link::Empty }; 16])
}

/// The path of a hashed key.
pub(super) fn path(key: &B256) -> Nibbles {
    Nibbles::unpack_array(&key.0)
}

impl Value for U256 {
    fn encode(&self, scratch: &mut Scratch) {
        scratch.value.clear();
        Encodable::encode(self, &mut scratch.value);
    }

    fn decode(mut rlp: &[u8]) -> Option<Self> {
        let value = <Self as Decodable>::decode(&mut rlp).ok()?;
        (rlp.is_empty() && !value.is_zero()).then_some(value)
    }

    fn held(&self) -> usize {
        0
    }

    fn forget(&self, _: &mut Scratch) -> Self {
        *self
    }
}

impl Value for AccountLeaf {
    fn encode(&self, scratch: &mut Scratch) {
        let Account { nonce, balance, code_hash } = self.account;
        let storage_root = self.storage.root(scratch);
        scratch.value.clear();
        TrieAccount { nonce, balance, storage_root, code_hash }.encode(&mut scratch.value);
    }

    fn decode(mut rlp: &[u8]) -> Option<Self> {
        let TrieAccount { nonce, balance, storage_root, code_hash } =
            <TrieAccount as Decodable>::decode(&mut rlp).ok()?;
        let account = Account { nonce, balance, code_hash };
        rlp.is_empty().then(|| Self { account, storage: Link::from_root(storage_root) })
    }

    fn held(&self) -> usize {
        self.storage.held()
    }

    fn forget(&self, scratch: &mut Scratch) -> Self {
        Self { account: self.account, storage: self.storage.prune(0, 0, scratch) }
    }
}
