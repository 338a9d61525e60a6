//! A node's reports about itself: the `fragcast_*` JSON-RPC, and its metrics.

pub mod metrics;
pub mod rpc;
