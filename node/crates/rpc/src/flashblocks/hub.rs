//! What a port streams: the ring, to one subscriber after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fragcast_port::{Asked, Feed, Frames, Memory, Notices, Subscription, Uri};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::ring::{Cursor, Flashblock, Missed, Position, Ring};
use super::stats::FlashblocksStats;

/// The ring and those who read it.
pub(super) struct Hub {
    pub(super) ring: Arc<Ring>,
    pub(super) stats: Arc<FlashblocksStats>,
}

impl Hub {
    /// A ring of so many bytes, which count in `memory`.
    pub(super) fn new(buffer: usize, memory: Arc<Memory>, stats: Arc<FlashblocksStats>) -> Self {
        Self { ring: Arc::new(Ring::new(buffer, memory)), stats }
    }
}

/// The frames that a path asks for.
pub(super) fn frames(path: &str) -> Frames {
    if path.trim_end_matches('/').ends_with("/text") { Frames::Text } else { Frames::Binary }
}

/// The position that a query asks to go on after, `?block_number=…&flashblock_index=…`; what else is
/// in a query is other servers'.
pub(super) fn position(query: Option<&str>) -> Result<Option<Position>, String> {
    let number = |name: &str| {
        let mut pairs = query.unwrap_or_default().split('&').filter_map(|p| p.split_once('='));
        let value = pairs.find(|(key, _)| *key == name);
        value
            .map(|(_, value)| {
                value
                    .parse::<u64>()
                    .map_err(|_| format!("{name} must be a decimal number: {value:?}"))
            })
            .transpose()
    };
    match (number("block_number")?, number("flashblock_index")?) {
        (None, None) => Ok(None),
        (Some(block), Some(index)) => Ok(Some(Position { block, index })),
        _ => Err("to go on after a flashblock give both block_number and flashblock_index".into()),
    }
}

impl Feed for Hub {
    fn check(&self, uri: &Uri) -> Result<(), String> {
        position(uri.query()).map(drop)
    }

    fn subscribe(&self, asked: &Asked) -> Box<dyn Subscription> {
        let (ring, stats) = (Arc::clone(&self.ring), Arc::clone(&self.stats));
        stats.subscribers.fetch_add(1, Ordering::Relaxed);
        // It was checked before.
        let after = position(asked.uri.query()).ok().flatten();
        if after.is_some() {
            FlashblocksStats::count(&stats.resumed);
        }
        let cursor = ring.subscribe(after);
        let (frames, deflate) = (frames(asked.uri.path()), asked.deflate);
        Box::new(Subscriber { cursor, taken: None, frames, deflate, ring, stats })
    }
}

/// A subscriber; counted while it lives.
struct Subscriber {
    ring: Arc<Ring>,
    stats: Arc<FlashblocksStats>,
    cursor: Cursor,
    /// The flashblock that it gets next. Whoever waits for that may give up while it is compressed,
    /// and asks again.
    taken: Option<Arc<Flashblock>>,
    frames: Frames,
    deflate: bool,
}

impl Subscription for Subscriber {
    fn frames(&self) -> Frames {
        self.frames
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Arc<Notices>, String>> {
        async {
            loop {
                if let Some(flashblock) = &self.taken {
                    let notices = if self.deflate {
                        flashblock.deflated(self.ring.memory()).await
                    } else {
                        flashblock.plain()
                    };
                    self.taken = None;
                    return Ok(notices);
                }
                match self.ring.take(&mut self.cursor) {
                    Ok(Some(flashblock)) => self.taken = Some(flashblock),
                    // The ring outlives its subscribers.
                    Ok(None) => drop(self.cursor.news.changed().await),
                    Err(Missed(n)) => {
                        return Err(format!(
                            "too slow: {n} flashblocks missed; subscribe again and read faster"
                        ));
                    }
                }
            }
        }
        .boxed()
    }

    fn sent(&mut self, bytes: usize) {
        FlashblocksStats::count(&self.stats.sent);
        self.stats.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.stats.subscribers.fetch_sub(1, Ordering::Relaxed);
    }
}
