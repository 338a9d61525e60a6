//! Transactions of public chains as execution clients return them: legacy with and without EIP-155,
//! EIP-1559, EIP-4844, EIP-7702, and a deposit of OP Mainnet.

use serde_json::Value;

use super::*;

const TRANSACTIONS: &str = include_str!("transactions.jsonl");
const DEPOSIT: &str = "0x7e";

/// The hash of `tx` when it stands in a block and is encoded again.
fn encoded<T: DeserializeOwned + Encodable2718>(tx: &str) -> Option<B256> {
    let body = format!("{{\"hash\":\"0x00\",\"transactions\":[{tx}],\"uncles\":[]}}");
    let body: JsonBlock<T> = serde_json::from_str(&body).ok()?;
    assert_eq!(body.transactions.len(), 1);
    Some(keccak256(body.transactions[0].encoded_2718()))
}

#[test]
fn transactions_are_encoded_to_what_their_hash_is_of() {
    assert_eq!(TRANSACTIONS.lines().count(), 6);
    for tx in TRANSACTIONS.lines() {
        let json: Value = serde_json::from_str(tx).unwrap();
        let hash = json["hash"].as_str().unwrap().parse().unwrap();
        let ty = json["type"].as_str().unwrap();
        let (eth, op) = (encoded::<EthTx>(tx), encoded::<OpTxEnvelope>(tx));
        assert_eq!(eth, (ty != DEPOSIT).then_some(hash), "{ty}");
        // An OP chain has no blobs.
        assert_eq!(op, (ty != "0x3").then_some(hash), "{ty}");
    }
}

#[test]
fn transactions_cut_short_are_refused() {
    for tx in TRANSACTIONS.lines() {
        for end in (1..tx.len()).step_by(7) {
            assert_eq!(encoded::<EthTx>(&tx[..end]), None);
            assert_eq!(encoded::<OpTxEnvelope>(&tx[..end]), None);
        }
    }
}
