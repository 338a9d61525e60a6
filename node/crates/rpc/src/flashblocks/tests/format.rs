//! Contents of flashblocks, parsed by op-alloy's types.

use alloy_consensus::Block;
use alloy_consensus::proofs::ordered_trie_root_encoded;
use alloy_primitives::{B256, U256, b256};
use fragcast_execution::exec::ExecutedBlock;
use op_alloy_consensus::OpTxEnvelope;
use op_alloy_rpc_types_engine::OpExecutionData;
use serde_json::Value;

use super::*;
use crate::flashblocks::payload::payload_id;

/// The block that a consumer assembles from flashblocks, by op-alloy's rules.
pub(super) fn consumed(payloads: &[OpFlashblockPayload]) -> Block<OpTxEnvelope> {
    let data = OpExecutionData::from_flashblocks(payloads).unwrap();
    data.payload.try_into_block_with_sidecar(&data.sidecar).unwrap()
}

#[test]
fn diffs_add_up_to_the_block() {
    let mut chain = chain();
    chain.block(1, 3);
    let (snapshots, sealed) = build(&mut chain, &[3, 4, 5]);
    let all = payloads(&snapshots, &sealed);
    assert_eq!(all.len(), 4);
    let header = &sealed.snapshot.header;
    for (index, payload) in all.iter().enumerate() {
        assert_eq!(payload.index, index as u64);
        assert_eq!(payload.base.is_some(), index == 0);
        assert_eq!(payload.payload_id, all[0].payload_id);
        assert_eq!(payload.metadata.block_number, header.number);
        // A consumer that makes a block of what it has so far gets the hash that we tell.
        let block = consumed(&all[..=index]);
        assert_eq!(block.header.hash_slow(), payload.diff.block_hash, "{index}");
    }
    for (snapshot, payload) in snapshots.iter().zip(&all) {
        let frag = snapshot.frags.last().unwrap();
        let txs: Vec<&Bytes> = frag.txs.iter().map(|e| &e.tx.bytes).collect();
        assert_eq!(payload.diff.transactions.iter().collect::<Vec<_>>(), txs);
        assert_eq!(payload.diff.gas_used, snapshot.header.gas_used);
        assert_eq!(payload.diff.logs_bloom, snapshot.header.logs_bloom);
        let receipts: Vec<Bytes> =
            snapshot.txs().map(|p| p.executed.receipt.encoded_2718()).collect();
        assert_eq!(payload.diff.receipts_root, ordered_trie_root_encoded(&receipts));
        assert_eq!(payload.diff.state_root, B256::ZERO);
        assert_eq!(payload.metadata.receipts.len(), frag.txs.len());
        for executed in &frag.txs {
            let receipt = &payload.metadata.receipts[&executed.tx.hash];
            let (mine, theirs) = (&executed.receipt, receipt.as_receipt());
            assert_eq!(theirs.cumulative_gas_used, mine.cumulative_gas_used);
            assert_eq!((theirs.status.coerce_status(), &theirs.logs), (mine.success, &mine.logs));
            assert_eq!(receipt.tx_type() as u8, mine.ty);
        }
        // Whoever sent in this frag paid for it.
        for executed in &frag.txs {
            let sender = executed.tx.sender;
            let balance = snapshot.state.account(sender).unwrap().unwrap().balance;
            assert_eq!(payload.metadata.new_account_balances[&sender], balance);
        }
    }
    let last = all.last().unwrap();
    assert_eq!(last.diff.transactions.len() + last.metadata.receipts.len(), 0);
    assert_eq!(last.diff.block_hash, sealed.hash());
    assert_eq!(last.diff.state_root, header.state_root);
    assert_ne!(header.state_root, B256::ZERO);
    let base = all[0].base.as_ref().unwrap();
    assert_eq!((base.block_number, base.parent_hash), (header.number, header.parent_hash));
    assert_eq!(base.base_fee_per_gas, U256::from(header.base_fee_per_gas.unwrap()));
    // No two flashblocks have the same hash: consumers skip one whose hash they know.
    let mut hashes: Vec<B256> = all.iter().map(|payload| payload.diff.block_hash).collect();
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), all.len());
}

