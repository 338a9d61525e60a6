//! The methods over an executed devnet chain.

mod filters;
mod proofs;
mod ranges;
mod raw;
mod reading;
mod subscriptions;
mod torn;
mod views;

use std::num::NonZeroU32;
use std::sync::Mutex;

use alloy_primitives::Bytes;
use fragcast_execution::devnet::DevnetConfig;
use fragcast_execution::exec::OpenBlock;
use fragcast_execution::testing::TestChain;
use futures_util::future::BoxFuture;
use serde_json::json;

use super::*;
use crate::error;
use crate::resolve::told_hash;

const ZERO: &str = "0x0000000000000000000000000000000000000000000000000000000000000000";

struct Fixture {
    chain: TestChain,
    ctx: Arc<EthContext>,
    module: RpcModule<EthContext>,
}

/// Answers with the method's name and parameters.
#[derive(Default)]
struct Echo(Mutex<Vec<String>>);

impl Upstream for Echo {
    fn request(
        &self,
        method: &str,
        params: Value,
    ) -> BoxFuture<'_, Result<Value, ErrorObjectOwned>> {
        self.0.lock().unwrap().push(method.to_owned());
        let answer = json!({ "method": method, "params": params });
        Box::pin(async move { Ok(answer) })
    }
}

/// Every account has two forwarded transactions.
struct Two;

impl Forwarded for Two {
    fn pending_nonce(&self, _: Address, state_nonce: u64) -> u64 {
        state_nonce + 2
    }
}

impl Fixture {
    /// With the default bound on the age of `pending`, however slow the machine is, nothing is too old.
    fn with(mut config: EthConfig, upstream: Option<Arc<dyn Upstream>>) -> Self {
        if config.pending_max_age_ms == EthConfig::default().pending_max_age_ms {
            config.pending_max_age_ms = 0;
        }
        let accounts = NonZeroU32::new(20).unwrap();
        let chain = TestChain::new(&DevnetConfig { accounts, ..DevnetConfig::default() });
        let (spec, view) = (Arc::clone(&chain.spec), Arc::clone(&chain.view));
        let ctx = Arc::new(EthContext::new(spec, view, config, upstream, Arc::new(Two)));
        let module = module(Arc::clone(&ctx));
        Self { chain, ctx, module }
    }

    fn new() -> Self {
        Self::with(EthConfig::default(), None)
    }

    /// An open block with `frags` frags of ten transactions.
    fn open(&mut self, frags: usize) -> OpenBlock {
        let mut block = self.chain.open();
        for _ in 0..frags {
            let txs: Vec<Bytes> = (0..10).map(|_| self.chain.workload.next_tx().bytes).collect();
            self.chain.frag(&mut block, &txs, false);
        }
        block
    }

    async fn try_call(&self, method: &str, params: Value) -> Result<Value, (i64, String)> {
        ask(&self.module, method, params).await
    }

    /// The methods of the preconfirmed view.
    fn preconfirmed(&self) -> RpcModule<EthContext> {
        module(Arc::new(self.ctx.showing(View::Preconfirmed)))
    }

    /// The hash by which the newest open block is told.
    fn provisional(&self) -> Value {
        json!(told_hash(self.chain.view.heads().unwrap().pending()))
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        self.try_call(method, params).await.unwrap_or_else(|e| panic!("{method}: {e:?}"))
    }

    async fn code(&self, method: &str, params: Value) -> i32 {
        let error = self.try_call(method, params).await;
        i32::try_from(error.expect_err(method).0).unwrap()
    }
}

async fn ask(
    module: &RpcModule<EthContext>,
    method: &str,
    params: Value,
) -> Result<Value, (i64, String)> {
    let request =
        json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let (response, _) = module.raw_json_request(&request, 1).await.unwrap();
    let mut response: Value = serde_json::from_str(response.get()).unwrap();
    match response.get("error") {
        None => Ok(response["result"].take()),
        Some(error) => {
            Err((error["code"].as_i64().unwrap(), error["message"].as_str().unwrap().to_owned()))
        }
    }
}

fn quantity(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no quantity"));
    let digits = text.strip_prefix("0x").unwrap();
    assert!(digits == "0" || !digits.starts_with('0'), "{text} is no quantity");
    u64::from_str_radix(digits, 16).unwrap()
}

mod waiting;
