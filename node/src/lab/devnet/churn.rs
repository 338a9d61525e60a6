//! `devnet --churn`: nodes join and leave, a gateway registers and another changes its node while
//! blocks flow.
//!
//! Every change is one of the network's own: a node that joins knows a bootstrap address and the
//! registry, one that leaves says nothing, a gateway registers at the registry, and one that lets
//! another node lead signs a delegation. It is noted how long each takes until every node goes by
//! it, in the epoch of the block that is being built.

use std::io::Write as _;
use std::time::{Duration, Instant};

use alloy_primitives::Address;
use anyhow::bail;
use fragcast_turbine::{EpochsView, PeerId};
use serde_json::{Value, json};

use super::DevnetArgs;
use crate::lab::local::{ExecutionFactory, LocalNetwork};
use crate::lab::registry::{Registered, TestRegistry};

/// Blocks between a change that is in use everywhere and the next one, and before the first.
const PAUSE: u64 = 4;
/// The fewest blocks: a change of the list or of the table holds from the first term on that is beyond
/// the window, and a node that was stopped is missed after 15 s.
pub(super) const BLOCKS: u64 = 60;
/// How far ahead of the open block a change of leader is signed for: beyond the window.
const AHEAD: u64 = 8;

/// What is done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum Step {
    /// A node joins, which knows one that leads.
    Join,
    /// The gateway that is not registered yet registers.
    Register,
    /// A node joins, which knows one that never leads.
    JoinAgain,
    /// The second gateway lets the node that joined first lead, with a key of that node's own.
    Rotate,
    /// The node that joined last is stopped.
    Leave,
}

/// Those of one row are begun together, and each row once those before are in use. At most three
/// epochs live: that before a change of gateways for 64 blocks after its last, that before another
/// table alone for eight.
const STEPS: [&[Step]; 3] =
    [&[Step::Join, Step::Register, Step::JoinAgain], &[Step::Rotate], &[Step::Leave]];

/// What holds once a change is in use.
#[derive(Debug, Clone, Copy)]
enum Change {
    Member(PeerId),
    NoMember(PeerId),
    Gateway(Address),
    Leads(Address, PeerId),
}

impl Change {
    /// Whether a node goes by it in `block`.
    fn holds(&self, epochs: &EpochsView, block: u64) -> bool {
        let Some(epoch) = epochs.at(block) else { return false };
        match self {
            Self::Member(peer) => epoch.members().index(peer).is_some(),
            Self::NoMember(peer) => epoch.members().index(peer).is_none(),
            Self::Gateway(gateway) => epoch.schedule().gateways().contains(gateway),
            Self::Leads(gateway, peer) => {
                let leader = epoch.delegations().leader(gateway, block);
                leader.is_some_and(|leader| leader.peer == *peer)
            }
        }
    }
}

/// A change that was begun.
#[derive(Debug)]
struct Begun {
    step: Step,
    change: Change,
    block: u64,
    at: Instant,
    /// The block in which every node went by it, and after how long.
    used: Option<(u64, Duration)>,
}

/// The changes of a run.
pub(super) struct Churn {
    registry: TestRegistry,
    begun: Vec<Begun>,
    /// First blocks of the epochs that the first node has known.
    epochs: std::collections::BTreeSet<u64>,
    /// Rows of changes that were begun.
    rows: usize,
    /// The block before which the next change is due, once those before are in use.
    due: u64,
    /// Numbers of the nodes that joined and are still there.
    joined: Vec<usize>,
    /// Gateways that are registered from the start.
    gateways: usize,
}

impl Churn {
    /// A registry without any gateway yet.
    pub(super) async fn new(args: &DevnetArgs) -> anyhow::Result<Self> {
        if args.blocks < BLOCKS {
            bail!("--churn needs --blocks {BLOCKS} or more, to show what becomes of each change");
        }
        if args.gateways < 2 || args.gateways >= args.nodes {
            bail!(
                "--churn needs --gateways of 2 at least, and more --nodes than that: one more \
                 gateway registers"
            );
        }
        let registered = Registered { term: args.term, ..Registered::new(Vec::new()) };
        let registry = TestRegistry::start(registered).await?;
        let (begun, epochs, joined) = (Vec::new(), Default::default(), Vec::new());
        Ok(Self {
            registry,
            begun,
            epochs,
            rows: 0,
            due: PAUSE,
            joined,
            gateways: args.gateways.into(),
        })
    }

    /// Where the registry is.
    pub(super) fn registry(&self) -> String {
        self.registry.url()
    }

    /// The network runs: its gateways register, but for the last.
    pub(super) fn begin(&self, network: &LocalNetwork) {
        self.registry.registered().gateways = network.gateways()[..self.gateways].to_vec();
    }

