//! Nodes that speak gossip and have no overlay, and strangers that are plain libp2p.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use fragcast_shredder::{Dialect, Kind, VerifiedMessage};
use fragcast_turbine::gossip::{GossipAction, Listener, Topics, topic::message_id};
use fragcast_turbine::membership::sample;
use fragcast_turbine::net::gossip::{
    Addresses, GossipHandle, GossipNetConfig, GossipNetError, GossipSnapshot, peer_id_of, spawn,
};
use fragcast_turbine::net::{GossipInput, GossipLink, Outlook};
use fragcast_turbine::testing::gateway;
use fragcast_turbine::{Epoch, EpochsView, Membership, PeerId as MemberId, Schedule};
use libp2p::core::Endpoint;
use libp2p::core::muxing::StreamMuxerExt;
use libp2p::core::transport::{DialOpts as Dial, PortUse, Transport};
use libp2p::core::upgrade::Version;
use libp2p::futures::{AsyncWriteExt, StreamExt};
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, MessageId, ValidationMode};
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, identify, noise, tcp, yamux};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub(crate) const CHAIN: u64 = 7;
pub(crate) const GUARD: Duration = Duration::from_secs(60);

pub(crate) fn topic(kind: Kind) -> String {
    Topics::new(CHAIN).name(kind).to_owned()
}

pub(crate) fn wire_of(message: &VerifiedMessage) -> Bytes {
    message.to_wire().into()
}

/// Waits for a node's numbers.
pub(crate) async fn until(handle: &GossipHandle, fine: impl Fn(&GossipSnapshot) -> bool) {
    match tokio::time::timeout(GUARD, handle.wait_for(fine)).await {
        Ok(found) => drop(found.expect("gossip runs")),
        Err(_) => panic!("not within {GUARD:?}: {:#?}", handle.snapshot()),
    }
}

/// A node; the test is its protocol.
pub(crate) struct Node {
    pub(crate) handle: GossipHandle,
    pub(crate) task: JoinHandle<()>,
    pub(crate) actions: mpsc::Sender<GossipAction>,
    pub(crate) inputs: mpsc::Receiver<GossipInput>,
    pub(crate) outlook: watch::Sender<Outlook>,
    messages: VecDeque<VerifiedMessage>,
    listeners: Vec<(Listener, bool)>,
}

impl Node {
    pub(crate) async fn act(&self, action: GossipAction) {
        self.actions.send(action).await.unwrap();
    }

    fn take(&mut self, input: GossipInput) {
        match input {
            GossipInput::Message { message, .. } => self.messages.push_back(*message),
            GossipInput::Listener(listener, present) => self.listeners.push((listener, present)),
        }
    }

    async fn more(&mut self) {
        let input = tokio::time::timeout(GUARD, self.inputs.recv()).await;
        self.take(input.expect("in time").expect("gossip runs"));
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> VerifiedMessage {
        loop {
            match self.messages.pop_front() {
                Some(message) => return message,
                None => self.more().await,
            }
        }
    }

    /// Waits to be told of a listener.
    pub(crate) async fn listener(&mut self, listener: Listener, present: bool) {
        while !self.listeners.contains(&(listener, present)) {
            self.more().await;
        }
        self.listeners.clear();
    }

    /// What was told of listeners.
    pub(crate) fn told(&mut self) -> Vec<(Listener, bool)> {
        while let Ok(input) = self.inputs.try_recv() {
            self.take(input);
        }
        self.listeners.clone()
    }

    /// Messages that have come and were not asked for.
    pub(crate) fn waiting(&mut self) -> usize {
        self.told();
        self.messages.len()
    }

    pub(crate) async fn until(&self, fine: impl Fn(&GossipSnapshot) -> bool) {
        until(&self.handle, fine).await;
    }

    pub(crate) fn address(&self) -> Multiaddr {
        self.handle.listen_addrs().remove(0)
    }

    /// The node's entry in the book of addresses.
    pub(crate) fn listed(&self) -> (MemberId, Vec<Multiaddr>) {
        (peer_id_of(&self.handle.local_peer_id()).unwrap(), vec![self.address()])
    }

    pub(crate) fn socket(&self) -> SocketAddr {
        let text = self.address().to_string();
        let parts: Vec<&str> = text.split('/').collect();
        format!("{}:{}", parts[2], parts[4]).parse().unwrap()
    }

    pub(crate) async fn stop(self) {
        self.handle.shutdown().await;
        tokio::time::timeout(GUARD, self.task).await.expect("ends in time").unwrap();
    }
}

/// A network of members.
pub(crate) struct World {
    pub(crate) members: Arc<Membership>,
    pub(crate) epochs: Arc<EpochsView>,
    keys: Vec<SigningKey>,
}

/// An epoch of some members, led by the gateway of the tests.
pub(crate) fn epoch(from_block: u64, members: &Arc<Membership>) -> Arc<Epoch> {
    let schedule = Schedule::new(vec![gateway().address()], 30).unwrap();
    Arc::new(Epoch::new(CHAIN, from_block, Arc::clone(members), schedule, []).unwrap())
}

impl World {
    pub(crate) fn new(n: usize) -> Self {
        let (members, keys) = sample(CHAIN, &vec![1; n]);
        let members = Arc::new(members);
        let epochs = Arc::new(EpochsView::new(vec![epoch(0, &members)]).unwrap());
        Self { members, epochs, keys }
    }

