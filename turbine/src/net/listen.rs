//! Incoming calls: limits before anything is computed, then the handshake.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use quinn::{Connection, Endpoint, Incoming};
use rustls::pki_types::CertificateDer;
use strum::{IntoStaticStr, VariantArray};
use tokio::sync::{mpsc, watch};

use super::Limits;
use super::connections::Change;
use super::dial::Bars;
use super::places::{Caller, Place, Places, Refusal};
use super::tally::Tally;
use super::tls::peer_of;
use super::unwelcome::Unwelcome;
use crate::counts::labelled;
use crate::epoch::EpochsView;
use crate::membership::canonical;
use crate::peer::{PeerId, PeerKey};
use crate::time::Timestamp;

/// The fate of a call from outside.
#[derive(Debug, Clone, Copy, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Call {
    /// A member is connected.
    Accepted,
    /// A caller that is no member has proved its key: it becomes a guest if there is room.
    Stranger,
    /// The caller must prove its address first.
    Retried,
    /// There are too many in all.
    RefusedTotal,
    /// There are too many from its address.
    RefusedAddress,
    /// There are too many from its network.
    RefusedNetwork,
    /// It is barred.
    RefusedBarred,
    /// Handshakes with its host have come to nothing too often; it is not answered.
    Ignored,
    /// It is no member, or the handshake came to nothing.
    HandshakeFailed,
}

labelled!(Call);

/// A stranger's connection that ends within this time has come to nothing.
const BRIEF: std::time::Duration = std::time::Duration::from_secs(2);

#[derive(Debug)]
struct Counts {
    handshakes: Places,
    connections: usize,
    /// Of connections.
    by_address: BTreeMap<IpAddr, usize>,
}

/// Counts a handshake or connection of an address for as long as it lives. The table has an
/// entry only for addresses that have a connection, so it is as bounded as they are.
struct Slot {
    counts: Arc<Mutex<Counts>>,
    address: IpAddr,
    /// `None` once the connection is established.
    handshake: Option<Place>,
}

