//! The methods as clients call them, on executed chains.

mod calls;
mod executor;
mod limits;
mod op;
mod options;
mod osaka;
mod overrides;
mod simulate;
mod trace;

use alloy_primitives::{Address, Bytes, U256, hex};
use fragcast_execution::devnet::genesis::account_key;
use fragcast_execution::devnet::{DevnetConfig, token};
use fragcast_execution::executor::ChainView;
use fragcast_execution::testing::TestChain;
use serde_json::json;

use super::*;

pub(super) const GUARD: Duration = Duration::from_secs(60);

/// An error: code, message, data.
pub(super) type RpcError = (i64, String, Value);

pub(super) async fn ask(
    module: &RpcModule<Arc<CallContext>>,
    method: &str,
    params: Value,
) -> Result<Value, RpcError> {
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let request = request.to_string();
    let answer = module.raw_json_request(&request, 1);
    let (answer, _) = tokio::time::timeout(GUARD, answer).await.unwrap().unwrap();
    let answer: Value = serde_json::from_str(answer.get()).unwrap();
    let error = &answer["error"];
    if error.is_null() {
        return Ok(answer["result"].clone());
    }
    let message = error["message"].as_str().unwrap().to_owned();
    Err((error["code"].as_i64().unwrap(), message, error["data"].clone()))
}

pub(super) fn account(index: u32) -> Address {
    account_key(0, index).address()
}

pub(super) fn context(
    spec: &Arc<ChainSpec>,
    view: &Arc<ChainView>,
    config: CallConfig,
) -> CallContext {
    CallContext {
        spec: Arc::clone(spec),
        blocks: Blocks::new(Arc::clone(view), false),
        pool: config.pool().unwrap(),
        config,
        upstream: None,
        forwarder: None,
        stats: Arc::default(),
    }
}

fn serve_with(chain: &TestChain, config: CallConfig) -> RpcModule<Arc<CallContext>> {
    module(Arc::new(context(&chain.spec, &chain.view, config)))
}

fn serve(chain: &TestChain) -> RpcModule<Arc<CallContext>> {
    serve_with(chain, CallConfig::default())
}

fn devnet() -> TestChain {
    TestChain::new(&DevnetConfig::default())
}

fn word(value: impl Into<U256>) -> Value {
    json!(Bytes::from(value.into().to_be_bytes::<32>()))
}

/// A token transfer from account 0 to account 1.
fn transfer(value: u64) -> Value {
    let data = token::transfer_call(account(1), U256::from(value));
    json!({ "from": account(0), "to": token::ADDRESS, "data": data })
}

fn balance_of(account: Address) -> Value {
    json!({ "to": token::ADDRESS, "input": token::balance_of_call(account) })
}

fn number(value: &Value) -> u64 {
    let text = value.as_str().unwrap();
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

/// Code at an address, for state overrides.
fn code(address: Address, code: &[u8]) -> Value {
    json!({ address.to_string(): { "code": hex::encode_prefixed(code) } })
}
