//! The server of `/metrics`, `/healthz` and `/readyz`. Counters are kept where they happen and copied
//! into the [recorder](super::recorder) when somebody asks. Whatever is copied must be in the
//! [catalogue].

pub mod catalogue;
mod gateways;
mod host;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use fragcast_port::Page;
use fragcast_turbine::health::State;
use fragcast_turbine::net::Snapshot;
use fragcast_turbine::net::gossip::GossipHandle;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::latency;
use super::state::NodeState;
use catalogue::PEERS;

/// How often filters that nobody polls are looked for.
const UPKEEP: Duration = Duration::from_secs(5);

impl NodeState {
    /// Copies all numbers and writes them in Prometheus' text format.
    pub fn metrics(&self) -> String {
        let metrics = &self.metrics;
        let scrape = metrics.begin();
        let net = self.net.snapshot();
        for (outcome, n) in net.outcomes.iter() {
            metrics.counter("fragcast_datagrams_total", Some(("outcome", outcome.label())), n);
        }
        let c = net.counters;
        for (name, n) in [
            ("fragcast_shreds_forwarded_total", c.forwarded),
            ("fragcast_shreds_owed_total", c.owed),
            ("fragcast_shreds_to_guests_total", c.to_guests),
            ("fragcast_shreds_originated_total", c.originated),
            ("fragcast_shreds_unknown_plan_total", c.unknown_plan),
            ("fragcast_plans_asked_total", c.plans_asked),
            ("fragcast_plans_answered_total", c.plans_answered),
            ("fragcast_plans_made_total", c.plans_made),
            ("fragcast_shreds_stepped_over_total", c.stepped_over),
            ("fragcast_messages_delivered_total", c.delivered),
            ("fragcast_sets_recovered_total", c.recovered),
            ("fragcast_messages_repaired_total", c.repaired),
            ("fragcast_tips_sent_total", c.tips),
            ("fragcast_repair_requests_total", c.repair_requested),
            ("fragcast_repair_useful_shreds_total", c.repair_useful),
            ("fragcast_repair_given_up_messages_total", c.repair_given_up),
            ("fragcast_repair_answered_shreds_total", c.repair_answered_shreds),
            ("fragcast_repair_answered_bytes_total", c.repair_answered_bytes),
            ("fragcast_repair_messages_total", c.repair_messages),
            ("fragcast_repair_answered_messages_total", c.repair_answered_messages),
            ("fragcast_catch_up_requests_total", c.blocks_requested),
            ("fragcast_catch_up_messages_total", c.blocks_messages),
            ("fragcast_catch_up_answered_bytes_total", c.blocks_answered_bytes),
            ("fragcast_messages_handed_again_total", c.handed_again),
            ("fragcast_window_moves_total", c.window_moved),
            ("fragcast_blocks_substituted_total", c.substituted),
            ("fragcast_gossip_new_messages_total", c.gossip),
            ("fragcast_gossip_first_messages_total", c.gossip_first),
            ("fragcast_gossip_handed_messages_total", c.published),
            ("fragcast_gossip_handed_dropped_total", c.publish_dropped),
            ("fragcast_member_records_pulled_total", c.records_pulled),
            ("fragcast_member_records_learnt_total", c.records_learnt),
            ("fragcast_table_parts_asked_total", c.table_parts_asked),
            ("fragcast_table_parts_answered_total", c.table_parts_answered),
        ] {
            metrics.counter(name, None, n);
        }
        for (lane, queued, sent, dropped) in &net.lanes {
            metrics.gauge("fragcast_lane_queued_bytes", Some(("lane", lane)), *queued as f64);
            metrics.counter("fragcast_lane_bytes_total", Some(("lane", lane)), *sent);
            metrics.counter("fragcast_lane_dropped_total", Some(("lane", lane)), *dropped);
        }
        for (reason, n) in &net.drops {
            metrics.counter("fragcast_transport_dropped_total", Some(("reason", reason)), *n);
        }
        for (result, n) in &net.calls {
            metrics.counter("fragcast_calls_total", Some(("result", result)), *n);
        }
        for (answer, n) in self.ingest.iter() {
            metrics.counter("fragcast_ingest_total", Some(("answer", answer)), n);
        }
        for (how, n) in self.published.iter() {
            metrics.counter("fragcast_hand_over_total", Some(("published", how)), n);
        }
        for (peer, rtt) in net.round_trips.iter().take(PEERS) {
            metrics.gauge(
                "fragcast_peer_rtt_seconds",
                Some(("peer", &peer.to_string())),
                rtt.as_secs_f64(),
            );
        }
        let delays = &net.delays;
        metrics.gauge("fragcast_delays_measured_peers", None, delays.measured as f64);
        metrics.gauge("fragcast_delays_reporters", None, delays.reporters as f64);
        metrics.gauge("fragcast_delays_known_pairs", None, delays.pairs as f64);
        if let Some(micros) = delays.median_micros {
            metrics.gauge("fragcast_delays_median_seconds", None, f64::from(micros) / 1e6);
        }
        if let Some(error) = delays.coordinates_error {
            metrics.gauge("fragcast_delays_coordinates_error_ratio", None, error);
        }
        let receipts = &net.receipts;
        for (kind, n) in [("sent", receipts.sent), ("taken", receipts.taken)] {
            metrics.counter("fragcast_receipts_total", Some(("kind", kind)), n);
        }
        if let Some(loss) = receipts.loss {
            metrics.gauge("fragcast_receipts_loss_ratio", None, loss);
        }
        for (kind, n) in [("relay", receipts.excluded.len()), ("head", receipts.no_heads.len())] {
            metrics.gauge("fragcast_relays_excluded", Some(("as", kind)), n as f64);
        }
        for hop in &receipts.hops {
            let hops = Some(("hops", &*hop.hops.to_string()));
            let sum = hop.spread.sum_micros as f64 / 1e6;
            metrics.histogram("fragcast_hop_latency_seconds", hops, &hop.spread.counts, sum);
        }
        for of in &receipts.regions {
            let region = Some(("region", &*of.region.to_string()));
            let sum = of.spread.sum_micros as f64 / 1e6;
            metrics.histogram("fragcast_region_latency_seconds", region, &of.spread.counts, sum);
        }
        metrics.gauge("fragcast_peers_connected", None, net.connected as f64);
        if let Some(wanted) = net.wanted {
            metrics.gauge("fragcast_peers_wanted", None, wanted as f64);
        }
        metrics.gauge("fragcast_guests_connected", None, net.guests as f64);
        metrics.gauge("fragcast_guests_served", None, net.guests_served as f64);
        metrics.gauge("fragcast_guest_places", None, net.guest_places as f64);
        self.guest_metrics(&net);
        let survey = self.survey();
        for kind in ["chain_id", "dialect", "blocks_per_term", "gateways", "clock"] {
            let count = survey.by_kind.get(kind).copied().unwrap_or(0);
            metrics.gauge("fragcast_peers_differing", Some(("in", kind)), count as f64);
        }
        metrics.counter("fragcast_log_dropped_total", None, crate::log::dropped());
        metrics.gauge("fragcast_members", None, net.members as f64);
        metrics.gauge("fragcast_member_records", None, net.members_state.records as f64);
        metrics.gauge("fragcast_reassembly_bytes", None, net.reassembly_bytes as f64);
        metrics.gauge("fragcast_repair_bytes", None, net.repair_bytes as f64);
        metrics.gauge("fragcast_archive_bytes", None, net.archive_bytes as f64);
        let blocks = |range: Option<(u64, u64)>| {
            range.map_or(0, |(first, last)| last.saturating_sub(first).saturating_add(1)) as f64
        };
        let (missing, lost) = (blocks(net.catch_up.missing), blocks(net.catch_up.gap));
        let lost = self.experiments.lost.get().map_or(lost, |lost| lost as f64);
        for (kind, n) in [("missing", missing), ("lost", lost)] {
            metrics.gauge("fragcast_blocks_behind", Some(("kind", kind)), n);
        }
        self.with_progress(|progress| {
            for (fate, n) in progress.fates() {
                metrics.counter("fragcast_sequencer_total", Some(("fate", fate)), n);
            }
            for (kind, n) in progress.events() {
                metrics.counter("fragcast_events_total", Some(("kind", kind)), n);
            }
            metrics.gauge("fragcast_sequencer_waiting_bytes", None, progress.waiting as f64);
            let last = progress.last_message.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let last = last.unwrap_or_default().as_secs_f64();
            metrics.gauge("fragcast_last_message_timestamp_seconds", None, last);
            if let Some(block) = progress.opened {
                metrics.gauge("fragcast_block_opened", None, block as f64);
            }
            if let Some(block) = progress.sealed {
                metrics.gauge("fragcast_block_sealed", None, block as f64);
            }
        });
        let load = |n: &std::sync::atomic::AtomicU64| n.load(std::sync::atomic::Ordering::Relaxed);
        let kind = Some(("kind", "fragcast"));
        metrics.gauge("fragcast_subscribers", kind, load(&self.rpc.subscribers) as f64);
        metrics.counter("fragcast_subscribers_dropped_total", kind, load(&self.rpc.slow));
        let (readers, slow) = self.live.readers();
        let kind = Some(("kind", "live"));
        metrics.gauge("fragcast_subscribers", kind, readers as f64);
        metrics.counter("fragcast_subscribers_dropped_total", kind, slow);
        self.port_metrics();
        if let Some(engine) = &self.engine {
            let s = engine.snapshot();
            for (outcome, n) in [
                ("valid", s.valid),
                ("refused", s.refused),
                ("retried", s.retried),
                ("ambiguous", s.ambiguous),
                ("skipped", s.skipped),
                ("queue_dropped", s.queue_dropped),
            ] {
                metrics.counter("fragcast_engine_total", Some(("outcome", outcome)), n);
            }
            metrics.gauge("fragcast_engine_connected", None, f64::from(u8::from(s.connected)));
            metrics.gauge("fragcast_engine_last_valid_block", None, s.last_valid_block as f64);
        }
        self.delegation_metrics();
        self.registry_metrics();
        self.gossip_metrics();
        self.execution_metrics();
        self.host_metrics();
        scrape.text()
    }

