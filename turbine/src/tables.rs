//! Which members make the next table, and which tables a node takes.
//!
//! ```text
//! term of naming_block                                                │ term of first block
//! its leader: records + weights ─▶ table, named ─▶ who lacks it asks ─▶ │ first block: in effect
//! ```
//!
//! The leader of a term makes the table of one later block ([`first_block`] of the term's own first),
//! so of each first block exactly one leader may speak. It makes it by [`compose`], of the records
//! that are alive and the weights, and tells its hash. Every other node judges it ([`judge`]) by what
//! it knows itself, and keeps the table that it has if the new one gives weights that it does not
//! know of, or leaves out peers that it is talking to. So a leader that is to lose its stake cannot
//! throw out those who outvote it.
//!
//! A record is its member's word, and what a table says everybody dials. So a table says of each record
//! which addresses count: those at which its leader has reached the member, and those that counted
//! before. A leader that cannot reach an address, such as one without IPv6, leaves it out, and the
//! member is one all the same; another leader adds it.
//!
//! A table changes only if its members, their weights, addresses or rates do. The record of a member
//! that renews it every minute stays the one that the table before has; else there were another
//! table with every term, and other plans.
//!
//! Rejected: a table that all nodes make by themselves, without a leader that names it. Records reach
//! nodes at different moments, so no two pools are equal for long, and what a table is worth is that
//! all have the same.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use fragcast_shredder::codec;

use crate::membership::{Member, MemberRecord, Membership, MembershipError, Reached, is_private};
use crate::peer::PeerId;
use crate::rotation::first_block;

/// Members of a table that is spread at most.
pub const MAX_SPREAD: usize = 4_096;
/// Bytes of the encoding of a table at most: 0.9 MB.
pub const MAX_TABLE_LEN: usize = 8 + MAX_SPREAD * (MemberRecord::MAX_LEN + 9);
/// Members without weight whose addresses are in one /24 (IPv4) or /48 (IPv6), at most. Loopback and
/// private networks are exempt: networks for development live there.
pub const MAX_OF_PREFIX: usize = 16;
/// The share of the weight, one in so many, by which a table may differ from what a node knows.
const TOLERATED: u128 = 10;

/// Weights by peer. Who is not listed has none.
pub type Weights = BTreeMap<PeerId, u64>;

/// A network of addresses of which few members without weight may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prefix {
    /// A /24.
    V4([u8; 3]),
    /// A /48.
    V6([u8; 6]),
}

impl Prefix {
    /// The prefix of an address; `None` for one of a loopback, private or link-local network.
    pub fn of(ip: IpAddr) -> Option<Self> {
        if is_private(ip) {
            return None;
        }
        Some(match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Self::V6([a, b, c, d, e, f])
            }
        })
    }

    /// Those of some addresses, each once.
    pub fn of_all(addresses: impl Iterator<Item = SocketAddr>) -> impl Iterator<Item = Self> {
        let all = addresses.filter_map(|address| Self::of(address.ip()));
        all.collect::<std::collections::BTreeSet<_>>().into_iter()
    }
}

/// How many members without weight each network of addresses has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prefixes(BTreeMap<Prefix, u16>);

impl Prefixes {
    /// Whether one more with these addresses fits.
    pub(crate) fn fits(&self, addresses: impl Iterator<Item = SocketAddr>) -> bool {
        Prefix::of_all(addresses)
            .all(|prefix| self.0.get(&prefix).is_none_or(|n| usize::from(*n) < MAX_OF_PREFIX))
    }

    /// Counts a member.
    pub(crate) fn add(&mut self, addresses: impl Iterator<Item = SocketAddr>) {
        Prefix::of_all(addresses).for_each(|prefix| *self.0.entry(prefix).or_default() += 1);
    }

    /// A member that was counted is gone.
    pub(crate) fn remove(&mut self, addresses: impl Iterator<Item = SocketAddr>) {
        for prefix in Prefix::of_all(addresses) {
            if let Some(n) = self.0.get_mut(&prefix) {
                *n -= 1;
                if *n == 0 {
                    self.0.remove(&prefix);
                }
            }
        }
    }
}

/// A record that may become a member.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The newest record that is alive.
    pub record: &'a MemberRecord,
    /// The addresses at which a handshake with its key has succeeded.
    pub reached: Reached,
}

/// A record, and which of its addresses count.
type Place<'a> = (&'a MemberRecord, Reached);

