//! Answers of a devnet against the schemas of execution-apis.
//!
//! `schemas/schemas.json` has what their `src/schemas/*.yaml` ask for (CC0-1.0), written shorter: a type
//! is a kind of hex string or another type by its name, `?` before it also null, `=` a constant, in
//! brackets an array of it. `closed` is `additionalProperties: false`, `of` is `allOf`, `any` is `oneOf`.

use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, U256};
use fragcast_execution::devnet::genesis::account_key;
use fragcast_execution::devnet::{DevnetConfig, token};
use fragcast_execution::testing::TestChain;
use jsonrpsee::Methods;
use serde_json::{Map, Value, json};

use crate::calls::{self, CallConfig, CallContext};
use crate::eth::{self, EthConfig, EthContext, NoForwarded};

struct Schemas(Value);

impl Schemas {
    fn new() -> Self {
        Self(serde_json::from_str(include_str!("schemas/schemas.json")).unwrap())
    }

    /// Whether a value is of a type; why not.
    fn check(&self, ty: &Value, value: &Value) -> Result<(), String> {
        match ty {
            Value::String(name) => self.named(name, value),
            Value::Array(of) => {
                let values = value.as_array().ok_or_else(|| format!("{value} is no array"))?;
                values.iter().try_for_each(|value| self.check(&of[0], value))
            }
            Value::Object(object) => self.object(object, value),
            other => panic!("{other} is no type"),
        }
    }

    fn named(&self, name: &str, value: &Value) -> Result<(), String> {
        if let Some(name) = name.strip_prefix('?') {
            return if value.is_null() { Ok(()) } else { self.named(name, value) };
        }
        if let Some(constant) = name.strip_prefix('=') {
            return if value == constant {
                Ok(())
            } else {
                Err(format!("{value} is not {constant}"))
            };
        }
        if let Some(ty) = self.0["types"].get(name) {
            return self.check(ty, value).map_err(|why| format!("{name}: {why}"));
        }
        let ok = match name {
            "null" => value.is_null(),
            "bool" => value.is_boolean(),
            "string" => value.is_string(),
            "number" => value.is_number(),
            _ => value.as_str().and_then(|text| text.strip_prefix("0x")).is_some_and(|digits| {
                let lower = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
                digits.chars().all(if name == "address" {
                    |c: char| c.is_ascii_hexdigit()
                } else {
                    lower
                }) && match name {
                    "address" => digits.len() == 40,
                    "hash32" | "bytes32x" => digits.len() == 64,
                    "bytes32" => digits.len() <= 64,
                    "bytes256" => digits.len() == 512,
                    "bytes8" => digits.len() == 16,
                    "byte" => digits.len() <= 2,
                    "bytes" => true,
                    "uint" => digits == "0" || (!digits.is_empty() && !digits.starts_with('0')),
                    other => panic!("there is no type {other}"),
                }
            }),
        };
        if ok { Ok(()) } else { Err(format!("{value} is no {name}")) }
    }

    fn object(&self, ty: &Map<String, Value>, value: &Value) -> Result<(), String> {
        if let Some(any) = ty.get("any") {
            let mut reasons = Vec::new();
            for one in any.as_array().unwrap() {
                match self.check(one, value) {
                    Ok(()) => return Ok(()),
                    Err(why) => reasons.push(why),
                }
            }
            return Err(reasons.join("; "));
        }
        for parent in ty.get("of").and_then(Value::as_array).into_iter().flatten() {
            self.check(parent, value)?;
        }
        let object = value.as_object().ok_or_else(|| format!("{value} is no object"))?;
        for name in ty.get("required").and_then(Value::as_array).into_iter().flatten() {
            let name = name.as_str().unwrap();
            if !object.contains_key(name) {
                return Err(format!("{name} is missing"));
            }
        }
        let fields = ty["fields"].as_object().unwrap();
        for (name, value) in object {
            match fields.get(name) {
                Some(ty) => self.check(ty, value).map_err(|why| format!("{name}: {why}"))?,
                None if ty.contains_key("closed") => return Err(format!("{name} is not there")),
                None => {}
            }
        }
        Ok(())
    }
}

#[test]
fn what_is_not_of_a_type_is_told() {
    let schemas = Schemas::new();
    for (ty, value) in [
        ("uint", json!("0x00")),
        ("uint", json!("0x")),
        ("uint", json!(1)),
        ("hash32", json!("0x12")),
        ("address", json!(B256::ZERO)),
        ("?Block", json!({})),
        ("Log", json!({ "transactionHash": B256::ZERO, "more": 1 })),
        ("Withdrawal", json!({ "index": "0x0" })),
        ("TransactionInfo", json!({ "type": "0x2" })),
    ] {
        schemas.check(&json!(ty), &value).expect_err(ty);
    }
}

async fn ask(methods: &Methods, method: &str, params: &Value) -> Value {
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let (answer, _) = methods.raw_json_request(&request.to_string(), 1).await.unwrap();
    let answer: Value = serde_json::from_str(answer.get()).unwrap();
    assert!(answer.get("error").is_none(), "{method} {params}: {answer}");
    answer["result"].clone()
}

