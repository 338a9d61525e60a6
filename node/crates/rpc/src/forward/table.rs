//! Forwarded transactions: sent to a gateway, and not yet executed here.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256};

use fragcast_execution::exec::Tx;

/// Bounds of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableLimits {
    /// Transactions; beyond, a new one replaces the oldest.
    pub total: usize,
    /// Bytes of all transactions together; beyond, likewise.
    pub bytes: usize,
    /// Transactions of one sender; beyond, new ones are refused.
    pub per_sender: usize,
    /// How long a transaction is remembered.
    pub ttl: Duration,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self { total: 4096, bytes: 32 * 1024 * 1024, per_sender: 64, ttl: Duration::from_secs(60) }
    }
}

/// Why a transaction is not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableFull {
    /// It is in the table already.
    Known,
    /// Its sender has too many.
    Sender,
}

struct Entry {
    tx: Tx,
    order: u64,
    since: Instant,
}

/// The table. Every entry is in all three maps.
pub(super) struct Table {
    limits: TableLimits,
    entries: HashMap<B256, Entry>,
    senders: HashMap<Address, BTreeSet<(u64, B256)>>,
    order: BTreeMap<u64, B256>,
    next: u64,
    bytes: usize,
}

impl Table {
    pub(super) fn new(limits: TableLimits) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            senders: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
            bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, hash: B256) -> Option<&Tx> {
        self.entries.get(&hash).map(|entry| &entry.tx)
    }

    pub(super) fn insert(&mut self, tx: Tx, now: Instant) -> Result<(), TableFull> {
        self.expire(now);
        if self.entries.contains_key(&tx.hash) {
            return Err(TableFull::Known);
        }
        let waiting = self.senders.get(&tx.sender).map_or(0, BTreeSet::len);
        if waiting >= self.limits.per_sender {
            return Err(TableFull::Sender);
        }
        let bytes = tx.bytes.len();
        while self.entries.len() >= self.limits.total.max(1)
            || self.bytes.saturating_add(bytes) > self.limits.bytes
        {
            let Some((_, oldest)) = self.order.first_key_value() else { break };
            self.remove(*oldest);
        }
        self.bytes += bytes;
        self.order.insert(self.next, tx.hash);
        self.senders.entry(tx.sender).or_default().insert((tx.envelope.nonce(), tx.hash));
        self.entries.insert(tx.hash, Entry { tx, order: self.next, since: now });
        self.next += 1;
        Ok(())
    }

    pub(super) fn remove(&mut self, hash: B256) {
        let Some(Entry { tx, order, .. }) = self.entries.remove(&hash) else { return };
        self.bytes -= tx.bytes.len();
        self.order.remove(&order);
        if let MapEntry::Occupied(mut sender) = self.senders.entry(tx.sender) {
            sender.get_mut().remove(&(tx.envelope.nonce(), hash));
            if sender.get().is_empty() {
                sender.remove();
            }
        }
    }

    /// Removes an executed transaction, and those of its sender that can never be executed because
    /// their nonce is not higher.
    pub(super) fn executed(&mut self, hash: B256, sender: Address, nonce: u64) {
        self.remove(hash);
        let Some(waiting) = self.senders.get(&sender) else { return };
        let passed = waiting.range(..=(nonce, B256::repeat_byte(0xff)));
        for hash in passed.map(|(_, hash)| *hash).collect::<Vec<_>>() {
            self.remove(hash);
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((_, oldest)) = self.order.first_key_value() {
            let hash = *oldest;
            let old = self
                .entries
                .get(&hash)
                .is_none_or(|entry| now.saturating_duration_since(entry.since) >= self.limits.ttl);
            if !old {
                return;
            }
            self.remove(hash);
        }
    }

    /// The nonce after the forwarded transactions that follow `nonce` without a gap.
    pub(super) fn pending_nonce(&self, sender: Address, mut nonce: u64) -> u64 {
        let Some(waiting) = self.senders.get(&sender) else { return nonce };
        // Several may have the same nonce, one replacing another.
        for (next, _) in waiting.range((nonce, B256::ZERO)..) {
            match nonce.checked_add(1) {
                Some(after) if *next == nonce => nonce = after,
                _ if *next > nonce => break,
                _ => {}
            }
        }
        nonce
    }
}
