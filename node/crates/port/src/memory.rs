//! How many bytes the connections of one or several ports may hold.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::client::Client;
use crate::notices::{Holders, Notices};
use crate::stats::Dropped;

/// A connection that has kept the node waiting for less is not closed for want of memory.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often connections are gone through for one to close.
const PAUSE: Duration = Duration::from_millis(20);

/// What is held in case somebody asks for it.
pub(crate) trait Spare: Send + Sync {
    /// Lets go of what nobody holds.
    fn let_go(&self);
}

/// Bytes of requests that are not answered, of answers that are not sent, and of notifications.
///
/// Taking never waits: what is there is there. But while more is taken than the total, those that
/// ask [`room`](Self::room) wait, what is kept to spare is let go, and connections that keep the node
/// waiting are closed.
pub struct Memory {
    total: usize,
    used: AtomicUsize,
    highest: AtomicUsize,
    room: Notify,
    clients: Mutex<HashMap<u64, Arc<Client>>>,
    /// Who holds notifications that are shared.
    notices: Mutex<HashMap<u64, Arc<Holders>>>,
    spares: Mutex<Vec<Weak<dyn Spare>>>,
    next: AtomicU64,
    looked: Mutex<Option<Instant>>,
}

impl Memory {
    /// Room for `total` bytes.
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            used: AtomicUsize::new(0),
            highest: AtomicUsize::new(0),
            room: Notify::new(),
            clients: Mutex::default(),
            notices: Mutex::default(),
            spares: Mutex::default(),
            next: AtomicU64::new(0),
            looked: Mutex::new(None),
        })
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The most bytes that were ever held.
    pub fn highest(&self) -> usize {
        self.highest.load(Ordering::Relaxed)
    }

    /// The bound.
    pub const fn total(&self) -> usize {
        self.total
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<u64, Arc<Client>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn register(&self, client: &Arc<Client>) {
        self.clients().insert(client.id, Arc::clone(client));
    }

    pub(crate) fn forget(&self, client: &Client) {
        self.clients().remove(&client.id);
    }

    fn notices(&self) -> MutexGuard<'_, HashMap<u64, Arc<Holders>>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on closing the holders counts as a way to free these bytes.
    pub(crate) fn register_notices(&self, holders: &Arc<Holders>) -> u64 {
        let id = self.next_id();
        self.notices().insert(id, Arc::clone(holders));
        id
    }

    pub(crate) fn forget_notices(&self, id: u64) {
        self.notices().remove(&id);
    }

    /// What lets go when memory is short.
    pub(crate) fn register_spare(&self, spare: Weak<dyn Spare>) {
        let mut spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner);
        spares.retain(|spare| spare.strong_count() > 0);
        spares.push(spare);
    }

    /// Takes `bytes`, for a connection or for all.
    pub fn charge(self: &Arc<Self>, client: Option<&Arc<Client>>, bytes: usize) -> Charge {
        let mut charge =
            Charge { memory: Arc::clone(self), client: client.map(Arc::clone), bytes: 0 };
        charge.grow(bytes);
        charge
    }

    /// `text` as bytes that count until the last copy of them is gone.
    pub fn keep(self: &Arc<Self>, client: Option<&Arc<Client>>, text: Vec<u8>) -> Bytes {
        // What was allocated counts, not what is used of it.
        let charge = self.charge(client, text.capacity());
        Bytes::from_owner(Kept { text, _charge: charge })
    }

    /// Notifications for several connections, which count until the last of them has let go.
    pub fn share(self: &Arc<Self>, texts: Vec<Vec<u8>>) -> Arc<Notices> {
        Notices::new(self, texts)
    }

    /// Whether there is room to begin something.
    pub fn has_room(&self) -> bool {
        self.used() < self.total
    }

    /// Waits until there is room to begin something. Meanwhile connections that keep the node
    /// waiting are closed.
    pub async fn room(&self) {
        loop {
            let told = self.room.notified();
            if self.has_room() {
                return;
            }
            self.shed();
            // Somebody may be late only later.
            let _ = tokio::time::timeout(PAUSE * 2, told).await;
        }
    }

    /// Lets go of what is to spare, and closes connections that have kept the node waiting for longest,
    /// until what they hold would make room.
    ///
    /// What several hold is free when the last of them is closed, so it counts for the one whose turn
    /// is last, and not at all if one of them keeps up.
    fn shed(&self) {
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if looked.is_some_and(|then| now.saturating_duration_since(then) < PAUSE) {
                return;
            }
            *looked = Some(now);
        }
        let spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner).clone();
        spares.iter().filter_map(Weak::upgrade).for_each(|spare| spare.let_go());
        if self.has_room() {
            return;
        }
        // What is closed already gives back what it holds in a moment.
        let mut order: Vec<_> = self
            .clients()
            .values()
            .filter(|client| client.holds())
            .map(|client| match client.is_ended() {
                true => (Duration::MAX, Arc::clone(client)),
                false => (client.hoarding(), Arc::clone(client)),
            })
            .filter(|(late, _)| *late >= PATIENCE)
            .collect();
        order.sort_by_key(|(late, client)| (std::cmp::Reverse(*late), client.id));
        let ranks = order.iter().enumerate().map(|(rank, (_, client))| (client.id, rank)).collect();
        let mut frees: Vec<usize> = order.iter().map(|(_, client)| client.held()).collect();
        for holders in self.notices().values() {
            if let Some(last) = holders.last(&ranks) {
                frees[last] += holders.bytes();
            }
        }
        let mut over = self.used().saturating_sub(self.total) + 1;
        for ((_, client), frees) in order.iter().zip(frees) {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(frees);
            // Nothing changes if its end was said before.
            client.end(Dropped::Shed);
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (used, total) = (self.used(), self.total);
        f.debug_struct("Memory").field("used", &used).field("total", &total).finish_non_exhaustive()
    }
}

/// Bytes that were taken; dropping this gives them back.
#[derive(Debug)]
pub struct Charge {
    memory: Arc<Memory>,
    client: Option<Arc<Client>>,
    bytes: usize,
}

impl Charge {
    /// Takes `more` bytes.
    pub fn grow(&mut self, more: usize) {
        self.bytes += more;
        if let Some(client) = &self.client {
            client.hold(more);
        }
        let used = self.memory.used.fetch_add(more, Ordering::Relaxed) + more;
        self.memory.highest.fetch_max(used, Ordering::Relaxed);
        if used > self.memory.total {
            self.memory.shed();
        }
    }

    /// What was taken.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back so many of the bytes, or all if there are fewer.
    pub(crate) fn shrink(&mut self, less: usize) {
        let kept = self.bytes.saturating_sub(less);
        let mut gone = self.split();
        gone.bytes -= kept;
        self.bytes = kept;
    }

    /// Takes all out of this, which goes on with nothing.
    pub(crate) fn split(&mut self) -> Self {
        Self {
            memory: Arc::clone(&self.memory),
            client: self.client.clone(),
            bytes: std::mem::take(&mut self.bytes),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(client) = &self.client {
            client.release(self.bytes);
        }
        let before = self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
        if before >= self.memory.total && self.memory.has_room() {
            self.memory.room.notify_waiters();
        }
    }
}

struct Kept {
    text: Vec<u8>,
    _charge: Charge,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}
