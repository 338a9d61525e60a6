//! Forwarded transactions: sent to a gateway, and not yet executed here.
//!
//! An entry ends when it is executed, or when it is *dropped*, for a reason ([`Dropped`]) that
//! whoever removed it takes with [`Table::take_dropped`].

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256};

use fragcast_execution::exec::Tx;
use fragcast_execution::exec::admission::{Why, replaces};

use super::dropped::Dropped;

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
    /// A transaction that could have been in so many whole blocks and was in none is dropped: whoever
    /// took it will not include it, and later ones of its sender would wait for it.
    pub blocks: u64,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self {
            total: 4096,
            bytes: 32 * 1024 * 1024,
            per_sender: 64,
            ttl: Duration::from_secs(60),
            blocks: 4,
        }
    }
}

/// Why a transaction is not added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TableFull {
    /// It is in the table already.
    Known,
    /// Its sender has too many.
    Sender,
    /// One with its nonce is there, and it offers too little to replace that; in geth's words.
    Underpriced(String),
}

struct Entry {
    tx: Tx,
    order: u64,
    since: Instant,
    /// Whether somebody has taken it.
    taken: bool,
    /// The first block that it could be in from its beginning.
    from_block: u64,
}

/// The first transaction of a sender, and what the state says to it.
pub(super) enum Standing {
    /// A block could include it now.
    Includable,
    /// Not now, but perhaps later: its fees are below the block's.
    Waits,
    /// Never.
    Over(Why, String),
}

/// The table. Every entry is in all three maps.
pub(super) struct Table {
    limits: TableLimits,
    entries: HashMap<B256, Entry>,
    senders: HashMap<Address, BTreeSet<(u64, B256)>>,
    order: BTreeMap<u64, B256>,
    next: u64,
    bytes: usize,
    dropped: Vec<(B256, Dropped)>,
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
            dropped: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, hash: B256) -> Option<&Tx> {
        self.entries.get(&hash).map(|entry| &entry.tx)
    }

    /// All transactions by sender and nonce.
    pub(super) fn all(&self) -> impl Iterator<Item = (Address, impl Iterator<Item = &Tx>)> {
        self.senders.iter().map(|(sender, waiting)| {
            let txs = waiting.iter().filter_map(|(_, hash)| self.get(*hash));
            (*sender, txs)
        })
    }

    /// Those who have transactions here.
    pub(super) fn senders(&self) -> Vec<Address> {
        self.senders.keys().copied().collect()
    }

    /// What was dropped since this was asked.
    pub(super) fn take_dropped(&mut self) -> Vec<(B256, Dropped)> {
        std::mem::take(&mut self.dropped)
    }

    fn drop_for(&mut self, hash: B256, why: Dropped) {
        if self.entries.contains_key(&hash) {
            self.remove(hash);
            self.dropped.push((hash, why));
        }
    }

    /// The transactions of a sender with this nonce, the newest first.
    fn with_nonce(&self, sender: Address, nonce: u64) -> Vec<&Entry> {
        let Some(waiting) = self.senders.get(&sender) else { return Vec::new() };
        let range = waiting.range((nonce, B256::ZERO)..=(nonce, B256::repeat_byte(0xff)));
        let mut entries: Vec<&Entry> =
            range.filter_map(|(_, hash)| self.entries.get(hash)).collect();
        entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.order));
        entries
    }

    /// Adds a transaction, which can be in a block from `from_block` on.
    pub(super) fn insert(
        &mut self,
        tx: Tx,
        from_block: u64,
        now: Instant,
    ) -> Result<(), TableFull> {
        self.expire(now);
        if self.entries.contains_key(&tx.hash) {
            return Err(TableFull::Known);
        }
        for other in self.with_nonce(tx.sender, tx.envelope.nonce()) {
            replaces(&tx, &other.tx).map_err(|error| TableFull::Underpriced(error.to_string()))?;
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
            self.drop_for(*oldest, Dropped::Full);
        }
        self.bytes += bytes;
        self.order.insert(self.next, tx.hash);
        self.senders.entry(tx.sender).or_default().insert((tx.envelope.nonce(), tx.hash));
        let entry = Entry { tx, order: self.next, since: now, taken: false, from_block };
        self.entries.insert(entry.tx.hash, entry);
        self.next += 1;
        Ok(())
    }

    /// Somebody has taken a transaction: it replaces older ones with its nonce.
    pub(super) fn taken(&mut self, hash: B256) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        entry.taken = true;
        let (order, sender, nonce) = (entry.order, entry.tx.sender, entry.tx.envelope.nonce());
        let others = self.with_nonce(sender, nonce).into_iter();
        let older: Vec<B256> =
            others.filter(|other| other.order < order).map(|other| other.tx.hash).collect();
        for other in older {
            self.drop_for(other, Dropped::Replaced(hash));
        }
    }

    /// Drops those of a sender whose nonce is below `next`, which is its next one in the state, while
    /// `block` is the next block. Returns the one that has that nonce.
    pub(super) fn advance(&mut self, sender: Address, next: u64, block: u64) -> Option<Tx> {
        let waiting = self.senders.get(&sender)?;
        let passed: Vec<(u64, B256)> =
            waiting.iter().take_while(|(nonce, _)| *nonce < next).copied().collect();
        let later: Vec<B256> =
            waiting.iter().skip_while(|(nonce, _)| *nonce <= next).map(|(_, hash)| *hash).collect();
        for (nonce, hash) in passed {
            let text = format!("nonce too low: next nonce {next}, tx nonce {nonce}");
            self.drop_for(hash, Dropped::Invalid(Why::Nonce, text));
        }
        for hash in later {
            self.wait(hash, block);
        }
        self.with_nonce(sender, next).first().map(|entry| entry.tx.clone())
    }

    /// Blocks before `block` did not leave it out.
    fn wait(&mut self, hash: B256, block: u64) {
        if let Some(entry) = self.entries.get_mut(&hash) {
            entry.from_block = entry.from_block.max(block);
        }
    }

    /// Takes note of how the first transaction of a sender stands, while `block` is the next block.
    pub(super) fn stands(&mut self, hash: B256, standing: Standing, block: u64) {
        match standing {
            Standing::Over(why, text) => self.drop_for(hash, Dropped::Invalid(why, text)),
            Standing::Waits => self.wait(hash, block),
            Standing::Includable => {
                let blocks = self.limits.blocks.max(1);
                let left_out = self.entries.get(&hash).is_some_and(|entry| {
                    entry.taken && block >= entry.from_block.saturating_add(blocks)
                });
                if left_out {
                    self.drop_for(hash, Dropped::LeftOut(blocks));
                }
            }
        }
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
        for (other, passed) in passed.copied().collect::<Vec<_>>() {
            let why = if other == nonce {
                Dropped::Replaced(hash)
            } else {
                let next = nonce.saturating_add(1);
                let text = format!("nonce too low: next nonce {next}, tx nonce {other}");
                Dropped::Invalid(Why::Nonce, text)
            };
            self.drop_for(passed, why);
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
            self.drop_for(hash, Dropped::Expired);
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
