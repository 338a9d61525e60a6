//! One set: its shards as they come, and the whole of it.

use bytes::{Bytes, BytesMut};

use crate::coding::Codes;
use crate::merkle::{self, Tree};
use crate::shred::{SIGNATURE_LEN, SetHeader, shard_range, write_frame};
use crate::validator::ValidatedShred;

use super::ENTRY_COST;

/// A complete set, from which any of its shreds can be made.
#[derive(Clone)]
pub struct RecoveredSet {
    /// The set's header.
    pub header: SetHeader,
    /// The Merkle root.
    pub root: merkle::Hash,
    /// One bit for each shred that arrived and was not recovered.
    pub arrived: u64,
    /// Of those, one bit for each that came by repair.
    pub repaired: u64,
    signature: [u8; SIGNATURE_LEN],
    tree: Tree,
    shards: Vec<u8>,
}

impl std::fmt::Debug for RecoveredSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecoveredSet({:?}, arrived {:b})", self.header.set_key(), self.arrived)
    }
}

impl RecoveredSet {
    /// The bytes of shred `index`, as the leader sent them.
    ///
    /// # Panics
    /// If `index` is not below k + m.
    pub fn shred(&self, index: u8) -> Bytes {
        let len = usize::from(self.header.shard_len);
        let start = usize::from(index) * len;
        let mut slot = BytesMut::zeroed(self.header.shred_len());
        slot[shard_range(&self.header)].copy_from_slice(&self.shards[start..start + len]);
        let path = self.tree.path(index.into());
        write_frame(&mut slot, &self.header, index, path, &self.signature);
        slot.freeze()
    }

    /// Indices of the shreds that had not come by themselves: they were recovered, or brought by
    /// repair.
    pub fn missing(&self) -> impl Iterator<Item = u8> + use<> {
        let (live, n) = (self.arrived & !self.repaired, self.header.shards() as u8);
        (0..n).filter(move |i| live >> i & 1 == 0)
    }
}

pub(super) struct SetState {
    pub(super) header: SetHeader,
    pub(super) root: merkle::Hash,
    signature: [u8; SIGNATURE_LEN],
    /// One bit for each shred that is here.
    pub(super) present: u64,
    pub(super) complete: bool,
    /// Of those, one bit for each that came by repair.
    pub(super) repaired: u64,
    leaves: Vec<merkle::Hash>,
    shards: Vec<u8>,
}

impl SetState {
    pub(super) fn new(shred: &ValidatedShred) -> Self {
        let header = *shred.header();
        Self {
            header,
            root: shred.root(),
            signature: *shred.shred().signature(),
            present: 0,
            complete: false,
            repaired: 0,
            leaves: vec![[0; 32]; header.shards()],
            shards: vec![0; header.shards() * usize::from(header.shard_len)],
        }
    }

    pub(super) fn cost(header: &SetHeader) -> usize {
        ENTRY_COST + header.shards() * (32 + usize::from(header.shard_len))
    }

    pub(super) fn store(&mut self, shred: &ValidatedShred) {
        let (index, len) = (usize::from(shred.shred().index()), usize::from(self.header.shard_len));
        self.shards[index * len..(index + 1) * len].copy_from_slice(shred.shred().shard());
        self.leaves[index] = shred.leaf();
        self.present |= 1 << index;
    }

    pub(super) fn data_mask(&self) -> u64 {
        u64::MAX >> (64 - u32::from(self.header.k))
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.shards[..usize::from(self.header.k) * usize::from(self.header.shard_len)]
    }

    /// Computes the missing shards and compares the root; `None` if the parity is bad.
    pub(super) fn recover(&mut self, codes: &mut Codes) -> Option<RecoveredSet> {
        let (k, len) = (usize::from(self.header.k), usize::from(self.header.shard_len));
        // A set takes no shred beyond its k-th, so the present ones determine all others.
        if self.header.m > 0 {
            let mut shards: Vec<&mut [u8]> = self.shards.chunks_exact_mut(len).collect();
            codes.recover(k, &mut shards, self.present).ok()?;
        }
        let missing: Vec<usize> =
            (0..self.header.shards()).filter(|i| self.present >> i & 1 == 0).collect();
        let shards: Vec<&[u8]> =
            missing.iter().map(|i| &self.shards[i * len..(i + 1) * len]).collect();
        let mut hashes = Vec::new();
        merkle::leaves(&shards, &mut hashes);
        for (i, hash) in missing.iter().zip(hashes) {
            self.leaves[*i] = hash;
        }
        let tree = Tree::new(&self.leaves);
        (tree.root() == self.root).then(|| RecoveredSet {
            header: self.header,
            root: self.root,
            arrived: self.present,
            repaired: self.repaired,
            signature: self.signature,
            tree,
            shards: self.shards.clone(),
        })
    }
}
