use alloy_consensus::Header;
use alloy_primitives::B256;
use fragcast_execution::exec::hashes::BlockHashes;
use fragcast_execution::exec::memory::MemoryState;
use fragcast_execution::exec::{ExecutedBlock, SealedBlock, State, Unverified};
use fragcast_execution::executor::Heads;
use fragcast_execution::testing::NoSource;

use super::*;

/// A block of OP Sepolia, after Isthmus, with a token and somebody who owns a little ether.
fn chain(owner: Address) -> (Arc<ChainSpec>, Arc<ChainView>) {
    let spec = Arc::new(ChainSpec::op_sepolia());
    let mut state = MemoryState::default();
    let slot = (U256::from_be_bytes(token::balance_slot(owner).0), U256::from(1_000));
    state.insert(token::ADDRESS, 1, U256::ZERO, &token::code(), [slot].into_iter());
    state.insert(owner, 0, U256::from(10), &Bytes::new(), std::iter::empty());
    let header = Header {
        number: 30_000_000,
        timestamp: 1_754_000_000,
        gas_limit: 60_000_000,
        base_fee_per_gas: Some(252),
        excess_blob_gas: Some(0),
        blob_gas_used: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        ..Header::default()
    };
    let hash = header.hash_slow();
    let block = ExecutedBlock { attempt: 0, hash, header, frags: Vec::new(), withdrawals: None };
    let hashes = BlockHashes::new(block.header.number - 1, vec![B256::ZERO], Arc::new(NoSource));
    let state = State::new(Arc::new(state));
    let latest = Arc::new(SealedBlock {
        snapshot: Arc::new(Snapshot { block, state, hashes: Arc::new(hashes) }),
        layer: Arc::default(),
        parent_trie: None,
        trie: Err(Unverified::Internal("no trie in this test".into())),
        nodes: Arc::new(fragcast_execution::exec::memory::NoNodes),
    });
    let view = Arc::new(ChainView::new(None, 16));
    view.add(&latest);
    view.set_heads(Heads { latest, pending: None, open: Vec::new(), safe: None, finalized: None });
    (spec, view)
}

#[tokio::test]
async fn calls_on_an_op_chain_pay_nothing_for_l1() {
    let owner = account(0);
    let (spec, view) = chain(owner);
    let module = module(Arc::new(context(&spec, &view, CallConfig::default())));
    let balance = ask(&module, "eth_call", json!([balance_of(owner)])).await;
    assert_eq!(balance, Ok(word(U256::from(1_000))));
    // 10 wei would pay for no fee at all.
    let pay = json!({ "from": owner, "to": account(1), "value": "0xa" });
    assert_eq!(ask(&module, "eth_call", json!([pay])).await, Ok(json!("0x")));
    assert_eq!(ask(&module, "eth_estimateGas", json!([pay])).await, Ok(json!("0x5208")));
    let gas = number(&ask(&module, "eth_estimateGas", json!([transfer(5)])).await.unwrap());
    assert!((45_000..60_000).contains(&gas), "{gas}");
    let (code, message, _) = ask(&module, "eth_call", json!([transfer(1_001)])).await.unwrap_err();
    assert_eq!((code, message.as_str()), (3, "execution reverted"));
    let much = json!({ "from": owner, "to": account(1), "value": "0xb" });
    let (_, message, _) = ask(&module, "eth_call", json!([much])).await.unwrap_err();
    assert!(message.starts_with("err: insufficient funds"), "{message}");
    // Fjord's precompile P256VERIFY is there: an invalid signature gives nothing.
    let verify = json!({ "to": "0x0000000000000000000000000000000000000100" });
    assert_eq!(ask(&module, "eth_call", json!([verify])).await, Ok(json!("0x")));
    let list = ask(&module, "eth_createAccessList", json!([transfer(5)])).await.unwrap();
    assert_eq!(list["accessList"][0]["storageKeys"].as_array().unwrap().len(), 2);
    let calls = json!({ "blockStateCalls": [{ "calls": [transfer(5), balance_of(account(1))] }] });
    let blocks = ask(&module, "eth_simulateV1", json!([calls])).await.unwrap();
    assert_eq!(blocks[0]["calls"][1]["returnData"], word(U256::from(5)));
}
