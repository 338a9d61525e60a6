use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{Bytes, Log};
use fragcast_execution::devnet::{DevnetConfig, Workload};
use fragcast_execution::exec::receipt::DepositFields;
use fragcast_execution::exec::{Executed, ExecutedBlock, ExecutedFrag, Receipt, Tx};
use fragcast_execution::testing::TestChain;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::body::{assemble, decode_body, decode_receipts, encode_body, encode_receipts};
use super::super::undo::Undo;
use super::*;

fn account() -> impl Strategy<Value = Account> {
    let code = prop_oneof![Just(KECCAK256_EMPTY.0), any::<[u8; 32]>()];
    (any::<u64>(), any::<u64>(), any::<[u8; 32]>(), 0_usize..=256, code).prop_map(
        |(nonce, shift, balance, bits, code)| Account {
            nonce: nonce >> (shift % 64),
            balance: U256::from_be_bytes(balance).checked_shr(bits).unwrap_or_default(),
            code_hash: B256::new(code),
        },
    )
}

fn receipt() -> impl Strategy<Value = Receipt> {
    let log = (any::<[u8; 20]>(), vec(any::<[u8; 32]>(), 0..5), vec(any::<u8>(), 0..80));
    let deposit = proptest::option::of((
        proptest::option::of(any::<u64>()),
        proptest::option::of(any::<u64>()),
    ));
    (any::<u8>(), any::<bool>(), any::<u64>(), vec(log, 0..4), deposit).prop_map(
        |(ty, success, gas, logs, deposit)| {
            let logs = logs.into_iter().map(|(address, topics, data)| {
                let topics = topics.into_iter().map(B256::new).collect();
                Log::new_unchecked(address.into(), topics, data.into())
            });
            let mut receipt = Receipt::new(ty, success, gas, logs.collect());
            receipt.deposit = deposit.map(|(nonce, version)| DepositFields { nonce, version });
            receipt
        },
    )
}

/// A block of the workload's transactions with any receipts, in frags of these sizes.
fn block(receipts: Vec<Receipt>, cuts: &[usize], withdrawals: Option<u64>) -> ExecutedBlock {
    let mut workload = Workload::new(&DevnetConfig::default());
    let mut txs = receipts.into_iter().enumerate().map(|(i, receipt)| {
        let tx = Tx::decode(&workload.next_tx().bytes, false).unwrap();
        Executed { tx, receipt, gas_used: i as u64 * 7 }
    });
    let (mut first_index, mut first_log) = (0, 0);
    let mut frags = Vec::new();
    for (seq, cut) in cuts.iter().copied().chain([usize::MAX]).enumerate() {
        let txs: Vec<_> = txs.by_ref().take(cut).collect();
        let (count, logs) = (txs.len(), txs.iter().map(|tx| tx.receipt.logs.len()).sum::<usize>());
        let frag = ExecutedFrag { seq: seq as u64, first_index, first_log, txs };
        frags.push(std::sync::Arc::new(frag));
        first_index += count;
        first_log += logs;
    }
    let withdrawals = withdrawals.map(|n| {
        let all = (0..n).map(|index| Withdrawal { index, amount: n, ..Withdrawal::default() });
        std::sync::Arc::new(all.collect())
    });
    let header = Header { number: 5, ..Header::default() };
    ExecutedBlock { attempt: 3, hash: header.hash_slow(), header, frags, withdrawals }
}

