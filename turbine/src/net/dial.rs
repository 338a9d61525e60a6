//! Whom we call: every other member that is not connected, with growing pauses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use quinn::{ClientConfig, Connection, Endpoint, TransportConfig};
use tokio::sync::{mpsc, watch};

use super::connections::Change;
use super::tls;
use crate::membership::{Member, PeerIndex};

/// Peers that misbehaved, and until when they stay out. At most one entry a member.
#[derive(Debug, Default)]
pub(super) struct Bars(Mutex<BTreeMap<PeerIndex, Instant>>);

impl Bars {
    #[expect(clippy::disallowed_methods, reason = "the driver is where time comes from")]
    pub(super) fn bar(&self, peer: PeerIndex, time: Duration) {
        let mut bars = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bars.insert(peer, Instant::now() + time);
    }

    #[expect(clippy::disallowed_methods, reason = "the driver is where time comes from")]
    pub(super) fn is_barred(&self, peer: PeerIndex) -> bool {
        let mut bars = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let barred = bars.get(&peer).is_some_and(|until| *until > Instant::now());
        if !barred {
            bars.remove(&peer);
        }
        barred
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
}

impl Dialler {
    /// Keeps calling `member` while it is not connected. `patient` waits a little first, so
    /// that of two nodes that start together only one calls.
    pub(super) async fn run(
        self: Arc<Self>,
        peer: PeerIndex,
        member: Member,
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
            if !self.bars.is_barred(peer)
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
