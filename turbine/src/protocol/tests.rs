//! Whole networks in virtual time, and peers that lie.

mod again;
mod budgets;
mod catchup;
mod epochs;
mod fallback;
mod gossip;
mod guests;
mod hostile;
mod judging;
mod members;
mod network;
mod planning;
mod repair;
mod substitutes;
mod tables;
mod window;

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::Address;
use ed25519_dalek::SigningKey;
use fragcast_shredder::{
    BlockBuilder, CodeRate, GatewayKey, HashedShred, LossTarget, Message, MessageKey,
    MessageParams, Shred, ShreddedMessage, Shredder, VerifiedMessage,
};

use super::*;
use crate::control::{Control, Hello};
use crate::delegation::Delegation;
use crate::egress::{Lane, Payload};
use crate::membership::{PeerIndex, sample};
use crate::outcome::Outcome;
use crate::output::{Delivered, Via};
use crate::route::Route;
use crate::testing::env_message;
pub(super) use crate::testing::seal_message as seal;

pub(super) const CHAIN: u64 = 5;

/// A network's keys: members, gateways, and the ed25519 key each gateway delegated to.
pub(super) struct World {
    pub(super) members: Arc<Membership>,
    /// The keys behind the members' peer ids.
    pub(super) identities: Vec<SigningKey>,
    pub(super) gateways: Vec<GatewayKey>,
    pub(super) leader_keys: Vec<SigningKey>,
    pub(super) schedule: Schedule,
    /// Schedules of later epochs, by rising first block.
    pub(super) later: Vec<(u64, Schedule)>,
    pub(super) delegations: Vec<SignedDelegation>,
}

impl World {
    /// Gateway g is run by member g; terms have ten blocks.
    pub(super) fn new(weights: &[u64], gateways: usize) -> Self {
        let (members, identities) = sample(CHAIN, weights);
        let keys: Vec<GatewayKey> =
            (0..gateways).map(|g| GatewayKey::from_bytes([g as u8 + 1; 32]).unwrap()).collect();
        let leader_keys: Vec<SigningKey> =
            (0..gateways).map(|g| SigningKey::from_bytes(&[g as u8 + 100; 32])).collect();
        let schedule = Schedule::new(keys.iter().map(GatewayKey::address).collect(), 10).unwrap();
        let delegations = (0..gateways)
            .map(|g| {
                let delegation = Delegation {
                    chain_id: CHAIN,
                    first: 0,
                    last: u64::MAX,
                    sequence: 1,
                    peer: members.members()[g].peer(),
                    key: leader_keys[g].verifying_key().to_bytes(),
                };
                delegation.sign(&keys[g])
            })
            .collect();
        let (members, later) = (Arc::new(members), Vec::new());
        Self { members, identities, gateways: keys, leader_keys, schedule, later, delegations }
    }

    pub(super) fn node(&self, index: usize, config: Config) -> Protocol {
        let peer = self.members.members()[index].peer();
        let leader = self.leader_keys.get(index).cloned();
        Protocol::new(
            config,
            &peer,
            self.members.clone(),
            self.schedule.clone(),
            self.delegations.iter().copied(),
            leader,
        )
        .unwrap()
    }

    /// The address of the gateway that leads `block`.
    pub(super) fn address(&self, block: u64) -> Address {
        let later = self.later.iter().rev().find(|(from, _)| *from <= block);
        later.map_or(&self.schedule, |(_, schedule)| schedule).gateway(block)
    }

    /// The gateway that leads `block`.
    pub(super) fn gateway(&self, block: u64) -> usize {
        let address = self.address(block);
        self.gateways.iter().position(|g| g.address() == address).unwrap()
    }

    pub(super) fn sign(&self, message: Message) -> VerifiedMessage {
        let gateway = &self.gateways[self.gateway(message.block())];
        gateway.sign_verified(message)
    }
}

pub(super) fn env(number: u64) -> Message {
    env_message(number, number)
}

pub(super) fn frag(block_number: u64, seq: u64, len: usize) -> Message {
    let tx: Vec<u8> =
        (0..len).map(|i| (i as u64 * 31 + seq * 7 + block_number % 256) as u8).collect();
    BlockBuilder::new(block_number).frag_at(seq, [tx]).into()
}

pub(super) fn key(message: &Message, attempt: u8) -> MessageKey {
    MessageKey { block: message.block(), attempt, message: message.index().unwrap() }
}

/// Keys by their numbers: in the first epoch those are places in the table.
pub(super) fn peer(number: u32) -> PeerKey {
    PeerKey::from(number)
}

/// A message as its leader cuts it, for a route with one relay a shred, under the plan that
/// configuration gives.
pub(super) fn cut(world: &World, message: &VerifiedMessage, attempt: u8) -> ShreddedMessage {
    let leader = &world.leader_keys[world.gateway(message.message().block())];
    let key = leader.verifying_key().to_bytes();
    let (route, route_param) = Route::Rotor.to_wire();
    let params = MessageParams {
        key: super::tests::key(message.message(), attempt),
        kind: message.message().kind(),
        plan: crate::plan::Plan::configured(CHAIN, key, &world.members).id(),
        route,
        route_param,
        sent_at: Timestamp::from_micros(7),
    };
    let wire = message.to_wire();
    let rate = CodeRate::new(wire.len(), LossTarget::default());
    Shredder::new(CHAIN, leader.clone()).shred(&wire, &params, rate).unwrap()
}

/// All shreds of a message, as they come out of the hashing.
pub(super) fn hashed(cut: &ShreddedMessage) -> Vec<HashedShred> {
    let shreds = cut.sets.iter().flat_map(|set| set.shreds.clone());
    HashedShred::batch(shreds.map(|bytes| Shred::parse(bytes).unwrap()).collect())
}
