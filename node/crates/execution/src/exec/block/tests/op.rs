//! Rules of OP blocks.

use std::collections::BTreeMap;

use alloy_consensus::{SignableTransaction, TxEip4844};
use alloy_primitives::{Signature, b256};

use super::*;

/// An arbitrary hash: the source of deposits.
const SOURCE: B256 = b256!("1111111111111111111111111111111111111111111111111111111111111111");
/// Holocene's `extra_data`: version 0, denominator 250, elasticity 6.
const HOLOCENE: [u8; 9] = [0, 0, 0, 0, 250, 0, 0, 0, 6];

struct Ground {
    spec: Arc<ChainSpec>,
    source: Arc<dyn StateSource>,
    parent: Parent,
}

/// A chain at Holocene with one rich account.
fn ground() -> Ground {
    let forks = ["canyon", "ecotone", "fjord", "granite", "holocene"];
    let times: BTreeMap<String, u64> = forks.iter().map(|fork| ((*fork).into(), 0)).collect();
    let spec = ChainSpec::op_with_times("test", 901, &times).unwrap();
    let mut state = MemoryState::default();
    let rich = account_key(0, 0).address();
    state.insert(rich, 0, U256::from(u128::MAX), &Bytes::new(), std::iter::empty());
    let header = Header {
        state_root: state.trie().unwrap().root(),
        number: 10,
        gas_limit: 30_000_000,
        timestamp: 1_000,
        extra_data: HOLOCENE.to_vec().into(),
        base_fee_per_gas: Some(1_000_000_000),
        excess_blob_gas: Some(0),
        blob_gas_used: Some(0),
        ..Header::default()
    };
    let source = MemorySource::new(header, state).unwrap();
    let parent = source.anchor().clone().into();
    Ground { spec: Arc::new(spec), source: Arc::new(source), parent }
}

impl Ground {
    fn env(&self) -> Env {
        Env {
            number: 11,
            parent_hash: self.parent.hash,
            beneficiary: Address::repeat_byte(0xfe),
            timestamp: 1_002,
            // On OP the gas limit is the system's to set.
            gas_limit: 60_000_000,
            basefee: self.spec.next_base_fee(&self.parent.header, 1_002).unwrap(),
            difficulty: U256::ZERO,
            prevrandao: B256::ZERO,
            extra_data: HOLOCENE.to_vec().into(),
            parent_beacon_block_root: B256::ZERO,
        }
    }

    fn open(&self, env: &Env) -> Result<OpenBlock, BlockError> {
        OpenBlock::open(&self.spec, env, 0, self.parent.clone(), &self.source, None)
    }

    /// Executes a block with these frags, the last of which is marked so.
    fn run(&self, frags: &[Vec<Bytes>]) -> Result<OpenBlock, BlockError> {
        let mut block = self.open(&self.env())?;
        for (i, txs) in frags.iter().enumerate() {
            let txs = txs.iter().map(|tx| Tx::decode(tx, true)).collect();
            block.execute(txs, i + 1 == frags.len(), OnInvalid::Fail)?;
        }
        Ok(block)
    }
}