    /// Starts member `index`, which knows the addresses of `others`; a port that the system
    /// chooses unless the configuration has another one.
    pub(crate) async fn try_start(
        &self,
        index: u32,
        config: &GossipNetConfig,
        others: &[&Node],
        room: usize,
    ) -> Result<Node, GossipNetError> {
        self.try_start_in(self.epochs.clone(), index, config, others, room).await
    }

    async fn try_start_in(
        &self,
        epochs: Arc<EpochsView>,
        index: u32,
        config: &GossipNetConfig,
        others: &[&Node],
        room: usize,
    ) -> Result<Node, GossipNetError> {
        let mut config = config.clone();
        config.patience = Duration::ZERO;
        if config.listen == GossipNetConfig::new(CHAIN).listen {
            config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        }
        let addresses: Addresses = others.iter().map(|node| node.listed()).collect();
        let (actions, actions_rx) = mpsc::channel(64);
        let (inputs, inputs_rx) = mpsc::channel(room);
        let first = Outlook { window: (0, u64::MAX), epochs, behind: false };
        let (outlook, outlook_rx) = watch::channel(first);
        let link = GossipLink { actions: actions_rx, inputs, outlook: outlook_rx };
        let key = &self.keys[index as usize];
        let (handle, task) = spawn(config, key, Dialect::V0, addresses, link).await?;
        Ok(Node {
            handle,
            task,
            actions,
            inputs: inputs_rx,
            outlook,
            messages: VecDeque::new(),
            listeners: Vec::new(),
        })
    }

    /// The same, with the epochs that it knows.
    pub(crate) async fn start_in(
        &self,
        epochs: Arc<EpochsView>,
        index: u32,
        config: &GossipNetConfig,
        others: &[&Node],
    ) -> Node {
        self.try_start_in(epochs, index, config, others, 1024).await.unwrap()
    }

    pub(crate) async fn start(
        &self,
        index: u32,
        config: &GossipNetConfig,
        others: &[&Node],
    ) -> Node {
        self.try_start(index, config, others, 1024).await.unwrap()
    }

