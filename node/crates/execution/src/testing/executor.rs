//! An executor under test, fed by the devnet's gateway.

use std::num::NonZeroU32;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use fragcast_shredder::delivery::{Delivered, Output, RetractReason, Times, Via};
use fragcast_shredder::{Dialect, GatewayKey, Message};
use tokio::sync::broadcast;

use crate::chain::ChainSpec;
use crate::devnet::{DevnetConfig, DevnetGateway, Genesis};
use crate::exec::memory::{MemorySource, MemoryState};
use crate::exec::{StateSource, Verdict};
use crate::executor::{BlockReport, ChainEvent, ChainView, Executor, ExecutorConfig, ReportTap};

/// Longer than any test takes: a guard against hanging.
pub const GUARD: Duration = Duration::from_secs(60);

/// A devnet of 30 accounts.
pub fn config() -> DevnetConfig {
    DevnetConfig {
        accounts: NonZeroU32::new(30).expect("not zero"),
        timestamp: 1_000,
        ..DevnetConfig::default()
    }
}

/// The state of that devnet's genesis, in memory.
pub fn memory_source() -> (Arc<ChainSpec>, MemorySource) {
    let genesis = Genesis::devnet(&config());
    let spec = genesis.chain_spec("dev").unwrap();
    let state = MemoryState::of_genesis(spec.genesis.as_ref().unwrap());
    (Arc::new(spec), MemorySource::new(genesis.header(), state).unwrap())
}

/// A [`ChainEvent`] in a form that can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A frag of block number, and how many frags it has now.
    Frag(u64, usize),
    /// A block number.
    Verified(u64),
    /// A block number and the reason.
    Retracted(u64, &'static str),
    /// A block number.
    Unwound(u64),
}

/// An executor, its events and its reports.
pub struct Bench {
    /// The executor.
    pub executor: Executor,
    events: broadcast::Receiver<ChainEvent>,
    reports: mpsc::Receiver<BlockReport>,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// An executor on the devnet's genesis in memory.
    pub fn new() -> Self {
        let (spec, source) = memory_source();
        Self::on(spec, Arc::new(source), ExecutorConfig::default())
    }

    /// An executor on any source.
    pub fn on(spec: Arc<ChainSpec>, source: Arc<dyn StateSource>, config: ExecutorConfig) -> Self {
        let view = Arc::new(ChainView::new(None, 4096));
        let events = view.subscribe();
        let (tell, reports) = mpsc::channel();
        let tap: ReportTap = Box::new(move |report| drop(tell.send(report.clone())));
        let executor = Executor::spawn(spec, source, view, config, Some(tap)).unwrap();
        Self { executor, events, reports }
    }

    /// Hands in messages of an attempt; each must find room.
    pub fn push(&self, attempt: u8, messages: &[Message]) {
        for message in messages {
            assert!(self.executor.try_push(&output(attempt, message)));
        }
    }

    /// Hands in a retraction: the attempt is superseded by the next one.
    pub fn retract(&self, block: u64, attempt: u8) {
        let reason = RetractReason::Superseded { by: attempt + 1 };
        self.executor.try_push(&Output::Retracted { block, attempt, reason });
    }

    /// The next report, if it has come.
    pub fn try_report(&self) -> Option<BlockReport> {
        self.reports.try_recv().ok()
    }

    /// Waits until everything that was handed in is dealt with.
    pub fn settle(&self) {
        let begun = Instant::now();
        while !self.executor.is_idle() {
            assert!(begun.elapsed() < GUARD, "the executor has something to do");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The next report.
    pub fn report(&self) -> BlockReport {
        self.reports.recv_timeout(GUARD).unwrap()
    }

    /// Checks that the next report says that this block is verified.
    pub fn verified(&self, number: u64, attempt: u8) {
        let report = self.report();
        assert_eq!((report.number, report.attempt), (number, attempt));
        assert_eq!(report.verdict, Verdict::Verified);
    }

    /// Ends the executor and returns everything that it reported.
    pub fn end(self) -> (Arc<ChainView>, Vec<Told>) {
        let Self { executor, mut events, .. } = self;
        let view = Arc::clone(executor.view());
        executor.stop();
        let mut told = Vec::new();
        while let Ok(event) = events.try_recv() {
            told.push(match event {
                ChainEvent::Frag(s) => Told::Frag(s.header.number, s.frags.len()),
                ChainEvent::Verified(b) => Told::Verified(b.number()),
                ChainEvent::Retracted { snapshot, reason } => {
                    Told::Retracted(snapshot.header.number, reason)
                }
                ChainEvent::Unwound(b) => Told::Unwound(b.header.number),
            });
        }
        (view, told)
    }
}

/// A signed message as the sequencer hands it on.
pub fn output(attempt: u8, message: &Message) -> Output {
    let message = GatewayKey::from_bytes([0x11; 32]).unwrap().sign_verified(message.clone());
    let delivered = Delivered::of_attempt(attempt, message, Times::default(), Via::Turbine);
    Output::Message(Arc::new(delivered.unwrap()))
}

/// The gateway of that devnet.
pub fn gateway() -> DevnetGateway {
    DevnetGateway::new(&config(), Dialect::V0).unwrap()
}

/// A block of two frags.
pub fn block(gateway: &mut DevnetGateway, timestamp: u64) -> Vec<Message> {
    gateway.block(timestamp, 2, 8).unwrap()
}
