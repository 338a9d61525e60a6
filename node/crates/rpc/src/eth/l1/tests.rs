//! The fields against op-revm's own parser, and against recorded blocks.

use std::path::Path;
use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::{B256, keccak256};
use alloy_primitives::{Bytes, U64};
use fragcast_execution::exec::receipt::DepositFields;
use fragcast_execution::exec::{ExecutedFrag, Receipt, Tx};
use fragcast_shredder::testing::data;
use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::eth::types::{Receipts, RpcTx};

#[test]
fn selectors_are_of_their_signatures() {
    for (selector, signature) in [
        (BEDROCK, "setL1BlockValues(uint64,uint64,uint256,bytes32,uint64,bytes32,uint256,uint256)"),
        (ECOTONE, "setL1BlockValuesEcotone()"),
        (ISTHMUS, "setL1BlockValuesIsthmus()"),
        (JOVIAN, "setL1BlockValuesJovian()"),
    ] {
        assert_eq!(keccak256(signature)[..4], selector, "{signature}");
    }
}

#[test]
fn scalars_are_decimal_fractions() {
    for (value, text) in
        [(684_000_u64, "0.684"), (1_000_000, "1"), (0, "0"), (1_000_001, "1.000001")]
    {
        assert_eq!(millionths(U256::from(value)), text);
    }
}

#[test]
fn forms_are_read_where_they_are_and_no_further() {
    let mut jovian: Vec<u8> = JOVIAN.to_vec();
    jovian.extend([0, 0, 0, 7, 0, 0, 0, 8]);
    jovian.extend([0; 24]);
    jovian.extend(U256::from(9).to_be_bytes::<32>());
    jovian.extend(U256::from(10).to_be_bytes::<32>());
    jovian.extend([0xff; 64]);
    jovian.extend([0, 0, 0, 11]);
    jovian.extend(12_u64.to_be_bytes());
    jovian.extend(400_u16.to_be_bytes());
    assert_eq!(jovian.len(), 178);
    let info = parse(&jovian, OpSpecId::JOVIAN).unwrap();
    let expected = L1BlockInfo {
        l1_base_fee: U256::from(9),
        l1_base_fee_scalar: U256::from(7),
        l1_blob_base_fee: Some(U256::from(10)),
        l1_blob_base_fee_scalar: Some(U256::from(8)),
        operator_fee_scalar: Some(U256::from(11)),
        operator_fee_constant: Some(U256::from(12)),
        da_footprint_gas_scalar: Some(400),
        ..L1BlockInfo::default()
    };
    assert_eq!(info, expected);
    for len in 0..jovian.len() {
        assert!(parse(&jovian[..len], OpSpecId::JOVIAN).is_none(), "{len}");
    }
    let mut bedrock: Vec<u8> = BEDROCK.to_vec();
    for word in 0..8_u64 {
        bedrock.extend(U256::from(word).to_be_bytes::<32>());
    }
    let info = parse(&bedrock, OpSpecId::REGOLITH).unwrap();
    assert_eq!(info.l1_base_fee, U256::from(2));
    assert_eq!(info.l1_fee_overhead, Some(U256::from(6)));
    assert_eq!(info.l1_base_fee_scalar, U256::from(7));
    assert!(!info.empty_ecotone_scalars);
    assert!(parse(&[1, 2, 3, 4, 5], OpSpecId::JOVIAN).is_none());
}

/// The fields that are read of a recorded block.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recorded {
    number: U64,
    payload_attributes: Attributes,
    expected_block_hash: B256,
}

#[derive(Deserialize)]
struct Attributes {
    timestamp: U64,
    transactions: Vec<Bytes>,
}

impl Recorded {
    fn load(path: &Path) -> Self {
        let file = flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap());
        serde_json::from_reader(file).unwrap()
    }
}

