//! The Fragcast protocol.
//!
//! [`Protocol`] is pure: it has no socket, clock, thread or randomness of its own. A driver
//! feeds it with `handle_*` and drains it with `poll_*`; `net` (behind the feature of that
//! name) drives it over QUIC, `netsim` in virtual time. See [`protocol`] for the contract.
//!
//! ```text
//! schedule   block → gateway, by term            plan    who relays, signed by the leader
//! delegation gateway → peer and ed25519 key      route   plan + set's root → who sends to whom
//! members    peers, weights, signed records      egress  lanes of strict priority, pacing
//! epoch      the three above, from a block on    peer    ids, and the keys one node gives them
//! planner    delays → the leader's plan          delays  round trips that members measured
//! gossip     the fallback: gate, topics, links   health  when this node needs it
//! delays     round trips, as members measured and leaders joined them
//! peering    who is connected to whom where not everybody can be to everybody
//! ```
#![forbid(unsafe_code)]

pub(crate) mod bucket;
pub mod control;
pub mod counts;
pub mod delays;
pub mod delegation;
pub mod egress;
pub mod epoch;
#[doc(hidden)]
pub mod fuzzing;
pub mod gossip;
pub mod health;
pub mod membership;
pub mod outcome;
pub mod output;
pub mod peer;
pub mod peering;
pub mod plan;
pub mod planner;
pub mod protocol;
pub mod rotation;
pub mod route;
pub mod schedule;
pub mod sequencer;
pub mod shuffle;
pub mod tables;
#[doc(hidden)]
pub mod testing;

#[cfg(feature = "net")]
#[expect(clippy::disallowed_types, reason = "the driver is where the sockets are")]
pub mod net;

pub use control::{Control, Evidence};
pub use delays::{DelayMatrix, DelayVector, RttCode, SignedDelayVector};
pub use delegation::{Delegation, Delegations, SignedDelegation};
pub use egress::{Lane, Payload, Transmit};
pub use epoch::{Epoch, EpochError, EpochsView};
pub use fragcast_shredder::time::{self, Timestamp};
pub use gossip::{GossipAction, Listener, Mode, Policy};
pub use health::Health;
pub use membership::{Member, MemberRecord, Membership, PeerIndex};
pub use outcome::Outcome;
pub use output::{Delivered, Output, Via};
pub use peer::{PeerId, PeerKey};
pub use plan::{Exclusions, Plan, PlanView, SignedExclusions, SignedPlan};
pub use planner::{PlanDraft, PlanJob, Profile};
pub use protocol::{
    AttachState, BroadcastError, CatchUpConfig, CatchUpState, Config, DelaysState, EpochChange,
    Event, GossipConfig, HopLatency, LatencySpread, Led, MembersConfig, MembersState, OwnRecord,
    Probe, Protocol, Race, ReceiptsState, RegionLatency, RepairConfig, RoutePolicy, Setup,
    SetupError, TableNews,
};
pub use rotation::{Change, Rotation, Support};
pub use route::Route;
pub use schedule::{Lead, Schedule};
