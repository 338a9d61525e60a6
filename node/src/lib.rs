//! The Fragcast daemon.
//!
//! ```text
//! gateway ─JSON-RPC─▶ ingest ─▶ turbine::net ⇄ peers
//!                        │            │ verified messages
//!                        └──────▶ sequencer ─▶ subscribers, execution client, metrics
//! ```
//!
//! [`node::Node`] is one complete node; `run` starts one, `devnet` and `replay` many
//! ([`local`]).
#![forbid(unsafe_code)]

pub mod chain;
pub mod cli;
pub mod client;
pub mod config;
pub mod devnet;
pub mod engine;
pub mod eth;
pub mod eth_call;
pub mod exec;
pub mod executor;
pub mod flashblocks;
pub mod forward;
#[doc(hidden)]
pub mod fuzzing;
pub mod gossip;
pub mod ingest;
pub mod journal;
pub mod keys;
pub mod leading;
pub mod local;
pub mod metrics;
pub mod network;
pub mod node;
pub mod replay;
pub mod rpc;
pub mod store;
pub mod trie;
pub mod workload;

pub use fragcast_turbine::{output, sequencer};

#[cfg(test)]
mod testing;
