//! The devnet: its genesis, its transactions, its blocks.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use alloy_consensus::proofs::ordered_trie_root_encoded;
use alloy_consensus::{Header, Transaction, TxEnvelope};
use alloy_eips::eip1559::BaseFeeParams;
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use fragcast_shredder::{Dialect, Message, Signature};

use super::genesis::{
    BLOCK_GAS_LIMIT, DEFAULT_CHAIN_ID, GenesisAccount, INITIAL_BALANCE, account_key,
};
use super::transactions::{MAX_FEE_PER_GAS, MAX_TX_GAS};
use super::*;

fn small(seed: u64) -> DevnetConfig {
    let accounts = NonZeroU32::new(20).expect("not zero");
    DevnetConfig { seed, accounts, ..DevnetConfig::default() }
}

fn decode(bytes: &Bytes) -> TxEnvelope {
    let mut rest = bytes.as_ref();
    let tx = TxEnvelope::decode_2718(&mut rest).expect("a transaction");
    assert!(rest.is_empty());
    tx
}

/// The sender, recovered as a message's gateway would be.
fn sender(tx: &TxEnvelope) -> Address {
    let mut bytes = tx.signature().as_bytes();
    bytes[64] -= 27;
    Signature::from_bytes(bytes).recover(&tx.signature_hash()).expect("a signature")
}

