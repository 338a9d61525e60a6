//! `eth_getProof` against a trie, and how fast a balance is read.

use alloy_primitives::{KECCAK256_EMPTY, U256, keccak256};
use alloy_rpc_types_eth::EIP1186AccountProofResponse;
use alloy_trie::proof::verify_proof;
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, TrieAccount};
use fragcast_execution::devnet::token;
use fragcast_execution::exec::SealedBlock;
use fragcast_execution::exec::memory::MemoryState;
use fragcast_execution::executor::Heads;

use super::*;

/// The fixture's block 0, with a trie.
fn proven(f: &Fixture) {
    let trie = MemoryState::of_genesis(f.chain.spec.genesis.as_ref().unwrap()).trie().unwrap();
    assert_eq!(trie.root(), f.chain.head.snapshot.header.state_root);
    let head = Arc::new(SealedBlock { trie: Ok(trie), ..(*f.chain.head).clone() });
    let (latest, heads) = (Arc::clone(&head), f.chain.view.heads().unwrap());
    f.chain.view.add(&head);
    f.chain.view.set_heads(Heads { latest, ..(*heads).clone() });
}

#[tokio::test]
async fn proofs_prove() {
    let f = Fixture::new();
    proven(&f);
    let root = f.chain.head.snapshot.header.state_root;
    let account = f.chain.workload.addresses()[3];
    let (slot, absent) = (token::balance_slot(account), U256::from(7));
    let nobody = Address::repeat_byte(0xab);
    for (address, exists) in [(token::ADDRESS, true), (account, true), (nobody, false)] {
        let params = json!([address, [slot, absent], "latest"]);
        let value = f.call("eth_getProof", params).await;
        assert_eq!(value["storageProof"][1]["key"], "0x7");
        let proof: EIP1186AccountProofResponse = serde_json::from_value(value).unwrap();
        let leaf = alloy_rlp::encode(TrieAccount {
            nonce: proof.nonce,
            balance: proof.balance,
            storage_root: proof.storage_hash,
            code_hash: proof.code_hash,
        });
        let path = Nibbles::unpack(keccak256(address));
        verify_proof(root, path, exists.then_some(leaf), &proof.account_proof).unwrap();
        assert_eq!(proof.code_hash == KECCAK256_EMPTY, address != token::ADDRESS);
        assert_eq!(proof.storage_hash == EMPTY_ROOT_HASH, address != token::ADDRESS);
        for storage in &proof.storage_proof {
            if address != token::ADDRESS {
                assert!(storage.value.is_zero() && storage.proof.is_empty());
                continue;
            }
            let path = Nibbles::unpack(keccak256(storage.key.as_b256()));
            let leaf = (!storage.value.is_zero()).then(|| alloy_rlp::encode(storage.value));
            verify_proof(proof.storage_hash, path, leaf, &storage.proof).unwrap();
        }
    }
    let many = vec![slot; 1_025];
    assert_eq!(f.code("eth_getProof", json!([account, many, "latest"])).await, error::LIMIT);
}

#[tokio::test]
async fn a_trie_that_is_not_known_is_said_to_be() {
    let f = Fixture::new();
    let params = json!([token::ADDRESS, [], "latest"]);
    assert_eq!(f.code("eth_getProof", params).await, error::NOT_HERE);
}
