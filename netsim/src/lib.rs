//! Simulates how messages spread over real networks, in virtual time, and compares the protocol of
//! `fragcast-turbine` with others and with the physical limit.
//!
//! ```text
//! scenario ─▶ world (places, delays, weights)   ┐
//!          ─▶ links (queues, loss, hop cost)    ├─▶ engine ⇄ overlay ─▶ outcome ─▶ report
//!          ─▶ load (messages, leaders), faults  ┘   (queue)  (a protocol for all nodes)
//! ```
//!
//! A run of the [`engine`] is a function of its inputs: events are ordered by (time, sequence),
//! every random number comes from a seeded stream, and functions that round differently on
//! different machines are taken from `libm`. The same seed gives the same digest everywhere.
//!
//! The program reads a [`scenario`], plans its runs, and reports what they found:
//!
//! ```
//! use netsim::compare::{Plan, PlanOptions};
//! use netsim::scenario::Scenario;
//!
//! let text = r#"
//! name = "small"
//! description = "Two leaders send a frag each."
//! network.nodes = 30
//! load = { leaders = 2, frag_bytes = 8000 }
//! "#;
//! let scenario = Scenario::parse(text, "small.toml", "".as_ref())?;
//! let options = PlanOptions { protocols: vec!["fragcast".into()], ..PlanOptions::default() };
//! let plan = Plan::of(&scenario, &options)?;
//! let comparison = plan.compare(&plan.run(|_events| {}));
//! let fragcast = &comparison.tables[0].protocols["fragcast"];
//! assert_eq!((fragcast.missed, fragcast.pairs), (0, 2 * 29));
//! assert!(fragcast.times.p50 < fragcast.times.p99);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/topology.rs` builds a world by hand instead.
#![forbid(unsafe_code)]

pub mod chaos;
pub mod cli;
pub mod compare;
pub mod emulate;
pub mod engine;
pub mod fault;
#[doc(hidden)]
pub mod fuzzing;
pub mod geo;
pub mod handover;
pub mod input;
pub mod latency;
pub mod link;
pub mod load;
pub mod measurement;
pub mod outcome;
pub mod protocols;
pub mod queue;
pub mod random;
pub mod reliable;
pub mod report;
pub mod results;
pub mod scenario;
pub mod survey;
pub mod topology;
pub mod validate;
pub mod world;

/// A node's index in the world, which is also its index in the membership table.
pub type NodeId = u32;

/// Nanoseconds of virtual time since the start of a run.
pub type Nanos = u64;

/// A millisecond.
pub const MILLIS: Nanos = 1_000_000;
/// A second.
pub const SECONDS: Nanos = 1_000_000_000;
