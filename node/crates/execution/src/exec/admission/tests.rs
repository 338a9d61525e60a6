//! What is admitted is what the executor includes, fork by fork.

use std::num::NonZeroU32;
use std::sync::Arc;

use alloy_consensus::{SignableTransaction, TxEip1559, TxEip4844, TxEip7702, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_eips::eip7702::{Authorization, SignedAuthorization};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use op_alloy_consensus::TxDeposit;

use super::*;
use crate::devnet::genesis::account_key;
use crate::devnet::{DevnetConfig, sign};
use crate::exec::{OnInvalid, OpenBlock};
use crate::testing::{OpGround, TestChain};

/// A devnet with these forks beside those that it has, by time. Its blocks are two seconds apart.
fn chain(forks: &[(&str, u64)]) -> TestChain {
    let mut chain =
        TestChain::new(&DevnetConfig { accounts: NonZeroU32::MIN, ..DevnetConfig::default() });
    let mut genesis: serde_json::Value =
        serde_json::from_str(&chain.genesis.to_json().unwrap()).unwrap();
    for (fork, time) in forks {
        genesis["config"][format!("{fork}Time")] = (*time).into();
    }
    let genesis = serde_json::from_value(genesis).unwrap();
    chain.spec = Arc::new(ChainSpec::from_genesis("dev", genesis).unwrap());
    chain
}

fn signed<T: SignableTransaction<Signature>>(tx: T) -> Tx
where
    alloy_consensus::Signed<T>: Encodable2718,
{
    let bytes: Bytes = sign(&account_key(0, 0), tx).encoded_2718().into();
    Tx::decode(&bytes, false).unwrap()
}

fn plain(chain: &TestChain) -> TxEip1559 {
    TxEip1559 {
        chain_id: chain.spec.chain_id,
        gas_limit: 21_000,
        max_fee_per_gas: 2_000_000_000,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(Address::repeat_byte(0xcc)),
        ..Default::default()
    }
}

fn with(chain: &TestChain, change: impl FnOnce(&mut TxEip1559)) -> Tx {
    let mut tx = plain(chain);
    change(&mut tx);
    signed(tx)
}

fn delegating(chain: &TestChain, tuples: usize, gas_limit: u64) -> Tx {
    let tuple = SignedAuthorization::new_unchecked(
        Authorization { chain_id: U256::ZERO, address: Address::repeat_byte(1), nonce: 0 },
        0,
        U256::ONE,
        U256::ONE,
    );
    let TxEip1559 { chain_id, max_fee_per_gas, max_priority_fee_per_gas, .. } = plain(chain);
    signed(TxEip7702 {
        chain_id,
        gas_limit,
        max_fee_per_gas,
        max_priority_fee_per_gas,
        to: Address::repeat_byte(0xcc),
        authorization_list: vec![tuple; tuples],
        ..Default::default()
    })
}

fn blobs(chain: &TestChain, blobs: usize, version: u8, max_fee_per_blob_gas: u128) -> Tx {
    let TxEip1559 { chain_id, max_fee_per_gas, max_priority_fee_per_gas, .. } = plain(chain);
    let mut hash = B256::repeat_byte(7);
    hash[0] = version;
    signed(TxEip4844 {
        chain_id,
        gas_limit: 21_000,
        max_fee_per_gas,
        max_priority_fee_per_gas,
        max_fee_per_blob_gas,
        blob_versioned_hashes: vec![hash; blobs],
        to: Address::repeat_byte(0xcc),
        ..Default::default()
    })
}

/// Whether a block that is filled leaves it out.
fn included(open: &mut OpenBlock, tx: &Tx) -> bool {
    match open.execute(vec![Ok(tx.clone())], true, OnInvalid::PassOver) {
        Ok(passed_over) => passed_over.is_empty(),
        // Blob gas is counted before anything is executed.
        Err(_) => false,
    }
}

/// Transactions with what is wrong with them, and the text that says so.
fn cases(chain: &TestChain, prague: bool, osaka: bool) -> Vec<(Tx, Option<(Why, &'static str)>)> {
    let legacy = |gas_price| TxLegacy {
        chain_id: Some(chain.spec.chain_id),
        gas_price,
        gas_limit: 21_000,
        to: TxKind::Call(Address::repeat_byte(0xcc)),
        ..Default::default()
    };
    let not_before = |yes: bool, fork: &'static str| (!yes).then_some((Why::Type, fork));
    let creating = |length: usize| {
        with(chain, |tx| {
            tx.to = TxKind::Create;
            tx.input = vec![0; length].into();
            tx.gas_limit = 15_000_000;
        })
    };
    // 100 bytes that are not zero: 21,000 + 1,600 of intrinsic gas; 21,000 + 4,000 of floor.
    let data = |gas| {
        with(chain, |tx| {
            tx.input = vec![1; 100].into();
            tx.gas_limit = gas;
        })
    };
    let floor =
        (Why::Gas, "insufficient gas for floor data gas cost: gas 24999, minimum needed 25000");
    vec![
        (signed(plain(chain)), None),
        (signed(legacy(2_000_000_000)), None),
        (signed(legacy(0)), Some((Why::Fees, "max fee per gas less than block base fee: "))),
        (with(chain, |tx| tx.max_fee_per_gas = 1), Some((Why::Fees, "max fee per gas less than"))),
        (
            with(chain, |tx| tx.max_priority_fee_per_gas = 1 << 60),
            Some((Why::Fees, "max priority fee per gas higher than max fee per gas: ")),
        ),
        (with(chain, |tx| tx.nonce = u64::MAX), Some((Why::Nonce, "nonce has max value: "))),
        (with(chain, |tx| tx.gas_limit = 20_999), Some((Why::Gas, "intrinsic gas too low: gas 2"))),
        (data(22_599), Some((Why::Gas, "intrinsic gas too low: gas 22599, minimum needed 22600"))),
        (data(24_999), prague.then_some(floor)),
        (data(25_000), None),
        (
            with(chain, |tx| tx.gas_limit = (1 << 24) + 1),
            osaka.then_some((Why::Gas, "transaction gas limit too high (cap: 16777216, tx: 1677")),
        ),
        (with(chain, |tx| tx.gas_limit = 1 << 24), None),
        (
            with(chain, |tx| tx.gas_limit = 240_000_001),
            Some((
                Why::Gas,
                if osaka { "transaction gas limit too high" } else { "exceeds block gas" },
            )),
        ),
        (
            with(chain, |tx| tx.value = U256::MAX >> 8),
            Some((Why::Funds, "insufficient funds for gas * price + value: balance ")),
        ),
        (with(chain, |tx| tx.value = U256::MAX), Some((Why::Funds, "insufficient funds for gas"))),
        (creating(49_152), None),
        (creating(49_153), Some((Why::Form, "max initcode size exceeded: code size 49153"))),
        (delegating(chain, 1, 100_000), not_before(prague, "type 4 rejected, the fork Prague")),
        (
            delegating(chain, 0, 100_000),
            Some(if prague {
                (Why::Form, "set code tx must have at least one authorization tuple")
            } else {
                (Why::Type, "transaction type not supported: type 4 rejected")
            }),
        ),
        (blobs(chain, 1, 1, 1_000_000_000), None),
        (blobs(chain, 0, 1, 1_000_000_000), Some((Why::Form, "blobless blob transaction"))),
        (
            blobs(chain, 1, 2, 1_000_000_000),
            Some((Why::Form, "a blob has an invalid hash version")),
        ),
        (blobs(chain, 1, 1, 0), Some((Why::Fees, "max fee per blob gas less than block blob gas"))),
        (
            blobs(chain, 10, 1, 1_000_000_000),
            Some((Why::Form, "too many blobs in transaction: have 10, permitted ")),
        ),
    ]
}

#[test]
fn what_is_admitted_is_what_the_executor_includes() {
    type Forks = &'static [(&'static str, u64)];
    let forks: [(Forks, bool, bool); 3] = [
        (&[], false, false),
        (&[("prague", 0)], true, false),
        (&[("prague", 0), ("osaka", 0)], true, true),
    ];
    for (forks, prague, osaka) in forks {
        let chain = chain(forks);
        for (index, (tx, wrong)) in cases(&chain, prague, osaka).into_iter().enumerate() {
            let at = format!("{forks:?} {index}: {:?}", tx.envelope);
            let mut open = chain.open();
            let building = open.snapshot();
            for snapshot in [&building, &chain.head.snapshot] {
                match (admit(&chain.spec, snapshot, &tx, Fees::OfBlock), wrong) {
                    (Ok(0), None) => {}
                    (Err(NotAdmitted::Invalid(why, text)), Some((wanted, begin))) => {
                        assert_eq!(why, wanted, "{at}: {text}");
                        assert!(text.contains(begin), "{at}: {text}");
                    }
                    (other, wrong) => panic!("{at}: {other:?}, not {wrong:?}"),
                }
            }
            assert_eq!(included(&mut open, &tx), wrong.is_none(), "{at}");
        }
    }
}

