//! Forwards verified messages to an execution client's engine port.
//!
//! Purpose: the client executes a block while it is being built. It keeps one unsealed block and
//! drops it on any repeat. So the forwarder sends every message at most once unless it was
//! certainly not received, never leaves a gap, and after any doubt waits for the next Env. A block
//! that is lost here reaches the client the slow way, as it would without Fragcast.
//!
//! The decisions are in `machine.rs`, which is pure. `rpc.rs` and [`http`](crate::http) find out
//! whether a request was received. This file is the task between them. One request is under way at
//! a time, because its answer decides whether the next one may be sent. A plain loop of "post, on
//! error post again" would make the client drop its block.
//!
//! Memory: at most twice [`EngineConfig::queue`] messages, half of them in a channel that is
//! emptied as they come, the other half also bounded to 256 MiB.

mod jwt;
mod machine;
mod rpc;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use fragcast_shredder::delivery::{Delivered, Output};
use fragcast_shredder::{Kind, MessageKey};
pub use jwt::{JwtError, JwtSecret};

use crate::http::Shown;
use machine::{Action, Answer, Limits, Machine, Outcome};
use rpc::RpcClient;

/// Bytes of messages that wait for the client: a minute of 4 MiB/s.
const MAX_QUEUED_BYTES: usize = 256 * 1024 * 1024;

/// The execution client's address, secret and time-outs.
#[derive(Clone)]
pub struct EngineConfig {
    /// Its engine port, `http://host:port`.
    pub url: String,
    /// The secret shared with it.
    pub jwt_secret: JwtSecret,
    /// Time-out of connecting, and again of the answer.
    pub request_timeout: Duration,
    /// The pause after the client could not be reached or lacked a block; doubles up to 2 s.
    pub retry: Duration,
    /// How many messages may wait.
    pub queue: usize,
}

impl fmt::Debug for EngineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, jwt_secret, request_timeout, retry, queue } = self;
        f.debug_struct("EngineConfig")
            .field("url", &Shown(url))
            .field("jwt_secret", jwt_secret)
            .field("request_timeout", request_timeout)
            .field("retry", retry)
            .field("queue", queue)
            .finish()
    }
}

impl EngineConfig {
    /// The default of [`request_timeout`](Self::request_timeout): one block time.
    pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
    /// The default of [`retry`](Self::retry).
    pub const DEFAULT_RETRY: Duration = Duration::from_millis(100);
    /// The default of [`queue`](Self::queue): over ten minutes of 12 messages per 2 s.
    pub const DEFAULT_QUEUE: usize = 4096;

    /// A configuration with the defaults.
    pub const fn new(url: String, jwt_secret: JwtSecret) -> Self {
        Self {
            url,
            jwt_secret,
            request_timeout: Self::DEFAULT_REQUEST_TIMEOUT,
            retry: Self::DEFAULT_RETRY,
            queue: Self::DEFAULT_QUEUE,
        }
    }
}

/// Counters of the forwarder. Every message handed to it ends in exactly one of `valid`, `refused`,
/// `ambiguous`, `skipped` and `queue_dropped`.
#[derive(Debug, Default)]
pub struct EngineStats {
    sent: AtomicU64,
    valid: AtomicU64,
    refused: AtomicU64,
    retried: AtomicU64,
    ambiguous: AtomicU64,
    skipped: AtomicU64,
    queue_dropped: AtomicU64,
    last_valid_block: AtomicU64,
    connected: AtomicBool,
}

/// [`EngineStats`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct EngineSnapshot {
    /// Messages that reached the client, or may have: `valid + refused + ambiguous`.
    pub sent: u64,
    /// Messages that the client took.
    pub valid: u64,
    /// Messages that the client answered with an error.
    pub refused: u64,
    /// Attempts that certainly did not reach the client, so that the message was kept.
    pub retried: u64,
    /// Messages that the client may or may not have taken.
    pub ambiguous: u64,
    /// Messages not sent because their block was given up, void or out of date.
    pub skipped: u64,
    /// Messages dropped because the forwarder's queue was full.
    pub queue_dropped: u64,
    /// The last block whose Seal the client took; 0 before the first one.
    pub last_valid_block: u64,
    /// Whether the client answered the last request.
    pub connected: bool,
}

impl EngineStats {
    /// The counters now, each read separately.
    pub fn snapshot(&self) -> EngineSnapshot {
        EngineSnapshot {
            sent: self.sent.load(Relaxed),
            valid: self.valid.load(Relaxed),
            refused: self.refused.load(Relaxed),
            retried: self.retried.load(Relaxed),
            ambiguous: self.ambiguous.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
            queue_dropped: self.queue_dropped.load(Relaxed),
            last_valid_block: self.last_valid_block.load(Relaxed),
            connected: self.connected.load(Relaxed),
        }
    }
}

/// Hands outputs to the forwarder. When it is dropped, the forwarder ends after the request under
/// way, and waiting messages are not sent.
#[derive(Debug)]
pub struct EngineHandle {
    outputs: mpsc::Sender<Output>,
    stats: Arc<EngineStats>,
    task: JoinHandle<()>,
}

impl EngineHandle {
    /// Hands in the next output of the sequencer without blocking, and says whether there was room.
    /// An output that finds no room is dropped and counted; the forwarder sees the gap and sends
    /// nothing more of that block until its next Env.
    pub fn try_forward(&self, output: Output) -> bool {
        let is_message = matches!(output, Output::Message(_));
        let taken = self.outputs.try_send(output).is_ok();
        // A lost retraction costs only what is already waiting: its attempt gets no Seal.
        if !taken && is_message {
            self.stats.queue_dropped.fetch_add(1, Relaxed);
        }
        taken
    }

