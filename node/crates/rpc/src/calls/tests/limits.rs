use std::num::NonZeroUsize;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::*;

/// JUMPDEST PUSH0 JUMP.
const FOREVER: [u8; 3] = [0x5b, 0x5f, 0x56];
const PLACE: Address = Address::repeat_byte(0xcc);

fn forever() -> Value {
    json!([{ "to": PLACE }, "latest", code(PLACE, &FOREVER)])
}

#[tokio::test]
async fn the_gas_cap_stops_a_call_without_end() {
    let chain = devnet();
    let config = CallConfig { gas_cap: 100_000, time_limit: GUARD, ..CallConfig::default() };
    let module = serve_with(&chain, config);
    let (number, message, _) = ask(&module, "eth_call", forever()).await.unwrap_err();
    assert_eq!((number, message.as_str()), (-32000, "out of gas"));
    // What the request asks for is capped as well.
    let mut greedy = forever();
    greedy[0]["gas"] = json!("0xffffffffffff");
    let (_, message, _) = ask(&module, "eth_call", greedy).await.unwrap_err();
    assert_eq!(message, "out of gas");
    let (_, message, _) = ask(&module, "eth_estimateGas", forever()).await.unwrap_err();
    assert_eq!(message, "gas required exceeds allowance (100000)");
}

#[tokio::test]
async fn the_time_limit_stops_a_call_without_end() {
    let chain = devnet();
    let time_limit = Duration::from_millis(50);
    let config = CallConfig { time_limit, gas_cap: u64::MAX, ..CallConfig::default() };
    let mut context = context(&chain.spec, &chain.view, config);
    // A call may wait longer than it may run, so that none is refused on a busy machine.
    context.pool = CallPool::new(NonZeroUsize::MIN, 4, GUARD).unwrap();
    let context = Arc::new(context);
    let module = module(Arc::clone(&context));
    let mut call = forever();
    call[0]["gas"] = json!("0xffffffffffff");
    for method in ["eth_call", "eth_createAccessList"] {
        let refused = ask(&module, method, call.clone()).await.unwrap_err();
        assert_eq!((refused.0, &*refused.1), (-32000, "execution aborted (timeout = 50ms)"));
    }
    // One that calls itself for ever: every frame ends.
    let nested = [0x5f, 0x5f, 0x5f, 0x5f, 0x5f, 0x30, 0x5a, 0xf1, 0x5f, 0x56];
    let call = json!([{ "to": PLACE, "gas": "0xffffffffffff" }, "latest", code(PLACE, &nested)]);
    assert!(ask(&module, "eth_call", call).await.is_err());
    // The only thread is free again.
    let free = tokio::time::timeout(GUARD, context.pool.run(|| Ok(()))).await;
    assert_eq!(free.expect("the thread is busy"), Ok(()));
}

#[tokio::test]
async fn blocks_without_transactions_have_the_time_of_a_request_too() {
    let chain = devnet();
    let config = CallConfig { time_limit: Duration::ZERO, ..CallConfig::default() };
    let mut context = context(&chain.spec, &chain.view, config);
    context.pool = CallPool::new(NonZeroUsize::MIN, 4, GUARD).unwrap();
    let module = module(Arc::new(context));
    for (method, params) in [
        ("eth_simulateV1", json!([{ "blockStateCalls": [{}] }, "latest"])),
        ("eth_callMany", json!([[{ "transactions": [] }], { "blockNumber": "latest" }])),
    ] {
        let refused = ask(&module, method, params).await.unwrap_err();
        assert_eq!(refused.0, -32000, "{method}: {refused:?}");
        assert!(refused.1.starts_with("execution aborted (timeout"), "{method}: {refused:?}");
    }
}

#[tokio::test]
async fn memory_has_a_limit() {
    let chain = devnet();
    let config = CallConfig { memory_limit: 1024, ..CallConfig::default() };
    let module = serve_with(&chain, config);
    // MSTORE at 0x0400 and at 0.
    for (run, ok) in [(&[0x5f, 0x61, 0x04, 0, 0x52][..], false), (&[0x5f, 0x5f, 0x52], true)] {
        let call = json!([{ "to": PLACE }, "latest", code(PLACE, run)]);
        assert_eq!(ask(&module, "eth_call", call).await.is_ok(), ok);
    }
}

struct Elsewhere;

impl Upstream for Elsewhere {
    fn request(
        &self,
        method: &str,
        params: Value,
    ) -> BoxFuture<'_, Result<Value, ErrorObjectOwned>> {
        let answer = json!([method, params]);
        async move { Ok(answer) }.boxed()
    }
}

#[tokio::test]
async fn a_block_that_is_not_in_memory_is_asked_for_elsewhere() {
    let chain = devnet();
    let mut context = context(&chain.spec, &chain.view, CallConfig::default());
    context.upstream = Some(Arc::new(Elsewhere));
    let module = module(Arc::new(context));
    let params = json!([balance_of(PLACE), { "blockHash": alloy_primitives::B256::ZERO }]);
    let answer = ask(&module, "eth_call", params.clone()).await.unwrap();
    assert_eq!(answer, json!(["eth_call", params]));
    let module = serve(&chain);
    let (number, message, _) = ask(&module, "eth_call", params).await.unwrap_err();
    assert_eq!(number, -32001);
    assert!(message.starts_with("header not found: no block 0x00"), "{message}");
}
