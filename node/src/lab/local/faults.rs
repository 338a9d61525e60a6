//! Faults that a network on this machine is given on purpose, so that what nodes tell of them can be
//! seen: each is undone as it was done.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use ed25519_dalek::{Signer as _, SigningKey};
use fragcast_shredder::shred::VERSION;
use fragcast_shredder::{ChainTag, Commitment, EquivocationProof, Kind, SetHeader};
use fragcast_turbine::Mode;

use super::LocalNetwork;
use crate::gateway::keys;
use crate::node::Node;
use crate::serve::state::NodeState;

/// What the uplink of a choked node carries, bit/s: eight shreds a second.
const CHOKED: u64 = 64_000;

/// What a node loses that loses most of its shreds: more than its coding shreds make up for.
const MOST: f64 = 0.8;

/// Proof that a leader signed two roots for the first frag of a block.
fn contradiction(chain_id: u64, key: &SigningKey, block: u64) -> EquivocationProof {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let header = SetHeader {
        version: VERSION,
        kind: Kind::Frag as u8,
        attempt: 0,
        route: 0,
        chain: ChainTag::new(chain_id),
        block,
        plan: 0,
        sent_at_micros: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
        message_len: 64,
        message: 1,
        set: 0,
        sets: 1,
        shard_len: 64,
        k: 1,
        m: 0,
        route_param: 0,
    };
    let commitment = |root: [u8; 32]| {
        let signature = key.sign(&header.digest(chain_id, &root)).to_bytes();
        Commitment { header, root, signature }
    };
    EquivocationProof {
        chain_id,
        key: key.verifying_key().to_bytes(),
        first: commitment([1; 32]),
        second: commitment([2; 32]),
    }
}

/// The Unix time, in seconds, of a fork that begins after so long.
fn fork_at(after: Duration) -> anyhow::Result<u64> {
    let at = SystemTime::now().checked_add(after);
    let at = at.context("the fork would be later than this system's clock can tell: take less")?;
    Ok(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

impl LocalNetwork {
    fn state_of(&self, node: usize) -> anyhow::Result<&NodeState> {
        Ok(self.node(node).with_context(|| format!("node {node} does not run"))?.state())
    }

    /// Lets the leader of the newest block sign two contradictory sets. Another node finds out, which
    /// tells it to all.
    ///
    /// # Errors
    /// The leader or every other node is stopped.
    pub async fn equivocate(&self) -> anyhow::Result<()> {
        let opened = |node: &Node| node.state().with_progress(|p| p.opened);
        let block =
            self.nodes().into_iter().filter_map(opened).max().context("no block is open yet")?;
        let leader = self.leader(block);
        let key = keys::read_ed25519(&self.options.dir.join(format!("node-{leader}/leader.key")))?;
        let mut others = (0..self.len()).filter(|index| *index != leader);
        let finder = others.find_map(|index| self.node(index)).context("no other node runs")?;
        let proof = contradiction(self.options.chain_id, &key, block);
        if !finder.state().net.proof(proof).await {
            bail!("block {block} has an equivocation already, or no leader");
        }
        Ok(())
    }

    /// Lets a node's database find its disk full, or empty again.
    ///
    /// # Errors
    /// It does not run, or has no database.
    pub fn fill_disk(&self, node: usize, full: bool) -> anyhow::Result<()> {
        let store = self.state_of(node)?.store.as_ref();
        store.with_context(|| format!("node {node} has no database"))?.pretend_full(full);
        Ok(())
    }

    /// Lets a node believe that its disk has so much room; `None`: as the system says.
    ///
    /// # Errors
    /// It does not run.
    pub fn pretend_room(&self, node: usize, bytes: Option<u64>) -> anyhow::Result<()> {
        self.state_of(node)?.experiments.room.set(bytes);
        Ok(())
    }

    /// Lets a node believe that a fork begins after so long which its build lacks; `None`: there is none.
    ///
    /// # Errors
    /// It does not run, or the time is one that the system's clock cannot tell.
    pub fn pretend_fork(&self, node: usize, after: Option<Duration>) -> anyhow::Result<()> {
        let at = after.map(fork_at).transpose()?;
        self.state_of(node)?.experiments.fork.set(at);
        Ok(())
    }

    /// Lets a node believe that no source has confirmed its list of gateways for so long; `None`: as it is.
    ///
    /// # Errors
    /// It does not run.
    pub fn pretend_registry(&self, node: usize, age: Option<Duration>) -> anyhow::Result<()> {
        self.state_of(node)?.experiments.registry.set(age.map(|age| age.as_secs()));
        Ok(())
    }

    /// Lets a node believe that so many blocks are left of its delegation; `None`: as it is.
    ///
    /// # Errors
    /// It does not run.
    pub fn pretend_delegation(&self, node: usize, left: Option<u64>) -> anyhow::Result<()> {
        self.state_of(node)?.experiments.delegation.set(left);
        Ok(())
    }

    /// Lets a node believe that it lacks blocks which no peer keeps; `None`: as it is.
    ///
    /// # Errors
    /// It does not run.
    pub fn pretend_lost(&self, node: usize, blocks: Option<u64>) -> anyhow::Result<()> {
        self.state_of(node)?.experiments.lost.set(blocks);
        Ok(())
    }

    /// Lets a node believe to be a guest that no member takes, or not.
    ///
    /// # Errors
    /// It does not run.
    pub fn pretend_alone(&self, node: usize, alone: bool) -> anyhow::Result<()> {
        self.state_of(node)?.experiments.attached.set(alone.then_some(0));
        Ok(())
    }

    /// Cuts a node off: no packet of it passes, and it does not count on gossip; or lets it back.
    ///
    /// # Errors
    /// It does not run.
    pub async fn isolate(&self, node: usize, alone: bool) -> anyhow::Result<()> {
        let state = self.state_of(node)?;
        self.seats[node].cut.store(alone || self.cut, Ordering::Relaxed);
        state.net.set_mode(if alone { Mode::Turbine } else { self.options.mode }).await;
        Ok(())
    }

    /// Lets a node throw away most of its outgoing shreds, or as many as all nodes do.
    ///
    /// # Errors
    /// It does not run.
    pub fn lose_most(&self, node: usize, most: bool) -> anyhow::Result<()> {
        self.state_of(node)?;
        self.seats[node].loss.set(if most { MOST } else { self.loss() });
        Ok(())
    }

    /// Lets a node's uplink carry next to nothing, or as much as before.
    ///
    /// # Errors
    /// It does not run.
    pub async fn choke(&self, node: usize, choked: bool) -> anyhow::Result<()> {
        self.state_of(node)?.net.choke(choked.then_some(CHOKED)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_that_no_clock_can_tell_is_refused() {
        let error = fork_at(Duration::from_secs(u64::MAX)).unwrap_err();
        assert!(error.to_string().contains("take less"), "{error}");
        assert!(fork_at(Duration::from_secs(60)).unwrap() > fork_at(Duration::ZERO).unwrap());
    }

    #[test]
    fn the_contradiction_is_one_that_every_node_takes() {
        let key = SigningKey::from_bytes(&[7; 32]);
        contradiction(901, &key, 5).verify().unwrap();
        let mut other = contradiction(901, &key, 5);
        other.second.root = other.first.root;
        assert!(other.verify().is_err());
    }
}
