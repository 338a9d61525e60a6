//! The link emulator: it passes UDP packets between processes on loopback, and delays, drops and
//! paces them in real time as [`crate::link`] decides.
//!
//! ```text
//! node i at P_i ─▶ E_j ─▶ depart, cross ─▶ heap by due time ─▶ enter ─▶ E_i ─▶ P_j node j
//! ```
//!
//! The emulator has a socket E_i for every node i, whose address the node's record advertises; the
//! node itself listens at P_i. A packet that comes to E_j from P_i goes from i to j. It is sent
//! from E_i, so that j sees the address by which it knows i, and its answer comes back to E_i.
//!
//! It works in user space because network namespaces with netem need root, and because netem has
//! neither these queues nor these losses: here virtual and real time use the same code. The price
//! is that every packet passes through another process and that timers fire late. The lateness is
//! measured, and each stage continues from the time that was due, so that lateness does not add up
//! along a path. The relay's threads get a higher priority than the nodes if the system permits,
//! since otherwise the many threads of the nodes would delay them.
//!
//! A packet counts with its IP and UDP headers, which are [`HEADERS`] bytes. The costs of a hop and
//! of the processor are left out, since real nodes have their own.
//!
//! Bounds: at most [`MAX_HELD`] bytes of packets wait; further packets are dropped and counted.

mod stats;

use std::cmp::Ordering as Order;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::link::{LinkConfig, Links};
use crate::random;
use crate::world::World;
use crate::{Nanos, NodeId};

use stats::Counts;
pub use stats::{Lateness, RelayStats};

/// IPv4 and UDP headers of a packet.
pub const HEADERS: u64 = 28;

/// The most payload bytes that wait for their time.
pub const MAX_HELD: usize = 256 * 1024 * 1024;

/// The buffer requested for each socket and direction; the operating system may give less.
const SOCKET_BUFFER: usize = 8 * 1024 * 1024;

/// How often an idle thread checks whether it should end.
const IDLE: Duration = Duration::from_millis(100);

/// The most packets that are sent before the heap is examined again.
const BURST: usize = 64;

/// Nice value of the relay's threads, if the system grants it: -20 to 19, lower runs first.
#[cfg(target_os = "linux")]
const NICE: i32 = -10;

/// The addresses of the nodes.
#[derive(Debug, Default)]
struct Nodes {
    address: Vec<Option<SocketAddr>>,
    by_source: BTreeMap<SocketAddr, NodeId>,
}

/// State shared by the handle and the threads.
#[derive(Debug)]
struct Control {
    stop: AtomicBool,
    nodes: RwLock<Nodes>,
    counts: Mutex<Counts>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    fn count(&self, add: impl FnOnce(&mut RelayStats)) {
        add(&mut lock(&self.counts).stats);
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn node_at(&self, source: SocketAddr) -> Option<NodeId> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.by_source.get(&source).copied()
    }

    fn address(&self, node: NodeId) -> Option<SocketAddr> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.address[node as usize]
    }
}

/// A packet that is being delayed.
#[derive(Debug)]
struct Held {
    at: Nanos,
    /// Orders packets of the same time.
    sequence: u64,
    from: NodeId,
    to: NodeId,
    /// Whether it has passed the downlink's queue.
    through: bool,
    payload: Box<[u8]>,
}

impl Ord for Held {
    /// The earliest packet is the greatest, so that a max-heap returns it first.
    fn cmp(&self, other: &Self) -> Order {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Order::Equal
    }
}

impl Eq for Held {}

struct State<'w> {
    links: Links<'w>,
    heap: BinaryHeap<Held>,
    held: usize,
    sequence: u64,
}

impl State<'_> {
    fn push(&mut self, mut packet: Held) {
        packet.sequence = self.sequence;
        self.sequence += 1;
        self.heap.push(packet);
    }
}

