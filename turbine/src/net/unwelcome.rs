//! Hosts whose handshakes come to nothing: they are computed at a rate.
//!
//! A handshake costs the one who answers it a signature, so a caller that is barred or no member,
//! and calls again at once, would cost as much as its own processor gives. After [`BURST`]
//! handshakes that came to nothing a host has one in [`EACH`]; what it sends beyond is not
//! answered. That is for those who have shown that they receive what is sent to their address; any
//! address can be forged, so after as many that failed without it a host has to show it, by
//! answering a Retry packet. A member that is not barred and calls from the address and port of its
//! record is never kept waiting by others behind its address.
//!
//! Memory: 64 bytes a host, [`HOSTS`] at most, twice.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::places::host;
use crate::bucket::{Bucket, Rate};
use crate::time::Timestamp;

/// Handshakes of a host that may come to nothing at once.
const BURST: u64 = 8;
/// The time in which it has another.
const EACH: Duration = Duration::from_millis(500);
/// Hosts that are remembered; of more, those that called least lately go.
const HOSTS: usize = 4_096;

/// What handshakes of each host came to nothing.
#[derive(Debug)]
pub(super) struct Unwelcome {
    rate: Rate,
    hosts: BTreeMap<IpAddr, Bucket>,
}

impl Unwelcome {
    pub(super) fn new() -> Self {
        Self { rate: Rate::new(1, EACH, BURST), hosts: BTreeMap::new() }
    }

    /// Whether a call from this address is to wait.
    pub(super) fn is_early(&self, now: Timestamp, from: IpAddr) -> bool {
        let bucket = self.hosts.get(&host(from)).copied();
        bucket.is_some_and(|mut bucket| !bucket.take(now, &self.rate, 1))
    }

    /// A handshake with an address that answers came to nothing.
    pub(super) fn note(&mut self, now: Timestamp, from: IpAddr) {
        let host = host(from);
        if self.hosts.len() >= HOSTS && !self.hosts.contains_key(&host) {
            self.hosts.retain(|_, bucket| !bucket.is_full(now));
            // All are at it: the one whose account is nearest to being even makes room.
            if self.hosts.len() >= HOSTS
                && let Some(least) =
                    self.hosts.iter().min_by_key(|(_, b)| b.until()).map(|(h, _)| *h)
            {
                self.hosts.remove(&least);
            }
        }
        self.hosts.entry(host).or_default().take(now, &self.rate, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 * (100 + seconds))
    }

    #[test]
    fn who_calls_in_vain_again_and_again_waits_and_nobody_else_does() {
        let mut hosts = Unwelcome::new();
        let [one, other] = [1, 2].map(|last| IpAddr::from([203, 0, 113, last]));
        let mut computed = 0;
        for _ in 0..1_000 {
            if !hosts.is_early(at(1), one) {
                hosts.note(at(1), one);
                computed += 1;
            }
        }
        assert_eq!(computed, BURST);
        let IpAddr::V4(v4) = one else { unreachable!("it is one") };
        assert!(hosts.is_early(at(1), v4.to_ipv6_mapped().into()), "the same over IPv6");
        assert!(!hosts.is_early(at(1), other) && !hosts.is_early(at(2), one));
    }

    #[test]
    fn the_hosts_that_are_remembered_are_bounded() {
        let mut hosts = Unwelcome::new();
        let host = |n: u32| IpAddr::from(n.to_be_bytes());
        (0..20_000).for_each(|n| hosts.note(at(1), host(n)));
        assert_eq!(hosts.hosts.len(), HOSTS);
        // One that calls all the time stays.
        (0..BURST).for_each(|_| hosts.note(at(1), host(77)));
        (30_000..50_000).for_each(|n| hosts.note(at(1), host(n)));
        assert!(hosts.is_early(at(1), host(77)));
        // Those that have been quiet make room first.
        hosts.note(at(99), host(1));
        assert_eq!(hosts.hosts.len(), 1);
    }
}
