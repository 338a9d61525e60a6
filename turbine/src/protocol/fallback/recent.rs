//! Recent messages, whole, for listeners and for peers that ask.

use std::collections::BTreeMap;

use fragcast_shredder::{Message, MessageKey, VerifiedMessage};

/// About what a message takes beside its transactions.
const ENTRY_COST: usize = 512;

/// The assumed memory of a message.
pub(in crate::protocol) fn cost(message: &VerifiedMessage) -> usize {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{env, frag};

    #[test]
    fn the_oldest_block_makes_room_and_nothing_older_comes_in() {
        let key = |block, message| MessageKey { block, attempt: 0, message };
        let each = cost(&frag(1, 0));
        let mut recent = Recent::new(3 * each);
        for block in [5, 6, 7] {
            recent.insert(key(block, 1), frag(block, 0));
        }
        recent.insert(key(4, 1), frag(4, 0));
        assert!(recent.get(&key(4, 1)).is_none() && recent.bytes() == 3 * each);
        recent.insert(key(8, 1), frag(8, 0));
        recent.insert(key(8, 1), frag(8, 0));
        assert_eq!(recent.oldest(), Some(&key(6, 1)));
        let (message, takes) = recent.get(&key(7, 1)).unwrap();
        assert_eq!((message, takes), (&frag(7, 0), each));
        assert_eq!(recent.from(7).count(), 2);
        recent.forget_below(8);
        assert_eq!((recent.oldest(), recent.bytes()), (Some(&key(8, 1)), each));
        recent.insert(key(9, 0), env(9));
        assert_eq!(recent.bytes(), each + cost(&env(9)));
    }
}
