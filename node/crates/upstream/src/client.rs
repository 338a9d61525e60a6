//! Everything that talks to an execution client's Ethereum JSON-RPC.
//!
//! What the client says is checked against a hash before it is used: headers are hashed again,
//! transactions and withdrawals against the roots in the header, accounts and slots by their
//! proofs, code by its hash. So a client that lies costs time and never gives a wrong value; what
//! it alone decides is which chain is canonical.
//!
//! [`Client`] is the transport, [`RpcSource`] a source of state, [`follow()`] the follower of
//! the client's canonical chain, [`probe()`] what `check-config` shows.

mod block;
mod blocking;
mod cache;
pub mod follow;
pub mod probe;
pub mod rpc;
pub mod source;

pub use blocking::BlockingClient;
pub use follow::{FollowConfig, FollowStats, follow};
pub use probe::{ProbeReport, probe};
pub use rpc::{Client, ClientConfig, ClientError};
pub use source::{RpcSource, SourceLimits};

#[cfg(test)]
mod tests;
