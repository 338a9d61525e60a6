//! The chain that gateways build, and what they have signed: the truth that nodes are held to.
//!
//! A block begins every two seconds whether its leader is up or not; a block whose leader is down
//! reaches nobody by the overlay. A leader that comes back in mid-block opens the block again, as
//! its journal has it, with other frags.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::{B256, Bytes};
use alloy_trie::root::ordered_trie_root_encoded;
use ed25519_dalek::SigningKey;
use fragcast_shredder::{
    BlockBuilder, CodeRate, Env, GatewayKey, Kind, LossTarget, MessageKey, MessageParams, Seal,
    ShreddedMessage, Shredder, Timestamp, VerifiedMessage,
};
use fragcast_turbine::membership::{Membership, sample};
use fragcast_turbine::{Delegation, PeerId, Plan, Route, Schedule, SignedDelegation};

use super::plan::GATEWAYS;
use crate::{MILLIS, Nanos, NodeId, SECONDS, random};

/// The simulated chain.
pub(super) const CHAIN: u64 = 901;
/// Unix time at the start of a run: blocks have timestamps that fit.
pub(super) const EPOCH: Nanos = 1_800_000_000 * SECONDS;
/// Time between two blocks.
pub(super) const BLOCK_TIME: Nanos = 2 * SECONDS;
/// The first block of a run.
pub(super) const FIRST_BLOCK: u64 = 1_001;
/// Blocks of a term.
const TERM: u64 = 4;
/// When the first block begins.
const START: Nanos = SECONDS;
/// The most frags of a block.
const MAX_FRAGS: u64 = 5;
/// Openings whose messages are kept; of older ones the roots are.
const KEPT: u64 = 8;
/// Openings whose roots are kept.
const REMEMBERED: u64 = 256;

/// A block that a gateway has opened.
#[derive(Debug, Clone)]
pub(super) struct Opening {
    /// All its messages; empty when they are old.
    messages: Vec<VerifiedMessage>,
    /// The roots of all its messages.
    pub(super) roots: Vec<B256>,
    /// How many its leader has sent.
    pub(super) sent: usize,
}

/// Keys, members, and everything that was signed by gateways that do not lie.
pub(super) struct Chain {
    seed: u64,
    pub(super) gateways: Vec<GatewayKey>,
    pub(super) leaders: Vec<SigningKey>,
    pub(super) members: Arc<Membership>,
    pub(super) schedule: Schedule,
    pub(super) delegations: Vec<SignedDelegation>,
    openings: BTreeMap<(u64, u8), Opening>,
}

/// A key from a label and a number.
fn derived(label: &str, number: u64) -> [u8; 32] {
    blake3::derive_key(&format!("fragcast 2026 netsim chaos {label}"), &number.to_le_bytes())
}

/// A gateway's key; from [`GATEWAYS`] on of nobody that the schedule knows.
pub(super) fn gateway_key(number: u64) -> GatewayKey {
    GatewayKey::from_bytes(derived("gateway", number)).expect("2^-128 of all seeds are none")
}

/// A leader's key.
pub(super) fn leader_key(number: u64) -> SigningKey {
    SigningKey::from_bytes(&derived("leader", number))
}

/// The timestamp of a block by the chain's clock.
pub(super) const fn built_at(block: u64) -> Timestamp {
    Timestamp::from_nanos(EPOCH.saturating_add(begins_at(block)))
}

/// The time at which a block begins.
pub(super) const fn begins_at(block: u64) -> Nanos {
    START.saturating_add(block.saturating_sub(FIRST_BLOCK).saturating_mul(BLOCK_TIME))
}

/// The block that is under way.
pub(super) const fn current(now: Nanos) -> u64 {
    FIRST_BLOCK + now.saturating_sub(START) / BLOCK_TIME
}

