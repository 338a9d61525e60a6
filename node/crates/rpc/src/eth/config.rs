//! Limits and options of the Ethereum JSON-RPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fragcast_port::{Descriptors, Guard, Memory, Settings, WebSocket};
use jsonrpsee::core::traits::IdProvider;
use jsonrpsee::types::SubscriptionId;
use serde::{Deserialize, Serialize};

/// `debug_*` stands for these.
const DEBUG: &[&str] = &["debug_storageRangeAt", "debug_traceBlock", "debug_traceCallMany"];

/// `trace_*` stands for these.
const TRACE: &[&str] = &[
    "trace_callMany",
    "trace_filter",
    "trace_get",
    "trace_rawTransaction",
    "trace_replayBlockTransactions",
    "trace_replayTransaction",
];

/// How often a WebSocket is pinged.
const PING: Duration = Duration::from_secs(30);
/// How long a connection may wait between two requests.
const IDLE: Duration = Duration::from_secs(60);

/// Limits and options. Memory: all connections together hold `max_unsent_total` bytes of requests
/// and answers, and what was begun before that was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EthConfig {
    /// The path `/` shows the preconfirmed view, as `/preconf` does: for methods that read state,
    /// `latest` is the newest executed frag.
    pub preconf_as_latest: bool,
    /// `pending` reads as `latest` when its newest frag is older than this, in milliseconds; 0: never.
    pub pending_max_age_ms: u64,
    /// Without an execution client: how many blocks `safe` is behind `latest`. Not set: it is not
    /// known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safe_behind: Option<u64>,
    /// The same for `finalized`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finalized_behind: Option<u64>,
    /// Methods that are passed to the execution client as they are; `debug_*` and `trace_*`
    /// stand for the usual ones.
    pub proxied: Vec<String>,
    /// Calls in a batch.
    pub max_batch: u32,
    /// Bytes of a request.
    pub max_request: u32,
    /// Bytes of an answer. A batch is not carried on with when its answers are longer.
    pub max_response: u32,
    /// Connections at a time.
    pub max_connections: u32,
    /// Connections from one IP address, or from one /64 of IPv6; 0: an eighth of all, and loopback,
    /// from where a proxy on this machine asks for everybody, is not counted.
    pub max_connections_per_address: u32,
    /// Requests of a WebSocket connection that are answered at a time.
    pub max_concurrent: u32,
    /// Bytes of answers and notifications that wait for a WebSocket connection to take them. Beyond,
    /// nothing more is read from it.
    pub max_unsent: u32,
    /// The same in messages.
    pub message_buffer: u32,
    /// Bytes that all connections together may hold: requests that are not answered, answers that
    /// are not sent. Beyond, those are closed that have kept the node waiting for longest.
    pub max_unsent_total: u64,
    /// Subscriptions of a connection.
    pub max_subscriptions_per_connection: u32,
    /// Subscriptions in all.
    pub max_subscriptions: u32,
    /// A connection that takes nothing of what it is sent for this long, in milliseconds, or does not
    /// send the rest of a request, is closed.
    pub slow_subscriber_ms: u64,
    /// The most calls at a time that go through many blocks; each has a thread of its own and holds
    /// at most `max_response` bytes of logs.
    pub max_heavy_calls: usize,
    /// Blocks that `eth_getLogs` goes through.
    pub max_log_blocks: u64,
    /// Logs that `eth_getLogs` gives of more than one block.
    pub max_logs: usize,
    /// How long `eth_getLogs` goes through blocks, in milliseconds; one it always reads.
    pub max_log_time_ms: u64,
    /// Addresses in a filter of logs, and topics at each of its positions; about 50 bytes each.
    /// Filters together have at most `max_filters` times as many, and subscriptions
    /// `max_subscriptions` times as many.
    pub max_filter_values: usize,
    /// Filters that are polled, in all: at most 50 MB with `max_filter_values` of 1,000.
    pub max_filters: usize,
    /// A filter that is not polled for this long, in seconds, is dropped.
    pub filter_timeout_s: u64,
    /// Blocks that `eth_feeHistory` goes through.
    pub max_fee_history: u64,
}