    /// Begins the change that is due before a block, if one is.
    pub(super) async fn before(
        &mut self,
        block: u64,
        network: &mut LocalNetwork,
        execution: &ExecutionFactory,
    ) -> anyhow::Result<()> {
        self.look(block, network);
        if self.begun.iter().any(|begun| begun.used.is_none()) || block < self.due {
            return Ok(());
        }
        for step in STEPS.get(self.rows).copied().unwrap_or_default() {
            self.begin_step(*step, block, network, execution).await?;
        }
        self.rows += 1;
        Ok(())
    }

    async fn begin_step(
        &mut self,
        step: Step,
        block: u64,
        network: &mut LocalNetwork,
        execution: &ExecutionFactory,
    ) -> anyhow::Result<()> {
        let at = Instant::now();
        let change = match step {
            Step::Join | Step::JoinAgain => {
                let first = if step == Step::Join { 0 } else { network.len() - 2 };
                let number = network.join(first, Some(execution)).await?;
                self.joined.push(number);
                Change::Member(network.nodes()[number].state().peer)
            }
            Step::Register => {
                let new = network.gateways()[self.gateways];
                self.registry.registered().gateways.push(new);
                Change::Gateway(new)
            }
            Step::Rotate => {
                let (gateway, to) = (network.gateways()[1], self.joined[0]);
                network.delegate(1, to, block + AHEAD).await?;
                Change::Leads(gateway, network.nodes()[to].state().peer)
            }
            Step::Leave => {
                let gone = network.nodes().last().map(|node| node.state().peer);
                self.joined.pop();
                network.leave().await;
                gone.map_or_else(|| unreachable!("it joined"), Change::NoMember)
            }
        };
        self.begun.push(Begun { step, change, block, at, used: None });
        Ok(())
    }

    /// Looks whether changes are in use everywhere, in the epoch of a block.
    pub(super) fn look(&mut self, block: u64, network: &LocalNetwork) {
        let views: Vec<_> = network.nodes().iter().map(|node| node.state().net.epochs()).collect();
        self.epochs.extend(views[0].epochs().iter().map(|epoch| epoch.from_block()));
        for begun in self.begun.iter_mut().filter(|begun| begun.used.is_none()) {
            if views.iter().all(|view| begun.change.holds(view, block)) {
                begun.used = Some((block, begun.at.elapsed()));
                self.due = block + PAUSE;
            }
        }
    }

    /// Whether all changes are in use, and nobody was barred or suspected of anything.
    pub(super) fn summary(&self, network: &LocalNetwork) -> Value {
        let bad = ["barred", "equivocation", "bad_message", "bad_parity", "table_twice"];
        let suspected: Vec<Value> = network
            .nodes()
            .iter()
            .enumerate()
            .flat_map(|(node, running)| {
                running.state().with_progress(|progress| {
                    let events = progress.events().filter(|(kind, n)| bad.contains(kind) && *n > 0);
                    events
                        .map(|(kind, n)| json!({ "node": node, "event": kind, "count": n }))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let changes: Vec<Value> = self
            .begun
            .iter()
            .map(|begun| {
                json!({
                    "change": <&str>::from(begun.step),
                    "block": begun.block,
                    "used_from": begun.used.map(|(block, _)| block),
                    "everywhere_ms": begun.used.map(|(_, took)| took.as_secs_f64() * 1e3),
                })
            })
            .collect();
        let joined: Vec<Value> = self
            .joined
            .iter()
            .map(|node| {
                let verified = network.track(*node, |track| track.verdicts("verified"));
                json!({ "node": node, "verified": verified })
            })
            .collect();
        let all = self.begun.len() == STEPS.concat().len()
            && self.begun.iter().all(|begun| begun.used.is_some());
        json!({
            "ok": all && suspected.is_empty(),
            "count": self.epochs.len(),
            "changes": changes,
            "joined": joined,
            "suspected": suspected,
        })
    }

    /// Prints a line a change.
    pub(super) fn print(summary: &Value) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        let mark = if summary["ok"] == true { "ok" } else { "FAILED" };
        let changes = summary["changes"].as_array().map_or(0, Vec::len);
        writeln!(
            out,
            "{mark}: {changes} of {} changes begun, {} epochs",
            STEPS.concat().len(),
            summary["count"]
        )?;
        for change in summary["changes"].as_array().into_iter().flatten() {
            let begun = format!(
                "  {:<10} before block {}",
                change["change"].as_str().unwrap_or_default(),
                change["block"]
            );
            match change["everywhere_ms"].as_f64() {
                Some(ms) => writeln!(
                    out,
                    "{begun}: in use everywhere in block {}, {:.1} s later",
                    change["used_from"],
                    ms / 1e3
                )?,
                None => writeln!(out, "{begun}: NOT in use everywhere")?,
            }
        }
        for suspected in summary["suspected"].as_array().into_iter().flatten() {
            writeln!(
                out,
                "node {}: {} {}",
                suspected["node"],
                suspected["count"],
                suspected["event"].as_str().unwrap_or_default()
            )?;
        }
        Ok(())
    }
}
