//! Places for connections.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::client::{Client, Doing};
use crate::descriptors::{Descriptor, Descriptors};
use crate::memory::Memory;
use crate::stats::{Dropped, PortStats};

/// A connection with a request in process that has kept the node waiting for this long may lose
/// its place to a new one.
const LATE: Duration = Duration::from_secs(1);

/// Places for the connections of a port, in all and by address. When they are taken, an idle
/// connection gives its place to a new one.
#[derive(Debug)]
pub struct Seats {
    most: usize,
    per_address: usize,
    loopback: bool,
    descriptors: Option<Descriptors>,
    memory: Arc<Memory>,
    stats: Arc<PortStats>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    clients: HashMap<u64, Arc<Client>>,
    /// Places of connections whose end was said count no more, though they still close.
    leaving: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place; dropping this frees it.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    client: Arc<Client>,
    _descriptor: Option<Descriptor>,
}

/// What an address is counted under: an IPv6 address with its /64, of which a host has all.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        other => other,
    }
}

impl Seats {
    /// `most` places, `per_address` of them for one address. `loopback`: loopback addresses are
    /// counted like others; behind a proxy on the same machine everybody comes from there.
    pub fn new(
        most: usize,
        per_address: usize,
        loopback: bool,
        descriptors: Option<Descriptors>,
        memory: Arc<Memory>,
        stats: Arc<PortStats>,
    ) -> Arc<Self> {
        let taken = Mutex::default();
        Arc::new(Self { most, per_address, loopback, descriptors, memory, stats, taken })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from `address`.
    ///
    /// # Errors
    /// There is none, and why.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<Seat, Dropped> {
        let network = network(address);
        let mut taken = self.lock();
        let counted = self.loopback || !network.is_loopback();
        if counted
            && taken.by_address.get(&network).is_some_and(|n| *n >= self.per_address)
            && !self.evict(&mut taken, |client| client.network == network)
        {
            return Err(Dropped::Address);
        }
        if taken.clients.len() - taken.leaving >= self.most && !self.evict(&mut taken, |_| true) {
            return Err(Dropped::Full);
        }
        // Those that leave still have a descriptor each: in all there may be twice as many.
        if taken.clients.len() >= self.most.saturating_mul(2) {
            return Err(Dropped::Full);
        }
        let descriptor = match &self.descriptors {
            None => None,
            Some(descriptors) => match descriptors.take() {
                None => {
                    // Its descriptor is free when it has closed.
                    if taken.leaving == 0 {
                        self.evict(&mut taken, |_| true);
                    }
                    return Err(Dropped::Full);
                }
                some => some,
            },
        };
        let client = Arc::new(Client::new(self.memory.next_id(), network));
        taken.clients.insert(client.id, Arc::clone(&client));
        *taken.by_address.entry(network).or_default() += 1;
        drop(taken);
        self.memory.register(&client);
        self.stats.accepted.fetch_add(1, Ordering::Relaxed);
        self.stats.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Seat { seats: Arc::clone(self), client, _descriptor: descriptor })
    }

    /// Ends the connection that is most idle, if there is one: it gives its place away at once.
    pub(crate) fn make_room(&self) -> bool {
        self.evict(&mut self.lock(), |_| true)
    }

    /// Whether connections that gave their place away are still closing.
    pub(crate) fn is_leaving(&self) -> bool {
        self.lock().leaving > 0
    }

    fn evict(&self, taken: &mut Taken, of: impl Fn(&Client) -> bool) -> bool {
        let idle = taken
            .clients
            .values()
            .filter(|client| !client.is_ended() && of(client))
            .filter_map(|client| match client.doing() {
                (Doing::Something, since) if client.late() >= LATE => {
                    Some((Doing::Something, since, client))
                }
                (Doing::Something, _) => None,
                (doing, since) => Some((doing, since, client)),
            })
            .min_by_key(|(doing, since, client)| (*doing, *since, client.id));
        let Some((doing, _, client)) = idle else { return false };
        let reason = if doing == Doing::Something { Dropped::Slow } else { Dropped::Idle };
        if !client.give_place(reason) {
            return false;
        }
        taken.leaving += 1;
        let network = client.network;
        release(&mut taken.by_address, network);
        true
    }
}

fn release(by_address: &mut HashMap<IpAddr, usize>, network: IpAddr) {
    if let Some(n) = by_address.get_mut(&network) {
        *n -= 1;
        if *n == 0 {
            by_address.remove(&network);
        }
    }
}

impl Seat {
    /// The connection.
    pub const fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.memory.forget(&self.client);
        self.seats.stats.connections.fetch_sub(1, Ordering::Relaxed);
        let mut taken = self.seats.lock();
        taken.clients.remove(&self.client.id);
        // Evicted ones have given their place back already.
        if self.client.gave_place() {
            taken.leaving -= 1;
        } else {
            release(&mut taken.by_address, self.client.network);
        }
    }
}