    /// All members, each connected to each.
    pub(crate) async fn start_all(&self, config: &GossipNetConfig) -> Vec<Node> {
        let mut nodes: Vec<Node> = Vec::new();
        for index in 0..self.keys.len() as u32 {
            let others: Vec<&Node> = nodes.iter().collect();
            let node = self.start(index, config, &others).await;
            nodes.push(node);
        }
        for node in &nodes {
            node.until(|s| s.members == nodes.len() - 1).await;
        }
        nodes
    }
}

#[derive(NetworkBehaviour)]
struct Plain {
    gossipsub: gossipsub::Behaviour,
    identify: identify::Behaviour,
}

/// Somebody who runs plain rust-libp2p and keeps to no limits.
pub(crate) struct Stranger {
    swarm: Swarm<Plain>,
    /// Connections.
    pub(crate) connected: usize,
    /// Peers that are subscribed to the fragments.
    pub(crate) subscribed: Vec<PeerId>,
    /// Topic and data of what came.
    pub(crate) received: Vec<(String, Bytes)>,
}

impl Stranger {
    pub(crate) fn new() -> Self {
        let mut config = gossipsub::ConfigBuilder::default();
        config
            .validation_mode(ValidationMode::Anonymous)
            .message_id_fn(|message| {
                MessageId::new(&message_id(message.topic.as_str(), &message.data))
            })
            .heartbeat_interval(Duration::from_millis(500))
            .max_transmit_size(13 * 1024 * 1024)
            .connection_handler_queue_len(100_000)
            .publish_queue_duration(GUARD);
        let config = config.build().unwrap();
        let swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|key| Plain {
                gossipsub: gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, config)
                    .unwrap(),
                identify: identify::Behaviour::new(identify::Config::new(
                    "test".to_owned(),
                    key.public(),
                )),
            })
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(GUARD * 10))
            .build();
        Self { swarm, connected: 0, subscribed: Vec::new(), received: Vec::new() }
    }

    pub(crate) fn id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    /// To all three topics.
    pub(crate) fn subscribe(&mut self) {
        for kind in [Kind::Env, Kind::Frag, Kind::Seal] {
            let topic = IdentTopic::new(topic(kind));
            self.swarm.behaviour_mut().gossipsub.subscribe(&topic).unwrap();
        }
    }

    pub(crate) fn dial(&mut self, node: &Node) {
        self.dial_address(node.address());
    }

    pub(crate) fn dial_address(&mut self, address: Multiaddr) {
        let call = DialOpts::unknown_peer_id().address(address).allocate_new_port().build();
        self.swarm.dial(call).unwrap();
    }

    pub(crate) fn publish(&mut self, kind: Kind, data: &Bytes) {
        self.publish_on(&topic(kind), data);
    }

    /// Once it is barred nobody is there to publish to.
    pub(crate) fn publish_on(&mut self, topic: &str, data: &Bytes) {
        let topic = IdentTopic::new(topic);
        let _ = self.swarm.behaviour_mut().gossipsub.publish(topic, data.to_vec());
    }

    /// Takes what comes.
    pub(crate) async fn next(&mut self) {
        match self.swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => self.connected += 1,
            SwarmEvent::ConnectionClosed { peer_id, num_established, .. } => {
                self.connected -= 1;
                if num_established == 0 {
                    self.subscribed.retain(|peer| *peer != peer_id);
                }
            }
            SwarmEvent::Behaviour(PlainEvent::Gossipsub(event)) => match event {
                gossipsub::Event::Message { message, .. } => {
                    self.received.push((message.topic.into_string(), message.data.into()));
                }
                gossipsub::Event::Subscribed { peer_id, topic: found }
                    if found.as_str() == topic(Kind::Frag) =>
                {
                    self.subscribed.push(peer_id);
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// Takes what comes until something is the case.
    pub(crate) async fn until(&mut self, fine: impl Fn(&Self) -> bool) {
        let wait = async {
            while !fine(self) {
                self.next().await;
            }
        };
        tokio::time::timeout(GUARD, wait).await.expect("in time");
    }

    /// Takes what comes while something else goes on.
    pub(crate) async fn drive_while<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = std::pin::pin!(other);
        loop {
            tokio::select! {
                done = &mut other => return done,
                () = self.next() => {}
            }
        }
    }

    pub(crate) async fn forever(mut self) {
        loop {
            self.next().await;
        }
    }
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(bytes.len()), bytes].concat()
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Sends messages to a node that has subscribed to nothing, until the connection is closed:
/// what no libp2p does by itself, so it is written by hand.
pub(crate) async fn pour(node: &Node, topics: &[&str], len: usize) -> usize {
    let key = Keypair::generate_ed25519();
    let mut transport = tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let dial = Dial { role: Endpoint::Dialer, port_use: PortUse::New };
    let (_, mut muxer) = transport.dial(node.address(), dial).unwrap().await.unwrap();
    let mut stream = std::future::poll_fn(|cx| {
        let _ = muxer.poll_unpin(cx);
        muxer.poll_outbound_unpin(cx)
    })
    .await
    .unwrap();
    let mut sent = 0usize;
    let pouring = async {
        stream.write_all(b"\x13/multistream/1.0.0\n\x0f/meshsub/1.1.0\n").await?;
        loop {
            for topic in topics {
                let mut data = vec![0x5a; len];
                data[..8].copy_from_slice(&sent.to_le_bytes());
                let message = [field(2, &data), field(4, topic.as_bytes())].concat();
                let rpc = field(2, &message);
                stream.write_all(&[varint(rpc.len()), rpc].concat()).await?;
                stream.flush().await?;
                sent += 1;
            }
        }
        #[expect(unreachable_code, reason = "says of what type the errors are")]
        std::io::Result::Ok(())
    };
    let driving = async {
        loop {
            let polled: Result<_, _> = std::future::poll_fn(|cx| muxer.poll_unpin(cx)).await;
            if polled.is_err() {
                return;
            }
        }
    };
    let end = async {
        tokio::select! {
            result = pouring => drop(result.unwrap_err()),
            () = driving => {}
        }
    };
    tokio::time::timeout(GUARD, end).await.expect("closed in time");
    sent
}
