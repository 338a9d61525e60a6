//! A node's database and executor behind an execution client: whatever the client does, the node
//! reaches its head without a restart, and reports every block that it takes back.

use alloy_primitives::B256;
use fragcast_execution::exec::{StateSource, env_of, seal_of};
use fragcast_execution::executor::{ChainEvent, ChainView, Executor, ExecutorConfig, History};
use fragcast_execution::follow::Chain;
use fragcast_execution::testing::output;
use fragcast_shredder::{BlockBuilder, Message};
use fragcast_store::{Store, StoreConfig};
use tokio::sync::broadcast;

use super::*;
use crate::client::{FollowConfig, FollowStats, follow};

/// A block as its gateway would have sent it.
fn messages_of(block: &SealedBlock) -> Vec<Message> {
    let header = &block.snapshot.header;
    let frags = &block.snapshot.frags;
    let txs = frags.iter().map(|frag| frag.txs.iter().map(|e| e.tx.bytes.clone()));
    let mut messages = BlockBuilder::from_env(env_of(header)).messages(txs);
    messages.pop();
    messages.push(seal_of(header, block.hash(), frags.len() as u64, false).into());
    messages
}

/// The chain as a reader of the events knows it.
struct Listener {
    events: broadcast::Receiver<ChainEvent>,
    chain: Vec<B256>,
    unwound: usize,
    retracted: usize,
}

impl Listener {
    /// Takes the events. None may be missing: every block stands on the one before it.
    fn listen(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(ChainEvent::Verified(block)) => {
                    assert_eq!(self.chain.last(), Some(&block.snapshot.header.parent_hash));
                    self.chain.push(block.hash());
                }
                Ok(ChainEvent::Unwound(block)) => {
                    assert_eq!(self.chain.pop(), Some(block.hash));
                    self.unwound += 1;
                }
                Ok(ChainEvent::Retracted { .. }) => self.retracted += 1,
                Ok(ChainEvent::Frag(_)) => {}
                Err(broadcast::error::TryRecvError::Empty) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

struct Net {
    server: Server,
    executor: Arc<Executor>,
    store: Arc<Store>,
    listener: Listener,
    follower: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Net {
    fn new() -> Self {
        let start = TestChain::with_trie(&config());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chain.redb");
        let store = Store::open(&path, &start.spec, StoreConfig::default()).unwrap();
        let view = Arc::new(ChainView::new(Some(Arc::clone(&store) as Arc<dyn History>), 1 << 14));
        let events = view.subscribe();
        let source = Arc::clone(&store) as Arc<dyn StateSource>;
        let bounds = ExecutorConfig::default();
        let executor = Executor::spawn(Arc::clone(&start.spec), source, view, bounds, None);
        let executor = Arc::new(executor.unwrap());
        let genesis = start.head.hash();
        let server = Server::up(start.spec.chain_id, vec![Arc::clone(&start.head)]);
        let client = ClientConfig { url: server.url(), ..ClientConfig::default() };
        let client = Client::new(client).unwrap();
        let settings =
            FollowConfig { interval: Duration::from_millis(5), ..FollowConfig::default() };
        let chain = Arc::clone(&executor) as Arc<dyn Chain>;
        let follower = tokio::spawn(async move {
            match follow(client, chain, settings, Arc::new(FollowStats::default())).await {}
        });
        let listener = Listener { events, chain: vec![genesis], unwound: 0, retracted: 0 };
        Self { server, executor, store, listener, follower, _dir: dir }
    }

    fn head(&self) -> Option<B256> {
        self.executor.view().heads().map(|heads| heads.latest.hash())
    }

    async fn reaches(&mut self, hash: B256) {
        let wait = async {
            while self.head() != Some(hash) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(GUARD, wait).await.unwrap();
        self.listener.listen();
        assert_eq!(self.listener.chain.last(), Some(&hash));
    }

    fn push(&self, block: &SealedBlock) {
        for message in messages_of(block) {
            assert!(self.executor.try_push(&output(0, &message)));
        }
    }
}

/// A chain from block 0 on; `forks` says from which block on it is on which branch.
fn chain(forks: &[(u64, u8)], length: u64) -> Vec<Arc<SealedBlock>> {
    let mut chain = TestChain::with_trie(&config());
    let mut blocks = vec![Arc::clone(&chain.head)];
    for number in 1..=length {
        let fork = forks.iter().rev().find(|(first, _)| *first <= number);
        chain.branch = fork.map_or(0, |(_, branch)| *branch);
        blocks.push(chain.block(1, 1));
    }
    blocks
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_follows_its_client_through_gaps_replacements_and_reorganisations() {
    let mut net = Net::new();
    // Three blocks that come as frags; the client has them too, and a fourth that had none.
    let first = chain(&[], 4);
    for block in &first[1..4] {
        net.push(block);
    }
    net.reaches(first[3].hash()).await;
    for block in &first[1..] {
        net.server.extend(block);
    }
    net.reaches(first[4].hash()).await;
    assert_eq!(net.listener.unwound, 0);
    // The client replaces the fourth, and goes on.
    let second = chain(&[(4, 2)], 7);
    net.server.reorganise(second[..6].to_vec());
    net.reaches(second[5].hash()).await;
    assert_eq!(net.listener.unwound, 1);
    // Frags lead ahead of the client; then it reorganises three deep, these included.
    net.push(&second[6]);
    net.push(&second[7]);
    net.reaches(second[7].hash()).await;
    let third = chain(&[(4, 2), (5, 3)], 320);
    net.server.reorganise(third[..9].to_vec());
    net.reaches(third[8].hash()).await;
    assert_eq!(net.listener.unwound, 1 + 3);
    // A long way on, and then 300 deep, which is more than can be undone.
    net.server.reorganise(third.clone());
    net.reaches(third[320].hash()).await;
    let fourth = chain(&[(4, 2), (5, 3), (21, 4)], 322);
    net.server.reorganise(fourth.clone());
    net.reaches(fourth[322].hash()).await;
    assert!(net.listener.unwound >= 4 + 300, "{}", net.listener.unwound);
    assert_eq!(net.listener.chain.len(), fourth.len());
    // What is stored is what the client has.
    net.follower.abort();
    let Net { executor, store, .. } = net;
    tokio::task::spawn_blocking(move || {
        drop(executor);
        store.settle();
        let report = store.verify().unwrap();
        assert_eq!(report.hash, fourth[322].hash());
        assert_eq!(store.durable(), Some((322, fourth[322].hash())));
    })
    .await
    .unwrap();
}
