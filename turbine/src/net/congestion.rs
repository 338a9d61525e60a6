//! A congestion controller with a window for the configured rate.
//!
//! CUBIC and NewReno read every lost datagram as congestion: at 1 % loss over 50 ms they
//! carry a sixteenth of what is offered, and after idling they start from ten packets. The
//! overlay has known members, paces at a configured rate and codes against loss, so a lost
//! datagram says nothing here. What does say something is persistent congestion (RFC 9002,
//! section 7.6: everything lost over several probe time-outs): then the window is halved, and
//! comes back by a 64th of its full size with every batch of acknowledgements.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};

/// The longest round trip that the window covers at full rate.
const MAX_RTT: Duration = Duration::from_millis(400);

/// The least window: enough to find out that the path is back.
const MIN_WINDOW: u64 = 64 * 1024;

/// Batches of acknowledgements in which an empty window is full again.
const RECOVERY_STEPS: u64 = 64;

/// Keeps a window of rate × 400 ms, except under persistent congestion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedWindow {
    full: u64,
    window: u64,
}

impl FixedWindow {
    /// A window for `bits_per_second`.
    pub fn new(bits_per_second: u64) -> Self {
        let full = u128::from(bits_per_second) * MAX_RTT.as_millis() / 8_000;
        let full = u64::try_from(full).unwrap_or(u64::MAX).max(MIN_WINDOW);
        Self { full, window: full }
    }
}

impl ControllerFactory for FixedWindow {
    fn build(self: Arc<Self>, _now: Instant, _mtu: u16) -> Box<dyn Controller> {
        Box::new(*self)
    }
}

impl Controller for FixedWindow {
    fn on_end_acks(&mut self, _now: Instant, _flight: u64, _limited: bool, _largest: Option<u64>) {
        self.window = self.window.saturating_add(self.full / RECOVERY_STEPS).min(self.full);
    }

    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, persistent: bool, _lost: u64) {
        if persistent {
            self.window = (self.window / 2).max(MIN_WINDOW);
        }
    }

    fn on_mtu_update(&mut self, _mtu: u16) {}

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(*self)
    }

    fn initial_window(&self) -> u64 {
        self.full
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the trait wants instants, and ignores them")]
    fn only_persistent_congestion_halves_the_window() {
        let now = Instant::now();
        let mut controller = FixedWindow::new(100_000_000);
        assert_eq!(controller.window(), 5_000_000);
        for _ in 0..1000 {
            controller.on_congestion_event(now, now, false, 1200);
        }
        assert_eq!(controller.window(), 5_000_000);
        controller.on_congestion_event(now, now, true, 1200);
        assert_eq!(controller.window(), 2_500_000);
        for _ in 0..20 {
            controller.on_congestion_event(now, now, true, 1200);
        }
        assert_eq!(controller.window(), MIN_WINDOW);
        for _ in 0..64 {
            controller.on_end_acks(now, 0, false, None);
        }
        assert_eq!(controller.window(), 5_000_000);
    }
}
