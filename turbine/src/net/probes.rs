//! Calling newcomers back: whether a key answers at each address that its record says.
//!
//! A call is one handshake at each of four addresses at most, and a goodbye. That it succeeds is told to
//! the protocol, that it does not to nobody. The protocol gives eight newcomers a second at most, so what anybody can have this node
//! send to an address that is not his is a few packets of a handshake, from one node of the network at
//! a time: less than his record cost him.

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use quinn::{ClientConfig, Endpoint, TransportConfig, VarInt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::connections::Change;
use super::tls;
use crate::protocol::Probe;

/// Calls at a time.
const MAX_CALLS: usize = 64;

/// See the module.
pub(super) struct Probes {
    endpoint: Endpoint,
    identity: Arc<SigningKey>,
    transport: Arc<TransportConfig>,
    timeout: Duration,
    changes: mpsc::Sender<Change>,
    calls: JoinSet<()>,
}

impl Probes {
    pub(super) fn new(
        endpoint: Endpoint,
        identity: Arc<SigningKey>,
        transport: Arc<TransportConfig>,
        timeout: Duration,
        changes: mpsc::Sender<Change>,
    ) -> Self {
        Self { endpoint, identity, transport, timeout, changes, calls: JoinSet::new() }
    }

    /// Calls a newcomer, unless too many are being called.
    pub(super) fn call(&mut self, probe: Probe) {
        while self.calls.try_join_next().is_some() {}
        if self.calls.len() >= MAX_CALLS {
            return;
        }
        let (endpoint, identity) = (self.endpoint.clone(), Arc::clone(&self.identity));
        let (transport, changes) = (Arc::clone(&self.transport), self.changes.clone());
        let timeout = self.timeout;
        self.calls.spawn(async move {
            let peer = probe.peer;
            // Side by side: addresses that do not answer keep the place no longer than one.
            let mut calls = JoinSet::new();
            for address in probe.addresses {
                let Ok(tls) = tls::client(&identity, peer) else { return };
                let mut config = ClientConfig::new(Arc::new(tls));
                config.transport_config(Arc::clone(&transport));
                // An address of a family that the socket has not is not called.
                let Ok(connecting) = endpoint.connect_with(config, address, "fragcast") else {
                    continue;
                };
                let changes = changes.clone();
                calls.spawn(async move {
                    match tokio::time::timeout(timeout, connecting).await {
                        Ok(Ok(connection)) => {
                            // Nobody listens any more: the driver ends.
                            let _ = changes.send(Change::Reached(peer, address)).await;
                            connection.close(VarInt::from_u32(0), b"called back");
                        }
                        Ok(Err(error)) => {
                            tracing::debug!(?peer, %address, %error, "a newcomer does not answer");
                        }
                        Err(_) => tracing::debug!(?peer, %address, "a newcomer does not answer"),
                    }
                });
            }
            while calls.join_next().await.is_some() {}
        });
    }

    /// Ends all calls.
    pub(super) async fn shutdown(mut self) {
        self.calls.shutdown().await;
    }
}
