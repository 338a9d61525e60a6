//! Receipts: members tell leaders what came of a few sets of each block, from whom and when; the
//! leader learns which relays do not relay, and how long every hop takes.
//!
//! ```text
//! member                                            leader, next leaders
//! shreds ──▶ Samples ──▶ Receipt, once a block ──▶ Tallies ──▶ Verdict ──▶ exclusion mask
//!                                           SetBook ──┘  └──▶ Latencies ──▶ ReceiptsState
//! ```
//!
//! # What is told
//! Of each block a member picks at most [`MAX_RECEIPT_SETS`](crate::control::MAX_RECEIPT_SETS) sets
//! by a hash under a secret of its own, so that nobody knows on which shreds he will be judged. A
//! receipt says for every shred of these sets whether it came, before or after the set was complete,
//! *from the peer that the tree names for it*, and when one of them came. It goes over the
//! connection to the block's leader and the next two, half a second after the block; who is not
//! connected to one of them tells that one nothing, since enough others are. All members together
//! send a leader at most [`LEADER_BPS`].
//!
//! # What follows
//! Each shred of a receipt is a word of one member about one *edge*: from the peer above it to
//! itself. A relay that forwards nothing brings nothing over any of its edges; one that is above it
//! and silent does not count against it, since it recovers its sets and sends what it owes. A member
//! *accuses* a relay if much less than its usual share came over that edge ([`tallies`]), and:
//!
//! * A relay is **excluded**, relays nothing, where three regions, each judged as a whole, say so of
//!   it as a root, and in them accusers of at least a third of all that it served by weight and by
//!   number. So nobody alone, nor any number of members of one or two regions, excludes anybody.
//! * A relay is **no head** of its region, and stays a root, where more than half of the region's
//!   members that it served say so, by weight and by number. Only its own region can know, so that is
//!   what a region whose majority lies can do: choose its own heads, at its own cost. Where it leaves
//!   none, the roots serve the region.
//! * At most a third of the relays is excluded at a time, the first to be found.
//!
//! Members without weight do not judge while any have it, but for heads of their region, by number.
//! Both expire ([`exclusions`](super::leading)); then the relay is tried again.
//!
//! Only trees of at most two relays are judged: [`Route::Turbine`](crate::route::Route::Turbine) has
//! no receipts. A plan with fewer than three regions, as configuration gives it, excludes nobody.
//!
//! # Memory
//! A member: four blocks of 8 sets, 5 kB each. A leader: [`book::CAPACITY`] sets of 64 bytes,
//! [`tallies::MAX_EDGES`] edges of 16 bytes and a place for each member of 80 bytes, and
//! [`latency`]'s rings of 128 bytes a region: 6 MB at most.

mod book;
mod latency;
mod samples;
mod tallies;

use std::collections::BTreeMap;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use fragcast_shredder::{MessageKey, SetHeader, ShreddedMessage};

use super::ctx::Ctx;
use super::epochs::Living;
use super::leading::next_leaders;
use crate::bucket::{Bucket, Rate};
use crate::control::{AFTER_MICROS, Control, Receipt};
use crate::delays::DelayMatrix;
use crate::egress::FRAMING;
use crate::membership::PeerIndex;
use crate::outcome::Outcome;
use crate::peer::{PeerId, PeerKey};
use crate::plan::PlanView;
use crate::route::Path;
use crate::time::Timestamp;
use book::SetBook;
use latency::Latencies;
pub use latency::{HopLatency, LatencySpread, RegionLatency};
use samples::Samples;
pub(super) use tallies::Verdict;
use tallies::{Edge, Role, Tallies};

/// Bits a second of receipts that all members together send to a leader.
pub const LEADER_BPS: u64 = 1_000_000;
/// Receipts that a member may send at once, in bytes.
const BURST: u64 = 600;
/// Leaders whose budgets are remembered.
const MAX_BUDGETS: usize = 64;

