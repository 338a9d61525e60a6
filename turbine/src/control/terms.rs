//! Terms: what all nodes of a network must have alike, told after the greeting.
//!
//! A network file that differs in one of these goes unnoticed otherwise: messages of the other
//! dialect are messages that do not parse, and blocks of another rotation are blocks that nobody
//! may sign. Another *membership table* is no difference: epochs come and go, and a table that is
//! being rolled out is here already and there not yet. What belongs to an epoch, gateways and
//! terms, is compared only if both speak of the epoch from the same block.

use std::fmt;
use std::time::Duration;

use fragcast_shredder::Dialect;

use crate::epoch::Epoch;
use crate::time::Timestamp;

/// A clock that is further off than this gives wrong latencies, and nodes that judge timestamps
/// by it judge wrongly. What a frame needs on its way is far less.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(10);

/// What a node goes by. The second frame of each side, and again when its newest epoch is another
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Terms {
    /// Chain id.
    pub chain_id: u64,
    /// 0: `v0`, 1: `v0-blob`.
    pub dialect: u8,
    /// Since which block the sender's newest rotation holds: the first of its epoch, unless that
    /// has only another table of members than the one before.
    pub from_block: u64,
    /// Blocks that a gateway leads at a time.
    pub blocks_per_term: u64,
    /// Number of gateways in the rotation.
    pub gateways: u32,
    /// Hash of their addresses in the order of the rotation.
    pub rotation: [u8; 32],
    /// The sender's clock, µs since the Unix epoch.
    pub sent_at: u64,
}

/// A difference between what two nodes go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum Difference {
    /// The chain id.
    ChainId {
        /// This node's.
        ours: u64,
        /// The peer's.
        theirs: u64,
    },
    /// The form of the messages.
    Dialect {
        /// This node's.
        ours: u8,
        /// The peer's.
        theirs: u8,
    },
    /// Blocks that a gateway leads at a time.
    BlocksPerTerm {
        /// This node's.
        ours: u64,
        /// The peer's.
        theirs: u64,
    },
    /// The rotation of gateways: other addresses, or the same in another order.
    Gateways {
        /// How many this node knows.
        ours: u32,
        /// How many the peer knows.
        theirs: u32,
    },
    /// The clocks.
    Clock {
        /// Seconds that the peer's is ahead of this node's.
        ahead: i64,
    },
}

impl Difference {
    /// The name in metrics.
    pub fn name(&self) -> &'static str {
        self.into()
    }
}

/// The dialect that a number stands for, if it is one that this build knows.
pub(crate) const fn dialect_of(number: u8) -> Option<Dialect> {
    match number {
        0 => Some(Dialect::V0),
        1 => Some(Dialect::V0Blob),
        _ => None,
    }
}

/// The name of a dialect's number.
fn dialect(number: u8) -> &'static str {
    dialect_of(number).map_or("unknown", Dialect::name)
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChainId { ours, theirs } => write!(f, "chain_id is {ours} here, {theirs} there"),
            Self::Dialect { ours, theirs } => {
                write!(f, "dialect is {} here, {} there", dialect(*ours), dialect(*theirs))
            }
            Self::BlocksPerTerm { ours, theirs } => {
                write!(f, "blocks_per_term is {ours} here, {theirs} there")
            }
            Self::Gateways { ours, theirs } if ours == theirs => {
                write!(f, "gateways has {ours} other addresses there, or another order")
            }
            Self::Gateways { ours, theirs } => {
                write!(f, "gateways has {ours} addresses here, {theirs} there")
            }
            Self::Clock { ahead } if *ahead >= 0 => {
                write!(f, "the clock there is {ahead} s ahead: one of the two is wrong")
            }
            Self::Clock { ahead } => {
                let behind = ahead.unsigned_abs();
                write!(f, "the clock there is {behind} s behind: one of the two is wrong")
            }
        }
    }
}

impl Terms {
    /// What a node goes by at `now` whose newest epoch is `epoch`.
    pub fn of(chain_dialect: Dialect, epoch: &Epoch, now: Timestamp) -> Self {
        let schedule = epoch.schedule();
        Self {
            chain_id: epoch.chain_id(),
            dialect: match chain_dialect {
                Dialect::V0 => 0,
                Dialect::V0Blob => 1,
            },
            from_block: epoch.rotation_from(),
            blocks_per_term: schedule.blocks_per_term(),
            gateways: u32::try_from(schedule.gateways().len()).unwrap_or(u32::MAX),
            rotation: schedule.rotation_hash(),
            sent_at: now.as_micros(),
        }
    }

