//! What a leader does: cut its message, choose the route and the code rate, and queue every
//! shred, the next leaders' first.

use std::collections::BTreeSet;
use std::time::Duration;

use fragcast_shredder::shredder::ShredderError;
use fragcast_shredder::{
    CodeRate, LossTarget, MessageKey, MessageParams, ShreddedMessage, VerifiedMessage,
};

use super::{Config, Protocol, RoutePolicy};
use crate::egress::{FRAMING, Lane, Payload, Transmit};
use crate::gossip::Mode;
use crate::membership::PeerIndex;
use crate::plan::PlanView;
use crate::route::{Route, Tree};
use crate::time::Timestamp;

/// Next leaders that get a copy of their own.
const NEXT_LEADERS: usize = 2;

/// Why a message was not broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BroadcastError {
    /// This node does not lead the block.
    #[error("this node does not lead block {0}: no delegation to its peer id and key covers it")]
    NotLeader(u64),
    /// The lanes are full: try again when some of it has left.
    #[error("the lanes are full, try again")]
    Busy,
    /// The message cannot be cut.
    #[error(transparent)]
    Shred(#[from] ShredderError),
}

impl Protocol {
    /// Whether this node's key and peer id lead `block`.
    pub fn leads(&self, block: u64) -> bool {
        let Some(shredder) = &self.shredder else { return false };
        self.leader(block).is_some_and(|leader| {
            leader.key == shredder.verifying_key()
                && self.members.index(&leader.peer) == Some(self.me)
        })
    }

    /// Sends a message of this node's own to everybody.
    ///
    /// The application numbers attempts and indices, and never gives one key to two messages:
    /// that would be equivocation.
    ///
    /// # Errors
    /// [`BroadcastError`]; nothing is sent then.
    pub fn broadcast(
        &mut self,
        now: Timestamp,
        key: MessageKey,
        message: &VerifiedMessage,
    ) -> Result<(), BroadcastError> {
        if !self.leads(key.block) {
            return Err(BroadcastError::NotLeader(key.block));
        }
        if !self.egress.has_room() {
            return Err(BroadcastError::Busy);
        }
        if self.mode() == Mode::Gossip {
            self.lead_on_gossip(now, key, message);
            return Ok(());
        }
        let view = self.leading.as_ref().expect("a leader has a plan").0.clone();
        let wire = message.to_wire();
        let (route, rate) = self.shape(wire.len(), &view);
        let (route_number, route_param) = route.to_wire();
        let params = MessageParams {
            key,
            kind: message.message().kind(),
            plan: view.id(),
            route: route_number,
            route_param,
            sent_at: now,
        };
        let shredder = self.shredder.as_mut().expect("a leader has a key");
        let cut = shredder.shred(&wire, &params, rate)?;
        self.advance(now, &key, params.kind);
        self.queue(&cut, route, &view);
        self.keep_own(now, cut);
        self.note_own(now, key, message);
        Ok(())
    }

    /// Without a single shred.
    fn lead_on_gossip(&mut self, now: Timestamp, key: MessageKey, message: &VerifiedMessage) {
        self.advance(now, &key, message.message().kind());
        self.note_own(now, key, message);
    }

    /// Chooses route and code rate for a message of `len` bytes.
    fn shape(&self, len: usize, view: &PlanView) -> (Route, CodeRate) {
        let direct = CodeRate::new(len, LossTarget::over_hops(self.config.loss, 1, 0.0));
        let route = match self.config.route {
            RoutePolicy::Fixed(route) => route,
            RoutePolicy::Auto => {
                let shreds = usize::from(direct.sets) * usize::from(direct.k + direct.m);
                let bytes = shreds * (usize::from(direct.shard_len) + 305 + FRAMING);
                let bits = (bytes * self.peers.len()) as u64 * 8;
                let took = Duration::from_nanos(
                    bits.saturating_mul(1_000_000_000) / self.config.uplink_bps.max(1),
                );
                if took <= self.config.direct_within {
                    Route::Direct
                } else {
                    self.relayed(len, view)
                }
            }
        };
        if route == Route::Direct {
            return (route, direct);
        }
        (route, self.relayed_rate(len, route, view))
    }

    /// One relay or a tree. A layer more costs the way between two members once more; one relay
    /// costs the time in which the busiest sends its shreds to everybody.
    fn relayed(&self, len: usize, view: &PlanView) -> Route {
        let rate = self.relayed_rate(len, Route::Rotor, view);
        let shreds = f64::from(rate.sets) * f64::from(u16::from(rate.k) + u16::from(rate.m));
        let shred = (usize::from(rate.shard_len) + 305 + FRAMING) * self.peers.len() * 8;
        let burst = shred as f64 / self.config.uplink_bps.max(1) as f64;
        let work = (shreds * view.busiest(self.me) / 2.0).max(1.0) * burst;
        if work <= self.config.relay_within.as_secs_f64() { Route::Rotor } else { Config::TREE }
    }

    fn relayed_rate(&self, len: usize, route: Route, view: &PlanView) -> CodeRate {
        let hops = route.hops(view.relays().len(), !view.leaves().is_empty());
        let target = LossTarget::over_hops(self.config.loss, hops, view.busiest(self.me));
        CodeRate::new(len, target).with_coding(self.config.relayed_coding)
    }

    fn queue(&mut self, cut: &ShreddedMessage, route: Route, view: &PlanView) {
        let next: Vec<PeerIndex> = self
            .next_leaders(cut.sets[0].header.block)
            .filter(|peer| *peer != self.me && self.peers[*peer as usize].connected)
            .take(NEXT_LEADERS)
            .collect();
        // What the link to a next leader needs by itself; the rest reaches it with the others.
        let link = LossTarget::over_hops(self.config.loss, 1, 0.0);
        let k = usize::from(cut.sets[0].header.k);
        let alone = CodeRate::new(k * fragcast_shredder::rate::MAX_SHARD_LEN, link);
        let enough = cut.sets[0].header.k + alone.m.min(cut.sets[0].header.m);

        let mut sent = BTreeSet::new();
        for (place, to) in next.into_iter().enumerate() {
            for (set, index) in cut.in_sending_order().filter(|(_, index)| *index < enough) {
                let lane = match (place, index < set.header.k) {
                    (0, _) => Lane::NextLeader,
                    (_, true) => Lane::Data,
                    (_, false) => Lane::Coding,
                };
                sent.insert((to, set.header.set, index));
                let payload = Payload::Shred(set.shreds[usize::from(index)].clone());
                self.originate(Transmit { to, lane, payload });
            }
        }
        for (set, index) in cut.in_sending_order() {
            let tree = Tree::new(view, route, self.me, &set.root, index);
            let lane = if index < set.header.k { Lane::Data } else { Lane::Coding };
            for to in self.connected_children(&tree, self.me) {
                if !sent.contains(&(to, set.header.set, index)) {
                    let payload = Payload::Shred(set.shreds[usize::from(index)].clone());
                    self.originate(Transmit { to, lane, payload });
                }
            }
        }
    }

    fn originate(&mut self, transmit: Transmit) {
        self.counters.originated += 1;
        self.egress.push_own(transmit);
    }
}
