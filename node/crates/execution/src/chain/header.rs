//! Headers: what a block's header must be, given its parent's, and how it is made from the Env and
//! the results of execution.

use std::fmt::Display;

use alloy_consensus::Header;
use alloy_consensus::constants::{EMPTY_OMMER_ROOT_HASH, EMPTY_WITHDRAWALS};
use alloy_eips::eip1559::BaseFeeParams;
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_hardforks::EthereumHardforks;
use alloy_op_hardforks::OpHardforks;
use alloy_primitives::{B64, B256, Bloom, U256};
use fragcast_shredder::Env;
use op_alloy_consensus::{decode_holocene_extra_data, decode_jovian_extra_data};

use super::ChainSpec;

/// The least gas limit of a block (Yellow Paper, 4.3.4).
const MIN_GAS_LIMIT: u64 = 5_000;
/// The most that an OP chain's `SystemConfig` contract lets its owner set (`MAX_GAS_LIMIT`).
const OP_MAX_GAS_LIMIT: u64 = 500_000_000;
/// The gas limit moves by less than its 1024th (Yellow Paper, 4.3.4).
const GAS_LIMIT_STEP: u64 = 1_024;
/// The longest `extra_data` of a header (Yellow Paper, 4.3).
const MAX_EXTRA_DATA: usize = 32;

/// An error in an Env, given the parent's header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {got}, but must be {must}")]
pub struct HeaderError {
    /// The field of Env.
    pub field: &'static str,
    /// The value in the Env.
    pub got: String,
    /// The value that it must have.
    pub must: String,
}

fn wrong(field: &'static str, got: impl Display, must: impl Display) -> HeaderError {
    HeaderError { field, got: got.to_string(), must: must.to_string() }
}

/// The fields of a header that follow from execution. The default is what an open block shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extras {
    /// Root of the state.
    pub state_root: B256,
    /// Root of the transactions.
    pub transactions_root: B256,
    /// Root of the receipts.
    pub receipts_root: B256,
    /// Bloom over all logs.
    pub logs_bloom: Bloom,
    /// Gas used.
    pub gas_used: u64,
    /// Blob gas used; on OP from Jovian the DA footprint.
    pub blob_gas_used: u64,
    /// Root of the withdrawals (Shanghai); on OP from Isthmus the storage root of 0x4200…0016.
    pub withdrawals_root: Option<B256>,
    /// Hash of the requests (Prague).
    pub requests_hash: Option<B256>,
}

impl ChainSpec {
    /// Base fee of the block after `parent` at `timestamp`.
    ///
    /// # Errors
    /// The parent's `extra_data` lacks the base fee parameters that it must hold.
    pub fn next_base_fee(&self, parent: &Header, timestamp: u64) -> Result<u64, HeaderError> {
        let base = parent.base_fee_per_gas.unwrap_or(0);
        let next = |gas_used, params| {
            alloy_eips::eip1559::calc_next_block_base_fee(gas_used, parent.gas_limit, base, params)
        };
        let Some(op) = &self.op else {
            return Ok(next(parent.gas_used, BaseFeeParams::ethereum()));
        };
        let bad = |_| wrong("parent's extra_data", &parent.extra_data, "base fee parameters");
        let params = |denominator: u32, elasticity: u32| {
            BaseFeeParams::new(denominator.max(1).into(), elasticity.max(1).into())
        };
        if self.is_jovian_active_at_timestamp(parent.timestamp) {
            let (elasticity, denominator, least) =
                decode_jovian_extra_data(&parent.extra_data).map_err(bad)?;
            let gas_used = parent.gas_used.max(parent.blob_gas_used.unwrap_or(0));
            return Ok(next(gas_used, params(denominator, elasticity)).max(least));
        }
        if self.is_holocene_active_at_timestamp(parent.timestamp) {
            let (elasticity, denominator) =
                decode_holocene_extra_data(&parent.extra_data).map_err(bad)?;
            return Ok(next(parent.gas_used, params(denominator, elasticity)));
        }
        let canyon = self.is_canyon_active_at_timestamp(timestamp);
        let params = if canyon { op.fees.from_canyon } else { op.fees.before_canyon };
        Ok(next(parent.gas_used, params))
    }

    /// Excess blob gas of the block after `parent` at `timestamp`; `None` before Cancun.
    pub fn next_excess_blob_gas(&self, parent: &Header, timestamp: u64) -> Option<u64> {
        if !self.is_cancun_active_at_timestamp(timestamp) {
            return None;
        }
        // OP blocks have no blobs (Ecotone).
        let Some(params) = self.blob_params(timestamp) else { return Some(0) };
        if parent.excess_blob_gas.is_none() {
            return Some(0);
        }
        parent.next_block_excess_blob_gas(params)
    }

