//! The forwarder against a server that behaves, and misbehaves, like an execution client.

pub(super) mod fixture;
mod server;

use super::*;
use fixture::{SECRET, block, env, frag, seal, superseded};
use server::{Arrival, Fault, Server, eventually};

/// A forwarder, and the number of messages it was given.
struct Forwarder {
    handle: EngineHandle,
    stats: Arc<EngineStats>,
    given: u64,
}

fn config(server: &Server) -> EngineConfig {
    let secret = JwtSecret::from_hex(&alloy_primitives::hex::encode(SECRET)).unwrap();
    EngineConfig {
        // A timeout only where it is what is tested.
        request_timeout: Duration::from_secs(60),
        retry: Duration::from_millis(5),
        ..EngineConfig::new(server.url(), secret)
    }
}

impl Forwarder {
    fn new(config: EngineConfig) -> Self {
        let stats = Arc::new(EngineStats::default());
        let handle = spawn(config, Arc::clone(&stats));
        Self { handle, stats, given: 0 }
    }

    fn give(&mut self, outputs: impl IntoIterator<Item = Output>) {
        for output in outputs {
            self.given += u64::from(matches!(output, Output::Message(_)));
            self.handle.try_forward(output);
        }
    }

    /// Waits until every message given ended one way or another.
    async fn settle(&self) -> EngineSnapshot {
        eventually("settled", || {
            let now = self.stats.snapshot();
            now.sent + now.skipped + now.queue_dropped == self.given
        })
        .await;
        self.stats.snapshot()
    }
}

/// The arrivals of a whole block.
fn whole(number: u64, attempt: u64, frags: u64) -> Vec<Arrival> {
    (0..frags + 2).map(|index| (number, attempt, index)).collect()
}

#[tokio::test]
async fn blocks_arrive_whole_and_in_order() {
    let server = Server::up(0);
    let mut forwarder = Forwarder::new(config(&server));
    forwarder.give([block(1, 0, 3), block(2, 0, 0)].concat());
    let stats = forwarder.settle().await;
    assert_eq!(server.arrivals(), [whole(1, 0, 3), whole(2, 0, 0)].concat());
    let expected = EngineSnapshot {
        sent: 7,
        valid: 7,
        last_valid_block: 2,
        connected: true,
        ..EngineSnapshot::default()
    };
    assert_eq!(stats, expected);
    forwarder.handle.shutdown().await;
}

#[tokio::test]
async fn a_wrong_secret_loses_nothing() {
    let server = Server::up(0);
    let mut forwarder = Forwarder::new(config(&server));
    forwarder.give(block(1, 0, 1));
    forwarder.settle().await;
    server.change(|state| state.secret = [8; 32]);
    forwarder.give([block(2, 0, 1), block(3, 0, 1)].concat());
    server.until("turned down", |state| state.unauthorised >= 3).await;
    assert_eq!(server.arrivals(), whole(1, 0, 1));
    assert!(!forwarder.stats.snapshot().connected);
    server.change(|state| state.secret = SECRET);
    let stats = forwarder.settle().await;
    assert_eq!(server.arrivals(), [whole(1, 0, 1), whole(2, 0, 1), whole(3, 0, 1)].concat());
    assert!(stats.valid == 9 && stats.retried >= 3 && stats.connected, "{stats:?}");
}

