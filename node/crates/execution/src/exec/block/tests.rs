//! Blocks of the devnet's gateway, valid and spoiled.

use std::num::NonZeroU32;

use alloy_consensus::{TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Bytes, TxKind, U256};
use fragcast_shredder::{BlockBuilder, Dialect, Frag, Message, Seal};
use op_alloy_consensus::TxDeposit;

use super::*;
use crate::devnet::genesis::account_key;
use crate::devnet::{DevnetConfig, DevnetGateway, Genesis, sign};
use crate::exec::memory::{MemorySource, MemoryState};
use crate::exec::{SealField, Verdict};

fn config() -> DevnetConfig {
    DevnetConfig {
        accounts: NonZeroU32::new(30).expect("not zero"),
        timestamp: 1_000,
        ..DevnetConfig::default()
    }
}

/// A follower that starts from the devnet's genesis.
struct Follower {
    spec: Arc<ChainSpec>,
    source: Arc<dyn StateSource>,
    parent: Parent,
}

impl Follower {
    fn new() -> Self {
        let genesis = Genesis::devnet(&config());
        let spec = genesis.chain_spec("dev").unwrap();
        let state = MemoryState::of_genesis(spec.genesis.as_ref().unwrap());
        let source = MemorySource::new(genesis.header(), state).unwrap();
        let parent = source.anchor().clone().into();
        Self { spec: Arc::new(spec), source: Arc::new(source), parent }
    }

    /// Executes a block's messages and builds on it if it is verified.
    fn take(&mut self, messages: &[Message]) -> Verdict {
        let mut block = None;
        for message in messages {
            let step = match message {
                Message::Env(env) => {
                    let parent = self.parent.clone();
                    OpenBlock::open(&self.spec, env, 0, parent, &self.source, None)
                        .map(|opened| block = Some(opened))
                }
                Message::Frag(frag) => {
                    let txs = frag.txs.iter().map(|tx| Tx::decode(tx, false)).collect();
                    let block = block.as_mut().unwrap();
                    block.execute(txs, frag.is_last, OnInvalid::Fail).map(drop)
                }
                Message::Seal(seal) => {
                    let block = block.as_mut().unwrap();
                    let verdict = block.check(seal);
                    if verdict == Verdict::Verified {
                        self.parent = block.sealed().unwrap().as_parent();
                    }
                    return verdict;
                }
            };
            if let Err(error) = step {
                return error.into();
            }
        }
        panic!("a block ends with its Seal");
    }
}

fn gateway(dialect: Dialect) -> DevnetGateway {
    DevnetGateway::new(&config(), dialect).unwrap()
}

fn blocks(dialect: Dialect, count: u64) -> Vec<Vec<Message>> {
    let mut gateway = gateway(dialect);
    (1..=count).map(|n| gateway.block(1_000 + 2 * n, 3, 12).unwrap()).collect()
}

#[test]
fn followers_verify_what_the_gateway_builds() {
    for dialect in [Dialect::V0, Dialect::V0Blob] {
        let mut follower = Follower::new();
        for block in blocks(dialect, 4) {
            assert_eq!(follower.take(&block), Verdict::Verified);
        }
    }
}

fn seal(block: &mut [Message]) -> &mut Seal {
    match block.last_mut() {
        Some(Message::Seal(seal)) => seal,
        other => panic!("not a seal: {other:?}"),
    }
}

#[test]
fn a_seal_with_any_one_field_changed_is_rejected_with_its_name() {
    type Spoil = fn(&mut Seal);
    let spoils: [(SealField, Spoil); 9] = [
        (SealField::TotalFrags, |s| s.total_frags += 1),
        (SealField::ParentHash, |s| s.parent_hash[31] ^= 1),
        (SealField::GasLimit, |s| s.gas_limit += 1),
        (SealField::GasUsed, |s| s.gas_used -= 1),
        (SealField::BlobGasUsed, |s| s.blob_gas_used = Some(131_072)),
        (SealField::TransactionsRoot, |s| s.transactions_root[0] ^= 0x80),
        (SealField::ReceiptsRoot, |s| s.receipts_root[5] ^= 1),
        (SealField::StateRoot, |s| s.state_root[31] ^= 1),
        (SealField::BlockHash, |s| s.block_hash[0] ^= 1),
    ];
    let block = blocks(Dialect::V0Blob, 1).remove(0);
    for (field, spoil) in spoils {
        let mut block = block.clone();
        spoil(seal(&mut block));
        let verdict = Follower::new().take(&block);
        let Verdict::Rejected(Invalid::Seal { field: found, expected, computed }) = &verdict else {
            panic!("{field:?}: {verdict:?}");
        };
        assert_eq!(*found, field);
        assert_ne!(expected, computed);
        assert!(verdict.reason().unwrap().contains(field.name()), "{verdict:?}");
    }
    // The block's own number is what it is found by; it cannot differ here.
    assert_eq!(Follower::new().take(&block), Verdict::Verified);
}