    /// Copies the numbers of a guest.
    fn guest_metrics(&self, net: &Snapshot) {
        let metrics = &self.metrics;
        let believed = self.experiments.attached.get().map(|attached| attached > 0);
        if let Some(has) = believed.or_else(|| Some(net.attached.as_ref()?.granted)) {
            metrics.gauge("fragcast_guest_attached", None, f64::from(u8::from(has)));
        }
        let Some(attached) = &net.attached else { return };
        metrics.gauge("fragcast_guest_late_seconds", None, attached.lateness.as_secs_f64());
        metrics.gauge("fragcast_guest_loss_ratio", None, attached.loss);
        let rtt = attached.round_trip.unwrap_or_default().as_secs_f64();
        metrics.gauge("fragcast_guest_rtt_seconds", None, rtt);
        metrics.counter("fragcast_guest_rotations_total", None, attached.rotations);
    }

    /// Copies the numbers of gossip.
    fn gossip_metrics(&self) {
        let metrics = &self.metrics;
        self.with_progress(|progress| {
            for (way, n) in latency::first(progress) {
                metrics.counter("fragcast_first_total", Some(("way", way)), n);
            }
            for (to, reason, n) in progress.changed() {
                metrics.changes(to, reason, n);
            }
        });
        let fallback = self.net.snapshot().fallback;
        for &state in State::ALL {
            let is = f64::from(u8::from(state == fallback.state));
            metrics.gauge("fragcast_way", Some(("way", state.name())), is);
        }
        metrics.gauge("fragcast_gossip_listeners", None, fallback.listeners as f64);
        metrics.gauge("fragcast_gossip_recent_bytes", None, fallback.recent_bytes as f64);
        let Some(net) = self.gossip.as_ref().map(GossipHandle::snapshot) else { return };
        for (outcome, n) in net.outcomes.iter() {
            metrics.counter(
                "fragcast_gossip_messages_total",
                Some(("outcome", outcome.label())),
                n,
            );
        }
        metrics.gauge("fragcast_gossip_connections", None, net.connections as f64);
        for (topic, n) in ["envs", "fragments", "seals"].into_iter().zip(net.mesh) {
            metrics.gauge("fragcast_gossip_mesh", Some(("topic", topic)), n as f64);
        }
        for (when, n) in [("at_once", net.published), ("later", net.caught_up)] {
            metrics.counter("fragcast_gossip_published_total", Some(("when", when)), n);
        }
        for (name, n) in [
            ("fragcast_gossip_overrun_total", net.overrun),
            ("fragcast_gossip_slow_peers_total", net.slow_peers),
            ("fragcast_gossip_handshakes_failed_total", net.handshakes_failed),
            ("fragcast_gossip_dial_failures_total", net.dial_failures),
        ] {
            metrics.counter(name, None, n);
        }
        for (name, all) in [
            ("fragcast_gossip_not_published_total", &net.not_published),
            ("fragcast_gossip_barred_total", &net.barred),
            ("fragcast_gossip_refused_total", &net.refused),
        ] {
            for (reason, n) in all {
                metrics.counter(name, Some(("reason", reason)), *n);
            }
        }
        for (direction, n) in [("received", net.bytes_received), ("sent", net.bytes_sent)] {
            metrics.counter("fragcast_gossip_bytes_total", Some(("direction", direction)), n);
        }
    }