#[test]
fn the_fork_is_that_of_the_block_to_come() {
    // Block 1 has the time 2: after the sealed block 0 comes one in which Prague may be active.
    for (time, active) in [(1, true), (2, false)] {
        let chain = chain(&[("prague", time)]);
        let tx = delegating(&chain, 1, 100_000);
        let admitted = admit(&chain.spec, &chain.head.snapshot, &tx, Fees::OfBlock);
        assert_eq!(admitted.is_ok(), active, "{admitted:?}");
        let mut open = chain.open();
        assert!(admit(&chain.spec, &open.snapshot(), &tx, Fees::OfBlock).is_ok());
        assert!(included(&mut open, &tx));
    }
}

#[test]
fn nonces_may_be_ahead_and_not_behind() {
    let mut chain = chain(&[]);
    chain.block(1, 3);
    let at = |nonce| {
        let tx = with(&chain, |tx| tx.nonce = nonce);
        admit(&chain.spec, &chain.head.snapshot, &tx, Fees::OfBlock)
    };
    let text = "nonce too low: next nonce 3, tx nonce 2".to_owned();
    assert_eq!(at(2), Err(NotAdmitted::Invalid(Why::Nonce, text)));
    for nonce in [3, 4, u64::MAX - 1] {
        assert_eq!(at(nonce), Ok(3));
    }
}

