//! Forwards transactions to the gateway that builds the block, and remembers them until they are
//! executed.
//!
//! A node has no pool: a transaction goes to the gateway that leads the block being built; if that
//! cannot be reached, to the next leader's, then to the execution client. A plainly invalid
//! transaction is refused at once ([`SendError`]); a gateway's answer to the rest is passed on as
//! it is.
//!
//! Invariants: a transaction is in the table, and a request that waits for it is among the waiters,
//! *before* it is sent, because its frag can arrive before the gateway's answer. Both are bounded.
//! An entry of the table ends when it is executed, or when it cannot be executed any more: its nonce
//! has passed, its sender cannot pay, four blocks that could have included it did not, or a time is
//! over. From then on nobody is told that it is on its way, and why can be asked ([`Dropped`]).

mod check;
mod conditions;
mod dropped;
mod look;
mod post;
mod table;
mod wait;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, Bytes, keccak256};
use fragcast_turbine::EpochsView;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub use check::SendError;
pub use dropped::{Dropped, ForwardStats};
use fragcast_execution::chain::ChainSpec;
use fragcast_execution::exec::{ExecutedBlock, Snapshot, Tx};
use fragcast_execution::executor::{ChainEvent, ChainView};
use fragcast_upstream::http::{HttpClient, Shown};
pub use table::TableLimits;
pub use wait::Inclusion;

use crate::eth::Forwarded;
use check::{Checked, TxLimits};
use conditions::Conditions;
use dropped::Reasons;
use post::Sending;
use table::{Table, TableFull};
use wait::Waiters;

/// The longest answer that is read: it is a hash or an error.
const MAX_ANSWER: usize = 64 * 1024;
/// Interval at which old entries are removed.
const TICK: Duration = Duration::from_secs(1);

/// Makes the receipt of a transaction, by its index in the block.
pub type MakeReceipt = Arc<dyn Fn(&ExecutedBlock, usize) -> Value + Send + Sync>;

/// Where transactions are sent, and bounds.
#[derive(Clone, PartialEq, Eq)]
pub struct ForwardConfig {
    /// JSON-RPC addresses (`http://…`) of gateways.
    pub gateways: Vec<(Address, String)>,
    /// The execution client's JSON-RPC address, tried last.
    pub fallback: Option<String>,
    /// Time-out of connecting to a gateway, and again of its answer.
    pub timeout: Duration,
    /// The longest transaction, in bytes; geth's limit.
    pub max_tx_bytes: usize,
    /// The longest blob transaction with its blobs, in bytes: six of them fit.
    pub max_blob_tx_bytes: usize,
    /// Requests being checked and sent at once, each holding its transaction.
    pub in_flight: usize,
    /// Bounds of the table.
    pub table: TableLimits,
    /// Requests that may wait for a receipt; some 200 bytes each.
    pub waiters: usize,
    /// How long a request waits if it does not say.
    pub sync_timeout: Duration,
    /// The longest that a request may wait; a longer time counts as absent.
    pub max_sync_timeout: Duration,
}

