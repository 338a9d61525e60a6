//! What a node answers about itself: the `fragcast_*` JSON-RPC, and its metrics.

pub mod metrics;
pub mod rpc;
