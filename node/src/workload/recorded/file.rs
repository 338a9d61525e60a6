//! A recorded block's file: reading it within bounds, and the fields as they stand there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use alloy_consensus::Header;
use alloy_eips::eip1559::{BaseFeeParams, calc_next_block_base_fee};
use alloy_primitives::map::B256Map;
use alloy_primitives::{Address, B64, B256, Bloom, Bytes, U64, U256};
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{
    DEFAULT_BASE_FEE_PARAMS, Eip1559Params, MAX_FILE_LEN, RecordedAttributes, RecordedBlock,
    RecordedError,
};

/// Reads and decompresses at most [`MAX_FILE_LEN`] bytes.
pub(in crate::workload) fn read(path: &Path) -> Result<Vec<u8>, RecordedError> {
    let owned = || path.to_owned();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_gzip = name.ends_with(".json.gz");
    if !is_gzip && !name.ends_with(".json") {
        let what = "its name ends in neither .json nor .json.gz";
        return Err(RecordedError::Kind { path: owned(), what });
    }
    let io = |reason| RecordedError::Io { path: owned(), reason };
    let file = File::open(path).map_err(io)?;
    if is_gzip {
        let mut file = io::BufReader::new(file);
        if !file.fill_buf().map_err(io)?.starts_with(&[0x1f, 0x8b]) {
            let what = "its name ends in .gz, but it is not gzip";
            return Err(RecordedError::Kind { path: owned(), what });
        }
        bounded(path, MultiGzDecoder::new(file), MAX_FILE_LEN, |reason| RecordedError::Gzip {
            path: owned(),
            reason,
        })
    } else {
        bounded(path, file, MAX_FILE_LEN, io)
    }
}

pub(in crate::workload) fn bounded(
    path: &Path,
    from: impl Read,
    limit: u64,
    error: impl Fn(io::Error) -> RecordedError,
) -> Result<Vec<u8>, RecordedError> {
    let mut bytes = Vec::new();
    from.take(limit + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() as u64 > limit {
        return Err(RecordedError::TooLong { path: path.to_owned() });
    }
    Ok(bytes)
}

/// What tells a recorded block from any other JSON object.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Keys {
    pub(super) parent_header: Option<IgnoredAny>,
    pub(super) payload_attributes: Option<IgnoredAny>,
}

/// The file; other fields are passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawBlock {
    chain_id: U64,
    number: U64,
    parent_header: RawHeader,
    payload_attributes: RawAttributes,
    expected_block_hash: B256,
    #[serde(default)]
    op_fork_times: BTreeMap<String, Option<u64>>,
    #[serde(default)]
    preimages: B256Map<Bytes>,
}

/// A header as JSON-RPC writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHeader {
    parent_hash: B256,
    sha3_uncles: B256,
    miner: Address,
    state_root: B256,
    transactions_root: B256,
    receipts_root: B256,
    logs_bloom: Bloom,
    difficulty: U256,
    number: U64,
    gas_limit: U64,
    gas_used: U64,
    timestamp: U64,
    extra_data: Bytes,
    mix_hash: B256,
    nonce: B64,
    base_fee_per_gas: U64,
    withdrawals_root: Option<B256>,
    blob_gas_used: Option<U64>,
    excess_blob_gas: Option<U64>,
    parent_beacon_block_root: Option<B256>,
    requests_hash: Option<B256>,
}

impl From<RawHeader> for Header {
    fn from(raw: RawHeader) -> Self {
        Self {
            parent_hash: raw.parent_hash,
            ommers_hash: raw.sha3_uncles,
            beneficiary: raw.miner,
            state_root: raw.state_root,
            transactions_root: raw.transactions_root,
            receipts_root: raw.receipts_root,
            logs_bloom: raw.logs_bloom,
            difficulty: raw.difficulty,
            number: raw.number.to(),
            gas_limit: raw.gas_limit.to(),
            gas_used: raw.gas_used.to(),
            timestamp: raw.timestamp.to(),
            extra_data: raw.extra_data,
            mix_hash: raw.mix_hash,
            nonce: raw.nonce,
            base_fee_per_gas: Some(raw.base_fee_per_gas.to()),
            withdrawals_root: raw.withdrawals_root,
            blob_gas_used: raw.blob_gas_used.map(|gas| gas.to()),
            excess_blob_gas: raw.excess_blob_gas.map(|gas| gas.to()),
            parent_beacon_block_root: raw.parent_beacon_block_root,
            requests_hash: raw.requests_hash,
            ..Self::default()
        }
    }
}

/// The engine API's payload attributes with OP's additions.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAttributes {
    timestamp: U64,
    prev_randao: B256,
    suggested_fee_recipient: Address,
    parent_beacon_block_root: B256,
    transactions: Vec<Bytes>,
    gas_limit: U64,
    eip1559_params: Option<B64>,
}

impl RawBlock {
    pub(super) fn check(self) -> Result<RecordedBlock, &'static str> {
        let parent_header = Header::from(self.parent_header);
        let number = self.number.to();
        if parent_header.number.checked_add(1) != Some(number) {
            return Err("number is not one more than the number of parentHeader");
        }
        let raw = self.payload_attributes;
        let eip1559_params = match raw.eip1559_params {
            None => None,
            Some(params) if params.is_zero() => Some(DEFAULT_BASE_FEE_PARAMS),
            Some(params) => Some(
                Eip1559Params::from_bytes(params.0)
                    .ok_or("one half of eip1559Params is zero and the other is not")?,
            ),
        };
        Ok(RecordedBlock {
            chain_id: self.chain_id.to(),
            number,
            basefee: next_base_fee(&parent_header)?,
            parent_header,
            attributes: RecordedAttributes {
                timestamp: raw.timestamp.to(),
                prevrandao: raw.prev_randao,
                beneficiary: raw.suggested_fee_recipient,
                parent_beacon_block_root: raw.parent_beacon_block_root,
                gas_limit: raw.gas_limit.to(),
                eip1559_params,
                txs: raw.transactions,
            },
            expected_block_hash: self.expected_block_hash,
            fork_times: self
                .op_fork_times
                .into_iter()
                .filter_map(|(fork, time)| Some((fork, time?)))
                .collect(),
            preimages: Arc::new(self.preimages),
        })
    }
}

/// The base fee after `parent`, refused where EIP-1559's arithmetic would leave 64 bits.
fn next_base_fee(parent: &Header) -> Result<u64, &'static str> {
    let base_fee = parent.base_fee_per_gas.unwrap_or_default();
    let Eip1559Params { denominator, elasticity } = Eip1559Params::of_header(parent);
    let target = parent.gas_limit / u64::from(elasticity);
    // At least as much as the rise: base fee × (used − target) / target / denominator, or 1.
    let per_rise = u128::from(target.max(1)) * u128::from(denominator);
    let rise = u128::from(base_fee) * u128::from(parent.gas_used) / per_rise + 1;
    if u128::from(base_fee) + rise > u128::from(u64::MAX) {
        return Err("baseFeePerGas and gasUsed of parentHeader make an impossible base fee");
    }
    let params = BaseFeeParams::new(denominator.into(), elasticity.into());
    Ok(calc_next_block_base_fee(parent.gas_used, parent.gas_limit, base_fee, params))
}
