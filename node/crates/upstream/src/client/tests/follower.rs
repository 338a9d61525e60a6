//! The follower against a mock of our chain.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloy_primitives::B256;
use fragcast_execution::follow::{Chain, ClientHeads, Follow};
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;

use super::*;
use crate::client::{FollowConfig, FollowStats, follow};
use crate::testing::{Fault, Lie};

/// Our chain: hashes by number.
#[derive(Default)]
struct Ours {
    hashes: Mutex<Vec<B256>>,
    heads: Mutex<Option<ClientHeads>>,
    steps: AtomicU64,
    largest: AtomicU64,
    unwound: AtomicU64,
    refuse: AtomicBool,
    out_of_reach: AtomicBool,
}

impl Chain for Ours {
    fn has(&self, hash: B256) -> bool {
        self.hashes.lock().unwrap().contains(&hash)
    }

    fn latest(&self) -> Option<(u64, B256)> {
        let hashes = self.hashes.lock().unwrap();
        Some((hashes.len().checked_sub(1)? as u64, *hashes.last()?))
    }

    fn follow(&self, step: Follow) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            if self.refuse.load(Ordering::Relaxed) {
                return false;
            }
            let mut hashes = self.hashes.lock().unwrap();
            let fork = hashes.iter().position(|hash| *hash == step.fork).unwrap();
            if !step.blocks.is_empty() {
                self.steps.fetch_add(1, Ordering::Relaxed);
                self.largest.fetch_max(step.blocks.len() as u64, Ordering::Relaxed);
                self.unwound.fetch_add((hashes.len() - fork - 1) as u64, Ordering::Relaxed);
                hashes.truncate(fork + 1);
            }
            for block in step.blocks {
                assert_eq!(block.header.parent_hash, *hashes.last().unwrap());
                assert_eq!(block.header.number, hashes.len() as u64);
                assert_eq!(block.header.hash_slow(), block.hash);
                hashes.push(block.hash);
            }
            *self.heads.lock().unwrap() = Some(step.heads);
            true
        })
    }

    fn out_of_reach(&self, _: ClientHeads) -> BoxFuture<'_, ()> {
        self.out_of_reach.store(true, Ordering::Relaxed);
        Box::pin(async {})
    }
}

struct Scene {
    server: Server,
    chain: TestChain,
    blocks: Vec<Arc<SealedBlock>>,
    ours: Arc<Ours>,
    stats: Arc<FollowStats>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Scene {
    /// Client and we have the same `count` blocks.
    fn new(count: usize) -> Self {
        let mut chain = TestChain::new(&config());
        let blocks = blocks(&mut chain, count, 1);
        let server = Server::up(config().chain_id, blocks.clone());
        let ours = Ours::default();
        *ours.hashes.lock().unwrap() = blocks.iter().map(|block| block.hash()).collect();
        let (ours, stats) = (Arc::new(ours), Arc::default());
        Self { server, chain, blocks, ours, stats, task: None }
    }

    fn follow(mut self, depth: u64) -> Self {
        let client = client_with(&self.server, |config| config.timeout = Duration::from_secs(5));
        let config = FollowConfig {
            interval: Duration::from_millis(2),
            max_pause: Duration::from_millis(20),
            depth,
            ..FollowConfig::default()
        };
        let (ours, stats) = (Arc::clone(&self.ours), Arc::clone(&self.stats));
        self.task =
            Some(tokio::spawn(async move { match follow(client, ours, config, stats).await {} }));
        self
    }

    /// A branch with `count` blocks of its own after block `fork`.
    fn branch(&mut self, fork: usize, count: usize) -> Vec<Arc<SealedBlock>> {
        self.chain.branch += 1;
        self.chain.head = Arc::clone(&self.blocks[fork]);
        let mut branch = self.blocks[..=fork].to_vec();
        branch.extend((0..count).map(|_| self.chain.block(1, 0)));
        branch
    }

    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let poll = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let reached = tokio::time::timeout(GUARD, poll).await.is_ok();
        assert!(reached, "never {what}: {:?}", self.stats);
    }

    async fn until_ours_is(&self, chain: &[Arc<SealedBlock>]) {
        let hashes: Vec<B256> = chain.iter().map(|block| block.hash()).collect();
        self.until("our chain is the client's", || *self.ours.hashes.lock().unwrap() == hashes)
            .await;
    }
}

