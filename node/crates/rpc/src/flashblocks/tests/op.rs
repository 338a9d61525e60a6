//! An OP block: deposits first, receipts of deposits, the message passer's root.

use std::collections::BTreeMap;

use alloy_consensus::{Header, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, TxKind, U256, address, bytes, keccak256};
use fragcast_execution::chain::ChainSpec;
use fragcast_execution::devnet::genesis::account_key;
use fragcast_execution::devnet::sign;
use fragcast_execution::exec::memory::{MemorySource, MemoryState};
use fragcast_execution::exec::{OnInvalid, Parent, StateSource, Tx};
use fragcast_shredder::Env;
use op_alloy_consensus::{OpReceipt, TxDeposit};

use super::format::consumed;
use super::*;

const MESSAGE_PASSER: Address = address!("4200000000000000000000000000000000000016");
/// Version 0, denominator 250, elasticity 6.
const EXTRA_DATA: [u8; 9] = [0, 0, 0, 0, 250, 0, 0, 0, 6];

fn transfer(nonce: u64, to: Address) -> Bytes {
    let tx = TxEip1559 {
        chain_id: 901,
        nonce,
        gas_limit: 100_000,
        max_fee_per_gas: 100_000_000_000,
        max_priority_fee_per_gas: 0,
        to: TxKind::Call(to),
        value: U256::from(1),
        access_list: Default::default(),
        input: Bytes::new(),
    };
    TxEnvelope::from(sign(&account_key(0, 0), tx)).encoded_2718().into()
}

fn deposit(from: Address, to: Address) -> Bytes {
    let deposit = TxDeposit {
        source_hash: B256::repeat_byte(0x11),
        from,
        to: TxKind::Call(to),
        mint: 5,
        value: U256::ZERO,
        gas_limit: 100_000,
        is_system_transaction: false,
        input: Bytes::new(),
    };
    deposit.encoded_2718().into()
}

/// The snapshots of a block at Isthmus with these frags, the block, and the root of the message
/// passer's storage before it.
fn isthmus(frags: &[Vec<Bytes>]) -> (Vec<Arc<Snapshot>>, Arc<SealedBlock>, B256) {
    let forks = ["canyon", "ecotone", "fjord", "granite", "holocene", "isthmus"];
    let times: BTreeMap<String, u64> = forks.iter().map(|fork| ((*fork).into(), 0)).collect();
    let spec = Arc::new(ChainSpec::op_with_times("test", 901, &times).unwrap());
    let mut state = MemoryState::default();
    let rich = account_key(0, 0).address();
    state.insert(rich, 0, U256::from(u128::MAX), &Bytes::new(), std::iter::empty());
    // Puts 1 into the slot of its balance: another one with every call.
    let code = bytes!("6001475500");
    let slots = [(U256::from(1_000), U256::from(1))];
    state.insert(MESSAGE_PASSER, 1, U256::ZERO, &code, slots.into_iter());
    let trie = state.trie().unwrap();
    let root =
        trie.storage_root(keccak256(MESSAGE_PASSER), &fragcast_execution::trie::NoNodes).unwrap();
    let root = root.unwrap();
    let header = Header {
        state_root: trie.root(),
        number: 10,
        gas_limit: 30_000_000,
        timestamp: 1_000,
        extra_data: EXTRA_DATA.to_vec().into(),
        base_fee_per_gas: Some(1_000_000_000),
        withdrawals_root: Some(root),
        excess_blob_gas: Some(0),
        blob_gas_used: Some(0),
        ..Header::default()
    };
    let source = MemorySource::new(header, state).unwrap();
    let parent: Parent = source.anchor().clone().into();
    let source: Arc<dyn StateSource> = Arc::new(source);
    let env = Env {
        number: 11,
        parent_hash: parent.hash,
        beneficiary: Address::repeat_byte(0xfe),
        timestamp: 1_002,
        gas_limit: 60_000_000,
        basefee: spec.next_base_fee(&parent.header, 1_002).unwrap(),
        difficulty: U256::ZERO,
        prevrandao: B256::repeat_byte(2),
        extra_data: EXTRA_DATA.to_vec().into(),
        parent_beacon_block_root: B256::repeat_byte(3),
    };
    let mut block = OpenBlock::open(&spec, &env, 0, parent, &source, None).unwrap();
    let mut snapshots = Vec::new();
    for (seq, txs) in frags.iter().enumerate() {
        let txs = txs.iter().map(|tx| Tx::decode(tx, true)).collect();
        block.execute(txs, seq + 1 == frags.len(), OnInvalid::Fail).unwrap();
        snapshots.push(block.snapshot());
    }
    block.finish().unwrap();
    (snapshots, Arc::new(block.sealed().unwrap()), root)
}

#[test]
fn a_block_with_deposits_and_withdrawals() {
    let attributes = deposit(
        address!("deaddeaddeaddeaddeaddeaddeaddeaddead0001"),
        address!("4200000000000000000000000000000000000015"),
    );
    let other = deposit(Address::repeat_byte(3), Address::repeat_byte(4));
    let frags = [
        vec![attributes, other],
        vec![transfer(0, Address::repeat_byte(9))],
        vec![transfer(1, MESSAGE_PASSER)],
        vec![],
        vec![transfer(2, MESSAGE_PASSER)],
    ];
    let (snapshots, sealed, before) = isthmus(&frags);
    assert!(sealed.snapshot.txs().all(|placed| placed.executed.receipt.success));
    let all = payloads(&snapshots, &sealed);
    assert_eq!(all.len(), 6);
    for (payload, frag) in all.iter().zip(&frags) {
        assert_eq!(&payload.diff.transactions, frag);
    }
    // The root moves with the frags that call the message passer, and ends as the header's.
    let roots: Vec<B256> = all.iter().map(|payload| payload.diff.withdrawals_root).collect();
    let end = sealed.snapshot.header.withdrawals_root.unwrap();
    assert_eq!((roots[0], roots[1]), (before, before));
    assert!(roots[2] != before && roots[2] != end);
    assert_eq!(roots[3], roots[2]);
    assert_eq!((roots[4], roots[5]), (end, end));

    let first = &snapshots[0].frags[0].txs[0];
    let OpReceipt::Deposit(receipt) = &all[0].metadata.receipts[&first.tx.hash] else {
        panic!("{:?}", all[0].metadata.receipts);
    };
    let fields = first.receipt.deposit.unwrap();
    assert_eq!((receipt.deposit_nonce, receipt.deposit_receipt_version), (fields.nonce, Some(1)));
    let minted = all[0].metadata.new_account_balances[&Address::repeat_byte(3)];
    assert_eq!(minted, U256::from(5));
    // The block that op-reth would hand to its engine is the sealed one.
    for (index, payload) in all.iter().enumerate() {
        assert_eq!(consumed(&all[..=index]).header.hash_slow(), payload.diff.block_hash);
    }
    assert_eq!(all[5].diff.block_hash, sealed.hash());
    assert_eq!(consumed(&all).body.transactions.len(), 5);
}