/// Forwards packets; all threads work on it. It borrows the world from the stack of the owning
/// thread.
struct Forwarder<'w> {
    control: &'w Control,
    sockets: &'w [UdpSocket],
    state: Mutex<State<'w>>,
    /// Signalled when the earliest packet changes.
    wake: Condvar,
    start: Instant,
}

impl Forwarder<'_> {
    fn now(&self) -> Nanos {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }

    /// Receives packets at the socket of node `to`.
    fn receive(&self, to: NodeId) {
        favour_this_thread();
        let socket = &self.sockets[to as usize];
        let mut buffer = vec![0; 1 << 16];
        while !self.control.stopping() {
            // An error is a time-out, or the report that an earlier packet reached no socket.
            let Ok((len, source)) = socket.recv_from(&mut buffer) else { continue };
            match self.control.node_at(source) {
                Some(from) => self.take(from, to, &buffer[..len]),
                None => self.control.count(|stats| stats.unknown += 1),
            }
        }
    }

    fn take(&self, from: NodeId, to: NodeId, payload: &[u8]) {
        let bytes = payload.len() as u64 + HEADERS;
        let now = self.now();
        self.control.count(|stats| {
            stats.packets += 1;
            stats.sent[from as usize] += bytes;
        });
        let mut state = lock(&self.state);
        let Some(departed) = state.links.depart(now, from, bytes) else {
            return self.control.count(|stats| stats.dropped_uplink += 1);
        };
        let Some(at) = state.links.cross(departed, from, to) else {
            return self.control.count(|stats| stats.lost += 1);
        };
        if state.held + payload.len() > MAX_HELD {
            return self.control.count(|stats| stats.overflow += 1);
        }
        state.held += payload.len();
        let earliest = state.heap.peek().is_none_or(|first| at < first.at);
        state.push(Held { at, sequence: 0, from, to, through: false, payload: payload.into() });
        drop(state);
        if earliest {
            self.wake.notify_one();
        }
    }

    /// Sends packets when they are due.
    fn dispatch(&self) {
        favour_this_thread();
        let mut due = Vec::with_capacity(BURST);
        while !self.control.stopping() {
            let mut state = lock(&self.state);
            let now = self.now();
            self.collect(&mut state, now, &mut due);
            if due.is_empty() {
                let next = state.heap.peek().map_or(IDLE, |first| {
                    Duration::from_nanos(first.at.saturating_sub(now)).min(IDLE)
                });
                drop(self.wake.wait_timeout(state, next));
                continue;
            }
            drop(state);
            for packet in due.drain(..) {
                self.send(&packet);
            }
        }
    }

    /// Moves packets that are due by `now` to their next stage, and takes out those that have
    /// passed all.
    fn collect(&self, state: &mut State<'_>, now: Nanos, due: &mut Vec<Held>) {
        while due.len() < BURST && state.heap.peek().is_some_and(|first| first.at <= now) {
            let Some(packet) = state.heap.pop() else { return };
            if packet.through {
                state.held -= packet.payload.len();
                due.push(packet);
                continue;
            }
            let bytes = packet.payload.len() as u64 + HEADERS;
            match state.links.enter(packet.at, packet.to, bytes) {
                Some(at) => state.push(Held { at, through: true, ..packet }),
                None => {
                    state.held -= packet.payload.len();
                    self.control.count(|stats| stats.dropped_downlink += 1);
                }
            }
        }
    }

    fn send(&self, packet: &Held) {
        let Some(address) = self.control.address(packet.to) else {
            return self.control.count(|stats| stats.unknown += 1);
        };
        let sent = self.sockets[packet.from as usize].send_to(&packet.payload, address);
        let late = self.now().saturating_sub(packet.at) / 1_000;
        let mut counts = lock(&self.control.counts);
        if sent.is_ok() {
            counts.stats.delivered += 1;
            counts.late.saturating_record(late);
        } else {
            counts.stats.refused += 1;
        }
    }
}