#[test]
fn fees_need_to_reach_only_what_the_chain_can_come_down_to() {
    let chain = chain(&[]);
    let header = &chain.head.snapshot.header;
    // An eighth a block, of 1 gwei: by 125,000,000, then by 109,375,000.
    let lowest = |seconds, interval| lowest_base_fee(&chain.spec, header, seconds, interval);
    assert_eq!(lowest(0, 2), 1_000_000_000);
    assert_eq!(lowest(1, 2), 1_000_000_000);
    assert_eq!(lowest(2, 2), 875_000_000);
    assert_eq!(lowest(5, 2), 765_625_000);
    assert_eq!(lowest(2, 0), 765_625_000, "a block a second at most");
    // It never falls below 7 wei.
    let low = alloy_consensus::Header { base_fee_per_gas: Some(9), ..header.clone() };
    assert_eq!(lowest_base_fee(&chain.spec, &low, 1_000, 1), 7);
    let offering = |fee| {
        let tx = with(&chain, |tx| tx.max_fee_per_gas = fee);
        admit(&chain.spec, &chain.head.snapshot, &tx, Fees::Lowest(765_625_000))
    };
    assert_eq!(offering(765_625_000), Ok(0));
    assert!(matches!(offering(765_624_999), Err(NotAdmitted::Invalid(Why::Fees, _))));
    // Blob gas at its lowest price.
    for (fee, admitted) in [(1, true), (0, false)] {
        let tx = blobs(&chain, 1, 1, fee);
        let fees = Fees::Lowest(7);
        assert_eq!(admit(&chain.spec, &chain.head.snapshot, &tx, fees).is_ok(), admitted);
    }
}

