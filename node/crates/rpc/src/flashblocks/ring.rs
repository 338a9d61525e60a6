//! The most recent flashblocks, shared by all subscribers.
//!
//! Every flashblock has a number; a subscriber is a position. The oldest are dropped even if a
//! subscriber still needs them, and that subscriber learns how many it missed. tokio's broadcast
//! channel does not serve: it is bounded in messages, not in bytes, and it gives a new receiver
//! nothing of the open block.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fragcast_port::{Memory, Notices};
use tokio::sync::watch;

/// The most flashblocks that are kept, however small.
pub(super) const MOST: usize = 1024;

struct Item {
    text: Arc<Notices>,
    /// Whether its index is 0.
    first: bool,
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Item>,
    /// The number of the oldest.
    oldest: u64,
    bytes: usize,
    /// The number of the open block's first flashblock.
    open: Option<u64>,
}

impl Inner {
    fn next(&self) -> u64 {
        self.oldest + self.items.len() as u64
    }
}

/// The ring.
pub(super) struct Ring {
    inner: Mutex<Inner>,
    news: watch::Sender<u64>,
    max_bytes: usize,
    memory: Arc<Memory>,
}

/// A subscriber's position.
pub(super) struct Cursor {
    next: u64,
    /// Whether it has had an index 0; before that, others are of no use to it.
    started: bool,
    /// Changes when there is more.
    pub(super) news: watch::Receiver<u64>,
}

/// A subscriber missed this many flashblocks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missed(pub(super) u64);

impl Ring {
    /// A ring of `max_bytes`, which keeps the newest flashblock even if it is longer. They count in
    /// `memory` as long as somebody has them.
    pub(super) fn new(max_bytes: usize, memory: Arc<Memory>) -> Self {
        Self { inner: Mutex::default(), news: watch::Sender::new(0), max_bytes, memory }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a flashblock; `first`: it is the first of its block.
    pub(super) fn push(&self, text: String, first: bool) {
        let text = self.memory.share(vec![text.into_bytes()]);
        let next = {
            let mut inner = self.lock();
            if first {
                inner.open = Some(inner.next());
            }
            inner.bytes += text.bytes();
            inner.items.push_back(Item { text, first });
            while inner.items.len() > 1
                && (inner.items.len() > MOST || inner.bytes > self.max_bytes)
            {
                let Some(gone) = inner.items.pop_front() else { break };
                inner.bytes -= gone.text.bytes();
                inner.oldest += 1;
            }
            inner.next()
        };
        self.news.send_replace(next);
    }

    /// Ends the open block: it gets no more flashblocks.
    pub(super) fn end(&self) {
        self.lock().open = None;
    }

    /// A position for a new subscriber: the first flashblock of the open block if it is still here,
    /// else the first of the next block.
    pub(super) fn subscribe(&self) -> Cursor {
        let news = self.news.subscribe();
        let inner = self.lock();
        let open = inner.open.filter(|open| *open >= inner.oldest);
        Cursor { next: open.unwrap_or(inner.next()), started: false, news }
    }

    /// The next flashblock for a subscriber, `None` if it has all.
    pub(super) fn take(&self, cursor: &mut Cursor) -> Result<Option<Arc<Notices>>, Missed> {
        let inner = self.lock();
        if cursor.next < inner.oldest {
            let missed = inner.oldest - cursor.next;
            cursor.next = inner.oldest;
            if cursor.started {
                return Err(Missed(missed));
            }
        }
        loop {
            let at = usize::try_from(cursor.next - inner.oldest).unwrap_or(usize::MAX);
            let Some(item) = inner.items.get(at) else { return Ok(None) };
            cursor.next += 1;
            cursor.started |= item.first;
            if cursor.started {
                return Ok(Some(Arc::clone(&item.text)));
            }
        }
    }
}
