//! The gossip driver's numbers.

use libp2p::Multiaddr;

use crate::gossip::GossipOutcomes;

/// The gossip driver's numbers, published five times a second.
#[derive(Debug, Clone, Default)]
pub struct GossipSnapshot {
    /// Its addresses.
    pub listening_on: Vec<Multiaddr>,
    /// Outcomes of messages.
    pub outcomes: GossipOutcomes,
    /// Messages that the gate saw.
    pub received: u64,
    /// And their bytes.
    pub received_bytes: u64,
    /// Messages that were dropped unseen because the driver had no room for more.
    pub overrun: u64,
    /// Whether this node is subscribed.
    pub listening: bool,
    /// Connections.
    pub connections: usize,
    /// Those of them that others opened.
    pub incoming: usize,
    /// Peers connected that are members of the network.
    pub members: usize,
    /// Peers connected that are not.
    pub outsiders: usize,
    /// Peers connected that are subscribed to the fragments.
    pub listeners: usize,
    /// Peers in the mesh of each topic: envs, fragments, seals.
    pub mesh: [usize; 3],
    /// Messages published.
    pub published: u64,
    /// Messages sent again to peers that had subscribed since.
    pub caught_up: u64,
    /// Messages that were not published, by reason.
    pub not_published: Vec<(&'static str, u64)>,
    /// Messages to a peer that were given up because it takes too few.
    pub slow_peers: u64,
    /// Peers that were barred, by reason.
    pub barred: Vec<(&'static str, u64)>,
    /// Peers that are barred now.
    pub barred_now: usize,
    /// Connections that were refused, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Handshakes of others that failed.
    pub handshakes_failed: u64,
    /// Peers that could not be reached.
    pub dial_failures: u64,
    /// Bytes received over TCP, handshakes included.
    pub bytes_received: u64,
    /// Bytes sent over TCP, handshakes included.
    pub bytes_sent: u64,
}

impl GossipSnapshot {
    /// Connections that were refused for `reason`.
    pub fn refused_for(&self, reason: &str) -> u64 {
        count(&self.refused, reason)
    }

    /// Peers that were barred for `reason`.
    pub fn barred_for(&self, reason: &str) -> u64 {
        count(&self.barred, reason)
    }
}

fn count(counts: &[(&'static str, u64)], reason: &str) -> u64 {
    counts.iter().filter(|(name, _)| *name == reason).map(|(_, count)| count).sum()
}
