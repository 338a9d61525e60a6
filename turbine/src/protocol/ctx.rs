//! What every part of the protocol reads and writes: time, configuration, epochs, peers, the
//! window, and all that goes out.
//!
//! Parts take it as an argument and never each other's state, but for what
//! [`Parts`](super::parts::Parts) hands them. `now` is set once for each call from outside.

use std::collections::VecDeque;

use fragcast_shredder::MessageKey;

use super::config::Config;
use super::doubts::{Doubts, Suspect};
use super::epochs::Epochs;
use super::event::{Counters, Event};
use super::peers::{Class, Peers};
use super::seats::Seats;
use super::window::Window;
use crate::control::Control;
use crate::delays::Minima;
use crate::delegation::Leader;
use crate::egress::{Egress, Lane, Payload, Transmit};
use crate::gossip::Mode;
use crate::outcome::{Outcome, Outcomes};
use crate::peer::PeerKey;
use crate::time::Timestamp;

/// See the module.
pub(super) struct Ctx {
    pub(super) config: Config,
    /// The time of the call that is being handled.
    pub(super) now: Timestamp,
    /// How messages travel, as the operator decided.
    pub(super) mode: Mode,
    pub(super) epochs: Epochs,
    pub(super) peers: Peers,
    /// This node is a guest of others: no living epoch names it.
    pub(super) is_guest: bool,
    /// Round trips to peers, as this node's transport measured them.
    pub(super) round_trips: Minima,
    /// What guests take.
    pub(super) seats: Seats,
    pub(super) doubts: Doubts,
    pub(super) window: Window,
    pub(super) egress: Egress,
    pub(super) events: VecDeque<Event>,
    pub(super) outcomes: Outcomes,
    pub(super) counters: Counters,
}

impl Ctx {
    pub(super) fn new(config: Config, epochs: Epochs, peers: Peers) -> Self {
        let mut window = Window::new(config.reanchor, config.block_time);
        window.set_gateways(epochs.newest().epoch().schedule().gateways().len());
        Self {
            now: Timestamp::default(),
            mode: config.gossip.mode,
            epochs,
            peers,
            is_guest: false,
            round_trips: Minima::default(),
            seats: Seats::default(),
            doubts: Doubts::default(),
            window,
            egress: Egress::new(config.lane_capacity, config.uplink_bps, config.burst)
                .with_guests(config.guests_bps),
            events: VecDeque::new(),
            outcomes: Outcomes::default(),
            counters: Counters::default(),
            config,
        }
    }

    /// This node.
    pub(super) const fn me(&self) -> PeerKey {
        self.peers.me()
    }

    /// What this node may say follows from whether a living epoch names it.
    pub(super) fn settle_own_class(&mut self) {
        self.is_guest = self.epochs.iter().all(|living| living.me().is_none());
        self.egress.be_guest(self.is_guest);
    }

    /// Changes what a peer is to this node.
    pub(super) fn set_class(&mut self, peer: PeerKey, class: Class) {
        self.peers.set_class(peer, class);
        self.seats.leave(peer);
        self.egress.set_guest(peer, class == Class::Guest);
    }

    /// Who leads the attempt of a message, if a delegation says so.
    pub(super) fn leader_of(&self, key: &MessageKey) -> Option<&Leader> {
        self.epochs.at(key.block)?.epoch().leader_of(key.block, key.attempt)
    }

    /// The peer that leads the attempt of a message, if it is a member of the block's epoch.
    pub(super) fn leader_key_of(&self, key: &MessageKey) -> Option<PeerKey> {
        let living = self.epochs.at(key.block)?;
        let index = living.epoch().leader_index_of(key.block, key.attempt);
        index.map(|index| living.key(index))
    }

    /// The rank by which the attempt of a message is led: 0 of the scheduled gateway.
    pub(super) fn rank(&self, key: &MessageKey) -> u8 {
        self.epochs.at(key.block).map_or(0, |living| living.epoch().schedule().rank(key.attempt))
    }

