//! Metrics of the overlay.

use fragcast_turbine::{Lane, Outcome};

use super::{Label, Metric, Values, counter, gauge, histogram, label};
use crate::serve::latency::WAYS;
use crate::serve::state::EventKind;

/// Upper ends of the buckets of latencies in seconds: from a hop on loopback to a message that should
/// have been given up. Those of [`fragcast_turbine::LatencySpread`].
pub(in crate::serve) const LATENCIES: &[f64] =
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0];

fn outcomes() -> Vec<&'static str> {
    Outcome::ALL.iter().map(|outcome| outcome.label()).collect()
}

fn lanes() -> Vec<&'static str> {
    Lane::ALL.iter().map(|lane| lane.name()).collect()
}

fn events() -> Vec<&'static str> {
    <EventKind as strum::VariantArray>::VARIANTS.iter().map(|kind| kind.into()).collect()
}

fn fates() -> Vec<&'static str> {
    fragcast_turbine::sequencer::Fate::ALL.iter().map(|fate| fate.label()).collect()
}

const LANE: &[Label] = &[label("lane", Values::Named(lanes))];
pub(super) const KIND: Label = label("kind", Values::Of(&["env", "frag", "seal"]));
/// Connected peers whose round trip is told.
pub(in crate::serve) const PEERS: usize = 1_024;
/// Regions of a plan.
const REGIONS: usize = 256;