impl Slot {
    fn lock(counts: &Mutex<Counts>) -> std::sync::MutexGuard<'_, Counts> {
        counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn establish(&mut self) {
        if let Some(place) = self.handshake.take() {
            let mut counts = Self::lock(&self.counts);
            counts.handshakes.give_back(place);
            counts.connections += 1;
            *counts.by_address.entry(self.address).or_default() += 1;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = Self::lock(&self.counts);
        if let Some(place) = self.handshake {
            counts.handshakes.give_back(place);
            return;
        }
        counts.connections -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

/// The addresses that members of the living epochs have.
struct Known {
    epochs: watch::Receiver<Arc<EpochsView>>,
    /// The view whose members they are.
    of: Option<Arc<EpochsView>>,
    addresses: BTreeSet<IpAddr>,
    /// Where members listen, and call from.
    sockets: BTreeMap<SocketAddr, PeerKey>,
}

/// Hosts whose handshakes come to nothing, and the clock for them.
#[derive(Clone)]
struct Failed {
    /// Those who have not proven their address, and those who have.
    hosts: Arc<[Mutex<Unwelcome>; 2]>,
    since: tokio::time::Instant,
}

impl Failed {
    fn new() -> Self {
        let hosts = [(); 2].map(|()| Mutex::new(Unwelcome::new()));
        Self { hosts: Arc::new(hosts), since: tokio::time::Instant::now() }
    }

    fn now(&self) -> Timestamp {
        Timestamp::default() + self.since.elapsed()
    }

    fn lock(&self, proven: bool) -> std::sync::MutexGuard<'_, Unwelcome> {
        self.hosts[usize::from(proven)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_early(&self, from: IpAddr, proven: bool) -> bool {
        self.lock(proven).is_early(self.now(), from)
    }

    fn note(&self, from: IpAddr, proven: bool) {
        self.lock(proven).note(self.now(), from);
    }
}

impl Known {
    fn new(mut epochs: watch::Receiver<Arc<EpochsView>>) -> Self {
        epochs.mark_changed();
        Self { epochs, of: None, addresses: BTreeSet::new(), sockets: BTreeMap::new() }
    }

    fn has(&mut self, address: IpAddr) -> bool {
        if self.epochs.has_changed().unwrap_or(false) {
            let view = Arc::clone(&self.epochs.borrow_and_update());
            // Guests come and go.
            if self.of.as_ref().is_some_and(|of| of.has_same_epochs(&view)) {
                return self.addresses.contains(&address.to_canonical());
            }
            self.of = Some(Arc::clone(&view));
            self.addresses = member_addresses(&view);
            let sockets = view
                .members()
                .flat_map(|(peer, member)| member.addresses().map(move |at| (canonical(at), peer)));
            self.sockets = sockets.collect();
        }
        self.addresses.contains(&address.to_canonical())
    }

    /// The member that listens there.
    fn at(&self, socket: SocketAddr) -> Option<PeerKey> {
        self.sockets.get(&canonical(socket)).copied()
    }
}

/// The addresses of all members at which they were reached.
pub(super) fn member_addresses(epochs: &EpochsView) -> BTreeSet<IpAddr> {
    let members = epochs.members().map(|(_, member)| member);
    members.flat_map(|member| member.addresses()).map(|at| at.ip().to_canonical()).collect()
}

/// Accepts until the endpoint closes.
pub(super) async fn listen(
    endpoint: Endpoint,
    epochs: watch::Receiver<Arc<EpochsView>>,
    limits: Limits,
    bars: Arc<Bars>,
    calls: Arc<Tally<Call>>,
    changes: mpsc::Sender<Change>,
) {
    let counts = Arc::new(Mutex::new(Counts {
        handshakes: Places::new(limits.handshakes, limits.handshakes_per_address),
        connections: 0,
        by_address: BTreeMap::new(),
    }));
    let mut known = Known::new(epochs.clone());
    let failed = Failed::new();
    while let Some(incoming) = endpoint.accept().await {
        let from = canonical(incoming.remote_address());
        let member = known.has(from.ip());
        // Others behind its address do not keep a member waiting.
        let welcome = || known.at(from).is_some_and(|peer| !bars.is_barred(peer));
        if failed.is_early(from.ip(), true) && !welcome() {
            calls.count(Call::Ignored);
            incoming.ignore();
            continue;
        }
        // Somebody may have called in its name: it is to show that this is its address.
        if !incoming.remote_address_validated() && failed.is_early(from.ip(), false) {
            calls.count(Call::Retried);
            let _ = incoming.retry();
            continue;
        }
        let Some((incoming, slot)) = admit(incoming, member, &limits, &counts, &calls) else {
            continue;
        };
        let (epochs, bars) = (epochs.clone(), bars.clone());
        let (calls, changes) = (calls.clone(), changes.clone());
        let failed = failed.clone();
        tokio::spawn(async move {
            let proven = incoming.remote_address_validated();
            let Some(connection) = handshake(incoming, &limits).await else {
                calls.count(Call::HandshakeFailed);
                failed.note(from.ip(), proven);
                return;
            };
            let Some(id) = peer_behind(&connection) else {
                calls.count(Call::HandshakeFailed);
                failed.note(from.ip(), true);
                return;
            };
            let member = {
                let view = epochs.borrow();
                view.peers().key(&id).filter(|_| view.member(&id).is_some())
            };
            let Some(peer) = member else {
                // Its place among handshakes is its until the driver knows of it.
                calls.count(Call::Stranger);
                let stranger = Change::Stranger { id, connection: connection.clone() };
                let began = tokio::time::Instant::now();
                let told = changes.send(stranger).await.is_ok();
                drop(slot);
                if told {
                    let why = connection.closed().await;
                    // Who is sent away, or is gone at once, is to be computed for seldom.
                    let refused = matches!(why, quinn::ConnectionError::LocallyClosed);
                    if refused || began.elapsed() < BRIEF {
                        failed.note(from.ip(), true);
                    }
                }
                return;
            };
            if bars.is_barred(peer) {
                calls.count(Call::RefusedBarred);
                failed.note(from.ip(), true);
                connection.close(quinn::VarInt::from_u32(1), b"barred");
                return;
            }
            calls.count(Call::Accepted);
            let mut slot = slot;
            slot.establish();
            let up = Change::Up { peer, connection: connection.clone(), outgoing: false };
            if changes.send(up).await.is_ok() {
                connection.closed().await;
            }
            drop(slot);
        });
    }
}

/// Applies the limits; nothing has been computed for the caller yet.
fn admit(
    incoming: Incoming,
    member: bool,
    limits: &Limits,
    counts: &Arc<Mutex<Counts>>,
    calls: &Tally<Call>,
) -> Option<(Incoming, Slot)> {
    let address = canonical(incoming.remote_address()).ip();
    let proven = incoming.remote_address_validated();
    let mut now = Slot::lock(counts);
    let refusal = if now.handshakes.taken() + now.connections >= limits.connections {
        Refusal::Total
    } else if proven && now.by_address.get(&address).is_some_and(|n| *n >= limits.per_address) {
        Refusal::Host
    } else {
        match now.handshakes.take(Caller { address, member, proven }) {
            Ok(place) => {
                drop(now);
                let slot = Slot { counts: counts.clone(), address, handshake: Some(place) };
                return Some((incoming, slot));
            }
            Err(refusal) => refusal,
        }
    };
    drop(now);
    match refusal {
        Refusal::Unproven => {
            calls.count(Call::Retried);
            let _ = incoming.retry();
            return None;
        }
        Refusal::Total => calls.count(Call::RefusedTotal),
        Refusal::Host => calls.count(Call::RefusedAddress),
        Refusal::Network => calls.count(Call::RefusedNetwork),
    }
    incoming.refuse();
    None
}

async fn handshake(incoming: Incoming, limits: &Limits) -> Option<Connection> {
    let connecting = incoming.accept().ok()?;
    tokio::time::timeout(limits.handshake_timeout, connecting).await.ok()?.ok()
}

/// The peer whose key the handshake proved.
pub(super) fn peer_behind(connection: &Connection) -> Option<PeerId> {
    let identity = connection.peer_identity()?;
    let keys = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    peer_of(keys.first()?)
}