    /// Who leads a block by the schedule, if a delegation says so.
    pub(super) fn leader(&self, block: u64) -> Option<&Leader> {
        self.epochs.at(block)?.epoch().leader(block)
    }

    /// The peer that leads a block by the schedule, if it is a member of the block's epoch.
    pub(super) fn leader_key(&self, block: u64) -> Option<PeerKey> {
        let living = self.epochs.at(block)?;
        living.epoch().leader_index(block).map(|index| living.key(index))
    }

    /// Whether a peer leads a block by any rank.
    pub(super) fn may_lead(&self, peer: PeerKey, block: u64) -> bool {
        let Some(living) = self.epochs.at(block) else { return false };
        let epoch = living.epoch();
        let mut gateways = epoch.schedule().ranked(block).map(|(_, gateway)| gateway);
        let id = self.peers.id(peer);
        gateways.any(|gateway| {
            let leader = epoch.delegations().leader(&gateway, block);
            leader.is_some_and(|leader| Some(leader.peer) == id)
        })
    }

    /// Whether this node leads a block by the schedule.
    pub(super) fn leads(&self, block: u64) -> bool {
        self.leader_key(block) == Some(self.me())
    }

    /// Queues a control frame.
    pub(super) fn send_control(&mut self, to: PeerKey, control: &Control) {
        self.send_control_in(Lane::Bulk, to, control);
    }

    /// Queues a control frame in a lane.
    pub(super) fn send_control_in(&mut self, lane: Lane, to: PeerKey, control: &Control) {
        let payload = Payload::Control(control.to_bytes());
        self.egress.push(Transmit { to, lane, payload });
    }

    /// Queues a control frame to all that are connected, guests included: what they need to check
    /// shreds.
    pub(super) fn send_control_to_everybody(
        &mut self,
        lane: Lane,
        control: &Control,
        except: Option<PeerKey>,
    ) {
        let bytes = control.to_bytes();
        for to in self.peers.iter_everybody().filter(|to| Some(*to) != except) {
            let payload = Payload::Control(bytes.clone());
            self.egress.push(Transmit { to, lane, payload });
        }
    }

    /// Queues a control frame to all that are connected, guests aside.
    pub(super) fn send_control_to_all(
        &mut self,
        lane: Lane,
        control: &Control,
        except: Option<PeerKey>,
    ) {
        let bytes = control.to_bytes();
        for to in self.peers.iter_connected().filter(|to| Some(*to) != except) {
            let payload = Payload::Control(bytes.clone());
            self.egress.push(Transmit { to, lane, payload });
        }
    }

    /// What a shred of this attempt that does not verify makes of its sender; `plan` is what it names.
    pub(super) fn suspect(
        &self,
        peer: PeerKey,
        (block, attempt): (u64, u8),
        plan: u64,
    ) -> Option<Suspect> {
        let living = self.epochs.at(block)?;
        let leader = living.epoch().leader_of(block, attempt)?;
        let ours = living.plans.is_of(plan, leader.key.as_bytes());
        Some(Suspect { peer, gateway: leader.gateway, ours })
    }

    /// Counts what became of something that `from` sent, and bars who must have known better.
    pub(super) fn conclude(&mut self, from: PeerKey, outcome: Outcome) {
        self.outcomes.count(outcome);
        if outcome.convicts_sender() {
            self.bar(from, outcome);
        }
    }

