//! Flashblocks: a WebSocket over which unmodified consumers of Flashblocks receive what this node
//! has executed of a block, frag by frag.
//!
//! The format is that of `FlashblocksPayloadV1` (rollup-boost, op-rbuilder) and
//! `OpFlashblockPayload` (op-alloy). The specification of the OP stack
//! (`specs/protocol/flashblocks.md`) describes the same with other metadata, which nobody sends.
//!
//! | field | what it is here |
//! |---|---|
//! | `payload_id` | 8 bytes, the first 0x03: one for each attempt at a block (`payload.rs`) |
//! | `index` | 0, 1, 2 …, one for each executed frag, an empty frag too |
//! | `base` | what the Env fixed; with index 0 alone |
//! | `diff.transactions` | those of this frag |
//! | `gas_used`, `logs_bloom`, `receipts_root`, `blob_gas_used` in it | of the block so far |
//! | `diff.withdrawals_root` | from Isthmus on, of the state so far; before that zero |
//! | `diff.state_root` | zero until the Seal |
//! | `diff.block_hash` | of the header with the very roots above: no two are alike |
//! | `metadata` | `block_number`, the receipts of this frag by hash, the balances it left |
//!
//! **The last one.** A block that is verified before the next one's first frag gets one more
//! flashblock, with an empty diff and the roots and the hash of its header. Until then the state
//! root is zero, as with other publishers: the state is hashed once for each block. Base's node
//! does not look at it. op-reth computes it itself where it needs it, and takes a root other than
//! zero to mean that the block is whole, so it must not be a guess.
//!
//! **Frames.** By default frames are binary with plain JSON inside, which Base's node and every
//! version of op-reth read; Base's refuses text frames. A path that ends in `/text` gets text
//! frames, for rollup-boost's websocket proxy, which refuses binary ones, and for browsers. Every
//! other path is the same as `/`.
//!
//! **Compression.** Consumers that offer permessage-deflate (RFC 7692) in their handshake, as browsers
//! and Node.js do, get compressed frames; a flashblock is compressed once for all of them. Others get
//! plain JSON: those that know brotli tell it from JSON by the first byte, and no handshake says which
//! do.
//!
//! **Going on.** `?block_number=N&flashblock_index=M`, which Base's builder and proxy take, continues
//! after that flashblock, if it is still here and block N was not begun again since; else with the
//! first flashblock of block N's newest attempt, or of the first later block that is here.
//!
//! **Retractions** have no message in Flashblocks. An attempt that supersedes another starts again
//! at index 0 under another payload id, which op-reth accepts. Base's node goes by number and index
//! alone: it drops what it had of the block and continues with the next block; if it had only index
//! 0, it keeps that one and takes the new attempt's others after it. After a block is rejected, no
//! more of it is sent. Consumers that need retractions subscribe to `retractions`
//! (`eth_subscribe`).
//!
//! **Gaps.** When an index is missing, consumers drop everything up to the next index 0. So there
//! are no gaps: a late subscriber starts at index 0 of the open block, or with the next block, and
//! one that misses a flashblock is closed with the reason. One that does not take a flashblock whole
//! is closed in the middle of it.
//!
//! # Bounds
//! Flashblocks are written once for all subscribers, into a ring of [`Settings::buffer`] bytes and
//! 1,024 flashblocks that drops the oldest first. A subscriber is a position in it, at most one
//! flashblock that is being sent, and 8 KiB of buffers. What the ring has dropped and slow
//! subscribers still hold is bounded by as much again (32 MiB at least), and so is what is compressed:
//! beyond, those who are late go first.
//!
//! The port is one of `fragcast-port`: who opens no WebSocket, or does not read, gives its place to
//! who comes; places are bounded in all and by address, messages from a subscriber in length and
//! number.

mod hub;
mod payload;
mod ring;
mod sequence;
mod stats;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fragcast_port::{
    Descriptors, Guard, Memory, Port, PortStats, Service, Settings as PortSettings, WebSocket,
};
use jsonrpsee::server::RandomIntegerIdProvider;
use tokio::runtime::Handle;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;

use fragcast_execution::executor::{ChainEvent, ChainView};

use hub::Hub;
use sequence::{Sequences, Step};
pub use stats::FlashblocksStats;

/// The error of a node that executes nothing, and what to do.
pub const NEEDS_EXECUTION: &str =
    "flashblocks are made of what is executed: set execution.chain, or leave this empty";

