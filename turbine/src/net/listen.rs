//! Incoming calls: limits before anything is computed, then the handshake.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use quinn::{Connection, Endpoint, Incoming};
use rustls::pki_types::CertificateDer;
use strum::{IntoStaticStr, VariantArray};
use tokio::sync::{mpsc, watch};

use super::Limits;
use super::connections::Change;
use super::dial::Bars;
use super::tally::Tally;
use super::tls::peer_of;
use crate::counts::labelled;
use crate::epoch::EpochsView;
use crate::peer::PeerId;

/// The fate of a call from outside.
#[derive(Debug, Clone, Copy, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Call {
    /// A member is connected.
    Accepted,
    /// The caller must prove its address first.
    Retried,
    /// There are too many in all.
    RefusedTotal,
    /// There are too many from its address.
    RefusedAddress,
    /// It is barred.
    RefusedBarred,
    /// It is no member, or the handshake came to nothing.
    HandshakeFailed,
}

labelled!(Call);

#[derive(Debug, Default)]
struct Counts {
    handshakes: usize,
    connections: usize,
    by_address: BTreeMap<IpAddr, (usize, usize)>,
}

/// Counts a handshake or connection of an address for as long as it lives. The table has an
/// entry only for addresses that have one of either, so it is as bounded as they are.
struct Slot {
    counts: Arc<Mutex<Counts>>,
    address: IpAddr,
    established: bool,
}

impl Slot {
    fn lock(counts: &Mutex<Counts>) -> std::sync::MutexGuard<'_, Counts> {
        counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn establish(&mut self) {
        let mut counts = Self::lock(&self.counts);
        counts.handshakes -= 1;
        counts.connections += 1;
        let entry = counts.by_address.entry(self.address).or_default();
        entry.0 -= 1;
        entry.1 += 1;
        self.established = true;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = Self::lock(&self.counts);
        let entry = counts.by_address.entry(self.address).or_default();
        if self.established {
            entry.1 -= 1;
        } else {
            entry.0 -= 1;
        }
        if *entry == (0, 0) {
            counts.by_address.remove(&self.address);
        }
        if self.established { counts.connections -= 1 } else { counts.handshakes -= 1 }
    }
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
    let counts = Arc::new(Mutex::new(Counts::default()));
    while let Some(incoming) = endpoint.accept().await {
        let Some((incoming, slot)) = admit(incoming, &limits, &counts, &calls) else { continue };
        let (epochs, bars) = (epochs.clone(), bars.clone());
        let (calls, changes) = (calls.clone(), changes.clone());
        tokio::spawn(async move {
            let Some(connection) = handshake(incoming, &limits).await else {
                calls.count(Call::HandshakeFailed);
                return;
            };
            let member = |peer| epochs.borrow().peers().key(&peer);
            let Some(peer) = peer_behind(&connection).and_then(member) else {
                calls.count(Call::HandshakeFailed);
                return;
            };
            if bars.is_barred(peer) {
                calls.count(Call::RefusedBarred);
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
    limits: &Limits,
    counts: &Arc<Mutex<Counts>>,
    calls: &Tally<Call>,
) -> Option<(Incoming, Slot)> {
    let address = incoming.remote_address().ip();
    let mut now = Slot::lock(counts);
    let (handshakes, connections) = now.by_address.get(&address).copied().unwrap_or_default();
    if now.handshakes >= limits.handshakes || now.handshakes + now.connections >= limits.connections
    {
        drop(now);
        calls.count(Call::RefusedTotal);
        incoming.refuse();
        return None;
    }
    // Before any refusal by address: a forged address must not lock its owner out, and only
    // who is really there comes back with the token.
    let busy =
        now.handshakes >= limits.handshakes / 2 || handshakes >= limits.handshakes_per_address / 2;
    if busy && !incoming.remote_address_validated() {
        drop(now);
        calls.count(Call::Retried);
        let _ = incoming.retry();
        return None;
    }
    if handshakes >= limits.handshakes_per_address || connections >= limits.per_address {
        drop(now);
        calls.count(Call::RefusedAddress);
        incoming.refuse();
        return None;
    }
    now.handshakes += 1;
    now.by_address.entry(address).or_default().0 += 1;
    drop(now);
    Some((incoming, Slot { counts: counts.clone(), address, established: false }))
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
