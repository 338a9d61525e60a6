//! Prometheus metrics, and the server of `/metrics`, `/healthz` and `/readyz`.
//!
//! Each node has a recorder of its own, not the process's global one, because devnet runs many
//! nodes in one process. Counters are kept where they are counted and copied here when somebody
//! asks.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use fragcast_turbine::Timestamp;
use fragcast_turbine::health::State;

use crate::gossip::GossipHandle;
use crate::node::Shared;

/// Histogram buckets in seconds, from a loopback hop to a message that should have been given up.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0];

/// Connections that are served at a time; others wait.
const CONNECTIONS: usize = 32;

/// How often samples are folded into their histograms; until then each takes memory.
const UPKEEP: Duration = Duration::from_secs(5);

static METADATA: Metadata<'static> = Metadata::new("fragcast", Level::INFO, None);

/// One node's recorder.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Default for Metrics {
    fn default() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&BUCKETS)
            .expect("the buckets are not empty")
            .build_recorder();
        let handle = recorder.handle();
        let metrics = Self { recorder, handle };
        metrics.describe();
        metrics
    }
}

fn key(name: &'static str, label: Option<(&'static str, &str)>) -> Key {
    let labels = label.map(|(name, value)| Label::new(name, value.to_owned()));
    Key::from_parts(name, labels.into_iter().collect::<Vec<_>>())
}

