//! The TCP ports of a node: what each may take of the process.

use std::sync::Arc;
use std::time::Duration;

use fragcast_port::{Descriptors, Guard, Memory, Port, Service, Settings, Token};
use jsonrpsee::core::server::Methods;
use tokio::runtime::Handle;

use super::runtimes::Runtimes;
use crate::config::Config;
use crate::serve::metrics;
use crate::serve::page::{self, Shows};
use crate::serve::rpc;
use crate::serve::state::{NodeState, PortNumbers};

/// Connections of the port for metrics and health.
const METRICS: usize = 64;
/// Descriptors for files, databases, UDP, requests to the execution client and to gateways.
const FILES: usize = 160;
/// Strangers have at least so many.
const LEAST: usize = 16;

/// Descriptors for the connections of strangers: what the process may have, less what is set aside
/// for the node itself, for gossip and for the operator's ports.
pub(super) fn descriptors(config: &Config) -> Option<Descriptors> {
    let limit = usize::try_from(fragcast_port::raise_limit()?).unwrap_or(usize::MAX);
    // Connections that are being closed have descriptors as well.
    let operators = 2 * (METRICS + ADMIN + INGEST);
    let aside = FILES + operators + config.gossip.max_connections;
    let left = limit.saturating_sub(aside).max(LEAST);
    let mut wanted = config.rpc.max_connections as usize;
    if !config.flashblocks.listen.is_empty() {
        wanted += config.flashblocks.max_subscribers;
    }
    if wanted > left {
        tracing::warn!(
            limit,
            left,
            wanted,
            "the limit of open files leaves fewer connections than rpc.max_connections and \
             flashblocks.max_subscribers: raise it (`ulimit -n`, LimitNOFILE=)"
        );
    }
    Some(Descriptors::new(left))
}

/// The path of the preconfirmed view.
const PRECONF: &str = "/preconf";

/// Connections of the operator's JSON-RPC.
const ADMIN: usize = 16;
/// Connections of the gateway's interface.
const INGEST: usize = 32;

/// Whom the public ports answer.
pub(super) fn guard(config: &Config) -> Arc<Guard> {
    Arc::new(Guard::new(&config.http.vhosts, &config.http.cors, None))
}

/// Whom the operator's ports answer: pages of other sites never read there.
fn operators(config: &Config, token: Option<Token>) -> Arc<Guard> {
    Arc::new(Guard::new(&config.http.vhosts, &[], token))
}

/// What the ports are opened with.
pub(super) struct Opening<'a> {
    pub(super) config: &'a Config,
    pub(super) runtimes: &'a Runtimes,
    pub(super) state: &'a Arc<NodeState>,
    /// The gateway's interface.
    pub(super) ingest: Methods,
    /// The public JSON-RPC.
    pub(super) http: Methods,
    /// What it serves at the path of the preconfirmed view, on a node that executes.
    pub(super) preconf: Option<Methods>,
    /// What its connections hold.
    pub(super) memory: Arc<Memory>,
    pub(super) descriptors: Option<Descriptors>,
}

/// The running ports.
pub(super) struct Ports(Vec<Port>);

impl Opening<'_> {
    /// Opens the four ports that every node has.
    pub(super) fn open(self, sockets: Listeners) -> anyhow::Result<Ports> {
        let Self { config, runtimes, state, ingest, http, preconf, memory, descriptors } = self;
        let here = Handle::current();
        let token = config.admin_token()?;
        let body = config.ingest.max_body_mib.saturating_mul(1024 * 1024);
        let ingest_settings = Settings {
            connections: INGEST,
            per_address: Some(INGEST),
            max_request: body,
            memory: Memory::new((body as usize).saturating_mul(4)),
            ..Settings::small("ingest", operators(config, None))
        };
        let http_settings = Settings {
            pages: config.http.page.then(|| page::pages(Shows::Node, String::new())),
            ..config.rpc.port(memory, guard(config), descriptors)
        };
        let metrics_settings = Settings {
            connections: METRICS,
            per_address: Some(METRICS),
            ..Settings::small("metrics", operators(config, None))
        };
        let admin_settings = Settings {
            connections: ADMIN,
            per_address: Some(ADMIN),
            ..Settings::small("admin", operators(config, token))
        };
        let admin = rpc::admin(Arc::clone(state)).into();
        let page = metrics::page(Arc::clone(state));
        let ports = vec![
            Port::open(sockets.ingest, ingest_settings, Service::Rpc(ingest), &here)?,
            Port::open_with(
                sockets.http,
                http_settings,
                Service::Rpc(http),
                preconf.map(|methods| (PRECONF, methods)),
                runtimes.serving(),
            )?,
            Port::open(sockets.admin, admin_settings, Service::Rpc(admin), &here)?,
            Port::open(sockets.metrics, metrics_settings, Service::Page(page), &here)?,
        ];
        Ok(Ports(ports))
    }
}

/// The listeners of these ports.
pub(super) struct Listeners {
    pub(super) ingest: std::net::TcpListener,
    pub(super) http: std::net::TcpListener,
    pub(super) admin: std::net::TcpListener,
    pub(super) metrics: std::net::TcpListener,
}

impl Ports {
    /// Their numbers, for metrics.
    pub(super) fn numbers(&self) -> Vec<PortNumbers> {
        let numbers =
            |port: &Port| (port.name(), Arc::clone(port.stats()), Arc::clone(port.memory()));
        self.0.iter().map(numbers).collect()
    }

    /// Stops all, within a second.
    pub(super) async fn stop(self) {
        let stopping = self.0.into_iter().map(|port| port.stop(Duration::from_secs(1)));
        futures_util::future::join_all(stopping).await;
    }
}
