//! Limits and bars of connections.
//!
//! One behaviour of ours instead of libp2p's for limits and for block lists: those know
//! nothing of IP addresses, count no reasons, and cannot keep room for members when strangers
//! have taken what there is for them.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, ListenFailure};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use strum::{IntoStaticStr, VariantArray};
use tokio::time::Instant;

use super::GossipLimits;
use crate::counts::{Counts, labelled};
use crate::net::places::{Caller, Place, Places, Refusal};

/// Bars at a time, about 100 bytes each; then the one that ends first goes.
const MAX_BARS: usize = 4096;

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Refused {
    /// Too many handshakes in progress.
    #[error("too many handshakes")]
    Pending,
    /// Too many from its IP address.
    #[error("too many connections from this address")]
    Address,
    /// Too many handshakes from its network.
    #[error("too many handshakes from this network")]
    Network,
    /// Too many of others' in all.
    #[error("too many incoming connections")]
    Incoming,
    /// Too many in all.
    #[error("too many connections")]
    Total,
    /// Too many to this peer.
    #[error("too many connections of this peer")]
    Peer,
    /// It has misbehaved.
    #[error("barred")]
    Barred,
}

labelled!(Refused);

struct Connection {
    peer: PeerId,
    /// The address of whoever opened it, if that was not this node.
    from: Option<Option<IpAddr>>,
}

/// Counts connections and refuses those in excess.
pub(super) struct Doorman {
    limits: GossipLimits,
    /// Members and bootstrap peers: [`GossipLimits::incoming`] is not for them.
    friends: BTreeSet<PeerId>,
    /// The IP addresses that they are known to have.
    addresses: BTreeSet<IpAddr>,
    places: Places,
    pending: BTreeMap<ConnectionId, Place>,
    established: BTreeMap<ConnectionId, Connection>,
    bars: BTreeMap<PeerId, Instant>,
    refused: Counts<Refused>,
}

impl Doorman {
    pub(super) fn new(limits: GossipLimits) -> Self {
        Self {
            limits,
            friends: BTreeSet::new(),
            addresses: BTreeSet::new(),
            places: Places::new(limits.pending, limits.per_address),
            pending: BTreeMap::new(),
            established: BTreeMap::new(),
            bars: BTreeMap::new(),
            refused: Counts::default(),
        }
    }

    /// Those for whom room is kept from now on, and where they are.
    pub(super) fn set_friends(&mut self, friends: BTreeSet<PeerId>, addresses: BTreeSet<IpAddr>) {
        (self.friends, self.addresses) = (friends, addresses);
    }

    /// Refuses a peer for the time of a bar.
    pub(super) fn bar(&mut self, now: Instant, peer: PeerId) {
        self.expire(now);
        if self.bars.len() >= MAX_BARS
            && let Some(first) = self.bars.iter().min_by_key(|(_, until)| **until)
        {
            let first = *first.0;
            self.bars.remove(&first);
        }
        self.bars.insert(peer, now + self.limits.bar);
    }

    /// Forgets bars that have ended.
    pub(super) fn expire(&mut self, now: Instant) {
        self.bars.retain(|_, until| *until > now);
    }

    pub(super) fn is_barred(&self, peer: &PeerId) -> bool {
        self.bars.get(peer).is_some_and(|until| *until > Instant::now())
    }

    pub(super) fn barred(&self) -> usize {
        self.bars.len()
    }

    /// Whether it is a member or a bootstrap peer.
    pub(super) fn is_friend(&self, peer: &PeerId) -> bool {
        self.friends.contains(peer)
    }

    /// Refused connections, by reason.
    pub(super) fn refused(&self) -> Vec<(&'static str, u64)> {
        self.refused.labels().collect()
    }

    /// Connections, and those of them that others opened.
    pub(super) fn connections(&self) -> (usize, usize) {
        let incoming = self.established.values().filter(|one| one.from.is_some()).count();
        (self.established.len(), incoming)
    }

    fn refuse(&mut self, why: Refused) -> ConnectionDenied {
        self.refused.count(why);
        ConnectionDenied::new(why)
    }

    fn check(&self, peer: &PeerId, incoming: bool) -> Result<(), Refused> {
        if self.is_barred(peer) {
            return Err(Refused::Barred);
        }
        let of_peer = self.established.values().filter(|one| one.peer == *peer).count();
        if of_peer >= self.limits.per_peer {
            return Err(Refused::Peer);
        }
        if self.established.len() >= self.limits.total {
            return Err(Refused::Total);
        }
        let strangers = self.established.values().filter(|one| {
            let incoming = one.from.is_some();
            incoming && !self.is_friend(&one.peer)
        });
        if incoming && !self.is_friend(peer) && strangers.count() >= self.limits.incoming {
            return Err(Refused::Incoming);
        }
        Ok(())
    }

    /// Before anything is computed for the caller.
    fn check_pending(&mut self, from: Option<IpAddr>) -> Result<Place, Refused> {
        // Whatever is no IP address is one host and one network.
        let address = from.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let established = self.established.values().filter(|one| one.from == Some(from)).count();
        if self.places.of_host(address) + established >= self.limits.per_address {
            return Err(Refused::Address);
        }
        let member = self.addresses.contains(&address);
        // TCP has proven it.
        let caller = Caller { address, member, proven: true };
        self.places.take(caller).map_err(|refusal| match refusal {
            Refusal::Total | Refusal::Unproven => Refused::Pending,
            Refusal::Host => Refused::Address,
            Refusal::Network => Refused::Network,
        })
    }

    /// A handshake has ended.
    fn end_pending(&mut self, id: ConnectionId) {
        if let Some(place) = self.pending.remove(&id) {
            self.places.give_back(place);
        }
    }
}

/// The IP address that a multiaddr begins with.
pub(super) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.to_canonical()),
        _ => None,
    }
}

impl NetworkBehaviour for Doorman {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let from = ip(remote);
        let place = self.check_pending(from).map_err(|why| self.refuse(why))?;
        self.pending.insert(id, place);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.end_pending(id);
        self.check(&peer, true).map_err(|why| self.refuse(why))?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _id: ConnectionId,
        peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(&peer, false).map_err(|why| self.refuse(why))?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                let from = match endpoint {
                    ConnectedPoint::Listener { send_back_addr, .. } => Some(ip(send_back_addr)),
                    ConnectedPoint::Dialer { .. } => None,
                };
                self.established.insert(connection_id, Connection { peer: peer_id, from });
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.established.remove(&connection_id);
            }
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.end_pending(connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _peer: PeerId,
        _id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(
        &mut self,
        _cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
