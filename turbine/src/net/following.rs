//! Connections that follow the plan, where members are more than connections.
//!
//! Once a second the protocol says whom this node is to be connected to. Those are called; others may
//! call and stay as long as there is room, and are let go when there is none, so that a node that
//! knows less, such as one that has just started, is heard.

use std::collections::BTreeSet;

use super::connections::Connections;
use super::dial::Dials;
use crate::peer::PeerKey;
use crate::protocol::Protocol;

/// Whom this node is to be connected to.
#[derive(Debug)]
pub(super) struct Following {
    /// `None` if it is everybody.
    wanted: Option<BTreeSet<PeerKey>>,
    /// The most peers that are connected.
    most: usize,
}

impl Following {
    pub(super) fn new(protocol: &Protocol, most: usize) -> Self {
        let wanted = protocol.wanted_connections().map(|wanted| wanted.into_iter().collect());
        Self { wanted, most }
    }

    /// Whether a peer is to be called.
    pub(super) fn wants(&self, peer: PeerKey) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.contains(&peer))
    }

    /// How many peers this node is to be connected to; `None` for a guest, who chooses them by other
    /// rules.
    pub(super) fn count(&self, protocol: &Protocol) -> Option<usize> {
        if protocol.is_guest() {
            return None;
        }
        let me = protocol.me();
        let all = || protocol.epochs().members().filter(|(key, _)| *key != me).count();
        Some(self.wanted.as_ref().map_or_else(all, BTreeSet::len))
    }

    /// Asks the protocol anew, and begins and ends calls accordingly.
    pub(super) fn follow(
        &mut self,
        protocol: &Protocol,
        connections: &Connections,
        dials: &mut Dials,
    ) {
        let wanted = protocol.wanted_connections().map(|wanted| wanted.into_iter().collect());
        if wanted != self.wanted {
            self.wanted = wanted;
            let me = protocol.me();
            let epochs = protocol.epochs();
            for (key, member) in epochs.members().filter(|(key, _)| *key != me) {
                let id = member.peer();
                match (self.wants(key), dials.is_running(key), connections.watch(key)) {
                    (true, false, Some(up)) => dials.start(key, id, up),
                    (false, true, _) => dials.stop(key),
                    _ => {}
                }
            }
        }
        self.make_room(protocol, connections);
    }

    /// Lets members go that need not be connected, if there are too many; a guest, who has a place
    /// there that others want, all of them.
    pub(super) fn make_room(&self, protocol: &Protocol, connections: &Connections) {
        if self.wanted.is_none() {
            return;
        }
        let most = if protocol.is_guest() { 0 } else { self.most };
        let excess = connections.connected().saturating_sub(most);
        let free = |peer: PeerKey| !self.wants(peer) && !protocol.has_contact(peer);
        let unwanted = connections.measured().filter(|(peer, _)| free(*peer));
        let gone: Vec<PeerKey> = unwanted.map(|(peer, _)| peer).take(excess).collect();
        gone.into_iter().for_each(|peer| connections.close(peer, "no room"));
    }
}
