//! Access to an execution client's Ethereum JSON-RPC.
//!
//! Every answer is checked against a hash before it is used: headers are hashed again, transactions
//! and withdrawals are compared with the roots in the header, accounts and slots with their proofs,
//! code with its hash. So a client that lies costs time and never gives a wrong value. It alone
//! decides which chain is canonical.
//!
//! [`Client`] is the transport, [`RpcSource`] a source of state, [`follow()`] follows the client's
//! canonical chain, [`probe()`] collects what `check-config` shows, [`forks()`] the fork times that it
//! compares.

mod block;
mod blocking;
mod cache;
pub mod follow;
pub mod forks;
pub mod probe;
pub mod rpc;
pub mod source;

pub use blocking::BlockingClient;
pub use follow::{FollowConfig, FollowStats, follow};
pub use forks::{ClientForks, Differences, differences, forks};
pub use probe::{ProbeReport, probe};
pub use rpc::{Client, ClientConfig, ClientError};
pub use source::{RpcSource, SourceLimits};

#[cfg(test)]
mod tests;
