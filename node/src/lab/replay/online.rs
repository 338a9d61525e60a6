//! Followers that are real nodes: messages travel through a network on this machine, and every
//! node executes them.
//!
//! Nodes read the state of the current case from a `Switch`: a node's chain cannot be changed while
//! it runs, but the source of its state can. A network is kept as long as cases are of the same
//! chain and block numbers rise, as with recorded blocks; for a test that starts again with block 1
//! a new one is started.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{B256, keccak256};
use anyhow::{Context, bail};
use fragcast_execution::exec::{Anchor, SealedBlock, StateSource};
use fragcast_execution::executor::ReportTap;
use fragcast_execution::state::SourceError;
use fragcast_shredder::Message;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::runtime::Handle;

use super::ReplayArgs;
use super::case::{Case, Start};
use super::drive::{Cut, Followers, Heard};
use super::offline::replay_document;
use super::report::Report;
use crate::lab::fixtures::input;
use crate::lab::local::{LocalNetwork, LocalOptions};
use crate::node::Execution;

/// Time after which a message, and so its block, counts as failed.
const GUARD: Duration = Duration::from_secs(120);
/// Time-out of executing a block: the slowest of ethereum/tests take a minute in one EVM.
const JUDGING: Duration = Duration::from_secs(600);

/// A source that can be exchanged, and that remembers the blocks that its node has verified,
/// because side chains of a test build on any of them.
#[derive(Default)]
struct Switch(Mutex<Current>);

#[derive(Default)]
struct Current {
    source: Option<Arc<dyn StateSource>>,
    /// Verified blocks of the case.
    known: HashMap<B256, Arc<SealedBlock>>,
}

impl Switch {
    fn lock(&self) -> MutexGuard<'_, Current> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, source: Arc<dyn StateSource>) {
        *self.lock() = Current { source: Some(source), known: HashMap::new() };
    }
}

impl StateSource for Switch {
    fn at(&self, hash: B256) -> Result<Option<Anchor>, SourceError> {
        let current = self.lock();
        if let Some(source) = &current.source
            && let Some(anchor) = source.at(hash)?
        {
            return Ok(Some(anchor));
        }
        let Some(block) = current.known.get(&hash) else { return Ok(None) };
        let Ok(trie) = &block.trie else { return Ok(None) };
        Ok(Some(Anchor {
            header: block.snapshot.header.clone(),
            hash,
            view: Arc::new(block.snapshot.state.clone()),
            trie: trie.clone(),
            nodes: Arc::clone(&block.nodes),
        }))
    }

    /// `None`, because cases begin anywhere.
    fn head(&self) -> Result<Option<B256>, SourceError> {
        Ok(None)
    }

    fn header(&self, hash: B256) -> Result<Option<Header>, SourceError> {
        let current = self.lock();
        if let Some(block) = current.known.get(&hash) {
            return Ok(Some(block.snapshot.header.clone()));
        }
        current.source.as_ref().map_or(Ok(None), |source| source.header(hash))
    }

    fn persist(&self, block: &Arc<SealedBlock>) {
        self.lock().known.insert(block.hash(), Arc::clone(block));
    }
}

struct Running {
    network: LocalNetwork,
    chain: (u64, String),
    /// The highest block number so far.
    highest: Option<u64>,
    // Held so that the nodes' directories live as long as the nodes.
    _dir: tempfile::TempDir,
}

/// Nodes as followers.
struct Nodes<'a> {
    args: &'a ReplayArgs,
    runtime: Handle,
    switches: Vec<Arc<Switch>>,
    running: Option<Running>,
    /// Digests of networks that have ended: of the messages sent, and of those that each node had.
    ended: Vec<(B256, Vec<B256>)>,
}

impl Nodes<'_> {
    fn start(&mut self, case: &Case) -> anyhow::Result<()> {
        self.end();
        let dir = tempfile::tempdir()?;
        let options = LocalOptions {
            nodes: self.args.nodes.into(),
            chain_id: case.spec.chain_id,
            dialect: self.args.dialect,
            loss: self.args.loss,
            route: self.args.route,
            seed: self.args.seed,
            ..LocalOptions::new(dir.path())
        };
        let (spec, switches) = (Arc::clone(&case.spec), self.switches.clone());
        let factory = move |index: usize, _: &Path, tap: ReportTap| {
            let source = switches.get(index).context("a source for each node")?;
            let source = Arc::clone(source) as Arc<dyn StateSource>;
            let execution = Execution::on_source(Arc::clone(&spec), source);
            anyhow::Ok(Execution { tap: Some(tap), ..execution })
        };
        let network = self.runtime.block_on(async {
            let network = LocalNetwork::start(&options, Some(&factory)).await?;
            network.connected(GUARD * 3).await?;
            anyhow::Ok(network)
        })?;
        let chain = (case.spec.chain_id, case.spec.name.clone());
        self.running = Some(Running { network, chain, highest: None, _dir: dir });
        Ok(())
    }

    fn end(&mut self) {
        let Some(running) = self.running.take() else { return };
        let network = running.network;
        let nodes = (0..network.len()).map(|i| network.track(i, |t| t.digest())).collect();
        self.ended.push((network.sent_digest(), nodes));
        self.runtime.block_on(network.stop());
    }

    /// Whether the running network can take the case.
    fn fits(&self, case: &Case) -> bool {
        let first = case.start.header().number + 1;
        matches!(case.start, Start::Witness(..))
            && self.running.as_ref().is_some_and(|running| {
                running.chain.0 == case.spec.chain_id
                    && running.chain.1 == case.spec.name
                    && running.highest.is_none_or(|highest| highest < first)
            })
    }
}