#[test]
fn an_empty_frag_is_an_empty_flashblock() {
    let mut chain = chain();
    let (snapshots, sealed) = build(&mut chain, &[0, 2, 0]);
    let all = payloads(&snapshots, &sealed);
    let counts: Vec<usize> = all.iter().map(|payload| payload.diff.transactions.len()).collect();
    assert_eq!(counts, [0, 2, 0, 0]);
    assert_eq!(all.iter().map(|payload| payload.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(all[2].diff.gas_used, all[1].diff.gas_used);
    assert_eq!(all[2].diff.receipts_root, all[1].diff.receipts_root);
    assert_eq!(all[0].diff.receipts_root, alloy_trie::EMPTY_ROOT_HASH);
}

#[test]
fn a_rebuilt_block_starts_again_under_another_id() {
    let mut chain = chain();
    let old = opened(&mut chain).snapshot();
    chain.attempt = 1;
    let (new, sealed) = build(&mut chain, &[3, 1]);
    let mut sequences = Sequences::default();
    let (before, first, _) = read(sequences.take(&frag(&old)));
    assert!(first);
    let retracted = ChainEvent::Retracted { snapshot: Arc::clone(&old), reason: "superseded" };
    assert_eq!(sequences.take(&retracted), Step::Ended);
    assert_eq!(sequences.take(&retracted), Step::Nothing);
    let (again, first, _) = read(sequences.take(&frag(&new[0])));
    assert!(first);
    assert_eq!((again.index, again.diff.transactions.len()), (0, 3));
    assert_eq!(again.base, before.base);
    assert_ne!(again.payload_id, before.payload_id);
    let (next, first, last) = read(sequences.take(&frag(&new[1])));
    assert_eq!((next.index, first, last), (1, false, false));
    assert_eq!(next.payload_id, again.payload_id);
    // What is told of the old attempt from now on changes nothing.
    assert_eq!(sequences.take(&retracted), Step::Nothing);
    let (end, _, last) = read(sequences.take(&verified(&sealed)));
    assert_eq!((end.index, last), (2, true));
    // A block that is taken back was told as a whole.
    let unwound = ChainEvent::Unwound(Arc::new(sealed.snapshot.block.clone()));
    assert_eq!(sequences.take(&unwound), Step::Nothing);
}

#[test]
fn what_was_not_shown_comes_with_the_next_one() {
    let mut chain = chain();
    let (snapshots, sealed) = build(&mut chain, &[1, 2, 3, 4]);
    let mut sequences = Sequences::default();
    // The first that is heard of the block has two frags.
    let (first, is_first, _) = read(sequences.take(&frag(&snapshots[1])));
    assert!(is_first && first.base.is_some());
    assert_eq!((first.index, first.diff.transactions.len()), (0, 3));
    assert_eq!(sequences.take(&frag(&snapshots[1])), Step::Nothing);
    assert_eq!(sequences.take(&frag(&snapshots[0])), Step::Nothing);
    // Nor is the last heard of before the Seal.
    let (second, ..) = read(sequences.take(&frag(&snapshots[2])));
    let (end, ..) = read(sequences.take(&verified(&sealed)));
    assert_eq!((end.index, end.diff.transactions.len()), (2, 4));
    assert_eq!(end.metadata.receipts.len(), 4);
    let executed = &snapshots[3].frags[3].txs[0];
    assert!(end.metadata.new_account_balances.contains_key(&executed.tx.sender));
    assert_eq!(consumed(&[first, second, end]).header.hash_slow(), sealed.hash());
}

#[test]
fn a_block_that_the_next_one_overtakes_has_no_last_flashblock() {
    let mut chain = chain();
    let (lower, sealed) = build(&mut chain, &[1]);
    let (upper, _) = build(&mut chain, &[1]);
    let mut sequences = Sequences::default();
    read(sequences.take(&frag(&lower[0])));
    assert_eq!(read(sequences.take(&frag(&upper[0]))).0.index, 0);
    assert_eq!(sequences.take(&verified(&sealed)), Step::Nothing);
    // A block of which nothing was told is not told once it is sealed.
    assert_eq!(Sequences::default().take(&verified(&sealed)), Step::Nothing);
}

#[test]
fn names_and_numbers_are_written_as_consumers_read_them() {
    let mut chain = chain();
    let snapshot = opened(&mut chain).snapshot();
    let Step::Payload { text, .. } = Sequences::default().take(&frag(&snapshot)) else { panic!() };
    let value: Value = serde_json::from_str(&text).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut sorted = keys(&value);
    sorted.sort();
    assert_eq!(sorted, ["base", "diff", "index", "metadata", "payload_id"]);
    assert_eq!(value["index"], 0);
    assert_eq!(value["metadata"]["block_number"], 1);
    for (part, field, text) in [
        ("base", "block_number", "0x1"),
        ("base", "fee_recipient", "0xfefefefefefefefefefefefefefefefefefefefe"),
        ("base", "extra_data", "0x00"),
        ("diff", "state_root", &B256::ZERO.to_string()),
        ("diff", "withdrawals_root", &B256::ZERO.to_string()),
        ("diff", "blob_gas_used", "0x0"),
    ] {
        assert_eq!(value[part][field], text, "{part}.{field}");
    }
    for (part, field) in [
        ("base", "gas_limit"),
        ("base", "timestamp"),
        ("base", "base_fee_per_gas"),
        ("diff", "gas_used"),
    ] {
        let text = value[part][field].as_str().unwrap();
        let digits = text.strip_prefix("0x").unwrap();
        assert!(u64::from_str_radix(digits, 16).is_ok() && !digits.starts_with('0'), "{text}");
    }
    assert_eq!(value["diff"]["withdrawals"], Value::Array(Vec::new()));
    assert_eq!(value["diff"]["logs_bloom"].as_str().unwrap().len(), 2 + 512);
    assert_eq!(value["payload_id"].as_str().unwrap().len(), 2 + 16);
    let hash = snapshot.tx(0).unwrap().executed.tx.hash.to_string();
    let receipt = &value["metadata"]["receipts"][&hash];
    assert_eq!(keys(receipt).len(), 1);
    assert_eq!(receipt["Eip1559"]["status"], "0x1");
    assert!(receipt["Eip1559"]["cumulativeGasUsed"].as_str().unwrap().starts_with("0x"));
    assert!(receipt["Eip1559"]["logs"].is_array());
}

#[test]
fn the_bytes_of_an_empty_flashblock_are_pinned() {
    let mut chain = chain();
    let (snapshots, _) = build(&mut chain, &[0]);
    let Step::Payload { text, .. } = Sequences::default().take(&frag(&snapshots[0])) else {
        panic!()
    };
    let header = &snapshots[0].header;
    let (zero, id) = (B256::ZERO, payload_id(&snapshots[0]));
    let (parent, beacon) = (header.parent_hash, header.parent_beacon_block_root.unwrap());
    let (randao, bloom) = (header.mix_hash, "0".repeat(512));
    let (limit, time, fee) = (header.gas_limit, header.timestamp, header.base_fee_per_gas.unwrap());
    let empty = alloy_trie::EMPTY_ROOT_HASH;
    let block = alloy_consensus::Header {
        transactions_root: empty,
        receipts_root: empty,
        ..header.clone()
    };
    let hash = block.hash_slow();
    let expected = format!(
        r#"{{"payload_id":"{id}","index":0,"base":{{"parent_beacon_block_root":"{beacon}","#
    ) + &format!(
        r#""parent_hash":"{parent}","fee_recipient":"0x{}","#,
        "fe".repeat(20)
    ) + &format!(
        r#""prev_randao":"{randao}","block_number":"0x1","gas_limit":"{limit:#x}","#
    ) + &format!(
        r#""timestamp":"{time:#x}","extra_data":"0x00","base_fee_per_gas":"{fee:#x}"}},"#
    ) + &format!(r#""diff":{{"state_root":"{zero}","receipts_root":"{empty}","#)
        + &format!(r#""logs_bloom":"0x{bloom}","gas_used":"0x0","block_hash":"{hash}","#)
        + &format!(r#""transactions":[],"withdrawals":[],"withdrawals_root":"{zero}","#)
        + r#""blob_gas_used":"0x0"},"metadata":{"block_number":1,"new_account_balances":"#;
    // The system call of a block's opening may have touched accounts.
    let rest = text.strip_prefix(&expected).unwrap_or_else(|| panic!("{text}\n{expected}"));
    assert!(rest.starts_with('{') && rest.ends_with(r#"},"receipts":{}}}"#), "{rest}");
}

#[test]
fn payload_ids_are_stable_and_of_one_attempt() {
    let block = |number, attempt, parent| ExecutedBlock {
        attempt,
        hash: B256::ZERO,
        header: alloy_consensus::Header {
            number,
            parent_hash: parent,
            timestamp: 1_700_000_000,
            ..Default::default()
        },
        frags: Vec::new(),
        withdrawals: None,
    };
    let parent = b256!("00000000000000000000000000000000000000000000000000000000000000aa");
    let id = payload_id(&block(7, 0, parent));
    assert_eq!(id.to_string(), PINNED_ID);
    for other in [block(8, 0, parent), block(7, 1, parent), block(7, 0, B256::ZERO)] {
        let other = payload_id(&other);
        assert_ne!(other, id);
        assert_eq!(other[0], 3);
    }
}

/// keccak256(parent ‖ number ‖ timestamp ‖ attempt), computed independently, with 03 as its first
/// byte.
const PINNED_ID: &str = "0x032eb217453510f0";