    /// In what a peer that sent `theirs` differs from this node, whose terms are these now.
    pub fn differences(&self, theirs: &Self) -> Vec<Difference> {
        let mut all = Vec::new();
        if self.chain_id != theirs.chain_id {
            all.push(Difference::ChainId { ours: self.chain_id, theirs: theirs.chain_id });
        }
        if self.dialect != theirs.dialect {
            all.push(Difference::Dialect { ours: self.dialect, theirs: theirs.dialect });
        }
        if self.from_block == theirs.from_block {
            if self.blocks_per_term != theirs.blocks_per_term {
                let (ours, theirs) = (self.blocks_per_term, theirs.blocks_per_term);
                all.push(Difference::BlocksPerTerm { ours, theirs });
            }
            if self.rotation != theirs.rotation || self.gateways != theirs.gateways {
                let (ours, theirs) = (self.gateways, theirs.gateways);
                all.push(Difference::Gateways { ours, theirs });
            }
        }
        let off = self.sent_at.abs_diff(theirs.sent_at) / 1_000_000;
        if off > CLOCK_TOLERANCE.as_secs() {
            let seconds = i64::try_from(off).unwrap_or(i64::MAX);
            let ahead = if theirs.sent_at > self.sent_at { seconds } else { -seconds };
            all.push(Difference::Clock { ahead });
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use alloy_primitives::{Address, hex};

    use super::*;
    use crate::control::Control;
    use crate::membership::sample;
    use crate::schedule::Schedule;

    fn terms(dialect: Dialect, from: u64, gateways: &[u8], term: u64, seconds: u64) -> Terms {
        let (members, _) = sample(5, &[1; 2]);
        let gateways = gateways.iter().map(|n| Address::repeat_byte(*n)).collect();
        let schedule = Schedule::new(gateways, term).unwrap();
        let epoch = Epoch::new(5, from, Arc::new(members), schedule, []).unwrap();
        Terms::of(dialect, &epoch, Timestamp::from_micros(seconds * 1_000_000))
    }

    #[test]
    fn the_frame_is_pinned() {
        let frame = Control::Terms(terms(Dialect::V0Blob, 7, &[1, 2], 30, 3));
        let bytes = frame.to_bytes();
        let rotation =
            blake3::derive_key("fragcast 2026 gateways v1", &[[1; 20], [2; 20]].concat());
        assert_eq!(
            hex::encode(&bytes),
            format!(
                "0b05000000000000000107000000000000001e0000000000000002000000{}c0c62d0000000000",
                hex::encode(rotation)
            )
        );
        assert_eq!(
            hex::encode(rotation),
            "708837405523f696640b75b31b3f62bacb665d4f41b7dbfde6c68c0837dcecb4",
            "the hash of two addresses"
        );
        assert_eq!(Control::from_bytes(&bytes), Ok(frame));
        assert!(Control::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(Control::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn differences_are_those_of_one_epoch() {
        let ours = terms(Dialect::V0, 0, &[1, 2], 30, 1_000);
        let none = terms(Dialect::V0, 0, &[1, 2], 30, 1_009);
        assert_eq!(ours.differences(&none), []);
        let names = |theirs: &Terms| -> Vec<&str> {
            ours.differences(theirs).iter().map(Difference::name).collect()
        };
        assert_eq!(names(&terms(Dialect::V0Blob, 0, &[1, 2], 30, 1_000)), ["dialect"]);
        assert_eq!(names(&terms(Dialect::V0, 0, &[2, 1], 30, 1_000)), ["gateways"]);
        assert_eq!(names(&terms(Dialect::V0, 0, &[1], 29, 1_000)), ["blocks_per_term", "gateways"]);
        // A peer that is an epoch ahead.
        assert_eq!(names(&terms(Dialect::V0, 100, &[1], 29, 1_000)), [""; 0]);
        assert_eq!(names(&terms(Dialect::V0, 100, &[1], 29, 4_600)), ["clock"]);
        let texts: Vec<String> = ours
            .differences(&Terms { dialect: 9, sent_at: 0, ..ours })
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            texts,
            [
                "dialect is v0 here, unknown there",
                "the clock there is 1000 s behind: one of the two is wrong"
            ]
        );
        // Nothing that a peer sends is too large.
        let far =
            Terms { sent_at: u64::MAX, blocks_per_term: u64::MAX, gateways: u32::MAX, ..ours };
        assert_eq!(names(&far), ["blocks_per_term", "gateways", "clock"]);
    }
}
