//! Faults of one node, and the gateway's lie: those that make an operator's alerts fire. Without a
//! `node` they are the last node's; without `on` they begin, or end if they last.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use super::scene::Fault;
use crate::lab::local::LocalNetwork;

/// What a disk that is nearly full has left, bytes.
const LEFT: u64 = 1_000_000;
/// How far ahead a fork is that a build lacks, in seconds.
const AHEAD: u64 = 3_600;

/// For how long no source has confirmed the list of gateways, seconds.
const UNCONFIRMED: u64 = 3_600;
/// Blocks that are left of a delegation that is ending.
const LAST_BLOCKS: u64 = 3;
/// Blocks that no peer keeps.
const LOST: u64 = 7;

/// Which node, and whether it begins or ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Of {
    node: Option<usize>,
    on: Option<bool>,
    /// What a disk has left.
    bytes: Option<u64>,
    /// How far ahead a fork is, or how old a list.
    seconds: Option<u64>,
    /// What is left of a delegation.
    blocks: Option<u64>,
}

/// A fault that lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Break {
    /// The database finds its disk full.
    StoreFull,
    /// The disk has little room left.
    DiskLow,
    /// A fork comes that the build lacks.
    Fork,
    /// No packet passes, and gossip does not count.
    Isolate,
    /// The uplink carries next to nothing.
    Choke,
    /// Most of its shreds are lost.
    Lossy,
    /// No source confirms its list of gateways.
    RegistryAway,
    /// Its delegation ends and is not renewed.
    DelegationEnding,
    /// It lacks blocks that no peer keeps.
    BlocksLost,
    /// It is a guest that no member takes.
    GuestAlone,
}

const ALL: [(Break, &str, &str); 10] = [
    (Break::StoreFull, "store-full", "Fill the disk"),
    (Break::DiskLow, "disk-low", "Leave little room"),
    (Break::Fork, "fork", "Announce a fork"),
    (Break::Isolate, "isolate", "Cut a node off"),
    (Break::Choke, "choke", "Choke an uplink"),
    (Break::Lossy, "lossy", "Lose a node's shreds"),
    (Break::RegistryAway, "registry-away", "Silence the registry"),
    (Break::DelegationEnding, "delegation-ending", "End a delegation"),
    (Break::BlocksLost, "blocks-lost", "Lose blocks everywhere"),
    (Break::GuestAlone, "guest-alone", "Turn a guest away"),
];

/// The faults that last, by node.
#[derive(Debug, Default)]
pub(super) struct Breaks(BTreeSet<(Break, usize)>);

impl Breaks {
    /// A node is started anew, and all is well with it.
    pub(super) fn forget(&mut self, node: usize) {
        self.0.retain(|(_, broken)| *broken != node);
    }

    /// Lets what lasts last on, after all nodes were given the same loss or the same way for UDP.
    pub(super) async fn renew(&self, network: &LocalNetwork) {
        for (kind, node) in &self.0 {
            // A node that does not run is well when it is started.
            let _ = match kind {
                Break::Isolate => network.isolate(*node, true).await,
                Break::Lossy => network.lose_most(*node, true),
                Break::StoreFull
                | Break::DiskLow
                | Break::Fork
                | Break::Choke
                | Break::RegistryAway
                | Break::DelegationEnding
                | Break::BlocksLost
                | Break::GuestAlone => Ok(()),
            };
        }
    }

    /// For the page.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let lasts = |kind| self.0.iter().any(|(broken, _)| *broken == kind);
        let faults =
            ALL.iter().map(|(kind, action, label)| Fault { action, label, on: Some(lasts(*kind)) });
        faults.collect()
    }

    /// Begins or ends a fault; says what.
    ///
    /// # Errors
    /// There is no such node, or it does not run.
    pub(super) async fn act(
        &mut self,
        kind: Break,
        of: Of,
        network: &LocalNetwork,
    ) -> anyhow::Result<String> {
        let lasting = self.0.iter().find(|(broken, _)| *broken == kind).map(|(_, node)| *node);
        let last = network.len().checked_sub(1).context("there is no node")?;
        let node = of.node.or(lasting).unwrap_or(last);
        let on = of.on.unwrap_or(!self.0.contains(&(kind, node)));
        let told = match kind {
            Break::StoreFull => {
                network.fill_disk(node, on)?;
                if on { "finds its disk full" } else { "can write its database again" }
            }
            Break::DiskLow => {
                network.pretend_room(node, on.then_some(of.bytes.unwrap_or(LEFT)))?;
                if on { "is told how much room its disk has" } else { "asks the system for room" }
            }
            Break::Fork => {
                let after = Duration::from_secs(of.seconds.unwrap_or(AHEAD));
                network.pretend_fork(node, on.then_some(after))?;
                if on { "lacks a fork that comes" } else { "lacks no fork" }
            }
            Break::Isolate => {
                network.isolate(node, on).await?;
                if on { "is cut off" } else { "is let back" }
            }
            Break::Choke => {
                network.choke(node, on).await?;
                if on { "has a choked uplink" } else { "has its uplink back" }
            }
            Break::Lossy => {
                network.lose_most(node, on)?;
                if on { "loses most of its shreds" } else { "loses no more than others" }
            }
            Break::RegistryAway => {
                let age = Duration::from_secs(of.seconds.unwrap_or(UNCONFIRMED));
                network.pretend_registry(node, on.then_some(age))?;
                if on { "is told how old its list of gateways is" } else { "has the registry back" }
            }
            Break::DelegationEnding => {
                let left = of.blocks.unwrap_or(LAST_BLOCKS);
                network.pretend_delegation(node, on.then_some(left))?;
                if on { "is told what is left of its delegation" } else { "looks for itself" }
            }
            Break::BlocksLost => {
                network.pretend_lost(node, on.then_some(LOST))?;
                if on { "lacks blocks that nobody keeps" } else { "lacks no such blocks" }
            }
            Break::GuestAlone => {
                network.pretend_alone(node, on)?;
                if on { "is a guest that nobody takes" } else { "is no such guest" }
            }
        };
        match on {
            true => self.0.insert((kind, node)),
            false => self.0.remove(&(kind, node)),
        };
        Ok(format!("node {node} {told}"))
    }
}