#[tokio::test]
async fn a_block_without_frags_is_delivered() {
    let mut scene = Scene::new(2).follow(100);
    let block = scene.chain.block(1, 3);
    scene.blocks.push(Arc::clone(&block));
    scene.server.extend(&block);
    scene.until_ours_is(&scene.blocks).await;
    assert_eq!(scene.stats.reorgs.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_client_behind_is_no_contradiction_and_tells_its_heads() {
    let mut scene = Scene::new(5);
    scene.server.reorganise(scene.blocks[..=3].to_vec());
    scene.server.state().safe = Some(2);
    scene.server.state().finalized = Some(1);
    scene = scene.follow(100);
    let expected = ClientHeads {
        latest: (3, scene.blocks[3].hash()),
        safe: Some((2, scene.blocks[2].hash())),
        finalized: Some((1, scene.blocks[1].hash())),
    };
    scene.until("told", || *scene.ours.heads.lock().unwrap() == Some(expected)).await;
    scene.until("ten rounds", || scene.stats.rounds.load(Ordering::Relaxed) > 10).await;
    scene.until_ours_is(&scene.blocks).await;
    assert_eq!(scene.ours.steps.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_block_that_differs_is_replaced() {
    let mut scene = Scene::new(3);
    let branch = scene.branch(2, 1);
    scene.server.reorganise(branch.clone());
    let scene = scene.follow(100);
    scene.until_ours_is(&branch).await;
    scene.until("counted", || scene.stats.reorgs.load(Ordering::Relaxed) == 1).await;
    assert_eq!(scene.ours.unwound.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn reorganisations_of_3_and_300_blocks_and_back() {
    for depth in [3, 300] {
        let mut scene = Scene::new(depth + 2);
        // To a longer branch, then to a shorter one.
        let longer = scene.branch(2, depth + 1);
        let shorter = scene.branch(2, depth - 1);
        scene = scene.follow(1000);
        scene.server.reorganise(longer.clone());
        scene.until_ours_is(&longer).await;
        assert_eq!(scene.ours.unwound.load(Ordering::Relaxed), depth as u64);
        scene.server.reorganise(shorter.clone());
        scene.until_ours_is(&shorter).await;
        assert!(scene.ours.largest.load(Ordering::Relaxed) <= 32);
        scene.until("counted", || scene.stats.reorgs.load(Ordering::Relaxed) == 2).await;
    }
}

#[tokio::test]
async fn a_client_that_was_down_is_followed_again() {
    let mut scene = Scene::new(2).follow(100);
    scene.until("a round", || scene.stats.rounds.load(Ordering::Relaxed) > 0).await;
    scene.server.stop();
    scene.until("noticed", || scene.stats.unavailable.load(Ordering::Relaxed) > 2).await;
    for _ in 0..40 {
        let block = scene.chain.block(1, 1);
        scene.blocks.push(Arc::clone(&block));
        scene.server.extend(&block);
    }
    scene.server.start();
    scene.until_ours_is(&scene.blocks).await;
    assert!(scene.ours.steps.load(Ordering::Relaxed) >= 2);
}

#[tokio::test]
async fn nonsense_changes_nothing() {
    let mut scene = Scene::new(2).follow(100);
    let block = scene.chain.block(1, 3);
    scene.server.state().fault = Some(Fault::Truncated);
    scene.server.extend(&block);
    scene.until("noticed", || scene.stats.corrupt.load(Ordering::Relaxed) > 2).await;
    {
        let mut state = scene.server.state();
        (state.fault, state.lie) = (None, Some(Lie::TxMissing));
    }
    let before = scene.stats.corrupt.load(Ordering::Relaxed);
    scene.until("found", || scene.stats.corrupt.load(Ordering::Relaxed) > before + 2).await;
    scene.until_ours_is(&scene.blocks).await;
    scene.server.state().lie = None;
    scene.blocks.push(block);
    scene.until_ours_is(&scene.blocks).await;
}

#[tokio::test]
async fn a_chain_out_of_reach_is_told() {
    let mut scene = Scene::new(12);
    let branch = scene.branch(1, 12);
    scene.server.reorganise(branch);
    let scene = scene.follow(8);
    scene.until("told", || scene.ours.out_of_reach.load(Ordering::Relaxed)).await;
    scene.until("counted", || scene.stats.out_of_reach.load(Ordering::Relaxed) > 1).await;
    scene.until_ours_is(&scene.blocks).await;
}

#[tokio::test]
async fn a_step_that_is_not_taken_comes_again() {
    let mut scene = Scene::new(1);
    scene.ours.refuse.store(true, Ordering::Relaxed);
    let block = scene.chain.block(1, 1);
    scene.server.extend(&block);
    scene.blocks.push(block);
    scene = scene.follow(8);
    scene.until("refused", || scene.stats.not_taken.load(Ordering::Relaxed) > 2).await;
    scene.ours.refuse.store(false, Ordering::Relaxed);
    scene.until_ours_is(&scene.blocks).await;
}
