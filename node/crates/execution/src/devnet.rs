//! The devnet: its genesis, its transactions, and the gateway that builds its blocks.
//!
//! [`gateway`] starts from a [`genesis`] that is made here and fills block after block with the
//! signed [`transactions`] of many accounts: transfers, transfers of the [`token`], contract
//! creations. It returns unsigned [`Message`](fragcast_shredder::Message)s; the caller signs with
//! the key of the gateway that leads the block.
//!
//! Invariants: nothing here reads a clock or the operating system's randomness, so the same seed
//! gives the same bytes; every transaction that the gateway makes is valid in its place (chain
//! id, consecutive nonces, funded sender, gas within the block's limit).

pub mod gateway;
pub mod genesis;
pub mod token;
pub mod transactions;

pub use gateway::{DevnetGateway, GatewayError, Offered};
pub use genesis::{DevnetConfig, Genesis};
pub use transactions::{Workload, sign};

use crate::chain::{ChainError, ChainSpec};

/// Loads a chain by its name or from a genesis file, like [`ChainSpec::load`]; `dev` is the devnet
/// with its default seed.
///
/// # Errors
/// [`ChainError`].
pub fn load_chain(chain: &str) -> Result<ChainSpec, ChainError> {
    match chain {
        "dev" => Genesis::devnet(&DevnetConfig::default()).chain_spec("dev"),
        other => ChainSpec::load(other),
    }
}

#[cfg(test)]
mod tests;
