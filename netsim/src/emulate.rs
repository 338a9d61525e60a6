//! `netsim emulate`: real nodes in real time, over emulated links.
//!
//! ```text
//! world, links ─▶ relay (a user-space link emulator on loopback)
//!              ─▶ nodes (`fragcast run`, a child process each, whose records point to the relay)
//! traffic      ─▶ measure (posts as the gateway, subscribes at every node) ─▶ Measured
//! ```
//!
//! It measures what virtual time cannot: the time that the real program adds to the model by
//! processing, timers and QUIC. So it runs the binary that users run, as child processes, instead
//! of calling its code. [`crate::validate`] compares the result with a run of the model that has
//! the same world, links and [`load`](Emulation::load).
//!
//! All nodes share the processors of this machine. With more than a few nodes or with large
//! messages, the processors are the bottleneck; [`Measured::machine`](measure::Measured::machine)
//! tells how busy they were.

mod interrupt;
mod machine;
pub mod measure;
mod nodes;
pub mod relay;
mod traffic;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::input::loss_share;
use crate::link::{LinkConfig, Loss};
use crate::load::Load;
use crate::random;
use crate::world::World;
use crate::{MILLIS, NodeId};

pub use machine::MachineUse;
pub use measure::Measured;
pub use relay::RelayStats;
pub use traffic::{Traffic, TrafficError};

/// The most nodes. More would measure only this machine. Also, two nodes may have two connections
/// to each other, and a node takes 64 from one address.
pub const MAX_NODES: usize = 30;

/// The least loss per hop that leaders code for, as `fragcast` does by default.
const LEAST_CODED_LOSS: f64 = 0.02;

/// Why an emulation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmulateError {
    /// The binary of the nodes does not exist.
    #[error(
        "there is no fragcast binary at {0}: build it with `cargo build --release -p fragcast`, \
         or tell where it is with --fragcast PATH"
    )]
    NoBinary(PathBuf),
    /// The world is too small or too large.
    #[error("{0} nodes cannot be emulated: use 2 to {MAX_NODES}")]
    Nodes(usize),
    /// The leader is not a node of the world.
    #[error("node {leader} cannot lead: there are nodes 0 to {last}")]
    Leader {
        /// The node that should lead.
        leader: NodeId,
        /// The last node.
        last: NodeId,
    },
    /// The traffic cannot be sent.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// A file, socket or process cannot be used.
    #[error("cannot {action}: {source}")]
    Io {
        /// The action that failed.
        action: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A node ended, or did not become ready.
    #[error("node {node} {problem}; the end of its log:\n{log}")]
    Node {
        /// The node's index in the world.
        node: NodeId,
        /// The problem.
        problem: String,
        /// The last lines it logged.
        log: String,
    },
    /// SIGINT or SIGTERM arrived.
    #[error("interrupted")]
    Interrupted,
}

impl EmulateError {
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}

/// The settings of an emulation.
#[derive(Debug, Clone, PartialEq)]
pub struct Emulation {
    /// Nodes, weights and delays.
    pub world: World,
    /// Links. Their costs of a hop and of the processor are not used: real nodes have their own.
    pub links: LinkConfig,
    /// The messages to send.
    pub traffic: Traffic,
    /// The leader. `None`: drawn by weight from the seed.
    pub leader: Option<NodeId>,
    /// `auto`, `direct`, `turbine` or `rotor`.
    pub route: String,
    /// Loss per hop that the leader codes for.
    pub coded_loss: f64,
    /// Seed of losses, contents and the leader.
    pub seed: u64,
    /// Path of the nodes' program.
    pub fragcast: PathBuf,
    /// How long the nodes may take to start and connect.
    pub start_guard: Duration,
    /// How long to wait after the last message for nodes that miss one.
    pub patience: Duration,
}

impl Emulation {
    /// An emulation with defaults for everything else.
    pub fn new(world: World, links: LinkConfig, fragcast: PathBuf) -> Self {
        Self {
            world,
            links,
            traffic: Traffic::default(),
            leader: None,
            route: "auto".into(),
            coded_loss: links.loss.mean().max(LEAST_CODED_LOSS),
            seed: 1,
            fragcast,
            start_guard: Duration::from_secs(120),
            patience: Duration::from_secs(10),
        }
    }

    /// The leader.
    ///
    /// # Errors
    /// [`EmulateError::Leader`], if it is no node of the world.
    pub fn leader(&self) -> Result<NodeId, EmulateError> {
        let mut random = random::stream(self.seed, "emulate leader", 0);
        let leader = match self.leader {
            Some(leader) => leader,
            None => random::weighted(&mut random, &self.world.weights()).unwrap_or(0) as NodeId,
        };
        if (leader as usize) < self.world.len() {
            return Ok(leader);
        }
        let last = (self.world.len() as NodeId).saturating_sub(1);
        Err(EmulateError::Leader { leader, last })
    }

