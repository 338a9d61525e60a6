//! Recent messages, whole, for listeners and for peers that ask.

use std::collections::BTreeMap;

use fragcast_shredder::{Message, MessageKey, VerifiedMessage};

/// About what a message takes beside its transactions.
const ENTRY_COST: usize = 512;

/// The assumed memory of a message.
pub(super) fn cost(message: &VerifiedMessage) -> usize {
    let body = match message.message() {
        Message::Frag(frag) => frag.txs.iter().map(|tx| tx.len() + 32).sum(),
        Message::Env(_) | Message::Seal(_) => 0,
    };
    ENTRY_COST + body
}

/// Messages in bounded memory; the oldest block goes first.
#[derive(Debug)]
pub(in crate::protocol) struct Recent {
    memory: usize,
    bytes: usize,
    messages: BTreeMap<MessageKey, VerifiedMessage>,
}

impl Recent {
    pub(super) const fn new(memory: usize) -> Self {
        Self { memory, bytes: 0, messages: BTreeMap::new() }
    }

    /// Keeps a message if older ones leave room for it.
    pub(super) fn insert(&mut self, key: MessageKey, message: VerifiedMessage) {
        if self.messages.contains_key(&key) {
            return;
        }
        let cost = cost(&message);
        while self.bytes + cost > self.memory {
            match self.messages.first_key_value() {
                Some((oldest, _)) if *oldest < key => self.remove_first(),
                _ => return,
            }
        }
        self.bytes += cost;
        self.messages.insert(key, message);
    }

    fn remove_first(&mut self) {
        if let Some((_, gone)) = self.messages.pop_first() {
            self.bytes -= cost(&gone);
        }
    }

    /// Drops the blocks below `low`.
    pub(super) fn forget_below(&mut self, low: u64) {
        while self.messages.first_key_value().is_some_and(|(key, _)| key.block < low) {
            self.remove_first();
        }
    }

    /// A message, and about what it takes.
    pub(in crate::protocol) fn get(&self, key: &MessageKey) -> Option<(&VerifiedMessage, usize)> {
        self.messages.get(key).map(|message| (message, cost(message)))
    }

    /// Messages of `block` and of those above it, in order.
    pub(super) fn from(&self, block: u64) -> impl Iterator<Item = (&MessageKey, &VerifiedMessage)> {
        self.messages.range(MessageKey { block, attempt: 0, message: 0 }..)
    }

    /// The lowest of all.
    pub(in crate::protocol) fn oldest(&self) -> Option<&MessageKey> {
        self.messages.first_key_value().map(|(key, _)| key)
    }

    /// Bytes held.
    pub(in crate::protocol) const fn bytes(&self) -> usize {
        self.bytes
    }
}
