//! What a port streams: the ring, to one subscriber after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fragcast_port::{Feed, Frames, Memory, Notices, Subscription};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::ring::{Cursor, Missed, Ring};
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

impl Feed for Hub {
    fn subscribe(&self, path: &str) -> Box<dyn Subscription> {
        let (ring, stats) = (Arc::clone(&self.ring), Arc::clone(&self.stats));
        stats.subscribers.fetch_add(1, Ordering::Relaxed);
        Box::new(Subscriber { cursor: ring.subscribe(), frames: frames(path), ring, stats })
    }
}

/// A subscriber; counted while it lives.
struct Subscriber {
    ring: Arc<Ring>,
    stats: Arc<FlashblocksStats>,
    cursor: Cursor,
    frames: Frames,
}

impl Subscription for Subscriber {
    fn frames(&self) -> Frames {
        self.frames
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Arc<Notices>, String>> {
        async {
            loop {
                match self.ring.take(&mut self.cursor) {
                    Ok(Some(flashblock)) => return Ok(flashblock),
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
