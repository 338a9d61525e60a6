//! Places for handshakes that have begun and not ended: who gets one when they are scarce.
//!
//! A handshake that is begun and not gone on with costs its caller nothing, so places run out
//! whenever somebody wants them to. Then they are divided by where the calls come from:
//!
//! * Half of all places are for the addresses that members are known to have. Callers from
//!   elsewhere have the other half together; of one host (an IPv4 address, a /64 of IPv6) a
//!   sixteenth of all, and of one network (a /24, a /48) an eighth.
//! * A datagram's source can be forged, that of a member most of all. So an eighth of all, or a
//!   quarter of members' addresses, is for callers who have not answered a Retry packet; the rest
//!   is kept for those who have, as TCP's own handshake makes everybody do.
//!
//! Memory: two entries of 64 bytes a handshake.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why a caller gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is to show first that it receives what is sent to its address.
    Unproven,
    /// There are too many handshakes of its kind in all.
    Total,
    /// There are too many from its host.
    Host,
    /// There are too many from its network.
    Network,
}

/// A place that is taken, to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    host: IpAddr,
    network: IpAddr,
    member: bool,
    proven: bool,
}

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) address: IpAddr,
    /// A member is known to have this address.
    pub(super) member: bool,
    /// It has shown that it receives what is sent to its address.
    pub(super) proven: bool,
}

/// Places taken by one kind of callers: all of them, and those who have not proven their address.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    all: usize,
    unproven: usize,
}

/// The places.
#[derive(Debug)]
pub(super) struct Places {
    total: usize,
    per_host: usize,
    members: Taken,
    others: Taken,
    hosts: BTreeMap<IpAddr, usize>,
    /// Of callers from elsewhere than members.
    networks: BTreeMap<IpAddr, usize>,
}

/// A part of `total`, and one at least.
const fn part(total: usize, of: usize) -> usize {
    let part = total / of;
    if part == 0 { 1 } else { part }
}

/// What one machine is taken to have: an address, or with IPv6 a /64.
pub(super) fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => masked(address, 64),
    }
}

/// What one operator is taken to have: a /24, or with IPv6 a /48.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) & !0xff).into(),
        IpAddr::V6(address) => masked(address, 48),
    }
}

fn masked(address: Ipv6Addr, bits: u32) -> IpAddr {
    Ipv6Addr::from(u128::from(address) & !(u128::MAX >> bits)).into()
}

impl Places {
    /// So many places in all, and at most `per_host` for one host.
    pub(super) fn new(total: usize, per_host: usize) -> Self {
        let none = Taken::default();
        let (hosts, networks) = (BTreeMap::new(), BTreeMap::new());
        Self { total, per_host, members: none, others: none, hosts, networks }
    }

    /// How many are taken.
    pub(super) const fn taken(&self) -> usize {
        self.members.all + self.others.all
    }

    /// How many are taken by one host.
    #[cfg(any(test, feature = "gossip"))]
    pub(super) fn of_host(&self, address: IpAddr) -> usize {
        self.hosts.get(&host(address)).copied().unwrap_or(0)
    }

    /// Takes a place.
    ///
    /// # Errors
    /// [`Refusal`]. [`Refusal::Unproven`] only for those who have not proven their address.
    pub(super) fn take(&mut self, caller: Caller) -> Result<Place, Refusal> {
        let Caller { address, member, proven } = caller;
        let (host, network) = (host(address), network(address));
        let of_host = self.hosts.get(&host).copied().unwrap_or(0);
        let of_network = self.networks.get(&network).copied().unwrap_or(0);
        let (taken, most, unproven, per_host, per_network) = match member {
            true => {
                (self.members, self.total, part(self.total, 4), part(self.total, 4), usize::MAX)
            }
            false => {
                let (most, eighth) = (part(self.total, 2), part(self.total, 8));
                (self.others, most, eighth, part(self.total, 16), eighth)
            }
        };
        let per_host = per_host.min(self.per_host);
        if self.taken() >= self.total || taken.all >= most {
            return Err(Refusal::Total);
        }
        // Before any refusal by address: one that is forged must not lock its owner out.
        let crowded = taken.unproven >= unproven
            || of_host >= per_host.div_ceil(2)
            || of_network >= per_network.div_ceil(2);
        if crowded && !proven {
            return Err(Refusal::Unproven);
        }
        if of_host >= per_host {
            return Err(Refusal::Host);
        }
        if of_network >= per_network {
            return Err(Refusal::Network);
        }
        let taken = if member { &mut self.members } else { &mut self.others };
        taken.all += 1;
        taken.unproven += usize::from(!proven);
        *self.hosts.entry(host).or_default() += 1;
        if !member {
            *self.networks.entry(network).or_default() += 1;
        }
        Ok(Place { host, network, member, proven })
    }

