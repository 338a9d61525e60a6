//! Calls run below the executor.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fragcast_execution::executor::ExecutorConfig;
use fragcast_execution::testing::{Bench, block, gateway, memory_source};

use super::*;

/// Heavy calls on every slot of the pool, and more that wait, do not keep frags from being
/// executed: with the pool as busy as it can be all the time, blocks are verified one after
/// another.
#[tokio::test(flavor = "multi_thread")]
async fn heavy_calls_on_every_slot_do_not_stall_frags() {
    let (spec, source) = memory_source();
    let bench = Bench::on(Arc::clone(&spec), Arc::new(source), ExecutorConfig::default());
    let config = CallConfig { time_limit: Duration::from_millis(300), ..CallConfig::default() };
    let slots = config.threads.get();
    let calls = module(Arc::new(CallContext {
        spec,
        blocks: Blocks::new(Arc::clone(bench.executor.view()), false),
        pool: config.pool().unwrap(),
        config: CallConfig { gas_cap: u64::MAX, ..config },
        upstream: None,
        forwarder: None,
        stats: Arc::default(),
    }));
    let stop = Arc::new(AtomicBool::new(false));
    let ended = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..2 * slots + 2)
        .map(|_| {
            let (calls, stop, ended) = (calls.clone(), Arc::clone(&stop), Arc::clone(&ended));
            tokio::spawn(async move {
                // JUMPDEST PUSH0 JUMP, for ever.
                let target = "0x00000000000000000000000000000000000000ff";
                let request = json!({ "to": target, "gas": "0x7fffffffffffffff" });
                let code = json!({ target: { "code": "0x5b5f56" } });
                while !stop.load(Ordering::Relaxed) {
                    let params = (request.clone(), "pending", code.clone());
                    let answer: Result<String, _> = calls.call("eth_call", params).await;
                    assert!(answer.is_err(), "nothing but the limits ends it");
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut gateway = gateway();
    // The pool is at work before the first frag, and after the last one.
    let busy = async || {
        let before = ended.load(Ordering::Relaxed);
        let wait = async {
            while ended.load(Ordering::Relaxed) < before + slots {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(GUARD, wait).await.unwrap();
    };
    busy().await;
    for number in 1..=20 {
        tokio::task::block_in_place(|| {
            bench.push(0, &block(&mut gateway, 1_000 + 2 * number));
            bench.verified(number, 0);
        });
    }
    busy().await;
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    let (view, _) = tokio::task::block_in_place(|| bench.end());
    assert_eq!(view.heads().unwrap().latest.number(), 20);
}
