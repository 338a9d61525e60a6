//! The Ethereum part of the public JSON-RPC of a node that executes: methods that read, call and
//! send.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use fragcast_rpc::calls::{self, CallConfig, CallContext};
use fragcast_rpc::eth::upstream::ClientUpstream;
use fragcast_rpc::eth::{self, EthContext, Forwarded, Upstream};
use fragcast_rpc::forward::{ForwardConfig, Forwarder, MakeReceipt};
use fragcast_upstream::http::HttpClient;
use jsonrpsee::Methods;
use tokio::task::JoinHandle;

use super::execution::Executing;
use crate::config::Config;
use super::Shared;

/// The methods that are served, and the task beside them.
pub(super) struct Public {
    pub(super) module: Methods,
    pub(super) eth: Arc<EthContext>,
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) forwarding: JoinHandle<()>,
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
        shared: &Shared,
        executing: &Executing,
    ) -> anyhow::Result<Self> {
        let (spec, view) = (&executing.spec, executing.executor.view());
        let upstream = executing.client.clone().map(|client| {
            let timeout = Duration::from_millis(config.client.timeout_ms);
            let max_response = config.rpc.max_response as usize;
            Arc::new(ClientUpstream::new(client, HttpClient { timeout, max_response }))
        });
        let forward = ForwardConfig {
            gateways: shared.network.gateway_urls.iter().map(|(a, url)| (*a, url.clone())).collect(),
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
            shared.net.watch_epochs(),
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
        let limits = call_config(config);
        let context = Arc::new(CallContext {
            spec: Arc::clone(spec),
            view: Arc::clone(view),
            pool: limits.pool()?,
            config: limits,
            upstream: upstream.map(|u| u as Arc<dyn Upstream>),
            forwarder: Some(Arc::clone(&forwarder)),
            stats: Arc::clone(&eth.stats),
        });
        let mut module = Methods::new();
        module.merge(eth::module(Arc::clone(&eth)))?;
        module.merge(calls::module(context))?;
        let forwarding = tokio::spawn(Arc::clone(&forwarder).run());
        Ok(Self { module, eth, forwarder, forwarding })
    }
}