impl Metrics {
    fn describe(&self) {
        let counter = |name: &'static str, text: &'static str| {
            self.recorder.describe_counter(name.into(), None, text.into());
        };
        let gauge = |name: &'static str, text: &'static str| {
            self.recorder.describe_gauge(name.into(), None, text.into());
        };
        counter("fragcast_datagrams_total", "Datagrams and control frames by what became of them");
        counter("fragcast_protocol_total", "What the protocol did, by kind");
        counter("fragcast_lane_bytes_total", "Bytes that left, framing included, by lane");
        counter("fragcast_lane_dropped_total", "Transmits dropped by a full lane");
        counter("fragcast_transport_dropped_total", "What the transport dropped, by reason");
        counter("fragcast_calls_total", "Incoming connection attempts by what became of them");
        counter("fragcast_ingest_total", "Messages of the gateway by answer");
        counter("fragcast_sequencer_total", "Verified messages by what became of them");
        counter("fragcast_events_total", "Noteworthy events by kind");
        counter("fragcast_engine_total", "Forwarding to the execution client by outcome");
        counter("fragcast_subscribers_dropped_total", "Subscribers dropped for being slow");
        counter("fragcast_first_total", "Messages by the way that was first");
        counter("fragcast_changes_total", "Changes of the way this node counts on, by reason");
        counter("fragcast_gossip_messages_total", "Gossip messages by what became of them");
        counter("fragcast_gossip_total", "What gossip's driver did, by kind");
        counter("fragcast_gossip_not_published_total", "Messages not published, by reason");
        counter("fragcast_gossip_barred_total", "Peers that were barred, by reason");
        counter("fragcast_gossip_refused_total", "Connections that were refused, by reason");
        counter("fragcast_gossip_bytes_total", "Bytes over TCP, by direction");
        gauge("fragcast_way", "1 for the way this node counts on");
        gauge("fragcast_gossip_connections", "Peers connected over TCP");
        gauge("fragcast_gossip_mesh", "Peers in the mesh, by topic");
        gauge("fragcast_gossip_listeners", "Connected peers that have subscribed to our topics");
        gauge("fragcast_gossip_recent_bytes", "Recent messages kept for those who listen or ask");
        gauge("fragcast_lane_queued_bytes", "Bytes that wait, by lane");
        gauge("fragcast_peers_connected", "Peers connected");
        gauge("fragcast_members", "Members of the network");
        gauge("fragcast_block_opened", "Newest block whose Env was handed on");
        gauge("fragcast_block_sealed", "Newest block whose Seal was handed on");
        gauge("fragcast_reassembly_bytes", "Bytes of messages in the making");
        gauge("fragcast_repair_bytes", "Bytes of recent messages kept to answer repair requests");
        gauge("fragcast_sequencer_waiting_bytes", "Bytes of messages that wait for earlier ones");
        gauge("fragcast_subscribers", "Open subscriptions");
        gauge("fragcast_peer_rtt_seconds", "Round-trip time by peer");
        gauge("fragcast_engine_last_valid_block", "Newest block sealed in the execution client");
        counter("fragcast_executor_total", "What was executed, by kind: frags, transactions, gas");
        counter("fragcast_executor_ms_total", "Time spent, milliseconds, by step: frags, seals");
        counter("fragcast_verdicts_total", "Blocks by verdict");
        counter("fragcast_not_verified_total", "Rejected and unverified blocks by reason");
        counter("fragcast_retractions_total", "Blocks taken back, by reason");
        counter("fragcast_executor_overrun_total", "Messages the executor had no room for");
        counter("fragcast_store_commits_total", "Blocks written to the database");
        counter("fragcast_follow_total", "Following the execution client, by outcome of a round");
        counter("fragcast_rpc_total", "The Ethereum JSON-RPC, by kind");
        counter("fragcast_flashblocks_total", "Flashblocks: written, handed on, and their bytes");
        counter(
            "fragcast_flashblocks_dropped_total",
            "Subscribers of flashblocks dropped, or not let in, by reason",
        );
        gauge("fragcast_executor_queued", "Messages that wait for the executor");
        gauge("fragcast_executor_open_blocks", "Blocks in execution or waiting");
        gauge("fragcast_block_verified", "Newest verified block");
        gauge("fragcast_block_durable", "Newest block that survives a crash");
        gauge("fragcast_store_queued", "Verified blocks that wait to be written");
        gauge("fragcast_store_bytes", "Length of the database");
        gauge("fragcast_store_commit_seconds", "What the last block took to write");
        gauge("fragcast_rpc_filters", "Filters that are polled");
        gauge("fragcast_transactions_on_their_way", "Forwarded and not executed yet");
        gauge("fragcast_client_head", "The execution client's head");
        self.recorder.describe_histogram(
            "fragcast_message_latency_seconds".into(),
            None,
            "From the leader's sending to verified, by the two nodes' clocks".into(),
        );
        self.recorder.describe_histogram(
            "fragcast_lead_seconds".into(),
            None,
            "How much earlier the first way was, of messages that came both ways".into(),
        );
    }

