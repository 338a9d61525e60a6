//! Follows the client's canonical chain: finds where it leaves ours, fetches its blocks from there
//! on and hands them to the executor.
//!
//! If we have the client's head already, there is nothing to do: the client is at our head, or
//! behind it while frags lead ahead. For a head that we do not have, headers are walked back by
//! their hashes to a block that we have, and every block after that one is fetched by its hash. The
//! client may reorganise, restart or lie meanwhile. Because every step is tied to a hash, the round
//! then fails, and the next one starts from the client's new head.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy_primitives::B256;
use fragcast_execution::follow::{Chain, ClientBlock, ClientHeads, Follow};
use tokio::time::sleep;

use super::rpc::{Client, ClientError};

/// Headers asked for in one step back.
const STEP_BACK: u64 = 64;
/// Rounds in a row during which the client's chain changed before that is logged: at the default
/// interval five seconds.
const MANY_MOVES: u32 = 10;

/// Settings of the follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowConfig {
    /// How often the client is asked for its head.
    pub interval: Duration,
    /// The longest pause after failures.
    pub max_pause: Duration,
    /// The most blocks that are walked back; 40 bytes each are kept meanwhile.
    pub depth: u64,
    /// The most blocks of a step.
    pub chunk: usize,
    /// A step is full at this many bytes of transactions. One block more, bounded by the client's
    /// longest answer, may be in memory.
    pub chunk_bytes: usize,
}

impl Default for FollowConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(500),
            max_pause: Duration::from_secs(10),
            depth: 8192,
            chunk: 32,
            chunk_bytes: 32 * 1024 * 1024,
        }
    }
}

/// Counters of the follower.
#[derive(Debug, Default)]
pub struct FollowStats {
    /// Rounds begun.
    pub rounds: AtomicU64,
    /// Rounds that failed because the client was not available.
    pub unavailable: AtomicU64,
    /// Rounds that failed because it refused.
    pub refused: AtomicU64,
    /// Rounds that failed because it answered wrongly.
    pub corrupt: AtomicU64,
    /// Rounds that ended because the client's chain changed meanwhile.
    pub moved: AtomicU64,
    /// Rounds that found no common block.
    pub out_of_reach: AtomicU64,
    /// Steps that were not taken.
    pub not_taken: AtomicU64,
    /// Blocks handed over.
    pub blocks: AtomicU64,
    /// Rounds in which blocks of ours were contradicted.
    pub reorgs: AtomicU64,
    /// The client's head at the last round that reached it.
    pub head: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Why a round failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum Trouble {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the execution client's chain changed while it was read")]
    Moved,
    #[error(
        "the execution client's block {number} and its {depth} ancestors are not on this node's \
         chain (at {ours}): check that both are on the same chain; if this node is too far \
         behind, start it from a newer snapshot or raise the follow depth"
    )]
    OutOfReach { number: u64, depth: u64, ours: u64 },
    #[error("blocks of the execution client could not be imported; trying again")]
    NotTaken,
}

impl Trouble {
    /// The kind of a failure; the log reports each kind once.
    fn kind(&self) -> &'static str {
        match self {
            Self::Client(error) => error.label(),
            other => other.into(),
        }
    }
}

/// Follows `client` on behalf of `chain`, until dropped.
pub async fn follow(
    client: Client,
    chain: Arc<dyn Chain>,
    config: FollowConfig,
    stats: Arc<FollowStats>,
) -> Infallible {
    let follower = Follower { client, chain, config, stats };
    let mut pause = follower.config.interval;
    let mut trouble = None;
    let mut moves = 0_u32;
    loop {
        match follower.round().await {
            Ok(()) => {
                if trouble.take().is_some() {
                    tracing::info!("following the execution client again");
                }
                pause = follower.config.interval;
                moves = 0;
            }
            Err(error) => {
                follower.note(&error);
                moves = if error == Trouble::Moved { moves.saturating_add(1) } else { 0 };
                if moves == MANY_MOVES {
                    tracing::warn!("{error}, {moves} times in a row");
                }
                if trouble != Some(error.kind()) {
                    match error {
                        // Happens with every reorganisation that comes at the wrong moment.
                        Trouble::Moved => tracing::debug!("{error}"),
                        Trouble::OutOfReach { .. } => tracing::error!("{error}"),
                        _ => tracing::warn!("{error}"),
                    }
                    trouble = Some(error.kind());
                }
                if error != Trouble::Moved {
                    pause = (pause * 2).min(follower.config.max_pause);
                }
            }
        }
        sleep(pause).await;
    }
}

