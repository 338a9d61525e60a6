//! Validation of gossip messages: decoded, and signed by the scheduled gateway, before they go
//! anywhere.
//!
//! Pure, and apart from the protocol: recovering a signature takes 42 µs, and whoever floods
//! gossip must not delay shreds. The driver checks in the task that talks to libp2p, and hands
//! on what is verified.

use alloy_primitives::Bytes;
use fragcast_shredder::{Dialect, Kind, VerifiedMessage};

use super::outcome::GossipOutcome;
use crate::schedule::Schedule;

/// What libp2p is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Forward it.
    Accept,
    /// Forget it; nobody is to blame.
    Ignore,
    /// Forget it, and hold it against who sent it.
    Reject,
}

/// What became of a message.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What libp2p is told.
    pub verdict: Verdict,
    /// The reason, to be counted.
    pub outcome: GossipOutcome,
    /// What goes on to the protocol: each message once.
    pub message: Option<VerifiedMessage>,
}

/// The gate of one node.
#[derive(Debug)]
pub struct Gate {
    dialect: Dialect,
    schedule: Schedule,
    window: (u64, u64),
}

impl Gate {
    /// A gate that takes every block until it is told of a window.
    pub const fn new(dialect: Dialect, schedule: Schedule) -> Self {
        Self { dialect, schedule, window: (0, u64::MAX) }
    }

    /// Blocks below `low` and above `high` are ignored from now on.
    pub const fn set_window(&mut self, low: u64, high: u64) {
        self.window = (low, high);
    }

    /// Judges what came on the topic of `kind`.
    pub fn check(&mut self, kind: Kind, data: &Bytes) -> Checked {
        use fragcast_shredder::SignedMessage;
        let reject = |outcome| Checked { verdict: Verdict::Reject, outcome, message: None };
        let Ok(signed) = SignedMessage::from_wire(kind, self.dialect, data) else {
            return reject(GossipOutcome::Malformed);
        };
        let block = signed.message.block();
        if !(self.window.0..=self.window.1).contains(&block) {
            let outcome =
                if block < self.window.0 { GossipOutcome::Past } else { GossipOutcome::Future };
            return Checked { verdict: Verdict::Ignore, outcome, message: None };
        }
        match signed.verify(self.schedule.gateway(block)) {
            Ok(message) => Checked {
                verdict: Verdict::Accept,
                outcome: GossipOutcome::Accepted,
                message: Some(message),
            },
            Err(_) => reject(GossipOutcome::WrongSigner),
        }
    }
}
