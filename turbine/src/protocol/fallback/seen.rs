//! Which messages have arrived, and by which way.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256};
use fragcast_shredder::{Kind, MessageKey, Owner, Shares};

use crate::schedule::Lead;
use crate::time::Timestamp;

/// Messages whose arrivals are remembered, about 200 bytes each; half of them at most are of one
/// gateway.
const MAX_SEEN: usize = 32_768;
/// Messages of one place in a block that a gateway may have: as often as a block can be opened.
const MAX_VERSIONS: usize = 8;

/// One message as it arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    root: B256,
    gateway: Address,
    pub(super) attempt: u8,
    pub(super) overlay_at: Option<Timestamp>,
    pub(super) gossip_at: Option<Timestamp>,
    /// Whether it came with another v, and must not be published in canonical form.
    pub(super) unpublished: bool,
    /// Bit i: a peer has answered with it, as one of attempt i.
    pub(super) answered: u8,
}

/// The messages of one place in a block.
#[derive(Debug)]
struct Place {
    owner: Owner,
    arrivals: Vec<Arrival>,
}

/// Arrivals in bounded memory, divided by gateways: see [`shares`](fragcast_shredder::shares).
#[derive(Debug)]
pub(super) struct Seen {
    /// By block and index.
    places: BTreeMap<(u64, u16), Place>,
    shares: Shares<MessageKey>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { places: BTreeMap::new(), shares: Shares::new(MAX_SEEN) }
    }
}

/// A place in a block, whatever the attempt.
const fn place((block, message): (u64, u16)) -> MessageKey {
    MessageKey { block, attempt: 0, message }
}

impl Seen {
    fn at(&self, at: (u64, u16)) -> &[Arrival] {
        self.places.get(&at).map_or(&[], |place| place.arrivals.as_slice())
    }

    /// Whether gossip has brought a message under this key, here or to a peer that answered.
    pub(super) fn has(&self, key: &MessageKey) -> bool {
        let by_gossip = |seen: &Arrival| seen.gossip_at.is_some() && seen.attempt == key.attempt;
        let answered = |seen: &Arrival| seen.answered.checked_shr(key.attempt.into()).unwrap_or(0);
        let mut all = self.at((key.block, key.message)).iter();
        all.any(|seen| by_gossip(seen) || answered(seen) & 1 == 1)
    }

    /// The attempt of its gateway's that a message of gossip most likely belongs to: an Env opens the
    /// next one, the rest goes with the newest Env that is known.
    pub(super) fn guess(&self, block: u64, kind: Kind, gateway: Address, lead: &Lead) -> u8 {
        let envs = self.at((block, 0)).iter().filter(|seen| seen.gateway == gateway);
        // Of what a peer said of its own accord nothing counts that the gateway cannot have.
        let newest = envs.map(|seen| seen.attempt).max();
        let newest = newest.map(|newest| newest.clamp(lead.first_attempt, lead.last_attempt));
        match (kind, newest) {
            (_, None) => lead.first_attempt,
            (Kind::Env, Some(newest)) => newest.saturating_add(1).min(lead.last_attempt),
            (_, Some(newest)) => newest,
        }
    }

    /// The entry of a message of a gateway's, if there is room for it.
    pub(super) fn entry(
        &mut self,
        key: MessageKey,
        root: B256,
        gateway: Address,
    ) -> Option<&mut Arrival> {
        let at = (key.block, key.message);
        let of_gateway = |seen: &&Arrival| seen.gateway == gateway;
        let known =
            self.at(at).iter().position(|seen| seen.root == root && seen.gateway == gateway);
        if known.is_none() {
            if self.at(at).iter().filter(of_gateway).count() >= MAX_VERSIONS {
                return None;
            }
            let owner = self.places.get(&at).map_or(Owner::from(gateway), |place| place.owner);
            while let Some(gone) = self.shares.victim(&owner, &place(at), 1).ok()? {
                self.remove((gone.block, gone.message));
            }
            self.shares.charge(owner, place(at), 1);
            let new = Place { owner, arrivals: Vec::new() };
            self.places.entry(at).or_insert(new).arrivals.push(Arrival {
                root,
                gateway,
                attempt: key.attempt,
                overlay_at: None,
                gossip_at: None,
                unpublished: false,
                answered: 0,
            });
        }
        let all = &mut self.places.get_mut(&at)?.arrivals;
        let index = known.unwrap_or(all.len() - 1);
        Some(&mut all[index])
    }

    fn remove(&mut self, at: (u64, u16)) {
        if let Some(gone) = self.places.remove(&at) {
            self.shares.refund(&gone.owner, &place(at), gone.arrivals.len(), true);
        }
    }

    /// Whether a message of a gateway's must not be published by this node.
    pub(super) fn is_unpublished(&self, key: &MessageKey, root: B256, gateway: Address) -> bool {
        let mut all = self.at((key.block, key.message)).iter();
        all.any(|seen| seen.root == root && seen.gateway == gateway && seen.unpublished)
    }

