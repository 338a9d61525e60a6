//! A registration during a run.
//!
//! Every node asks the registry once a second, each at another moment of that second, and so learns
//! of the new gateway within a second; those that cannot reach it learn later. From then on it goes
//! by the protocol's rule ([`Rotation`]), as daemons do. Its delegation the new gateway's node alone
//! knows.

use alloy_primitives::Address;
use fragcast_turbine::{Epoch, Protocol, Rotation, SignedDelegation};

use super::{Packet, timestamp};
use crate::engine::Context;
use crate::load::{Load, Registration};
use crate::{MILLIS, Nanos, NodeId};

/// Bit that marks the tokens of these timers; times never have it.
pub(super) const TIMERS: u64 = 1 << 59;
/// How often a node looks whether a change is due.
const LOOK: Nanos = 100 * MILLIS;
/// How often it asks the registry.
const POLL: Nanos = 1_000 * MILLIS;

/// The registration, as each node knows it.
pub(super) struct Registry {
    registration: Registration,
    gateways: Vec<Address>,
    delegation: SignedDelegation,
    /// By node: what it wants, once it knows of the registration.
    rotations: Vec<Option<Rotation>>,
}

impl Registry {
    /// The registration of a load, if it has one; `delegation`: the new gateway's.
    pub(super) fn of(
        load: &Load,
        nodes: usize,
        address: impl Fn(NodeId) -> Address,
        delegation: impl Fn(NodeId) -> SignedDelegation,
    ) -> Option<Self> {
        let registration = load.registration.clone()?;
        let gateways = load.leaders.iter().chain([&registration.leader]);
        Some(Self {
            gateways: gateways.map(|leader| address(*leader)).collect(),
            delegation: delegation(registration.leader),
            rotations: vec![None; nodes],
            registration,
        })
    }

    /// Sets the timers at which nodes learn of it.
    pub(super) fn start(&self, ctx: &mut Context<'_, Packet>) {
        for node in 0..self.rotations.len() as NodeId {
            ctx.timer(node, self.learnt_at(node), TIMERS, false);
        }
    }

    /// When a node asks the registry for the first time that it can.
    fn learnt_at(&self, node: NodeId) -> Nanos {
        let Registration { at, late, late_at, .. } = &self.registration;
        let from = if late.contains(&node) { *late_at } else { *at };
        // Spread over a poll: 617 is prime to 1,000.
        from.saturating_add(u64::from(node) * 617 % 1_000 * (POLL / 1_000))
    }

    /// A node looks at what is due; says whether its protocol must be drained.
    pub(super) fn timer(
        &mut self,
        ctx: &mut Context<'_, Packet>,
        protocol: &mut Protocol,
        node: NodeId,
    ) -> bool {
        let wanted = || Rotation::new(self.gateways.clone());
        let rotation = self.rotations[node as usize].get_or_insert_with(wanted);
        let support = protocol.support(rotation.wanted());
        let change = rotation.next(protocol.epochs(), &support);
        let changed = change.is_some();
        if let Some(change) = change {
            let newest = protocol.epochs().newest();
            let (chain, members) = (newest.chain_id(), newest.members().clone());
            let schedule = newest.schedule().with_gateways(change.gateways);
            let schedule = schedule.expect("there are gateways");
            let own = Some(self.delegation).filter(|_| node == self.registration.leader);
            let epoch = Epoch::new(chain, change.from_block, members, schedule, own);
            let epoch = epoch.expect("the new gateway signed it");
            let now = timestamp(ctx.now());
            let taken = match change.instead {
                true => protocol.handle_epoch_instead(now, epoch),
                false => protocol.handle_epoch(now, epoch),
            };
            if taken.is_err() {
                rotation.refuse(change.from_block);
            }
        }
        let newest = protocol.epochs().newest();
        let in_effect = newest.schedule().gateways() == rotation.wanted()
            && support.head.is_some_and(|head| head >= newest.from_block());
        if !in_effect {
            ctx.timer(node, ctx.now() + LOOK, TIMERS, true);
        }
        changed
    }
}
