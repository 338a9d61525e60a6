//! A node's execution, from its configuration.

use std::sync::Arc;

use anyhow::{Context, bail};
use fragcast_execution::chain::ChainSpec;
use fragcast_execution::exec::StateSource;
use fragcast_execution::executor::{ChainView, Executor, ExecutorConfig, History, ReportTap};
use fragcast_store::Store;
use fragcast_upstream::client::{Client, FollowStats, RpcSource};
use tokio::task::JoinHandle;

use crate::config::{Config, StateFrom};
use crate::network::Network;
use crate::serve::live::Live;

/// Chains whose blocks have withdrawals or ommers, which the messages do not carry.
const WITH_WITHDRAWALS: [(u64, &str); 6] = [
    (1, "Ethereum"),
    (11_155_111, "Sepolia"),
    (17_000, "Holesky"),
    (560_048, "Hoodi"),
    (100, "Gnosis"),
    (10_200, "Chiado"),
];

/// The name of a chain whose blocks cannot be executed from their messages.
pub fn not_executed(spec: &ChainSpec) -> Option<&'static str> {
    let listed = WITH_WITHDRAWALS.iter().find(|(id, _)| *id == spec.chain_id && !spec.is_op());
    listed.map(|(_, name)| *name)
}

/// A node's execution: chain, state source, history.
pub struct Execution {
    /// The chain.
    pub spec: Arc<ChainSpec>,
    /// The source of its state.
    pub source: Arc<dyn StateSource>,
    /// Blocks that are no longer in memory.
    pub history: Option<Arc<dyn History>>,
    /// The database, if there is one.
    pub store: Option<Arc<Store>>,
    /// The execution client that is followed.
    pub client: Option<Client>,
    /// Bounds.
    pub config: ExecutorConfig,
    /// An observer of every verdict.
    pub tap: Option<ReportTap>,
}

impl Execution {
    /// A chain in a database.
    pub fn on_store(spec: Arc<ChainSpec>, store: Arc<Store>) -> Self {
        Self {
            spec,
            source: Arc::clone(&store) as Arc<dyn StateSource>,
            history: Some(Arc::clone(&store) as Arc<dyn History>),
            store: Some(store),
            client: None,
            config: ExecutorConfig::default(),
            tap: None,
        }
    }

    /// A chain on any source, without history beyond the blocks in memory.
    pub fn on_source(spec: Arc<ChainSpec>, source: Arc<dyn StateSource>) -> Self {
        Self {
            spec,
            source,
            history: None,
            store: None,
            client: None,
            config: ExecutorConfig::default(),
            tap: None,
        }
    }

    /// The execution of a configuration; `None`: nothing is executed. To be called within the
    /// runtime.
    ///
    /// # Errors
    /// The problem, and what to do.
    pub fn of_config(config: &Config, network: &Network) -> anyhow::Result<Option<Self>> {
        let Some(spec) = chain(config, network)? else { return Ok(None) };
        let client = client(config, spec.is_op())?;
        let mut execution = if config.execution.source == StateFrom::Client {
            let client = client.clone().context("client.url must be set")?;
            let runtime = tokio::runtime::Handle::current();
            let source = RpcSource::new(client, runtime, config.source_limits());
            Self::on_source(spec, Arc::new(source))
        } else {
            let path = &config.execution.db;
            let store = Store::open(path, &spec, config.store_settings())
                .with_context(|| format!("execution.db {}", path.display()))?;
            Self::on_store(spec, store)
        };
        execution.client = client;
        execution.config = config.executor_settings();
        Ok(Some(execution))
    }
}

/// The running executor, and the task that follows the execution client.
pub(super) struct Executing {
    pub(super) executor: Arc<Executor>,
    pub(super) store: Option<Arc<Store>>,
    pub(super) client: Option<Client>,
    pub(super) follow: Arc<FollowStats>,
    pub(super) follower: Option<JoinHandle<()>>,
    pub(super) spec: Arc<ChainSpec>,
}

impl Executing {
    /// Starts the executor's thread, and the task that follows the client. To be called within the
    /// runtime.
    pub(super) fn start(
        execution: Execution,
        config: &Config,
        live: &Arc<Live>,
    ) -> anyhow::Result<Self> {
        let Execution { spec, source, history, store, client, config: bounds, tap } = execution;
        let (live, mut tap) = (Arc::clone(live), tap);
        let noted: ReportTap = Box::new(move |report| {
            live.verdict(report);
            if let Some(tap) = &mut tap {
                tap(report);
            }
        });
        let queue = config.http.subscriber_queue.max(1) as usize;
        let view = Arc::new(ChainView::new(history, queue));
        let executor =
            Arc::new(Executor::spawn(Arc::clone(&spec), source, view, bounds, Some(noted))?);
        let follow = Arc::new(FollowStats::default());
        let follower = client.clone().map(|client| {
            let settings = config.follow_settings();
            let chain = Arc::clone(&executor) as Arc<dyn fragcast_execution::follow::Chain>;
            let stats = Arc::clone(&follow);
            tokio::spawn(async move {
                match fragcast_upstream::client::follow(client, chain, settings, stats).await {}
            })
        });
        Ok(Self { executor, store, client, follow, follower, spec })
    }
}

/// The configured chain, checked against the network.
///
/// # Errors
/// It cannot be loaded, has another chain id, or cannot be executed from its messages.
pub fn chain(config: &Config, network: &Network) -> anyhow::Result<Option<Arc<ChainSpec>>> {
    if config.execution.chain.is_empty() {
        return Ok(None);
    }
    let spec = fragcast_execution::devnet::load_chain(&config.execution.chain)
        .context("execution.chain")?;
    if spec.chain_id != network.chain_id {
        bail!(
            "execution.chain: its chain id is {}, but the network's is {}: one of the two files \
             is of another chain",
            spec.chain_id,
            network.chain_id
        );
    }
    if let Some(name) = not_executed(&spec) {
        bail!(
            "execution.chain: blocks of {name} have withdrawals, which the messages do not carry, \
             so they cannot be executed; leave execution.chain empty to carry them"
        );
    }
    Ok(Some(Arc::new(spec)))
}

/// The configured execution client.
///
/// # Errors
/// Its address is not usable.
pub fn client(config: &Config, op: bool) -> anyhow::Result<Option<Client>> {
    let client = config.client_settings(op).map(Client::new).transpose();
    client.context("client.url")
}