    /// Gives a place back.
    pub(super) fn give_back(&mut self, place: Place) {
        let Place { host, network, member, proven } = place;
        let taken = if member { &mut self.members } else { &mut self.others };
        taken.all = taken.all.saturating_sub(1);
        taken.unproven = taken.unproven.saturating_sub(usize::from(!proven));
        give_back(&mut self.hosts, host);
        if !member {
            give_back(&mut self.networks, network);
        }
    }
}

fn give_back(counts: &mut BTreeMap<IpAddr, usize>, key: IpAddr) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
        Ipv4Addr::new(a, b, c, d).into()
    }

    fn stranger(address: IpAddr, proven: bool) -> Caller {
        Caller { address, member: false, proven }
    }

    fn member(address: IpAddr, proven: bool) -> Caller {
        Caller { address, member: true, proven }
    }

    /// How many of so many calls get a place, and why the last did not.
    fn take(places: &mut Places, calls: impl Iterator<Item = Caller>) -> (usize, Option<Refusal>) {
        let results: Vec<_> = calls.map(|caller| places.take(caller)).collect();
        let refused = results.iter().rev().find_map(|result| result.err());
        (results.iter().filter(|result| result.is_ok()).count(), refused)
    }

    #[test]
    fn two_addresses_hold_few_places_and_members_get_theirs() {
        let mut places = Places::new(64, 32);
        for last in [1, 2] {
            let calls = (0..100).map(|_| stranger(v4(203, 0, 113, last), true));
            assert_eq!(take(&mut places, calls), (4, Some(Refusal::Host)));
        }
        // Nor does a whole network, or a hundred.
        let calls = (3..200).map(|last| stranger(v4(203, 0, 113, last), true));
        assert_eq!(take(&mut places, calls), (0, Some(Refusal::Network)));
        let calls = (0..200).map(|n| stranger(v4(198, 51, n, n), true));
        assert_eq!(take(&mut places, calls), (24, Some(Refusal::Total)));
        let calls = (0..40).map(|n| member(v4(192, 0, 2, n), true));
        assert_eq!(take(&mut places, calls), (32, Some(Refusal::Total)));
        assert_eq!(places.taken(), 64);
    }

    #[test]
    fn forged_addresses_take_few_places_from_those_who_answer_a_retry() {
        let mut places = Places::new(64, 32);
        let calls = (0..200).map(|n| stranger(v4(n, 1, 1, 1), false));
        assert_eq!(take(&mut places, calls), (8, Some(Refusal::Unproven)));
        let calls = (0..200).map(|n| member(v4(192, 0, 2, n), false));
        assert_eq!(take(&mut places, calls), (16, Some(Refusal::Unproven)));
        // One address that is forged, of a member and of somebody else.
        let mut lone = Places::new(64, 32);
        for caller in [member(v4(192, 0, 2, 9), false), stranger(v4(203, 0, 113, 9), false)] {
            let (forged, why) = take(&mut lone, (0..99).map(|_| caller));
            assert_eq!((forged, why), (if caller.member { 8 } else { 2 }, Some(Refusal::Unproven)));
            assert!(lone.take(Caller { proven: true, ..caller }).is_ok(), "its owner");
        }
        assert!(places.take(stranger(v4(203, 0, 113, 9), true)).is_ok());
        assert!(places.take(member(v4(192, 0, 2, 250), true)).is_ok());
    }

    #[test]
    fn networks_are_those_of_each_family() {
        let mut places = Places::new(64, 32);
        // One host has a /64, one network a /48; a mapped address is the IPv4 address.
        let v6 = |net: u16, host: u16| IpAddr::from([0x2001, 0xdb8, 1, net, 0, 0, 0, host]);
        let calls = (0..50).map(|n| stranger(v6(1, n), true));
        assert_eq!(take(&mut places, calls), (4, Some(Refusal::Host)));
        let calls = (2..50).map(|net| stranger(v6(net, 1), true));
        assert_eq!(take(&mut places, calls), (4, Some(Refusal::Network)));
        assert!(places.take(stranger([0x2001, 0xdb8, 2, 0, 0, 0, 0, 1].into(), true)).is_ok());
        let mapped = IpAddr::from(Ipv4Addr::new(203, 0, 113, 1).to_ipv6_mapped());
        let calls = [mapped, v4(203, 0, 113, 1)].into_iter().cycle().take(9);
        let calls = calls.map(|address| stranger(address, true));
        assert_eq!(take(&mut places, calls), (4, Some(Refusal::Host)));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_leaves_nothing() {
        let mut places = Places::new(8, 8);
        for round in 0..3 {
            let callers = [member(v4(192, 0, 2, 1), false), stranger(v4(203, 0, 113, 1), true)];
            let taken = callers.map(|caller| places.take(caller).unwrap());
            let of_host = places.of_host(v4(192, 0, 2, 1));
            assert_eq!((places.taken(), of_host), (2, 1), "{round}");
            taken.into_iter().for_each(|place| places.give_back(place));
        }
        assert_eq!(places.taken(), 0);
        assert!(places.hosts.is_empty() && places.networks.is_empty());
    }
}
