//! The membership tables of a world, and the keys of its gateways.

use std::collections::BTreeSet;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use fragcast_shredder::GatewayKey;
use fragcast_turbine::membership::{Membership, sample};
use fragcast_turbine::{Delegation, Epoch, Schedule, SignedDelegation};

use super::CHAIN;
use super::epochs;
use crate::NodeId;
use crate::load::{Load, Table};
use crate::world::World;

/// The membership tables of a world. Runs share them, since signing 10,000 records takes a
/// second.
#[derive(Debug, Clone)]
pub struct Network {
    /// All nodes: member i is node i.
    pub(super) members: Arc<Membership>,
    /// The keys behind their peer ids.
    pub(super) identities: Arc<Vec<SigningKey>>,
    /// The tables in the order of their blocks, with their members.
    pub(super) tables: Vec<Table>,
    pub(super) members_of: Vec<Arc<Membership>>,
    /// How many of the nodes are members, if the others are guests.
    pub(super) guests_from: Option<NodeId>,
}

impl Network {
    /// One table of all of `world`'s nodes.
    pub fn new(world: &World) -> Self {
        let table = Table { from_block: 0, known_at: 0, absent: BTreeSet::new() };
        let (members, identities) = Self::members(world);
        let members_of = vec![Arc::clone(&members)];
        Self { tables: vec![table], members_of, members, identities, guests_from: None }
    }

    /// Several tables, each from a block on. The first must begin with block 0, and every node
    /// must be a member of one of them.
    pub fn with_tables(world: &World, tables: Vec<Table>) -> Self {
        let (members, identities) = Self::members(world);
        let part = |table| epochs::members(CHAIN, &members, table);
        let members_of = tables.iter().map(part).collect();
        Self { members_of, tables, members, identities, guests_from: None }
    }

    /// One table of the first `members` nodes; all others are guests.
    pub fn with_guests(world: &World, members: NodeId) -> Self {
        let absent: BTreeSet<NodeId> = (members..world.len() as NodeId).collect();
        let table = Table { from_block: 0, known_at: 0, absent };
        Self { guests_from: Some(members), ..Self::with_tables(world, vec![table]) }
    }

    /// The epochs of the network's tables. All have the schedule and the delegations of the load.
    pub(super) fn epochs(&self, load: &Load) -> Vec<Epoch> {
        let gateways = load.leaders.iter().map(|leader| gateway_key(*leader).address()).collect();
        let schedule = Schedule::new(gateways, load.blocks_per_term).expect("there are leaders");
        let schedule = schedule.with_substitutes(load.substitutes).expect("a few");
        let delegations = load.leaders.iter().map(|leader| self.delegation(*leader));
        let delegations: Vec<_> = delegations.collect();
        let epoch = |(table, members): (&Table, &Arc<Membership>)| {
            let (schedule, delegations) = (schedule.clone(), delegations.iter().copied());
            Epoch::new(CHAIN, table.from_block, Arc::clone(members), schedule, delegations)
                .expect("delegations of our own")
        };
        self.tables.iter().zip(&self.members_of).map(epoch).collect()
    }

    /// The delegation of a gateway to the node that leads for it.
    pub(super) fn delegation(&self, leader: NodeId) -> SignedDelegation {
        let delegation = Delegation {
            chain_id: CHAIN,
            first: 0,
            last: u64::MAX,
            sequence: 1,
            peer: self.members.members()[leader as usize].peer(),
            key: leader_key(leader).verifying_key().to_bytes(),
        };
        delegation.sign(&gateway_key(leader))
    }

    fn members(world: &World) -> (Arc<Membership>, Arc<Vec<SigningKey>>) {
        let weights: Vec<u64> = world.nodes.iter().map(|node| node.weight).collect();
        let (members, identities) = sample(CHAIN, &weights);
        (Arc::new(members), Arc::new(identities))
    }
}

/// The key of the gateway that a node leads for.
pub(super) fn gateway_key(leader: NodeId) -> GatewayKey {
    let seed = blake3::derive_key("fragcast 2026 netsim gateway", &leader.to_le_bytes());
    GatewayKey::from_bytes(seed).expect("2^-128 of all seeds are none")
}

/// The key that this gateway delegates to.
pub(super) fn leader_key(leader: NodeId) -> SigningKey {
    let seed = blake3::derive_key("fragcast 2026 netsim leader", &leader.to_le_bytes());
    SigningKey::from_bytes(&seed)
}
