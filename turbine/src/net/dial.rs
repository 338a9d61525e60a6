//! Dialling: a task for each other member calls it while it is not connected, with growing
//! pauses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use quinn::{ClientConfig, Connection, Endpoint, TransportConfig};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::connections::Change;
use super::tls;
use crate::epoch::EpochsView;
use crate::membership::Member;
use crate::peer::{PeerId, PeerKey};

/// Peers that misbehaved, and until when they stay out. At most one entry a member.
#[derive(Debug, Default)]
pub(super) struct Bars(Mutex<BTreeMap<PeerKey, Instant>>);

impl Bars {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PeerKey, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::disallowed_methods, reason = "the driver is where time comes from")]
    pub(super) fn bar(&self, peer: PeerKey, time: Duration) {
        self.lock().insert(peer, Instant::now() + time);
    }

    #[expect(clippy::disallowed_methods, reason = "the driver is where time comes from")]
    pub(super) fn is_barred(&self, peer: PeerKey) -> bool {
        let mut bars = self.lock();
        let barred = bars.get(&peer).is_some_and(|until| *until > Instant::now());
        if !barred {
            bars.remove(&peer);
        }
        barred
    }

    /// A peer is a member no more: its key is nobody's.
    pub(super) fn forget(&self, peer: PeerKey) {
        self.lock().remove(&peer);
    }
}

/// State of a dialling task.
pub(super) struct Dialler {
    pub(super) endpoint: Endpoint,
    pub(super) identity: Arc<SigningKey>,
    pub(super) transport: Arc<TransportConfig>,
    pub(super) backoff: (Duration, Duration),
    pub(super) timeout: Duration,
    pub(super) bars: Arc<Bars>,
    pub(super) changes: mpsc::Sender<Change>,
    /// Where members are to be found: each call looks up the newest record.
    pub(super) epochs: watch::Receiver<Arc<EpochsView>>,
}

impl Dialler {
    /// Keeps calling a member while it is not connected. `patient` waits a little first, so
    /// that of two nodes that start together only one calls.
    async fn run(
        self: Arc<Self>,
        peer: PeerKey,
        id: PeerId,
        patient: bool,
        mut up: watch::Receiver<bool>,
    ) {
        let (first, longest) = self.backoff;
        let mut pause = first;
        if patient {
            tokio::time::sleep(first * 2).await;
        }
        loop {
            if up.wait_for(|up| !*up).await.is_err() {
                return;
            }
            let member = self.epochs.borrow().member(&id).cloned();
            if let Some(member) = member
                && !self.bars.is_barred(peer)
                && let Some(connection) = self.dial(&member).await
            {
                pause = first;
                let change = Change::Up { peer, connection: connection.clone(), outgoing: true };
                if self.changes.send(change).await.is_err() {
                    return;
                }
                connection.closed().await;
            }
            // Reconnect as soon as the peer calls us, or after the pause.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Tries the member's addresses in their order.
    async fn dial(&self, member: &Member) -> Option<Connection> {
        for address in member.record.addresses() {
            let tls = tls::client(&self.identity, member.peer()).ok()?;
            let mut config = ClientConfig::new(Arc::new(tls));
            config.transport_config(self.transport.clone());
            // The name is not checked: the key is.
            let Ok(connecting) = self.endpoint.connect_with(config, address, "fragcast") else {
                continue;
            };
            match tokio::time::timeout(self.timeout, connecting).await {
                Ok(Ok(connection)) => return Some(connection),
                Ok(Err(error)) => {
                    tracing::debug!(peer = ?member.peer(), %address, %error, "cannot connect");
                }
                Err(_) => tracing::debug!(peer = ?member.peer(), %address, "no answer"),
            }
        }
        None
    }
}

/// The dialling tasks, one for each other member.
pub(super) struct Dials {
    dialler: Arc<Dialler>,
    me: PeerId,
    tasks: JoinSet<()>,
    running: BTreeMap<PeerKey, AbortHandle>,
}

impl Dials {
    pub(super) fn new(dialler: Dialler) -> Self {
        let me = PeerId(dialler.identity.verifying_key().to_bytes());
        let (tasks, running) = (JoinSet::new(), BTreeMap::new());
        Self { dialler: Arc::new(dialler), me, tasks, running }
    }

    /// Begins to call a member while `up` says that it is not connected. Of two members the one
    /// with the lower id calls first.
    pub(super) fn start(&mut self, peer: PeerKey, id: PeerId, up: watch::Receiver<bool>) {
        let patient = id < self.me;
        let task = self.tasks.spawn(Arc::clone(&self.dialler).run(peer, id, patient, up));
        self.running.insert(peer, task);
    }

    /// Calls a member no more.
    pub(super) fn stop(&mut self, peer: PeerKey) {
        if let Some(task) = self.running.remove(&peer) {
            task.abort();
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// Ends all calls.
    pub(super) async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}
