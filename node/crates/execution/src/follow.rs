//! The chain's side of following an execution client: the steps that a follower hands over, and
//! [`Chain`], which takes them.
//!
//! How the client is asked is not known here.

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{B256, Bytes};
use futures_util::future::BoxFuture;

/// A block of the client, its parts checked against its hash.
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

/// The client's heads.
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
    /// The newest block that both chains have. If there are `blocks`, they contradict what we have
    /// after it.
    pub fork: B256,
    /// Blocks to import after it, each the child of the one before. Blocks that we have by now,
    /// from frags, are skipped; the last of them is then the fork.
    pub blocks: Vec<ClientBlock>,
    /// The client's heads.
    pub heads: ClientHeads,
}

/// Our chain, as the follower sees it.
pub trait Chain: Send + Sync {
    /// Whether the block is executed and canonical here. Must answer fast.
    fn has(&self, hash: B256) -> bool;
    /// Our newest block; `None` until there is one.
    fn latest(&self) -> Option<(u64, B256)>;
    /// Takes a step and resolves when it is done. `false` if that failed: it is tried again later.
    fn follow(&self, step: Follow) -> BoxFuture<'_, bool>;
    /// Called when the chains do not meet within the depth that the follower walks back. A chain
    /// that can start anew at the client's head does so.
    fn out_of_reach(&self, _heads: ClientHeads) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
