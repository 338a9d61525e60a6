//! What following an execution client means for the chain that follows: the steps that a follower
//! hands over, and [`Chain`], which takes them.
//!
//! Who asks the client, and how, is not known here.

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{B256, Bytes};
use futures_util::future::BoxFuture;

/// A block of the client's, its parts checked against its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientBlock {
    /// Its header.
    pub header: Header,
    /// Hash of the header.
    pub hash: B256,
    /// Its transactions, EIP-2718.
    pub txs: Vec<Bytes>,
    /// Its withdrawals, from Shanghai on; on an OP chain none.
    pub withdrawals: Option<Vec<Withdrawal>>,
}

impl ClientBlock {
    /// Bytes of its transactions.
    pub fn size(&self) -> usize {
        self.txs.iter().map(|tx| tx.len()).sum()
    }
}

/// The ends of the client's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientHeads {
    /// Its head.
    pub latest: (u64, B256),
    /// Its safe block, if it has one.
    pub safe: Option<(u64, B256)>,
    /// Its finalized block, if it has one.
    pub finalized: Option<(u64, B256)>,
}

/// A step along the client's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// The newest block that both chains have; what we have after it is contradicted, if there
    /// are blocks.
    pub fork: B256,
    /// Blocks to import after it, each the child of the one before. Those that we have by now,
    /// from frags, are to be passed over, and the last of those is the fork then.
    pub blocks: Vec<ClientBlock>,
    /// The ends of the client's chain.
    pub heads: ClientHeads,
}

/// Our chain, as the follower sees it.
pub trait Chain: Send + Sync {
    /// Whether the block is executed and canonical here. Must answer fast.
    fn has(&self, hash: B256) -> bool;
    /// Our newest block; `None` until there is one.
    fn latest(&self) -> Option<(u64, B256)>;
    /// Takes a step; done when it is taken. `false` if that failed: it is tried again, later.
    fn follow(&self, step: Follow) -> BoxFuture<'_, bool>;
    /// The chains do not meet within the depth that the follower walks back. A chain that can start anew at the
    /// client's head does so.
    fn out_of_reach(&self, _heads: ClientHeads) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