    /// Drops the blocks below `low`.
    pub(super) fn forget_below(&mut self, low: u64) {
        while let Some(at) =
            self.places.first_key_value().map(|(at, _)| *at).filter(|at| at.0 < low)
        {
            self.remove(at);
        }
    }

    /// The blocks that are open, both ends included.
    pub(super) fn set_open(&mut self, low: u64, high: u64) {
        self.shares.set_open(low, high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: Address = Address::repeat_byte(1);

    fn key(block: u64, attempt: u8, message: u16) -> MessageKey {
        MessageKey { block, attempt, message }
    }

    fn root(n: u64) -> B256 {
        B256::from(blake3::derive_key("root", &n.to_le_bytes()))
    }

    #[test]
    fn what_gossip_or_an_answer_brought_is_here_under_its_attempt() {
        let mut seen = Seen::default();
        seen.entry(key(1, 2, 5), root(1), GATEWAY).unwrap();
        assert!(!seen.has(&key(1, 2, 5)), "an entry alone says nothing");
        let entry = seen.entry(key(1, 2, 5), root(1), GATEWAY).unwrap();
        entry.gossip_at = Some(Timestamp::from_nanos(1));
        entry.answered = 0b1000;
        for (attempt, has) in [(0, false), (2, true), (3, true), (4, false), (200, false)] {
            assert_eq!(seen.has(&key(1, attempt, 5)), has, "attempt {attempt}");
        }
        assert!(!seen.has(&key(1, 2, 6)));
    }

    #[test]
    fn attempts_are_guessed_from_the_envs_that_are_known() {
        let mut seen = Seen::default();
        let lead = Lead { rank: 0, first_attempt: 0, last_attempt: 7 };
        let guess = |seen: &Seen, kind| seen.guess(1, kind, GATEWAY, &lead);
        assert_eq!((guess(&seen, Kind::Env), guess(&seen, Kind::Seal)), (0, 0));
        for attempt in 0..8 {
            assert_eq!(guess(&seen, Kind::Env), attempt);
            seen.entry(key(1, attempt, 0), root(attempt.into()), GATEWAY).unwrap();
            assert_eq!(guess(&seen, Kind::Frag), attempt);
        }
        assert_eq!(guess(&seen, Kind::Env), 7, "as often as a block can be opened");
        assert!(seen.entry(key(1, 7, 0), root(99), GATEWAY).is_none());
        // What one gateway has sent says nothing of another's attempts, and leaves them their room.
        let substitute = Address::repeat_byte(2);
        let lead = Lead { rank: 1, first_attempt: 0, last_attempt: 1 };
        for (root, attempt) in [(1_u64, 0), (100, 1), (101, 1)] {
            assert_eq!(seen.guess(1, Kind::Env, substitute, &lead), attempt);
            let entry = seen.entry(key(1, attempt, 0), self::root(root), substitute).unwrap();
            assert_eq!(entry.attempt, attempt, "though another has signed the same content");
        }
        assert!(seen.entry(key(1, 0, 0), root(3), GATEWAY).is_some(), "known already");
        // Nor is an attempt guessed that it cannot have.
        let lead = Lead { rank: 1, first_attempt: 2, last_attempt: 3 };
        assert_eq!(seen.guess(1, Kind::Frag, substitute, &lead), 2);
        assert_eq!(seen.guess(1, Kind::Frag, GATEWAY, &lead), 3);
    }

    #[test]
    fn the_past_makes_room_and_a_gateway_takes_but_its_share() {
        let mut seen = Seen::default();
        seen.set_open(200, 200);
        let half = MAX_SEEN as u64 / 2;
        let at = |n: u64| key(100 + n / 1_000, 0, (n % 1_000) as u16);
        for n in 0..half {
            seen.entry(at(n), root(n), GATEWAY).unwrap();
        }
        assert!(seen.entry(key(99, 0, 0), root(0), GATEWAY).is_none(), "all others are nearer");
        assert!(seen.entry(key(200, 0, 0), root(0), GATEWAY).is_some());
        assert_eq!((seen.shares.used() as u64, seen.at((100, 999)).len()), (half, 0));
        assert_eq!(seen.at((100, 998)).len(), 1, "of the oldest block what comes last");
        // Whatever one gateway sends, another gets in.
        let other = Address::repeat_byte(2);
        assert!((1..=1_000).all(|n| seen.entry(key(200, 1, n), root(n.into()), other).is_some()));
        seen.forget_below(200);
        assert_eq!(seen.shares.used(), 1_001);
    }

    #[test]
    fn another_v_is_not_published() {
        let mut seen = Seen::default();
        seen.entry(key(1, 0, 1), root(1), GATEWAY).unwrap().unpublished = true;
        seen.entry(key(1, 1, 1), root(2), GATEWAY).unwrap();
        let unpublished = |n| seen.is_unpublished(&key(1, 0, 1), root(n), GATEWAY);
        assert_eq!([1, 2, 3].map(unpublished), [true, false, false]);
        // Who has signed the same with the usual one.
        let substitute = Address::repeat_byte(2);
        seen.entry(key(1, 0, 1), root(1), substitute).unwrap();
        assert!(!seen.is_unpublished(&key(1, 0, 1), root(1), substitute));
    }
}
