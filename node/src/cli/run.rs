//! `run`: one node, until a signal ends it.

use std::sync::Arc;
use std::time::Duration;

use fragcast_turbine::{Mode, Policy};

use super::RunArgs;
use crate::config::Config;
use crate::gateway::journal::Journal;
use crate::gateway::keys;
use crate::log::{self, Filter};
use crate::node::{Execution, Node, Parts, Sockets};
use crate::serve::state::NodeState;

/// How long a node may take to end; then the process ends all the same. What is durable is so by
/// then, and what is not cannot be had by waiting.
const END_WITHIN: Duration = Duration::from_millis(4_500);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// End, with the signal's name.
    End(&'static str),
    /// Read the configuration again.
    Reload,
    /// Tell the log how the node is.
    Tell,
}

/// Runs a node until it is told to end, or a part of it fails; returns the exit code.
pub(super) async fn run(args: &RunArgs, config: Config, filter: &Filter) -> anyhow::Result<i32> {
    let network = config.network()?;
    let identity = keys::read_ed25519(&config.identity)?;
    let leader = if config.leader.key.exists() {
        let key = keys::read_ed25519(&config.leader.key)?;
        Some((key, Journal::open(&config.leader.journal)?))
    } else {
        None
    };
    let mut signals = Signals::new()?;
    let execution = Execution::of_config(&config, &network)?;
    let sockets = Sockets::bind(&config)?;
    let mut running = config.clone();
    let parts = Parts {
        config,
        network,
        identity,
        leader,
        sockets,
        execution,
        gossip_port: None,
        drop_shreds: None,
        cut: None,
        tap: None,
    };
    let mut node = Node::start(parts).await?;
    let addresses = node.addresses();
    tracing::info!(
        peer = %node.state().peer,
        p2p = %addresses.p2p,
        gossip = ?addresses.gossip,
        ingest = %addresses.ingest,
        http = %addresses.http,
        metrics = %addresses.metrics,
        "running"
    );
    let code = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::End(name) => {
                    tracing::info!(signal = name, "ending");
                    break 0;
                }
                Signal::Reload => reload(args, &mut running, node.state(), filter).await,
                Signal::Tell => tell(node.state()),
            },
            what = node.failed() => {
                tracing::error!("{what} ended by itself: see above; the node ends, start it again");
                break 1;
            }
        }
    };
    end_in_any_case(code, signals);
    node.stop().await;
    Ok(code)
}

/// From now on the process ends within [`END_WITHIN`], or at once if it is told to again.
fn end_in_any_case(code: i32, mut signals: Signals) {
    // A thread of its own: the runtime's may all be waiting for something.
    let late = std::thread::Builder::new().name("end".into()).spawn(move || {
        std::thread::sleep(END_WITHIN);
        tracing::warn!("not everything could be ended in time: ending all the same");
        log::flush();
        std::process::exit(code);
    });
    if let Err(error) = late {
        tracing::warn!(%error, "no thread that ends the process in any case");
    }
    tokio::spawn(async move {
        while !matches!(signals.next().await, Signal::End(_)) {}
        tracing::warn!("told to end twice: ending at once");
        log::flush();
        std::process::exit(code);
    });
}

/// One line on how the node is.
fn tell(state: &Arc<NodeState>) {
    let status = state.status();
    let latest = &status["execution"]["latest"];
    tracing::info!(
        opened = %status["opened"],
        sealed = %status["sealed"],
        latest = %latest,
        connected = %status["connected"],
        members = %status["members"],
        way = state.way(),
        not_ready = state.not_ready().unwrap_or_default(),
        "status"
    );
}

/// Reads the configuration again and takes what can change while a node runs.
async fn reload(args: &RunArgs, running: &mut Config, state: &Arc<NodeState>, filter: &Filter) {
    let new = match args.load() {
        Ok(new) => new,
        Err(error) => {
            let why = super::told(&error);
            tracing::error!("the configuration was not read again: {why}");
            return;
        }
    };
    let mut taken = Vec::new();
    if new.log.filter != running.log.filter {
        match filter.set(&new.log.filter) {
            Ok(()) => taken.push("log.filter"),
            Err(error) => {
                let why = super::told(&error);
                tracing::error!("log.filter stays as it was: {why}");
            }
        }
        running.log.filter.clone_from(&new.log.filter);
    }
    // Gossip alone needs the gossip that only a start makes.
    let deaf = running.gossip.policy == Policy::Off && new.gossip.mode == Mode::Gossip;
    if new.gossip.mode != running.gossip.mode && !deaf {
        state.net.set_mode(new.gossip.mode).await;
        running.gossip.mode = new.gossip.mode;
        taken.push("gossip.mode");
    }
    let off = |policy| policy == Policy::Off;
    if new.gossip.policy != running.gossip.policy
        && !off(new.gossip.policy)
        && !off(running.gossip.policy)
    {
        state.net.set_policy(new.gossip.policy).await;
        running.gossip.policy = new.gossip.policy;
        taken.push("gossip.policy");
    }
    if new.leader.unreached != running.leader.unreached {
        state.reach.set_policy(new.leader.unreached);
        running.leader.unreached = new.leader.unreached;
        taken.push("leader.unreached");
    }
    let restart = differences(running, &new);
    tracing::info!(taken = ?taken, "the configuration was read again");
    if !restart.is_empty() {
        tracing::warn!(settings = ?restart, "these settings change with a restart only");
    }
    match new.network() {
        Ok(network) if network.differs_from(&state.network) => {
            tracing::warn!("the network file has changed: it is read when the node starts");
        }
        Ok(_) => {}
        Err(error) => tracing::error!("the network file cannot be used any more: {error}"),
    }
}

/// The settings in which two configurations differ.
fn differences(one: &Config, other: &Config) -> Vec<String> {
    let table = |config: &Config| toml::Table::try_from(config).unwrap_or_default();
    let (one, other) = (table(one), table(other));
    let mut all = Vec::new();
    for (section, value) in &one {
        match (value.as_table(), other.get(section).and_then(toml::Value::as_table)) {
            (Some(ours), Some(theirs)) => all.extend(
                ours.iter()
                    .filter(|(key, value)| theirs.get(*key) != Some(*value))
                    .map(|(key, _)| format!("{section}.{key}")),
            ),
            _ if other.get(section) != Some(value) => all.push(section.clone()),
            _ => {}
        }
    }
    all
}

#[cfg(unix)]
use super::signals::Signals;

/// The signals of systems that have few.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    #[expect(clippy::unnecessary_wraps, reason = "as on other systems")]
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::End("interrupt"),
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_differ_are_named() {
        let one = Config::default();
        let mut other = Config::default();
        assert_eq!(differences(&one, &other), Vec::<String>::new());
        other.p2p.uplink_mbit = 5;
        other.identity = "other.key".into();
        assert_eq!(differences(&one, &other), ["identity", "p2p.uplink_mbit"]);
    }
}
