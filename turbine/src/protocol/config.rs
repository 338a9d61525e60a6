//! Configuration of the protocol and of its parts.

use std::time::Duration;

use fragcast_shredder::{Dialect, Limits, Validator};

use crate::gossip::{Mode, Policy};
use crate::health::HealthConfig;
use crate::planner::Profile;
use crate::route::{DEFAULT_FANOUT, Route};

/// How a leader chooses the route of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutePolicy {
    /// Direct if the leader can send the message to everybody within
    /// [`Config::direct_within`]; else over one relay a shred if no relay has more to do than
    /// [`Config::relay_within`]; else over the tree with the usual fanout. With a plan made from
    /// delays that were measured: directly or over the regional tree, as the planner found.
    Auto,
    /// Over the regional tree where there is such a plan, as `Auto` without one.
    Regional,
    /// Always this one.
    Fixed(Route),
}

/// Configuration of the protocol.
#[derive(Debug, Clone)]
pub struct Config {
    /// Chain id.
    pub chain_id: u64,
    /// The chain's dialect.
    pub dialect: Dialect,
    /// How this node chooses routes when it leads.
    pub route: RoutePolicy,
    /// Time in which `Auto` lets the leader send directly.
    pub direct_within: Duration,
    /// Time in which the busiest relay may serve everybody for `Auto` to use one relay a shred:
    /// about what another hop around the world costs.
    pub relay_within: Duration,
    /// Loss per hop that the code rate is made for.
    pub loss: f64,
    /// What bandwidth is worth to this node when it leads over the regional tree.
    pub profile: Profile,
    /// How long a relay takes from the last bit of a shred to sending it on, as far as planning
    /// knows.
    pub hop: Duration,
    /// Coding shreds for each data shred, at least, on routes with relays. `netsim sweep
    /// code-rate` shows why more than the loss asks for: a node waits for the fastest k of k + m
    /// shreds only.
    pub relayed_coding: f64,
    /// Whether this node, when it leads, asks the next leader to acknowledge its messages: see
    /// [`Event::Held`](super::Event::Held).
    pub hand_over: bool,
    /// The most that this node sends, bits per second.
    pub uplink_bps: u64,
    /// The most connections of this node; as many are assumed of all others. In a table of more
    /// members connections follow the plan: see [`peering`](crate::peering).
    pub connections: usize,
    /// Guests that are let in: peers that no table names. 0: none.
    pub guests: usize,
    /// The most that this node sends to all guests together, bits per second.
    pub guests_bps: u64,
    /// Burst of the pacing. It must be longer than the resolution of the driver's timer, or the
    /// rate is never reached.
    pub burst: Duration,
    /// Bytes that each lane may hold.
    pub lane_capacity: usize,
    /// Bounds of the reassembler.
    pub reassembly: Limits,
    /// Sets whose signatures the validator remembers.
    pub validator_capacity: usize,
    /// Look at blocks outside the window after this long without progress in it.
    /// An epoch is forgotten this long after the window has passed its last block.
    pub reanchor: Duration,
    /// How long a substitute that this node leads for waits for an Env of a lower rank, times its own
    /// rank: from the Seal of the block before on, or from the last message before the block.
    pub substitute_after: Duration,
    /// The least time between two blocks of the chain. With the application's verified head it
    /// bounds how far ahead a block can be that is believed to exist.
    pub block_time: Duration,
    /// Catching up.
    pub catch_up: CatchUpConfig,
    /// Repair.
    pub repair: RepairConfig,
    /// Gossip.
    pub gossip: GossipConfig,
    /// Members who come and go.
    pub members: MembersConfig,
}

impl Config {
    /// Defaults for a chain.
    pub fn new(chain_id: u64) -> Self {
        Self {
            chain_id,
            dialect: Dialect::default(),
            route: RoutePolicy::Auto,
            direct_within: Duration::from_millis(2),
            relay_within: Duration::from_millis(60),
            loss: 0.02,
            profile: Profile::Lean,
            hop: Duration::from_micros(100),
            relayed_coding: 1.5,
            hand_over: false,
            uplink_bps: 1_000_000_000,
            connections: 1_024,
            guests: 0,
            guests_bps: 250_000_000,
            burst: Duration::from_millis(2),
            lane_capacity: 16 * 1024 * 1024,
            reassembly: Limits::default(),
            validator_capacity: Validator::DEFAULT_CAPACITY,
            reanchor: Duration::from_secs(5),
            substitute_after: Duration::from_secs(1),
            block_time: Duration::from_millis(50),
            catch_up: CatchUpConfig::default(),
            repair: RepairConfig::default(),
            gossip: GossipConfig::default(),
            members: MembersConfig::default(),
        }
    }

    /// The route that `Auto` takes where neither of the shorter ones will do.
    pub const TREE: Route = Route::Turbine { fanout: DEFAULT_FANOUT };
}

