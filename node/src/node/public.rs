//! The Ethereum part of the public JSON-RPC of a node that executes: methods that read, call and
//! send.

use std::sync::Arc;
use std::time::Duration;

use fragcast_rpc::about::About;
use fragcast_rpc::calls::{self, CallContext};
use fragcast_rpc::eth::{self, EthContext, Forwarded};
use fragcast_rpc::forward::{Forwarder, MakeReceipt};
use fragcast_rpc::resolve::View;
use fragcast_rpc::upstream::{ClientUpstream, Upstream};
use fragcast_turbine::EpochsView;
use jsonrpsee::Methods;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::execution::Executing;
use crate::config::Config;
use crate::network::Network;
use crate::serve::state::NodeState;

/// How often it is looked how old the newest frag is, so that the log says so even if nobody asks.
const FRESH_TICK: Duration = Duration::from_millis(500);

/// The methods that are served, and the tasks beside them.
pub(super) struct Public {
    /// The view that `/` shows.
    pub(super) module: Methods,
    /// The preconfirmed view, which `/preconf` shows.
    pub(super) preconf: Methods,
    pub(super) eth: Arc<EthContext>,
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) tasks: [JoinHandle<()>; 2],
    /// Who may know what a rollup node knows: an OP chain's client.
    rollup: Option<Arc<dyn Upstream>>,
}

/// What this node tells of itself by names that others use too.
pub(super) fn about(state: &Arc<NodeState>, public: Option<&Public>) -> About {
    let net = state.net.clone();
    About {
        peers: Box::new(move || net.snapshot().connected as u64),
        forwarded: public
            .map(|public| (Arc::clone(&public.forwarder), Arc::clone(&public.eth.view))),
        rollup: public.and_then(|public| public.rollup.clone()),
        stats: public.map_or_else(Default::default, |public| Arc::clone(&public.eth.stats)),
    }
}

impl Public {
    /// Assembles the methods; starts the task of the forwarder.
    pub(super) fn new(
        config: &Config,
        network: &Network,
        epochs: watch::Receiver<Arc<EpochsView>>,
        executing: &Executing,
    ) -> anyhow::Result<Self> {
        let (spec, view) = (&executing.spec, executing.executor.view());
        let upstream = executing
            .client
            .clone()
            .map(|client| Arc::new(ClientUpstream::new(client, config.passed_on())));
        let receipts = Arc::clone(spec);
        let receipt: MakeReceipt =
            Arc::new(move |block, index| eth::receipt_json(&receipts, block, index));
        let forwarder = Arc::new(Forwarder::new(
            config.forward_settings(network),
            epochs,
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
        let rollup = upstream.clone().map(|u| u as Arc<dyn Upstream>).filter(|_| spec.is_op());
        let limits = config.call_settings();
        let pool = limits.pool()?;
        let preconf = Arc::new(eth.showing(View::Preconfirmed));
        let eth = Arc::new(eth);
        let methods = |eth: &Arc<EthContext>| {
            let context = Arc::new(CallContext {
                spec: Arc::clone(spec),
                blocks: eth.blocks.clone(),
                pool: pool.clone(),
                config: limits.clone(),
                upstream: upstream.clone().map(|u| u as Arc<dyn Upstream>),
                forwarder: Some(Arc::clone(&forwarder)),
                stats: Arc::clone(&eth.stats),
            });
            let mut methods = Methods::new();
            methods.merge(eth::module(Arc::clone(eth)))?;
            methods.merge(calls::module(context))?;
            anyhow::Ok(methods)
        };
        let (module, preconf) = (methods(&eth)?, methods(&preconf)?);
        let watched = Arc::clone(&eth);
        let watching = tokio::spawn(async move {
            let mut tick = tokio::time::interval(FRESH_TICK);
            loop {
                tick.tick().await;
                watched.blocks.pending_age();
            }
        });
        let tasks = [tokio::spawn(Arc::clone(&forwarder).run()), watching];
        Ok(Self { module, preconf, eth, forwarder, rollup, tasks })
    }
}