pub(super) const METRICS: &[Metric] = &[
    counter("fragcast_datagrams_total", "Datagrams and control frames received, by outcome.")
        .by(&[label("outcome", Values::Named(outcomes))]),
    counter("fragcast_shreds_originated_total", "Shreds that this node sent as a leader."),
    counter("fragcast_shreds_forwarded_total", "Shreds that this node sent on as a relay."),
    counter(
        "fragcast_shreds_owed_total",
        "Shreds that this node made out of a recovered set, because its children waited for them.",
    ),
    counter("fragcast_shreds_to_guests_total", "Copies of shreds that were sent to guests."),
    counter(
        "fragcast_shreds_stepped_over_total",
        "Shreds that were sent to the children of a peer that is not connected.",
    ),
    counter(
        "fragcast_shreds_unknown_plan_total",
        "Shreds that could not be sent on, because their plan or route is not known here.",
    ),
    counter("fragcast_plans_made_total", "Plans of its own that this node made from measured delays."),
    counter("fragcast_plans_asked_total", "Requests for plans that shreds name."),
    counter("fragcast_plans_answered_total", "Requests for plans that were answered."),
    counter("fragcast_messages_delivered_total", "Messages that came whole and verified."),
    counter("fragcast_messages_repaired_total", "Delivered messages of which shreds came by repair."),
    counter(
        "fragcast_messages_handed_again_total",
        "Messages that were handed to the executor again, since it had lost them.",
    ),
    counter("fragcast_first_total", "Messages of others, by the way that was first.")
        .by(&[label("way", Values::Of(&WAYS))]),
    counter("fragcast_sequencer_total", "Verified messages, by what became of them in the order of blocks.")
        .by(&[label("fate", Values::Named(fates))]),
    counter("fragcast_sets_recovered_total", "Sets of shreds that were complete only after recovery."),
    counter("fragcast_tips_sent_total", "Frames sent that tell peers the newest messages."),
    counter("fragcast_repair_requests_total", "Sets, or whole messages, that a peer was asked for."),
    counter("fragcast_repair_useful_shreds_total", "Shreds that came by asking and were new."),
    counter("fragcast_repair_messages_total", "Messages without shreds that came by asking."),
    counter(
        "fragcast_repair_given_up_messages_total",
        "Messages that peers are not asked for any more, because nobody answered.",
    ),
    counter("fragcast_repair_answered_shreds_total", "Shreds with which requests were answered."),
    counter("fragcast_repair_answered_bytes_total", "Bytes with which requests were answered."),
    counter(
        "fragcast_repair_answered_messages_total",
        "Messages without shreds with which requests were answered to their end.",
    ),
    counter("fragcast_catch_up_requests_total", "Requests for whole blocks, to catch up."),
    counter("fragcast_catch_up_messages_total", "Messages that came in answer to such requests."),
    counter("fragcast_catch_up_answered_bytes_total", "Bytes with which such requests were answered."),
    counter("fragcast_blocks_substituted_total", "Blocks that a substitute of their leader opened."),
    counter("fragcast_window_moves_total", "Times that the window of accepted blocks was moved elsewhere."),
    counter("fragcast_events_total", "Noteworthy events, by kind.")
        .by(&[label("kind", Values::Named(events))]),
    gauge("fragcast_blocks_behind", "Blocks that this node lacks: asked for, or kept by no peer any more.")
        .by(&[label("kind", Values::Of(&["missing", "lost"]))]),
    gauge("fragcast_block_opened", "Newest block whose Env was handed on."),
    gauge("fragcast_block_sealed", "Newest block whose Seal was handed on."),
    gauge(
        "fragcast_last_message_timestamp_seconds",
        "When the newest message was handed on, Unix time by this node's clock; 0 before the first.",
    ),
    histogram(
        "fragcast_message_latency_seconds",
        LATENCIES,
        "From the leader's sending to verified, by the two nodes' clocks, by the way that was first.",
    )
    .by(&[KIND, label("via", Values::Of(&WAYS))]),
    histogram(
        "fragcast_lead_seconds",
        LATENCIES,
        "How much earlier the first way was, of messages that came over the overlay and by gossip.",
    )
    .by(&[label("first", Values::Of(&["overlay", "gossip"])), KIND]),
    histogram(
        "fragcast_hop_latency_seconds",
        LATENCIES,
        "At a leader, by receipts: from its start of sending to the arrival of a shred, by hops.",
    )
    .by(&[label("hops", Values::Of(&["1", "2", "3"]))]),
    histogram(
        "fragcast_region_latency_seconds",
        LATENCIES,
        "At a leader, by receipts: from its start of sending to the arrival of a shred, by region.",
    )
    .by(&[label("region", Values::AtMost(REGIONS, "regions of the leader's plan"))]),
    counter("fragcast_receipts_total", "Receipts of shreds: sent, and taken as a leader.")
        .by(&[label("kind", Values::Of(&["sent", "taken"]))]),
    gauge("fragcast_receipts_loss_ratio", "At a leader, by receipts: the loss of a hop."),
    gauge("fragcast_relays_excluded", "At a leader: relays that its masks exclude, as relays or as heads.")
        .by(&[label("as", Values::Of(&["relay", "head"]))]),
    gauge("fragcast_delays_measured_peers", "Peers whose round trips this node has measured."),
    gauge("fragcast_delays_reporters", "At a leader: members that have told their measured delays."),
    gauge("fragcast_delays_known_pairs", "At a leader: pairs of members whose delay is known."),
    gauge("fragcast_delays_median_seconds", "Median round trip over the known pairs."),
    gauge("fragcast_delays_coordinates_error_ratio", "Median error of coordinates, as a share."),
    gauge("fragcast_members", "Members of the network in all epochs that live, this node included."),
    gauge("fragcast_member_records", "Records of members that are alive."),
    counter("fragcast_member_records_pulled_total", "Peers that were asked for records of members."),
    counter("fragcast_member_records_learnt_total", "Records of members that were new, of those that came."),
    counter("fragcast_table_parts_asked_total", "Parts of tables of members that were asked for."),
    counter("fragcast_table_parts_answered_total", "Parts of tables of members given in answer."),
    gauge("fragcast_peers_connected", "Peers connected over the overlay, guests aside."),
    gauge(
        "fragcast_peers_wanted",
        "Peers to be connected to: all other members, or as many as connections allow. Not told by guests.",
    ),
    gauge("fragcast_peers_differing", "Connected peers that differ from this node, by what.").by(&[
        label("in", Values::Of(&["chain_id", "dialect", "blocks_per_term", "gateways", "clock"])),
    ]),
    gauge("fragcast_peer_rtt_seconds", "Round trip to a connected peer.")
        .by(&[label("peer", Values::AtMost(PEERS, "ids of connected peers"))]),
    gauge("fragcast_guests_connected", "Guests connected to this node."),
    gauge("fragcast_guests_served", "Guests to which this node sends everything."),
    gauge("fragcast_guest_places", "How many guests are let in."),
    gauge("fragcast_guest_attached", "Of a guest: 1 while a member sends it everything."),
    gauge("fragcast_guest_late_seconds", "Of a guest: how late messages are by others' tips."),
    gauge("fragcast_guest_loss_ratio", "Of a guest: the share of its member's shreds that is lost."),
    gauge("fragcast_guest_rtt_seconds", "Of a guest: round trip to its member."),
    counter("fragcast_guest_rotations_total", "Of a guest: changes to another member."),
    gauge("fragcast_lane_queued_bytes", "Bytes that wait to be sent, by lane.").by(LANE),
    counter("fragcast_lane_bytes_total", "Bytes sent, framing included, by lane.").by(LANE),
    counter("fragcast_lane_dropped_total", "Shreds and frames that a full lane dropped.").by(LANE),
    counter("fragcast_transport_dropped_total", "Datagrams and frames that the transport dropped, by reason.")
        .by(&[label("reason", Values::AtMost(16, "reasons of the transport"))]),
    counter("fragcast_calls_total", "Incoming connection attempts, by what became of them.")
        .by(&[label("result", Values::AtMost(16, "results of an attempt"))]),
    gauge("fragcast_reassembly_bytes", "Bytes of messages whose shreds are still coming."),
    gauge("fragcast_repair_bytes", "Bytes of recent messages kept to answer repair requests."),
    gauge("fragcast_archive_bytes", "Bytes of whole messages kept for peers that were away."),
    gauge("fragcast_sequencer_waiting_bytes", "Bytes of messages that wait for earlier ones."),
];
