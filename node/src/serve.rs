//! What a node answers about itself: the `fragcast_*` JSON-RPC, its status, and its metrics.
//!
//! [`state`] is what there is to read; [`rpc`], [`metrics`], [`latency`], [`live`] and `status.rs` read
//! it. [`page`] shows in a browser what [`live`] tells.

pub mod agreement;
pub(crate) mod forks;
pub mod hints;
pub mod latency;
pub mod live;
pub mod metrics;
pub mod page;
pub mod races;
pub mod recorder;
pub mod rpc;
pub mod state;
mod status;

/// Who reads a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Whoever reaches the operator's JSON-RPC: everything.
    Operator,
    /// Whoever reaches the public JSON-RPC: no path of a file, and of whom this node asks at most a
    /// host.
    Anybody,
}
