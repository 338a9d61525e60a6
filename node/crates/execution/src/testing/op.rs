//! A small OP chain with contracts of the test's choice.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_consensus::Header;
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, address};
use fragcast_shredder::{Env, Frag, Message, Seal};
use op_alloy_consensus::TxDeposit;

use crate::chain::ChainSpec;
use crate::exec::memory::{MemorySource, MemoryState};
use crate::exec::{OnInvalid, OpenBlock, Parent, StateSource, Tx};

/// Holocene's `extra_data`: version 0, denominator 250, elasticity 6.
const HOLOCENE: [u8; 9] = [0, 0, 0, 0, 250, 0, 0, 0, 6];

/// An OP chain at Holocene after its block 10, without accounts other than the given contracts.
pub struct OpGround {
    /// Its rules.
    pub spec: Arc<ChainSpec>,
    /// Its state after block 10.
    pub source: Arc<dyn StateSource>,
    /// Block 10.
    pub parent: Parent,
}

impl OpGround {
    /// A chain with these contracts, whose block 10 has this gas limit.
    pub fn new(gas_limit: u64, contracts: &[(Address, &[u8])]) -> Self {
        let forks = ["canyon", "ecotone", "fjord", "granite", "holocene"];
        let times: BTreeMap<String, u64> = forks.iter().map(|fork| ((*fork).into(), 0)).collect();
        let spec = ChainSpec::op_with_times("test", 901, &times).unwrap();
        let mut state = MemoryState::default();
        for (address, code) in contracts {
            let code = Bytes::copy_from_slice(code);
            state.insert(*address, 1, U256::ZERO, &code, std::iter::empty());
        }
        let header = Header {
            state_root: state.trie().unwrap().root(),
            number: 10,
            gas_limit,
            timestamp: 1_000,
            extra_data: HOLOCENE.to_vec().into(),
            base_fee_per_gas: Some(1_000_000_000),
            excess_blob_gas: Some(0),
            blob_gas_used: Some(0),
            ..Header::default()
        };
        let source = MemorySource::new(header, state).unwrap();
        let parent = source.anchor().clone().into();
        Self { spec: Arc::new(spec), source: Arc::new(source), parent }
    }

    /// The Env of block 11, with the parent's gas limit.
    pub fn env(&self) -> Env {
        Env {
            number: 11,
            parent_hash: self.parent.hash,
            beneficiary: Address::repeat_byte(0xfe),
            timestamp: 1_002,
            gas_limit: self.parent.header.gas_limit,
            basefee: self.spec.next_base_fee(&self.parent.header, 1_002).unwrap(),
            difficulty: U256::ZERO,
            prevrandao: B256::ZERO,
            extra_data: HOLOCENE.to_vec().into(),
            parent_beacon_block_root: B256::ZERO,
        }
    }

    /// Block 11, opened.
    pub fn open(&self) -> OpenBlock {
        OpenBlock::open(&self.spec, &self.env(), 0, self.parent.clone(), &self.source, None)
            .unwrap()
    }

    /// The messages of a block 11 of one frag, before its Seal.
    pub fn unsealed(&self, txs: &[Bytes]) -> [Message; 2] {
        let frag = Frag {
            block_number: 11,
            seq: 0,
            is_last: true,
            txs: txs.to_vec(),
            blob_gas_used: None,
        };
        [Message::Env(self.env()), Message::Frag(frag)]
    }

    /// The Seal of that block.
    pub fn seal(&self, txs: &[Bytes]) -> Seal {
        let mut block = self.open();
        block.execute(decode(txs), true, OnInvalid::Fail).unwrap();
        block.make_seal(false).unwrap()
    }

    /// The deposit that every block begins with.
    pub fn attributes() -> Bytes {
        let depositor = address!("deaddeaddeaddeaddeaddeaddeaddeaddead0001");
        deposit(depositor, address!("4200000000000000000000000000000000000015"), 100_000)
    }

    /// A deposit that calls `to` with this much gas, which nobody pays for.
    pub fn call(to: Address, gas: u64) -> Bytes {
        deposit(Address::repeat_byte(3), to, gas)
    }
}

fn deposit(from: Address, to: Address, gas_limit: u64) -> Bytes {
    let deposit = TxDeposit {
        source_hash: B256::repeat_byte(0x11),
        from,
        to: TxKind::Call(to),
        mint: 0,
        value: U256::ZERO,
        gas_limit,
        is_system_transaction: false,
        input: Bytes::new(),
    };
    deposit.encoded_2718().into()
}

/// Transactions, decoded.
fn decode(txs: &[Bytes]) -> Vec<crate::exec::Decoded> {
    txs.iter().map(|tx| Tx::decode(tx, true)).collect()
}

impl OpGround {
    /// Executes a block 11 of these transactions.
    ///
    /// # Errors
    /// Why it could not be executed.
    pub fn execute(
        &self,
        block: &mut OpenBlock,
        txs: &[Bytes],
    ) -> Result<(), crate::exec::BlockError> {
        block.execute(decode(txs), true, OnInvalid::Fail).map(drop)
    }
}
