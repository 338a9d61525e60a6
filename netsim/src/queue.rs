//! The event queue. It orders events by (time, sequence), so that events of equal time keep the
//! order in which they were scheduled.
//!
//! It is a calendar queue (Brown 1988): a ring of buckets of 65 µs each holds the next second, and
//! a heap holds the rest. A bucket is sorted when its time comes. With a million packets in flight,
//! as ten thousand nodes have, a binary heap alone would spend most of a run on cache misses.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::Nanos;

/// Width of a bucket as a power of two: 65.5 µs.
const WIDTH: u32 = 16;
/// Number of buckets in the ring, which together cover 1.07 s.
const BUCKETS: u64 = 16_384;

struct Entry<T> {
    at: Nanos,
    sequence: u64,
    item: T,
}

impl<T> Entry<T> {
    const fn key(&self) -> (Nanos, u64) {
        (self.at, self.sequence)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// Events by (time, sequence).
pub struct Queue<T> {
    /// The current bucket.
    current: BinaryHeap<Reverse<Entry<T>>>,
    /// Number of the current bucket.
    bucket: u64,
    ring: Vec<Vec<Entry<T>>>,
    in_ring: usize,
    far: BinaryHeap<Reverse<Entry<T>>>,
    sequence: u64,
}

impl<T> std::fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            current: BinaryHeap::new(),
            bucket: 0,
            ring: (0..BUCKETS).map(|_| Vec::new()).collect(),
            in_ring: 0,
            far: BinaryHeap::new(),
            sequence: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Schedules `item`. A time in the past counts as now.
    pub fn push(&mut self, at: Nanos, item: T) {
        self.sequence += 1;
        let entry = Entry { at, sequence: self.sequence, item };
        self.place(entry);
    }

    fn place(&mut self, entry: Entry<T>) {
        let bucket = entry.at >> WIDTH;
        if bucket <= self.bucket {
            self.current.push(Reverse(entry));
        } else if bucket < self.bucket + BUCKETS {
            self.ring[(bucket % BUCKETS) as usize].push(entry);
            self.in_ring += 1;
        } else {
            self.far.push(Reverse(entry));
        }
    }

    /// Removes the next event and returns it with its time.
    pub fn pop(&mut self) -> Option<(Nanos, T)> {
        while self.current.is_empty() {
            self.turn()?;
        }
        self.current.pop().map(|Reverse(entry)| (entry.at, entry.item))
    }

    /// Moves to the next bucket that may hold events; `None` if there are no more.
    fn turn(&mut self) -> Option<()> {
        if self.in_ring > 0 {
            self.bucket += 1;
        } else {
            self.bucket = self.far.peek()?.0.at >> WIDTH;
        }
        // Events that are now within reach of the ring move into it.
        while self.far.peek().is_some_and(|e| e.0.at >> WIDTH < self.bucket + BUCKETS) {
            let Reverse(entry) = self.far.pop()?;
            self.place(entry);
        }
        let bucket = std::mem::take(&mut self.ring[(self.bucket % BUCKETS) as usize]);
        self.in_ring -= bucket.len();
        self.current.extend(bucket.into_iter().map(Reverse));
        Some(())
    }

    /// Number of events in the queue.
    pub fn len(&self) -> usize {
        self.current.len() + self.in_ring + self.far.len()
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn events_come_by_time_and_then_in_the_order_of_scheduling(
            times in proptest::collection::vec(
                prop_oneof![0u64..100, 0u64..10_000_000, 0u64..5_000_000_000], 0..400),
        ) {
            let mut queue = Queue::default();
            let mut expected: Vec<(u64, usize)> = Vec::new();
            for (n, at) in times.iter().enumerate() {
                queue.push(*at, n);
                expected.push((*at, n));
            }
            expected.sort_unstable();
            prop_assert_eq!(queue.len(), times.len());
            let popped: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            prop_assert_eq!(popped, expected);
            prop_assert!(queue.is_empty());
        }

        #[test]
        fn scheduling_while_running_keeps_the_order(
            steps in proptest::collection::vec((0u64..3_000_000_000, 0u64..200_000), 1..200),
        ) {
            let mut queue = Queue::default();
            steps.iter().for_each(|(first, _)| queue.push(*first, true));
            let mut now = 0;
            let mut after = steps.iter().map(|(_, after)| *after);
            while let Some((at, again)) = queue.pop() {
                prop_assert!(at >= now, "time ran backwards");
                now = at;
                if again && let Some(after) = after.next() {
                    queue.push(now + after, false);
                }
            }
        }
    }
}