    /// The most gas that the block after `parent` can plausibly have. On OP chains no rule of L2
    /// bounds it: it is what the `SystemConfig` contract on L1 says. So the bound is what that
    /// contract allows, the chain's own genesis, or twice the parent's, whichever is most.
    pub fn most_gas(&self, parent: &Header) -> u64 {
        if !self.is_op() {
            return parent.gas_limit.saturating_add(parent.gas_limit / GAS_LIMIT_STEP);
        }
        let genesis = self.genesis.as_ref().map_or(0, |genesis| genesis.gas_limit);
        parent.gas_limit.saturating_mul(2).max(OP_MAX_GAS_LIMIT).max(genesis)
    }

    /// Checks an Env against its parent's header, which is known to hash to `parent_hash`.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check_env(&self, env: &Env, parent: &Header) -> Result<(), HeaderError> {
        if Some(env.number) != parent.number.checked_add(1) {
            return Err(wrong("number", env.number, parent.number.saturating_add(1)));
        }
        if env.timestamp <= parent.timestamp {
            let must = format!("after the parent's {}", parent.timestamp);
            return Err(wrong("timestamp", env.timestamp, must));
        }
        let base_fee = self.next_base_fee(parent, env.timestamp)?;
        if env.basefee != base_fee {
            return Err(wrong("basefee", env.basefee, base_fee));
        }
        if !env.difficulty.is_zero() {
            return Err(wrong("difficulty", env.difficulty, 0));
        }
        if env.gas_limit > i64::MAX as u64 {
            return Err(wrong("gas_limit", env.gas_limit, "below 2^63"));
        }
        self.check_extra_data(env)?;
        if !self.is_op() {
            let step = parent.gas_limit / GAS_LIMIT_STEP;
            if env.gas_limit.abs_diff(parent.gas_limit) >= step || env.gas_limit < MIN_GAS_LIMIT {
                let must = format!("within {step} of the parent's {}", parent.gas_limit);
                return Err(wrong("gas_limit", env.gas_limit, must));
            }
        }
        Ok(())
    }

    fn check_extra_data(&self, env: &Env) -> Result<(), HeaderError> {
        let got = &env.extra_data;
        if self.is_op() && self.is_jovian_active_at_timestamp(env.timestamp) {
            let ok = got.len() == 17
                && decode_jovian_extra_data(got).is_ok_and(|(e, d, _)| e != 0 && d != 0);
            return if ok {
                Ok(())
            } else {
                Err(wrong(
                    "extra_data",
                    got,
                    "01 ‖ denominator ‖ elasticity ‖ minimum base fee (Jovian)",
                ))
            };
        }
        if self.is_op() && self.is_holocene_active_at_timestamp(env.timestamp) {
            let ok = got.len() == 9
                && decode_holocene_extra_data(got).is_ok_and(|(e, d)| e != 0 && d != 0);
            return if ok {
                Ok(())
            } else {
                Err(wrong("extra_data", got, "00 ‖ denominator ‖ elasticity (Holocene)"))
            };
        }
        if got.len() > MAX_EXTRA_DATA {
            return Err(wrong("extra_data", format!("{} bytes", got.len()), "at most 32 bytes"));
        }
        Ok(())
    }

    /// The header of a block, from its Env, its parent's header and the results of execution.
    pub fn header(&self, env: &Env, parent: &Header, extras: &Extras) -> Header {
        let time = env.timestamp;
        let cancun = self.is_cancun_active_at_timestamp(time);
        let prague = self.is_prague_active_at_timestamp(time);
        let shanghai = self.is_shanghai_active_at_timestamp(time);
        Header {
            parent_hash: env.parent_hash,
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: env.beneficiary,
            state_root: extras.state_root,
            transactions_root: extras.transactions_root,
            receipts_root: extras.receipts_root,
            logs_bloom: extras.logs_bloom,
            difficulty: U256::ZERO,
            number: env.number,
            gas_limit: env.gas_limit,
            gas_used: extras.gas_used,
            timestamp: time,
            extra_data: env.extra_data.clone(),
            mix_hash: env.prevrandao,
            nonce: B64::ZERO,
            base_fee_per_gas: Some(env.basefee),
            withdrawals_root: shanghai
                .then(|| extras.withdrawals_root.unwrap_or(EMPTY_WITHDRAWALS)),
            blob_gas_used: cancun.then_some(extras.blob_gas_used),
            excess_blob_gas: self.next_excess_blob_gas(parent, time),
            parent_beacon_block_root: cancun.then_some(env.parent_beacon_block_root),
            requests_hash: prague.then(|| extras.requests_hash.unwrap_or(EMPTY_REQUESTS_HASH)),
            ..Header::default()
        }
    }
}