#[tokio::test]
async fn every_answer_is_of_its_schema() {
    let mut chain = TestChain::with_trie(&DevnetConfig::default());
    chain.block(1, 20);
    let head = chain.block(2, 20);
    let mut open = chain.open();
    let txs: Vec<Bytes> = (0..10).map(|_| chain.workload.next_tx().bytes).collect();
    chain.frag(&mut open, &txs, false);
    let pending = chain.view.heads().unwrap().pending.clone().unwrap();

    let (spec, view) = (&chain.spec, &chain.view);
    let forwarded = Arc::new(NoForwarded);
    // However slow the machine is.
    let config = EthConfig { pending_max_age_ms: 0, ..EthConfig::default() };
    let context = EthContext::new(Arc::clone(spec), Arc::clone(view), config, None, forwarded);
    let config = CallConfig { threads: 1.try_into().unwrap(), ..CallConfig::default() };
    let calling = CallContext {
        spec: Arc::clone(spec),
        blocks: context.blocks.clone(),
        pool: config.pool().unwrap(),
        config,
        upstream: None,
        forwarder: None,
        stats: Arc::clone(&context.stats),
    };
    let mut methods = Methods::new();
    methods.merge(eth::module(Arc::new(context))).unwrap();
    methods.merge(calls::module(Arc::new(calling))).unwrap();

    let (hash, unknown) = (head.hash(), B256::repeat_byte(9));
    let owner = account_key(0, 0).address();
    let nobody = Address::repeat_byte(9);
    let slot = token::balance_slot(owner);
    let mut requests: Vec<(&str, Value)> = Vec::new();
    for method in ["eth_chainId", "eth_blockNumber", "eth_gasPrice", "eth_maxPriorityFeePerGas"] {
        requests.push((method, json!([])));
    }
    for method in ["eth_blobBaseFee", "eth_syncing", "net_version", "web3_clientVersion"] {
        requests.push((method, json!([])));
    }
    for id in ["0x0", "0x1", "latest", "pending", "0x63"] {
        for full in [false, true] {
            requests.push(("eth_getBlockByNumber", json!([id, full])));
        }
        requests.push(("eth_getHeaderByNumber", json!([id])));
        requests.push(("eth_getBlockTransactionCountByNumber", json!([id])));
        requests.push(("eth_getUncleCountByBlockNumber", json!([id])));
        requests.push(("eth_getTransactionByBlockNumberAndIndex", json!([id, "0x0"])));
        requests.push(("eth_getBlockReceipts", json!([id])));
    }
    for block in [hash, unknown] {
        requests.push(("eth_getBlockByHash", json!([block, true])));
        requests.push(("eth_getHeaderByHash", json!([block])));
        requests.push(("eth_getBlockTransactionCountByHash", json!([block])));
        requests.push(("eth_getUncleCountByBlockHash", json!([block])));
        requests.push(("eth_getTransactionByBlockHashAndIndex", json!([block, "0x0"])));
    }
    let txs = head.snapshot.txs().chain(pending.txs()).map(|placed| placed.executed.tx.hash);
    for tx in txs.chain([unknown]) {
        for method in ["eth_getTransactionByHash", "eth_getTransactionReceipt"] {
            requests.push((method, json!([tx])));
        }
        requests.push(("eth_getRawTransactionByHash", json!([tx])));
        requests.push(("debug_getRawTransaction", json!([tx])));
        if tx != unknown {
            requests.push(("debug_traceTransaction", json!([tx, { "tracer": "callTracer" }])));
            requests.push(("debug_traceTransaction", json!([tx])));
        }
    }
    let transfer = json!({
        "from": owner, "to": token::ADDRESS, "data": token::transfer_call(nobody, U256::ONE),
    });
    for id in ["0x1", "latest", "pending"] {
        for address in [owner, token::ADDRESS, nobody] {
            for method in ["eth_getBalance", "eth_getTransactionCount", "eth_getCode"] {
                requests.push((method, json!([address, id])));
            }
            requests.push(("eth_getAccountInfo", json!([address, id])));
            requests.push(("eth_getStorageAt", json!([address, slot, id])));
        }
        for method in ["eth_call", "eth_estimateGas", "eth_createAccessList"] {
            requests.push((method, json!([transfer, id])));
        }
        requests.push(("debug_traceCall", json!([transfer, id, { "tracer": "callTracer" }])));
        requests.push(("debug_traceCall", json!([transfer, id])));
        requests.push(("debug_getRawReceipts", json!([id])));
        requests.push(("debug_traceBlockByNumber", json!([id, { "tracer": "callTracer" }])));
        for full in [false, true] {
            let payload = json!({
                "blockStateCalls": [{ "calls": [transfer, { "from": nobody, "to": token::ADDRESS }] }, {}],
                "traceTransfers": true, "returnFullTransactions": full,
            });
            requests.push(("eth_simulateV1", json!([payload, id])));
        }
        requests.push(("eth_feeHistory", json!(["0x5", id, [10, 50.5]])));
    }
    requests.push(("eth_getProof", json!([token::ADDRESS, [slot, "0x5"], "latest"])));
    requests.push(("eth_getProof", json!([nobody, [], "latest"])));
    requests.push(("eth_getLogs", json!([{ "fromBlock": "0x0", "toBlock": "latest" }])));
    requests.push(("eth_getLogs", json!([{ "blockHash": hash }])));
    requests.push(("debug_getRawBlock", json!(["latest"])));
    requests.push(("debug_getRawHeader", json!(["latest"])));
    requests.push(("debug_traceBlockByHash", json!([hash])));

    let schemas = Schemas::new();
    let all = schemas.0["methods"].as_object().unwrap();
    for (method, params) in &requests {
        let answer = ask(&methods, method, params).await;
        let checked = schemas.check(&all[*method], &answer);
        checked.unwrap_or_else(|why| panic!("{method} {params}: {why}\n{answer}"));
    }
    for method in all.keys() {
        assert!(requests.iter().any(|(asked, _)| asked == method), "{method} is not asked");
    }
    println!("{} answers of {} methods are of their schemas", requests.len(), all.len());
}
