//! The connections to each peer: at most one in each direction, of which the newest is used.
//!
//! A peer that was restarted connects again long before its old connection times out, so the
//! newer one of a direction replaces the older. Peers are those of the living epochs, by key, guests
//! that were let in, and contacts: nobody else has an entry, or a connection.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, SendDatagramError, VarInt};
use strum::{IntoStaticStr, VariantArray};
use tokio::sync::{mpsc, watch};

use super::inbox::{FrameRoom, Inbox};
use super::snapshot::LinkSnapshot;
use super::streams::{self, Class, Writer};
use super::tally::Tally;
use super::transport::remote;
use super::{LogLimit, PER_PEER};
use crate::counts::labelled;
use crate::peer::{PeerId, PeerKey};

/// The reason given to a connection that makes room for a newer one of the same peer.
pub(super) const REPLACED: &[u8] = b"replaced";
/// Lines of the log about one peer's coming and going: one in this time, and so many at once.
const LOG: (Duration, u32) = (Duration::from_secs(15), 8);

/// What came in.
#[derive(Debug)]
pub(super) enum Received {
    Shred(Bytes),
    Control(Bytes),
}

/// News of a connection.
#[derive(Debug)]
pub(super) enum Change {
    Up {
        peer: PeerKey,
        connection: Connection,
        outgoing: bool,
    },
    /// Who is no member has called and proved its id.
    Stranger {
        id: PeerId,
        connection: Connection,
    },
    Down {
        peer: PeerKey,
        id: usize,
    },
    /// A peer has closed a connection because it has no place for this node.
    Refused(PeerKey),
    /// A call of this node's to this address was answered by the key of a peer.
    Reached(PeerId, SocketAddr),
}

/// Why the transport dropped something.
#[derive(Debug, Clone, Copy, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Dropped {
    /// A datagram found the inbox full, or made way for one of a peer that has fewer there.
    InboundQueue,
    /// A shred found a connection's send buffer full.
    DatagramBuffer,
    /// A frame found a stream's queue full.
    StreamQueue,
    /// The peer is not connected.
    Unreachable,
    /// A shred thrown away on purpose.
    Injected,
    /// A datagram of a guest, who has none to send.
    Guest,
}

labelled!(Dropped);

/// Shreds that went as datagrams over all connections to a peer.
#[derive(Debug, Default)]
struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

struct Entry {
    connection: Connection,
    outgoing: bool,
    control: Writer,
    shreds: Writer,
}

/// One peer.
struct Peer {
    id: PeerId,
    /// The newest last.
    entries: Vec<Entry>,
    /// What its frames may take that wait for the driver.
    frames: FrameRoom,
    traffic: Arc<Traffic>,
    /// For lines about its coming and going.
    log: LogLimit,
    /// Whether it is connected; the task that dials it watches this, and ends with it.
    up: watch::Sender<bool>,
}

impl Peer {
    fn close(&self, reason: &str) {
        for entry in &self.entries {
            entry.connection.close(VarInt::from_u32(1), reason.as_bytes());
        }
    }
}

/// The connections of all peers.
pub(super) struct Connections {
    peers: BTreeMap<PeerKey, Peer>,
    drops: Arc<Tally<Dropped>>,
    inbox: Inbox,
    changes: mpsc::Sender<Change>,
}

impl Connections {
    pub(super) fn new(inbox: Inbox, changes: mpsc::Sender<Change>) -> Self {
        Self { peers: BTreeMap::new(), drops: Arc::default(), inbox, changes }
    }

    /// Adds a peer, or says what one is from now on that is here already: a guest or none. The watch
    /// tells whenever it is connected.
    pub(super) fn join(&mut self, peer: PeerKey, id: PeerId, guest: bool) -> watch::Receiver<bool> {
        if let Some(known) = self.peers.get(&peer) {
            known.frames.set_guest(guest);
            return known.up.subscribe();
        }
        let (up, watch) = watch::channel(false);
        let (frames, log) = (FrameRoom::new(guest), LogLimit::new(LOG.0, LOG.1));
        let traffic = Arc::default();
        self.peers.insert(peer, Peer { id, entries: Vec::new(), frames, traffic, log, up });
        watch
    }

    /// Where a connected peer is.
    pub(super) fn address(&self, peer: PeerKey) -> Option<IpAddr> {
        let newest = self.peers.get(&peer)?.entries.last()?;
        Some(remote(&newest.connection).ip())
    }

    /// The watch that tells whenever a peer is connected; `None` if it is not known.
    pub(super) fn watch(&self, peer: PeerKey) -> Option<watch::Receiver<bool>> {
        self.peers.get(&peer).map(|known| known.up.subscribe())
    }

    /// Forgets a peer that is known no more, and closes its connections.
    pub(super) fn leave(&mut self, peer: PeerKey) {
        if let Some(gone) = self.peers.remove(&peer) {
            gone.close("no member");
        }
    }

    /// Counts something that was dropped before it came here.
    pub(super) fn count_drop(&self, why: Dropped) {
        self.drops.count(why);
    }

    /// Drops of the transport, by reason.
    pub(super) fn drops(&self) -> Vec<(&'static str, u64)> {
        self.drops.labels()
    }

    /// Peers that are connected, guests aside.
    pub(super) fn connected(&self) -> usize {
        let up = |peer: &&Peer| !peer.entries.is_empty() && !peer.frames.is_guest();
        self.peers.values().filter(up).count()
    }

