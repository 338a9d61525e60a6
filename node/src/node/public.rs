//! The Ethereum part of the public JSON-RPC of a node that executes: what reads, what calls, what
//! sends.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, B256};
use futures_util::future::BoxFuture;
use jsonrpsee::Methods;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tokio::task::JoinHandle;

use super::execution::Executing;
use crate::client::{Client, ClientError};
use crate::config::Config;
use crate::engine::http::HttpClient;
use crate::eth::{self, EthContext, Forwarded, Upstream};
use crate::eth_call::{self, CallConfig, CallContext};
use crate::exec::Tx;
use crate::forward::{ForwardConfig, Forwarder, MakeReceipt};
use crate::network::Network;

/// What is served, and what runs beside it.
pub(super) struct Public {
    pub(super) module: Methods,
    pub(super) eth: Arc<EthContext>,
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) forwarding: JoinHandle<()>,
}

/// The execution client as whoever has older blocks.
struct ClientUpstream {
    client: Client,
    http: HttpClient,
}

impl ClientUpstream {
    async fn ask(
        client: Client,
        http: HttpClient,
        method: String,
        params: Value,
    ) -> Result<Value, ErrorObjectOwned> {
        let error = |code, message: String| ErrorObjectOwned::owned(code, message, None::<()>);
        let params: Option<Box<RawValue>> =
            Some(to_raw_value(&params).map_err(|e| eth::Failure::internal(&e).into_error())?);
        let answer = client.raw(&method, params.as_deref(), http).await;
        let answer = answer.map_err(|e| match e {
            ClientError::Refused { code, message } => {
                error(i32::try_from(code).unwrap_or(eth::error::NOT_HERE), message)
            }
            other => error(eth::error::UNAVAILABLE, other.to_string()),
        })?;
        serde_json::from_str(answer.get())
            .map_err(|e| error(eth::error::UNAVAILABLE, format!("the execution client: {e}")))
    }
}

impl Upstream for ClientUpstream {
    fn request(
        &self,
        method: &str,
        params: Value,
    ) -> BoxFuture<'_, Result<Value, ErrorObjectOwned>> {
        Box::pin(Self::ask(self.client.clone(), self.http, method.to_owned(), params))
    }
}

impl Forwarded for Forwarder {
    fn pending_nonce(&self, address: Address, state_nonce: u64) -> u64 {
        Self::pending_nonce(self, address, state_nonce)
    }

    fn get(&self, hash: B256) -> Option<Tx> {
        Self::get(self, hash)
    }
}

fn call_config(config: &Config) -> CallConfig {
    let calls = &config.calls;
    let default = CallConfig::default();
    CallConfig {
        threads: NonZeroUsize::new(calls.threads).unwrap_or(default.threads),
        queue: calls.queue,
        gas_cap: calls.gas_cap,
        time_limit: Duration::from_millis(calls.time_limit_ms),
        memory_limit: calls.memory_mib * 1024 * 1024,
        preconf_as_latest: config.rpc.preconf_as_latest,
    }
}

impl Public {
    /// Assembles the methods; starts the task of the forwarder.
    pub(super) fn new(
        config: &Config,
        network: &Network,
        executing: &Executing,
    ) -> anyhow::Result<Self> {
        let (spec, view) = (&executing.spec, executing.executor.view());
        let upstream = executing.client.clone().map(|client| {
            let timeout = Duration::from_millis(config.client.timeout_ms);
            let max_response = config.rpc.max_response as usize;
            Arc::new(ClientUpstream { client, http: HttpClient { timeout, max_response } })
        });
        let forward = ForwardConfig {
            gateways: network.gateway_urls.iter().map(|(a, url)| (*a, url.clone())).collect(),
            fallback: executing.client.as_ref().map(|_| config.client.url.clone()),
            timeout: Duration::from_millis(config.calls.gateway_timeout_ms),
            sync_timeout: Duration::from_millis(config.calls.sync_timeout_ms),
            max_sync_timeout: Duration::from_millis(config.calls.max_sync_timeout_ms),
            ..ForwardConfig::default()
        };
        let receipts = Arc::clone(spec);
        let receipt: MakeReceipt =
            Arc::new(move |block, index| eth::receipt_json(&receipts, block, index));
        let forwarder = Arc::new(Forwarder::new(
            forward,
            network.schedule.clone(),
            Arc::clone(view),
            Arc::clone(spec),
            receipt,
        ));
        let mut eth = EthContext::new(
            Arc::clone(spec),
            Arc::clone(view),
            config.rpc.clone(),
            upstream.clone().map(|u| u as Arc<dyn Upstream>),
            Arc::clone(&forwarder) as Arc<dyn Forwarded>,
        );
        eth.state_waits = executing.store.is_none() && executing.client.is_some();
        eth.follow = executing.client.as_ref().map(|_| Arc::clone(&executing.follow));
        let eth = Arc::new(eth);
        let calls = call_config(config);
        let calls = Arc::new(CallContext {
            spec: Arc::clone(spec),
            view: Arc::clone(view),
            pool: calls.pool()?,
            config: calls,
            upstream: upstream.map(|u| u as Arc<dyn Upstream>),
            forwarder: Some(Arc::clone(&forwarder)),
            stats: Arc::clone(&eth.stats),
        });
        let mut module = Methods::new();
        module.merge(eth::module(Arc::clone(&eth)))?;
        module.merge(eth_call::module(calls))?;
        let forwarding = tokio::spawn(Arc::clone(&forwarder).run());
        Ok(Self { module, eth, forwarder, forwarding })
    }
}
