use alloy_primitives::keccak256;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::json;

use super::*;
use crate::error::NOT_HERE;
use crate::forward::tests::{devnet, first, forwarder, good_gateway, plain, sender, sign, to};

/// A rollup node's client that answers with what it was asked.
struct Echo;

impl Upstream for Echo {
    fn request(
        &self,
        method: &str,
        params: Value,
    ) -> BoxFuture<'_, Result<Value, ErrorObjectOwned>> {
        let answer = match method {
            "optimism_version" => {
                Err(ErrorObjectOwned::owned(NOT_HERE, "no such method", None::<()>))
            }
            _ => Ok(json!([method, params])),
        };
        async { answer }.boxed()
    }
}

fn about(
    forwarded: Option<(Arc<Forwarder>, Arc<ChainView>)>,
    rollup: Option<Arc<dyn Upstream>>,
) -> RpcModule<About> {
    let about = About { peers: Box::new(|| 7), forwarded, rollup, stats: Arc::default() };
    module(about, ["eth_call", "debug_traceCall", "web3_clientVersion"].into_iter())
}

async fn ask(module: &RpcModule<About>, method: &str, params: Value) -> Value {
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let (answer, _) = module.raw_json_request(&request.to_string(), 1).await.unwrap();
    let answer: Value = serde_json::from_str(answer.get()).unwrap();
    answer.get("result").unwrap_or(&answer["error"]).clone()
}

#[test]
fn all_names_are_listed() {
    let names: BTreeSet<&str> = about(None, None).method_names().collect();
    assert_eq!(names, METHODS.iter().copied().collect());
}

#[tokio::test]
async fn a_node_tells_of_itself_by_the_names_that_others_use() {
    let module = about(None, None);
    assert_eq!(
        ask(&module, "web3_sha3", json!(["0x68656c6c6f20776f726c64"])).await,
        json!("0x47173285a8d7341e5e972fc677286384f802f8ef42a5ec5f03bbfa254cb01fad")
    );
    assert_eq!(ask(&module, "web3_sha3", json!(["0x"])).await, json!(keccak256([])));
    assert_eq!(ask(&module, "net_listening", json!([])).await, json!(true));
    assert_eq!(ask(&module, "net_peerCount", json!([])).await, json!("0x7"));
    assert_eq!(ask(&module, "eth_accounts", json!([])).await, json!([]));
    let modules = ["debug", "eth", "fragcast", "net", "rpc", "txpool", "web3"];
    let modules: Map<String, Value> =
        modules.iter().map(|name| ((*name).to_owned(), json!("1.0"))).collect();
    assert_eq!(ask(&module, "rpc_modules", json!([])).await, Value::Object(modules));
    for (method, params) in [
        ("web3_sha3", json!([])),
        ("web3_sha3", json!(["0x1"])),
        ("web3_sha3", json!([7])),
        ("web3_sha3", json!(["0x", 7])),
        ("net_peerCount", json!([7])),
        ("rpc_modules", json!({})),
        ("txpool_contentFrom", json!([])),
        ("txpool_contentFrom", json!(["0x12"])),
        ("fragcast_transactionStatus", json!(["0x12"])),
    ] {
        let error = ask(&module, method, params).await;
        assert_eq!(error["code"], -32_602, "{method}: {error}");
    }
    let unknown = ask(&module, "optimism_syncStatus", json!([])).await;
    assert_eq!(unknown["code"], -32_601);
}

#[tokio::test]
async fn what_a_rollup_node_knows_is_asked_of_the_client() {
    let module = about(None, Some(Arc::new(Echo)));
    for (method, params) in [
        ("optimism_syncStatus", json!([])),
        ("optimism_rollupConfig", json!([])),
        ("optimism_outputAtBlock", json!(["0x10"])),
    ] {
        assert_eq!(ask(&module, method, params.clone()).await, json!([method, params]));
    }
    assert_eq!(ask(&module, "optimism_version", json!([])).await["message"], "no such method");
    let modules = ask(&module, "rpc_modules", json!([])).await;
    assert_eq!(modules["optimism"], "1.0");
}

#[tokio::test]
async fn the_pool_is_what_is_forwarded() {
    let chain = devnet();
    let gateway = good_gateway();
    let forwarder = forwarder(&chain, to(&[(first(), &gateway)]));
    let module = about(Some((Arc::clone(&forwarder), Arc::clone(&chain.view))), None);
    let empty = json!({ "pending": {}, "queued": {} });
    assert_eq!(ask(&module, "txpool_content", json!([])).await, empty);
    let status = json!({ "pending": "0x0", "queued": "0x0" });
    assert_eq!(ask(&module, "txpool_status", json!([])).await, status);
    let mut hashes = Vec::new();
    // The third is missing.
    for nonce in [0, 1, 3] {
        let mut tx = plain(&chain);
        tx.nonce = nonce;
        hashes.push(forwarder.send(&sign(tx)).await.unwrap());
    }
    let status = json!({ "pending": "0x2", "queued": "0x1" });
    assert_eq!(ask(&module, "txpool_status", json!([])).await, status);
    let from = sender().to_string();
    let content = ask(&module, "txpool_content", json!([])).await;
    for (part, nonce, hash) in
        [("pending", "0", hashes[0]), ("pending", "1", hashes[1]), ("queued", "3", hashes[2])]
    {
        let tx = &content[part][&from][nonce];
        assert_eq!(tx["hash"], json!(hash), "{content}");
        assert_eq!(tx["from"], from.to_lowercase());
        assert!(tx["blockHash"].is_null() && tx["blockNumber"].is_null());
    }
    let own = ask(&module, "txpool_contentFrom", json!([sender()])).await;
    assert_eq!(own["pending"], content["pending"][&from]);
    assert_eq!(own["queued"], content["queued"][&from]);
    assert_eq!(ask(&module, "txpool_contentFrom", json!([Address::ZERO])).await, empty);
    let lines = ask(&module, "txpool_inspect", json!([])).await;
    let line = lines["queued"][&from]["3"].as_str().unwrap();
    let recipient = Address::repeat_byte(0xcc);
    assert_eq!(line, format!("{recipient}: 1 wei + 21000 gas × 100000000000 wei"));
    let status = ask(&module, "fragcast_transactionStatus", json!([hashes[2]])).await;
    assert_eq!(status, json!({ "status": "forwarded" }));
    let unknown = ask(&module, "fragcast_transactionStatus", json!([B256::ZERO])).await;
    assert!(unknown.is_null());
}

#[test]
fn few_answers_with_the_pool_s_content_are_made_at_a_time() {
    let turns = Semaphore::new(POOL_ANSWERS);
    let held: Vec<_> = (0..POOL_ANSWERS).map(|_| turns.try_acquire().unwrap()).collect();
    let refused = in_turn(&turns, || Ok(7)).unwrap_err().into_error();
    assert_eq!(refused.code(), crate::error::LIMIT);
    drop(held);
    for _ in 0..2 * POOL_ANSWERS {
        assert_eq!(in_turn(&turns, || Ok(7)).unwrap(), 7);
    }
}
