//! What a tree costs, estimated: the mean time in which members have a message.
//!
//! The model deals the roots and heads of a few messages by the code of the route itself and
//! follows every shred: it waits at the leader's uplink behind those before it, at its root's and
//! its head's behind what these send anyway, and takes the delays of the ways between. A member has
//! a set with the k-th fastest of its k + m shreds, and later by as many as are lost on the way: on
//! average the (k / q)-th, where q of all arrive. It has the message with its last set.
//!
//! What the model leaves out: repair, which follows where too many shreds are lost at once; queues
//! at receivers; work of relays for other leaders; and that a little of the broadcast goes ahead of
//! the next leader's copy where that leader is far.

use fragcast_shredder::rate::MAX_SHARD_LEN;
use fragcast_shredder::{CodeRate, LossTarget};

use super::PlanJob;
use super::delays::{Delays, Row};
use crate::egress::FRAMING;
use crate::membership::PeerIndex;
use crate::plan::PlanView;
use crate::route::Deal;

/// Bits of a full shred as framed.
pub(super) const SHRED_BITS: f64 = 1_197.0 * 8.0;

/// Sets that an estimate follows at least: roots and heads are drawn, and another draw costs
/// otherwise.
const SETS: u16 = 2;

/// Hops from the leader to a member of a region.
pub const HOPS: u32 = 3;

/// What a shape is expected to cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Mean time from the start of the message to its completion, over all members, in µs.
    pub mean_micros: f64,
    /// The time after which 99 % of the members have it.
    pub p99_micros: f64,
    /// Bytes that are sent for each byte of the message and member.
    pub bytes_per_byte: f64,
}

/// The network as the model knows it.
#[derive(Debug)]
pub struct Model<'a> {
    delays: &'a Delays,
    uplinks_bps: &'a [u64],
    leader: PeerIndex,
    loss: f64,
    hop: f64,
    next_leaders: usize,
}

/// What a node sends of a message: when it may begin, how long it takes, for whom.
struct Job {
    at: f32,
    shred: u32,
    region: u16,
}

impl<'a> Model<'a> {
    /// The network of a job.
    pub fn new(job: &'a PlanJob, delays: &'a Delays) -> Self {
        let PlanJob { uplinks_bps, leader, loss, hop, next_leaders, .. } = job;
        let (loss, hop) = (loss.clamp(0.0, 0.9), hop.as_secs_f64() * 1e6);
        let (leader, next_leaders) = (*leader, *next_leaders);
        Self { delays, uplinks_bps, leader, loss, hop, next_leaders }
    }

    /// The losses between the leader and a member of a region.
    pub fn target(&self) -> LossTarget {
        LossTarget::over_hops(self.loss, HOPS, 0.0)
    }

    /// Time of a datagram at a member's uplink, in µs.
    fn burst(&self, member: PeerIndex, rate: CodeRate) -> f64 {
        let bits = framed(rate) * 8.0;
        bits * 1e6 / self.uplinks_bps[member as usize].max(1) as f64
    }

    /// When the leader begins with what is for everybody: the next leader's copy goes first.
    fn begins(&self, rate: CodeRate) -> f64 {
        let link = LossTarget::over_hops(self.loss, 1, 0.0);
        let k = usize::from(rate.k);
        let alone = CodeRate::of_sets_up_to(k, k * MAX_SHARD_LEN, link).m.min(rate.m);
        let copies = self.next_leaders.min(1) * usize::from(rate.sets) * (k + usize::from(alone));
        copies as f64 * self.burst(self.leader, rate)
    }

    /// The cost of a message over the best `roots` roots of each territory of `view`.
    pub fn regional(&self, view: &PlanView, roots: u16, rate: CodeRate) -> Estimate {
        let draws = SETS.div_ceil(rate.sets) as u8;
        let mut times = Vec::with_capacity(self.delays.members() * usize::from(draws));
        for draw in 0..draws {
            let arrivals = self.follow(view, roots, rate, draw);
            self.completions(&arrivals, rate, HOPS, &mut times);
        }
        // Every member gets every shred once, and the leader sends a territory's besides.
        let rest = self.next_leaders as f64 / self.delays.members().max(1) as f64;
        estimate(times, rate, 1.0 + rest)
    }