/// Gives this thread a higher priority than the nodes. The system may refuse; packets are then
/// later, which the lateness shows.
fn favour_this_thread() {
    #[cfg(target_os = "linux")]
    {
        // By default waits may take 50 µs longer than requested.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        // On Linux this sets the priority of this thread alone, and needs privileges.
        let _ = rustix::process::setpriority_process(None, NICE);
    }
}

/// A running emulator, which ends when it is dropped.
#[derive(Debug)]
pub struct Relay {
    control: Arc<Control>,
    owner: Option<JoinHandle<()>>,
    advertised: Vec<SocketAddr>,
}

impl Relay {
    /// Binds a socket for every node of `world` and starts the threads. Ignores the costs of a hop
    /// and of the processor in `links`.
    ///
    /// # Errors
    /// The operating system refused a socket or thread.
    pub fn start(world: &World, links: LinkConfig, seed: u64) -> io::Result<Self> {
        let sockets = (0..world.len()).map(|_| socket()).collect::<io::Result<Vec<_>>>()?;
        let advertised = sockets.iter().map(UdpSocket::local_addr).collect::<io::Result<_>>()?;
        let nodes = Nodes { address: vec![None; world.len()], by_source: BTreeMap::new() };
        let control = Arc::new(Control {
            stop: AtomicBool::new(false),
            nodes: RwLock::new(nodes),
            counts: Mutex::new(Counts::new(world.len())),
        });
        let (started, starting) = mpsc::channel();
        let (world, controlled) = (world.clone(), Arc::clone(&control));
        let links = LinkConfig { hop: 0, packet_cpu: 0, ..links };
        let owner = thread::Builder::new()
            .name("relay".into())
            .spawn(move || own(&world, links, seed, &sockets, &controlled, &started))?;
        let relay = Self { control, owner: Some(owner), advertised };
        // The thread sends the result of the start before it drops the sender.
        starting.recv().unwrap_or_else(|_| Err(io::Error::other("the relay did not start")))?;
        Ok(relay)
    }

    /// The address by which the other nodes know `node`.
    pub fn advertised(&self, node: NodeId) -> SocketAddr {
        self.advertised[node as usize]
    }

    /// Sets the address at which `node` listens and from which it sends. Packets to and from it are
    /// dropped until then.
    pub fn attach(&self, node: NodeId, address: SocketAddr) {
        let mut nodes = self.control.nodes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = nodes.address[node as usize].replace(address) {
            nodes.by_source.remove(&old);
        }
        nodes.by_source.insert(address, node);
    }

    /// Returns the counts and resets them.
    pub fn take_stats(&self) -> RelayStats {
        lock(&self.control.counts).take()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.control.stop.store(true, Ordering::Relaxed);
        if let Some(owner) = self.owner.take() {
            let _ = owner.join();
        }
    }
}

/// Owns the world and everything that borrows it. Returns when all threads have ended.
fn own(
    world: &World,
    links: LinkConfig,
    seed: u64,
    sockets: &[UdpSocket],
    control: &Control,
    started: &mpsc::Sender<io::Result<()>>,
) {
    let links = Links::new(world, links, random::stream(seed, "relay", 0));
    let state = State { links, heap: BinaryHeap::new(), held: 0, sequence: 0 };
    let forwarder = Forwarder {
        control,
        sockets,
        state: Mutex::new(state),
        wake: Condvar::new(),
        start: Instant::now(),
    };
    thread::scope(|scope| {
        for node in 0..sockets.len() as NodeId {
            let forwarder = &forwarder;
            let thread = thread::Builder::new().name(format!("relay-{node}"));
            if let Err(error) = thread.spawn_scoped(scope, move || forwarder.receive(node)) {
                // This ends the threads that run already.
                control.stop.store(true, Ordering::Relaxed);
                let _ = started.send(Err(error));
                return;
            }
        }
        let _ = started.send(Ok(()));
        forwarder.dispatch();
    });
}

fn socket() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // The system may refuse or give less; the relay works all the same.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_read_timeout(Some(IDLE))?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
