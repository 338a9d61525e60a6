//! Metrics of the node itself, of its ports, and of those whom it serves.

use fragcast_port::Dropped;

use super::{Label, Metric, Values, counter, gauge, label};
use crate::gateway::ingest::Answer;

fn answers() -> Vec<&'static str> {
    Answer::ALL.iter().map(|answer| answer.name()).collect()
}

fn dropped() -> Vec<&'static str> {
    Dropped::ALL.iter().map(|reason| reason.label()).collect()
}

const REASON: &[Label] = &[label("reason", Values::Named(dropped))];
const PORT: &[Label] =
    &[label("port", Values::Of(&["http", "ingest", "admin", "metrics", "flashblocks"]))];
const SOURCE: &[Label] =
    &[label("source", Values::AtMost(64, "sources that the configuration names"))];
const SUBSCRIPTION: Values = Values::Of(&["fragcast", "eth", "flashblocks", "live"]);

pub(super) const METRICS: &[Metric] = &[
    gauge(
        "fragcast_build_info",
        "Always 1; the labels say which build this is, and of which chain.",
    )
    .by(&[
        label("version", Values::AtMost(1, "version of this build")),
        label("chain_id", Values::AtMost(1, "id of the chain")),
    ]),
    gauge("fragcast_ready", "1 while `/readyz` says that the node is ready."),
    gauge("fragcast_start_timestamp_seconds", "When the node was started, Unix time."),
    counter("fragcast_ingest_total", "Messages of the gateway, by answer.")
        .by(&[label("answer", Values::Named(answers))]),
    counter(
        "fragcast_hand_over_total",
        "Own messages whose publication waited for the next leader, by what ended it.",
    )
    .by(&[label("published", Values::Of(&["held", "late", "nobody"]))]),
    counter("fragcast_delegation_asked_total", "Requests to a signer for a delegation, by result.")
        .by(&[label("result", Values::AtMost(16, "results of a request"))]),
    gauge(
        "fragcast_delegation_blocks_left",
        "Blocks that are left of this node's delegation, the next one included; 0 without one.",
    ),
    gauge(
        "fragcast_delegation_renew_blocks",
        "With fewer blocks left the delegation is renewed. Not told while another node speaks for the gateway.",
    ),
    gauge("fragcast_registry_age_seconds", "Since a source last confirmed the list of gateways."),
    gauge(
        "fragcast_registry_life_seconds",
        "How long a source's answer counts: the longer the more seldom sources are asked.",
    ),
    gauge("fragcast_registry_gateways", "Gateways of the newest list."),
    gauge("fragcast_registry_sources_differ", "1 while sources have different lists."),
    gauge("fragcast_registry_pending_block", "First block of a list that is announced, or 0."),
    gauge("fragcast_registry_source_failing", "1 while a source gives no list.").by(SOURCE),
    counter("fragcast_registry_answers_total", "Lists that a source has given.").by(SOURCE),
    counter("fragcast_registry_failures_total", "Tries of a source that came to nothing.")
        .by(SOURCE),
    counter("fragcast_registry_changes_total", "Lists that were announced, by why then.")
        .by(&[label("why", Values::AtMost(8, "reasons for a block"))]),
    counter("fragcast_registry_refused_total", "Lists that the overlay did not take."),
    gauge("fragcast_subscribers", "Open subscriptions.").by(&[label("kind", SUBSCRIPTION)]),
    counter("fragcast_subscribers_dropped_total", "Subscribers dropped for being slow.")
        .by(&[label("kind", SUBSCRIPTION)]),
    counter(
        "fragcast_rpc_total",
        "Requests to the Ethereum JSON-RPC and filters that ended, by what became of them.",
    )
    .by(&[label("kind", Values::AtMost(32, "ends of a request or a filter"))]),
    gauge("fragcast_rpc_filters", "Filters that are polled."),
    gauge(
        "fragcast_transactions_on_their_way",
        "Transactions forwarded to a gateway and not executed yet.",
    ),
    counter("fragcast_flashblocks_published_total", "Flashblocks made."),
    counter(
        "fragcast_transactions_total",
        "Transactions to be forwarded to a gateway, by outcome.",
    )
    .by(&[label("outcome", Values::Of(&["sent", "refused", "not_taken"]))]),
    counter(
        "fragcast_transactions_dropped_total",
        "Forwarded transactions that were not executed, by reason.",
    )
    .by(&[label("reason", Values::AtMost(32, "reasons of the table of forwarded transactions"))]),
    counter(
        "fragcast_flashblocks_resumed_total",
        "Subscriptions to flashblocks that went on after one that they named.",
    ),
    counter("fragcast_flashblocks_sent_total", "Flashblocks sent to subscribers."),
    counter("fragcast_flashblocks_sent_bytes_total", "Bytes of flashblocks sent to subscribers."),
    gauge("fragcast_port_connections", "Open connections of a TCP port.").by(PORT),
    gauge("fragcast_port_held_bytes", "Bytes that connections of a TCP port hold.").by(PORT),
    gauge("fragcast_port_held_max_bytes", "The most that connections of a TCP port have held.")
        .by(PORT),
    counter("fragcast_port_accepted_total", "Connections that a TCP port let in.").by(PORT),
    counter(
        "fragcast_port_accept_failed_total",
        "Connections that the system could not give to a TCP port.",
    )
    .by(PORT),
    counter(
        "fragcast_http_dropped_total",
        "Connections and requests that the public JSON-RPC refused or closed.",
    )
    .by(REASON),
    counter(
        "fragcast_ingest_dropped_total",
        "Connections and requests that the gateway's port refused or closed.",
    )
    .by(REASON),
    counter(
        "fragcast_admin_dropped_total",
        "Connections and requests that the operator's port refused or closed.",
    )
    .by(REASON),
    counter(
        "fragcast_metrics_dropped_total",
        "Connections and requests that this port refused or closed.",
    )
    .by(REASON),
    counter("fragcast_flashblocks_dropped_total", "Subscribers of flashblocks refused or dropped.")
        .by(REASON),
    counter("fragcast_log_dropped_total", "Lines of the log that could not be written."),
    counter(
        "fragcast_metrics_refused_total",
        "Samples that were left out, because the catalogue of metrics does not allow them.",
    ),
    counter("process_cpu_seconds_total", "User and system time of the process."),
    gauge("process_start_time_seconds", "When the process was started, Unix time."),
    gauge("process_resident_memory_bytes", "Memory of the process that is resident."),
    gauge("process_open_fds", "Open file descriptors of the process."),
    gauge("process_max_fds", "How many file descriptors the process may open."),
];
