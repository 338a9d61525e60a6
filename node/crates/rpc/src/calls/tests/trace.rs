//! Tracers, on blocks that are sealed and on one that is open.

use alloy_primitives::B256;
use fragcast_execution::exec::OpenBlock;

use super::*;

/// Two sealed blocks and an open one.
fn chain() -> (TestChain, OpenBlock) {
    let mut chain = devnet();
    chain.block(2, 20);
    chain.block(1, 20);
    let mut open = chain.open();
    for _ in 0..2 {
        let txs: Vec<_> = (0..10).map(|_| chain.workload.next_tx().bytes).collect();
        chain.frag(&mut open, &txs, false);
    }
    (chain, open)
}

async fn traced(module: &RpcModule<Arc<CallContext>>, method: &str, params: Value) -> Value {
    ask(module, method, params.clone()).await.unwrap_or_else(|e| panic!("{method} {params}: {e:?}"))
}

#[tokio::test]
async fn a_block_runs_again_as_it_ran() {
    let (chain, _open) = chain();
    let module = serve(&chain);
    let heads = chain.view.heads().unwrap();
    let parent = chain.view.recent(heads.latest.snapshot.header.parent_hash).unwrap();
    let open = heads.pending.clone().unwrap();
    let options = json!({ "tracer": "callTracer", "tracerConfig": { "withLog": true } });
    for (block, id) in [
        (&parent.snapshot, json!("0x1")),
        (&heads.latest.snapshot, json!("latest")),
        (&open, json!("pending")),
    ] {
        let traces = traced(&module, "debug_traceBlockByNumber", json!([id, options])).await;
        assert_eq!(traces.as_array().unwrap().len(), block.tx_count());
        let mut logs = 0;
        for (trace, placed) in traces.as_array().unwrap().iter().zip(block.txs()) {
            let executed = placed.executed;
            assert_eq!(trace["txHash"], json!(executed.tx.hash));
            let frame = &trace["result"];
            assert_eq!(number(&frame["gasUsed"]), executed.gas_used);
            assert_eq!(frame["from"], json!(executed.tx.sender));
            let created = executed.created();
            assert_eq!(frame["to"], json!(executed.tx.envelope.kind().to().copied().or(created)));
            assert_eq!(frame["input"], json!(executed.tx.envelope.input()));
            assert!(frame.get("error").is_none());
            let own = frame.get("logs").and_then(Value::as_array).map_or(0, Vec::len);
            assert_eq!(own, executed.receipt.logs.len());
            // Their index is the one that the receipt has.
            for (at, log) in frame["logs"].as_array().into_iter().flatten().enumerate() {
                assert_eq!(number(&log["index"]), (placed.first_log + at) as u64);
            }
            logs += own;
            // By itself it is the same.
            let params = json!([executed.tx.hash, options]);
            assert_eq!(traced(&module, "debug_traceTransaction", params).await, *frame);
        }
        assert!(logs > 0);
        if block.is_sealed() {
            let params = json!([block.hash, options]);
            assert_eq!(traced(&module, "debug_traceBlockByHash", params).await, traces);
        }
        // Parity's are the same calls.
        let flat = traced(&module, "trace_block", json!([id])).await;
        assert_eq!(flat.as_array().unwrap().len(), block.tx_count());
        for (trace, placed) in flat.as_array().unwrap().iter().zip(block.txs()) {
            let hash = placed.executed.tx.hash;
            assert_eq!(trace["transactionHash"], json!(hash));
            assert_eq!(trace["transactionPosition"], json!(placed.index));
            assert_eq!(trace["action"]["from"], json!(placed.executed.tx.sender));
            let one = traced(&module, "trace_transaction", json!([hash])).await;
            assert_eq!(one[0], *trace);
        }
    }
}