/// What a node knows of receipts, for its operator.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReceiptsState {
    /// Receipts that it sent.
    pub sent: u64,
    /// Receipts that it took, as a leader or a next leader.
    pub taken: u64,
    /// Members that it has receipts of lately.
    pub reporters: usize,
    /// The loss of a hop that they show, of relays that are not accused: the median over members.
    pub loss: Option<f64>,
    /// Relays that its masks exclude.
    pub excluded: Vec<PeerId>,
    /// Relays that by its masks are no heads of their regions.
    pub no_heads: Vec<PeerId>,
    /// How long shreds take to members that are so many hops from the leader.
    pub hops: Vec<HopLatency>,
    /// How long they take to the members of each region of the plan.
    pub regions: Vec<RegionLatency>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    samples: Samples,
    book: SetBook,
    tallies: Tallies,
    latencies: Latencies,
    budgets: BTreeMap<PeerKey, Bucket>,
    sent: u64,
    taken: u64,
    /// Receipts were taken since the last verdict.
    news: bool,
    loss: Option<f64>,
}

impl Receipts {
    /// The key behind this node's peer id, from which its secret follows; without it, it tells
    /// nobody anything.
    pub(super) fn set_identity(&mut self, identity: &SigningKey) {
        self.samples.set_secret(blake3::derive_key(
            "fragcast 2026 receipt samples v1",
            &identity.to_bytes(),
        ));
    }

    /// A shred was kept, which is the first of its set or not. A node that leads at times remembers
    /// the set.
    pub(super) fn note_kept(
        &mut self,
        ctx: &Ctx,
        from: PeerKey,
        (header, index): (&SetHeader, u8),
        root: &[u8; 32],
        leads: bool,
    ) {
        if leads {
            self.book.note(header, root);
        }
        self.samples.note(ctx, from, header, index, Some(root));
    }

    /// A shred came of a set that was complete, or for the second time.
    pub(super) fn note_late(&mut self, ctx: &Ctx, from: PeerKey, header: &SetHeader, index: u8) {
        self.samples.note(ctx, from, header, index, None);
    }

    /// A message of this node's own was sent.
    pub(super) fn note_own(&mut self, cut: &ShreddedMessage) {
        cut.sets.iter().for_each(|set| self.book.note(&set.header, &set.root));
    }