    /// Takes nothing more of a peer.
    pub(super) fn bar(&mut self, peer: PeerKey, outcome: Outcome) {
        if self.peers.bar(peer) {
            self.events.push_back(Event::Bar { peer, outcome });
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! A context for tests of single parts.

    use super::*;
    use crate::epoch::Epoch;
    use crate::protocol::tests::{CHAIN, World};

    /// Of member `me` of a world, with everybody else connected.
    pub(in crate::protocol) fn ctx(world: &World, me: u32, config: Config) -> Ctx {
        let (members, schedule) = (world.members.clone(), world.schedule.clone());
        let delegations = world.delegations.iter().copied();
        let epoch = Epoch::new(CHAIN, 0, members.clone(), schedule, delegations).unwrap();
        let id = members.members()[me as usize].peer();
        let (epochs, _) = Epochs::new(CHAIN, vec![epoch]).unwrap().of_node(id);
        let table = epochs.view().peers().clone();
        let me = PeerKey::from(me);
        let mut peers = Peers::new(me, table.clone(), members.hash());
        let others = table.iter().map(|(key, _)| key).filter(|key| *key != me);
        others.for_each(|key| peers.assume_connected(key));
        let mut ctx = Ctx::new(config, epochs, peers);
        ctx.now = Timestamp::from_nanos(1_000_000_000);
        ctx
    }

    /// Takes everything out of the lanes.
    pub(in crate::protocol) fn sent(ctx: &mut Ctx) -> Vec<Transmit> {
        let later = ctx.now + std::time::Duration::from_secs(1_000);
        std::iter::from_fn(|| ctx.egress.pop(later)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{ctx, sent};
    use super::*;
    use crate::control::Listeners;
    use crate::protocol::tests::{CHAIN, World, peer};

    #[test]
    fn leaders_are_those_of_the_blocks_epoch() {
        let mut world = World::new(&[1; 4], 2);
        let one = ctx(&world, 1, Config::new(CHAIN));
        assert_eq!([9, 10].map(|block| one.leader_key(block)), [Some(peer(0)), Some(peer(1))]);
        assert_eq!([9, 10].map(|block| one.leads(block)), [false, true]);
        world.delegations.clear();
        let one = ctx(&world, 1, Config::new(CHAIN));
        assert!(one.leader(9).is_none() && one.leader_key(9).is_none() && !one.leads(10));
    }

    #[test]
    fn frames_go_to_all_that_are_connected_but_one() {
        let mut ctx = ctx(&World::new(&[1; 5], 1), 2, Config::new(CHAIN));
        ctx.peers.disconnect(peer(4));
        let frame = Control::Listeners(Listeners { ids: vec![1] });
        ctx.send_control_to_all(Lane::Bulk, &frame, Some(peer(1)));
        ctx.send_control(peer(1), &frame);
        let to: Vec<PeerKey> = sent(&mut ctx).into_iter().map(|transmit| transmit.to).collect();
        assert_eq!(to, [0, 3, 1].map(peer));
    }

    #[test]
    fn who_is_convicted_is_barred_once_and_all_is_counted() {
        let mut ctx = ctx(&World::new(&[1; 3], 1), 0, Config::new(CHAIN));
        for outcome in [Outcome::Late, Outcome::Malformed, Outcome::ControlBad] {
            ctx.conclude(peer(1), outcome);
            assert_eq!(ctx.outcomes.get(outcome), 1);
        }
        let Some(Event::Bar { peer: barred, outcome }) = ctx.events.pop_front() else {
            panic!("{:?}", ctx.events)
        };
        assert_eq!((barred, outcome), (peer(1), Outcome::Malformed));
        assert!(ctx.events.is_empty());
    }

    #[test]
    fn a_suspect_is_told_by_the_gateway_and_whether_its_leader_is_the_one_that_is_known() {
        let world = World::new(&[1; 3], 2);
        let ctx = ctx(&world, 2, Config::new(CHAIN));
        let plan = |gateway: usize| {
            let key = world.leader_keys[gateway].verifying_key().to_bytes();
            crate::plan::Plan::configured(CHAIN, key, &world.members).id()
        };
        let suspect = |block, plan| ctx.suspect(peer(1), (block, 0), plan).unwrap();
        let gateway = |gateway: usize| world.gateways[gateway].address();
        assert_eq!(suspect(7, plan(0)), Suspect { peer: peer(1), gateway: gateway(0), ours: true });
        assert!(suspect(17, plan(1)).ours && suspect(17, 0).gateway == gateway(1));
        assert!(!suspect(7, plan(1)).ours && !suspect(7, 1).ours);
    }
}
