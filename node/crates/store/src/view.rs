//! Reading: the state after one block, as long as somebody holds it, and the chain up to that
//! block.
//!
//! A [`StoreView`] is one read transaction (MVCC), so later writes do not change it. Pages that it
//! can reach are not reused while it lives, and the file grows by what is written in that time. So
//! a view should be dropped once a newer one has replaced it.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rlp::Decodable;
use alloy_trie::Nibbles;
use arc_swap::ArcSwap;
use fragcast_execution::exec::{ExecutedBlock, Layer, StateView};
use fragcast_execution::executor::Reach;
use fragcast_execution::state::{Account, SourceError};
use fragcast_execution::trie::{TrieId, TrieNodes};
use redb::{ReadOnlyTable, ReadableDatabase, ReadableTable as _};

use super::StoreError;
use super::body::{assemble, decode_body, decode_receipts};
use super::codec::{self, Bad, Head};
use super::tables::{self, meta};
use super::undo::Undo;

/// Makes an error that says what is damaged.
pub(super) fn corrupt(what: impl std::fmt::Display) -> impl FnOnce(Bad) -> StoreError {
    move |bad| StoreError::Corrupt(format!("{what}: {bad}"))
}

/// The most values that are laid over the state to have that of an older block: 256 blocks of 4,000.
const MOST_TAKEN_BACK: usize = 1 << 20;

/// The state after the block that was the newest durable one when the view was opened, with its
/// history.
pub struct StoreView {
    pub(super) head: Head,
    op: bool,
    pub(super) accounts: ReadOnlyTable<&'static [u8; 20], &'static [u8]>,
    pub(super) slots: ReadOnlyTable<&'static [u8; 52], &'static [u8]>,
    pub(super) codes: ReadOnlyTable<&'static [u8; 32], &'static [u8]>,
    pub(super) nodes: ReadOnlyTable<&'static [u8], &'static [u8]>,
    headers: ReadOnlyTable<&'static [u8; 32], &'static [u8]>,
    canonical: ReadOnlyTable<u64, &'static [u8; 32]>,
    pub(super) bodies: ReadOnlyTable<u64, &'static [u8]>,
    receipts: ReadOnlyTable<u64, &'static [u8]>,
    txs: ReadOnlyTable<&'static [u8; 32], (u64, u32)>,
    pub(super) undo: ReadOnlyTable<u64, &'static [u8]>,
}

impl std::fmt::Debug for StoreView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreView").field("head", &self.head).finish_non_exhaustive()
    }
}

impl StoreView {
    /// Opens the state as it is committed now.
    pub(super) fn open(db: &impl ReadableDatabase, op: bool) -> Result<Self, StoreError> {
        let txn = db.begin_read()?;
        let known = txn.open_table(tables::META)?;
        let head = known.get(meta::HEAD)?.ok_or_else(|| corrupt("the head")(Bad("it is gone")))?;
        let head = Head::decode(head.value()).map_err(corrupt("the head"))?;
        Ok(Self {
            head,
            op,
            accounts: txn.open_table(tables::ACCOUNTS)?,
            slots: txn.open_table(tables::SLOTS)?,
            codes: txn.open_table(tables::CODES)?,
            nodes: txn.open_table(tables::NODES)?,
            headers: txn.open_table(tables::HEADERS)?,
            canonical: txn.open_table(tables::CANONICAL)?,
            bodies: txn.open_table(tables::BODIES)?,
            receipts: txn.open_table(tables::RECEIPTS)?,
            txs: txn.open_table(tables::TXS)?,
            undo: txn.open_table(tables::UNDO)?,
        })
    }

    pub(super) fn hash(&self, number: u64) -> Result<Option<B256>, StoreError> {
        Ok(self.canonical.get(number)?.map(|hash| B256::new(*hash.value())))
    }

    /// The canonical block before one, if that is not the first.
    pub(super) fn canonical_before(&self, number: u64) -> Result<Option<(u64, B256)>, StoreError> {
        let Some(last) = self.canonical.range(..number)?.next_back() else { return Ok(None) };
        let (number, hash) = last?;
        Ok(Some((number.value(), B256::new(*hash.value()))))
    }