    /// Copies the numbers of the TCP ports.
    fn port_metrics(&self) {
        let metrics = &self.metrics;
        let load = |n: &std::sync::atomic::AtomicU64| n.load(std::sync::atomic::Ordering::Relaxed);
        for (name, stats, memory) in self.ports.get().into_iter().flatten() {
            let port = Some(("port", *name));
            metrics.gauge("fragcast_port_connections", port, load(&stats.connections) as f64);
            metrics.gauge("fragcast_port_held_bytes", port, memory.used() as f64);
            metrics.gauge("fragcast_port_held_max_bytes", port, memory.highest() as f64);
            metrics.counter("fragcast_port_accepted_total", port, load(&stats.accepted));
            metrics.counter("fragcast_port_accept_failed_total", port, load(&stats.accept_failed));
            for (reason, n) in stats.dropped() {
                let name = match *name {
                    "http" => "fragcast_http_dropped_total",
                    "ingest" => "fragcast_ingest_dropped_total",
                    "admin" => "fragcast_admin_dropped_total",
                    "flashblocks" => "fragcast_flashblocks_dropped_total",
                    _ => "fragcast_metrics_dropped_total",
                };
                metrics.counter(name, Some(("reason", reason)), n);
            }
        }
    }

    /// Copies the numbers of execution.
    fn execution_metrics(&self) {
        let metrics = &self.metrics;
        let load = |n: &std::sync::atomic::AtomicU64| n.load(std::sync::atomic::Ordering::Relaxed);
        if let Some(executor) = &self.executor {
            let s = executor.stats().snapshot();
            for (name, n) in [
                ("fragcast_executed_frags_total", s.frags),
                ("fragcast_executed_transactions_total", s.txs),
                ("fragcast_executed_gas_total", s.gas),
                ("fragcast_executor_imported_blocks_total", s.imported),
            ] {
                metrics.counter(name, None, n);
            }
            for (step, ns) in [("frags", s.exec_ns), ("seals", s.seal_ns)] {
                let busy = Duration::from_nanos(ns);
                metrics.seconds("fragcast_executor_busy_seconds_total", Some(("step", step)), busy);
            }
            // From the first scrape on, so that the first rejected block is an increase.
            for verdict in ["verified", "rejected", "unverified"] {
                let n = s.verdicts.get(verdict).copied().unwrap_or(0);
                metrics.counter("fragcast_verdicts_total", Some(("verdict", verdict)), n);
            }
            for (name, label, all) in [
                ("fragcast_not_verified_total", "reason", &s.reasons),
                ("fragcast_retractions_total", "reason", &s.retractions),
            ] {
                for (value, n) in all {
                    metrics.counter(name, Some((label, value)), *n);
                }
            }
            let now = super::forks::now() as f64;
            for (time, fork) in executor.spec().lacking() {
                let fork = Some(("fork", &**fork));
                metrics.gauge("fragcast_fork_lacking_seconds", fork, *time as f64 - now);
            }
            metrics.counter("fragcast_executor_overrun_total", None, s.overrun);
            metrics.counter("fragcast_executor_evicted_total", None, s.evicted);
            metrics.counter("fragcast_executor_held_back_total", None, s.held_back);
            metrics.gauge("fragcast_executor_queued", None, executor.queued() as f64);
            metrics.gauge("fragcast_executor_open_blocks", None, s.open as f64);
            for (name, block) in
                [("fragcast_block_verified", s.verified), ("fragcast_block_durable", s.durable)]
            {
                if let Some(block) = block {
                    metrics.gauge(name, None, block as f64);
                }
            }
        }
        if let Some(store) = &self.store {
            let s = store.stats();
            metrics.counter("fragcast_store_commits_total", None, s.commits);
            metrics.counter("fragcast_store_retries_total", None, s.retries);
            let failing = f64::from(u8::from(s.failed || s.troubled));
            metrics.gauge("fragcast_store_failing", None, failing);
            metrics.gauge("fragcast_store_queued", None, s.queued as f64);
            metrics.gauge("fragcast_store_bytes", None, s.file_bytes as f64);
            metrics.gauge("fragcast_store_commit_seconds", None, s.last_commit.as_secs_f64());
        }
        if let Some(follow) = &self.follow {
            for (outcome, n) in [
                ("unavailable", &follow.unavailable),
                ("refused", &follow.refused),
                ("corrupt", &follow.corrupt),
                ("moved", &follow.moved),
                ("out_of_reach", &follow.out_of_reach),
                ("not_taken", &follow.not_taken),
                ("reorgs", &follow.reorgs),
            ] {
                metrics.counter("fragcast_follow_total", Some(("outcome", outcome)), load(n));
            }
            metrics.counter("fragcast_follow_rounds_total", None, load(&follow.rounds));
            metrics.counter("fragcast_follow_blocks_total", None, load(&follow.blocks));
            metrics.gauge("fragcast_client_head", None, load(&follow.head) as f64);
        }
        if let Some(forwarder) = self.forwarder.get() {
            metrics.gauge("fragcast_transactions_on_their_way", None, forwarder.len() as f64);
            let stats = forwarder.stats();
            for (outcome, n) in [
                ("sent", &stats.sent),
                ("refused", &stats.refused),
                ("not_taken", &stats.not_taken),
            ] {
                metrics.counter("fragcast_transactions_total", Some(("outcome", outcome)), load(n));
            }
            for (reason, n) in stats.dropped() {
                metrics.counter("fragcast_transactions_dropped_total", Some(("reason", reason)), n);
            }
        }
        if let Some(stats) = self.flashblocks.get() {
            let kind = Some(("kind", "flashblocks"));
            metrics.gauge("fragcast_subscribers", kind, load(&stats.subscribers) as f64);
            for (name, n) in [
                ("fragcast_flashblocks_published_total", &stats.published),
                ("fragcast_flashblocks_resumed_total", &stats.resumed),
                ("fragcast_flashblocks_sent_total", &stats.sent),
                ("fragcast_flashblocks_sent_bytes_total", &stats.sent_bytes),
            ] {
                metrics.counter(name, None, load(n));
            }
        }
        if let Some(eth) = self.eth.get() {
            let kind = Some(("kind", "eth"));
            metrics.gauge("fragcast_subscribers", kind, load(&eth.stats.subscribers) as f64);
            metrics.counter("fragcast_subscribers_dropped_total", kind, load(&eth.stats.slow));
            let pending = eth.blocks.pending_age();
            let age = pending.map_or(0.0, |(age, _)| age.as_secs_f64());
            metrics.gauge("fragcast_pending_age_seconds", None, age);
            let stale = f64::from(u8::from(pending.is_some_and(|(_, stale)| stale)));
            metrics.gauge("fragcast_pending_stale", None, stale);
            let fallbacks = eth.blocks.freshness().fallbacks();
            metrics.counter("fragcast_pending_fallbacks_total", None, fallbacks);
            metrics.gauge("fragcast_rpc_filters", None, load(&eth.stats.filters) as f64);
            for (kind, n) in eth.stats.all() {
                metrics.counter("fragcast_rpc_total", Some(("kind", kind)), n);
            }
        }
    }
}