impl Chain {
    /// A chain of members with drawn weights, of which some are zero.
    pub(super) fn new(seed: u64, nodes: u32) -> Self {
        let mut random = random::stream(seed, "chaos weights", 0);
        let weights: Vec<u64> = (0..nodes)
            .map(|node| match random::below(&mut random, 10) {
                0 if node >= GATEWAYS => 0,
                weight => 1 + weight as u64,
            })
            .collect();
        let members = Arc::new(sample(CHAIN, &weights).0);
        let gateways: Vec<GatewayKey> = (0..GATEWAYS.into()).map(gateway_key).collect();
        let leaders: Vec<SigningKey> = (0..GATEWAYS.into()).map(leader_key).collect();
        let addresses = gateways.iter().map(GatewayKey::address).collect();
        let schedule = Schedule::new(addresses, TERM).expect("there are gateways");
        let mut chain = Self {
            seed,
            gateways,
            leaders,
            members,
            schedule,
            delegations: Vec::new(),
            openings: BTreeMap::new(),
        };
        chain.delegations = (0..GATEWAYS)
            .map(|gateway| {
                let key = &chain.leaders[gateway as usize];
                chain.delegate(gateway, key, 1, (0, u64::MAX))
            })
            .collect();
        chain
    }

    /// The peer id of a node.
    pub(super) fn peer(&self, node: NodeId) -> PeerId {
        self.members.members()[node as usize].peer()
    }

    /// A gateway's delegation of a range of blocks to its node and a key.
    pub(super) fn delegate(
        &self,
        gateway: u32,
        key: &SigningKey,
        sequence: u64,
        (first, last): (u64, u64),
    ) -> SignedDelegation {
        let delegation = Delegation {
            chain_id: CHAIN,
            first,
            last,
            sequence,
            peer: self.peer(gateway),
            key: key.verifying_key().to_bytes(),
        };
        delegation.sign(&self.gateways[gateway as usize])
    }

    /// The gateway of a block, which is also the number of the node that leads it.
    pub(super) fn gateway(&self, block: u64) -> u32 {
        let address = self.schedule.gateway(block);
        let of = self.gateways.iter().position(|key| key.address() == address);
        of.expect("the schedule names these") as u32
    }

    /// The first block from `block` on that a gateway leads.
    pub(super) fn next_of(&self, gateway: u32, block: u64) -> u64 {
        (block..=u64::MAX).find(|block| self.gateway(*block) == gateway).unwrap_or(u64::MAX)
    }

    /// When message `index` of a block is due, and how many there are.
    pub(super) fn due(&self, block: u64, attempt: u8, index: usize) -> Nanos {
        let count = self.count(block, attempt);
        // The Seal comes 200 ms before the next block.
        begins_at(block) + index as Nanos * (BLOCK_TIME - 200 * MILLIS) / (count as Nanos - 1)
    }

    /// How many messages an opening has.
    pub(super) fn count(&self, block: u64, attempt: u8) -> usize {
        let mut random = random::stream(self.seed, "chaos frags", block << 4 | u64::from(attempt));
        2 + random::below(&mut random, MAX_FRAGS as usize + 1)
    }

    /// The number of the opening that counts: the latest.
    pub(super) fn attempt(&self, block: u64) -> Option<u8> {
        self.openings.range((block, 0)..=(block, u8::MAX)).next_back().map(|((_, a), _)| *a)
    }

    /// An opening.
    pub(super) fn opening(&self, block: u64, attempt: u8) -> Option<&Opening> {
        self.openings.get(&(block, attempt))
    }

    /// All openings of a block.
    pub(super) fn openings(&self, block: u64) -> impl Iterator<Item = &Opening> {
        self.openings.range((block, 0)..=(block, u8::MAX)).map(|(_, opening)| opening)
    }

    /// The hash of a block.
    fn hash(&self, block: u64) -> B256 {
        let attempt = self.attempt(block).unwrap_or(0);
        B256::from(derived("block", block << 8 | u64::from(attempt)))
    }

    /// A block's Env before it is signed.
    pub(super) fn env(&self, block: u64, attempt: u8) -> Env {
        Env {
            parent_hash: self.hash(block - 1),
            timestamp: EPOCH.saturating_add(begins_at(block)) / SECONDS,
            prevrandao: B256::with_last_byte(attempt),
            ..BlockBuilder::new(block).env()
        }
    }