    /// How far back blocks and states go. The state before the oldest undo record is that after the
    /// block before it.
    pub(super) fn reach(&self) -> Result<Reach, StoreError> {
        let first = |table: &ReadOnlyTable<u64, &'static [u8]>| {
            Ok::<_, StoreError>(table.first()?.map(|(number, _)| number.value()))
        };
        let head = self.head.number;
        let state = first(&self.undo)?.map_or(head, |undo| undo.saturating_sub(1));
        Ok(Reach { block: first(&self.bodies)?, state: Some(state), durable: Some(head) })
    }

    pub(super) fn header(&self, hash: B256) -> Result<Option<Header>, StoreError> {
        let Some(rlp) = self.headers.get(&hash.0)? else { return Ok(None) };
        let wrong = |why| corrupt(format_args!("the header of block {hash}"))(Bad(why));
        let mut bytes = rlp.value();
        let header = Header::decode(&mut bytes).map_err(|_| wrong("it does not decode"))?;
        if !bytes.is_empty() {
            return Err(wrong("it has trailing bytes"));
        }
        Ok(Some(header))
    }

    pub(super) fn block(&self, hash: B256) -> Result<Option<ExecutedBlock>, StoreError> {
        let Some(header) = self.header(hash)? else { return Ok(None) };
        let number = header.number;
        let (Some(body), Some(receipts)) = (self.bodies.get(number)?, self.receipts.get(number)?)
        else {
            return Ok(None);
        };
        let wrong = || corrupt(format!("block {number}"));
        let body = decode_body(body.value(), self.op).map_err(wrong())?;
        let receipts = decode_receipts(receipts.value()).map_err(wrong())?;
        assemble(hash, header, body, receipts).map(Some).map_err(wrong())
    }

    pub(super) fn tx(&self, hash: B256) -> Result<Option<(B256, usize)>, StoreError> {
        let Some(place) = self.txs.get(&hash.0)? else { return Ok(None) };
        let (number, index) = place.value();
        Ok(self.hash(number)?.map(|block| (block, index as usize)))
    }

    /// The values that were overwritten after block `number`, as a layer over this state; `None` if the
    /// undo record of a block is gone, or they are more than [`MOST_TAKEN_BACK`].
    pub(super) fn taken_back(&self, number: u64) -> Result<Option<Layer>, StoreError> {
        let (mut layer, mut left) = (Layer::default(), MOST_TAKEN_BACK);
        for undone in number.saturating_add(1)..=self.head.number {
            let Some(record) = self.undo.get(undone)? else { return Ok(None) };
            let wrong = || corrupt(format!("the undo record of block {undone}"));
            let undo = Undo::decode_flat(record.value()).map_err(wrong())?;
            match left.checked_sub(undo.accounts.len() + undo.slots.len()) {
                Some(rest) => left = rest,
                None => return Ok(None),
            }
            // The first to have overwritten a value knows what it was.
            for (address, value) in undo.accounts {
                let account = value.as_deref().map(codec::decode_account).transpose();
                let account = account.map_err(wrong())?;
                layer.accounts.entry(address.into()).or_insert(account);
            }
            for (key, value) in undo.slots {
                let (address, slot) = codec::split_slot_key(&key);
                let value = value.as_deref().map(codec::decode_slot).transpose();
                let value = value.map_err(wrong())?.unwrap_or_default();
                layer.storage.entry(address).or_default().slots.entry(slot).or_insert(value);
            }
        }
        Ok(Some(layer))
    }

    fn read_account(&self, address: Address) -> Result<Option<Account>, StoreError> {
        let Some(account) = self.accounts.get(&address.into_array())? else { return Ok(None) };
        let account = codec::decode_account(account.value());
        account.map(Some).map_err(corrupt(format_args!("account {address}")))
    }

    fn read_slot(&self, address: Address, slot: U256) -> Result<U256, StoreError> {
        let value = self.slots.get(&codec::slot_key(address, slot))?;
        let Some(value) = value else { return Ok(U256::ZERO) };
        codec::decode_slot(value.value()).map_err(corrupt(format_args!("slot {slot} of {address}")))
    }

    /// The node at a path, if there is one.
    pub(super) fn read_node(
        &self,
        trie: TrieId,
        path: &Nibbles,
    ) -> Result<Option<Bytes>, StoreError> {
        let node = self.nodes.get(codec::trie_key(trie, path).as_slice())?;
        Ok(node.map(|node| Bytes::copy_from_slice(node.value())))
    }
}

impl StateView for StoreView {
    fn account(&self, address: Address) -> Result<Option<Account>, SourceError> {
        Ok(self.read_account(address)?)
    }

    fn storage(&self, address: Address, slot: U256) -> Result<U256, SourceError> {
        Ok(self.read_slot(address, slot)?)
    }

    fn code(&self, hash: B256) -> Result<Bytes, SourceError> {
        match self.codes.get(&hash.0).map_err(StoreError::from)? {
            Some(code) => Ok(Bytes::copy_from_slice(code.value())),
            None => Err(SourceError::Missing(format!("the code {hash}"))),
        }
    }
}

impl TrieNodes for StoreView {
    /// [`SourceError::Missing`] also if another node is there: the state has moved on, and the trie
    /// that asks is of another block.
    fn node(&self, trie: TrieId, path: &Nibbles, hash: B256) -> Result<Bytes, SourceError> {
        let node = self.read_node(trie, path)?;
        node.filter(|node| keccak256(node) == hash).ok_or_else(|| {
            let number = self.head.number;
            SourceError::Missing(format!("trie node {hash} at {path:?} in block {number}"))
        })
    }
}

/// Trie nodes of the block that is the newest durable one when they are read. Tries in memory
/// resolve from it. See [the module](super).
#[derive(Debug, Clone)]
pub struct LiveNodes(pub(super) Arc<ArcSwap<StoreView>>);

impl TrieNodes for LiveNodes {
    fn node(&self, trie: TrieId, path: &Nibbles, hash: B256) -> Result<Bytes, SourceError> {
        self.0.load().node(trie, path, hash)
    }
}
