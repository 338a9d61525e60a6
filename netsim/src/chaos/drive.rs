//! Drives all nodes, as their daemons would, through the faults of a plan.

mod connecting;
mod faults;
mod leading;
mod receiving;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use fragcast_shredder::{Kind, Limits};
use fragcast_turbine::{
    CatchUpConfig, Config, GossipConfig, Policy, Protocol, RepairConfig, Route, RoutePolicy, Setup,
};

use super::Options;
use super::chain::{BLOCK_TIME, CHAIN, Chain, begins_at, built_at, leader_key};
use super::check::{Bounds, Check, Invariant, largest};
use super::gossip::Topics;
use super::lies::Lies;
use super::node::{Host, Process};
use super::paths::Paths;
use super::plan::{GATEWAYS, Plan};
use super::report::{Outcome, Tallies};
use crate::outcome::Digest;
use crate::queue::Queue;
use crate::random::{self, Stream};
use crate::{MILLIS, Nanos, NodeId};

/// How often nodes are held to what they must have.
const CHECK_EVERY: Nanos = 250 * MILLIS;
/// Timers of one process at one time, beyond which time is taken to stand still.
const MAX_SPINS: u32 = 10_000;

/// Something that happens.
#[derive(Debug)]
enum Event {
    /// A block begins.
    Block(u64),
    /// A message of a block may be due; `written`: the journal has it.
    Produce { block: u64, written: bool },
    /// A datagram arrives.
    Datagram { from: NodeId, to: NodeId, session: u32, bytes: Bytes },
    /// A frame of a stream may have arrived.
    Frames { from: NodeId, to: NodeId },
    /// A message arrives by gossip.
    Gossip { from: NodeId, to: NodeId, kind: Kind, wire: Bytes },
    /// A node hears who listens.
    Listener { of: NodeId, to: NodeId, on: bool },
    /// A process's timer.
    Timer { node: NodeId, incarnation: u32, at: Nanos },
    /// A fault begins.
    Begin(usize),
    /// A fault ends.
    End(usize),
    /// A path may have been blocked for too long.
    Idle { a: NodeId, b: NodeId },
    /// A call may succeed.
    Call { a: NodeId, b: NodeId },
    /// A liar speaks.
    Speak { fault: usize, tick: u64 },
    /// Nodes are held to what they must have.
    Check,
}

/// A run.
struct Drive {
    options: Options,
    plan: Plan,
    setup: Setup,
    chain: Chain,
    hosts: Vec<Host>,
    paths: Paths,
    topics: Topics,
    lies: Lies,
    queue: Queue<Event>,
    now: Nanos,
    /// Faults that last.
    active: BTreeSet<usize>,
    /// Nodes to be drained before anything else happens.
    dirty: BTreeSet<NodeId>,
    random: Stream,
    /// Nodes that execute nothing and tell no head.
    relays: BTreeSet<NodeId>,
    check: Check,
    tallies: Tallies,
    digest: Digest,
    /// How far ahead of its head an application takes anything.
    ahead: u64,
}

/// One node of so many executes nothing.
const RELAYS: usize = 4;

/// The protocol's configuration: tables are small, so that their bounds are reached.
fn config(seed: u64) -> Config {
    let mebibyte = 1024 * 1024;
    let route = match seed % 3 {
        0 => RoutePolicy::Fixed(Route::Turbine { fanout: 4 }),
        1 => RoutePolicy::Fixed(Route::Rotor),
        _ => RoutePolicy::Auto,
    };
    Config {
        route,
        block_time: Duration::from_nanos(BLOCK_TIME),
        reassembly: Limits { memory: 24 * mebibyte },
        validator_capacity: 2_048,
        repair: RepairConfig { memory: 16 * mebibyte, ..RepairConfig::default() },
        gossip: GossipConfig {
            policy: Policy::Standby,
            memory: 8 * mebibyte,
            ..GossipConfig::default()
        },
        // A few blocks are more than a node has to catch up with after most faults.
        catch_up: CatchUpConfig {
            ahead: if seed.is_multiple_of(2) { 32 } else { 3 },
            ..CatchUpConfig::default()
        },
        ..Config::new(CHAIN)
    }
}