/// Sends block 1 to a server with a fault at `(1, index)`, then block 2.
async fn after_fault(fault: Fault, index: u64) {
    let server = Server::up(0);
    server.change(|state| {
        let _ = state.faults.insert((1, index), fault);
    });
    let config = config(&server);
    let timeout = config.request_timeout;
    let mut forwarder = Forwarder::new(config);
    forwarder.give(block(1, 0, 3));
    server.until("faulty", |state| state.arrivals.len() > index as usize).await;
    if fault == Fault::Silence {
        tokio::time::pause();
        tokio::time::advance(timeout).await;
        tokio::time::resume();
    }
    let stats = forwarder.settle().await;
    // The faulty message once, what follows not at all.
    assert_eq!(server.arrivals(), whole(1, 0, 3)[..=index as usize], "{fault:?}");
    assert_eq!((stats.valid, stats.skipped), (index, 4 - index), "{fault:?}");
    assert_eq!(
        (stats.refused, stats.ambiguous),
        if fault == Fault::Error { (1, 0) } else { (0, 1) }
    );
    // Block 1 comes the slow way, and block 2 is taken again.
    server.change(|state| {
        let _ = state.blocks.insert(1);
    });
    let before = server.arrivals().len();
    forwarder.give(block(2, 0, 2));
    let stats = forwarder.settle().await;
    assert_eq!(server.arrivals().split_off(before), whole(2, 0, 2), "{fault:?}");
    assert_eq!(stats.last_valid_block, 2, "{fault:?}");
    assert_eq!(server.state.borrow().ruined, 0, "{fault:?}");
}

#[tokio::test]
async fn after_an_error_the_rest_of_the_block_is_skipped() {
    for index in 0..=4 {
        after_fault(Fault::Error, index).await;
    }
}

#[tokio::test]
async fn after_a_broken_answer_nothing_is_sent_again() {
    for fault in [Fault::Close, Fault::Unavailable, Fault::Garbage] {
        for index in [0, 2, 4] {
            after_fault(fault, index).await;
        }
    }
}

#[tokio::test]
async fn after_a_timeout_nothing_is_sent_again() {
    for index in [0, 2, 4] {
        after_fault(Fault::Silence, index).await;
    }
}

#[tokio::test]
async fn a_server_that_is_down_at_first_gets_everything_once() {
    let mut server = Server::down(0);
    let mut forwarder = Forwarder::new(config(&server));
    // Block 0 has no parent to ask for: its Env itself cannot be delivered.
    forwarder.give([block(0, 0, 2), block(1, 0, 2)].concat());
    eventually("retried", || forwarder.stats.snapshot().retried >= 3).await;
    assert_eq!(server.arrivals(), []);
    server.start();
    let stats = forwarder.settle().await;
    assert_eq!(server.arrivals(), [whole(0, 0, 2), whole(1, 0, 2)].concat());
    assert_eq!((stats.valid, stats.skipped), (8, 0));
}

#[tokio::test]
async fn a_restart_between_blocks_costs_nothing() {
    let mut server = Server::up(0);
    let mut forwarder = Forwarder::new(config(&server));
    for number in 1..4 {
        forwarder.give(block(number, 0, 1));
        forwarder.settle().await;
        server.stop().await;
        server.start();
    }
    assert_eq!(server.arrivals(), [whole(1, 0, 1), whole(2, 0, 1), whole(3, 0, 1)].concat());
}

#[tokio::test]
async fn a_restart_within_a_block_costs_that_block() {
    let mut server = Server::up(0);
    let mut forwarder = Forwarder::new(config(&server));
    forwarder.give([env(1, 0), frag(1, 0, 0)]);
    forwarder.settle().await;
    server.stop().await;
    forwarder.give([frag(1, 0, 1), frag(1, 0, 2), seal(1, 0, 3)]);
    eventually("retried", || forwarder.stats.snapshot().retried >= 2).await;
    server.start();
    // The first frag after the restart is refused: the unsealed block is gone.
    let stats = forwarder.settle().await;
    assert_eq!((stats.valid, stats.refused, stats.skipped), (2, 1, 2));
    server.change(|state| {
        let _ = state.blocks.insert(1);
    });
    forwarder.give(block(2, 0, 1));
    assert_eq!(forwarder.settle().await.last_valid_block, 2);
}

