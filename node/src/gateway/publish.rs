//! When a leader's own subscribers see its messages: at once, or when the next leader has them.
//!
//! A leader executes and publishes what it sends, so that its own subscribers could act on a frag
//! before the next leader, who is to build on it, has it. With `leader.hand_over_ms` messages wait
//! for the next leader's acknowledgement, but not longer than that after they were sent, and in
//! their order. Nothing that is sent to peers waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fragcast_turbine::net::Handle;
use fragcast_turbine::output::Delivered;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The longest wait that can be configured: a subscriber is served late, but hardly notices.
pub const LONGEST: Duration = Duration::from_millis(20);

/// How messages came to be published.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::VariantArray, strum::IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Published {
    /// The next leader has it.
    Held,
    /// The next leader had not said so in time.
    Late,
    /// There is no next leader that is connected.
    Nobody,
}

/// Counters of [`Published`], by outcome.
#[derive(Debug, Default)]
pub struct PublishStats([AtomicU64; 3]);

impl PublishStats {
    /// Names and counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let all = <Published as strum::VariantArray>::VARIANTS.iter();
        all.map(|how| (how.into(), self.0[*how as usize].load(Ordering::Relaxed)))
    }

    fn count(&self, how: Published) {
        self.0[how as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Takes messages in the order in which they were sent, and hands them to `out` when they may be
/// published; returns where to put them. Ends when the other end of either channel is gone.
pub fn held_back(
    net: Handle,
    within: Duration,
    stats: Arc<PublishStats>,
    out: mpsc::Sender<Arc<Delivered>>,
) -> mpsc::Sender<Arc<Delivered>> {
    let (sender, mut sent) = mpsc::channel::<(Instant, Arc<Delivered>)>(out.max_capacity());
    let (front, mut arriving) = mpsc::channel::<Arc<Delivered>>(1);
    // The time of each counts from here, however many wait before it.
    tokio::spawn(async move {
        while let Some(delivered) = arriving.recv().await {
            if sender.send((Instant::now() + within, delivered)).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((until, delivered)) = sent.recv().await {
            let how = match tokio::time::timeout_at(until, net.held(delivered.key)).await {
                Ok(true) => Published::Held,
                Ok(false) => Published::Nobody,
                Err(_) => Published::Late,
            };
            stats.count(how);
            if out.send(delivered).await.is_err() {
                return;
            }
        }
    });
    front
}
