//! The JSON of a flashblock, written from borrowed blocks.
//!
//! Field names are those of rollup-boost and op-alloy: snake case, and camel case inside receipts.
//! Numbers are hex quantities except `index` and `metadata.block_number`, which are plain. A
//! missing `base` is left out, not null.
//!
//! op-alloy's own types would do, but they own their data, which takes a copy of every log and
//! receipt. The tests parse this JSON with them.
//!
//! A receipt is written under the name of its type (`{"Eip1559": {…}}`), as builders have always
//! done: consumers older than op-alloy's `OpFlashblockPayload` read no other form, and op-alloy
//! reads this one beside its own (`"type": "0x2"`).

use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{Address, B64, B256, Bloom, Bytes, Log, U64, U256, keccak256};
use serde::{Serialize, Serializer};

use fragcast_execution::exec::{Executed, ExecutedBlock};

/// The first byte of a payload id: the version of the engine API's attributes that OP blocks have
/// had since Ecotone.
const VERSION: u8 = 3;

/// One flashblock.
#[derive(Serialize)]
pub(super) struct Payload<'a> {
    pub(super) payload_id: B64,
    pub(super) index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) base: Option<Base<'a>>,
    pub(super) diff: Diff<'a>,
    pub(super) metadata: Metadata<'a>,
}

/// The fields that the Env fixes.
#[derive(Serialize)]
pub(super) struct Base<'a> {
    parent_beacon_block_root: B256,
    parent_hash: B256,
    fee_recipient: Address,
    prev_randao: B256,
    block_number: U64,
    gas_limit: U64,
    timestamp: U64,
    extra_data: &'a Bytes,
    base_fee_per_gas: U256,
}

impl<'a> Base<'a> {
    pub(super) fn new(block: &'a ExecutedBlock) -> Self {
        let header = &block.header;
        Self {
            parent_beacon_block_root: header.parent_beacon_block_root.unwrap_or_default(),
            parent_hash: header.parent_hash,
            fee_recipient: header.beneficiary,
            prev_randao: header.mix_hash,
            block_number: U64::from(header.number),
            gas_limit: U64::from(header.gas_limit),
            timestamp: U64::from(header.timestamp),
            extra_data: &header.extra_data,
            base_fee_per_gas: U256::from(header.base_fee_per_gas.unwrap_or_default()),
        }
    }
}

/// What this flashblock adds, and the totals of the block with it.
#[derive(Serialize)]
pub(super) struct Diff<'a> {
    pub(super) state_root: B256,
    pub(super) receipts_root: B256,
    pub(super) logs_bloom: Bloom,
    pub(super) gas_used: U64,
    pub(super) block_hash: B256,
    pub(super) transactions: Vec<&'a Bytes>,
    pub(super) withdrawals: &'a [Withdrawal],
    pub(super) withdrawals_root: B256,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) blob_gas_used: Option<U64>,
}

/// Results of execution.
#[derive(Serialize)]
pub(super) struct Metadata<'a> {
    pub(super) block_number: u64,
    #[serde(serialize_with = "as_map")]
    pub(super) new_account_balances: Vec<(Address, U256)>,
    #[serde(serialize_with = "as_map")]
    pub(super) receipts: Vec<(B256, TaggedReceipt<'a>)>,
}

fn as_map<K: Serialize, V: Serialize, S: Serializer>(
    pairs: &[(K, V)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(key, value)| (key, value)))
}

/// A receipt under the name of its type.
pub(super) struct TaggedReceipt<'a>(&'a Executed);

impl<'a> TaggedReceipt<'a> {
    pub(super) const fn new(executed: &'a Executed) -> Self {
        Self(executed)
    }

    const fn name(&self) -> &'static str {
        match self.0.receipt.ty {
            1 => "Eip2930",
            2 => "Eip1559",
            3 => "Eip4844",
            4 => "Eip7702",
            0x7e => "Deposit",
            _ => "Legacy",
        }
    }
}

impl Serialize for TaggedReceipt<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let receipt = &self.0.receipt;
        let fields = ReceiptFields {
            status: U64::from(u8::from(receipt.success)),
            cumulative_gas_used: U64::from(receipt.cumulative_gas_used),
            logs: &receipt.logs,
            deposit_nonce: receipt.deposit.and_then(|d| d.nonce).map(U64::from),
            deposit_receipt_version: receipt.deposit.and_then(|d| d.version).map(U64::from),
        };
        serializer.collect_map([(self.name(), fields)])
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReceiptFields<'a> {
    status: U64,
    cumulative_gas_used: U64,
    logs: &'a [Log],
    #[serde(skip_serializing_if = "Option::is_none")]
    deposit_nonce: Option<U64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deposit_receipt_version: Option<U64>,
}

/// The payload id of an attempt at a block: keccak256 over parent, number, timestamp and attempt.
/// Every node that serves a block gives it the same one.
pub(super) fn payload_id(block: &ExecutedBlock) -> B64 {
    let mut bytes = Vec::with_capacity(49);
    bytes.extend_from_slice(block.header.parent_hash.as_slice());
    bytes.extend_from_slice(&block.header.number.to_be_bytes());
    bytes.extend_from_slice(&block.header.timestamp.to_be_bytes());
    bytes.push(block.attempt);
    let mut id = B64::from_slice(&keccak256(bytes)[..8]);
    id[0] = VERSION;
    id
}
