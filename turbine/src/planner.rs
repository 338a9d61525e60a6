//! Plans by trying: the leader has all delays, weights, uplinks and losses, so once per plan it
//! evaluates candidate trees with a [cost model](model) and takes the best.
//!
//! ```text
//! delays ──▶ regions ──▶ territories ──▶ roots, best first ──▶ classes ──▶ heads ──▶ candidates
//!                                                                                       │
//!                    shapes: route and code rate by length of message ◀── cost model ◀──┘
//! ```
//!
//! Everything here is the leader's own affair: what others need stands in the plan, and the number
//! of roots and the code rate in every shred's header. So planning may use floating point, and
//! another rule for it changes no wire format. It depends on nothing but its input.
//!
//! A plan that is in force is kept unless the new one is better by [`HYSTERESIS`]: a new plan costs
//! every member a download and connections.

use std::sync::Arc;
use std::time::Duration;

use fragcast_shredder::rate::MAX_DATA;
use fragcast_shredder::{CodeRate, LossTarget};

use crate::delays::DelayMatrix;
use crate::egress::FRAMING;
use crate::membership::PeerIndex;
use crate::peering::is_bounded;
use crate::plan::{Entry, MAX_ROOTS, PlanView};
use crate::route::Route;

mod choice;
mod delays;
pub mod model;
mod regions;

use choice::Choice;
pub use delays::Delays;
use model::Model;
pub use model::{Estimate, HOPS};

/// A new plan must be better by this share than the one in force.
pub const HYSTERESIS: f64 = 0.03;

/// Lengths of messages that are planned for, in bytes, with the longest that each stands for.
const LENGTHS: [(usize, usize); 3] = [(3_600, 9_000), (36_000, 72_000), (144_000, usize::MAX)];
/// The usual one, by which trees are compared.
const USUAL: usize = 36_000;

/// Numbers of roots that are tried, as shares of a set's shreds in twelfths: with these each root
/// carries as many of the set as the others.
const ROOTS: [usize; 10] = [2, 3, 4, 5, 6, 9, 12, 18, 24, 36];
/// Fewest roots that are tried.
const FEWEST_ROOTS: usize = 4;
/// Radius of a region and members of a group that are tried, the first for all else.
const GROUPS: [(u32, usize); 5] =
    [(3_000, 24), (1_500, 24), (5_000, 24), (5_000, 40), (12_000, 24)];
/// Numbers of territories that are tried.
const TERRITORIES: [usize; 5] = [1, 2, 3, 4, 6];

/// Bytes of a datagram's acknowledgement, of which QUIC sends one for two.
const HALF_ACK: usize = 25;

/// Members up to which a leader plans: beyond, planning would take gigabytes.
pub const MAX_PLANNED: usize = 12_288;

/// What bandwidth is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// At most 2.3 bytes sent for each byte of a message and node.
    #[default]
    Lean,
    /// At most 3 bytes.
    Fast,
}

impl Profile {
    /// Both, by name.
    pub const ALL: [Self; 2] = [Self::Lean, Self::Fast];

    /// The name in configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lean => "lean",
            Self::Fast => "fast",
        }
    }

    /// The profile of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// Bytes sent for each byte of a message and node, framing and acknowledgements included.
    pub const fn bytes_per_byte(self) -> f64 {
        match self {
            Self::Lean => 2.3,
            Self::Fast => 3.0,
        }
    }

    /// Most data shreds of a set that are tried. A larger set completes earlier than two smaller
    /// ones, and has no room for as many coding shreds as `Fast` pays for.
    const fn data(self) -> &'static [usize] {
        match self {
            Self::Lean => &[MAX_DATA, 44],
            Self::Fast => &[MAX_DATA],
        }
    }

    /// The code rate of a message of `len` bytes in sets of at most `data` data shreds: what the
    /// loss asks for, and as much more as the profile pays for, since a node waits for the fastest
    /// k of k + m shreds only.
    pub fn rate(self, len: usize, data: usize, target: LossTarget) -> CodeRate {
        let rate = CodeRate::of_sets_up_to(data, len, target);
        rate.within(self.bytes_per_byte(), FRAMING + HALF_ACK)
    }
}