/// Ids of subscriptions as geth writes them: in hexadecimal. Half random, half counted, so that
/// they differ even if the operating system's randomness fails.
#[derive(Debug, Default)]
pub struct HexIds(AtomicU64);

impl IdProvider for HexIds {
    fn next_id(&self) -> SubscriptionId<'static> {
        let mut random = [0; 8];
        let _ = getrandom::fill(&mut random);
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        let id = u128::from(u64::from_be_bytes(random)) << 64 | u128::from(count);
        SubscriptionId::Str(format!("{id:#x}").into())
    }
}

impl Default for EthConfig {
    fn default() -> Self {
        Self {
            preconf_as_latest: false,
            pending_max_age_ms: 3_000,
            safe_behind: None,
            finalized_behind: None,
            proxied: Vec::new(),
            max_batch: 1_000,
            max_request: 5 * 1024 * 1024,
            max_response: 64 * 1024 * 1024,
            max_connections: 500,
            max_connections_per_address: 0,
            max_concurrent: 16,
            max_unsent: 1024 * 1024,
            message_buffer: 256,
            max_unsent_total: 128 * 1024 * 1024,
            max_subscriptions_per_connection: 64,
            max_subscriptions: 4_096,
            slow_subscriber_ms: 5_000,
            max_heavy_calls: 16,
            max_log_blocks: 100_000,
            max_logs: 10_000,
            max_log_time_ms: 10_000,
            max_filter_values: 1_000,
            max_filters: 1_024,
            filter_timeout_s: 300,
            max_fee_history: 1_024,
        }
    }
}

impl EthConfig {
    /// What the connections may hold together.
    pub fn memory(&self) -> Arc<Memory> {
        Memory::new(usize::try_from(self.max_unsent_total).unwrap_or(usize::MAX))
    }

    /// The settings of the port.
    pub fn port(
        &self,
        memory: Arc<Memory>,
        guard: Arc<Guard>,
        descriptors: Option<Descriptors>,
    ) -> Settings {
        let per_address = self.max_connections_per_address as usize;
        Settings {
            name: "http",
            connections: self.max_connections as usize,
            per_address: (per_address > 0).then_some(per_address),
            max_request: self.max_request,
            max_response: self.max_response,
            max_batch: Some(self.max_batch),
            websocket: Some(WebSocket {
                subscriptions: self.max_subscriptions_per_connection,
                ids: Arc::new(HexIds::default()),
                ping: PING,
            }),
            concurrent: self.max_concurrent as usize,
            unsent: self.max_unsent as usize,
            messages: self.message_buffer as usize,
            slow_after: self.slow_after(),
            idle: IDLE,
            memory,
            guard,
            descriptors,
            pages: None,
        }
    }

    /// `proxied` with the groups written out.
    pub(super) fn proxied_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for name in &self.proxied {
            let group: &[&str] = match name.as_str() {
                "debug_*" => DEBUG,
                "trace_*" => TRACE,
                one => &[one],
            };
            names.extend(group.iter().map(|&name| name.to_owned()));
        }
        names
    }

    /// How long one waits for a connection that takes nothing.
    pub const fn slow_after(&self) -> Duration {
        Duration::from_millis(self.slow_subscriber_ms)
    }

    /// How old `pending` may be; zero: however old.
    pub const fn pending_max_age(&self) -> Duration {
        Duration::from_millis(self.pending_max_age_ms)
    }

    /// How long a query of logs goes through blocks.
    pub const fn log_time(&self) -> Duration {
        Duration::from_millis(self.max_log_time_ms)
    }

    pub(super) const fn filter_timeout(&self) -> Duration {
        Duration::from_secs(self.filter_timeout_s)
    }
}