    /// Guests that are connected.
    pub(super) fn guests(&self) -> usize {
        let up = |peer: &&Peer| !peer.entries.is_empty() && peer.frames.is_guest();
        self.peers.values().filter(up).count()
    }

    /// Takes a connection into use and starts its readers; says whether its peer is known.
    pub(super) fn add(&mut self, key: PeerKey, connection: Connection, outgoing: bool) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else {
            connection.close(VarInt::from_u32(1), b"no member");
            return false;
        };
        peer.entries.retain(|entry| {
            let replaced = entry.outgoing == outgoing;
            if replaced {
                entry.connection.close(VarInt::from_u32(0), REPLACED);
            }
            !replaced
        });
        debug_assert!(peer.entries.len() < PER_PEER);
        let writer = |class| Writer::spawn(connection.clone(), class, self.drops.clone());
        let (control, shreds) = (writer(Class::Control), writer(Class::Shreds));
        let reader =
            streams::Reader { peer: key, inbox: self.inbox.clone(), room: peer.frames.clone() };
        tokio::spawn(reader.read(connection.clone()));
        tokio::spawn(read_datagrams(
            connection.clone(),
            (key, peer.frames.clone(), Arc::clone(&peer.traffic)),
            self.inbox.clone(),
            self.drops.clone(),
            self.changes.clone(),
        ));
        peer.entries.push(Entry { connection, outgoing, control, shreds });
        peer.up.send_replace(true);
        true
    }

    /// Forgets a connection; says whether the peer has none left.
    pub(super) fn remove(&mut self, peer: PeerKey, id: usize) -> bool {
        let Some(peer) = self.peers.get_mut(&peer) else { return false };
        let before = peer.entries.len();
        peer.entries.retain(|entry| entry.connection.stable_id() != id);
        let gone = before > 0 && peer.entries.is_empty();
        if gone {
            peer.up.send_replace(false);
        }
        gone
    }

    /// Whether to write a line about a peer's coming or going; see [`LogLimit::allow`].
    pub(super) fn log(&mut self, peer: PeerKey) -> Option<u64> {
        self.peers.get_mut(&peer).and_then(|peer| peer.log.allow())
    }

    /// Closes all connections of a peer.
    pub(super) fn close(&self, peer: PeerKey, reason: &str) {
        if let Some(peer) = self.peers.get(&peer) {
            peer.close(reason);
        }
    }

    /// The connection to use for a peer; counts if there is none.
    fn newest(&self, peer: PeerKey) -> Option<&Entry> {
        self.newest_of(peer).map(|(entry, _)| entry)
    }

    /// The same, with what counts the peer's datagrams.
    fn newest_of(&self, peer: PeerKey) -> Option<(&Entry, &Traffic)> {
        let known = self.peers.get(&peer);
        let newest = known.and_then(|peer| Some((peer.entries.last()?, &*peer.traffic)));
        if newest.is_none() {
            self.drops.count(Dropped::Unreachable);
        }
        newest
    }

    /// Sends a shred: as a datagram, or on a stream if the path is too small for it.
    pub(super) fn send_shred(&self, peer: PeerKey, shred: Bytes) {
        let Some((entry, traffic)) = self.newest_of(peer) else { return };
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
            Ok(()) => {
                traffic.sent.fetch_add(1, Ordering::Relaxed);
            }
            Err(SendDatagramError::ConnectionLost(_)) => {}
            Err(_) => entry.shreds.send(shred),
        }
    }

    /// Sends a control frame.
    pub(super) fn send_control(&self, peer: PeerKey, frame: Bytes) {
        if let Some(entry) = self.newest(peer) {
            entry.control.send(frame);
        }
    }

    /// Round-trip time to each connected peer, guests aside.
    pub(super) fn round_trips(&self) -> Vec<(PeerId, Duration)> {
        self.measured().map(|(key, round_trip)| (self.peers[&key].id, round_trip)).collect()
    }

    /// The connection to each connected peer, guests aside.
    pub(super) fn links(&self) -> Vec<LinkSnapshot> {
        let links = self.measured().map(|(key, round_trip)| {
            let peer = &self.peers[&key];
            LinkSnapshot {
                peer: peer.id,
                round_trip,
                sent: peer.traffic.sent.load(Ordering::Relaxed),
                received: peer.traffic.received.load(Ordering::Relaxed),
            }
        });
        links.collect()
    }

    /// The same by key, guests aside.
    pub(super) fn measured(&self) -> impl Iterator<Item = (PeerKey, Duration)> + '_ {
        let peers = self.peers.iter().filter(|(_, peer)| !peer.frames.is_guest());
        peers.filter_map(|(key, peer)| Some((*key, peer.entries.last()?.connection.rtt())))
    }
}

/// Reads datagrams until the connection ends, and reports the end.
async fn read_datagrams(
    connection: Connection,
    (peer, room, traffic): (PeerKey, FrameRoom, Arc<Traffic>),
    inbox: Inbox,
    drops: Arc<Tally<Dropped>>,
    changes: mpsc::Sender<Change>,
) {
    while let Ok(bytes) = connection.read_datagram().await {
        if room.is_guest() {
            drops.count(Dropped::Guest);
            continue;
        }
        traffic.received.fetch_add(1, Ordering::Relaxed);
        if inbox.push_datagram(peer, bytes) {
            drops.count(Dropped::InboundQueue);
        }
    }
    // Without datagrams of its own a connection gives the error at once; its end is what counts.
    connection.closed().await;
    let _ = changes.send(Change::Down { peer, id: connection.stable_id() }).await;
}
