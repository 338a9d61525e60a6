//! Dialling: a task for each member that is to be connected calls it while it is not, with growing
//! pauses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, TransportConfig};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::connections::{Change, REPLACED};
use super::guests::NoGuest;
use super::tls;
use crate::epoch::EpochsView;
use crate::peer::{PeerId, PeerKey};

/// After how long a peer's next address is tried beside those that have not answered yet (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);
/// How often a node is warned of another with its identity.
const TWIN_WARNING: Duration = Duration::from_secs(60);

/// Peers that misbehaved, and until when they stay out. At most one entry for each peer that is
/// known: member, contact or guest.
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

    /// A peer is known no more: its key is nobody's.
    pub(super) fn forget(&self, peer: PeerKey) {
        self.lock().remove(&peer);
    }
}

/// Addresses of peers that this node calls whatever tables say: at most
/// [`MAX_CONTACTS`](crate::peer::MAX_CONTACTS) with [`CONTACT_ADDRESSES`] each.
pub(super) type Contacts = Arc<Mutex<BTreeMap<PeerId, Vec<SocketAddr>>>>;

/// Addresses of a contact.
pub(super) const CONTACT_ADDRESSES: usize = 8;

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
    /// Where contacts are to be found, and members beside what their records say.
    pub(super) contacts: Contacts,
    /// When this node was last warned of another with its identity.
    pub(super) warned: Mutex<Option<tokio::time::Instant>>,
}

/// Whether the peer closed a connection because it took a newer one of this node's identity.
fn is_replaced(why: &ConnectionError) -> bool {
    matches!(why, ConnectionError::ApplicationClosed(close) if close.reason == REPLACED)
}

/// Whether the peer closed a connection because it has no place for this node.
fn has_no_room(why: &ConnectionError) -> bool {
    matches!(why, ConnectionError::ApplicationClosed(close) if close.reason == NoGuest::Full.reason())
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
            if !self.bars.is_barred(peer)
                && let Some(connection) = self.dial(id).await
            {
                let change = Change::Up { peer, connection: connection.clone(), outgoing: true };
                if self.changes.send(change).await.is_err() {
                    return;
                }
                let began = tokio::time::Instant::now();
                let why = connection.closed().await;
                if is_replaced(&why) {
                    self.warn_of_twin(id);
                }
                if has_no_room(&why) && self.changes.send(Change::Refused(peer)).await.is_err() {
                    return;
                }
                // A peer that closes the connection at once, such as one that has barred this node,
                // is called as seldom as one that does not answer.
                let refused = matches!(why, ConnectionError::ApplicationClosed(_));
                if !refused || began.elapsed() >= longest {
                    pause = first;
                }
            }
            // Reconnect as soon as the peer calls us, or after the pause.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// A peer says that this node has called it again, which it has not: another process has the
    /// same identity. Told once a minute.
    fn warn_of_twin(&self, peer: PeerId) {
        let now = tokio::time::Instant::now();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_some_and(|at| now.duration_since(at) < TWIN_WARNING) {
            return;
        }
        *warned = Some(now);
        tracing::warn!(
            ?peer,
            "another node with this node's identity key is connected to a peer: a key must not run \
             in two places"
        );
    }

    /// Where a peer may be: by the newest table, and by what this node was told of a contact.
    fn addresses(&self, peer: &PeerId) -> Vec<SocketAddr> {
        let member = self.epochs.borrow().member(peer).cloned();
        let mut addresses: Vec<SocketAddr> =
            member.iter().flat_map(|member| member.addresses()).collect();
        let contacts = self.contacts.lock().unwrap_or_else(PoisonError::into_inner);
        let more = contacts.get(peer).into_iter().flatten().copied();
        let more: Vec<SocketAddr> = more.filter(|more| !addresses.contains(more)).collect();
        addresses.extend(more);
        addresses
    }

    /// Tries a peer's addresses, side by side: each next one [`STAGGER`] after the one before, or as
    /// soon as all that are being tried have failed. The first that answers counts.
    async fn dial(self: &Arc<Self>, peer: PeerId) -> Option<Connection> {
        let mut waiting = self.addresses(&peer).into_iter();
        // Aborted, and so closed, when one has answered.
        let mut calls = JoinSet::new();
        loop {
            let next = waiting.next();
            let is_last = next.is_none();
            if let Some(address) = next {
                calls.spawn(Arc::clone(self).call(peer, address));
            }
            let stagger = tokio::time::sleep(STAGGER);
            tokio::pin!(stagger);
            loop {
                tokio::select! {
                    answer = calls.join_next() => match answer {
                        Some(Ok(Some(connection))) => return Some(connection),
                        Some(_) => {}
                        None if is_last => return None,
                        None => break,
                    },
                    () = &mut stagger, if !is_last => break,
                }
            }
        }
    }

    /// Calls a peer at one address.
    async fn call(self: Arc<Self>, peer: PeerId, address: SocketAddr) -> Option<Connection> {
        let tls = tls::client(&self.identity, peer).ok()?;
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(self.transport.clone());
        // The name is not checked: the key is. An address of a family that the socket has not is none.
        let connecting = self.endpoint.connect_with(config, address, "fragcast").ok()?;
        match tokio::time::timeout(self.timeout, connecting).await {
            Ok(Ok(connection)) => return Some(connection),
            Ok(Err(error)) => tracing::debug!(?peer, %address, %error, "cannot connect"),
            Err(_) => tracing::debug!(?peer, %address, "no answer"),
        }
        None
    }
}