/// Runs the network of `options` until an invariant breaks or the run ends.
///
/// ```
/// use netsim::SECONDS;
/// use netsim::chaos::{Options, run};
///
/// let outcome = run(&Options::new(1, 8, 10 * SECONDS));
/// assert_eq!(outcome.broken, None);
/// assert!(outcome.tallies.delivered > 0);
/// ```
///
/// # Panics
/// If there are fewer than [`Options::MIN_NODES`] nodes.
pub fn run(options: &Options) -> Outcome {
    assert!(options.nodes >= Options::MIN_NODES, "fewer nodes have no quorum of honest ones");
    let mut drive = Drive::new(options);
    drive.start();
    while let Some((at, event)) = drive.queue.pop() {
        if at > options.end() || drive.check.broken.is_some() {
            break;
        }
        drive.now = at;
        drive.step(event);
        while let Some(node) = drive.dirty.pop_first() {
            drive.pump(node);
        }
    }
    drive.outcome()
}

impl Drive {
    fn new(options: &Options) -> Self {
        let Options { seed, nodes, planned, .. } = *options;
        let whole = Plan::new(seed, nodes, planned);
        let plan = match &options.only {
            Some(numbers) => whole.only(numbers),
            None => whole,
        };
        let chain = Chain::new(seed, nodes);
        let config = config(seed);
        let ahead = config.catch_up.ahead;
        let bounds = Bounds::of(&config, largest(nodes));
        let (members, schedule) = (chain.members.clone(), chain.schedule.clone());
        let delegations = chain.delegations.iter().copied();
        let setup =
            Setup::new(config, members, schedule, delegations).expect("delegations of our own");
        let honest = nodes as usize - plan.liars.len();
        let mut random = random::stream(seed, "chaos relays", 0);
        let relays = (0..nodes).filter(|_| random::below(&mut random, RELAYS) == 0).collect();
        Self {
            setup,
            chain,
            hosts: (0..nodes).map(|_| Host::default()).collect(),
            paths: Paths::new(nodes),
            topics: Topics::default(),
            lies: Lies::new(seed),
            queue: Queue::default(),
            now: 0,
            active: BTreeSet::new(),
            dirty: BTreeSet::new(),
            random: random::stream(seed, "chaos network", 0),
            check: Check::new(bounds, options.bound, nodes as usize, honest),
            tallies: Tallies::default(),
            digest: Digest::new(),
            ahead,
            options: options.clone(),
            relays,
            plan,
        }
    }

    fn start(&mut self) {
        for (number, fault) in self.plan.faults.iter().enumerate() {
            self.queue.push(fault.at, Event::Begin(number));
            self.queue.push(fault.until, Event::End(number));
        }
        let first = super::chain::FIRST_BLOCK;
        self.queue.push(begins_at(first), Event::Block(first));
        self.queue.push(CHECK_EVERY, Event::Check);
        for node in 0..self.options.nodes {
            self.start_process(node);
        }
        self.refresh();
    }

    fn protocol(&mut self, node: NodeId) -> Protocol {
        let leader = (node < GATEWAYS).then(|| leader_key(node.into()));
        self.setup.node(&self.chain.peer(node), leader).expect("a member of the table")
    }

    /// A daemon starts with what is on its disk.
    fn start_process(&mut self, node: NodeId) {
        let mut protocol = self.protocol(node);
        let host = &mut self.hosts[node as usize];
        let time = host.time(self.now);
        // Who executes nothing has no block from before.
        let head = host.head.filter(|_| !self.relays.contains(&node));
        if let Some(head) = head {
            protocol.handle_verified(time, head, built_at(head));
            host.done.retain(|block, _| *block <= head);
        } else {
            host.done.clear();
        }
        host.base = head.map(|head| head + 1);
        host.verified = head;
        host.process = Some(Process::new(protocol));
        for of in self.topics.others(node) {
            self.queue.push(self.now + 50 * MILLIS, Event::Listener { of, to: node, on: true });
        }
        self.dirty.insert(node);
    }

