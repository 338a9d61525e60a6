//! The window of blocks that are taken.
//!
//! It follows the messages themselves, from [`WINDOW_PAST`] below the newest Seal to
//! [`WINDOW_FUTURE`] above the newest Env, or what the application says of the chain's head. A
//! node that was away, or was lied to by the first leader it heard, finds nothing but shreds
//! outside its window: after a time without progress it drops the window and starts anew.

use std::time::Duration;

use fragcast_shredder::Kind;

use crate::outcome::Outcome;
use crate::time::Timestamp;

/// Blocks below the newest Seal that are still taken.
pub const WINDOW_PAST: u64 = 64;
/// Blocks above the newest Env that are taken already: what op-node keeps of the schedule.
pub const WINDOW_FUTURE: u64 = 7;

/// What a block is to the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is taken.
    Inside,
    /// It is not, and this node may be the one who is elsewhere: the window is to be dropped.
    Elsewhere,
    /// It is not.
    Outside(Outcome),
}

/// Where the chain stands.
#[derive(Debug, Default)]
pub(super) struct Window {
    opened: Option<u64>,
    sealed: Option<u64>,
    /// The newest block of which a message was taken, whatever the application said.
    taken: Option<u64>,
    progress_at: Timestamp,
}

impl Window {
    /// The blocks that are taken, both ends included.
    pub(super) fn bounds(&self) -> (u64, u64) {
        let Some(opened) = self.opened else { return (0, u64::MAX) };
        let low = self.sealed.unwrap_or(opened).min(opened).saturating_sub(WINDOW_PAST);
        (low, opened.saturating_add(WINDOW_FUTURE))
    }

    /// The newest block that is open.
    pub(super) const fn opened(&self) -> Option<u64> {
        self.opened
    }

    /// The newest block that is sealed.
    pub(super) const fn sealed(&self) -> Option<u64> {
        self.sealed
    }

    /// The newest block of which a message was taken.
    pub(super) const fn taken(&self) -> Option<u64> {
        self.taken
    }

    /// Judges the block of a shred.
    pub(super) fn place(&self, now: Timestamp, block: u64, reanchor: Duration) -> Place {
        let (low, high) = self.bounds();
        let beyond = if block < low {
            Outcome::Past
        } else if block > high {
            Outcome::Future
        } else {
            return Place::Inside;
        };
        // What was sealed stays sealed: old shreds, sent again, move no window back.
        let back = beyond == Outcome::Past && self.sealed.is_some();
        if !back && now.since(self.progress_at) > reanchor {
            return Place::Elsewhere;
        }
        Place::Outside(beyond)
    }

    /// The blocks that are taken from gossip: those of the window, and after a time without
    /// progress whatever may follow.
    pub(super) fn gossip_bounds(&self, now: Timestamp, reanchor: Duration) -> (u64, u64) {
        let (low, high) = self.bounds();
        if now.since(self.progress_at) <= reanchor {
            return (low, high);
        }
        (if self.sealed.is_some() { low } else { 0 }, u64::MAX)
    }

    /// A message was taken.
    pub(super) fn advance(&mut self, now: Timestamp, block: u64, kind: Kind) {
        self.progress_at = now;
        self.taken = self.taken.max(Some(block));
        match kind {
            Kind::Env => self.opened = self.opened.max(Some(block)),
            Kind::Seal => self.sealed = self.sealed.max(Some(block)),
            Kind::Frag => {}
        }
    }

    /// The application says that the chain's head is `block`.
    pub(super) const fn head(&mut self, now: Timestamp, block: u64) {
        (self.opened, self.sealed) = (Some(block), Some(block));
        self.progress_at = now;
    }

    /// Drops the window: the next message says where the chain stands.
    pub(super) const fn forget(&mut self, now: Timestamp) {
        (self.opened, self.sealed, self.taken) = (None, None, None);
        self.progress_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REANCHOR: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn it_follows_env_and_seal_and_never_goes_back() {
        let mut window = Window::default();
        assert_eq!(window.bounds(), (0, u64::MAX), "anything, until something is known");
        window.advance(at(1), 100, Kind::Env);
        assert_eq!(window.bounds(), (36, 107));
        window.advance(at(1), 103, Kind::Env);
        window.advance(at(1), 101, Kind::Env);
        assert_eq!(window.bounds(), (39, 110), "nothing is sealed: counted from what is open");
        window.advance(at(1), 100, Kind::Seal);
        assert_eq!(window.bounds(), (36, 110), "block 100 is the last that is sealed");
        window.advance(at(1), 103, Kind::Frag);
        assert_eq!((window.bounds(), window.taken()), ((36, 110), Some(103)));
        window.head(at(1), 5_000);
        assert_eq!((window.bounds(), window.taken()), ((4_936, 5_007), Some(103)));
        window.advance(at(1), u64::MAX, Kind::Env);
        assert_eq!(window.bounds().1, u64::MAX, "no overflow at the end of numbers");
    }

    #[test]
    fn it_is_dropped_after_a_time_without_progress_but_not_for_the_past() {
        let mut window = Window::default();
        window.advance(at(10), 100, Kind::Env);
        assert_eq!(window.place(at(10), 100, REANCHOR), Place::Inside);
        assert_eq!(window.place(at(15), 108, REANCHOR), Place::Outside(Outcome::Future));
        assert_eq!(window.place(at(16), 108, REANCHOR), Place::Elsewhere);
        assert_eq!(window.place(at(16), 35, REANCHOR), Place::Elsewhere, "nothing is sealed");
        window.advance(at(10), 100, Kind::Seal);
        assert_eq!(window.place(at(16), 35, REANCHOR), Place::Outside(Outcome::Past));
        window.forget(at(16));
        assert_eq!(window.place(at(16), 1, REANCHOR), Place::Inside);
    }

    #[test]
    fn gossip_may_lead_forward_without_progress_and_back_only_if_nothing_is_sealed() {
        let mut window = Window::default();
        window.advance(at(10), 100, Kind::Env);
        assert_eq!(window.gossip_bounds(at(15), REANCHOR), (36, 107));
        assert_eq!(window.gossip_bounds(at(16), REANCHOR), (0, u64::MAX));
        window.advance(at(10), 100, Kind::Seal);
        assert_eq!(window.gossip_bounds(at(16), REANCHOR), (36, u64::MAX));
    }
}