    /// The cost of a message that the leader sends to everybody itself.
    pub fn direct(&self, rate: CodeRate) -> Estimate {
        let n = self.delays.members();
        let shreds = shreds(rate);
        let burst = self.burst(self.leader, rate);
        let begins = self.begins(rate);
        let row = self.delays.from(self.leader);
        let mut arrivals = vec![0f32; n * shreds];
        for (place, (set, index)) in sending_order(rate).enumerate() {
            let shred = set * shards(rate) + index;
            let arrivals = &mut arrivals[shred * n..][..n];
            for (member, (at, way)) in arrivals.iter_mut().zip(row.iter()).enumerate() {
                let sent = begins + (place * n + member + 1) as f64 * burst;
                *at = (sent + f64::from(way) + self.hop) as f32;
            }
        }
        let mut times = Vec::with_capacity(n);
        self.completions(&arrivals, rate, 1, &mut times);
        estimate(times, rate, 1.0)
    }

    /// When each member gets each shred of one message, if none is lost: by shred and member.
    fn follow(&self, view: &PlanView, roots: u16, rate: CodeRate, draw: u8) -> Vec<f32> {
        let (n, per_set, shreds) = (self.delays.members(), shards(rate), shreds(rate));
        let regions = view.regions();
        let deals: Vec<_> = (0..rate.sets)
            .map(|set| Deal::of_model(regions, roots, self.leader, [draw, set as u8], rate))
            .collect();
        let mut arrivals = vec![0f32; n * shreds];
        let leader_burst = self.burst(self.leader, rate);
        let mut sent = self.begins(rate);

        // What comes to whom from the leader, in the order in which it comes.
        let mut at_roots: Vec<(PeerIndex, u8, Job)> = Vec::with_capacity(shreds);
        for (set, index) in sending_order(rate) {
            let shred = set * per_set + index;
            for territory in 0..regions.roots().len() as u8 {
                let root = deals[set].root(territory, index as u8);
                let to = root.unwrap_or(self.leader);
                if root.is_some() {
                    sent += leader_burst;
                }
                let way = f64::from(self.delays.micros(self.leader, to));
                let at = if root.is_some() { sent + way + self.hop } else { sent } as f32;
                arrivals[shred * n + to as usize] = at;
                at_roots.push((to, territory, Job { at, shred: shred as u32, region: 0 }));
            }
        }
        at_roots.sort_by(|a, b| a.2.at.total_cmp(&b.2.at));

        // What roots send, and from when on each is free again.
        let mut free = vec![0f32; n];
        let mut at_heads: Vec<(PeerIndex, Job)> = Vec::with_capacity(shreds * 64);
        for (root, territory, Job { at, shred, .. }) in at_roots {
            let (set, index) = (shred as usize / per_set, (shred as usize % per_set) as u8);
            let own = (root != self.leader).then(|| regions.of(root));
            let arrivals = &mut arrivals[shred as usize * n..][..n];
            let mut sending = self.sending(root, rate, free[root as usize].max(at));
            for (number, region) in (0..=u16::MAX).zip(regions.regions()) {
                if region.territory != territory || Some(number) == own {
                    continue;
                }
                let Some(head) = deals[set].head(regions, number, index) else {
                    sending.serve(&region.members, self.leader, arrivals);
                    continue;
                };
                let at = sending.send(head);
                arrivals[head as usize] = at;
                at_heads.push((head, Job { at, shred, region: number }));
            }
            if let Some(own) = own {
                let members = &regions.regions()[usize::from(own)].members;
                sending.serve(members, self.leader, arrivals);
            }
            free[root as usize] = sending.busy;
        }
        // Heads have done with what they sent as roots before most of this comes.
        at_heads.sort_unstable_by(|(a, x), (b, y)| {
            x.at.total_cmp(&y.at).then(a.cmp(b)).then(x.shred.cmp(&y.shred))
        });
        for (head, Job { at, shred, region }) in at_heads {
            let mut sending = self.sending(head, rate, free[head as usize].max(at));
            let members = &regions.regions()[usize::from(region)].members;
            let arrivals = &mut arrivals[shred as usize * n..][..n];
            sending.serve(members, self.leader, arrivals);
            free[head as usize] = sending.busy;
        }
        arrivals
    }