/// Limits of the server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Subscribers in all.
    pub subscribers: usize,
    /// Subscribers from one IP address.
    pub per_address: usize,
    /// Bytes that a subscriber may be behind.
    pub buffer: usize,
    /// A subscriber that does not take a flashblock within this is dropped.
    pub slow_after: Duration,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// How long the end may take.
    pub closing: Duration,
    /// A subscriber of which nothing is heard for this long is dropped; it is pinged three times in it.
    pub idle: Duration,
    /// Whom it answers.
    pub guard: Arc<Guard>,
    /// File descriptors for its connections; `None`: they are set aside.
    pub descriptors: Option<Descriptors>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            subscribers: 256,
            per_address: 16,
            buffer: 32 * 1024 * 1024,
            slow_after: Duration::from_secs(5),
            handshake: Duration::from_secs(5),
            closing: Duration::from_secs(2),
            idle: Duration::from_secs(45),
            guard: Arc::default(),
            descriptors: None,
        }
    }
}

/// The longest message that a subscriber may send, bytes. None is used; pings have up to 125.
const MAX_INCOMING: u32 = 4096;

/// A third of what may be held at least: a long flashblock that is on its way to all subscribers makes
/// nobody late.
const LEAST_HELD: usize = 32 * 1024 * 1024;

impl Settings {
    /// The port's: `slow_after`, what it may hold, whom it lets in.
    fn port(&self) -> PortSettings {
        PortSettings {
            connections: self.subscribers,
            per_address: Some(self.per_address),
            max_request: MAX_INCOMING,
            websocket: Some(WebSocket {
                subscriptions: 0,
                ids: Arc::new(RandomIntegerIdProvider),
                ping: (self.idle / 3).max(Duration::from_millis(1)),
            }),
            slow_after: self.slow_after,
            idle: self.handshake,
            memory: Memory::new(self.buffer.max(LEAST_HELD).saturating_mul(3)),
            descriptors: self.descriptors.clone(),
            ..PortSettings::small("flashblocks", Arc::clone(&self.guard))
        }
    }
}

/// A ring, and the port that streams it.
struct Server {
    hub: Arc<Hub>,
    port: Port,
}

impl Server {
    fn open(listener: std::net::TcpListener, settings: &Settings) -> io::Result<Self> {
        let (port, stats) = (settings.port(), Arc::<FlashblocksStats>::default());
        let hub = Arc::new(Hub::new(settings.buffer, Arc::clone(&port.memory), stats));
        let service = Service::Feed(Arc::clone(&hub) as _);
        let port = Port::open(listener, port, service, &Handle::current())?;
        // Set once: the statistics have only just been made.
        let _ = hub.stats.port.set(Arc::clone(port.stats()));
        Ok(Self { hub, port })
    }
}

/// A running server.
pub struct Door {
    server: Server,
    closing: Duration,
    feeder: JoinHandle<()>,
}

impl Door {
    /// Starts the server, which publishes the chain's events from now on. To be called within the
    /// runtime.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub fn open(
        listener: std::net::TcpListener,
        view: &ChainView,
        settings: &Settings,
    ) -> io::Result<Self> {
        let events = view.subscribe();
        let server = Server::open(listener, settings)?;
        let feeder = tokio::spawn(feed(events, Arc::clone(&server.hub)));
        Ok(Self { server, closing: settings.closing, feeder })
    }

    /// Its counters.
    pub fn stats(&self) -> &Arc<FlashblocksStats> {
        &self.server.hub.stats
    }

    /// The port's name, its counters, and what its connections hold.
    pub fn numbers(&self) -> (&'static str, Arc<PortStats>, Arc<Memory>) {
        let port = &self.server.port;
        (port.name(), Arc::clone(port.stats()), Arc::clone(port.memory()))
    }

    /// Closes all subscriptions and stops the server.
    pub async fn close(self) {
        let Self { server, closing, feeder } = self;
        feeder.abort();
        let _ = feeder.await;
        server.port.stop(closing).await;
    }
}

/// Writes the chain's events into the ring as flashblocks.
async fn feed(mut events: broadcast::Receiver<ChainEvent>, hub: Arc<Hub>) {
    let mut sequences = Sequences::default();
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Closed) => return,
            Err(RecvError::Lagged(lost)) => {
                // The next snapshot of a block has its earlier frags too.
                tracing::warn!(lost, "flashblocks: events were lost");
                continue;
            }
        };
        // Milliseconds of hashing and writing for a large block: not on a thread that has
        // messages to carry.
        let taken = tokio::task::spawn_blocking(move || {
            let step = sequences.take(&event);
            (sequences, step)
        });
        let step = match taken.await {
            Ok((kept, step)) => {
                sequences = kept;
                step
            }
            Err(error) => {
                tracing::error!(%error, "flashblocks: the writer has ended; start the node again");
                return;
            }
        };
        match step {
            Step::Nothing => {}
            Step::Ended => hub.ring.end(),
            Step::Payload { text, at, last } => {
                FlashblocksStats::count(&hub.stats.published);
                hub.ring.push(text, at);
                if last {
                    hub.ring.end();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