/// The block's transactions with made-up receipts and base fee, on which the fields do not depend.
fn block(recorded: &Recorded) -> ExecutedBlock {
    let txs = recorded.payload_attributes.transactions.iter().map(|bytes| {
        let tx = Tx::decode(bytes, true).unwrap();
        let mut receipt = Receipt::new(tx.envelope.ty(), true, 21_000, Vec::new());
        let fields = DepositFields { nonce: Some(77), version: Some(1) };
        receipt.deposit = tx.envelope.is_deposit().then_some(fields);
        Executed { tx, receipt, gas_used: 21_000 }
    });
    let frag = ExecutedFrag { seq: 0, first_index: 0, first_log: 0, txs: txs.collect() };
    let header = Header {
        number: recorded.number.to(),
        timestamp: recorded.payload_attributes.timestamp.to(),
        base_fee_per_gas: Some(270),
        withdrawals_root: Some(B256::ZERO),
        ..Header::default()
    };
    ExecutedBlock {
        attempt: 0,
        hash: recorded.expected_block_hash,
        header,
        frags: vec![Arc::new(frag)],
        withdrawals: None,
    }
}

#[test]
fn receipts_of_a_recorded_block_have_the_fields_of_op_geth() {
    let Some(folder) = data("op-sepolia") else { return };
    let recorded = Recorded::load(&folder.join("block-26207960.json.gz"));
    let spec = ChainSpec::op_sepolia();
    let block = block(&recorded);
    let receipts = serde_json::to_value(Receipts::new(&spec, &block).all()).unwrap();
    let receipts = receipts.as_array().unwrap();
    let (deposit, paid): (Vec<_>, Vec<_>) = receipts.iter().partition(|r| r["type"] == "0x7e");
    assert!(!deposit.is_empty() && !paid.is_empty());
    for receipt in deposit {
        assert_eq!(receipt["depositNonce"], "0x4d");
        assert_eq!(receipt["depositReceiptVersion"], "0x1");
        assert_eq!(receipt["effectiveGasPrice"], "0x0");
        assert_eq!(receipt["l1Fee"], Value::Null);
    }
    let attributes = block.tx(0).unwrap().executed.tx.envelope.input().clone();
    assert_eq!(attributes[..4], ECOTONE);
    for (receipt, placed) in
        paid.iter().zip(block.txs().filter(|p| !p.executed.tx.envelope.is_deposit()))
    {
        for field in [
            "l1GasPrice",
            "l1GasUsed",
            "l1Fee",
            "l1BaseFeeScalar",
            "l1BlobBaseFee",
            "l1BlobBaseFeeScalar",
        ] {
            assert!(receipt[field].is_string(), "{field}: {receipt}");
        }
        for field in ["l1FeeScalar", "operatorFeeScalar", "daFootprintGasScalar", "blobGasUsed"] {
            assert_eq!(receipt[field], Value::Null, "{field}: {receipt}");
        }
        // The formula of Fjord, by hand.
        let word = |at: usize, len: usize| U256::from_be_slice(&attributes[at..at + len]);
        let size = U256::from(estimate_tx_compressed_size(&placed.executed.tx.bytes));
        let scaled = word(36, 32) * U256::from(16) * word(4, 4) + word(68, 32) * word(8, 4);
        let fee = size * scaled / U256::from(1_000_000_000_000_u64);
        assert_eq!(receipt["l1Fee"], serde_json::to_value(fee).unwrap());
        assert!(fee > U256::ZERO);
    }
}

#[test]
fn deposits_read_as_op_geth_writes_them() {
    let Some(folder) = data("op-sepolia") else { return };
    let recorded = Recorded::load(&folder.join("block-26207960.json.gz"));
    let block = block(&recorded);
    for placed in block.txs() {
        let text = serde_json::to_string(&RpcTx::new(&block, &placed)).unwrap();
        let tx: Value = serde_json::from_str(&text).unwrap();
        for field in
            ["\"from\":", "\"nonce\":", "\"gasPrice\":", "\"hash\":", "\"type\":", "\"input\":"]
        {
            assert_eq!(text.matches(field).count(), 1, "{field} in {text}");
        }
        assert_eq!(tx["blockHash"], serde_json::to_value(block.hash).unwrap());
        if placed.executed.tx.envelope.is_deposit() {
            assert_eq!(
                (&tx["type"], &tx["nonce"], &tx["gasPrice"]),
                (&"0x7e".into(), &"0x4d".into(), &"0x0".into())
            );
            assert!(tx["sourceHash"].is_string() && tx["mint"].is_string());
            assert_eq!(tx["depositReceiptVersion"], "0x1");
        }
    }
}