/// What a plan says, without who signs it and for when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// By member.
    pub entries: Vec<Entry>,
    /// Best first.
    pub roots: Vec<u32>,
}

/// How messages up to a length are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// The length that it was made for.
    pub len: usize,
    /// The longest message that it is for.
    pub longest: usize,
    /// How many roots the regional tree has.
    pub roots: u16,
    /// The most data shreds of a set in it.
    pub data: usize,
    /// Whether the leader does better without it.
    pub direct: bool,
    /// What the model expects of the regional tree, and without it.
    pub estimates: [Estimate; 2],
}

impl Shape {
    /// The route of `Auto`.
    pub const fn route(&self) -> Route {
        if self.direct { Route::Direct } else { Route::Regional { roots: self.roots } }
    }

    /// What the model expects of it.
    pub const fn estimate(&self) -> Estimate {
        self.estimates[self.direct as usize]
    }
}

/// Shapes by rising length of message, the last for all that are longer, and how far the members
/// are: four bytes each.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Shapes {
    by_len: Vec<Shape>,
    /// From the leader to each member, in µs; 0 where nobody measured it.
    ways: Vec<u32>,
}

impl Shapes {
    /// The delay from the leader to a member; zero if it is not known.
    pub fn way(&self, member: PeerIndex) -> Duration {
        Duration::from_micros(self.ways.get(member as usize).map_or(0, |way| (*way).into()))
    }
}

impl std::ops::Deref for Shapes {
    type Target = [Shape];

    fn deref(&self) -> &[Shape] {
        &self.by_len
    }
}

/// All that planning depends on. Owned, so that a thread of its own can do it.
#[derive(Debug, Clone)]
pub struct PlanJob {
    /// Delays between all members.
    pub delays: Arc<DelayMatrix>,
    /// Weights by member.
    pub weights: Vec<u64>,
    /// What each member may send, bits per second.
    pub uplinks_bps: Vec<u64>,
    /// The leader's place in the table.
    pub leader: PeerIndex,
    /// Loss of a hop.
    pub loss: f64,
    /// Time from the last bit of a shred to what its receiver sends on.
    pub hop: Duration,
    /// Next leaders that get a copy of their own first.
    pub next_leaders: usize,
    /// What bandwidth is worth.
    pub profile: Profile,
    /// The most connections of a node.
    pub connections: usize,
    /// What is in force.
    pub previous: Option<Arc<Contents>>,
    /// Hash of the membership table that the indices are of.
    pub table: [u8; 32],
}

/// What planning has found.
#[derive(Debug, Clone)]
pub struct PlanDraft {
    /// The plan's entries and roots; the same `Arc` as before if the previous plan stays.
    pub contents: Arc<Contents>,
    /// How messages are sent over it.
    pub shapes: Shapes,
    /// Hash of the membership table that it is for.
    pub table: [u8; 32],
}

impl PlanJob {
    /// Tries and chooses. 1,000 members take about a tenth of a second.
    ///
    /// `None` if no member that may relay has a known delay to anybody: then there is nothing to
    /// plan with.
    ///
    /// # Panics
    /// If the lists are not as long as the matrix has members.
    pub fn run(self) -> Option<PlanDraft> {
        let n = self.delays.members();
        assert!(self.weights.len() == n && self.uplinks_bps.len() == n, "one for each member");
        let delays = Delays::new(&self.delays);
        let choice = Choice::new(&self, &delays)?;
        let (best, best_way) = choice.best();
        let usual = |tree: &Candidate| tree.shape(&choice.model, self.profile, USUAL);
        let previous = self
            .previous
            .as_ref()
            .and_then(|contents| Candidate::of(Arc::clone(contents), &self.weights));
        let kept = previous.map(|tree| (usual(&tree), tree));
        let kept = kept.filter(|(way, _)| way.mean() <= best_way.mean() * (1.0 + HYSTERESIS));
        let (usual, chosen) = kept.unwrap_or((best_way, best));
        let bounded = is_bounded(n, self.connections);
        let shapes = LENGTHS.iter().map(|&(len, longest)| {
            let way = match len {
                USUAL => usual,
                _ => chosen.shape(&choice.model, self.profile, len),
            };
            let without = choice.model.direct(self.direct_rate(len));
            // Who is not connected to everybody sends directly to some only.
            let direct = !bounded && without.mean_micros <= way.mean();
            let Way { roots, data, estimate } = way;
            Shape { len, longest, roots, data, direct, estimates: [estimate, without] }
        });
        let way = |member| self.delays.rtt(self.leader, member).micros().map_or(0, |rtt| rtt / 2);
        let ways = (0..n as PeerIndex).map(way).collect();
        let shapes = Shapes { by_len: shapes.collect(), ways };
        Some(PlanDraft { shapes, contents: chosen.contents, table: self.table })
    }

