//! `eth_getProof` (EIP-1186).

use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256, keccak256};
use alloy_rpc_types_eth::{EIP1186AccountProofResponse, EIP1186StorageProof};
use alloy_serde::JsonStorageKey;
use alloy_trie::EMPTY_ROOT_HASH;

use super::state::state_id;
use super::{Answer, EthContext, Failure, Found, answer};
use crate::params::Params;

/// Slots in one proof: geth's limit.
const MAX_KEYS: usize = 1_024;

pub(super) fn proof(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    let address: Address = params.next()?;
    let keys: Vec<JsonStorageKey> = params.optional_next()?.unwrap_or_default();
    let heads = ctx.blocks.heads()?;
    let id = state_id(&mut params)?;
    if id.frag.is_some() {
        return Err(Failure::unavailable(
            "a frag has no state root to prove anything against; ask for its block, once verified",
        ));
    }
    // Only a verified block has a root, so `latest` is the newest of them in both views.
    let block = ctx.blocks.find(&heads, id.block)?;
    if keys.len() > MAX_KEYS {
        return Err(Failure::limit(format!("{} slots, the limit is {MAX_KEYS}", keys.len())));
    }
    let block = match &block {
        Found::Sealed(block) => block,
        Found::Open(open) => {
            let number = open.header.number;
            return Err(Failure::unavailable(format!(
                "block {number} is not sealed, so it has no state root to prove anything \
                 against; ask for block {}",
                heads.latest.number()
            )));
        }
        Found::Old(_) => {
            let number = block.header.number;
            return Err(Failure::Elsewhere(format!("the trie of block {number} is not kept here")));
        }
    };
    let trie = block.trie.as_ref().map_err(|why| {
        Failure::Elsewhere(format!("the trie of block {} is not known here: {why}", block.number()))
    })?;
    let nodes = &*block.nodes;
    let key = keccak256(address);
    let account = trie.account(key, nodes)?;
    let storage_hash = trie.storage_root(key, nodes)?.unwrap_or(EMPTY_ROOT_HASH);
    let mut storage_proof = Vec::with_capacity(keys.len());
    for slot in keys {
        let hashed = keccak256(slot.as_b256());
        let (value, proof) = if storage_hash == EMPTY_ROOT_HASH {
            (U256::ZERO, Vec::new())
        } else {
            (trie.slot(key, hashed, nodes)?, trie.proof(key, Some(hashed), nodes)?)
        };
        storage_proof.push(EIP1186StorageProof { key: slot, value, proof });
    }
    answer(&EIP1186AccountProofResponse {
        address,
        balance: account.map_or(U256::ZERO, |account| account.balance),
        code_hash: account.map_or(KECCAK256_EMPTY, |account| account.code_hash),
        nonce: account.map_or(0, |account| account.nonce),
        storage_hash: B256::from(storage_hash),
        account_proof: trie.proof(key, None, nodes)?,
        storage_proof,
    })
}