/// The dialling tasks, one for each member that is to be connected.
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

    /// Whether a member is called while it is not connected.
    pub(super) fn is_running(&self, peer: PeerKey) -> bool {
        self.running.contains_key(&peer)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use quinn::{ServerConfig, VarInt};

    use super::*;
    use crate::epoch::Epoch;
    use crate::membership::{Member, Membership, RecordBody};
    use crate::net::{NetConfig, transport};
    use crate::schedule::Schedule;

    /// Two members, of which the second listens at `address`.
    fn epochs(keys: &[SigningKey; 2], address: std::net::SocketAddr) -> EpochsView {
        let member = |key: &SigningKey, addresses| {
            let peer = PeerId(key.verifying_key().to_bytes());
            let body = RecordBody {
                chain_id: 5,
                peer,
                sequence: 1,
                uplink_kbps: 1_000,
                coordinates: [0; 4],
                addresses,
            };
            Member::new(body.sign(key), 1)
        };
        let members = vec![
            member(&keys[0], vec![std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into()]),
            member(&keys[1], vec![address.into()]),
        ];
        let members = Arc::new(Membership::new(5, members).unwrap());
        let schedule = Schedule::new(vec![alloy_primitives::Address::ZERO], 30).unwrap();
        let epoch = Epoch::new(5, 0, members, schedule, []).unwrap();
        EpochsView::new(vec![Arc::new(epoch)]).unwrap()
    }

    /// A leader that listens on both families counts whom it calls over IPv4.
    #[tokio::test]
    async fn an_ipv4_address_that_an_ipv6_socket_has_called_is_that_of_the_record() {
        let Ok(both) = transport::bind("[::]:0".parse().unwrap()) else {
            println!("SKIPPED: this machine has no IPv6");
            return;
        };
        let keys = [1, 2].map(|n| SigningKey::from_bytes(&[n; 32]));
        let socket = transport::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let at = socket.local_addr().unwrap();
        let id = PeerId(keys[1].verifying_key().to_bytes());
        let (_published, epochs) = watch::channel(Arc::new(epochs(&keys, at)));
        let transport = transport::config(&NetConfig::default());
        let tls = tls::server(&keys[1], epochs.clone(), false).unwrap();
        let mut server = ServerConfig::with_crypto(Arc::new(tls));
        server.transport_config(transport.clone());
        let endpoint = |server, socket| {
            let runtime = Arc::new(quinn::TokioRuntime);
            Endpoint::new(quinn::EndpointConfig::default(), server, socket, runtime).unwrap()
        };
        let server = endpoint(Some(server), socket);
        tokio::spawn(async move { server.accept().await.unwrap().await.unwrap().closed().await });
        let mut config = ClientConfig::new(Arc::new(tls::client(&keys[0], id).unwrap()));
        config.transport_config(transport);
        let called = endpoint(None, both).connect_with(config, at, "fragcast").unwrap();
        let connection = called.await.unwrap();
        assert!(connection.remote_address().is_ipv6(), "as the socket says it");
        assert_eq!(transport::remote(&connection), at);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[expect(clippy::disallowed_methods, reason = "how often in what time is the question")]
    async fn a_peer_that_closes_at_once_is_called_ever_more_seldom() {
        let keys = [1, 2].map(|n| SigningKey::from_bytes(&[n; 32]));
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let view = epochs(&keys, socket.local_addr().unwrap());
        let id = PeerId(keys[1].verifying_key().to_bytes());
        let peer = view.peers().key(&id).unwrap();
        let (_published, epochs) = watch::channel(Arc::new(view));
        let transport = transport::config(&NetConfig::default());
        let tls = tls::server(&keys[1], epochs.clone(), false).unwrap();
        let mut server = ServerConfig::with_crypto(Arc::new(tls));
        server.transport_config(transport.clone());
        let runtime = Arc::new(quinn::TokioRuntime);
        let config = quinn::EndpointConfig::default();
        let server = Endpoint::new(config, Some(server), socket, runtime).unwrap();
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Some(call) = server.accept().await {
                if let Ok(connection) = call.await {
                    counted.fetch_add(1, Ordering::Relaxed);
                    connection.close(VarInt::from_u32(1), b"barred");
                }
            }
        });

        let first = Duration::from_millis(10);
        let (changes, mut up) = mpsc::channel(256);
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let dialler = Dialler {
            endpoint,
            identity: Arc::new(keys[0].clone()),
            transport,
            backoff: (first, Duration::from_secs(3_600)),
            timeout: Duration::from_secs(30),
            bars: Arc::default(),
            changes,
            epochs,
            contacts: Contacts::default(),
            warned: Mutex::default(),
        };
        let began = Instant::now();
        let mut dials = Dials::new(dialler);
        let (_up, connected) = watch::channel(false);
        dials.start(peer, id, connected);
        for _ in 0..5 {
            assert!(matches!(up.recv().await, Some(Change::Up { outgoing: true, .. })));
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
        let (calls, took) = (calls.load(Ordering::Relaxed), began.elapsed());
        // Pauses of 10, 20, 40 … ms: n calls take (2^(n - 1) - 1) times the first.
        let most = (took.as_millis() as f64 / first.as_millis() as f64 + 1.0).log2() + 2.0;
        assert!(f64::from(calls) <= most, "{calls} calls in {took:?}");
        dials.shutdown().await;
    }
}