    /// The code rate of a message that the leader sends to everybody itself.
    pub fn direct_rate(&self, len: usize) -> CodeRate {
        CodeRate::new(len, LossTarget::over_hops(self.loss, 1, 0.0))
    }
}

/// A tree that can be tried.
#[derive(Debug)]
struct Candidate {
    contents: Arc<Contents>,
    view: PlanView,
}

impl Candidate {
    /// `None` if the contents are not of this table.
    fn of(contents: Arc<Contents>, weights: &[u64]) -> Option<Self> {
        if contents.entries.len() != weights.len() {
            return None;
        }
        let view = PlanView::from_entries(0, weights, &contents.entries, &contents.roots).ok()?;
        Some(Self { contents, view })
    }

    /// The best way over this tree for messages of `len` bytes.
    fn shape(&self, model: &Model<'_>, profile: Profile, len: usize) -> Way {
        let mut known = None;
        let ways = profile.data().iter().filter_map(|&data| {
            let rate = profile.rate(len, data, model.target());
            // A short message has the same sets however many shreds they may have.
            (known.replace(rate) != Some(rate)).then(|| self.best_roots(model, rate, data))
        });
        ways.min_by(|a, b| a.mean().total_cmp(&b.mean())).expect("at least one rate is tried")
    }

    /// The best number of roots for a code rate. From about one root a shred on, more and fewer are
    /// tried for as long as that is better.
    fn best_roots(&self, model: &Model<'_>, rate: CodeRate, data: usize) -> Way {
        let most = self.view.regions().roots().iter().map(Vec::len).max().unwrap_or(0);
        let most = most.clamp(1, MAX_ROOTS);
        let set = usize::from(rate.k) + usize::from(rate.m);
        // One root that is silent takes a quarter of the coding with it at most.
        let fewest = set.div_ceil(usize::from(rate.m).div_ceil(4).max(1)).max(FEWEST_ROOTS);
        let number = |twelfths: usize| (set * twelfths).div_ceil(12).max(fewest).min(most);
        let mut tried: Vec<usize> = ROOTS.into_iter().map(number).collect();
        tried.dedup();
        let way = |at: usize| {
            let roots = tried[at] as u16;
            Way { roots, data, estimate: model.regional(&self.view, roots, rate) }
        };
        let start = tried.iter().position(|roots| *roots >= set * 3 / 4).unwrap_or(tried.len() - 1);
        let mut best = way(start);
        let (more, fewer) = (start + 1..tried.len(), (0..start).rev());
        for side in [more.collect::<Vec<_>>(), fewer.collect()] {
            let mut worse = 0;
            for at in side {
                let other = way(at);
                worse += 1;
                if other.mean() < best.mean() {
                    (best, worse) = (other, 0);
                }
                if worse == 2 {
                    break;
                }
            }
        }
        best
    }
}

/// How messages of a length are sent over a tree.
#[derive(Debug, Clone, Copy)]
struct Way {
    roots: u16,
    data: usize,
    estimate: Estimate,
}

impl Way {
    const fn mean(&self) -> f64 {
        self.estimate.mean_micros
    }
}

#[cfg(test)]
mod tests;