impl fmt::Debug for ForwardConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gateways: Vec<(&Address, Shown<'_>)> =
            self.gateways.iter().map(|(gateway, url)| (gateway, Shown(url))).collect();
        f.debug_struct("ForwardConfig")
            .field("gateways", &gateways)
            .field("fallback", &self.fallback.as_deref().map(Shown))
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Default for ForwardConfig {
    fn default() -> Self {
        Self {
            gateways: Vec::new(),
            fallback: None,
            timeout: Duration::from_secs(1),
            max_tx_bytes: 128 * 1024,
            max_blob_tx_bytes: 1024 * 1024,
            in_flight: 256,
            table: TableLimits::default(),
            waiters: 1024,
            sync_timeout: Duration::from_secs(2),
            max_sync_timeout: Duration::from_secs(60),
        }
    }
}

/// Forwards transactions; see the module.
pub struct Forwarder {
    config: ForwardConfig,
    urls: HashMap<Address, String>,
    /// Who leads a block, as the node knows it now.
    epochs: watch::Receiver<Arc<EpochsView>>,
    view: Arc<ChainView>,
    spec: Arc<ChainSpec>,
    receipt: MakeReceipt,
    http: HttpClient,
    slots: Arc<Semaphore>,
    table: Mutex<Table>,
    reasons: Mutex<Reasons>,
    waiters: Arc<Waiters>,
    stats: ForwardStats,
    /// Whether entries are being looked through.
    looking: AtomicBool,
}

impl Forwarder {
    /// A forwarder; [`Self::run`] must run beside it.
    pub fn new(
        config: ForwardConfig,
        epochs: watch::Receiver<Arc<EpochsView>>,
        view: Arc<ChainView>,
        spec: Arc<ChainSpec>,
        receipt: MakeReceipt,
    ) -> Self {
        Self {
            urls: config.gateways.iter().cloned().collect(),
            http: HttpClient { timeout: config.timeout, max_response: MAX_ANSWER },
            slots: Arc::new(Semaphore::new(config.in_flight.clamp(1, Semaphore::MAX_PERMITS))),
            table: Mutex::new(Table::new(config.table)),
            reasons: Mutex::default(),
            stats: ForwardStats::default(),
            looking: AtomicBool::new(false),
            waiters: Arc::new(Waiters::new(config.waiters)),
            config,
            epochs,
            view,
            spec,
            receipt,
        }
    }

    /// The sender's next nonce once all forwarded transactions are executed; `state_nonce` is its
    /// nonce in the state.
    pub fn pending_nonce(&self, sender: Address, state_nonce: u64) -> u64 {
        self.table().pending_nonce(sender, state_nonce)
    }

    /// A forwarded transaction by its hash.
    pub fn get(&self, hash: B256) -> Option<Tx> {
        self.table().get(hash).cloned()
    }

    /// The number of forwarded transactions.
    pub fn len(&self) -> usize {
        self.table().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its counters.
    pub const fn stats(&self) -> &ForwardStats {
        &self.stats
    }

    /// Why a forwarded transaction was dropped, if it was one of the newest to be.
    pub fn dropped(&self, hash: B256) -> Option<Dropped> {
        self.reasons().get(hash).cloned()
    }

    /// Forwarded transactions, by sender and nonce.
    pub fn all(&self) -> Vec<(Address, Vec<Tx>)> {
        self.table().all().map(|(sender, txs)| (sender, txs.cloned().collect())).collect()
    }

    fn reasons(&self) -> std::sync::MutexGuard<'_, Reasons> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the chain for ever: removes executed transactions and wakes the requests that wait
    /// for them.
    pub async fn run(self: Arc<Self>) {
        let mut events = self.view.subscribe();
        // What happened before.
        self.catch_up();
        let mut tick = tokio::time::interval(TICK);
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                _ = tick.tick() => {
                    self.change(|table| table.expire(Instant::now()));
                    continue;
                }
            };
            match event {
                Ok(ChainEvent::Frag(snapshot)) => {
                    let first = snapshot.frags.last().map_or(0, |frag| frag.first_index);
                    self.executed(&snapshot, first);
                }
                Ok(ChainEvent::Verified(block)) => {
                    self.executed(&block.snapshot, 0);
                    self.look_through();
                }
                // What was preconfirmed there is for its sender to send again.
                Ok(ChainEvent::Retracted { .. } | ChainEvent::Unwound(_)) => {}
                Err(RecvError::Lagged(_)) => self.catch_up(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Checks all entries, after events were lost.
    fn catch_up(&self) {
        let Some(heads) = self.view.heads() else { return };
        self.executed(&heads.latest.snapshot, 0);
        for open in &heads.open {
            self.executed(open, 0);
        }
        for hash in self.waiters.hashes() {
            if let Some(inclusion) = self.find(hash) {
                self.waiters.resolve(hash, &inclusion);
            }
        }
    }

    fn executed(&self, snapshot: &Arc<Snapshot>, first: usize) {
        let frags = snapshot.frags.iter().filter(|frag| frag.first_index >= first);
        for placed in frags.flat_map(|frag| frag.txs()) {
            let tx = &placed.executed.tx;
            let inclusion = Inclusion { snapshot: Arc::clone(snapshot), index: placed.index };
            self.waiters.resolve(tx.hash, &inclusion);
            self.change(|table| table.executed(tx.hash, tx.sender, tx.envelope.nonce()));
            self.reasons().forget(tx.hash);
        }
    }

    /// The place where a transaction was executed, if that is in memory.
    fn find(&self, hash: B256) -> Option<Inclusion> {
        let heads = self.view.heads()?;
        for open in heads.open.iter().rev() {
            if let Some(placed) = open.tx_by_hash(hash) {
                return Some(Inclusion { snapshot: Arc::clone(open), index: placed.index });
            }
        }
        // An error of the history means the same as not being there: it was not found yet.
        let (block, index) = self.view.tx(hash).ok().flatten()?;
        let block = self.view.recent(block)?;
        Some(Inclusion { snapshot: Arc::clone(&block.snapshot), index })
    }

    /// Checks a transaction outside the async threads, because that recovers a signature and reads
    /// state.
    async fn check(&self, raw: &Bytes) -> Result<Checked, SendError> {
        let limits = TxLimits {
            bytes: self.config.max_tx_bytes,
            with_blobs: self.config.max_blob_tx_bytes,
            remembered: self.config.table.ttl,
        };
        let (raw, spec, view) = (raw.clone(), Arc::clone(&self.spec), Arc::clone(&self.view));
        let check = move || check::check(&raw, &spec, &view, limits);
        let checked = tokio::task::spawn_blocking(check).await.unwrap_or(Err(SendError::Busy));
        if checked.is_err() {
            count(&self.stats.refused);
        }
        checked
    }

    fn slot(&self) -> Result<OwnedSemaphorePermit, SendError> {
        Arc::clone(&self.slots).try_acquire_owned().map_err(|_| SendError::Busy)
    }

    /// Checks a transaction and sends it. Returns its hash.
    ///
    /// # Errors
    /// [`SendError`] as JSON-RPC, or a gateway's own error.
    pub async fn send(self: &Arc<Self>, raw: &Bytes) -> Result<B256, ErrorObjectOwned> {
        let slot = self.slot()?;
        let checked = self.check(raw).await?;
        self.forward(checked, raw, None, slot).await
    }

    /// Checks a transaction and its conditions, and sends both. Returns its hash.
    ///
    /// # Errors
    /// Those of [`Self::send`]; -32003 if a condition does not hold now, -32005 if there are too many.
    pub async fn send_conditional(
        self: &Arc<Self>,
        raw: &Bytes,
        conditions: Value,
    ) -> Result<B256, ErrorObjectOwned> {
        let slot = self.slot()?;
        let parsed = Conditions::read(&conditions)?;
        let checked = self.check(raw).await?;
        let view = Arc::clone(&self.view);
        let hold = tokio::task::spawn_blocking(move || parsed.check(&view));
        hold.await.unwrap_or(Err(SendError::Busy)).inspect_err(|_| count(&self.stats.refused))?;
        self.forward(checked, raw, Some(conditions), slot).await
    }

    /// Sends in a task of its own, so that the outcome is recorded even if the request is dropped.
    async fn forward(
        self: &Arc<Self>,
        checked: Checked,
        raw: &Bytes,
        conditions: Option<Value>,
        slot: OwnedSemaphorePermit,
    ) -> Result<B256, ErrorObjectOwned> {
        let hash = checked.tx.hash;
        // The block that is being built may be all but whole.
        let from_block =
            self.view.heads().map_or(0, |heads| heads.pending().header.number.saturating_add(1));
        let inserted = self.change(|table| table.insert(checked.tx, from_block, Instant::now()));
        inserted.map_err(|full| {
            count(&self.stats.refused);
            match full {
                TableFull::Known => SendError::AlreadyKnown,
                TableFull::Sender => SendError::SenderFull(self.config.table.per_sender),
                TableFull::Underpriced(text) => SendError::Invalid(text),
            }
        })?;
        self.reasons().forget(hash);
        let sending = Sending { raw: raw.clone(), hash, conditions };
        let forwarder = Arc::clone(self);
        let sent = tokio::spawn(async move {
            let result = forwarder.post(&sending).await;
            match &result {
                Ok(()) => {
                    count(&forwarder.stats.sent);
                    forwarder.change(|table| table.taken(hash));
                }
                Err(_) => {
                    count(&forwarder.stats.not_taken);
                    forwarder.table().remove(hash);
                }
            }
            drop(slot);
            result
        });
        match sent.await {
            Ok(result) => result.map(|()| hash),
            // The node stops.
            Err(_) => Err(SendError::Nobody.into()),
        }
    }

    /// Sends a transaction and waits for its receipt (EIP-7966).
    ///
    /// `timeout` counts if it is neither 0 nor above the configured maximum; otherwise the default
    /// does. It also waits for a transaction that was forwarded or executed before, so that asking
    /// again after a time-out works.
    ///
    /// # Errors
    /// Those of [`Self::send`]; code 4 with the hash if it was not executed in time, 5 if this
    /// node follows no chain yet, 6 with the expected nonce if one before it is missing.
    pub async fn send_sync(
        self: &Arc<Self>,
        raw: &Bytes,
        timeout: Option<Duration>,
    ) -> Result<Value, ErrorObjectOwned> {
        let timeout = timeout
            .filter(|timeout| !timeout.is_zero() && *timeout <= self.config.max_sync_timeout)
            .unwrap_or(self.config.sync_timeout);
        let deadline = tokio::time::Instant::now() + timeout;
        let slot = self.slot()?;
        if self.view.heads().is_none() {
            return Err(SendError::NotReady.into());
        }
        let hash = keccak256(check::without_blobs(raw, &self.spec)?);
        let mut waiting = self.waiters.register(hash).ok_or(SendError::Busy)?;
        let receipt =
            |inclusion: Inclusion| Ok((self.receipt)(&inclusion.snapshot, inclusion.index));
        if let Some(inclusion) = self.find(hash) {
            return receipt(inclusion);
        }
        let sending = async {
            if self.get(hash).is_some() {
                return Ok(());
            }
            let checked = self.check(raw).await?;
            let (sender, nonce) = (checked.tx.sender, checked.tx.envelope.nonce());
            let expected = self.pending_nonce(sender, checked.state_nonce);
            if nonce > expected {
                return Err(SendError::NonceGap { expected, nonce }.into());
            }
            match self.forward(checked, raw, None, slot).await {
                // Somebody else may have just sent the same.
                Err(error) if self.get(hash).is_none() => Err(error),
                _ => Ok(()),
            }
        };
        let executed_or_timeout = async {
            match tokio::time::timeout_at(deadline, waiting.outcome()).await {
                Ok(Some(Ok(inclusion))) => Ok(inclusion),
                Ok(Some(Err(why))) => Err(SendError::Dropped(why.to_string())),
                Ok(None) | Err(_) => Err(SendError::TimedOut { hash, timeout }),
            }
        };
        tokio::pin!(executed_or_timeout);
        tokio::select! {
            biased;
            inclusion = &mut executed_or_timeout => return receipt(inclusion?),
            sent = sending => if let Err(error) = sent {
                // Refused perhaps because it has been executed.
                return self.find(hash).map_or(Err(error), receipt);
            },
        }
        receipt(executed_or_timeout.await?)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Forwarded for Forwarder {
    fn pending_nonce(&self, address: Address, state_nonce: u64) -> u64 {
        Self::pending_nonce(self, address, state_nonce)
    }

    fn get(&self, hash: B256) -> Option<Tx> {
        Self::get(self, hash)
    }
}

#[cfg(test)]
pub(crate) mod tests;
