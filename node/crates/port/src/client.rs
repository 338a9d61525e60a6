//! One connection, as those see it who decide whose place or memory is taken away.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::stats::Dropped;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doing {
    /// It has never sent a complete request.
    Nothing,
    /// It waits for its next request.
    Waiting,
    /// A request of it is in process, or it has subscriptions.
    Something,
}

/// One connection of a port.
#[derive(Debug)]
pub struct Client {
    /// A number of its own in the process.
    pub(crate) id: u64,
    /// What it is counted under: an IPv4 address, or the /64 of an IPv6 address.
    pub(crate) network: IpAddr,
    /// Bytes that the node holds for it alone.
    held: AtomicUsize,
    /// Notifications that it holds with others.
    shares: AtomicUsize,
    born: Instant,
    /// What it does, and since when in ms from its birth, in the lower 62 bits.
    doing: AtomicU64,
    /// Since when it has not taken what it is sent; ms from its birth, and one; 0: it keeps up.
    not_taken: AtomicU64,
    /// Since when a request is half there; likewise.
    not_sent: AtomicU64,
    /// Since when the message that is being written has waited; likewise.
    behind: AtomicU64,
    /// Whether it has given its place to another.
    gave: AtomicBool,
    end: watch::Sender<Option<Dropped>>,
}

const SINCE: u64 = (1 << 62) - 1;

impl Client {
    /// A connection that begins now.
    pub(crate) fn new(id: u64, network: IpAddr) -> Self {
        Self {
            id,
            network,
            held: AtomicUsize::new(0),
            shares: AtomicUsize::new(0),
            born: Instant::now(),
            doing: AtomicU64::new(0),
            not_taken: AtomicU64::new(0),
            not_sent: AtomicU64::new(0),
            behind: AtomicU64::new(0),
            gave: AtomicBool::new(false),
            end: watch::Sender::new(None),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(SINCE) & SINCE
    }

    /// Bytes that the node holds for it alone.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(crate) fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn share(&self) {
        self.shares.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unshare(&self) {
        self.shares.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether something is held for it, alone or with others.
    pub(crate) fn holds(&self) -> bool {
        self.held() > 0 || self.shares.load(Ordering::Relaxed) > 0
    }

    /// What it does from now on. Nothing changes if it does that already.
    pub(crate) fn set(&self, doing: Doing) {
        if self.doing().0 != doing {
            self.doing.store((doing as u64) << 62 | self.now(), Ordering::Relaxed);
        }
    }

    /// What it does, and since when.
    pub(crate) fn doing(&self) -> (Doing, Instant) {
        let both = self.doing.load(Ordering::Relaxed);
        let doing = match both >> 62 {
            0 => Doing::Nothing,
            1 => Doing::Waiting,
            _ => Doing::Something,
        };
        (doing, self.born + Duration::from_millis(both & SINCE))
    }

    fn mark(&self, at: &AtomicU64, since: Option<Instant>) {
        let since = since.map_or(0, |since| {
            let ms = since.saturating_duration_since(self.born).as_millis();
            u64::try_from(ms).unwrap_or(SINCE).saturating_add(1)
        });
        at.store(since, Ordering::Relaxed);
    }

    pub(crate) fn mark_not_taken(&self, since: Option<Instant>) {
        self.mark(&self.not_taken, since);
    }

    pub(crate) fn mark_not_sent(&self, since: Option<Instant>) {
        self.mark(&self.not_sent, since);
    }

    pub(crate) fn mark_behind(&self, since: Option<Instant>) {
        self.mark(&self.behind, since);
    }

    fn since(&self, at: &AtomicU64) -> Duration {
        Duration::from_millis(match at.load(Ordering::Relaxed) {
            0 => 0,
            since => (self.now() + 1).saturating_sub(since),
        })
    }

    /// For how long it has kept the node waiting.
    pub(crate) fn late(&self) -> Duration {
        self.since(&self.not_taken).max(self.since(&self.not_sent))
    }

    /// For how long it has had the node hold what it is sent or sends. One that takes a little again
    /// and again is never late, but has others hold its answers all the same.
    pub(crate) fn hoarding(&self) -> Duration {
        self.late().max(self.since(&self.behind))
    }

    /// Ends it; false if that had been said before.
    pub(crate) fn end(&self, reason: Dropped) -> bool {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(reason);
            first
        })
    }

    /// Ends it for its place, which it gives away now.
    pub(crate) fn give_place(&self, reason: Dropped) -> bool {
        let given = self.end(reason);
        self.gave.fetch_or(given, Ordering::Relaxed);
        given
    }

    /// Whether it has given its place to another.
    pub(crate) fn gave_place(&self) -> bool {
        self.gave.load(Ordering::Relaxed)
    }

    /// Whether its end was said.
    pub(crate) fn is_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Waits until its end is said, and why.
    pub(crate) async fn ended(&self) -> Dropped {
        let mut end = self.end.subscribe();
        let said = end.wait_for(Option::is_some).await.map(|end| *end);
        match said {
            Ok(Some(reason)) => reason,
            // The sender lives as long as `self`.
            _ => std::future::pending().await,
        }
    }
}
