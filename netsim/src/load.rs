//! What is broadcast in a run: messages, by whom and when.

use fragcast_shredder::{Kind, MessageKey};

use crate::{Nanos, NodeId};

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broadcast {
    /// When its leader has it.
    pub at: Nanos,
    /// Who sends it.
    pub leader: NodeId,
    /// Block, attempt and index.
    pub key: MessageKey,
    /// Which of the three.
    pub kind: Kind,
    /// Bytes of signature ‖ body, at least 200.
    pub bytes: u32,
    /// Whether everybody is to have it in the end. Not so for an attempt that is superseded.
    pub expected: bool,
    /// The leader signs two versions of it under one key. Fragcast's sends both to everybody,
    /// gossip's one to each half of its mesh; the models of shreds know nothing of content and
    /// send one.
    pub equivocal: bool,
}

/// The messages of a run, in the order of their times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// What is sent.
    pub broadcasts: Vec<Broadcast>,
    /// Leaders in the order of their terms, which go round.
    pub leaders: Vec<NodeId>,
    /// Blocks of a term.
    pub blocks_per_term: u64,
}

impl Load {
    /// The leader of a block.
    pub fn leader(&self, block: u64) -> NodeId {
        self.leaders[(block / self.blocks_per_term) as usize % self.leaders.len()]
    }

    /// The first leader after the one of `block` who is another node.
    pub fn next_leader(&self, block: u64) -> Option<NodeId> {
        let current = self.leader(block);
        let term = (block / self.blocks_per_term) as usize;
        (1..self.leaders.len())
            .map(|ahead| self.leaders[(term + ahead) % self.leaders.len()])
            .find(|leader| *leader != current)
    }

    /// Bytes of all messages.
    pub fn bytes(&self) -> u64 {
        self.broadcasts.iter().map(|b| u64::from(b.bytes)).sum()
    }

    /// A single frag at time 0: block 1, so that genesis stays out of it.
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
        // One term covers the block.
        Self { broadcasts: vec![broadcast], leaders, blocks_per_term: 2 }
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
}