struct Follower {
    client: Client,
    chain: Arc<dyn Chain>,
    config: FollowConfig,
    stats: Arc<FollowStats>,
}

impl Follower {
    fn note(&self, trouble: &Trouble) {
        count(match trouble {
            Trouble::Client(ClientError::Unavailable(_)) => &self.stats.unavailable,
            Trouble::Client(ClientError::Refused { .. }) => &self.stats.refused,
            Trouble::Client(ClientError::Corrupt(_)) => &self.stats.corrupt,
            Trouble::Moved => &self.stats.moved,
            Trouble::OutOfReach { .. } => &self.stats.out_of_reach,
            Trouble::NotTaken => &self.stats.not_taken,
        });
    }

    async fn round(&self) -> Result<(), Trouble> {
        count(&self.stats.rounds);
        // Nothing to compare with yet.
        let Some((ours, our_head)) = self.chain.latest() else { return Ok(()) };
        let heads = self.client.heads().await?;
        self.stats.head.store(heads.latest.0, Ordering::Relaxed);
        if self.chain.has(heads.latest.1) {
            let step = Follow { fork: heads.latest.1, blocks: Vec::new(), heads };
            return self.take(step).await;
        }
        let Some((fork, hashes)) = self.walk_back(heads).await? else {
            self.chain.out_of_reach(heads).await;
            let (number, depth) = (heads.latest.0, self.config.depth);
            return Err(Trouble::OutOfReach { number, depth, ours });
        };
        // Frags may have led ours ahead meanwhile.
        let reorg = self.chain.latest().is_some_and(|(_, now)| fork != now) && fork != our_head;
        self.hand_over(heads, fork, hashes).await?;
        if reorg {
            count(&self.stats.reorgs);
        }
        Ok(())
    }

    async fn take(&self, step: Follow) -> Result<(), Trouble> {
        if self.chain.follow(step).await { Ok(()) } else { Err(Trouble::NotTaken) }
    }

    /// Finds the newest common block, and the hashes of the client's blocks after it, newest first.
    async fn walk_back(&self, heads: ClientHeads) -> Result<Option<(B256, Vec<B256>)>, Trouble> {
        let (mut number, mut hash) = heads.latest;
        let mut hashes = Vec::new();
        // The first step is short: most often the parent is ours.
        let mut step = 1;
        loop {
            let left = self.config.depth.saturating_sub(hashes.len() as u64);
            if left == 0 {
                return Ok(None);
            }
            let headers = self.client.headers_down(number, step.min(left)).await?;
            if headers.is_empty() {
                return Err(Trouble::Moved);
            }
            for (header, got) in headers {
                if got != hash || header.number != number {
                    return Err(Trouble::Moved);
                }
                hashes.push(hash);
                hash = header.parent_hash;
                if self.chain.has(hash) {
                    return Ok(Some((hash, hashes)));
                }
                let Some(below) = number.checked_sub(1) else { return Ok(None) };
                number = below;
            }
            step = (step * 4).min(STEP_BACK);
        }
    }

    async fn hand_over(
        &self,
        heads: ClientHeads,
        mut fork: B256,
        mut hashes: Vec<B256>,
    ) -> Result<(), Trouble> {
        while !hashes.is_empty() {
            let mut blocks: Vec<ClientBlock> = Vec::new();
            let mut bytes = 0;
            while blocks.len() < self.config.chunk.max(1) && bytes < self.config.chunk_bytes {
                let Some(hash) = hashes.pop() else { break };
                let block = self.client.block(hash).await?.ok_or(Trouble::Moved)?;
                bytes += block.size();
                blocks.push(block);
            }
            let Some(last) = blocks.last().map(|block| block.hash) else { break };
            let handed = blocks.len() as u64;
            self.take(Follow { fork, blocks, heads }).await?;
            self.stats.blocks.fetch_add(handed, Ordering::Relaxed);
            fork = last;
        }
        Ok(())
    }
}
