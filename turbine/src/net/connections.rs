//! The connections: at most one in each direction to a peer; the newest is used.
//!
//! A peer that was restarted connects again long before its old connection times out, so the newer
//! one of a direction replaces the older.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, SendDatagramError, VarInt};
use strum::{IntoStaticStr, VariantArray};
use tokio::sync::{mpsc, watch};

use super::PER_PEER;
use super::streams::{self, Class, Writer};
use super::tally::Tally;
use crate::counts::labelled;
use crate::membership::PeerIndex;

/// Something that came in.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) peer: PeerIndex,
    pub(super) what: Received,
}

#[derive(Debug)]
pub(super) enum Received {
    Shred(Bytes),
    Control(Bytes),
}

/// News of a connection.
#[derive(Debug)]
pub(super) enum Change {
    Up { peer: PeerIndex, connection: Connection, outgoing: bool },
    Down { peer: PeerIndex, id: usize },
}

/// Why the transport dropped something.
#[derive(Debug, Clone, Copy, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Dropped {
    /// A datagram found the inbound queue full.
    InboundQueue,
    /// A shred found a connection's send buffer full.
    DatagramBuffer,
    /// A frame found a stream's queue full.
    StreamQueue,
    /// The peer is not connected.
    Unreachable,
    /// A shred thrown away on purpose.
    Injected,
}

labelled!(Dropped);

struct Entry {
    connection: Connection,
    outgoing: bool,
    control: Writer,
    shreds: Writer,
}

/// The connections of all peers.
pub(super) struct Connections {
    peers: Vec<Vec<Entry>>,
    /// Whether a peer is connected; the tasks that dial watch this.
    up: Vec<watch::Sender<bool>>,
    drops: Arc<Tally<Dropped>>,
    inbound: mpsc::Sender<Inbound>,
    changes: mpsc::Sender<Change>,
}

impl Connections {
    pub(super) fn new(
        members: usize,
        inbound: mpsc::Sender<Inbound>,
        changes: mpsc::Sender<Change>,
    ) -> Self {
        Self {
            peers: (0..members).map(|_| Vec::new()).collect(),
            up: (0..members).map(|_| watch::Sender::new(false)).collect(),
            drops: Arc::default(),
            inbound,
            changes,
        }
    }

    pub(super) fn watch(&self, peer: PeerIndex) -> watch::Receiver<bool> {
        self.up[peer as usize].subscribe()
    }

    /// Counts something that was dropped before it came here.
    pub(super) fn count_drop(&self, why: Dropped) {
        self.drops.count(why);
    }

    /// Drops of the transport, by reason.
    pub(super) fn drops(&self) -> Vec<(&'static str, u64)> {
        self.drops.labels()
    }

    pub(super) fn connected(&self) -> usize {
        self.peers.iter().filter(|entries| !entries.is_empty()).count()
    }

    /// Takes a connection into use and starts its readers.
    pub(super) fn add(&mut self, peer: PeerIndex, connection: Connection, outgoing: bool) {
        let entries = &mut self.peers[peer as usize];
        entries.retain(|entry| {
            let replaced = entry.outgoing == outgoing;
            if replaced {
                entry.connection.close(VarInt::from_u32(0), b"replaced");
            }
            !replaced
        });
        debug_assert!(entries.len() < PER_PEER);
        let writer = |class| Writer::spawn(connection.clone(), class, self.drops.clone());
        let (control, shreds) = (writer(Class::Control), writer(Class::Shreds));
        tokio::spawn(streams::read(connection.clone(), peer, self.inbound.clone()));
        tokio::spawn(read_datagrams(
            connection.clone(),
            peer,
            self.inbound.clone(),
            self.drops.clone(),
            self.changes.clone(),
        ));
        entries.push(Entry { connection, outgoing, control, shreds });
        self.up[peer as usize].send_replace(true);
    }

    /// Forgets a connection; says whether the peer has none left.
    pub(super) fn remove(&mut self, peer: PeerIndex, id: usize) -> bool {
        let entries = &mut self.peers[peer as usize];
        let before = entries.len();
        entries.retain(|entry| entry.connection.stable_id() != id);
        let gone = before > 0 && entries.is_empty();
        if gone {
            self.up[peer as usize].send_replace(false);
        }
        gone
    }

    /// Closes all connections of a peer.
    pub(super) fn close(&mut self, peer: PeerIndex, reason: &str) {
        for entry in &self.peers[peer as usize] {
            entry.connection.close(VarInt::from_u32(1), reason.as_bytes());
        }
    }

    /// Sends a shred: as a datagram, or on a stream if the path is too small for it.
    pub(super) fn send_shred(&self, peer: PeerIndex, shred: Bytes) {
        let Some(entry) = self.peers[peer as usize].last() else {
            self.drops.count(Dropped::Unreachable);
            return;
        };
        if entry.connection.max_datagram_size().is_none_or(|max| max < shred.len()) {
            entry.shreds.send(shred);
            return;
        }
        // quinn would drop the oldest datagram in silence.
        if entry.connection.datagram_send_buffer_space() < shred.len() {
            self.drops.count(Dropped::DatagramBuffer);
            return;
        }
        match entry.connection.send_datagram(shred.clone()) {
            Ok(()) | Err(SendDatagramError::ConnectionLost(_)) => {}
            Err(_) => entry.shreds.send(shred),
        }
    }

    /// Sends a control frame.
    pub(super) fn send_control(&self, peer: PeerIndex, frame: Bytes) {
        match self.peers[peer as usize].last() {
            Some(entry) => entry.control.send(frame),
            None => self.drops.count(Dropped::Unreachable),
        }
    }

    /// Round-trip time to each connected peer.
    pub(super) fn round_trips(&self) -> Vec<(PeerIndex, Duration)> {
        let newest = |entries: &Vec<Entry>| entries.last().map(|entry| entry.connection.rtt());
        (0..)
            .zip(&self.peers)
            .filter_map(|(peer, entries)| Some((peer, newest(entries)?)))
            .collect()
    }
}

/// Reads datagrams until the connection ends, and reports the end.
async fn read_datagrams(
    connection: Connection,
    peer: PeerIndex,
    inbound: mpsc::Sender<Inbound>,
    drops: Arc<Tally<Dropped>>,
    changes: mpsc::Sender<Change>,
) {
    while let Ok(bytes) = connection.read_datagram().await {
        if inbound.try_send(Inbound { peer, what: Received::Shred(bytes) }).is_err() {
            drops.count(Dropped::InboundQueue);
        }
    }
    // Without datagrams of its own a connection gives the error at once; its end is what counts.
    connection.closed().await;
    let _ = changes.send(Change::Down { peer, id: connection.stable_id() }).await;
}
