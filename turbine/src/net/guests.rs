//! Places for guests: callers that prove a key and are in no table.
//!
//! Anybody can make keys, so guests are told apart by where they call from: a host (an address, or
//! with IPv6 a /64) has an eighth of the places, a network (a /24 or /48) a quarter, this machine
//! itself all of them. New ones come at a rate, since each costs a change of the table of peers. A
//! guest that was barred takes its host along; members behind it are not asked for. On this machine,
//! which all that run here share, its key alone is barred.
//!
//! Memory: 100 bytes a guest, and 64 bytes for each of at most [`BARRED`] hosts and as many keys.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::places::{host, network};
use crate::bucket::{Bucket, Rate};
use crate::peer::{PeerId, PeerKey};
use crate::time::Timestamp;

/// New guests a second, and at once.
const NEW: (u64, u64) = (32, 128);
/// Hosts that are barred, and keys; of more, those go whose time is up first.
const BARRED: usize = 4_096;

/// Why a caller does not become, or stay, a guest. The text is the reason that its connection is closed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoGuest {
    /// A guest of its host has misbehaved; on this machine, it has itself.
    Barred,
    /// All places are taken, or those of its host or network.
    Full,
    /// There were too many new ones just now.
    Soon,
}

impl NoGuest {
    pub(super) const fn reason(self) -> &'static [u8] {
        match self {
            Self::Barred => b"barred",
            Self::Full => b"no room",
            Self::Soon => b"too many at once",
        }
    }
}

/// The places.
#[derive(Debug)]
pub(super) struct Guests {
    total: usize,
    taken: BTreeMap<PeerKey, IpAddr>,
    hosts: BTreeMap<IpAddr, usize>,
    networks: BTreeMap<IpAddr, usize>,
    rate: Rate,
    new: Bucket,
    barred: Barred<IpAddr>,
    /// Of this machine.
    barred_here: Barred<PeerId>,
}

/// Who is barred, and until when.
#[derive(Debug)]
struct Barred<T>(BTreeMap<T, Timestamp>);

impl<T: Ord + Copy> Barred<T> {
    fn has(&self, now: Timestamp, who: &T) -> bool {
        self.0.get(who).is_some_and(|until| *until > now)
    }

    fn add(&mut self, now: Timestamp, who: T, until: Timestamp) {
        if self.0.len() >= BARRED && !self.0.contains_key(&who) {
            self.0.retain(|_, until| *until > now);
            let first = self.0.iter().min_by_key(|(_, until)| **until).map(|(who, _)| *who);
            if self.0.len() >= BARRED {
                first.map(|first| self.0.remove(&first));
            }
        }
        self.0.insert(who, until);
    }
}

/// Whether an address is this machine's.
fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

impl Guests {
    pub(super) fn new(total: usize) -> Self {
        Self {
            total,
            taken: BTreeMap::new(),
            hosts: BTreeMap::new(),
            networks: BTreeMap::new(),
            rate: Rate::new(NEW.0, Duration::from_secs(1), NEW.1),
            new: Bucket::default(),
            barred: Barred(BTreeMap::new()),
            barred_here: Barred(BTreeMap::new()),
        }
    }

    /// Whether nobody from where a caller calls is let in as a guest; on this machine, whether the
    /// caller is not.
    pub(super) fn is_barred(&self, now: Timestamp, id: &PeerId, address: IpAddr) -> bool {
        match is_local(address) {
            true => self.barred_here.has(now, id),
            false => self.barred.has(now, &host(address)),
        }
    }

    /// Whether there is a place for one more from an address that is not barred, and it may come now.
    ///
    /// # Errors
    /// [`NoGuest`].
    pub(super) fn admit(&mut self, now: Timestamp, address: IpAddr) -> Result<(), NoGuest> {
        if !self.has_room(address) {
            return Err(NoGuest::Full);
        }
        if self.new.take(now, &self.rate, 1) { Ok(()) } else { Err(NoGuest::Soon) }
    }

    fn has_room(&self, address: IpAddr) -> bool {
        let of =
            |counts: &BTreeMap<IpAddr, usize>, at: IpAddr| counts.get(&at).copied().unwrap_or(0);
        let few = of(&self.hosts, host(address)) < (self.total / 8).max(1)
            && of(&self.networks, network(address)) < (self.total / 4).max(1);
        self.taken.len() < self.total && (is_local(address) || few)
    }

    /// A guest takes a place, or keeps the one that it has. Says whether there was one.
    pub(super) fn take(&mut self, peer: PeerKey, address: IpAddr) -> bool {
        if self.taken.contains_key(&peer) {
            return true;
        }
        let has_room = self.has_room(address);
        if has_room {
            self.taken.insert(peer, address);
            *self.hosts.entry(host(address)).or_default() += 1;
            *self.networks.entry(network(address)).or_default() += 1;
        }
        has_room
    }

