use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::*;

/// JUMPDEST PUSH0 JUMP.
const FOREVER: [u8; 3] = [0x5b, 0x5f, 0x56];
const PLACE: Address = Address::repeat_byte(0xcc);

fn forever() -> Value {
    json!([{ "to": PLACE }, "latest", code(PLACE, &FOREVER)])
}

fn small(threads: usize, queue: usize, time_limit: Duration) -> CallConfig {
    let threads = NonZeroUsize::new(threads).unwrap();
    CallConfig { threads, queue, time_limit, gas_cap: u64::MAX, ..CallConfig::default() }
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
    let module = serve_with(&chain, small(1, 4, Duration::from_millis(50)));
    let mut call = forever();
    call[0]["gas"] = json!("0xffffffffffff");
    for method in ["eth_call", "eth_createAccessList"] {
        let mut refused = ask(&module, method, call.clone()).await.unwrap_err();
        while refused.0 == -32005 {
            refused = ask(&module, method, call.clone()).await.unwrap_err();
        }
        assert_eq!((refused.0, &*refused.1), (-32000, "execution aborted (timeout = 50ms)"));
    }
    // One that calls itself for ever: every frame ends.
    let nested = [0x5f, 0x5f, 0x5f, 0x5f, 0x5f, 0x30, 0x5a, 0xf1, 0x5f, 0x56];
    let call = json!([{ "to": PLACE, "gas": "0xffffffffffff" }, "latest", code(PLACE, &nested)]);
    assert!(ask(&module, "eth_call", call).await.is_err());
    // The thread is free again; a machine that is busy may let even this call wait too long.
    let mut last = ask(&module, "eth_call", json!([balance_of(PLACE)])).await;
    while last.as_ref().is_err_and(|(number, ..)| *number == -32005) {
        last = ask(&module, "eth_call", json!([balance_of(PLACE)])).await;
    }
    last.unwrap();
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

#[tokio::test]
async fn too_many_calls_are_refused() {
    let pool = CallPool::new(NonZeroUsize::MIN, 1, GUARD).unwrap();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (started, running) = tokio::sync::oneshot::channel();
    let first = pool.run(move || {
        let _ = started.send(());
        wait.recv().map_err(|_| CallError::Internal)
    });
    let mut first = std::pin::pin!(first);
    assert!(first.as_mut().now_or_never().is_none());
    running.await.unwrap();
    let mut second = std::pin::pin!(pool.run(|| Ok(2)));
    assert!(second.as_mut().now_or_never().is_none());
    assert_eq!(pool.run(|| Ok(3)).await, Err(CallError::Busy));
    go.send(()).unwrap();
    assert_eq!(first.await, Ok(()));
    assert_eq!(second.await, Ok(2));
    let error = ErrorObjectOwned::from(CallError::Busy);
    assert_eq!(error.code(), -32005);
}

#[tokio::test]
async fn one_that_waited_too_long_or_left_is_not_run_and_a_panic_is_survived() {
    let pool = CallPool::new(NonZeroUsize::MIN, 8, Duration::from_millis(10)).unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let count = || {
        let ran = Arc::clone(&ran);
        move || Ok(ran.fetch_add(1, Ordering::Relaxed))
    };
    let late = loop {
        let slow = pool.run(|| {
            std::thread::sleep(Duration::from_millis(100));
            Ok(())
        });
        let (slow, late) = tokio::join!(slow, pool.run(count()));
        // On a busy machine the slow one itself may have waited too long.
        if slow.is_ok() {
            break late;
        }
    };
    assert_eq!(late, Err(CallError::Busy));
    drop(pool.run(count()).now_or_never());
    let panicked = pool.run(|| -> Result<(), CallError> { panic!("as intended") }).await;
    assert_eq!(panicked, Err(CallError::Internal));
    let mut last = pool.run(count()).await;
    while last == Err(CallError::Busy) {
        last = pool.run(count()).await;
    }
    assert!(last.is_ok());
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
    assert_eq!(number, -39001);
    assert!(message.starts_with("header for hash not found"), "{message}");
}
