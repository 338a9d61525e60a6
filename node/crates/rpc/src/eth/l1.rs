//! The fields of OP receipts about the cost of data on L1.
//!
//! Everything comes from the call data of the block's first deposit, which the L1Block contract
//! stores for the whole block. No state is needed, so old receipts have the fields too. op-revm
//! computes the prices.

use alloy_primitives::{U64, U128, U256};
use op_revm::{L1BlockInfo, OpSpecId, estimate_tx_compressed_size};
use serde::Serialize;

use fragcast_execution::chain::ChainSpec;
use fragcast_execution::exec::{Executed, ExecutedBlock};

/// `setL1BlockValues(uint64,uint64,uint256,bytes32,uint64,bytes32,uint256,uint256)`.
const BEDROCK: [u8; 4] = [0x01, 0x5d, 0x8e, 0xb9];
/// `setL1BlockValuesEcotone()`: packed, 164 bytes.
const ECOTONE: [u8; 4] = [0x44, 0x0a, 0x5e, 0x20];
/// `setL1BlockValuesIsthmus()`: Ecotone's and 12 bytes of the operator's fee.
const ISTHMUS: [u8; 4] = [0x09, 0x89, 0x99, 0xbe];
/// `setL1BlockValuesJovian()`: Isthmus's and 2 bytes of the DA footprint's scalar.
const JOVIAN: [u8; 4] = [0x3d, 0xb6, 0xbe, 0x2b];

/// Prices of L1, from a block's first deposit.
pub(super) struct L1 {
    info: Option<L1BlockInfo>,
    spec: OpSpecId,
}

/// Fields that only receipts of OP chains have.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OpReceiptFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    deposit_nonce: Option<U64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deposit_receipt_version: Option<U64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    l1_gas_price: Option<U256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    l1_gas_used: Option<U256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    l1_fee: Option<U256>,
    /// A decimal fraction, until Ecotone.
    #[serde(skip_serializing_if = "Option::is_none")]
    l1_fee_scalar: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    l1_base_fee_scalar: Option<U256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    l1_blob_base_fee: Option<U256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    l1_blob_base_fee_scalar: Option<U256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operator_fee_scalar: Option<U256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operator_fee_constant: Option<U256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    da_footprint_gas_scalar: Option<U128>,
}

impl L1 {
    /// Reads a block's first deposit; empty until the block has one.
    pub(super) fn of(chain: &ChainSpec, block: &ExecutedBlock) -> Self {
        let spec = alloy_op_evm::spec_by_timestamp_after_bedrock(chain, block.header.timestamp);
        let first = block.tx(0).map(|placed| &placed.executed.tx.envelope);
        let deposit = first.filter(|envelope| envelope.is_deposit());
        Self { info: deposit.and_then(|deposit| parse(deposit.input(), spec)), spec }
    }

    /// The OP fields of a receipt.
    pub(super) fn receipt(&self, executed: &Executed) -> OpReceiptFields {
        // As op-geth: a deposit has its own fields and no others, since it costs nothing on L1.
        if executed.tx.envelope.is_deposit() {
            let fields = executed.receipt.deposit.unwrap_or_default();
            return OpReceiptFields {
                deposit_nonce: fields.nonce.map(U64::from),
                deposit_receipt_version: fields.version.map(U64::from),
                ..OpReceiptFields::default()
            };
        }
        let Some(info) = &self.info else { return OpReceiptFields::default() };
        let bytes = &executed.tx.bytes;
        let fee = info.clone().calculate_tx_l1_cost(bytes, self.spec);
        let overhead = info.l1_fee_overhead.unwrap_or_default();
        let gas_used = info.data_gas(bytes, self.spec).saturating_add(overhead);
        let bedrock = info.l1_fee_overhead.is_some();
        OpReceiptFields {
            l1_gas_price: Some(info.l1_base_fee),
            l1_gas_used: Some(gas_used),
            l1_fee: Some(fee),
            l1_fee_scalar: bedrock.then(|| millionths(info.l1_base_fee_scalar)),
            l1_base_fee_scalar: (!bedrock).then_some(info.l1_base_fee_scalar),
            l1_blob_base_fee: info.l1_blob_base_fee,
            l1_blob_base_fee_scalar: info.l1_blob_base_fee_scalar,
            operator_fee_scalar: info.operator_fee_scalar,
            operator_fee_constant: info.operator_fee_constant,
            da_footprint_gas_scalar: info.da_footprint_gas_scalar.map(U128::from),
            ..OpReceiptFields::default()
        }
    }

    /// The DA footprint of a transaction (Jovian), in gas.
    pub(super) fn da_footprint(&self, executed: &Executed) -> Option<u64> {
        let scalar = self.info.as_ref()?.da_footprint_gas_scalar?;
        if executed.tx.envelope.is_deposit() {
            return Some(0);
        }
        let size = estimate_tx_compressed_size(&executed.tx.bytes) / 1_000_000;
        Some(size.saturating_mul(u64::from(scalar)))
    }
}

fn millionths(value: U256) -> String {
    let million = U256::from(1_000_000);
    let (whole, rest) = value.div_rem(million);
    if rest.is_zero() {
        return whole.to_string();
    }
    let rest = format!("{:06}", rest.to::<u64>());
    format!("{whole}.{}", rest.trim_end_matches('0'))
}

/// Reads the call data of the first deposit; `None` if it has no form that is known.
fn parse(input: &[u8], spec: OpSpecId) -> Option<L1BlockInfo> {
    let (selector, data) = input.split_first_chunk::<4>()?;
    let number = |at: usize, len: usize| data.get(at..at + len).map(U256::from_be_slice);
    let mut info = L1BlockInfo::default();
    if *selector == BEDROCK {
        info.l1_base_fee = number(2 * 32, 32)?;
        info.l1_fee_overhead = Some(number(6 * 32, 32)?);
        info.l1_base_fee_scalar = number(7 * 32, 32)?;
        // The block in which Ecotone begins still has Bedrock's form and prices.
        info.empty_ecotone_scalars = spec.is_enabled_in(OpSpecId::ECOTONE);
        return Some(info);
    }
    if ![ECOTONE, ISTHMUS, JOVIAN].contains(selector) {
        return None;
    }
    info.l1_base_fee_scalar = number(0, 4)?;
    info.l1_blob_base_fee_scalar = Some(number(4, 4)?);
    info.l1_base_fee = number(32, 32)?;
    info.l1_blob_base_fee = Some(number(64, 32)?);
    if *selector != ECOTONE {
        info.operator_fee_scalar = Some(number(160, 4)?);
        info.operator_fee_constant = Some(number(164, 8)?);
    }
    if *selector == JOVIAN {
        info.da_footprint_gas_scalar = Some(number(172, 2)?.to::<u16>());
    }
    Some(info)
}

#[cfg(test)]
mod tests;