#[test]
fn op_chains_take_what_op_executors_include() {
    let ground = OpGround::new(30_000_000, &[]);
    let key = account_key(0, 0);
    let mint: u128 = 1_000_000_000_000_000_000;
    let deposit: Bytes = TxDeposit {
        from: key.address(),
        to: TxKind::Call(Address::repeat_byte(0xdd)),
        mint,
        gas_limit: 100_000,
        ..Default::default()
    }
    .encoded_2718()
    .into();
    let transfer = |change: &dyn Fn(&mut TxEip1559)| {
        let mut tx = TxEip1559 {
            chain_id: ground.spec.chain_id,
            // The first is the deposit's.
            nonce: 1,
            gas_limit: 21_000,
            max_fee_per_gas: 2_000_000_000,
            to: TxKind::Call(Address::repeat_byte(0xcc)),
            ..Default::default()
        };
        change(&mut tx);
        let bytes: Bytes = sign(&key, tx).encoded_2718().into();
        Tx::decode(&bytes, true).unwrap()
    };
    let broke = (Why::Funds, "insufficient funds for gas * price + value: balance ");
    let cases = [
        (transfer(&|_| {}), None),
        (transfer(&|tx| tx.value = U256::from(mint)), Some(broke)),
        (transfer(&|tx| tx.max_fee_per_gas = 1), Some((Why::Fees, "max fee per gas less than"))),
        (transfer(&|tx| tx.gas_limit = 30_000_001), Some((Why::Gas, "exceeds block gas limit"))),
        (transfer(&|tx| tx.nonce = u64::MAX), Some((Why::Nonce, "nonce has max value"))),
        // Below the floor of Prague, which OP has from Isthmus on: this chain is at Holocene.
        (
            transfer(&|tx| {
                tx.input = vec![1; 100].into();
                tx.gas_limit = 22_600;
            }),
            None,
        ),
    ];
    for (tx, wrong) in cases {
        let mut open = ground.open();
        let deposits = [OpGround::attributes(), deposit.clone()];
        let deposits = deposits.iter().map(|tx| Tx::decode(tx, true)).collect();
        open.execute(deposits, false, OnInvalid::Fail).unwrap();
        match (admit(&ground.spec, &open.snapshot(), &tx, Fees::OfBlock), wrong) {
            (Ok(1), None) => {}
            (Err(NotAdmitted::Invalid(why, text)), Some((wanted, begin))) => {
                assert_eq!(why, wanted, "{text}");
                assert!(text.starts_with(begin), "{text}");
            }
            (other, wrong) => panic!("{:?}: {other:?}, not {wrong:?}", tx.envelope),
        }
        assert_eq!(included(&mut open, &tx), wrong.is_none(), "{:?}", tx.envelope);
    }
    // What comes from L1 cannot be sent.
    let deposit = Tx::decode(&deposit, true).unwrap();
    let refused = admit(&ground.spec, &ground.open().snapshot(), &deposit, Fees::OfBlock);
    assert!(matches!(refused, Err(NotAdmitted::Invalid(Why::Type, _))));
    // Nor can a transaction of the other kind of chain.
    let foreign = with(&chain(&[]), |_| {});
    let refused = admit(&ground.spec, &ground.open().snapshot(), &foreign, Fees::OfBlock);
    assert!(matches!(refused, Err(NotAdmitted::Invalid(Why::Type, _))));
}