#[tokio::test]
async fn the_next_env_waits_for_the_seal() {
    let server = Server::up(0);
    server.change(|state| {
        let _ = state.faults.insert((1, 2), Fault::Hold);
    });
    let mut forwarder = Forwarder::new(config(&server));
    forwarder.give([block(1, 0, 1), block(2, 0, 1)].concat());
    server.until("sealing", |state| state.arrivals.contains(&(1, 0, 2))).await;
    server.change(|state| state.faults.clear());
    // An Env before its parent is refused by the server, so that all valid says it waited.
    assert_eq!(forwarder.settle().await.valid, 6);
    assert_eq!(server.arrivals(), [whole(1, 0, 1), whole(2, 0, 1)].concat());
}

#[tokio::test]
async fn the_next_env_is_released_by_the_client_having_the_block() {
    let server = Server::up(0);
    let mut forwarder = Forwarder::new(config(&server));
    // The seal of block 1 never comes.
    forwarder.give([env(1, 0), frag(1, 0, 0)]);
    forwarder.give(block(2, 0, 1));
    server.until("asked again", |state| state.asked >= 4).await;
    assert_eq!(server.arrivals(), whole(1, 0, 0));
    server.change(|state| {
        let _ = state.blocks.insert(1);
    });
    assert_eq!(forwarder.settle().await.valid, 5);
    assert_eq!(server.arrivals()[2..], whole(2, 0, 1));
}

#[tokio::test]
async fn interleaved_blocks_are_untangled() {
    let server = Server::up(4);
    let mut forwarder = Forwarder::new(config(&server));
    forwarder.give([env(6, 0), env(5, 0), frag(6, 0, 0), frag(5, 0, 0), seal(6, 0, 1)]);
    forwarder.give([seal(5, 0, 1)]);
    assert_eq!(forwarder.settle().await.valid, 6);
    assert_eq!(server.arrivals(), [whole(5, 0, 1), whole(6, 0, 1)].concat());
}

#[tokio::test]
async fn a_newer_attempt_starts_the_block_anew() {
    let server = Server::up(0);
    let mut forwarder = Forwarder::new(config(&server));
    forwarder.give([env(1, 0), frag(1, 0, 0)]);
    forwarder.settle().await;
    forwarder.give([superseded(1, 0)]);
    forwarder.give(block(1, 1, 2));
    forwarder.give([frag(1, 0, 1)]);
    let stats = forwarder.settle().await;
    assert_eq!((stats.valid, stats.skipped, stats.last_valid_block), (6, 1, 1));
    assert_eq!(server.arrivals()[2..], whole(1, 1, 2));
    assert_eq!(server.state.borrow().ruined, 0);
}

#[tokio::test]
async fn a_full_queue_ends_the_block_and_not_in_its_middle() {
    let server = Server::up(0);
    let mut forwarder = Forwarder::new(EngineConfig { queue: 4, ..config(&server) });
    // The test's runtime has one thread: the forwarder sees nothing of this until the await.
    forwarder.give(block(1, 0, 6));
    assert_eq!(forwarder.stats.snapshot().queue_dropped, 4);
    forwarder.settle().await;
    forwarder.give([frag(1, 0, 5)]);
    let stats = forwarder.settle().await;
    assert_eq!((stats.valid, stats.skipped), (4, 1));
    assert_eq!(server.arrivals(), whole(1, 0, 2));
    server.change(|state| {
        let _ = state.blocks.insert(1);
    });
    forwarder.give(block(2, 0, 2));
    assert_eq!(forwarder.settle().await.last_valid_block, 2);
}

#[tokio::test]
async fn shutdown_counts_the_request_under_way() {
    let server = Server::up(0);
    server.change(|state| {
        let _ = state.faults.insert((1, 0), Fault::Hold);
    });
    let mut forwarder = Forwarder::new(config(&server));
    forwarder.give(block(1, 0, 1));
    server.until("arrived", |state| !state.arrivals.is_empty()).await;
    let stats = Arc::clone(&forwarder.stats);
    let release = async { server.change(|state| state.faults.clear()) };
    tokio::join!(forwarder.handle.shutdown(), release);
    assert_eq!(stats.snapshot().valid, 1);
    assert_eq!(server.arrivals(), [(1, 0, 0)]);
}