    /// A peer is no guest any more, if it was one.
    pub(super) fn give_back(&mut self, peer: PeerKey) {
        let Some(address) = self.taken.remove(&peer) else { return };
        for (counts, at) in
            [(&mut self.hosts, host(address)), (&mut self.networks, network(address))]
        {
            if let Some(count) = counts.get_mut(&at) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&at);
                }
            }
        }
    }

    /// A guest has misbehaved: nobody from its host becomes one before `until`; on this machine it
    /// alone does not.
    pub(super) fn bar(&mut self, now: Timestamp, (peer, id): (PeerKey, PeerId), until: Timestamp) {
        match self.taken.get(&peer) {
            Some(address) if is_local(*address) => self.barred_here.add(now, id, until),
            Some(address) => self.barred.add(now, host(*address), until),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(1_000_000_000_000 + ms * 1_000_000)
    }

    fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
        IpAddr::from([a, b, c, d])
    }

    /// How many of those that call from addresses get a place.
    fn admit(guests: &mut Guests, first: u32, calls: impl Iterator<Item = IpAddr>) -> usize {
        let calls = (first..).zip(calls);
        let came = calls.filter(|(n, address)| {
            // One after another, so that the rate is not what decides.
            guests.admit(at(100 * u64::from(*n)), *address).is_ok()
                && guests.take(PeerKey::from(*n), *address)
        });
        came.count()
    }

    #[test]
    fn ten_thousand_callers_get_the_places_there_are_and_no_host_or_network_has_them_all() {
        let mut guests = Guests::new(64);
        assert_eq!(admit(&mut guests, 0, (0..10_000).map(|_| v4(203, 0, 113, 1))), 8, "a host");
        assert_eq!(
            admit(&mut guests, 10_000, (0..200).map(|n| v4(203, 0, 113, n))),
            8,
            "its network"
        );
        let all = (0..10_000u32).map(|n| v4(9, (n >> 8) as u8, n as u8, 1));
        assert_eq!(admit(&mut guests, 20_000, all), 48, "all");
        assert_eq!(guests.admit(at(99_999_999), v4(1, 2, 3, 4)), Err(NoGuest::Full));
        (0..30_000).for_each(|n| guests.give_back(PeerKey::from(n)));
        assert!(guests.hosts.is_empty() && guests.networks.is_empty() && guests.taken.is_empty());
        // This machine is nobody's neighbour.
        assert_eq!(admit(&mut guests, 30_000, (0..99).map(|_| v4(127, 0, 0, 1))), 64);
    }

    #[test]
    fn guests_come_at_a_rate() {
        let mut guests = Guests::new(10_000);
        let hosts = |n: u32| v4((n >> 16) as u8 + 1, (n >> 8) as u8, n as u8, 1);
        let came = (0..10_000).filter(|n| guests.admit(at(0), hosts(*n)).is_ok()).count();
        assert_eq!(came as u64, NEW.1);
        assert_eq!(guests.admit(at(0), hosts(77_777)), Err(NoGuest::Soon));
        assert!(guests.admit(at(1_000), hosts(77_777)).is_ok());
    }

    #[test]
    fn who_is_barred_takes_its_host_along_for_a_time() {
        let mut guests = Guests::new(64);
        let [one, other] = [v4(203, 0, 113, 1), v4(203, 0, 113, 2)];
        let [liar, next] = [PeerId([1; 32]), PeerId([2; 32])];
        assert!(guests.take(PeerKey::from(1), one) && guests.take(PeerKey::from(1), one));
        guests.bar(at(0), (PeerKey::from(1), liar), at(60_000));
        guests.give_back(PeerKey::from(1));
        assert!([liar, next].iter().all(|id| guests.is_barred(at(1), id, one)));
        assert!(
            !guests.is_barred(at(1), &next, other) && !guests.is_barred(at(60_001), &liar, one)
        );
        for n in 0..2 * BARRED as u32 {
            let address = IpAddr::from((n + (9 << 24)).to_be_bytes());
            guests.total = usize::MAX;
            assert!(guests.take(PeerKey::from(n), address));
            guests.bar(at(2), (PeerKey::from(n), liar), at(60_002 + u64::from(n)));
        }
        assert_eq!(guests.barred.0.len(), BARRED);
    }

    #[test]
    fn on_this_machine_who_is_barred_is_so_alone() {
        let mut guests = Guests::new(64);
        let [liar, next] = [PeerId([1; 32]), PeerId([2; 32])];
        for here in [v4(127, 0, 0, 1), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)] {
            assert!(guests.take(PeerKey::from(1), here));
            guests.bar(at(0), (PeerKey::from(1), liar), at(60_000));
            guests.give_back(PeerKey::from(1));
            assert!(guests.is_barred(at(1), &liar, here) && !guests.is_barred(at(1), &next, here));
            assert!(!guests.is_barred(at(60_001), &liar, here));
        }
        assert!(guests.barred.0.is_empty() && guests.barred_here.0.len() == 1);
    }
}
