//! The most recent flashblocks, shared by all subscribers.
//!
//! Every flashblock has a number; a subscriber is a position. The oldest are dropped even if a
//! subscriber still needs them, and that subscriber learns how many it missed. tokio's broadcast
//! channel does not serve: it is bounded in messages, not in bytes, and it gives a new receiver
//! nothing of the open block.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fragcast_port::{Memory, Notices, deflate};
use tokio::sync::{OnceCell, watch};

/// The most flashblocks that are kept, however small.
pub(super) const MOST: usize = 1024;

/// Which flashblock one is: its block's number and its index in the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) block: u64,
    pub(super) index: u64,
}

/// A flashblock, plain and, once somebody has asked for that, compressed.
#[derive(Debug)]
pub(super) struct Flashblock {
    at: Position,
    text: Arc<Notices>,
    short: OnceCell<Arc<Notices>>,
}

impl Flashblock {
    /// Its JSON.
    pub(super) fn plain(&self) -> Arc<Notices> {
        Arc::clone(&self.text)
    }

    /// Its JSON, compressed once for all who ask, on a thread that may block.
    pub(super) async fn deflated(&self, memory: &Arc<Memory>) -> Arc<Notices> {
        let make = || async {
            let text = Arc::clone(&self.text);
            let short = tokio::task::spawn_blocking(move || {
                deflate(text.texts().first().map_or(&[], Vec::as_slice))
            });
            // It fails when the runtime ends, and then nobody reads what is missing.
            memory.share(vec![short.await.unwrap_or_default()])
        };
        Arc::clone(self.short.get_or_init(make).await)
    }

    const fn is_first(&self) -> bool {
        self.at.index == 0
    }
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Arc<Flashblock>>,
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

    /// The place of one that has everything up to `after`.
    ///
    /// A block that was begun again has the same positions twice, so it is sent again from its newest
    /// beginning. What is not here any more cannot be made up for: then the next block that is here
    /// whole comes next, and its number tells of the gap. What is not here yet, because this node is
    /// behind the one that it comes from, is waited for, and nothing earlier is sent.
    fn go_on(&self, after: Position) -> Place {
        let number = |at: usize| self.oldest + at as u64;
        let place = |is: &dyn Fn(&Flashblock) -> bool| self.items.iter().position(|item| is(item));
        let beginnings = || {
            let first = |item: &Flashblock| item.at.block == after.block && item.is_first();
            self.items.iter().enumerate().filter(move |(_, item)| first(item))
        };
        let at_beginning = |next| Place { next, started: false, after: None };
        let in_block = |next| Place { next, started: true, after: None };
        if beginnings().count() > 1 {
            return at_beginning(number(beginnings().next_back().map_or(0, |(at, _)| at)));
        }
        if let Some(at) = place(&|item| item.at == after) {
            return in_block(number(at + 1));
        }
        let newest = self.items.back().map(|item| item.at);
        if newest.is_none_or(|newest| newest < after) {
            // It had more from somebody else.
            let begun = newest.is_some_and(|newest| newest.block == after.block);
            let after = Some(After { at: after, begun });
            return Place { next: self.next(), started: true, after };
        }
        let follows = Position { index: after.index.saturating_add(1), ..after };
        if self.items.front().is_some_and(|item| item.at == follows) {
            return in_block(self.oldest);
        }
        let later = place(&|item| item.at.block > after.block && item.is_first());
        at_beginning(later.map_or(self.next(), number))
    }
}

/// Where a subscriber begins.
struct Place {
    /// The number of the next flashblock.
    next: u64,
    /// Whether that may be in mid-block.
    started: bool,
    after: Option<After>,
}

/// What a subscriber has that was not here when it came.
struct After {
    /// The last that it has.
    at: Position,
    /// Whether that block has begun here: its next beginning is a new one.
    begun: bool,
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
    /// What it has already, which is passed over, unless the block begins anew.
    after: Option<After>,
    /// Changes when there is more.
    pub(super) news: watch::Receiver<u64>,
}

impl Cursor {
    /// A block begins.
    fn begin(&mut self, block: u64) {
        match &mut self.after {
            Some(after) if block < after.at.block => {}
            Some(after) if block == after.at.block && !after.begun => after.begun = true,
            _ => (self.started, self.after) = (true, None),
        }
    }
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

    /// What its flashblocks count in.
    pub(super) const fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Adds a flashblock; with the index 0 its block begins.
    pub(super) fn push(&self, text: String, at: Position) {
        let text = self.memory.share(vec![text.into_bytes()]);
        let next = {
            let mut inner = self.lock();
            if at.index == 0 {
                inner.open = Some(inner.next());
            }
            inner.bytes += text.bytes();
            let flashblock = Flashblock { at, text, short: OnceCell::new() };
            inner.items.push_back(Arc::new(flashblock));
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

    /// A place for a new subscriber: the first flashblock of the open block if it is still here, else
    /// the first of the next block. One that has everything up to `after` goes on from there.
    pub(super) fn subscribe(&self, after: Option<Position>) -> Cursor {
        let news = self.news.subscribe();
        let inner = self.lock();
        let Some(after) = after else {
            let open = inner.open.filter(|open| *open >= inner.oldest);
            return Cursor {
                next: open.unwrap_or(inner.next()),
                started: false,
                after: None,
                news,
            };
        };
        let Place { next, started, after } = inner.go_on(after);
        Cursor { next, started, after, news }
    }

    /// The next flashblock for a subscriber, `None` if it has all.
    pub(super) fn take(&self, cursor: &mut Cursor) -> Result<Option<Arc<Flashblock>>, Missed> {
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
            if item.is_first() {
                cursor.begin(item.at.block);
            }
            if cursor.started && cursor.after.as_ref().is_none_or(|after| item.at > after.at) {
                return Ok(Some(Arc::clone(item)));
            }
        }
    }
}
