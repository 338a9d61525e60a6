//! Metrics of gossip, and of the way that a node counts on.

use fragcast_turbine::gossip::GossipOutcome;
use fragcast_turbine::health::{Reason, State};

use super::{Metric, Values, counter, gauge, label};

fn states() -> Vec<&'static str> {
    State::ALL.iter().map(|state| state.name()).collect()
}

fn reasons() -> Vec<&'static str> {
    Reason::ALL.iter().map(|reason| reason.name()).collect()
}

fn outcomes() -> Vec<&'static str> {
    GossipOutcome::ALL.iter().map(|outcome| outcome.label()).collect()
}

const REASONS: Values = Values::AtMost(24, "reasons of gossip's driver");

pub(super) const METRICS: &[Metric] = &[
    gauge("fragcast_way", "1 for the way that this node counts on, 0 for the others.")
        .by(&[label("way", Values::Named(states))]),
    counter(
        "fragcast_changes_total",
        "Changes of the way that this node counts on, by new way and reason.",
    )
    .by(&[label("to", Values::Named(states)), label("reason", Values::Named(reasons))]),
    gauge("fragcast_gossip_connections", "Peers connected over TCP for gossip."),
    gauge("fragcast_gossip_mesh", "Peers in gossip's mesh, by topic.")
        .by(&[label("topic", Values::Of(&["envs", "fragments", "seals"]))]),
    gauge("fragcast_gossip_listeners", "Connected peers that listen to gossip."),
    gauge(
        "fragcast_gossip_recent_bytes",
        "Bytes of recent messages kept for peers that listen or ask.",
    ),
    counter("fragcast_gossip_messages_total", "Gossip messages received, by outcome.")
        .by(&[label("outcome", Values::Named(outcomes))]),
    counter(
        "fragcast_gossip_new_messages_total",
        "Messages that came by gossip and were new here.",
    ),
    counter("fragcast_gossip_first_messages_total", "Messages that gossip had before the overlay."),
    counter(
        "fragcast_gossip_handed_messages_total",
        "Messages handed to gossip, as their leader or for listeners.",
    ),
    counter(
        "fragcast_gossip_handed_dropped_total",
        "Messages for gossip that its driver had no room for.",
    ),
    counter(
        "fragcast_gossip_published_total",
        "Messages published: at once, or later for those who came late.",
    )
    .by(&[label("when", Values::Of(&["at_once", "later"]))]),
    counter("fragcast_gossip_not_published_total", "Messages that were not published, by reason.")
        .by(&[label("reason", REASONS)]),
    counter("fragcast_gossip_overrun_total", "Messages received that the node had no room for."),
    counter("fragcast_gossip_slow_peers_total", "Times that a peer took messages too slowly."),
    counter("fragcast_gossip_handshakes_failed_total", "Handshakes over TCP that failed."),
    counter("fragcast_gossip_dial_failures_total", "Calls over TCP that reached nobody."),
    counter("fragcast_gossip_barred_total", "Peers that were barred, by reason.")
        .by(&[label("reason", REASONS)]),
    counter("fragcast_gossip_refused_total", "Connections over TCP that were refused, by reason.")
        .by(&[label("reason", REASONS)]),
    counter("fragcast_gossip_bytes_total", "Bytes over TCP, by direction.")
        .by(&[label("direction", Values::Of(&["received", "sent"]))]),
];