/// Configuration of members who come and go: records that spread, and the tables made of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MembersConfig {
    /// Whether this node spreads records and follows the tables that leaders name. If not it stays
    /// with the table that it starts with; it tells nobody of records, and takes no notice of tables.
    pub live: bool,
    /// Members of a table, at most [`MAX_SPREAD`](crate::tables::MAX_SPREAD).
    pub max: usize,
    /// How often this node renews its own record.
    pub renew: Duration,
    /// A record that was not renewed for this long is dead.
    pub life: Duration,
    /// How often this node asks a peer for records.
    pub pull: Duration,
    /// Since 1970, when the driver's clock was zero: records are dated by Unix time. Zero for a
    /// driver that gives Unix time; for simulations.
    pub origin: Duration,
}

impl Default for MembersConfig {
    fn default() -> Self {
        Self {
            live: false,
            max: crate::tables::MAX_SPREAD,
            renew: Duration::from_secs(60),
            // Four of them may be lost or late.
            life: Duration::from_secs(300),
            pull: Duration::from_secs(2),
            origin: Duration::ZERO,
        }
    }
}

/// Configuration of catching up: of a node that was away, and of those that answer it. Off with
/// [`RepairConfig::enabled`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatchUpConfig {
    /// Bytes of whole messages of recent blocks that are kept for peers. With 0 this node answers
    /// nobody and asks nobody. A block that is longer than half of it is not kept.
    pub memory: usize,
    /// Blocks of which they are kept, at most [`MAX_BLOCKS`](Self::MAX_BLOCKS).
    pub blocks: usize,
    /// Blocks beyond the application's verified head that are handed on.
    pub ahead: u64,
    /// Questions to peers at a time. So many times [`ahead`](Self::ahead) are asked for, and what
    /// comes before its turn is held in half of [`memory`](Self::memory).
    pub questions: usize,
    /// Rate of answers to one peer, bits per second; half of that of all together if that is less.
    pub answer_bps: u64,
    /// Rate of answers to all peers together, bits per second; a quarter of
    /// [`uplink_bps`](Config::uplink_bps) if that is less.
    pub answers_bps: u64,
    /// Burst of answers to one peer, bytes; twice as much to all together.
    pub answer_burst: usize,
}

impl CatchUpConfig {
    /// The most blocks that can be kept, since what is missing is looked for among them each time: two
    /// hours of blocks of 2 s.
    pub const MAX_BLOCKS: usize = 4_096;
}

impl Default for CatchUpConfig {
    fn default() -> Self {
        Self {
            memory: 64 * 1024 * 1024,
            // 17 minutes of blocks of 2 s.
            blocks: 512,
            // Half of what an executor may have open.
            ahead: 32,
            // A round trip of 100 ms then brings 80 MiB/s, or 2,500 small blocks a second.
            questions: 8,
            answer_bps: 200_000_000,
            answers_bps: 400_000_000,
            answer_burst: 8 * 1024 * 1024,
        }
    }
}

/// Configuration of repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairConfig {
    /// Whether this node asks peers, answers them and tells them what it has.
    pub enabled: bool,
    /// Ask for a message after this long without news of it at the latest. Where delays were
    /// measured, and messages of the same leader have come whole, a node asks sooner: after twice
    /// the longest silence that it saw in one of them.
    pub quiet: Duration,
    /// How often this node tells what it has while a block is under way.
    pub tips_every: Duration,
    /// Peers that it tells each time.
    pub tips_to: usize,
    /// How long a block stays in tips after its last message.
    pub recent: Duration,
    /// How long an unsealed newest block stays in tips.
    pub open: Duration,
    /// Bytes of complete sets that are kept to answer requests.
    pub memory: usize,
    /// How long to wait for a peer whose round-trip time is not known.
    pub first_retry: Duration,
    /// Requests without an answer, at a time and in all.
    pub outstanding: usize,
    /// Of those, requests to one peer.
    pub outstanding_per_peer: usize,
    /// Give a message up after this many tries without a new set.
    pub tries: u8,
    /// Take a message that was given up into account again after this long, on news of it.
    pub pause: Duration,
    /// Rate of answers to one peer, bits per second.
    pub answer_bps: u64,
    /// Burst of answers to one peer, bytes.
    pub answer_burst: usize,
}

impl Default for RepairConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            quiet: Duration::from_millis(100),
            tips_every: Duration::from_millis(50),
            tips_to: 4,
            recent: Duration::from_secs(2),
            // A slot of Ethereum's: the longest that a block is under way.
            open: Duration::from_secs(12),
            memory: 64 * 1024 * 1024,
            first_retry: Duration::from_millis(200),
            outstanding: 64,
            outstanding_per_peer: 16,
            tries: 12,
            pause: Duration::from_secs(5),
            answer_bps: 40_000_000,
            answer_burst: 512 * 1024,
        }
    }
}

/// Configuration of the fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GossipConfig {
    /// How much this node uses gossip. `Off` costs nothing.
    pub policy: Policy,
    /// How messages travel.
    pub mode: Mode,
    /// When this node falls back and returns.
    pub health: HealthConfig,
    /// Bytes of recent messages kept for listeners and for peers that ask.
    pub memory: usize,
}

impl Default for GossipConfig {
    /// Off: a driver that has no gossip must not be asked for any.
    fn default() -> Self {
        Self {
            policy: Policy::Off,
            mode: Mode::Auto,
            health: HealthConfig::default(),
            memory: 32 * 1024 * 1024,
        }
    }
}