#[tokio::test]
async fn tracers_show_what_they_are_for() {
    let (chain, _open) = chain();
    let module = serve(&chain);
    let block = &chain.view.heads().unwrap().latest.snapshot.clone();
    let token_tx = |placed: &fragcast_execution::exec::Placed<'_>| {
        placed.executed.tx.envelope.kind().to() == Some(&token::ADDRESS)
    };
    let placed = block.txs().find(token_tx).unwrap();
    let (hash, sender) = (placed.executed.tx.hash, placed.executed.tx.sender);
    let trace = |options: Value| traced(&module, "debug_traceTransaction", json!([hash, options]));

    // The state before: the sender's nonce and the token's code and slots.
    let before = trace(json!({ "tracer": "prestateTracer" })).await;
    let account = |of: &Value, address: Address| of[address.to_string().to_lowercase()].clone();
    let nonce = placed.executed.tx.envelope.nonce();
    assert_eq!(account(&before, sender)["nonce"].as_u64().unwrap_or(0), nonce);
    assert_eq!(account(&before, token::ADDRESS)["code"], json!(token::code()));
    let slots = account(&before, token::ADDRESS)["storage"].as_object().unwrap().len();
    assert_eq!(slots, 2);
    let diff = trace(json!({ "tracer": "prestateTracer", "tracerConfig": { "diffMode": true } }));
    let diff = diff.await;
    assert_eq!(account(&diff["post"], sender)["nonce"].as_u64(), Some(nonce + 1));
    assert_eq!(account(&diff["post"], token::ADDRESS)["storage"].as_object().unwrap().len(), 2);

    let found = trace(json!({ "tracer": "4byteTracer" })).await;
    let selector = hex::encode_prefixed(&placed.executed.tx.envelope.input()[..4]);
    assert_eq!(found, json!({ format!("{selector}-64"): 1 }));
    assert_eq!(trace(json!({ "tracer": "noopTracer" })).await, json!({}));
    let mux = json!({ "tracer": "muxTracer", "tracerConfig": {
        "callTracer": {}, "4byteTracer": {},
    } });
    let mux = trace(mux).await;
    assert_eq!(mux["4byteTracer"], found);
    assert_eq!(mux["callTracer"]["from"], json!(sender));
    let flat = trace(json!({ "tracer": "flatCallTracer" })).await;
    assert_eq!(flat[0]["action"]["callType"], "call");

    // Every instruction; its options are obeyed.
    let steps = trace(json!({})).await;
    assert_eq!(steps["gas"], json!(placed.executed.gas_used));
    assert_eq!(steps["failed"], json!(false));
    let logs = steps["structLogs"].as_array().unwrap();
    let ops: Vec<&str> = logs.iter().map(|log| log["op"].as_str().unwrap()).collect();
    assert!(ops.contains(&"SSTORE") && ops.contains(&"CALLDATALOAD"), "{ops:?}");
    assert!(logs.iter().all(|log| log.get("stack").is_some() && log.get("memory").is_none()));
    assert!(logs.iter().any(|log| log.get("storage").is_some()));
    let less = json!({ "disableStack": true, "disableStorage": true, "enableMemory": true });
    let less = trace(less).await;
    let logs = less["structLogs"].as_array().unwrap();
    assert!(logs.iter().all(|log| log.get("stack").is_none() && log.get("storage").is_none()));
    assert!(logs.iter().any(|log| log.get("memory").is_some()));
    let some = trace(json!({ "limit": 3 })).await;
    assert_eq!(some["structLogs"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_call_is_traced_where_it_would_run() {
    let (chain, _open) = chain();
    let module = serve(&chain);
    let call = transfer(5);
    let options = json!({ "tracer": "callTracer" });
    for id in ["latest", "pending", "0x1"] {
        let frame = traced(&module, "debug_traceCall", json!([call, id, options])).await;
        assert_eq!((&frame["from"], &frame["to"]), (&json!(account(0)), &json!(token::ADDRESS)));
        assert_eq!(frame["output"], word(U256::ONE));
    }
    // Before a transaction of the block: the balance is what it was then.
    let block = chain.view.heads().unwrap().latest.snapshot.clone();
    let moves = |placed: &fragcast_execution::exec::Placed<'_>| {
        placed.executed.tx.envelope.kind().to() == Some(&token::ADDRESS)
    };
    let placed = block.txs().find(moves).unwrap();
    let sender = placed.executed.tx.sender;
    let asked = |index: usize| {
        let options = json!({ "tracer": "callTracer", "txIndex": format!("{index:#x}") });
        json!([balance_of(sender), "latest", options])
    };
    let before = traced(&module, "debug_traceCall", asked(placed.index)).await;
    let after = traced(&module, "debug_traceCall", asked(placed.index + 1)).await;
    assert_ne!(before["output"], after["output"]);
    let beyond = ask(&module, "debug_traceCall", asked(block.tx_count() + 1)).await.unwrap_err();
    assert_eq!(beyond.0, -32602);
    // With overrides, and what goes wrong.
    let place = Address::repeat_byte(0xcc);
    let options = json!({
        "tracer": "callTracer", "stateOverrides": code(place, &hex!("5f5ffd")),
        "blockOverrides": { "number": "0x64" },
    });
    let frame =
        traced(&module, "debug_traceCall", json!([{ "to": place }, "latest", options])).await;
    assert_eq!(frame["error"], "execution reverted");
    let all = json!([call, ["trace", "stateDiff", "vmTrace"]]);
    let parity = traced(&module, "trace_call", all).await;
    assert_eq!(parity["output"], word(U256::ONE));
    assert_eq!(parity["trace"][0]["action"]["callType"], "call");
    assert!(parity["vmTrace"]["ops"].as_array().unwrap().len() > 10);
    let token = token::ADDRESS.to_string().to_lowercase();
    assert_eq!(parity["stateDiff"][token]["storage"].as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_traced_says_so() {
    let (chain, _open) = chain();
    let module = serve(&chain);
    let unknown = json!([B256::repeat_byte(9)]);
    let error = ask(&module, "debug_traceTransaction", unknown.clone()).await.unwrap_err();
    assert_eq!((error.0, error.1.as_str()), (-32000, "transaction not found"));
    let traces = ask(&module, "trace_transaction", unknown.clone()).await.unwrap();
    assert_eq!(traces, Value::Null);
    for (method, params) in [
        ("trace_block", unknown.clone()),
        ("trace_block", json!(["0x63"])),
        ("trace_call", json!([transfer(1), ["trace"], "0x63"])),
    ] {
        assert_eq!(ask(&module, method, params).await.unwrap_err().0, -32001, "{method}");
    }
    assert_eq!(ask(&module, "trace_block", json!(["earliest"])).await.unwrap(), json!([]));
    let error = ask(&module, "debug_traceBlockByHash", unknown).await.unwrap_err();
    assert_eq!(error.0, -32001);
    let error = ask(&module, "debug_traceBlockByNumber", json!(["0x63"])).await.unwrap_err();
    assert_eq!(error.0, -32001);
    let error = ask(&module, "debug_traceBlockByNumber", json!(["earliest"])).await.unwrap_err();
    assert_eq!((error.0, error.1.as_str()), (-32000, "genesis is not traceable"));
}

#[tokio::test]
async fn a_trace_has_a_limit_whatever_the_tracer_keeps() {
    let chain = devnet();
    let config = CallConfig { max_trace: 200_000, time_limit: GUARD, ..CallConfig::default() };
    let module = serve_with(&chain, config);
    let place = Address::repeat_byte(0xcc);
    // Steps; calls of itself; logs; slots; memory.
    let forever = hex!("5b5f56");
    let calls = hex!("5b5f5f5f5f5f60045af1505f56");
    let logs = hex!("5b5f5fa05f56");
    let slots = hex!("5f5b600101805450808055600156");
    let memory = hex!("5f612710525b600556");
    // 8 KiB of returned data, and 20 steps after it.
    let returned = hex!("5f5f6120005f60045afa505b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b");
    for (run, options) in [
        (&forever[..], json!({})),
        (&calls, json!({ "tracer": "callTracer" })),
        (&calls, json!({ "tracer": "flatCallTracer" })),
        (&calls, json!({ "tracer": "muxTracer", "tracerConfig": { "callTracer": {} } })),
        (&logs, json!({ "tracer": "callTracer", "tracerConfig": { "withLog": true } })),
        (&slots, json!({ "disableStack": true })),
        (&memory, json!({ "enableMemory": true })),
        (&returned, json!({ "enableReturnData": true })),
    ] {
        let mut options = options;
        options["stateOverrides"] = code(place, run);
        let params = json!([{ "to": place }, "latest", options]);
        let error = ask(&module, "debug_traceCall", params).await.unwrap_err();
        assert_eq!(error.0, -32005, "{error:?} {options}");
        assert!(error.1.starts_with("the trace is too long"), "{error:?}");
    }
    // The state of accounts with code.
    let large = vec![0; 24_000];
    let mut state = json!({});
    for number in 0..5_u8 {
        let address = Address::repeat_byte(0x10 + number);
        state[address.to_string()] = json!({ "code": hex::encode_prefixed(&large) });
    }
    let mut run = Vec::new();
    for number in 0..5_u8 {
        run.push(0x73);
        run.extend(Address::repeat_byte(0x10 + number));
        run.extend([0x3b, 0x50]);
    }
    state[place.to_string()] = json!({ "code": hex::encode_prefixed(&run) });
    let options = json!({ "tracer": "prestateTracer", "stateOverrides": state });
    let params = json!([{ "to": place }, "latest", options]);
    let error = ask(&module, "debug_traceCall", params).await.unwrap_err();
    assert_eq!(error.0, -32005, "{error:?}");
}

#[tokio::test]
async fn a_trace_may_have_less_time_than_a_call() {
    let chain = devnet();
    let config = CallConfig { time_limit: GUARD, gas_cap: u64::MAX, ..CallConfig::default() };
    let module = serve_with(&chain, config);
    let place = Address::repeat_byte(0xcc);
    let options = json!({
        "tracer": "noopTracer", "timeout": "20ms", "stateOverrides": code(place, &hex!("5b5f56")),
    });
    let params = json!([{ "to": place, "gas": "0xffffffffffff" }, "latest", options]);
    let error = ask(&module, "debug_traceCall", params).await.unwrap_err();
    assert_eq!(error.1, "execution aborted (timeout = 20ms)");
}

#[tokio::test]
async fn a_trace_may_be_as_deep_as_calls_are() {
    let chain = devnet();
    let config = CallConfig { time_limit: GUARD, ..CallConfig::default() };
    let module = serve_with(&chain, config);
    let place = Address::repeat_byte(0xcc);
    // It calls itself until there is no gas left.
    let run = hex!("5f5f5f5f5f305af1");
    for (method, options) in [
        ("debug_traceCall", json!({ "tracer": "callTracer", "stateOverrides": code(place, &run) })),
        (
            "debug_traceCall",
            json!({
                "tracer": "muxTracer", "tracerConfig": { "callTracer": {} },
                "stateOverrides": code(place, &run),
            }),
        ),
    ] {
        let params = json!([{ "to": place }, "latest", options]);
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let (answer, _) = module.raw_json_request(&request.to_string(), 1).await.unwrap();
        // serde_json does not read what is so deep.
        let depth = answer.get().matches("\"calls\":[").count();
        assert!(depth > 128, "{depth}: {:.200}", answer.get());
    }
}

#[tokio::test]
async fn logs_that_are_taken_back_do_not_count() {
    let (chain, _open) = chain();
    let module = serve(&chain);
    let (place, other) = (Address::repeat_byte(0xcc), Address::repeat_byte(0xcd));
    // LOG0; a call of the other, which logs and reverts; LOG0.
    let mut logging = vec![0x5f, 0x5f, 0xa0, 0x5f, 0x5f, 0x5f, 0x5f, 0x5f, 0x73];
    logging.extend(other);
    logging.extend([0x5a, 0xf1, 0x50, 0x5f, 0x5f, 0xa0]);
    let state = json!({
        place.to_string(): { "code": Bytes::from(logging) },
        other.to_string(): { "code": "0x5f5fa05f5ffd" },
    });
    for only_top_call in [false, true] {
        let options = json!({
            "tracer": "callTracer", "stateOverrides": state,
            "tracerConfig": { "withLog": true, "onlyTopCall": only_top_call },
        });
        let params = json!([{ "to": place }, "latest", options]);
        let frame = traced(&module, "debug_traceCall", params).await;
        let logs = frame["logs"].as_array().unwrap();
        let indices: Vec<u64> = logs.iter().map(|log| number(&log["index"])).collect();
        assert_eq!(indices, [0, 1], "{frame:#}");
    }
}