#[test]
fn transactions_decode_with_consecutive_nonces_and_funded_senders() {
    let config = small(7);
    let mut workload = Workload::new(&config);
    let genesis = Genesis::devnet(&config);
    let mut nonces = BTreeMap::<Address, u64>::new();
    let mut spent = BTreeMap::<Address, U256>::new();
    let (mut ether, mut legacy, mut tokens, mut creations) = (0, 0, 0, 0);
    for _ in 0..2_000 {
        let made = workload.next_tx();
        let tx = decode(&made.bytes);
        assert_eq!(sender(&tx), made.sender);
        assert_eq!(tx.chain_id(), Some(DEFAULT_CHAIN_ID));
        assert_eq!(tx.gas_limit(), made.gas_limit);
        assert!(made.gas_limit <= MAX_TX_GAS);
        assert_eq!(tx.max_fee_per_gas(), MAX_FEE_PER_GAS);
        let nonce = nonces.entry(made.sender).or_default();
        assert_eq!(tx.nonce(), *nonce);
        *nonce += 1;
        let cost = U256::from(tx.gas_limit()) * U256::from(tx.max_fee_per_gas()) + tx.value();
        *spent.entry(made.sender).or_default() += cost;
        legacy += u32::from(tx.is_legacy());
        match tx.to() {
            None => creations += 1,
            Some(token::ADDRESS) => tokens += 1,
            Some(to) => {
                assert!(genesis.alloc.contains_key(&to));
                ether += 1;
            }
        }
    }
    assert!((1_100..1_300).contains(&ether), "{ether}");
    assert!((100..300).contains(&legacy), "{legacy}");
    assert!((600..800).contains(&tokens), "{tokens}");
    assert!((60..140).contains(&creations), "{creations}");
    for (address, spent) in spent {
        assert!(spent < genesis.alloc[&address].balance / U256::from(1_000));
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let stream = |seed| {
        let mut workload = Workload::new(&small(seed));
        let bytes: Vec<u8> = (0..300).flat_map(|_| workload.next_tx().bytes).collect();
        keccak256(bytes)
    };
    assert_eq!(stream(1), stream(1));
    assert_ne!(stream(1), stream(2));
    let blocks = |seed| {
        let mut gateway = DevnetGateway::new(&small(seed), Dialect::V0).unwrap();
        (0..3).flat_map(|i| gateway.block(2 * i, 2, 5).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(blocks(1), blocks(1));
    assert_ne!(blocks(1), blocks(2));
}

#[test]
fn genesis_json_is_what_it_was_made_of_and_its_hash_depends_on_the_state() {
    let config = small(3);
    let genesis = Genesis::devnet(&config);
    let json = genesis.to_json().expect("json");
    assert_eq!(serde_json::from_str::<Genesis>(&json).expect("genesis"), genesis);
    let value: serde_json::Value = serde_json::from_str(&json).expect("json");
    assert_eq!(value["config"]["chainId"], 901_901);
    assert_eq!(value["config"]["eip155Block"], 0);
    assert_eq!(value["config"]["blobSchedule"]["cancun"]["baseFeeUpdateFraction"], 3_338_477);
    assert_eq!(value["gasLimit"], "0xe4e1c00");
    assert_eq!(value["baseFeePerGas"], "0x3b9aca00");
    let address = account_key(3, 0).address();
    let account = &value["alloc"][format!("{address:?}")];
    assert_eq!(account["balance"], format!("{INITIAL_BALANCE:#x}"));
    let slot = token::balance_slot(address).to_string();
    let token = &value["alloc"][format!("{:?}", token::ADDRESS)];
    assert_eq!(token["storage"][slot], B256::from(U256::from(INITIAL_BALANCE)).to_string());

    assert_eq!(genesis.alloc.len(), 20 + 2 + 2);
    assert_eq!(genesis.header().number, 0);
    let mut other = genesis.clone();
    other.alloc.insert(Address::ZERO, GenesisAccount::default());
    assert_ne!(other.state_root(), genesis.state_root());
    assert_ne!(other.hash(), genesis.hash());
    // A slot of value zero does not exist.
    let contract = other.alloc.get_mut(&token::ADDRESS).expect("the token");
    let root = contract.trie_account();
    contract.storage.insert(B256::ZERO, B256::ZERO);
    assert_eq!(contract.trie_account(), root);
}

#[test]
fn blocks_chain_and_their_fields_are_those_of_their_headers() {
    for dialect in [Dialect::V0, Dialect::V0Blob] {
        let config = small(5);
        let mut gateway = DevnetGateway::new(&config, dialect).unwrap();
        assert_eq!(gateway.genesis_hash(), Genesis::devnet(&config).hash());
        let (mut parent_hash, mut basefee) = (gateway.genesis_hash(), 875_000_000);
        for number in 1..=3 {
            let messages = gateway.block(100 + 2 * number, 4, 10).unwrap();
            let indices: Vec<_> = messages.iter().map(|m| m.index().expect("small")).collect();
            assert_eq!(indices, [0, 1, 2, 3, 4, 5]);
            assert!(messages.iter().all(|m| m.block() == number));
            assert!(messages.iter().all(|m| m.dialect().is_none_or(|d| d == dialect)));
            let (Message::Env(env), Message::Seal(seal)) = (&messages[0], &messages[5]) else {
                panic!("a block begins with Env and ends with Seal");
            };
            let txs: Vec<_> = messages[1..5].iter().flat_map(frag_txs).collect();
            assert_eq!(txs.len(), 40);
            assert_eq!(env.basefee, basefee);
            assert_eq!((env.parent_hash, seal.parent_hash), (parent_hash, parent_hash));
            assert_eq!(env.timestamp, 100 + 2 * number);
            assert_eq!(seal.transactions_root, ordered_trie_root_encoded(&txs));
            let header: &Header = gateway.parent();
            assert_eq!((seal.gas_used, seal.state_root), (header.gas_used, header.state_root));
            assert!(seal.gas_used > 40 * 21_000 && seal.gas_used < seal.gas_limit / 2);
            basefee = header.next_block_base_fee(BaseFeeParams::ethereum()).unwrap();
            assert_eq!(header.hash_slow(), seal.block_hash);
            assert_eq!(header.transactions_root, seal.transactions_root);
            assert_eq!((header.mix_hash, header.timestamp), (env.prevrandao, env.timestamp));
            parent_hash = seal.block_hash;
        }
    }
}

fn frag_txs(message: &Message) -> Vec<Bytes> {
    match message {
        Message::Frag(frag) => frag.txs.clone(),
        other => panic!("not a frag: {other:?}"),
    }
}

#[test]
fn a_block_that_is_given_up_gives_its_transactions_back() {
    let mut gateway = DevnetGateway::new(&small(9), Dialect::V0).unwrap();
    let first = gateway.open(10).unwrap();
    let lost = gateway.frag(30, false).unwrap();
    let second = gateway.open(12).unwrap();
    assert_eq!((first.number, first.parent_hash), (second.number, second.parent_hash));
    assert_eq!(second.timestamp, 12);
    assert_eq!(gateway.frag(30, false).unwrap(), lost);
    let empty = gateway.frag(0, true).unwrap();
    assert_eq!((empty.seq, empty.is_last, empty.txs.len()), (1, true, 0));
    assert_eq!(gateway.seal().unwrap().total_frags, 2);
    // Time does not go back.
    assert_eq!(gateway.open(0).unwrap().timestamp, 13);
}

#[test]
fn a_block_keeps_within_its_gas_limit() {
    const { assert!(2_000 * MAX_TX_GAS <= BLOCK_GAS_LIMIT) };
    let mut gateway = DevnetGateway::new(&small(4), Dialect::V0).unwrap();
    let env = gateway.open(1).unwrap();
    let frag = gateway.frag(100_000, false).unwrap();
    let gas: u64 = frag.txs.iter().map(|tx| decode(tx).gas_limit()).sum();
    assert!(gas <= env.gas_limit && env.gas_limit - gas < MAX_TX_GAS);
    assert!(frag.txs.len() > 4_000);
    assert!(gateway.frag(10, true).unwrap().txs.is_empty());
}