/// Whether two records of one peer differ in anything but when they were made.
fn says_the_same(one: &MemberRecord, other: &MemberRecord) -> bool {
    let (one, other) = (&one.body, &other.body);
    one.addresses == other.addresses && one.uplink_kbps == other.uplink_kbps
}

/// The table of these candidates: those with weight, the heaviest first, then those without who are
/// members of `before` already, then those without who were reached; each by rising peer id, `max` in
/// all. Addresses count at which a candidate was reached, and those of a member that did before. A member
/// that says that it is elsewhere stays where it was until it was reached there.
///
/// # Errors
/// [`MembershipError`], of a record for another chain alone.
pub fn compose<'a>(
    chain_id: u64,
    candidates: impl IntoIterator<Item = Candidate<'a>>,
    weights: &Weights,
    before: &Membership,
    max: usize,
) -> Result<Membership, MembershipError> {
    let of_before = |peer: &PeerId| before.index(peer).and_then(|index| before.get(index));
    let known = |record: &MemberRecord| of_before(&record.body.peer);
    let (mut weighed, mut others): (Vec<(u64, Place<'_>)>, Vec<Place<'_>>) =
        (Vec::new(), Vec::new());
    for Candidate { record, reached } in candidates {
        // Everybody calls the addresses of a member: they are to be its own.
        let place = match known(record) {
            None if reached.is_none() => continue,
            None => (record, reached),
            Some(old) => match old.record.body.addresses != record.body.addresses {
                true if reached.is_none() => (&old.record, old.reached),
                _ => (record, reached.and(old.reached.carried(&old.record, record))),
            },
        };
        match weights.get(&record.body.peer).copied().unwrap_or(0) {
            0 => others.push(place),
            weight => weighed.push((weight, place)),
        }
    }
    let max = max.min(MAX_SPREAD);
    weighed.sort_by_key(|(weight, (record, _))| (std::cmp::Reverse(*weight), record.body.peer));
    weighed.truncate(max);
    others.sort_by_key(|(record, _)| (known(record).is_none(), record.body.peer));
    let mut prefixes = Prefixes::default();
    let room = max - weighed.len();
    let fits = |(record, reached): &Place<'_>| {
        // Who is a member stays one.
        let fits = known(record).is_some() || prefixes.fits(reached.addresses(record));
        if fits {
            prefixes.add(reached.addresses(record));
        }
        fits
    };
    let others: Vec<(u64, Place<'_>)> =
        others.into_iter().filter(fits).take(room).map(|place| (0, place)).collect();
    let members = weighed.into_iter().chain(others).map(|(weight, (record, reached))| {
        let same = known(record).filter(|member| says_the_same(&member.record, record));
        let record = same.map_or(record, |member| &member.record);
        Member { record: record.clone(), weight, reached }
    });
    Membership::of_verified(chain_id, members.collect(), |_| true)
}

/// The block whose leader names the table that holds from `from_block` on: the first of a term; `None`
/// if no leader's table begins there.
pub fn naming_block(from_block: u64, blocks_per_term: u64) -> Option<u64> {
    if !from_block.is_multiple_of(blocks_per_term) {
        return None;
    }
    // Terms are longer than the window, or several of them are in it.
    let apart = first_block(0, blocks_per_term)?;
    from_block.checked_sub(apart)
}

/// What a node knows by itself, by which it judges a table.
#[derive(Debug)]
pub struct Known<'a> {
    /// The table that it has.
    pub before: &'a Membership,
    /// Weights of a source of its own; without one those of [`before`](Self::before) count.
    pub weights: Option<&'a Weights>,
    /// Members that it is connected to and whose record is alive.
    pub connected: &'a [PeerId],
    /// Members of a table at most.
    pub max: usize,
    /// The highest sequence that a record can have now; beyond it its time is yet to come.
    pub latest: u64,
}

/// Why a table is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// It has more members than this node allows.
    #[error("it has {0} members, more than are allowed here")]
    TooMany(usize),
    /// A record that is made in the future, which would outlive all others.
    #[error("the record of {0} is from the future")]
    Future(PeerId),
    /// Too many members without weight are of one network of addresses.
    #[error("more than {MAX_OF_PREFIX} members without weight are of one /24 or /48")]
    Prefix,
    /// Its weights are not those that this node knows.
    #[error("its weights differ by {differ} from those known here, of {total}")]
    Weights {
        /// The sum of the differences.
        differ: u128,
        /// The sum of the weights that are known.
        total: u128,
    },
    /// Members are left out that this node is connected to.
    #[error("it leaves out {omitted} of {total}, of members that are connected here")]
    Omits {
        /// Their weight; their number where nobody has weight.
        omitted: u128,
        /// That of all members of the table before that are connected here.
        total: u128,
    },
    /// Its records or their order.
    #[error(transparent)]
    Membership(#[from] MembershipError),
}