proptest! {
    #[test]
    fn accounts_come_back(account in account()) {
        prop_assert_eq!(decode_account(&encode_account(&account)), Ok(account));
    }

    #[test]
    fn slots_come_back(value in any::<[u8; 32]>(), bits in 0_usize..256) {
        let value = U256::from_be_bytes(value).checked_shr(bits).unwrap_or_default() | U256::ONE;
        prop_assert_eq!(decode_slot(&encode_slot(value)), Ok(value));
    }

    #[test]
    fn heads_come_back(number in any::<u64>(), hash in any::<[u8; 32]>()) {
        let head = Head { number, hash: hash.into(), state_root: B256::repeat_byte(1) };
        prop_assert_eq!(Head::decode(&head.encode()), Ok(head));
    }

    #[test]
    fn undo_records_come_back(
        accounts in vec((any::<[u8; 20]>(), proptest::option::of(account())), 0..5),
        slots in vec((any::<[u8; 20]>(), proptest::option::of(1_u64..)), 0..5),
        nodes in vec((vec(any::<u8>(), 0..66), proptest::option::of(vec(any::<u8>(), 0..600))), 0..5),
    ) {
        let undo = Undo {
            accounts: accounts.into_iter().map(|(k, v)| (k, v.as_ref().map(encode_account))).collect(),
            slots: slots
                .into_iter()
                .map(|(k, v)| {
                    let key = slot_key(k.into(), U256::MAX);
                    (key, v.map(|v| encode_slot(U256::from(v))))
                })
                .collect(),
            nodes,
        };
        prop_assert_eq!(Undo::decode(&undo.encode()), Ok(undo));
    }

    #[test]
    fn blocks_come_back(
        receipts in vec(receipt(), 0..6),
        cuts in vec(0_usize..4, 0..3),
        withdrawals in proptest::option::of(0_u64..3),
    ) {
        let block = block(receipts, &cuts, withdrawals);
        let body = decode_body(&encode_body(&block), false).unwrap();
        let receipts = decode_receipts(&encode_receipts(&block)).unwrap();
        let back = assemble(block.hash, block.header.clone(), body, receipts);
        prop_assert_eq!(back, Ok(block));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..400), op: bool) {
        // Counts are little-endian: most random ones are far too large, so make some small.
        for mask in [0xff, 0x03] {
            let bytes: Vec<u8> = bytes.iter().map(|byte| byte & mask).collect();
            let _ = decode_account(&bytes);
            let _ = decode_slot(&bytes);
            let _ = Head::decode(&bytes);
            let _ = Undo::decode(&bytes);
            let _ = decode_body(&bytes, op);
            let _ = decode_receipts(&bytes);
        }
    }

    #[test]
    fn damaged_records_are_decoded_or_refused(
        at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>(),
        receipts in vec(receipt(), 1..4),
    ) {
        let block = block(receipts, &[1], Some(1));
        let undo = Undo {
            accounts: vec![([1; 20], Some(vec![2; 40])), ([2; 20], None)],
            slots: vec![([1; 52], Some(vec![2; 30]))],
            nodes: vec![(vec![1; 9], Some(vec![3; 99])), (vec![2; 5], None)],
        };
        for record in [encode_body(&block), encode_receipts(&block), undo.encode()] {
            let mut damaged = record.clone();
            damaged[at.index(record.len())] = to;
            let (cut, whole) = (&record[..cut.index(record.len())], &damaged[..]);
            for bytes in [cut, whole] {
                let body = decode_body(bytes, false);
                let receipts = decode_receipts(bytes);
                let _ = Undo::decode(bytes);
                if let (Ok(body), Ok(receipts)) = (body, decode_receipts(&encode_receipts(&block))) {
                    let _ = assemble(block.hash, block.header.clone(), body, receipts);
                }
                if let (Ok(body), Ok(receipts)) = (decode_body(&encode_body(&block), false), receipts) {
                    let _ = assemble(block.hash, block.header.clone(), body, receipts);
                }
            }
        }
    }

    #[test]
    fn trie_keys_differ_and_stay_in_their_range(
        a in vec(0_u8..16, 0..=64), b in vec(0_u8..16, 0..=64), hash in any::<[u8; 32]>(),
    ) {
        let (a, b) = (Nibbles::from_nibbles(a), Nibbles::from_nibbles(b));
        let tries = [
            TrieId::Accounts,
            TrieId::Storage(hash.into()),
            TrieId::Storage(B256::ZERO),
            TrieId::Storage(B256::repeat_byte(0xff)),
        ];
        for one in tries {
            let key = trie_key(one, &a);
            prop_assert_eq!(key == trie_key(one, &b), a == b);
            for other in tries {
                let within = trie_prefix(other) <= key && key < trie_end(other);
                prop_assert_eq!(within, one == other, "{:?} {:?}", one, other);
            }
        }
    }
}

#[test]
fn numbers_have_one_form() {
    assert!(decode_slot(&[]).is_err());
    assert!(decode_slot(&[0, 1]).is_err());
    assert!(decode_slot(&[1; 33]).is_err());
    assert!(decode_account(&[1, 0, 0]).is_err());
    assert!(decode_account(&[9, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]).is_err());
    assert!(decode_account(&[0, 0, 7]).is_err());
}

#[test]
fn a_record_costs_no_more_than_what_it_holds() {
    let mut chain = TestChain::new(&DevnetConfig::default());
    let block = chain.block(2, 50);
    let body = encode_body(&block.snapshot.block);
    let txs: usize = block.snapshot.txs().map(|placed| placed.executed.tx.bytes.len()).sum();
    assert!(body.len() < txs + 100 * 24 + 64);
    let _: Bytes = body.into();
}