    fn sending(&self, sender: PeerIndex, rate: CodeRate, busy: f32) -> Sending<'a> {
        let burst = self.burst(sender, rate) as f32;
        Sending { sender, row: self.delays.from(sender), burst, hop: self.hop as f32, busy }
    }

    /// Appends when each member but the leader has the message, of arrivals by shred and member.
    fn completions(&self, arrivals: &[f32], rate: CodeRate, hops: u32, times: &mut Vec<f64>) {
        let (n, per_set) = (self.delays.members(), shards(rate));
        let kept = (0..hops).fold(1.0, |kept, _| kept * (1.0 - self.loss));
        // The rank among all that are sent of the last that is needed, counted from 0.
        let rank = (f64::from(rate.k) / kept - 1.0).clamp(0.0, (per_set - 1) as f64);
        let (low, part) = (rank as usize, (rank - (rank as usize) as f64) as f32);
        // Times are positive, so that their bits are in their order.
        let mut set = vec![0u32; per_set];
        for member in (0..n).filter(|member| *member != self.leader as usize) {
            let mut last = 0f32;
            for of_set in arrivals.chunks_exact(per_set * n) {
                let of_member = of_set[member..].iter().step_by(n);
                set.iter_mut().zip(of_member).for_each(|(to, at)| *to = at.to_bits());
                let (_, at, later) = set.select_nth_unstable(low);
                let at = f32::from_bits(*at);
                let next = later.iter().min().map_or(at, |next| f32::from_bits(*next));
                last = last.max(at + part * (next - at));
            }
            times.push(last.into());
        }
    }
}

/// What a member sends of one shred, datagram by datagram.
struct Sending<'a> {
    sender: PeerIndex,
    row: Row<'a>,
    burst: f32,
    hop: f32,
    /// When the last datagram has left.
    busy: f32,
}

impl Sending<'_> {
    /// Sends to a member. Returns when it has the shred.
    fn send(&mut self, member: PeerIndex) -> f32 {
        self.busy += self.burst;
        self.busy + self.row.to(member) as f32 + self.hop
    }

    /// Sends to `members` but itself and the leader, and notes when they have the shred.
    fn serve(&mut self, members: &[PeerIndex], leader: PeerIndex, arrivals: &mut [f32]) {
        let sender = self.sender;
        for member in members.iter().filter(|m| **m != sender && **m != leader) {
            arrivals[*member as usize] = self.send(*member);
        }
    }
}

/// Data and coding shreds of a set.
fn shards(rate: CodeRate) -> usize {
    usize::from(rate.k) + usize::from(rate.m)
}

/// Shreds of a message.
fn shreds(rate: CodeRate) -> usize {
    usize::from(rate.sets) * shards(rate)
}

/// Bytes of a shred on the wire.
fn framed(rate: CodeRate) -> f64 {
    (rate.shred_len() + FRAMING) as f64
}

/// Set and index in the order in which a leader sends: the first of each set, then the second.
fn sending_order(rate: CodeRate) -> impl Iterator<Item = (usize, usize)> {
    let sets = usize::from(rate.sets);
    (0..shards(rate)).flat_map(move |index| (0..sets).map(move |set| (set, index)))
}

fn estimate(mut times: Vec<f64>, rate: CodeRate, copies: f64) -> Estimate {
    times.sort_unstable_by(f64::total_cmp);
    let mean_micros = times.iter().sum::<f64>() / times.len().max(1) as f64;
    let p99 = times.len().saturating_sub(1) * 99 / 100;
    let sent = framed(rate) * shards(rate) as f64 * copies;
    Estimate {
        mean_micros,
        p99_micros: times.get(p99).copied().unwrap_or(0.0),
        bytes_per_byte: sent / (f64::from(rate.k) * f64::from(rate.shard_len)),
    }
}
