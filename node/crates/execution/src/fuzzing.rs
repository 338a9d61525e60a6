//! Bodies of the fuzz targets. `cargo fuzz` runs them on its corpus, the test below on bytes of a
//! seeded generator, so that they cannot rot.
//!
//! Each takes any bytes and panics if an invariant breaks.

use std::sync::{Arc, OnceLock};

use alloy_consensus::Header;
use alloy_primitives::{B256, Bytes, U256, keccak256};
use alloy_trie::Nibbles;
use fragcast_shredder::{BlockBuilder, Env};

use crate::chain::ChainSpec;
use crate::devnet::{DevnetConfig, Genesis};
use crate::exec::memory::{MemorySource, MemoryState};
use crate::exec::{OnInvalid, OpenBlock, Parent, StateSource, Tx};
use crate::state::Account;
use crate::state::SourceError;
use crate::trie::{StateTrie, TrieId, TrieNodes};

/// A named fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("transaction", transaction),
    ("genesis", genesis),
    ("trie_node", trie_node),
    ("execute", execute),
];

/// A transaction that decodes, on either kind of chain, has the bytes it was decoded from.
pub fn transaction(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    for op in [false, true] {
        if let Ok(tx) = Tx::decode(&bytes, op) {
            assert_eq!(tx.hash, keccak256(data));
            let envelope = &tx.envelope;
            let _ = (envelope.nonce(), envelope.gas_limit(), envelope.value(), envelope.kind());
            let _ = (envelope.effective_gas_price(7), envelope.blob_gas_used(), tx.created(1));
        }
    }
}

/// A genesis of any shape is an error or a chain that answers.
pub fn genesis(data: &[u8]) {
    let Ok(genesis) = serde_json::from_slice(data) else { return };
    if let Ok(spec) = ChainSpec::from_genesis("fuzz", genesis) {
        for time in [0, 1, u64::MAX] {
            let header = Header { timestamp: time, ..Header::default() };
            let _ = (spec.lacks(time), spec.blob_params(time), spec.block_env(&header));
            let _ = spec.next_base_fee(&header, time);
        }
    }
}

/// A source that answers every request with these bytes.
struct Liar(Bytes);

impl TrieNodes for Liar {
    fn node(&self, _: TrieId, _: &Nibbles, _: B256) -> Result<Bytes, SourceError> {
        Ok(self.0.clone())
    }
}

/// A trie whose root is any bytes gives answers or errors, and returns what was inserted.
pub fn trie_node(data: &[u8]) {
    let liar = Liar(Bytes::copy_from_slice(data));
    let mut trie = StateTrie::from_root(keccak256(data));
    let key = keccak256(b"key");
    let _ = (trie.account(key, &liar), trie.slot(key, key, &liar), trie.proof(key, None, &liar));
    let account = Account { nonce: 1, balance: U256::from(2), code_hash: key };
    if trie.set_account(key, &account, &liar).is_ok() {
        assert_eq!(trie.account(key, &liar), Ok(Some(account)));
        let _ = trie.set_slot(key, key, U256::from(3), &liar);
        let _ = (trie.remove_slot(key, key, &liar), trie.remove_account(key, &liar));
    }
    trie.root();
}

/// The devnet's genesis, made once.
fn ground() -> &'static (Arc<ChainSpec>, Arc<dyn StateSource>, Parent) {
    static GROUND: OnceLock<(Arc<ChainSpec>, Arc<dyn StateSource>, Parent)> = OnceLock::new();
    GROUND.get_or_init(|| {
        let genesis = Genesis::devnet(&DevnetConfig::default());
        let spec = genesis.chain_spec("dev").expect("a chain of ours");
        let state = spec.genesis.as_deref().map(MemoryState::of_genesis).unwrap_or_default();
        let source = MemorySource::new(genesis.header(), state).expect("a whole trie");
        let parent = Parent::from(source.anchor().clone());
        (Arc::new(spec), Arc::new(source), parent)
    })
}

/// Frags of any bytes, cut by their first byte, are executed or refused; a block that was executed
/// to its end verifies its own Seal.
pub fn execute(data: &[u8]) {
    let (spec, source, parent) = ground();
    let env = Env {
        parent_hash: parent.hash,
        gas_limit: parent.header.gas_limit,
        basefee: spec.next_base_fee(&parent.header, 1).expect("the devnet's"),
        ..BlockBuilder::new(1).env()
    };
    let Ok(mut block) = OpenBlock::open(spec, &env, 0, parent.clone(), source, None) else {
        unreachable!("the Env follows from its parent");
    };
    let Some((&first, rest)) = data.split_first() else { return };
    let size = usize::from(first).max(1);
    let count = rest.chunks(size).count();
    let on_invalid = if first & 1 == 0 { OnInvalid::Fail } else { OnInvalid::PassOver };
    for (i, chunk) in rest.chunks(size).enumerate() {
        let tx = Tx::decode(&Bytes::copy_from_slice(chunk), false);
        let txs = if first & 2 == 0 { vec![tx] } else { tx.ok().map(Ok).into_iter().collect() };
        if block.execute(txs, i + 1 == count, on_invalid).is_err() {
            return;
        }
    }
    if block.is_complete()
        && let Ok(seal) = block.make_seal(false)
    {
        assert_eq!(block.check(&seal), crate::exec::Verdict::Verified);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn targets_hold_on_seeded_bytes() {
        // Some are close to a transaction, a trie node, a genesis.
        let shape = |round: usize, data: &mut Vec<u8>| match round % 4 {
            1 if data.len() > 4 => data[..2].copy_from_slice(&[0x02, 0xf8]),
            2 if data.len() > 4 => data[..3].copy_from_slice(&[0xf9, 0x02, 0x11]),
            3 => *data = br#"{"config":{"chainId":1},"alloc":{}}"#.to_vec(),
            _ => {}
        };
        fragcast_shredder::fuzzing::run_on_seeded_bytes(super::TARGETS, "fuzz", (100, 700), shape);
    }
}
