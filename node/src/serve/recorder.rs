//! One node's Prometheus metrics: their names, and how they are set.
//!
//! A recorder of its own for each node, not the process's global one: devnet runs many nodes in
//! one process.

use std::time::Duration;

use fragcast_turbine::Timestamp;
use metrics::{Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Histogram buckets in seconds, from a loopback hop to a message that should have been given up.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0];

static METADATA: Metadata<'static> = Metadata::new("fragcast", Level::INFO, None);

/// One node's recorder.
pub struct Recorder {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Default for Recorder {
    fn default() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&BUCKETS)
            .expect("the buckets are not empty")
            .build_recorder();
        let handle = recorder.handle();
        let recorder = Self { recorder, handle };
        recorder.describe();
        recorder
    }
}

fn key(name: &'static str, label: Option<(&'static str, &str)>) -> Key {
    let labels = label.map(|(name, value)| Label::new(name, value.to_owned()));
    Key::from_parts(name, labels.into_iter().collect::<Vec<_>>())
}

impl Recorder {
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
        counter(
            "fragcast_hand_over_total",
            "Own messages whose publication waited for the next leader, by what ended it",
        );
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
        gauge(
            "fragcast_registry_age_seconds",
            "Since a source last confirmed the list of gateways",
        );
        gauge("fragcast_registry_gateways", "Gateways of the newest list");
        gauge("fragcast_registry_sources_differ", "1 while sources have different lists");
        gauge("fragcast_registry_pending_block", "First block of a list that is announced, or 0");
        gauge("fragcast_registry_source_failing", "1 while a source gives no list");
        counter("fragcast_registry_answers_total", "Lists that a source has given");
        counter("fragcast_registry_failures_total", "Tries of a source that came to nothing");
        counter("fragcast_registry_changes_total", "Lists that were announced, by why then");
        counter("fragcast_registry_refused_total", "Lists that the overlay did not take");
        gauge("fragcast_way", "1 for the way this node counts on");
        gauge("fragcast_gossip_connections", "Peers connected over TCP");
        gauge("fragcast_gossip_mesh", "Peers in the mesh, by topic");
        gauge("fragcast_gossip_listeners", "Connected peers that have subscribed to our topics");
        gauge("fragcast_gossip_recent_bytes", "Recent messages kept for those who listen or ask");
        gauge("fragcast_lane_queued_bytes", "Bytes that wait, by lane");
        gauge("fragcast_peers_connected", "Peers connected, guests aside");
        gauge("fragcast_guests", "Guests of this node: connected, served, places");
        gauge("fragcast_guest_attached", "Of a guest: 1 while a member sends it everything");
        gauge("fragcast_guest_late_seconds", "Of a guest: how late messages are by others' tips");
        gauge("fragcast_guest_loss", "Of a guest: the share of its member's shreds that is lost");
        gauge("fragcast_guest_rtt_seconds", "Of a guest: round trip to its member");
        counter("fragcast_guest_rotations_total", "Of a guest: changes to another member");
        gauge("fragcast_members", "Members of the network");
        gauge("fragcast_member_records", "Records of members that are alive");
        gauge("fragcast_block_opened", "Newest block whose Env was handed on");
        gauge("fragcast_block_sealed", "Newest block whose Seal was handed on");
        gauge("fragcast_reassembly_bytes", "Bytes of messages in the making");
        gauge("fragcast_repair_bytes", "Bytes of recent messages kept to answer repair requests");
        gauge("fragcast_sequencer_waiting_bytes", "Bytes of messages that wait for earlier ones");
        gauge("fragcast_subscribers", "Open subscriptions");
        gauge("fragcast_peer_rtt_seconds", "Round-trip time by peer");
        gauge(
            "fragcast_delays",
            "Peers measured; where this node leads: members that reported, pairs known",
        );
        gauge("fragcast_delays_median_seconds", "Median round trip over the known pairs");
        gauge("fragcast_delays_coordinates_error", "Median error of coordinates, as a share");
        gauge("fragcast_engine_last_valid_block", "Newest block sealed in the execution client");
        counter("fragcast_executor_total", "What was executed, by kind: frags, transactions, gas");
        counter("fragcast_executor_ms_total", "Time spent, milliseconds, by step: frags, seals");
        counter("fragcast_verdicts_total", "Blocks by verdict");
        counter("fragcast_not_verified_total", "Rejected and unverified blocks by reason");
        counter("fragcast_retractions_total", "Blocks taken back, by reason");
        counter("fragcast_executor_overrun_total", "Messages the executor had no room for");
        counter("fragcast_executor_evicted_total", "Blocks dropped since too many were open");
        counter("fragcast_executor_held_back_total", "Messages of blocks too far ahead to execute");
        counter("fragcast_store_retries_total", "Tries to write to the database that failed");
        counter("fragcast_log_dropped_total", "Lines of the log that could not be written");
        gauge("fragcast_store_failing", "1 while the database cannot be written");
        gauge("fragcast_peers_differing", "Connected peers that differ from this node, by what");
        counter("fragcast_store_commits_total", "Blocks written to the database");
        counter("fragcast_follow_total", "Following the execution client, by outcome of a round");
        counter("fragcast_rpc_total", "The Ethereum JSON-RPC, by kind");
        counter("fragcast_flashblocks_total", "Flashblocks: written, handed on, and their bytes");
        counter("fragcast_transactions_total", "Transactions to forward, by outcome");
        counter(
            "fragcast_transactions_dropped_total",
            "Forwarded transactions that were not executed, by reason",
        );
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

    /// Sets a counter that is kept elsewhere.
    pub(super) fn counter(
        &self,
        name: &'static str,
        label: Option<(&'static str, &str)>,
        value: u64,
    ) {
        self.recorder.register_counter(&key(name, label), &METADATA).absolute(value);
    }

    /// Sets a gauge.
    pub(super) fn gauge(
        &self,
        name: &'static str,
        label: Option<(&'static str, &str)>,
        value: f64,
    ) {
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

    /// Sets the counter of changes of the way this node counts on.
    pub(super) fn changes(&self, to: &'static str, reason: &'static str, n: u64) {
        let labels = vec![Label::new("to", to), Label::new("reason", reason)];
        let key = Key::from_parts("fragcast_changes_total", labels);
        self.recorder.register_counter(&key, &METADATA).absolute(n);
    }

    /// Folds samples into their histograms; until then each takes memory.
    pub(super) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Everything in Prometheus' text format.
    pub(super) fn text(&self) -> String {
        self.upkeep();
        self.handle.render()
    }
}
