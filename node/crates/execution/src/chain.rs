//! A chain: its id, its kind, its forks, and the rules for its headers.
//!
//! A [`ChainSpec`] is made from a geth genesis JSON with fork times (OP's included) or from a name.
//! It keeps the forks that this build cannot execute, with their times: from then on blocks are
//! `unverified`, not rejected, because a follower that guesses rules is worse than one that says it
//! does not know them.

mod genesis;
mod header;
mod parse;
mod presets;

use std::fmt;
use std::sync::Arc;

use alloy_consensus::{BlockHeader, Header};
use alloy_eips::eip1559::BaseFeeParams;
use alloy_eips::eip7840::BlobParams;
use alloy_evm::EvmEnv;
use alloy_evm::eth::spec::EthExecutorSpec;
use alloy_genesis::Genesis;
use alloy_hardforks::{EthereumChainHardforks, EthereumHardfork, EthereumHardforks, ForkCondition};
use alloy_op_hardforks::{OpChainHardforks, OpHardfork, OpHardforks};
use alloy_primitives::Address;
use op_revm::OpSpecId;
use revm::primitives::hardfork::SpecId;

pub(crate) use genesis::MESSAGE_PASSER;
pub use genesis::genesis_header;
pub use header::{Extras, HeaderError};
pub use parse::ChainError;
pub use presets::{Preset, block_time, presets};

/// Blob parameters by fork (EIP-7840), and those that change between forks (EIP-7892).
#[derive(Debug, Clone)]
pub(crate) struct BlobSchedule {
    cancun: BlobParams,
    prague: BlobParams,
    osaka: BlobParams,
    /// By time, in order, with the fork's name.
    scheduled: Vec<(u64, &'static str, BlobParams)>,
}

/// Base fee parameters of an OP chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpFees {
    before_canyon: BaseFeeParams,
    from_canyon: BaseFeeParams,
}

/// Rules that only OP chains have.
#[derive(Debug, Clone)]
pub(crate) struct OpRules {
    forks: OpChainHardforks,
    fees: OpFees,
    /// Delta changes batches and nothing that is executed; it is kept to be told.
    delta: Option<u64>,
}

/// A chain.
///
/// ```
/// use fragcast_execution::chain::ChainSpec;
///
/// let chain = ChainSpec::load("op-sepolia")?;
/// assert_eq!((chain.chain_id, chain.is_op()), (11_155_420, true));
/// assert!(ChainSpec::load("no-such-file.json").is_err());
/// # Ok::<(), fragcast_execution::chain::ChainError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ChainSpec {
    /// The name or file that it was made from.
    pub name: String,
    /// Chain id (EIP-155).
    pub chain_id: u64,
    pub(crate) eth: EthereumChainHardforks,
    pub(crate) op: Option<OpRules>,
    pub(crate) blobs: BlobSchedule,
    pub(crate) deposit_contract: Option<Address>,
    /// Forks that this build lacks, by time.
    pub(crate) lacking: Vec<(u64, String)>,
    /// Seconds from block to block, where the chain has a name.
    pub block_time: Option<u64>,
    /// Block 0 and its state, where it is known.
    pub genesis: Option<Arc<Genesis>>,
}

impl EthereumHardforks for ChainSpec {
    fn ethereum_fork_activation(&self, fork: EthereumHardfork) -> ForkCondition {
        match &self.op {
            Some(op) => op.forks.ethereum_fork_activation(fork),
            None => self.eth.ethereum_fork_activation(fork),
        }
    }
}

impl OpHardforks for ChainSpec {
    fn op_fork_activation(&self, fork: OpHardfork) -> ForkCondition {
        self.op.as_ref().map_or(ForkCondition::Never, |op| op.forks.op_fork_activation(fork))
    }
}

impl EthExecutorSpec for ChainSpec {
    fn deposit_contract_address(&self) -> Option<Address> {
        self.deposit_contract
    }
}

/// When a fork becomes active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activation {
    /// From a block on.
    Block(u64),
    /// From a time on, Unix seconds.
    Time(u64),
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(number) => write!(f, "block {number}"),
            Self::Time(time) => write!(f, "{time}"),
        }
    }
}

/// The environment of a block for the EVM.
#[derive(Debug, Clone)]
pub enum BlockEnv {
    /// Of an Ethereum chain.
    Eth(EvmEnv<SpecId>),
    /// Of an OP chain.
    Op(EvmEnv<OpSpecId>),
}

