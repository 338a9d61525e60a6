//! The driver's numbers.

use std::time::Duration;

use super::connections::Connections;
use super::following::Following;
use super::listen::Call;
use super::tally::Tally;
use crate::egress::Lane;
use crate::epoch::Epoch;
use crate::gossip::{Mode, Policy};
use crate::health::{Reason, State};
use crate::outcome::Outcomes;
use crate::peer::PeerId;
use crate::protocol::{
    AttachState, CatchUpState, Counters, DelaysState, MembersState, Protocol, ReceiptsState, Spread,
};
use crate::time::Timestamp;

/// The driver's numbers, published five times a second.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Outcomes of everything that came in.
    pub outcomes: Outcomes,
    /// The protocol's other numbers.
    pub counters: Counters,
    /// By lane: name, bytes queued, bytes sent, transmits dropped.
    pub lanes: Vec<(&'static str, usize, u64, u64)>,
    /// Drops of the transport, by reason.
    pub drops: Vec<(&'static str, u64)>,
    /// Outcomes of incoming calls, by reason.
    pub calls: Vec<(&'static str, u64)>,
    /// Peers connected, guests aside.
    pub connected: usize,
    /// Peers that this node is to be connected to: all other members, or as many as its connections
    /// allow. `None` for a guest.
    pub wanted: Option<usize>,
    /// Guests connected.
    pub guests: usize,
    /// Of those, the ones that take all sets.
    pub guests_served: usize,
    /// How many guests are let in.
    pub guest_places: usize,
    /// If this node is a guest: from whom it takes messages.
    pub attached: Option<AttachState>,
    /// Members of the network in all epochs that live, this node included.
    pub members: usize,
    /// The epochs that live, oldest first.
    pub epochs: Vec<EpochSnapshot>,
    /// Connected peers that go by another membership table than our newest.
    pub peers_elsewhere: usize,
    /// Round-trip time to each connected peer.
    pub round_trips: Vec<(PeerId, Duration)>,
    /// The same peers, with the shreds that went over the connections to each.
    pub links: Vec<LinkSnapshot>,
    /// How the newest message spreads.
    pub spread: Option<Spread>,
    /// Bytes held by the reassembler.
    pub reassembly_bytes: usize,
    /// Bytes of complete sets kept to answer repair requests.
    pub repair_bytes: usize,
    /// Bytes of whole messages of recent blocks kept for peers that were away.
    pub archive_bytes: usize,
    /// The blocks that are taken.
    pub window: (u64, u64),
    /// How far this node has caught up with what is live.
    pub catch_up: CatchUpState,
    /// What of measured delays this node has.
    pub delays: DelaysState,
    /// What it told, and was told as a leader, of the shreds that came.
    pub receipts: ReceiptsState,
    /// What it knows of members who come and go.
    pub members_state: MembersState,
    /// Gossip, as the protocol sees it.
    pub fallback: FallbackSnapshot,
}

/// What went over the connections to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkSnapshot {
    /// The peer.
    pub peer: PeerId,
    /// The round-trip time.
    pub round_trip: Duration,
    /// Shreds sent to it as datagrams since it became known here.
    pub sent: u64,
    /// Datagrams received from it, be they good or not.
    pub received: u64,
}

/// An epoch that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochSnapshot {
    /// Its first block.
    pub from_block: u64,
    /// How many members it has.
    pub members: usize,
    /// The hash of its membership table.
    pub table: [u8; 32],
}

impl EpochSnapshot {
    fn of(epoch: &Epoch) -> Self {
        let members = epoch.members();
        Self { from_block: epoch.from_block(), members: members.len(), table: members.hash() }
    }
}

impl Snapshot {
    /// The numbers of this moment.
    pub(super) fn of(
        protocol: &Protocol,
        connections: &Connections,
        following: &Following,
        calls: &Tally<Call>,
    ) -> Self {
        let egress = protocol.egress();
        let lane = |lane: Lane| {
            (lane.name(), egress.queued(lane), egress.sent(lane), egress.dropped(lane))
        };
        let epochs = protocol.epochs();
        Self {
            outcomes: protocol.outcomes().clone(),
            counters: *protocol.counters(),
            lanes: Lane::ALL.iter().copied().map(lane).collect(),
            drops: connections.drops(),
            calls: calls.labels(),
            connected: connections.connected(),
            wanted: following.count(protocol),
            guests: connections.guests(),
            guests_served: protocol.guests_served(),
            guest_places: protocol.guest_places(),
            attached: protocol.attached(),
            members: epochs.members().count(),
            epochs: epochs.epochs().iter().map(|epoch| EpochSnapshot::of(epoch)).collect(),
            peers_elsewhere: protocol.peers_elsewhere(),
            round_trips: connections.round_trips(),
            links: connections.links(),
            spread: protocol.spread(),
            reassembly_bytes: protocol.reassembly_bytes(),
            repair_bytes: protocol.repair_bytes(),
            archive_bytes: protocol.archive_bytes(),
            window: protocol.window(),
            catch_up: protocol.catch_up(),
            delays: protocol.delays(),
            receipts: protocol.receipts(),
            members_state: protocol.members(),
            fallback: FallbackSnapshot::of(protocol),
        }
    }
}

/// The state of the fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FallbackSnapshot {
    /// How messages travel, as the operator decided.
    pub mode: Mode,
    /// How much this node uses gossip.
    pub policy: Policy,
    /// Whether this node is in the meshes.
    pub listening: bool,
    /// The way that this node relies on.
    pub state: State,
    /// Why; `None` before the first change.
    pub reason: Option<Reason>,
    /// Since when.
    pub since: Timestamp,
    /// Blocks in a row that the overlay must complete for the way back.
    pub dwell: u64,
    /// Blocks completed so far.
    pub streak: u64,
    /// Listeners that this node is connected to.
    pub listeners: usize,
    /// Bytes of recent messages kept for listeners and for peers that ask.
    pub recent_bytes: usize,
}

impl Default for FallbackSnapshot {
    /// The state of a node that does not use gossip.
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            policy: Policy::Off,
            listening: false,
            state: State::Turbine,
            reason: None,
            since: Timestamp::default(),
            dwell: 0,
            streak: 0,
            listeners: 0,
            recent_bytes: 0,
        }
    }
}

impl FallbackSnapshot {
    pub(super) fn of(protocol: &Protocol) -> Self {
        let health = protocol.health();
        Self {
            mode: protocol.mode(),
            policy: protocol.policy(),
            listening: protocol.is_listening(),
            state: health.state(),
            reason: health.reason(),
            since: health.since(),
            dwell: health.dwell(),
            streak: health.streak(),
            listeners: protocol.listeners(),
            recent_bytes: protocol.recent_bytes(),
        }
    }
}
