//! Sources of blocks as messages, for the devnet, the load generator and tests.
//!
//! Three of them:
//!
//! * [`gateway`]: the devnet's built-in gateway. It starts from a [`genesis`] that it makes
//!   itself and fills block after block with the signed [`transactions`] of many accounts:
//!   transfers, transfers of the [`token`], contract creations.
//! * [`recorded`]: blocks of a real chain, read from files;
//! * [`ethereum_tests`]: blocks of ethereum/tests, valid ones and others.
//!
//! They hand out unsigned [`Message`](fragcast_shredder::Message)s; the caller signs with the
//! key of the gateway whose turn it is.
//!
//! Invariants: nothing here reads a clock or the operating system's randomness, so the same seed
//! gives the same bytes; every transaction that the gateway makes is valid in its place (chain
//! id, consecutive nonces, funded sender, gas within the block's limit).
//!
//! The gateway executes what it builds; recorded blocks carry what execution must arrive at.

pub mod builder;
pub mod ethereum_tests;
pub mod gateway;
pub mod genesis;
pub mod input;
pub mod recorded;
pub mod token;
pub mod transactions;

pub use ethereum_tests::EthereumTest;
pub use gateway::{DevnetGateway, GatewayError, Offered};
pub use genesis::{DevnetConfig, Genesis};
pub use recorded::{RecordedBlock, RecordedError};
pub use transactions::Workload;

#[cfg(test)]
mod tests;
