//! Options of traces, as tools send them.

use super::*;

/// Two contracts, the first of which logs and calls the second and an account that is not there.
fn nested() -> (Address, Value) {
    let (place, other) = (Address::repeat_byte(0xcc), Address::repeat_byte(0xcd));
    let mut run = vec![0x5f, 0x5f, 0xa0];
    for to in [other, Address::repeat_byte(0xee)] {
        run.extend([0x5f, 0x5f, 0x5f, 0x5f, 0x5f, 0x73]);
        run.extend(to);
        run.extend([0x5a, 0xf1, 0x50]);
    }
    let state = json!({
        place.to_string(): { "code": Bytes::from(run) },
        other.to_string(): { "code": "0x5f54505f5ffd" },
    });
    (place, state)
}

async fn trace(module: &RpcModule<Arc<CallContext>>, options: Value) -> Result<Value, RpcError> {
    let (place, state) = nested();
    let mut options = options;
    options["stateOverrides"] = state;
    ask(module, "debug_traceCall", json!([{ "to": place }, "latest", options])).await
}

#[tokio::test]
async fn what_geth_passes_over_is_passed_over() {
    let mut chain = devnet();
    let block = chain.block(1, 5);
    let module = serve(&chain);
    let hash = block.snapshot.txs().next().unwrap().executed.tx.hash;
    let plain = json!({ "disableStorage": true, "enableMemory": true, "disableStack": false });
    let expected = ask(&module, "debug_traceTransaction", json!([hash, plain])).await.unwrap();
    for options in [
        // Remix.
        json!({
            "disableStorage": true, "enableMemory": true, "disableStack": false,
            "fullStorage": false,
        }),
        json!({ "disablestorage": true, "EnableMemory": true, "DISABLESTACK": false }),
        json!({
            "disableStorage": true, "enableMemory": true, "disableStack": null, "custom": { "a": 1 },
            "tracerConfig": null, "overrides": null, "stateOverrides": null,
        }),
    ] {
        let traced = ask(&module, "debug_traceTransaction", json!([hash, options])).await;
        assert_eq!(traced.unwrap(), expected, "{options}");
    }
    assert!(trace(&module, json!({ "fullStorage": false })).await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    let mut chain = devnet();
    let block = chain.block(1, 5);
    let module = serve(&chain);
    let hash = block.snapshot.txs().next().unwrap().executed.tx.hash;
    for (options, name) in [
        (json!({ "overrides": { "cancunTime": 0 } }), "overrides"),
        (json!({ "stateOverrides": {} }), "stateOverrides"),
        (json!({ "StateOverrides": {} }), "stateOverrides"),
        (json!({ "blockOverrides": {} }), "blockOverrides"),
        (json!({ "txIndex": "0x0" }), "txIndex"),
        (json!({ "disableStorage": 1 }), "disableStorage"),
        (json!({ "disablestorage": "true" }), "disableStorage"),
        (json!({ "limit": "0x1" }), "limit"),
        (json!({ "limit": 1, "Limit": 2 }), "limit is given twice"),
        (
            json!({ "tracer": "callTracer", "tracerConfig": { "onlyTopCall": "true" } }),
            "onlyTopCall",
        ),
        (json!({ "tracer": "callTracer", "tracerConfig": { "withLog": 1 } }), "withLog"),
        (json!({ "tracer": "callTracer", "tracerConfig": [true] }), "tracerConfig"),
        (
            json!({ "tracer": "muxTracer", "tracerConfig": { "callTracer": [true, true] } }),
            "callTracer",
        ),
        (
            json!({ "tracer": "flatCallTracer", "tracerConfig": { "convertParityErrors": "yes" } }),
            "convertParityErrors",
        ),
        (
            json!({
                "tracer": "prestateTracer",
                "tracerConfig": { "diffMode": true, "includeEmpty": true },
            }),
            "cannot use diffMode with includeEmpty",
        ),
    ] {
        let error = ask(&module, "debug_traceTransaction", json!([hash, options])).await;
        let error = error.unwrap_err();
        assert_eq!(error.0, -32602, "{options}: {error:?}");
        assert!(error.1.contains(name), "{options}: {error:?}");
    }
    let error = trace(&module, json!({ "overrides": {} })).await.unwrap_err();
    assert!(error.0 == -32602 && error.1.contains("overrides"), "{error:?}");
}

#[tokio::test]
async fn names_of_a_tracer_s_options_have_any_case() {
    let module = serve(&devnet());
    for config in [
        json!({ "onlyTopCall": true, "withLog": true, "other": 7 }),
        json!({ "onlytopcall": true, "WITHLOG": true }),
    ] {
        for (tracer, config) in [
            ("callTracer", config.clone()),
            ("muxTracer", json!({ "callTracer": config, "noopTracer": { "a": 1 } })),
        ] {
            let options = json!({ "tracer": tracer, "tracerConfig": config });
            let traced = trace(&module, options).await.unwrap();
            let frame = traced.get("callTracer").unwrap_or(&traced);
            assert!(frame.get("calls").is_none(), "{frame}");
            assert_eq!(frame["logs"].as_array().map(Vec::len), Some(1), "{frame}");
        }
    }
    let options = json!({ "tracer": "prestateTracer", "tracerConfig": { "DiffMode": true } });
    assert!(trace(&module, options).await.unwrap().get("post").is_some());
    let options = json!({
        "tracer": "flatCallTracer",
        "tracerConfig": { "includeprecompiles": true, "convertParityErrors": false },
    });
    assert!(trace(&module, options).await.unwrap().is_array());
    for (config, text) in [
        (json!({}), "execution reverted"),
        (json!({ "convertParityErrors": false }), "execution reverted"),
        (json!({ "CONVERTPARITYERRORS": true }), "Reverted"),
    ] {
        let options = json!({ "tracer": "flatCallTracer", "tracerConfig": config });
        let calls = trace(&module, options).await.unwrap();
        assert_eq!(calls[1]["error"], text, "{calls}");
        let mux = json!({ "tracer": "muxTracer", "tracerConfig": { "flatCallTracer": config } });
        let mux = trace(&module, mux).await.unwrap();
        assert_eq!(mux["flatCallTracer"][1]["error"], text, "{mux}");
    }
    // Those of other tracers are passed over, whatever they are.
    let options = json!({
        "tracer": "4byteTracer", "tracerConfig": { "includeEmpty": true, "onlyTopCall": 5 },
    });
    assert!(trace(&module, options).await.is_ok());
    assert!(trace(&module, json!({ "tracerConfig": { "withLog": 5 } })).await.is_ok());
}

#[tokio::test]
async fn accounts_that_were_empty_are_shown_on_demand() {
    let module = serve(&devnet());
    let empty = Address::repeat_byte(0xee).to_string().to_lowercase();
    let code = Address::repeat_byte(0xcd).to_string().to_lowercase();
    for (config, shown) in [
        (json!({}), false),
        (json!({ "includeEmpty": false }), false),
        (json!({ "includeEmpty": true }), true),
        (json!({ "INCLUDEEMPTY": true, "disableCode": true }), true),
        (json!({ "disableCode": true }), false),
    ] {
        let options = json!({ "tracer": "prestateTracer", "tracerConfig": config });
        let traced = trace(&module, options).await.unwrap();
        let mux = json!({ "tracer": "muxTracer", "tracerConfig": { "prestateTracer": config } });
        let mux = trace(&module, mux).await.unwrap();
        for traced in [&traced, &mux["prestateTracer"]] {
            assert_eq!(traced.get(&empty).is_some(), shown, "{config}: {traced}");
            // It has code, and nothing else.
            assert!(traced.get(&code).is_some(), "{config}: {traced}");
        }
    }
}