impl ChainSpec {
    /// Whether it is an OP chain.
    pub const fn is_op(&self) -> bool {
        self.op.is_some()
    }

    /// The first fork that is active at `timestamp` and that this build cannot execute.
    pub fn lacks(&self, timestamp: u64) -> Option<&str> {
        self.lacking.iter().find(|(time, _)| *time <= timestamp).map(|(_, name)| name.as_str())
    }

    /// Forks that this build cannot execute, by Unix time.
    pub fn lacking(&self) -> &[(u64, String)] {
        &self.lacking
    }

    /// The fork that the block at `time` activates, whose parent is of `parent_time`, if only
    /// deposits may be in such a block: from Jovian on.
    pub(crate) fn activates(&self, parent_time: u64, time: u64) -> Option<OpHardfork> {
        [OpHardfork::Jovian, OpHardfork::Karst].into_iter().find(|fork| {
            let at = self.op_fork_activation(*fork);
            at.active_at_timestamp(time) && !at.active_at_timestamp(parent_time)
        })
    }

    /// The forks that have a time, by the names that genesis files have, in order; of an OP chain
    /// all of them. Those that this build lacks are in [`lacking`](Self::lacking).
    pub fn forks(&self) -> Vec<(&'static str, Activation)> {
        let at = |condition: ForkCondition| match condition {
            ForkCondition::Block(number) => Some(Activation::Block(number)),
            ForkCondition::Timestamp(time) => Some(Activation::Time(time)),
            _ => None,
        };
        let mut forks: Vec<(&'static str, Activation)> = match &self.op {
            Some(op) => {
                use OpHardfork as F;
                let of = |fork| at(self.op_fork_activation(fork));
                [
                    ("bedrock", of(F::Bedrock)),
                    ("regolith", of(F::Regolith)),
                    ("canyon", of(F::Canyon)),
                    ("delta", op.delta.map(Activation::Time)),
                    ("ecotone", of(F::Ecotone)),
                    ("fjord", of(F::Fjord)),
                    ("granite", of(F::Granite)),
                    ("holocene", of(F::Holocene)),
                    ("isthmus", of(F::Isthmus)),
                    ("jovian", of(F::Jovian)),
                    ("karst", of(F::Karst)),
                ]
                .into_iter()
                .filter_map(|(name, at)| Some((name, at?)))
                .collect()
            }
            None => {
                use EthereumHardfork as F;
                [
                    ("shanghai", F::Shanghai),
                    ("cancun", F::Cancun),
                    ("prague", F::Prague),
                    ("osaka", F::Osaka),
                ]
                .into_iter()
                .filter_map(|(name, fork)| Some((name, at(self.ethereum_fork_activation(fork))?)))
                .collect()
            }
        };
        let blobs = self.blobs.scheduled.iter();
        forks.extend(blobs.map(|(time, name, _)| (*name, Activation::Time(*time))));
        forks
    }

    /// Blob parameters at a time; `None` before Cancun and on OP chains, which have no blobs.
    pub fn blob_params(&self, timestamp: u64) -> Option<BlobParams> {
        if self.is_op() || !self.is_cancun_active_at_timestamp(timestamp) {
            return None;
        }
        if self.is_osaka_active_at_timestamp(timestamp) {
            let scheduled = self.blobs.scheduled.iter().rev().find(|(time, ..)| *time <= timestamp);
            return Some(scheduled.map_or(self.blobs.osaka, |(.., params)| *params));
        }
        Some(if self.is_prague_active_at_timestamp(timestamp) {
            self.blobs.prague
        } else {
            self.blobs.cancun
        })
    }

    /// The EVM's environment for a block with this header, of which `timestamp`, `number`,
    /// `beneficiary`, `mix_hash`, `gas_limit`, `base_fee_per_gas` and `excess_blob_gas` count.
    pub fn block_env(&self, header: &Header) -> BlockEnv {
        if self.is_op() {
            BlockEnv::Op(alloy_op_evm::evm_env_for_op_block(header, self, self.chain_id))
        } else {
            let blobs = self.blob_params(header.timestamp());
            BlockEnv::Eth(EvmEnv::for_eth_block(header, self, self.chain_id, blobs))
        }
    }
}

#[cfg(test)]
mod tests;
