//! Recent messages, whole, for listeners and for peers that ask.

use std::collections::BTreeMap;

use fragcast_shredder::{Full, Message, MessageKey, Owner, Shares, VerifiedMessage};

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

/// Messages in bounded memory, divided by gateways: see [`shares`](fragcast_shredder::shares).
#[derive(Debug)]
pub(in crate::protocol) struct Recent {
    shares: Shares<MessageKey>,
    messages: BTreeMap<MessageKey, VerifiedMessage>,
}

impl Recent {
    pub(super) const fn new(memory: usize) -> Self {
        Self { shares: Shares::new(memory), messages: BTreeMap::new() }
    }

    /// Keeps a message if there is room for it. Returns those that have made room.
    pub(super) fn insert(&mut self, key: MessageKey, message: VerifiedMessage) -> Vec<MessageKey> {
        let mut gone = Vec::new();
        if self.messages.contains_key(&key) {
            return gone;
        }
        let (owner, cost) = (Owner::from(message.gateway()), cost(&message));
        loop {
            match self.shares.victim(&owner, &key, cost) {
                Err(Full) => return gone,
                Ok(None) => break,
                Ok(Some(worst)) => {
                    self.remove(&worst);
                    gone.push(worst);
                }
            }
        }
        self.shares.charge(owner, key, cost);
        self.messages.insert(key, message);
        gone
    }

    fn remove(&mut self, key: &MessageKey) {
        if let Some(gone) = self.messages.remove(key) {
            self.shares.refund(&Owner::from(gone.gateway()), key, cost(&gone), true);
        }
    }

    /// Drops the blocks below `low`.
    pub(super) fn forget_below(&mut self, low: u64) {
        while let Some(key) = self.oldest().copied().filter(|key| key.block < low) {
            self.remove(&key);
        }
    }

    /// The blocks that are open, both ends included.
    pub(super) fn set_open(&mut self, low: u64, high: u64) {
        self.shares.set_open(low, high);
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
        self.shares.used()
    }
}

#[cfg(test)]
mod tests {
    use fragcast_shredder::GatewayKey;

    use super::*;
    use crate::testing::{env, frag};

    fn key(block: u64, message: u16) -> MessageKey {
        MessageKey { block, attempt: 0, message }
    }

    #[test]
    fn the_oldest_block_makes_room_and_nothing_older_comes_in() {
        let each = cost(&frag(1, 0));
        // One gateway has half.
        let mut recent = Recent::new(6 * each);
        for block in [5, 6, 7] {
            recent.set_open(block, block);
            assert!(recent.insert(key(block, 1), frag(block, 0)).is_empty());
        }
        assert!(recent.insert(key(4, 1), frag(4, 0)).is_empty());
        assert!(recent.get(&key(4, 1)).is_none() && recent.bytes() == 3 * each);
        recent.set_open(8, 8);
        assert_eq!(recent.insert(key(8, 1), frag(8, 0)), [key(5, 1)]);
        assert!(recent.insert(key(8, 1), frag(8, 0)).is_empty());
        assert_eq!(recent.oldest(), Some(&key(6, 1)));
        let (message, takes) = recent.get(&key(7, 1)).unwrap();
        assert_eq!((message, takes), (&frag(7, 0), each));
        assert_eq!(recent.from(7).count(), 2);
        recent.forget_below(8);
        assert_eq!((recent.oldest(), recent.bytes()), (Some(&key(8, 1)), each));
        recent.insert(key(9, 0), env(9));
        assert_eq!(recent.bytes(), each + cost(&env(9)));
    }

    #[test]
    fn a_gateway_s_messages_push_out_none_of_the_open_block_of_another() {
        let other = GatewayKey::from_bytes([7; 32]).unwrap();
        let each = cost(&frag(1, 0));
        let mut recent = Recent::new(8 * each);
        recent.set_open(10, 10);
        for seq in 0..3 {
            recent.insert(key(10, seq), frag(10, seq.into()));
        }
        for block in (11..15).chain(3..9) {
            for seq in 0..8 {
                let message = frag(block, seq.into()).message().clone();
                recent.insert(key(block, seq), other.sign_verified(message));
            }
        }
        assert!((0..3).all(|seq| recent.get(&key(10, seq)).is_some()));
        assert_eq!(recent.bytes(), 7 * each, "half for the other");
    }
}