fn deposit(from: Address, to: Address) -> Bytes {
    let deposit = TxDeposit {
        source_hash: SOURCE,
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

fn attributes() -> Bytes {
    deposit(alloy_primitives::address!("deaddeaddeaddeaddeaddeaddeaddeaddead0001"), L1_BLOCK)
}

fn transfer(nonce: u64) -> Bytes {
    signed(nonce, 901, 100_000_000_000, 21_000)
}

fn refused(outcome: Result<OpenBlock, BlockError>, at: (u64, usize), part: &str) {
    match outcome.map(|_| ()) {
        Err(BlockError::Invalid(Invalid::Tx { frag, index, reason })) => {
            assert_eq!((frag, index), at, "{reason}");
            assert!(reason.contains(part), "{reason}");
        }
        other => panic!("{part}: {other:?}"),
    }
}

#[test]
fn an_op_block_is_executed_with_deposits_first() {
    let other = deposit(Address::repeat_byte(3), Address::repeat_byte(4));
    let frags = [vec![attributes(), other], vec![transfer(0), transfer(1)], vec![]];
    let mut block = ground().run(&frags).unwrap();
    let seal = block.make_seal(false).unwrap();
    assert_eq!(block.check(&seal), Verdict::Verified);
    let sealed = block.sealed().unwrap();
    let receipts: Vec<_> = sealed.snapshot.txs().map(|p| p.executed.receipt.clone()).collect();
    assert_eq!(receipts.len(), 4);
    let fields = receipts[0].deposit.unwrap();
    assert_eq!((fields.nonce, fields.version), (Some(0), Some(1)));
    assert!(receipts[2].deposit.is_none());
    let minted = sealed.snapshot.state.account(Address::repeat_byte(3)).unwrap().unwrap();
    assert_eq!(minted.balance, U256::from(5));
    // Before Isthmus the field is that of no withdrawals; there are no blobs.
    let header = &sealed.snapshot.header;
    assert_eq!(header.withdrawals_root, Some(alloy_trie::EMPTY_ROOT_HASH));
    assert_eq!((header.excess_blob_gas, header.requests_hash), (Some(0), None));
}

#[test]
fn a_deposit_in_the_wrong_place_is_refused_with_its_index() {
    let ground = ground();
    let other = deposit(Address::repeat_byte(3), Address::repeat_byte(4));
    let first = "the first transaction of a block must be the L1-attributes deposit";
    refused(ground.run(&[vec![transfer(0)]]), (0, 0), first);
    refused(ground.run(&[vec![other.clone()]]), (0, 0), first);
    let elsewhere = deposit(
        alloy_primitives::address!("deaddeaddeaddeaddeaddeaddeaddeaddead0001"),
        Address::repeat_byte(1),
    );
    refused(ground.run(&[vec![elsewhere]]), (0, 0), first);
    // An empty frag is no transaction.
    refused(ground.run(&[vec![], vec![transfer(0)]]), (1, 0), first);
    let mut empty = ground.run(&[vec![]]).unwrap();
    let error = empty.finish().map(drop).unwrap_err();
    assert!(matches!(error, BlockError::Invalid(Invalid::Block(_))), "{error}");
    let late = "a deposit must come before all other transactions";
    refused(ground.run(&[vec![attributes(), transfer(0), other.clone()]]), (0, 2), late);
    refused(ground.run(&[vec![attributes(), transfer(0)], vec![other]]), (1, 0), late);
}

#[test]
fn blob_transactions_and_unknown_types_are_refused() {
    let ground = ground();
    let tx = TxEip4844 {
        chain_id: 901,
        gas_limit: 21_000,
        max_fee_per_gas: 100_000_000_000,
        max_fee_per_blob_gas: 1_000,
        to: Address::repeat_byte(9),
        blob_versioned_hashes: vec![B256::with_last_byte(1)],
        ..TxEip4844::default()
    };
    let signature = Signature::new(U256::from(1), U256::from(1), false);
    let blob: Bytes = crate::exec::tx::EthTx::from(tx.into_signed(signature)).encoded_2718().into();
    refused(ground.run(&[vec![attributes(), blob]]), (0, 1), "decode");
    let post_exec = alloy_primitives::hex!("7dc101");
    refused(ground.run(&[vec![attributes(), post_exec.to_vec().into()]]), (0, 1), "decode");
    for ty in [0x05, 0x7d, 0x7f, 0xc0] {
        let bytes: Bytes = vec![ty, 0xc0].into();
        refused(ground.run(&[vec![attributes(), bytes]]), (0, 1), "decode");
    }
}

#[test]
fn an_env_without_the_forks_extra_data_is_refused() {
    let ground = ground();
    for (extra, ok) in [
        (HOLOCENE.to_vec(), true),
        (Vec::new(), false),
        (vec![0; 9], false),
        ([&HOLOCENE[..], &[0]].concat(), false),
        ([&[1], &HOLOCENE[1..]].concat(), false),
    ] {
        let env = Env { extra_data: extra.clone().into(), ..ground.env() };
        match ground.open(&env).map(|_| ()) {
            Ok(()) => assert!(ok, "{extra:?}"),
            Err(BlockError::Invalid(Invalid::Env(error))) => {
                assert_eq!((error.field, ok), ("extra_data", false));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn jovian_has_a_least_base_fee_and_counts_the_da_footprint() {
    let forks = ["canyon", "ecotone", "fjord", "granite", "holocene", "isthmus", "jovian"];
    let times: BTreeMap<String, u64> = forks.iter().map(|fork| ((*fork).into(), 0)).collect();
    let spec = ChainSpec::op_with_times("test", 901, &times).unwrap();
    let extra = |least: u64| {
        let mut extra = vec![1, 0, 0, 0, 250, 0, 0, 0, 6];
        extra.extend(least.to_be_bytes());
        Bytes::from(extra)
    };
    let parent = |least, gas_used, footprint| Header {
        timestamp: 1_000,
        gas_limit: 60_000_000,
        gas_used,
        blob_gas_used: Some(footprint),
        base_fee_per_gas: Some(1_000),
        extra_data: extra(least),
        ..Header::default()
    };
    // Half of nothing used: it falls, but not below the least.
    assert_eq!(spec.next_base_fee(&parent(0, 0, 0), 1_002).unwrap(), 996);
    assert_eq!(spec.next_base_fee(&parent(999, 0, 0), 1_002).unwrap(), 999);
    // A footprint above the target counts as gas does.
    let by_gas = spec.next_base_fee(&parent(0, 20_000_000, 0), 1_002).unwrap();
    assert_eq!(spec.next_base_fee(&parent(0, 0, 20_000_000), 1_002).unwrap(), by_gas);
    assert!(by_gas > 1_000);
    let bad = Header { extra_data: Bytes::new(), ..parent(0, 0, 0) };
    assert!(spec.next_base_fee(&bad, 1_002).is_err());
}
