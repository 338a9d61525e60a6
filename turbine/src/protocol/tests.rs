//! Whole networks in virtual time, and peers that lie.

mod fallback;
mod gossip;
mod hostile;
mod network;
mod repair;

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use fragcast_shredder::{BlockBuilder, GatewayKey, Message, MessageKey, VerifiedMessage};

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
    pub(super) gateways: Vec<GatewayKey>,
    pub(super) leader_keys: Vec<SigningKey>,
    pub(super) schedule: Schedule,
    pub(super) delegations: Vec<SignedDelegation>,
}

impl World {
    /// Gateway g is run by member g; terms have ten blocks.
    pub(super) fn new(weights: &[u64], gateways: usize) -> Self {
        let (members, _) = sample(CHAIN, weights);
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
        Self { members: Arc::new(members), gateways: keys, leader_keys, schedule, delegations }
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

    /// The gateway that leads `block`.
    pub(super) fn gateway(&self, block: u64) -> usize {
        let address = self.schedule.gateway(block);
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