    /// The same messages for a run in virtual time.
    ///
    /// # Errors
    /// Those of [`leader`](Self::leader) and of the traffic.
    pub fn load(&self) -> Result<Load, EmulateError> {
        Ok(self.traffic.load(self.seed, self.leader()?)?)
    }

    /// The same emulation without delay, loss, jitter and reordering. Its times are serialisation,
    /// which the model has too, and the time taken by the nodes, the relay and the scheduler.
    /// Without delays all nodes work at once, so this is an upper bound of that time.
    pub fn baseline(&self) -> Self {
        let mut still = self.clone();
        still.world.delays.fill(0);
        still.world.source = format!("{}, without delays", self.world.source);
        let (loss, jitter, reorder) = (Loss::Independent(0.0), 0, (0.0, 0));
        still.links = LinkConfig { loss, jitter, reorder, ..self.links };
        still
    }

    /// Starts the nodes, sends the traffic, ends the nodes.
    ///
    /// # Errors
    /// [`EmulateError`]. The nodes are ended in this case too.
    pub fn run(&self) -> Result<Measured, EmulateError> {
        if !(2..=MAX_NODES).contains(&self.world.len()) {
            return Err(EmulateError::Nodes(self.world.len()));
        }
        let leader = self.leader()?;
        let posts = self.traffic.posts(self.seed)?;
        if !self.fragcast.is_file() {
            return Err(EmulateError::NoBinary(self.fragcast.clone()));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(EmulateError::io("start the runtime of the measurement"))?;
        let mut interrupt = interrupt::Interrupt::listen()
            .map_err(EmulateError::io("listen to signals, so that nodes end with us"))?;
        let measured = async {
            let mut nodes = nodes::Nodes::start(self, leader).await?;
            measure::drive(self, leader, &posts, &mut nodes).await
        };
        runtime.block_on(async {
            tokio::select! {
                measured = measured => measured,
                () = interrupt.happens() => Err(EmulateError::Interrupted),
            }
        })
    }
}

/// The default path of the nodes' program: beside this program, or in the folder above, since test
/// programs have a folder of their own.
pub fn default_binary() -> PathBuf {
    let name = format!("fragcast{}", std::env::consts::EXE_SUFFIX);
    let here = std::env::current_exe().unwrap_or_default();
    let beside = here.with_file_name(&name);
    let above = here.parent().and_then(Path::parent).map(|dir| dir.join(&name));
    above.filter(|above| !beside.is_file() && above.is_file()).unwrap_or(beside)
}

/// Arguments of `netsim emulate`, except those for the places of nodes.
#[derive(Debug, Clone, clap::Args)]
pub struct EmulateArgs {
    /// Blocks; each has an Env, its frags and a Seal.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub blocks: u32,
    /// Frags of a block.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub frags: u32,
    /// Bytes of a frag, kB.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub kb: u32,
    /// Time between two messages, milliseconds.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub interval_ms: u64,
    /// Uplink and downlink of a node, Mbit/s.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=400_000))]
    pub uplink_mbit: u64,
    /// Share of packets lost between two nodes.
    #[arg(long, default_value = "0.01", value_parser = loss_share)]
    pub loss: f64,
    /// Mean extra delay of a packet, milliseconds.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000))]
    pub jitter_ms: u64,
    /// How the leader spreads its messages.
    #[arg(long, default_value = "auto", value_parser = ["auto", "direct", "turbine", "rotor"])]
    pub route: String,
    /// Index of the leader in the world; by default drawn by weight.
    #[arg(long)]
    pub leader: Option<NodeId>,
    /// Seed of losses, contents and the leader.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Path of the nodes' program; by default the one beside this program.
    #[arg(long, env = "FRAGCAST_BIN")]
    pub fragcast: Option<PathBuf>,
}

impl EmulateArgs {
    /// The emulation of `world`.
    pub fn emulation(&self, world: World) -> Emulation {
        let bps = self.uplink_mbit * 1_000_000;
        let links = LinkConfig {
            uplink_bps: bps,
            downlink_bps: bps,
            loss: Loss::Independent(self.loss),
            jitter: self.jitter_ms * MILLIS,
            ..LinkConfig::default()
        };
        let fragcast = self.fragcast.clone().unwrap_or_else(default_binary);
        Emulation {
            traffic: Traffic {
                blocks: self.blocks,
                frags: self.frags,
                bytes: self.kb * 1_000,
                interval: Duration::from_millis(self.interval_ms),
            },
            leader: self.leader,
            route: self.route.clone(),
            seed: self.seed,
            ..Emulation::new(world, links, fragcast)
        }
    }
}

#[cfg(test)]
mod tests;