impl Followers for Nodes<'_> {
    fn begin(&mut self, case: &Case) -> anyhow::Result<()> {
        for switch in &self.switches {
            switch.set(case.start.source()?);
        }
        if !self.fits(case) {
            self.start(case)?;
        }
        Ok(())
    }

    fn deliver(
        &mut self,
        messages: Vec<Message>,
        withdrawals: Option<&[Withdrawal]>,
    ) -> anyhow::Result<Vec<Heard>> {
        let running = self.running.as_mut().context("a network runs")?;
        let block = messages.first().context("a block has messages")?.block();
        let network = &mut running.network;
        let gap = running.highest.is_none_or(|highest| highest + 1 < block);
        running.highest = running.highest.max(Some(block));
        let executors = network.nodes().into_iter().filter_map(|n| n.state().executor.as_ref());
        for executor in executors {
            executor.withdrawals(block, withdrawals.unwrap_or_default().to_vec());
        }
        self.runtime.block_on(async {
            if gap {
                // As an execution client would say it, where blocks are not consecutive.
                network.set_head(block.saturating_sub(1)).await;
            }
            network.unjudge(block);
            for message in messages {
                let kind = message.kind().name();
                network.post(message).await?;
                if !network.arrived(block, GUARD).await {
                    let sent = network.sent(block);
                    let missing: Vec<String> = (0..network.len())
                        .filter(|i| !network.track(*i, |t| t.has(block, sent)))
                        .map(|i| i.to_string())
                        .collect();
                    let (at, nodes) = (sent.len() - 1, missing.join(", "));
                    bail!("{kind}, message {at}, is missing on node {nodes}");
                }
            }
            if !network.judged(block, JUDGING).await {
                bail!("not every node came to a verdict within {JUDGING:?}");
            }
            let heard = (0..network.len()).filter_map(|i| {
                network.track(i, |track| {
                    let report = track.reports.get(&block)?;
                    let hash = (!report.hash.is_zero()).then_some(report.hash);
                    Some(Heard { hash, verdict: report.verdict.clone() })
                })
            });
            Ok(heard.collect())
        })
    }
}

/// Replays through networks. It blocks, so it must not run on a worker of the runtime.
///
/// # Errors
/// Something could not be read or set up.
pub fn run(args: &ReplayArgs, runtime: Handle, bar: &ProgressBar) -> anyhow::Result<Report> {
    let switches = (0..args.nodes).map(|_| Arc::new(Switch::default())).collect();
    let mut nodes = Nodes { args, runtime, switches, running: None, ended: Vec::new() };
    let cut = Cut { txs_per_frag: args.txs_per_frag.into(), dialect: args.dialect };
    let mut report = Report::default();
    let mut failed = None;
    // Recorded blocks in order of their names, which for those that are named by number is the
    // order of the chain; a network is started anew where it is not.
    let mut paths = args.files.clone();
    paths.sort();
    for path in &paths {
        input::read(path, &mut |document| {
            bar.set_message(document.source.clone());
            match replay_document(document, &mut nodes, cut) {
                Ok((rows, ignored)) => {
                    bar.inc(rows.len() as u64);
                    report.rows.extend(rows);
                    report.ignored.extend(ignored);
                }
                Err(error) => failed = Some(error),
            }
            failed.is_none()
        })?;
        if let Some(error) = failed.take() {
            nodes.end();
            return Err(error);
        }
    }
    nodes.end();
    let equal = nodes.ended.iter().all(|(sent, nodes)| nodes.iter().all(|node| node == sent));
    // Of several networks the digest is that of their digests.
    let fold = |all: Vec<B256>| match all.as_slice() {
        [one] => *one,
        all => keccak256(all.concat()),
    };
    let gateway = fold(nodes.ended.iter().map(|(sent, _)| *sent).collect());
    let each: Vec<B256> = (0..usize::from(args.nodes))
        .map(|i| fold(nodes.ended.iter().filter_map(|(_, all)| all.get(i).copied()).collect()))
        .collect();
    report.digests = json!({ "gateway": gateway, "nodes": each, "equal": equal });
    Ok(report)
}
