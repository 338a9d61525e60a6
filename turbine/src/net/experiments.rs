//! Faults on purpose, for experiments and tests: a node that loses shreds, or is cut off; a member
//! that says whatever it likes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ed25519_dalek::SigningKey;

use super::{NetConfig, tls, transport};
use crate::peer::PeerId;

/// The configuration with which a member calls `peer` without a protocol behind it: for benchmarks
/// and tests of what a lying member can do.
///
/// # Errors
/// TLS cannot be set up.
pub fn client_config(
    identity: &SigningKey,
    peer: PeerId,
    net: &NetConfig,
) -> Result<quinn::ClientConfig, rustls::Error> {
    let mut config = quinn::ClientConfig::new(Arc::new(tls::client(identity, peer)?));
    config.transport_config(transport::config(net));
    Ok(config)
}

/// Whether a node is cut off, as by a firewall: then no packet passes either way.
///
/// Asked below QUIC, not above: connections do not learn of it, but find out as they would in
/// the field, by silence. A socket that is closed instead would tell the peers at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Cut(Option<Arc<AtomicBool>>);

impl Cut {
    /// By a flag that somebody else sets; never without one.
    pub(super) const fn new(flag: Option<Arc<AtomicBool>>) -> Self {
        Self(flag)
    }

    /// Whether packets are thrown away now.
    pub(super) fn is_on(&self) -> bool {
        self.0.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

/// The share of a node's outgoing shreds that is thrown away. Clones are one and the same: whoever
/// holds one can change it while the node runs.
#[derive(Debug, Clone)]
pub struct Loss {
    /// Of 2⁶⁴.
    share: Arc<AtomicU64>,
    seed: u64,
}

impl Loss {
    /// A share between 0 and 1, and a seed of the losses.
    pub fn new(share: f64, seed: u64) -> Self {
        let loss = Self { share: Arc::default(), seed };
        loss.set(share);
        loss
    }

    /// Changes the share.
    pub fn set(&self, share: f64) {
        let share = (share.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        self.share.store(share, Ordering::Relaxed);
    }

    /// The share.
    pub fn share(&self) -> f64 {
        self.share.load(Ordering::Relaxed) as f64 / u64::MAX as f64
    }
}

/// Throws away a share of the shreds, by a seeded generator.
#[derive(Debug)]
pub(super) struct Losses {
    share: Arc<AtomicU64>,
    state: u64,
}

impl Losses {
    pub(super) fn new(loss: Loss) -> Self {
        Self { share: loss.share, state: loss.seed }
    }

    /// Whether the next shred is lost. SplitMix64 (Steele, Lea, Flood 2014).
    pub(super) fn hit(&mut self) -> bool {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) < self.share.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_lost_as_was_asked_for_and_always_the_same() {
        let hits = |share| {
            let mut losses = Losses::new(Loss::new(share, 7));
            (0..10_000).map(|_| losses.hit()).collect::<Vec<bool>>()
        };
        let count = |share| hits(share).into_iter().filter(|hit| *hit).count();
        assert_eq!((count(0.0), count(1.0)), (0, 10_000));
        assert!((1_900..2_100).contains(&count(0.2)), "{}", count(0.2));
        assert_eq!(hits(0.2), hits(0.2));
    }

    #[test]
    fn the_share_changes_while_shreds_are_sent() {
        let loss = Loss::new(0.0, 7);
        let mut losses = Losses::new(loss.clone());
        assert!(!(0..100).any(|_| losses.hit()));
        loss.set(1.0);
        assert!((0..100).all(|_| losses.hit()));
        assert!((loss.share() - 1.0).abs() < 1e-9);
    }
}