    /// Opens a block.
    pub(super) fn open(&mut self, block: u64, attempt: u8) {
        let frags = self.count(block, attempt) as u64 - 2;
        let key = &self.gateways[self.gateway(block) as usize];
        let builder = BlockBuilder::from_env(self.env(block, attempt));
        let mut random = random::stream(self.seed, "chaos txs", block << 4 | u64::from(attempt));
        let txs: Vec<Bytes> = (0..frags)
            .map(|_| {
                // Mostly small; one in twenty is long.
                let longest = if random::below(&mut random, 20) == 0 { 150_000 } else { 12_000 };
                let mut tx = vec![0; 100 + random::below(&mut random, longest)];
                rand::RngCore::fill_bytes(&mut random, &mut tx);
                tx.into()
            })
            .collect();
        let mut messages = vec![key.sign_verified(builder.env())];
        for (seq, tx) in (0..).zip(&txs) {
            let mut frag = builder.frag_at(seq, [tx.clone()]);
            frag.is_last = seq + 1 == frags;
            messages.push(key.sign_verified(frag));
        }
        messages.push(key.sign_verified(Seal {
            transactions_root: ordered_trie_root_encoded(&txs),
            block_hash: B256::from(derived("block", block << 8 | u64::from(attempt))),
            ..builder.seal_of(frags)
        }));
        let roots = messages.iter().map(VerifiedMessage::root).collect();
        self.openings.insert((block, attempt), Opening { messages, roots, sent: 0 });
        for old in self.openings.range_mut(..(block.saturating_sub(KEPT), 0)).map(|(_, old)| old) {
            old.messages = Vec::new();
        }
        self.openings = self.openings.split_off(&(block.saturating_sub(REMEMBERED), 0));
    }

    /// The next message that a leader has to send of an opening.
    pub(super) fn next(&self, block: u64, attempt: u8) -> Option<(usize, VerifiedMessage)> {
        let opening = self.opening(block, attempt)?;
        Some((opening.sent, opening.messages.get(opening.sent)?.clone()))
    }

    /// It was sent.
    pub(super) fn sent(&mut self, block: u64, attempt: u8) {
        if let Some(opening) = self.openings.get_mut(&(block, attempt)) {
            opening.sent += 1;
        }
    }

    /// Cuts any bytes as a leader's key would, for the route over a tree.
    pub(super) fn cut(
        &self,
        key: &SigningKey,
        place: MessageKey,
        kind: Kind,
        wire: &[u8],
        sent_at: Timestamp,
    ) -> ShreddedMessage {
        let leader = key.verifying_key().to_bytes();
        let plan = Plan::configured(CHAIN, leader, &self.members).id();
        let (route, route_param) = Route::Turbine { fanout: 4 }.to_wire();
        let params = MessageParams { key: place, kind, plan, route, route_param, sent_at };
        let rate = CodeRate::new(wire.len(), LossTarget::default());
        Shredder::new(CHAIN, key.clone()).shred(wire, &params, rate).expect("of a usual length")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_times_that_fit_and_stand_on_one_another() {
        let mut chain = Chain::new(1, 12);
        for block in FIRST_BLOCK..FIRST_BLOCK + 20 {
            chain.open(block, 0);
            let env = chain.env(block, 0);
            assert_eq!(env.parent_hash, chain.hash(block - 1));
            assert_eq!(env.timestamp * SECONDS, EPOCH + begins_at(block));
            assert_eq!(current(begins_at(block)), block);
            assert_eq!(current(begins_at(block) - 1), block.saturating_sub(1).max(FIRST_BLOCK));
            let count = chain.count(block, 0);
            assert_eq!(chain.opening(block, 0).unwrap().roots.len(), count);
            assert!(chain.due(block, 0, count - 1) < begins_at(block + 1));
            assert!(chain.gateway(block) < GATEWAYS);
        }
        assert!(chain.opening(FIRST_BLOCK, 0).unwrap().messages.is_empty(), "old ones are let go");
    }

    #[test]
    fn a_block_that_is_opened_again_has_other_content() {
        let mut chain = Chain::new(1, 12);
        (0..2).for_each(|attempt| chain.open(FIRST_BLOCK, attempt));
        assert_eq!(chain.attempt(FIRST_BLOCK), Some(1));
        let roots: Vec<_> = chain.openings(FIRST_BLOCK).map(|o| o.roots.clone()).collect();
        assert_ne!(roots[0][0], roots[1][0]);
        assert_ne!(chain.hash(FIRST_BLOCK), B256::from(derived("block", FIRST_BLOCK << 8)));
    }
}