#[test]
fn an_env_that_contradicts_its_parent_is_rejected_with_the_field() {
    type Spoil = fn(&mut Env);
    let spoils: [(&str, Spoil); 6] = [
        ("number", |e| e.number += 1),
        ("timestamp", |e| e.timestamp = 1_000),
        ("basefee", |e| e.basefee += 1),
        ("difficulty", |e| e.difficulty = U256::from(1)),
        ("extra_data", |e| e.extra_data = vec![0; 33].into()),
        ("gas_limit", |e| e.gas_limit *= 2),
    ];
    let block = blocks(Dialect::V0, 1).remove(0);
    for (field, spoil) in spoils {
        let mut block = block.clone();
        let Message::Env(env) = &mut block[0] else { panic!("a block begins with Env") };
        spoil(env);
        match Follower::new().take(&block) {
            Verdict::Rejected(Invalid::Env(error)) => assert_eq!(error.field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    // What the hash alone tells.
    let mut block = block;
    let Message::Env(env) = &mut block[0] else { panic!("a block begins with Env") };
    env.beneficiary[0] ^= 1;
    let verdict = Follower::new().take(&block);
    assert!(matches!(verdict, Verdict::Rejected(Invalid::Seal { .. })), "{verdict:?}");
    // An unknown parent is no fault of the block's.
    let Message::Env(env) = &mut block[0] else { panic!("a block begins with Env") };
    env.parent_hash[0] ^= 1;
    let verdict = Follower::new().take(&block);
    assert!(matches!(verdict, Verdict::Unverified(Unverified::Parent(_))), "{verdict:?}");
}

fn signed(nonce: u64, chain_id: u64, max_fee_per_gas: u128, gas_limit: u64) -> Bytes {
    let tx = TxEip1559 {
        chain_id,
        nonce,
        gas_limit,
        max_fee_per_gas,
        max_priority_fee_per_gas: 0,
        to: TxKind::Call(Address::repeat_byte(9)),
        value: U256::from(1),
        access_list: Default::default(),
        input: Bytes::new(),
    };
    TxEnvelope::from(sign(&account_key(0, 0), tx)).encoded_2718().into()
}

fn frag(seq: u64, is_last: bool, txs: Vec<Bytes>) -> Message {
    Frag { is_last, ..BlockBuilder::new(1).frag_at(seq, txs) }.into()
}

/// The verdict on a block whose frag 1 is `txs`.
fn with_frag(txs: Vec<Bytes>) -> Verdict {
    let mut gateway = gateway(Dialect::V0);
    let mut block = vec![Message::Env(gateway.open(1_002).unwrap())];
    block.push(frag(0, false, Vec::new()));
    block.push(frag(1, true, txs));
    // Nobody gets so far as to compare it.
    block.push(blocks(Dialect::V0, 1).remove(0).pop().unwrap());
    Follower::new().take(&block)
}

#[test]
fn a_frag_with_a_transaction_that_cannot_be_included_is_invalid_with_index_and_reason() {
    const CHAIN: u64 = crate::devnet::genesis::DEFAULT_CHAIN_ID;
    const FEE: u128 = 100_000_000_000;
    let good = signed(0, CHAIN, FEE, 21_000);
    let mut broken = good.to_vec();
    let last = broken.len() - 1;
    broken[last] ^= 0xff;
    let mut longer = good.to_vec();
    longer.push(0);
    let deposit = TxDeposit { gas_limit: 100_000, ..TxDeposit::default() };
    let deposit: Bytes = deposit.encoded_2718().into();
    for (bad, reason) in [
        (signed(5, CHAIN, FEE, 21_000), "nonce"),
        (signed(0, CHAIN, FEE, 21_000), "nonce"),
        (signed(1, CHAIN + 1, FEE, 21_000), "chain"),
        (signed(1, CHAIN, 1, 21_000), "fee"),
        (signed(1, CHAIN, FEE, 20_999), "gas"),
        (signed(1, CHAIN, FEE, u64::MAX), "gas"),
        (signed(1, CHAIN, 10_u128.pow(30), 21_000), "funds"),
        (vec![0x7e, 0xc0].into(), "decode"),
        (deposit, "decode"),
        (vec![0x55, 1, 2, 3].into(), "decode"),
        (Bytes::new(), "decode"),
        (longer.into(), "decode"),
    ] {
        match with_frag(vec![good.clone(), bad.clone()]) {
            Verdict::Rejected(Invalid::Tx { frag: 1, index: 1, reason: found }) => {
                assert!(found.to_lowercase().contains(reason), "{reason}: {found}");
            }
            other => panic!("{reason}: {other:?}"),
        }
    }
    // Another signature is another sender, who has nothing, or none at all.
    let verdict = with_frag(vec![broken.into()]);
    assert!(matches!(verdict, Verdict::Rejected(Invalid::Tx { frag: 1, index: 0, .. })));
    // Without the bad one it is a matter of the Seal alone.
    assert!(matches!(with_frag(vec![good]), Verdict::Rejected(Invalid::Seal { .. })));
}

#[test]
fn frags_out_of_place_are_invalid() {
    let mut block = blocks(Dialect::V0, 1).remove(0);
    // Two last ones.
    let Message::Frag(first) = &mut block[2] else { panic!("a frag") };
    first.is_last = true;
    let verdict = Follower::new().take(&block);
    assert!(matches!(verdict, Verdict::Rejected(Invalid::Frag { .. })), "{verdict:?}");
    // None.
    let mut block = blocks(Dialect::V0, 1).remove(0);
    let Message::Frag(last) = &mut block[3] else { panic!("a frag") };
    last.is_last = false;
    let verdict = Follower::new().take(&block);
    assert!(matches!(verdict, Verdict::Rejected(Invalid::Frag { .. })), "{verdict:?}");
}

#[test]
fn a_fork_that_this_build_lacks_ends_verification_before_its_time() {
    let mut follower = Follower::new();
    let mut json: serde_json::Value =
        serde_json::from_str(&Genesis::devnet(&config()).to_json().unwrap()).unwrap();
    json["config"]["amsterdamTime"] = 1_004.into();
    let genesis = serde_json::from_value(json).unwrap();
    follower.spec = Arc::new(ChainSpec::from_genesis("test", genesis).unwrap());
    let blocks = blocks(Dialect::V0, 2);
    assert_eq!(follower.take(&blocks[0]), Verdict::Verified);
    let verdict = follower.take(&blocks[1]);
    assert_eq!(verdict, Verdict::Unverified(Unverified::Fork("amsterdam".into())));
    assert!(verdict.reason().unwrap().contains("update"), "{verdict:?}");
}

#[test]
fn snapshots_of_frags_stay_as_they_were() {
    let mut gateway = gateway(Dialect::V0);
    let follower = Follower::new();
    let env = gateway.open(1_002).unwrap();
    let parent = follower.parent.clone();
    let mut block =
        OpenBlock::open(&follower.spec, &env, 0, parent, &follower.source, None).unwrap();
    let sender = account_key(0, 0).address();
    let mut seen = Vec::new();
    let before = block.snapshot();
    for i in 0..5 {
        let tx = signed(i, follower.spec.chain_id, 100_000_000_000, 21_000);
        let txs = vec![Tx::decode(&tx, false)];
        block.execute(txs, i == 4, OnInvalid::Fail).unwrap();
        seen.push((i + 1, block.snapshot()));
    }
    assert_eq!(before.state.account(sender).unwrap().unwrap().nonce, 0);
    for (nonce, snapshot) in &seen {
        let account = snapshot.state.account(sender).unwrap().unwrap();
        assert_eq!(account.nonce, *nonce);
        assert_eq!(snapshot.tx_count() as u64, *nonce);
        assert_eq!(snapshot.header.gas_used, 21_000 * nonce);
        let target = snapshot.state.account(Address::repeat_byte(9)).unwrap().unwrap();
        assert_eq!(target.balance, U256::from(*nonce));
        let last = snapshot.tx(snapshot.tx_count() - 1).unwrap();
        assert_eq!((last.index as u64 + 1, last.frag + 1), (*nonce, *nonce));
        assert!(snapshot.tx(snapshot.tx_count()).is_none());
    }
}

mod karst;
mod op;
