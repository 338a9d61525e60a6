//! Tests in the suite's form, made here: blocks of the devnet's workload on its genesis, executed,
//! with a withdrawal, on chain 1.

use std::num::NonZeroU32;
use std::sync::Arc;

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{Address, B256, Bytes, hex};
use alloy_rlp::Encodable;
use fragcast_shredder::{Dialect, Env};
use serde_json::{Value, json};

use crate::chain::ChainSpec;
use crate::exec::memory::{MemorySource, MemoryState};
use crate::exec::{SealedBlock, StateSource};
use crate::workload::{DevnetConfig, Genesis, Workload, builder};

/// A block as the suite has it.
#[derive(Debug, Clone)]
pub(crate) struct TestParts {
    pub(crate) header: Header,
    pub(crate) txs: Vec<Bytes>,
    pub(crate) ommers: Vec<Header>,
    pub(crate) withdrawals: Option<Vec<Withdrawal>>,
}

fn list(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
    out.extend_from_slice(payload);
    out
}

impl TestParts {
    pub(crate) fn rlp(&self) -> Vec<u8> {
        let mut txs = Vec::new();
        for tx in &self.txs {
            if tx[0] >= 0xc0 { txs.extend_from_slice(tx) } else { tx.encode(&mut txs) }
        }
        let mut payload = alloy_rlp::encode(&self.header);
        payload.extend(list(&txs));
        self.ommers.encode(&mut payload);
        if let Some(withdrawals) = &self.withdrawals {
            withdrawals.encode(&mut payload);
        }
        list(&payload)
    }

    /// As a block that the suite calls valid.
    pub(crate) fn valid(&self) -> Value {
        let header = header_json(&self.header);
        json!({ "rlp": hex::encode_prefixed(self.rlp()), "blockHeader": header })
    }

    /// As a block that the suite calls invalid.
    pub(crate) fn invalid(&self, exception: &str) -> Value {
        json!({ "rlp": hex::encode_prefixed(self.rlp()), "expectException": exception })
    }
}

pub(crate) fn header_json(header: &Header) -> Value {
    let number = |n: u64| format!("0x{n:02x}");
    json!({
        "hash": header.hash_slow(),
        "parentHash": header.parent_hash, "uncleHash": header.ommers_hash,
        "coinbase": header.beneficiary, "stateRoot": header.state_root,
        "transactionsTrie": header.transactions_root, "receiptTrie": header.receipts_root,
        "bloom": header.logs_bloom, "difficulty": header.difficulty,
        "number": number(header.number), "gasLimit": number(header.gas_limit),
        "gasUsed": number(header.gas_used), "timestamp": number(header.timestamp),
        "extraData": header.extra_data, "mixHash": header.mix_hash, "nonce": header.nonce,
        "baseFeePerGas": header.base_fee_per_gas.map(number),
        "withdrawalsRoot": header.withdrawals_root,
        "blobGasUsed": header.blob_gas_used.map(number),
        "excessBlobGas": header.excess_blob_gas.map(number),
        "parentBeaconBlockRoot": header.parent_beacon_block_root,
    })
}

/// A chain that makes blocks.
pub(crate) struct Fixture {
    pub(crate) genesis: Genesis,
    spec: Arc<ChainSpec>,
    source: Arc<dyn StateSource>,
    workload: Workload,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let config = DevnetConfig {
            chain_id: 1,
            accounts: NonZeroU32::new(8).unwrap(),
            timestamp: 1_000,
            ..DevnetConfig::default()
        };
        let genesis = Genesis::devnet(&config);
        let spec = Arc::new(genesis.chain_spec("fixture").unwrap());
        let state = MemoryState::of_genesis(spec.genesis.as_ref().unwrap());
        let source = Arc::new(MemorySource::new(genesis.header(), state).unwrap());
        Self { genesis, spec, source, workload: Workload::new(&config) }
    }

    /// A block of `txs` transactions on `parent` (block 0 if there is none), `after` it.
    pub(crate) fn block(
        &mut self,
        parent: Option<&SealedBlock>,
        txs: usize,
        after: u64,
    ) -> (TestParts, SealedBlock) {
        let txs: Vec<Bytes> = (0..txs).map(|_| self.workload.next_tx().bytes).collect();
        let parent = parent.map_or_else(
            || self.source.at(self.genesis.hash()).unwrap().unwrap().into(),
            SealedBlock::as_parent,
        );
        let timestamp = parent.header.timestamp + after;
        let env = Env {
            number: parent.header.number + 1,
            parent_hash: parent.hash,
            beneficiary: Address::repeat_byte(0xfe),
            timestamp,
            gas_limit: parent.header.gas_limit,
            basefee: self.spec.next_base_fee(&parent.header, timestamp).unwrap(),
            difficulty: Default::default(),
            prevrandao: B256::repeat_byte(0x11),
            extra_data: Bytes::from_static(b"fixture"),
            parent_beacon_block_root: B256::repeat_byte(0x22),
        };
        let withdrawal = Withdrawal {
            index: env.number,
            validator_index: 5,
            address: Address::repeat_byte(0xaa),
            amount: 1_000,
        };
        let withdrawals = Some(vec![withdrawal]);
        let chunks = builder::chunks(&txs, 2);
        let (spec, source, paid) = (&self.spec, &self.source, withdrawals.clone());
        let built = builder::build(spec, &env, parent, source, paid, &chunks, Dialect::V0).unwrap();
        let header = built.sealed.snapshot.header.clone();
        (TestParts { header, txs, ommers: Vec::new(), withdrawals }, built.sealed)
    }

    /// A test with these blocks, of which `last` must be the head.
    pub(crate) fn test(&self, network: &str, blocks: &[Value], last: B256) -> Value {
        let alloc = self.genesis.alloc.iter().map(|(address, account)| {
            let (nonce, balance) = (account.nonce, account.balance);
            let (code, storage) = (&account.code, &account.storage);
            let account = json!({
                "nonce": nonce, "balance": balance, "code": code, "storage": storage,
            });
            (address.to_string(), account)
        });
        json!({
            "network": network,
            "genesisBlockHeader": header_json(&self.genesis.header()),
            "pre": alloc.collect::<serde_json::Map<_, _>>(),
            "blocks": blocks,
            "lastblockhash": last,
            "sealEngine": "NoProof",
        })
    }
}
