//! What every part of the protocol reads and writes: time, configuration, epochs, peers, the
//! window, and all that goes out.
//!
//! Parts take it as an argument and never each other's state, but for what
//! [`Parts`](super::parts::Parts) hands them. `now` is set once for each call from outside.

use std::collections::VecDeque;

use super::config::Config;
use super::epochs::Epochs;
use super::event::{Counters, Event};
use super::peers::Peers;
use super::window::Window;
use crate::control::Control;
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
    pub(super) window: Window,
    pub(super) egress: Egress,
    pub(super) events: VecDeque<Event>,
    pub(super) outcomes: Outcomes,
    pub(super) counters: Counters,
}

impl Ctx {
    pub(super) fn new(config: Config, epochs: Epochs, peers: Peers) -> Self {
        Self {
            now: Timestamp::default(),
            mode: config.gossip.mode,
            epochs,
            peers,
            window: Window::default(),
            egress: Egress::new(config.lane_capacity, config.uplink_bps, config.burst),
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

    /// Who leads a block, if a delegation says so.
    pub(super) fn leader(&self, block: u64) -> Option<&Leader> {
        self.epochs.at(block)?.epoch().leader(block)
    }

    /// The peer that leads a block, if it is a member of the block's epoch.
    pub(super) fn leader_key(&self, block: u64) -> Option<PeerKey> {
        let living = self.epochs.at(block)?;
        living.epoch().leader_index(block).map(|index| living.key(index))
    }

    /// Whether this node leads a block.
    pub(super) fn leads(&self, block: u64) -> bool {
        self.leader_key(block) == Some(self.me())
    }

    /// Queues a control frame.
    pub(super) fn send_control(&mut self, to: PeerKey, control: &Control) {
        let payload = Payload::Control(control.to_bytes());
        self.egress.push(Transmit { to, lane: Lane::Bulk, payload });
    }

    /// Queues a control frame to all that are connected.
    pub(super) fn send_control_to_all(&mut self, control: &Control, except: Option<PeerKey>) {
        let bytes = control.to_bytes();
        for to in self.peers.iter_connected().filter(|to| Some(*to) != except) {
            let payload = Payload::Control(bytes.clone());
            self.egress.push(Transmit { to, lane: Lane::Bulk, payload });
        }
    }

    /// Counts what became of something that `from` sent, about `block` if that is known, and bars
    /// who must have known better.
    pub(super) fn conclude(&mut self, from: PeerKey, outcome: Outcome, block: Option<u64>) {
        let newest = block.is_some_and(|block| self.epochs.is_newest(block));
        let (outcome, bar) = self.peers.judge(self.now, from, outcome, newest);
        self.outcomes.count(outcome);
        if bar {
            self.events.push_back(Event::Bar { peer: from, outcome });
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! A context for tests of single parts.

    use std::sync::Arc;

    use super::*;
    use crate::epoch::Epoch;
    use crate::membership::Membership;
    use crate::schedule::Schedule;

    /// Of the first of `members`, with everybody else connected.
    pub(in crate::protocol) fn ctx(
        config: Config,
        members: Membership,
        schedule: Schedule,
        delegations: impl IntoIterator<Item = crate::delegation::SignedDelegation>,
    ) -> Ctx {
        let (chain_id, me) = (config.chain_id, members.members()[0].peer());
        let epoch = Epoch::new(chain_id, 0, Arc::new(members), schedule, delegations).unwrap();
        let hash = epoch.members().hash();
        let epochs = Epochs::new(chain_id, vec![epoch]).unwrap().of_node(me);
        let table = epochs.view().peers().clone();
        let mut peers = Peers::new(PeerKey::from(0), table.clone(), hash);
        table.iter().skip(1).for_each(|(key, _)| peers.assume_connected(key));
        let mut ctx = Ctx::new(config, epochs, peers);
        ctx.now = Timestamp::from_nanos(1_000_000_000);
        ctx
    }
}
