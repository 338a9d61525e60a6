//! The fields of a test file as they stand there.

use std::collections::BTreeMap;

use alloy_consensus::Header;
use alloy_primitives::{Address, B64, B256, Bloom, Bytes, U64, U256};
use serde::Deserialize;
use serde_json::Value;

use super::Unread;
use crate::exec::memory::MemoryState;

/// A test; other fields are passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawTest {
    pub(super) network: String,
    pub(super) genesis_block_header: RawHeader,
    #[serde(rename = "genesisRLP")]
    pub(super) genesis_rlp: Option<Bytes>,
    pub(super) pre: BTreeMap<Address, RawAccount>,
    pub(super) post_state: Option<BTreeMap<Address, RawAccount>>,
    pub(super) post_state_hash: Option<B256>,
    pub(super) lastblockhash: Option<B256>,
    pub(super) blocks: Vec<RawBlock>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawBlock {
    /// Kept as text: what is no hexadecimal is a block that does not decode.
    pub(super) rlp: String,
    pub(super) block_header: Option<RawHeader>,
    pub(super) expect_exception: Option<String>,
    /// Decimal, in some tests.
    pub(super) blocknumber: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct RawAccount {
    #[serde(default)]
    nonce: U64,
    #[serde(default)]
    balance: U256,
    #[serde(default)]
    code: Bytes,
    #[serde(default)]
    storage: BTreeMap<U256, U256>,
}

/// Reads a test, or as much of it as says what it is.
pub(super) fn read(test: Value) -> Result<RawTest, Unread> {
    let network = test["network"].as_str().unwrap_or("unknown").to_owned();
    let blocks = test["blocks"].as_array().map_or(0, Vec::len);
    serde_json::from_value(test).map_err(|error| Unread {
        network,
        blocks,
        reason: error.to_string(),
    })
}

/// A header in the names of the tests.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawHeader {
    pub(super) hash: B256,
    parent_hash: B256,
    uncle_hash: B256,
    coinbase: Address,
    state_root: B256,
    transactions_trie: B256,
    receipt_trie: B256,
    bloom: Bloom,
    difficulty: U256,
    pub(super) number: U64,
    gas_limit: U64,
    gas_used: U64,
    timestamp: U64,
    extra_data: Bytes,
    mix_hash: B256,
    nonce: B64,
    base_fee_per_gas: Option<U64>,
    withdrawals_root: Option<B256>,
    blob_gas_used: Option<U64>,
    excess_blob_gas: Option<U64>,
    parent_beacon_block_root: Option<B256>,
    requests_hash: Option<B256>,
}

impl RawHeader {
    /// The header.
    pub(super) fn header(&self) -> Header {
        let number = |n: Option<U64>| n.map(|n| n.to());
        Header {
            parent_hash: self.parent_hash,
            ommers_hash: self.uncle_hash,
            beneficiary: self.coinbase,
            state_root: self.state_root,
            transactions_root: self.transactions_trie,
            receipts_root: self.receipt_trie,
            logs_bloom: self.bloom,
            difficulty: self.difficulty,
            number: self.number.to(),
            gas_limit: self.gas_limit.to(),
            gas_used: self.gas_used.to(),
            timestamp: self.timestamp.to(),
            extra_data: self.extra_data.clone(),
            mix_hash: self.mix_hash,
            nonce: self.nonce,
            base_fee_per_gas: number(self.base_fee_per_gas),
            withdrawals_root: self.withdrawals_root,
            blob_gas_used: number(self.blob_gas_used),
            excess_blob_gas: number(self.excess_blob_gas),
            parent_beacon_block_root: self.parent_beacon_block_root,
            requests_hash: self.requests_hash,
            ..Header::default()
        }
    }
}

/// The state that a map of accounts describes.
pub(super) fn state(accounts: &BTreeMap<Address, RawAccount>) -> MemoryState {
    let mut state = MemoryState::default();
    for (address, account) in accounts {
        let slots = account.storage.iter().map(|(slot, value)| (*slot, *value));
        state.insert(*address, account.nonce.to(), account.balance, &account.code, slots);
    }
    state
}