    /// When a receipt is due.
    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        self.samples.next_due()
    }

    /// Sends the receipts that are due.
    pub(super) fn timeout<'a>(
        &mut self,
        ctx: &mut Ctx,
        leads: bool,
        delays: impl Fn(&[u8; 32]) -> Option<&'a DelayMatrix>,
    ) {
        for receipt in self.samples.take_due(ctx.now) {
            self.send(ctx, &receipt);
            let next =
                ctx.epochs.view().next_leaders(receipt.block).take(super::leading::NEXT_LEADERS);
            let me = ctx.peers.id(ctx.me());
            if leads && next.into_iter().any(|leader| Some(leader.peer) == me) {
                self.take(ctx, ctx.me(), &receipt, delays(&table_of(ctx, receipt.block)));
            }
        }
    }

    fn send(&mut self, ctx: &mut Ctx, receipt: &Receipt) {
        let Some(living) = ctx.epochs.at(receipt.block) else { return };
        let bytes_per_second = LEADER_BPS / 8 / living.members() as u64;
        let rate = Rate::new(bytes_per_second.max(1), Duration::from_secs(1), BURST);
        let key = MessageKey { block: receipt.block, attempt: receipt.attempt, message: 0 };
        let leader = ctx.leader_key_of(&key).filter(|leader| ctx.peers.is_connected(*leader));
        let mut to = next_leaders(ctx, receipt.block);
        to.extend(leader.filter(|leader| *leader != ctx.me() && !to.contains(leader)));
        if self.budgets.len() + to.len() > MAX_BUDGETS {
            self.budgets.retain(|_, bucket| !bucket.is_full(ctx.now));
        }
        let frame = Control::Receipt(receipt.clone());
        let len = (frame.to_bytes().len() + FRAMING) as u64;
        for leader in to {
            if self.budgets.entry(leader).or_default().take(ctx.now, &rate, len) {
                ctx.send_control(leader, &frame);
                self.sent += 1;
            }
        }
    }

    /// Takes a receipt. `delays` are those between the members of the block's table.
    pub(super) fn take(
        &mut self,
        ctx: &Ctx,
        from: PeerKey,
        receipt: &Receipt,
        delays: Option<&DelayMatrix>,
    ) -> Outcome {
        let at = (receipt.block, receipt.attempt);
        let Some(living) = ctx.epochs.at(receipt.block) else { return Outcome::ReceiptUnwanted };
        let (Some(member), Some(leader)) =
            (living.index(from), living.epoch().leader_index_of(at.0, at.1))
        else {
            return Outcome::ReceiptUnwanted;
        };
        if member == leader || !self.book.knows(at) {
            return Outcome::ReceiptUnwanted;
        }
        if self.tallies.table() != living.epoch().members().hash() {
            self.latencies = Latencies::default();
        }
        if !self.tallies.begin(living.epoch().members().hash(), member, at) {
            return Outcome::ReceiptOld;
        }
        for set in &receipt.sets {
            let Some(known) = self.book.get(at, set.message, set.set) else { continue };
            let shards = u32::from(known.k) + u32::from(known.m);
            if shards < 64 && set.came >> shards != 0 {
                return Outcome::ControlBad;
            }
            let Some(plan) = living.plans.get(known.plan) else { continue };
            let Some(paths) = known.paths(plan, leader) else { continue };
            let mut edges = BTreeMap::<Edge, (u16, u16)>::new();
            for index in 0..paths.shards() {
                let Some(path) = paths.of(member, index) else { continue };
                let edge = edges.entry(edge(path)).or_default();
                edge.0 += (set.came >> index & 1) as u16;
                edge.1 += 1;
            }
            self.tallies.add(member, edges);
            let timed = (set.timed < paths.shards()).then(|| paths.of(member, set.timed)).flatten();
            if let Some(path) = timed {
                let took = i64::from(set.after) * AFTER_MICROS;
                let expected = delays.and_then(|d| expected(d, leader, member, path));
                let region = plan.regions().of(member);
                self.latencies.note(member, region, path.hops(), took, expected);
            }
        }
        self.taken += 1;
        self.news = true;
        Outcome::Control
    }

    /// What receipts over this table say of its relays, in the regions of `plan`, if there are new
    /// ones.
    pub(super) fn verdict(&mut self, living: &Living, plan: &PlanView) -> Option<Verdict> {
        let members = living.epoch().members();
        if !std::mem::take(&mut self.news) || self.tallies.table() != members.hash() {
            return None;
        }
        self.loss = self.tallies.loss().or(self.loss);
        let weights: Vec<u64> = members.members().iter().map(|member| member.weight).collect();
        Some(self.tallies.verdict(plan.regions(), &weights))
    }

    /// Forgets what was said of a relay that is excluded from now on: when it is tried again, that
    /// is to be judged by what comes then.
    pub(super) fn forget(&mut self, relay: PeerIndex) {
        self.tallies.forget(relay);
    }

    /// The loss of a hop that receipts showed at the last verdict.
    pub(super) const fn loss(&self) -> Option<f64> {
        self.loss
    }

    /// The numbers, without what the leader's masks exclude.
    pub(super) fn state(&self) -> ReceiptsState {
        ReceiptsState {
            sent: self.sent,
            taken: self.taken,
            reporters: self.tallies.reporters(),
            loss: self.loss(),
            hops: self.latencies.hops(),
            regions: self.latencies.regions(),
            ..Default::default()
        }
    }
}

fn edge(path: Path) -> Edge {
    match (path.head, path.root) {
        (Some(head), _) => Edge { role: Role::Head, from: head },
        (None, Some(root)) => Edge { role: Role::Root, from: root },
        (None, None) => Edge { role: Role::Leader, from: 0 },
    }
}

/// The time that a shred needs on its way by the measured delays, in µs.
fn expected(delays: &DelayMatrix, leader: PeerIndex, member: PeerIndex, path: Path) -> Option<i64> {
    let mut at = leader;
    let mut micros = 0;
    for next in path.root.into_iter().chain(path.head).chain([member]) {
        micros += i64::from(delays.rtt(at, next).micros()?) / 2;
        at = next;
    }
    Some(micros)
}

/// The hash of the table of a block.
pub(super) fn table_of(ctx: &Ctx, block: u64) -> [u8; 32] {
    ctx.epochs.at(block).map_or([0; 32], |living| living.epoch().members().hash())
}

#[cfg(test)]
mod tests;