    /// Ends the forwarder after the request under way, whose outcome is still counted.
    pub async fn shutdown(self) {
        drop(self.outputs);
        if let Err(error) = self.task.await {
            warn!(%error, "the engine forwarder did not end in order");
        }
    }

    /// Ends the forwarder at once.
    pub fn abort(&self) {
        self.task.abort();
    }
}

/// Starts the forwarder on the current tokio runtime. It does not check [`EngineConfig::url`]; see
/// [`check_url`](crate::http::check_url).
pub fn spawn(config: EngineConfig, stats: Arc<EngineStats>) -> EngineHandle {
    let (outputs, receiver) = mpsc::channel(config.queue.max(1));
    let task = tokio::spawn(run(config, Arc::clone(&stats), receiver));
    EngineHandle { outputs, stats, task }
}

enum Done {
    Sent(Arc<Delivered>, Outcome),
    Asked(u64, Answer),
}

async fn run(config: EngineConfig, stats: Arc<EngineStats>, mut outputs: mpsc::Receiver<Output>) {
    let limits = Limits { messages: config.queue, bytes: MAX_QUEUED_BYTES };
    let mut machine = Machine::new(limits, config.retry);
    let mut journal = Journal { stats: &stats, last_failure: None };
    let rpc = RpcClient::new(config.url, config.jwt_secret, config.request_timeout);
    let start = Instant::now();
    let mut request: Option<Pin<Box<dyn Future<Output = Done> + Send + '_>>> = None;
    loop {
        let mut wake = None;
        match machine.poll(start.elapsed()) {
            Action::Send(message) => {
                let rpc = &rpc;
                request = Some(Box::pin(async move {
                    let outcome = rpc.send(&message.message).await;
                    Done::Sent(message, outcome)
                }));
            }
            Action::Ask(block) => {
                let rpc = &rpc;
                request = Some(Box::pin(async move {
                    let answer = rpc.has_block(block).await;
                    Done::Asked(block, answer)
                }));
            }
            Action::Wait(until) => {
                wake = until.map(|until| Box::pin(tokio::time::sleep_until(start + until)));
            }
        }
        tokio::select! {
            // What is known already goes into the next decision.
            biased;
            output = outputs.recv() => match output {
                Some(output) => machine.handle_output(output),
                None => break,
            },
            done = or_never(request.as_mut()) => {
                request = None;
                journal.finish(&mut machine, start.elapsed(), done);
            }
            () = or_never(wake.as_mut()) => {}
        }
        stats.skipped.store(machine.skipped(), Relaxed);
    }
    if let Some(request) = request {
        journal.finish(&mut machine, start.elapsed(), request.await);
    }
}

async fn or_never<F: Future + Unpin>(future: Option<&mut F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Counts outcomes and logs those that an operator should see.
struct Journal<'a> {
    stats: &'a EngineStats,
    /// The last reason why the client could not be reached, so that each is logged once.
    last_failure: Option<String>,
}

impl Journal<'_> {
    fn finish(&mut self, machine: &mut Machine, now: Duration, done: Done) {
        match done {
            Done::Sent(message, outcome) => {
                self.sent(&message, &outcome);
                machine.handle_outcome(now, &outcome);
            }
            Done::Asked(block, answer) => {
                debug!(block, ?answer, "asked the execution client for a block");
                match &answer {
                    Answer::Present | Answer::Absent => self.reached(),
                    Answer::Unknown(why) => self.missed(why),
                }
                machine.handle_answer(now, &answer);
            }
        }
    }

    fn sent(&mut self, delivered: &Delivered, outcome: &Outcome) {
        let MessageKey { block, attempt, message: index } = delivered.key;
        let kind = delivered.message.message().kind();
        let stats = self.stats;
        match outcome {
            Outcome::Valid => {
                stats.valid.fetch_add(1, Relaxed);
                if kind == Kind::Seal {
                    stats.last_valid_block.store(block, Relaxed);
                }
                self.reached();
            }
            Outcome::Refused { code, message } => {
                stats.refused.fetch_add(1, Relaxed);
                self.reached();
                let kind = kind.name();
                warn!(
                    block,
                    attempt,
                    index,
                    kind,
                    code,
                    ?message,
                    "the execution client refused a message; waiting for the next env"
                );
            }
            Outcome::NotReceived(why) => {
                stats.retried.fetch_add(1, Relaxed);
                self.missed(why);
                return;
            }
            Outcome::Ambiguous(why) => {
                stats.ambiguous.fetch_add(1, Relaxed);
                stats.connected.store(false, Relaxed);
                let kind = kind.name();
                warn!(
                    block,
                    attempt,
                    index,
                    kind,
                    why,
                    "the execution client may or may not have a message; waiting for the next env"
                );
            }
        }
        stats.sent.fetch_add(1, Relaxed);
    }

    fn reached(&mut self) {
        self.stats.connected.store(true, Relaxed);
        if self.last_failure.take().is_some() {
            info!("the execution client can be reached again");
        }
    }

    fn missed(&mut self, why: &str) {
        self.stats.connected.store(false, Relaxed);
        if self.last_failure.as_deref() != Some(why) {
            warn!(why, "cannot use the execution client; trying again");
            self.last_failure = Some(why.to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