/// Whether a node that knows this takes a table.
///
/// # Errors
/// [`Unfit`].
pub fn judge(table: &Membership, known: &Known<'_>) -> Result<(), Unfit> {
    let Known { before, weights, connected, max, latest } = *known;
    if table.len() > max.min(MAX_SPREAD) {
        return Err(Unfit::TooMany(table.len()));
    }
    let future = table.members().iter().find(|m| m.record.body.sequence > latest);
    if let Some(member) = future {
        return Err(Unfit::Future(member.peer()));
    }
    let mut prefixes = Prefixes::default();
    for member in table.members().iter().filter(|member| member.weight == 0) {
        // Who was a member before stays one: that table was taken.
        if before.index(&member.peer()).is_none() && !prefixes.fits(member.addresses()) {
            return Err(Unfit::Prefix);
        }
        prefixes.add(member.addresses());
    }
    let of_before = |peer: &PeerId| {
        before.index(peer).and_then(|index| before.get(index)).map_or(0, |member| member.weight)
    };
    let own = |peer: &PeerId| match weights {
        Some(weights) => weights.get(peer).copied().unwrap_or(0),
        None => of_before(peer),
    };
    // What those have who are members of neither table says nothing of either.
    let both = before.members().iter().map(Member::peer);
    let new = table.members().iter().map(Member::peer).filter(|peer| before.index(peer).is_none());
    let total: u128 = both.chain(new).map(|peer| u128::from(own(&peer))).sum();
    // Nothing is known of weights by who has no table yet and no source.
    if weights.is_some() || !before.is_empty() {
        let differ = table
            .members()
            .iter()
            .map(|member| u128::from(member.weight.abs_diff(own(&member.peer()))));
        let differ: u128 = differ.sum();
        if differ * TOLERATED > total {
            return Err(Unfit::Weights { differ, total });
        }
    }
    // Of those that it talks to, since of the others it does not know whether they are there.
    let here = || connected.iter().filter(|peer| before.index(peer).is_some());
    let count = |peer: &PeerId| if total == 0 { 1 } else { u128::from(own(peer)) };
    let omitted = here().filter(|peer| table.index(peer).is_none()).map(count).sum::<u128>();
    let total = here().map(count).sum::<u128>();
    if omitted * TOLERATED > total {
        return Err(Unfit::Omits { omitted, total });
    }
    Ok(())
}

/// A member as it is sent.
#[derive(bincode::Encode, bincode::Decode)]
struct Row {
    record: MemberRecord,
    weight: u64,
    reached: u8,
}

/// The encoding of a table: a list of members, each its record, its weight u64, and a byte with a bit
/// for each address that counts, the first in the lowest.
pub fn encode(table: &Membership) -> Vec<u8> {
    let row = |member: &Member| Row {
        record: member.record.clone(),
        weight: member.weight,
        reached: member.reached.to_byte(),
    };
    codec::encode(&table.members().iter().map(row).collect::<Vec<Row>>())
}

/// Decodes a table whose hash is `hash`. Of the records those are verified that are not `known`.
///
/// # Errors
/// [`Unfit::Membership`]; of bytes that are no table, or another one, `Decode`.
pub fn decode(
    chain_id: u64,
    hash: &[u8; 32],
    bytes: &[u8],
    known: impl Fn(&MemberRecord) -> bool,
) -> Result<Membership, MembershipError> {
    let rows: Vec<Row> = codec::decode_exact::<_, { 4 * MAX_TABLE_LEN }>(bytes)?;
    let members = rows.into_iter().map(|Row { record, weight, reached }| {
        let reached = Reached::from_byte(reached);
        Member { record, weight, reached }
    });
    // The hash first: who sends another table causes no work worth mentioning, and nothing that is
    // wrong with it is the fault of the table that was asked for.
    let table = Membership::of_verified(chain_id, members.collect(), |_| true)
        .map_err(|_| codec::DecodeError::Malformed)?;
    if table.hash() != *hash {
        return Err(codec::DecodeError::Malformed.into());
    }
    table.members().iter().try_for_each(Member::check_addresses)?;
    let mut new = table.members().iter().map(|member| &member.record).filter(|r| !known(r));
    new.try_for_each(|record| record.verify(chain_id))?;
    Ok(table)
}

#[cfg(test)]
mod tests;