    fn step(&mut self, event: Event) {
        self.tallies.events += 1;
        match event {
            Event::Block(block) => {
                self.queue.push(begins_at(block + 1), Event::Block(block + 1));
                self.produce(block, false);
            }
            Event::Produce { block, written } => self.produce(block, written),
            Event::Datagram { from, to, session, bytes } => {
                self.datagram_arrives((from, to), session, bytes);
            }
            Event::Frames { from, to } => self.frame_arrives(from, to),
            Event::Gossip { from, to, kind, wire } => self.gossip_arrives((from, to), kind, wire),
            Event::Listener { of, to, on } => self.listener(of, to, on),
            Event::Timer { node, incarnation, at } => self.timer(node, incarnation, at),
            Event::Begin(number) => self.begin(number),
            Event::End(number) => self.end(number),
            Event::Idle { a, b } => self.idle(a, b),
            Event::Call { a, b } => self.answer(a, b),
            Event::Speak { fault, tick } => self.speak(fault, tick),
            Event::Check => self.hold(),
        }
    }

    fn timer(&mut self, node: NodeId, incarnation: u32, at: Nanos) {
        let now = self.now;
        let host = &mut self.hosts[node as usize];
        if host.incarnation != incarnation || !host.is_running() {
            return;
        }
        let time = host.time(now);
        let Some(process) = host.process.as_mut().filter(|process| process.armed == at) else {
            return;
        };
        process.armed = Nanos::MAX;
        if process.protocol.poll_timeout(time).is_some_and(|due| due <= time) {
            process.protocol.handle_timeout(time);
        }
        let (before, spins) = process.spins;
        process.spins = if before == now { (now, spins + 1) } else { (now, 0) };
        if process.spins.1 > MAX_SPINS {
            let what = format!("{MAX_SPINS} timers at one time");
            self.check.broke(now, node, Invariant::Time, what);
        }
        self.dirty.insert(node);
    }

    /// Holds every honest node to what it must have by now.
    fn hold(&mut self) {
        let now = self.now;
        self.queue.push(now + CHECK_EVERY, Event::Check);
        for node in 0..self.options.nodes {
            if self.plan.liars.contains(&node) {
                continue;
            }
            let host = &mut self.hosts[node as usize];
            let time = host.time(now);
            if host.is_running()
                && let Some(process) = &mut host.process
            {
                // What is handed to an application it has dealt with at once.
                process.protocol.handle_idle(time, true);
                self.dirty.insert(node);
            }
            let heard = (0..self.options.nodes).filter(|peer| self.hears(node, *peer)).count();
            let well = self.hosts[node as usize].is_running()
                && self.check.is_quorum(heard)
                && self.forgets(node) == 0;
            let host = &mut self.hosts[node as usize];
            host.settle(now);
            if !well {
                host.well_since = None;
                continue;
            }
            host.well_since.get_or_insert(now);
            // Who starts with nothing is held to the blocks that begin from now on, but for the one
            // after next: it learns where the chain stands first.
            if host.base.is_none() {
                let head = super::chain::current(now);
                host.base = Some(head + 2);
                let time = host.time(now);
                let executes = !self.relays.contains(&node);
                if let Some(process) = host.process.as_mut().filter(|_| executes) {
                    // Its application gets the state of the head from elsewhere.
                    host.verified = Some(head);
                    process.protocol.handle_verified(time, head, built_at(head));
                    self.dirty.insert(node);
                }
            }
            self.check.hold(now, node, &self.hosts[node as usize]);
        }
    }

    /// Whether an honest host hears another one that is honest; itself too.
    fn hears(&self, node: NodeId, peer: NodeId) -> bool {
        if node == peer {
            return true;
        }
        !self.plan.liars.contains(&peer)
            && self.hosts[peer as usize].is_running()
            && self.paths.is_up(node, peer)
            && self.paths.is_up(peer, node)
            && self.paths.conditions.is_open(node, peer)
    }

    fn chance(&mut self, of_a_thousand: u32) -> bool {
        of_a_thousand > 0 && random::below(&mut self.random, 1_000) < of_a_thousand as usize
    }

    fn outcome(self) -> Outcome {
        let mut tallies = self.tallies;
        tallies.completed = self.check.completed;
        tallies.held = self.check.held;
        Outcome {
            options: self.options,
            end: self.now,
            broken: self.check.broken,
            worst_delay: self.check.worst_delay,
            worst_memory: self.check.worst_memory,
            tallies,
            digest: self.digest.finish(),
        }
    }
}
