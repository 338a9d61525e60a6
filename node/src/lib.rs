//! The Fragcast daemon.
//!
//! ```text
//! gateway ─JSON-RPC─▶ ingest ─▶ turbine::net ⇄ peers
//!                        │            │ verified messages
//!                        └──────▶ sequencer ─▶ subscribers, execution client, metrics
//! ```
//!
//! [`node::Node`] is one complete node; `run` starts one, `devnet` and `replay` many
//! ([`lab::local`]).
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod gateway;
pub mod lab;
pub mod log;
pub mod members;
pub mod multiaddr;
pub mod network;
pub mod node;
pub mod registry;
pub mod serve;
