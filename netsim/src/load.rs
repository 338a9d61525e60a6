//! The messages of a run, with their leaders and times.

use std::collections::{BTreeMap, BTreeSet};

use fragcast_shredder::{Kind, MessageKey};
use fragcast_turbine::schedule::first_attempt;

use crate::{Nanos, NodeId};

/// A message that a leader broadcasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broadcast {
    /// When its leader has the message.
    pub at: Nanos,
    /// The leader that sends it.
    pub leader: NodeId,
    /// Block, attempt and index.
    pub key: MessageKey,
    /// Kind of the message.
    pub kind: Kind,
    /// Bytes of signature ‖ body, at least 200.
    pub bytes: u32,
    /// Whether every node should have it in the end; false for an attempt that is superseded.
    pub expected: bool,
    /// Whether the leader signs two versions of it under one key. A leader of fragcast sends both
    /// to all nodes, one of gossip sends one to each half of its mesh. The models of shreds have no
    /// content and send one.
    pub equivocal: bool,
}

/// A gateway that registers during a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// When it registers.
    pub at: Nanos,
    /// The node that leads for it.
    pub leader: NodeId,
    /// The first block of the list that has it, behind all others.
    pub from_block: u64,
    /// Nodes that cannot reach the registry then.
    pub late: BTreeSet<NodeId>,
    /// When these reach it again.
    pub late_at: Nanos,
}

/// A membership table of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The first block for which it holds.
    pub from_block: u64,
    /// When nodes learn of it; the first table is known from the beginning.
    pub known_at: Nanos,
    /// Nodes of the world that are not its members.
    pub absent: BTreeSet<NodeId>,
}

/// The messages of a run.
///
/// ```
/// use netsim::load::Load;
///
/// // Node 4 leads and sends one frag of 36 kB; node 9 leads the next term.
/// let load = Load::single(vec![4, 9], 36_000);
/// let frag = load.broadcasts[0];
/// assert_eq!((load.leader(frag.key.block), load.next_leader(frag.key.block)), (4, Some(9)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// The messages in the order of their times.
    pub broadcasts: Vec<Broadcast>,
    /// The leaders in the order of their terms, repeated cyclically.
    pub leaders: Vec<NodeId>,
    /// Number of blocks of a term.
    pub blocks_per_term: u64,
    /// A leader more, from some block on.
    pub registration: Option<Registration>,
    /// Gateways that may lead a block beside the scheduled one.
    pub substitutes: u8,
    /// The membership tables in the order of their blocks; none if all nodes are members all the time.
    pub tables: Vec<Table>,
}

impl Load {
    /// The leader of a block.
    pub fn leader(&self, block: u64) -> NodeId {
        let term = (block / self.blocks_per_term) as usize;
        match &self.registration {
            Some(new) if block >= new.from_block => {
                let place = term % (self.leaders.len() + 1);
                self.leaders.get(place).copied().unwrap_or(new.leader)
            }
            _ => self.leaders[term % self.leaders.len()],
        }
    }

    /// The nodes that may lead a block, each once and with the number of the first attempt that is
    /// its own: the scheduled leader, then its substitutes.
    pub fn ranked(&self, block: u64) -> Vec<(NodeId, u8)> {
        let term = block / self.blocks_per_term;
        let mut ranked: Vec<NodeId> = vec![self.leader(block)];
        for ahead in 1..=self.leaders.len() as u64 {
            let next = self.leader((term + ahead) * self.blocks_per_term);
            if ranked.len() <= usize::from(self.substitutes) && !ranked.contains(&next) {
                ranked.push(next);
            }
        }
        let first = |rank| first_attempt(self.substitutes, rank);
        (0..).zip(ranked).map(|(rank, node)| (node, first(rank))).collect()
    }

    /// Whether a node is a member at a block, and so is to have its messages.
    pub fn counts(&self, node: NodeId, block: u64) -> bool {
        let table = self.tables.iter().rev().find(|table| table.from_block <= block);
        table.is_none_or(|table| !table.absent.contains(&node))
    }

    /// Whether a node leads at some time.
    pub fn leads(&self, node: NodeId) -> bool {
        let new = self.registration.as_ref().map(|new| new.leader);
        self.leaders.contains(&node) || new == Some(node)
    }

    /// The first leader after that of `block` that is another node.
    pub fn next_leader(&self, block: u64) -> Option<NodeId> {
        let current = self.leader(block);
        let term = block / self.blocks_per_term;
        (1..=self.leaders.len() as u64)
            .map(|ahead| self.leader((term + ahead) * self.blocks_per_term))
            .find(|leader| *leader != current)
    }

    /// The least time from block to block; `None` if there is one block only.
    pub fn block_time(&self) -> Option<Nanos> {
        let mut starts = BTreeMap::new();
        for broadcast in &self.broadcasts {
            let start = starts.entry(broadcast.key.block).or_insert(broadcast.at);
            *start = broadcast.at.min(*start);
        }
        let next = starts.iter().skip(1);
        let steps = starts
            .iter()
            .zip(next)
            .map(|((block, at), (other, later))| later.saturating_sub(*at) / (other - block));
        steps.min()
    }

    /// Total bytes of all messages.
    pub fn bytes(&self) -> u64 {
        self.broadcasts.iter().map(|b| u64::from(b.bytes)).sum()
    }

    /// A single frag of block 1 at time 0.
    pub fn single(leaders: Vec<NodeId>, bytes: u32) -> Self {
        let key = MessageKey { block: 1, attempt: 0, message: 1 };
        let broadcast = Broadcast {
            at: 0,
            leader: leaders[0],
            key,
            kind: Kind::Frag,
            bytes,
            expected: true,
            equivocal: false,
        };
        // One term covers blocks 0 and 1.
        Self {
            broadcasts: vec![broadcast],
            leaders,
            blocks_per_term: 2,
            registration: None,
            substitutes: 0,
            tables: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_leader_is_another_node() {
        let load = Load { leaders: vec![4, 4, 9], ..Load::single(vec![4], 500) };
        assert_eq!((load.leader(1), load.leader(2), load.leader(5)), (4, 4, 9));
        assert_eq!(load.next_leader(1), Some(9));
        assert_eq!(load.next_leader(4), Some(4));
        assert_eq!(Load::single(vec![4], 500).next_leader(1), None);
    }

    #[test]
    fn substitutes_are_the_next_leaders_and_number_from_below() {
        let load = Load { leaders: vec![4, 4, 9, 7], ..Load::single(vec![4], 500) };
        assert_eq!(load.ranked(1), [(4, 0)]);
        let two = Load { substitutes: 2, ..load };
        assert_eq!(two.ranked(1), [(4, 4), (9, 2), (7, 0)]);
        assert_eq!(two.ranked(7), [(7, 4), (4, 2), (9, 0)]);
        let few = Load { leaders: vec![4, 9], substitutes: 3, ..two };
        assert_eq!(few.ranked(0), [(4, 6), (9, 4)]);
    }

    #[test]
    fn who_is_no_member_does_not_count() {
        let table = |from_block, absent: &[NodeId]| Table {
            from_block,
            known_at: 0,
            absent: absent.iter().copied().collect(),
        };
        let load = Load::single(vec![4], 500);
        assert!(load.counts(9, 5));
        let load = Load { tables: vec![table(0, &[2]), table(10, &[3])], ..load };
        assert_eq!([9, 10].map(|block| load.counts(2, block)), [false, true]);
        assert_eq!([9, 10].map(|block| load.counts(3, block)), [true, false]);
    }
}