    fn counter(&self, name: &'static str, label: Option<(&'static str, &str)>, value: u64) {
        self.recorder.register_counter(&key(name, label), &METADATA).absolute(value);
    }

    fn gauge(&self, name: &'static str, label: Option<(&'static str, &str)>, value: f64) {
        self.recorder.register_gauge(&key(name, label), &METADATA).set(value);
    }

    /// Records a message's latency.
    pub fn latency(&self, kind: &'static str, took: Duration) {
        self.recorder
            .register_histogram(
                &key("fragcast_message_latency_seconds", Some(("kind", kind))),
                &METADATA,
            )
            .record(took.as_secs_f64());
    }

    /// Records a message that came both ways: a positive lead is the overlay's.
    pub fn race(&self, kind: &'static str, turbine_at: Timestamp, gossip_at: Timestamp) {
        let lead = |later: Timestamp, earlier: Timestamp| later.since(earlier).as_secs_f64();
        let (first, lead) = if turbine_at <= gossip_at {
            ("turbine", lead(gossip_at, turbine_at))
        } else {
            ("gossip", lead(turbine_at, gossip_at))
        };
        let labels = vec![Label::new("first", first), Label::new("kind", kind)];
        self.recorder
            .register_histogram(&Key::from_parts("fragcast_lead_seconds", labels), &METADATA)
            .record(lead);
    }

    /// Copies all numbers and writes them in Prometheus' text format.
    pub fn render(&self, shared: &Shared) -> String {
        let net = shared.net.snapshot();
        for (outcome, n) in net.outcomes.iter() {
            self.counter("fragcast_datagrams_total", Some(("outcome", outcome.label())), n);
        }
        let c = net.counters;
        for (kind, n) in [
            ("forwarded", c.forwarded),
            ("owed", c.owed),
            ("originated", c.originated),
            ("unknown_plan", c.unknown_plan),
            ("stepped_over", c.stepped_over),
            ("delivered", c.delivered),
            ("recovered", c.recovered),
            ("repaired", c.repaired),
            ("tips", c.tips),
            ("repair_requested", c.repair_requested),
            ("repair_useful", c.repair_useful),
            ("repair_given_up", c.repair_given_up),
            ("repair_answered_shreds", c.repair_answered_shreds),
            ("repair_answered_bytes", c.repair_answered_bytes),
            ("repair_messages", c.repair_messages),
            ("repair_answered_messages", c.repair_answered_messages),
            ("gossip", c.gossip),
            ("gossip_first", c.gossip_first),
            ("published", c.published),
            ("publish_dropped", c.publish_dropped),
        ] {
            self.counter("fragcast_protocol_total", Some(("kind", kind)), n);
        }
        for (lane, queued, sent, dropped) in &net.lanes {
            self.gauge("fragcast_lane_queued_bytes", Some(("lane", lane)), *queued as f64);
            self.counter("fragcast_lane_bytes_total", Some(("lane", lane)), *sent);
            self.counter("fragcast_lane_dropped_total", Some(("lane", lane)), *dropped);
        }
        for (reason, n) in &net.drops {
            self.counter("fragcast_transport_dropped_total", Some(("reason", reason)), *n);
        }
        for (result, n) in &net.calls {
            self.counter("fragcast_calls_total", Some(("result", result)), *n);
        }
        for (answer, n) in shared.ingest.iter() {
            self.counter("fragcast_ingest_total", Some(("answer", answer)), n);
        }
        for (peer, rtt) in &net.round_trips {
            self.gauge(
                "fragcast_peer_rtt_seconds",
                Some(("peer", &peer.to_string())),
                rtt.as_secs_f64(),
            );
        }
        self.gauge("fragcast_peers_connected", None, net.connected as f64);
        self.gauge("fragcast_members", None, net.members as f64);
        self.gauge("fragcast_reassembly_bytes", None, net.reassembly_bytes as f64);
        self.gauge("fragcast_repair_bytes", None, net.repair_bytes as f64);
        shared.with_progress(|progress| {
            for (fate, n) in progress.fates() {
                self.counter("fragcast_sequencer_total", Some(("fate", fate)), n);
            }
            for (kind, n) in progress.events() {
                self.counter("fragcast_events_total", Some(("kind", kind)), n);
            }
            self.gauge("fragcast_sequencer_waiting_bytes", None, progress.waiting as f64);
            if let Some(block) = progress.opened {
                self.gauge("fragcast_block_opened", None, block as f64);
            }
            if let Some(block) = progress.sealed {
                self.gauge("fragcast_block_sealed", None, block as f64);
            }
        });
        let load = |n: &std::sync::atomic::AtomicU64| n.load(std::sync::atomic::Ordering::Relaxed);
        let kind = Some(("kind", "fragcast"));
        self.gauge("fragcast_subscribers", kind, load(&shared.rpc.subscribers) as f64);
        self.counter("fragcast_subscribers_dropped_total", kind, load(&shared.rpc.slow));
        if let Some(engine) = &shared.engine {
            let s = engine.snapshot();
            for (outcome, n) in [
                ("sent", s.sent),
                ("valid", s.valid),
                ("refused", s.refused),
                ("retried", s.retried),
                ("ambiguous", s.ambiguous),
                ("skipped", s.skipped),
                ("queue_dropped", s.queue_dropped),
            ] {
                self.counter("fragcast_engine_total", Some(("outcome", outcome)), n);
            }
            self.gauge("fragcast_engine_last_valid_block", None, s.last_valid_block as f64);
        }
        self.gossip(shared);
        self.execution(shared);
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// Copies the numbers of gossip.
    fn gossip(&self, shared: &Shared) {
        shared.with_progress(|progress| {
            for (way, n) in progress.first() {
                self.counter("fragcast_first_total", Some(("way", way)), n);
            }
            for (to, reason, n) in progress.changed() {
                let labels = vec![Label::new("to", to), Label::new("reason", reason)];
                let key = Key::from_parts("fragcast_changes_total", labels);
                self.recorder.register_counter(&key, &METADATA).absolute(n);
            }
        });
        let fallback = shared.net.snapshot().fallback;
        for &state in State::ALL {
            let is = f64::from(u8::from(state == fallback.state));
            self.gauge("fragcast_way", Some(("way", state.name())), is);
        }
        self.gauge("fragcast_gossip_listeners", None, fallback.listeners as f64);
        self.gauge("fragcast_gossip_recent_bytes", None, fallback.recent_bytes as f64);
        let Some(net) = shared.gossip.as_ref().map(GossipHandle::snapshot) else { return };
        for (outcome, n) in net.outcomes.iter() {
            self.counter("fragcast_gossip_messages_total", Some(("outcome", outcome.label())), n);
        }
        self.gauge("fragcast_gossip_connections", None, net.connections as f64);
        for (topic, n) in ["envs", "fragments", "seals"].into_iter().zip(net.mesh) {
            self.gauge("fragcast_gossip_mesh", Some(("topic", topic)), n as f64);
        }
        let kinds = [
            ("published", net.published),
            ("caught_up", net.caught_up),
            ("overrun", net.overrun),
            ("slow_peers", net.slow_peers),
            ("handshakes_failed", net.handshakes_failed),
            ("dial_failures", net.dial_failures),
        ];
        for (kind, n) in kinds {
            self.counter("fragcast_gossip_total", Some(("kind", kind)), n);
        }
        for (name, all) in [
            ("fragcast_gossip_not_published_total", &net.not_published),
            ("fragcast_gossip_barred_total", &net.barred),
            ("fragcast_gossip_refused_total", &net.refused),
        ] {
            for (reason, n) in all {
                self.counter(name, Some(("reason", reason)), *n);
            }
        }
        for (direction, n) in [("received", net.bytes_received), ("sent", net.bytes_sent)] {
            self.counter("fragcast_gossip_bytes_total", Some(("direction", direction)), n);
        }
    }

    /// Copies the numbers of execution.
    fn execution(&self, shared: &Shared) {
        let load = |n: &std::sync::atomic::AtomicU64| n.load(std::sync::atomic::Ordering::Relaxed);
        if let Some(executor) = &shared.executor {
            let s = executor.stats().snapshot();
            let kinds =
                [("frags", s.frags), ("txs", s.txs), ("gas", s.gas), ("imported", s.imported)];
            for (kind, n) in kinds {
                self.counter("fragcast_executor_total", Some(("kind", kind)), n);
            }
            for (step, ns) in [("frags", s.exec_ns), ("seals", s.seal_ns)] {
                let ms = ns / 1_000_000;
                self.counter("fragcast_executor_ms_total", Some(("step", step)), ms);
            }
            for (name, label, all) in [
                ("fragcast_verdicts_total", "verdict", &s.verdicts),
                ("fragcast_not_verified_total", "reason", &s.reasons),
                ("fragcast_retractions_total", "reason", &s.retractions),
            ] {
                for (value, n) in all {
                    self.counter(name, Some((label, value)), *n);
                }
            }
            self.counter("fragcast_executor_overrun_total", None, s.overrun);
            self.gauge("fragcast_executor_queued", None, executor.queued() as f64);
            self.gauge("fragcast_executor_open_blocks", None, s.open as f64);
            for (name, block) in
                [("fragcast_block_verified", s.verified), ("fragcast_block_durable", s.durable)]
            {
                if let Some(block) = block {
                    self.gauge(name, None, block as f64);
                }
            }
        }
        if let Some(store) = &shared.store {
            let s = store.stats();
            self.counter("fragcast_store_commits_total", None, s.commits);
            self.gauge("fragcast_store_queued", None, s.queued as f64);
            self.gauge("fragcast_store_bytes", None, s.file_bytes as f64);
            self.gauge("fragcast_store_commit_seconds", None, s.last_commit.as_secs_f64());
        }
        if let Some(follow) = &shared.follow {
            for (outcome, n) in [
                ("rounds", &follow.rounds),
                ("unavailable", &follow.unavailable),
                ("refused", &follow.refused),
                ("corrupt", &follow.corrupt),
                ("moved", &follow.moved),
                ("out_of_reach", &follow.out_of_reach),
                ("not_taken", &follow.not_taken),
                ("reorgs", &follow.reorgs),
                ("blocks", &follow.blocks),
            ] {
                self.counter("fragcast_follow_total", Some(("outcome", outcome)), load(n));
            }
            self.gauge("fragcast_client_head", None, load(&follow.head) as f64);
        }
        if let Some(forwarder) = shared.forwarder.get() {
            self.gauge("fragcast_transactions_on_their_way", None, forwarder.len() as f64);
        }
        if let Some(stats) = shared.flashblocks.get() {
            let kind = Some(("kind", "flashblocks"));
            self.gauge("fragcast_subscribers", kind, load(&stats.subscribers) as f64);
            for (kind, n) in [
                ("published", &stats.published),
                ("sent", &stats.sent),
                ("sent_bytes", &stats.sent_bytes),
            ] {
                self.counter("fragcast_flashblocks_total", Some(("kind", kind)), load(n));
            }
            for (reason, n) in stats.dropped() {
                let reason = Some(("reason", reason));
                self.counter("fragcast_flashblocks_dropped_total", reason, n);
            }
        }
        if let Some(eth) = shared.eth.get() {
            let kind = Some(("kind", "eth"));
            self.gauge("fragcast_subscribers", kind, load(&eth.stats.subscribers) as f64);
            self.counter("fragcast_subscribers_dropped_total", kind, load(&eth.stats.slow));
            self.gauge("fragcast_rpc_filters", None, load(&eth.stats.filters) as f64);
            for (kind, n) in eth.stats.all() {
                self.counter("fragcast_rpc_total", Some(("kind", kind)), n);
            }
        }
    }
}

/// Serves until the task is aborted.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut upkeep = tokio::time::interval(UPKEEP);
    // Connections end with this task.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accept = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            accepted = accept => accepted,
            Some(_) = connections.join_next() => continue,
            _ = upkeep.tick() => {
                shared.metrics.handle.run_upkeep();
                if let Some(eth) = shared.eth.get() {
                    eth.tick();
                }
                continue;
            }
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: let some be given back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&shared, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .serve_connection(TokioIo::new(stream), service);
            // A client that neither asks nor leaves does not keep its slot.
            let _ = tokio::time::timeout(Duration::from_secs(60), served).await;
            drop(slot);
        });
    }
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let text = |status, body: String| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
    }
    match request.uri().path() {
        "/metrics" => {
            let mut response = text(StatusCode::OK, shared.metrics.render(shared));
            let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        "/healthz" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => match shared.not_ready() {
            None => text(StatusCode::OK, format!("ready, {}\n", shared.way())),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "try /metrics, /healthz or /readyz\n".into()),
    }
}