/// The pages, for a port.
pub fn page(state: Arc<NodeState>) -> Page {
    Arc::new(move |request| answer(&state, request))
}

/// Forgets filters that nobody polls, until the task is aborted.
pub async fn upkeep(state: Arc<NodeState>) {
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        upkeep.tick().await;
        if let Some(eth) = state.eth.get() {
            eth.tick();
        }
    }
}

fn answer(state: &NodeState, request: &Parts) -> Response<Vec<u8>> {
    let text = |status, body: String| {
        let mut response = Response::new(body.into_bytes());
        *response.status_mut() = status;
        response
    };
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
    }
    match request.uri.path() {
        "/metrics" => {
            let mut response = text(StatusCode::OK, state.metrics());
            let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        "/healthz" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => match state.not_ready() {
            // Both are said to whoever asks why.
            Some(reason) => {
                let stale = state.stale_pending().map_or_else(String::new, |note| note + "\n");
                text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n{stale}"))
            }
            None => {
                let registry =
                    state.registry.as_ref().and_then(|registry| registry.describe(Instant::now()));
                let delegation = state.delegation.as_ref().and_then(|d| d.describe());
                let notes = state.survey().describe().into_iter().chain(registry).chain(delegation);
                let notes = notes.chain(state.stale_pending());
                let note: String = notes.map(|text| text + "\n").collect();
                text(StatusCode::OK, format!("ready, {}\n{note}", state.way()))
            }
        },
        _ => text(StatusCode::NOT_FOUND, "try /metrics, /healthz or /readyz\n".into()),
    }
}
