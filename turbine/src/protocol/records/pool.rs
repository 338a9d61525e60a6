//! The pool of records: the newest of each peer, verified, alive, within bounds.
//!
//! A record that lives says by its sequence when it was made, in ms since 1970; its node renews it
//! every minute, and without that it leaves the pool after [`life`](crate::protocol::MembersConfig).
//! Records of a network file have small sequences and no age: they are here because the table that
//! a node has names them, and from peers they are taken of those alone whom a table or a weight names.
//!
//! Times are those of the Unix clock.
//!
//! # Bounds
//! [`MAX_RECORDS`] records of 300 bytes from peers: 2.5 MB, beside those of this node's own tables, and
//! [`MAX_OF_PREFIX`](crate::tables::MAX_OF_PREFIX)
//! of a network of addresses among those whom neither a table nor a weight names. When it is full,
//! those give way to the others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::membership::{MemberRecord, Reached, canonical};
use crate::outcome::Outcome;
use crate::peer::PeerId;
use crate::tables::Prefixes;
use crate::time::Timestamp;

/// Records that are kept at most.
pub(in crate::protocol) const MAX_RECORDS: usize = 8_192;
/// Sequences from here on are times: ms since 1970, from September 2001 on.
pub(in crate::protocol) const LIVE: u64 = 1_000_000_000_000;
/// How far ahead of this node's clock a record may be made.
const AHEAD: Duration = Duration::from_secs(60);
/// A peer that could not be reached is tried again after this long.
const PROBE_AGAIN: Duration = Duration::from_secs(60);
/// One that was reached at some of its addresses is called at the others after this long: it is a member
/// without them, and those of a family that this node has not are never reached.
const PROBE_REST: Duration = Duration::from_secs(600);

/// The sequence of a record that is made now.
pub(in crate::protocol) const fn sequence_at(now: Timestamp) -> u64 {
    now.as_micros() / 1_000
}

/// The highest sequence that a record may have.
pub(in crate::protocol) fn latest_at(now: Timestamp) -> u64 {
    sequence_at(now + AHEAD)
}

#[derive(Debug)]
struct Kept {
    record: MemberRecord,
    /// The addresses at which a handshake with its key succeeded.
    reached: Reached,
    probed_at: Option<Timestamp>,
    /// Neither a table nor a weight names it: it is counted in its prefixes.
    counted: bool,
}

/// Whose word a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum Word {
    /// The peer's own, over a connection with its key.
    Own,
    /// Another's.
    Other,
}

/// See the module.
#[derive(Debug)]
pub(in crate::protocol) struct Pool {
    chain_id: u64,
    life: Duration,
    records: BTreeMap<PeerId, Kept>,
    prefixes: Prefixes,
    /// Where the next peers to be called back are looked for: each in its turn.
    next_probe: PeerId,
}

impl Pool {
    pub(in crate::protocol) fn new(chain_id: u64, life: Duration) -> Self {
        let (records, prefixes) = (BTreeMap::new(), Prefixes::default());
        Self { chain_id, life, records, prefixes, next_probe: PeerId([0; 32]) }
    }

    pub(in crate::protocol) fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether a record is alive at `now`.
    fn is_alive(&self, now: Timestamp, record: &MemberRecord) -> bool {
        let sequence = record.body.sequence;
        sequence < LIVE
            || now.since(Timestamp::from_micros(sequence.saturating_mul(1_000))) <= self.life
    }

    /// The record of a peer.
    pub(in crate::protocol) fn get(&self, peer: &PeerId) -> Option<&MemberRecord> {
        self.records.get(peer).map(|kept| &kept.record)
    }

    /// Whether exactly this record is kept, so that its signature is known to be good.
    pub(in crate::protocol) fn contains(&self, record: &MemberRecord) -> bool {
        self.get(&record.body.peer) == Some(record)
    }

    /// All records with the addresses at which their peer was reached, by rising peer id.
    pub(in crate::protocol) fn iter(&self) -> impl Iterator<Item = (&MemberRecord, Reached)> {
        self.records.values().map(|kept| (&kept.record, kept.reached))
    }

    /// Keeps a record that a table of this node's has: its signature was verified with it, and these of
    /// its addresses count.
    /// One that is dead is not kept: a table has the record with which its member came.
    pub(in crate::protocol) fn keep_known(
        &mut self,
        now: Timestamp,
        record: &MemberRecord,
        reached: Reached,
    ) {
        let newer = |kept: &Kept| kept.record.body.sequence < record.body.sequence;
        let in_time = record.body.sequence <= latest_at(now);
        if in_time
            && self.is_alive(now, record)
            && self.records.get(&record.body.peer).is_none_or(newer)
        {
            self.replace(record.clone(), false, reached);
        }
    }

    /// Takes a record that came from a peer. `favoured` says whether a table or a weight names its
    /// peer. Only what would be kept is verified. When the pool is full, one whose peer nobody has
    /// reached gives way to who is favoured and to who speaks for itself.
    pub(in crate::protocol) fn take(
        &mut self,
        now: Timestamp,
        record: MemberRecord,
        favoured: bool,
        word: Word,
    ) -> Outcome {
        let (peer, sequence) = (record.body.peer, record.body.sequence);
        if record.body.chain_id != self.chain_id {
            return Outcome::RecordChain;
        }
        let known = self.records.get(&peer);
        if known.is_some_and(|kept| kept.record.body.sequence >= sequence) {
            return Outcome::RecordOld;
        }
        if sequence < LIVE {
            if !favoured {
                return Outcome::RecordUnwanted;
            }
        } else if sequence > latest_at(now) {
            return Outcome::RecordFuture;
        } else if !self.is_alive(now, &record) {
            return Outcome::RecordDead;
        }
        // Before the signature: a flood of one network is not verified beyond its share.
        let before = known.filter(|kept| kept.counted).map(|kept| kept.record.clone());
        before.iter().for_each(|record| self.prefixes.remove(record.addresses()));
        let fits = favoured || self.prefixes.fits(record.addresses());
        before.iter().for_each(|record| self.prefixes.add(record.addresses()));
        if !fits {
            return Outcome::RecordPrefix;
        }
        let is_new = !self.records.contains_key(&peer);
        let room = !is_new || self.records.len() < MAX_RECORDS;
        let giving_way = match room {
            true => None,
            false if favoured || word == Word::Own => self.least(),
            false => return Outcome::RecordsFull,
        };
        if !room && giving_way.is_none() {
            return Outcome::RecordsFull;
        }
        if record.verify(self.chain_id).is_err() {
            return Outcome::ControlBad;
        }
        giving_way.map(|peer| self.remove(&peer));
        let kept = self.records.get(&peer);
        let reached =
            kept.map_or(Reached::NONE, |kept| kept.reached.carried(&kept.record, &record));
        self.replace(record, !favoured, reached);
        Outcome::Control
    }

    /// Of those whom nothing names the one that was made first, and of these first one that nobody has
    /// reached.
    fn least(&self) -> Option<PeerId> {
        let counted = self.records.iter().filter(|(_, kept)| kept.counted);
        let first =
            counted.min_by_key(|(_, kept)| (!kept.reached.is_none(), kept.record.body.sequence));
        first.map(|(peer, _)| *peer)
    }

    fn replace(&mut self, record: MemberRecord, counted: bool, reached: Reached) {
        let peer = record.body.peer;
        let before = self.remove(&peer);
        let probed_at = before.and_then(|kept| kept.probed_at);
        if counted {
            self.prefixes.add(record.addresses());
        }
        self.records.insert(peer, Kept { record, reached, probed_at, counted });
    }

    fn remove(&mut self, peer: &PeerId) -> Option<Kept> {
        let gone = self.records.remove(peer)?;
        if gone.counted {
            self.prefixes.remove(gone.record.addresses());
        }
        Some(gone)
    }

    /// Forgets who has not renewed its record, and records without age of those whom nothing names any
    /// more, and counts anew who is favoured.
    pub(in crate::protocol) fn expire(
        &mut self,
        now: Timestamp,
        favoured: impl Fn(&PeerId) -> bool,
    ) {
        let life = self.life;
        let mut gone = Vec::new();
        for (peer, kept) in &mut self.records {
            let sequence = kept.record.body.sequence;
            let made = Timestamp::from_micros(sequence.saturating_mul(1_000));
            let favoured = favoured(peer);
            let dead = match sequence < LIVE {
                true => !favoured,
                false => now.since(made) > life,
            };
            if dead {
                gone.push(*peer);
            } else if favoured == kept.counted {
                kept.counted = !favoured;
                match favoured {
                    true => self.prefixes.remove(kept.record.addresses()),
                    false => self.prefixes.add(kept.record.addresses()),
                }
            }
        }
        gone.iter().for_each(|peer| drop(self.remove(peer)));
    }

    /// A handshake with a peer's key has succeeded at an address, as a socket says it.
    pub(in crate::protocol) fn reached(&mut self, peer: &PeerId, address: SocketAddr) {
        if let Some(kept) = self.records.get_mut(peer) {
            let address = canonical(address);
            kept.reached = kept.reached.and(Reached::at(&kept.record, |of| of == address));
        }
    }

    /// Peers that were not reached everywhere and whom nobody has called lately, `most` at most, with
    /// the addresses at which they were not.
    pub(in crate::protocol) fn take_probes(
        &mut self,
        now: Timestamp,
        most: usize,
    ) -> Vec<(PeerId, Vec<SocketAddr>)> {
        let is_due = |(_, kept): &(&PeerId, &Kept)| {
            let again = if kept.reached.is_none() { PROBE_AGAIN } else { PROBE_REST };
            let tried = kept.probed_at.is_some_and(|at| now.since(at) < again);
            let is_all = kept.reached.is_all_of(&kept.record);
            !is_all && kept.record.body.sequence >= LIVE && !tried
        };
        // Round: whoever makes records with low ids without end keeps nobody else waiting.
        let from = self.next_probe;
        let round = self.records.range(from..).chain(self.records.range(..from));
        let due: Vec<PeerId> = round.filter(is_due).map(|(peer, _)| *peer).take(most).collect();
        let after = |peer: &PeerId| {
            let after = (std::ops::Bound::Excluded(*peer), std::ops::Bound::Unbounded);
            self.records.range(after).next().map(|(peer, _)| *peer)
        };
        if let Some(last) = due.last() {
            self.next_probe = after(last).unwrap_or(PeerId([0; 32]));
        }
        let mut probes = Vec::new();
        for peer in due {
            let Some(kept) = self.records.get_mut(&peer) else { continue };
            kept.probed_at = Some(now);
            let rest = Reached::at(&kept.record, |at| {
                kept.reached.addresses(&kept.record).all(|of| of != at)
            });
            probes.push((peer, rest.addresses(&kept.record).collect()));
        }
        probes
    }

    /// A hash of each of so many buckets, a power of two: of the peers in it and their sequences.
    pub(in crate::protocol) fn buckets(&self, count: usize) -> Vec<u32> {
        let mut hashes = vec![0; count];
        let mut of: Option<(usize, blake3::Hasher)> = None;
        let short = |hasher: &blake3::Hasher| {
            let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
            u32::from_le_bytes([a, b, c, d])
        };
        for (peer, kept) in &self.records {
            let bucket = bucket_of(peer, count);
            if of.as_ref().is_none_or(|(current, _)| *current != bucket) {
                if let Some((done, hasher)) = of.take() {
                    hashes[done] = short(&hasher);
                }
                of = Some((bucket, blake3::Hasher::new_derive_key("fragcast 2026 records v1")));
            }
            if let Some((_, hasher)) = &mut of {
                hasher.update(&peer.0);
                hasher.update(&kept.record.body.sequence.to_le_bytes());
            }
        }
        if let Some((done, hasher)) = of {
            hashes[done] = short(&hasher);
        }
        hashes
    }

    /// How many buckets this node asks with: about one a record.
    pub(in crate::protocol) fn bucket_count(&self) -> usize {
        self.records.len().next_power_of_two().clamp(1, crate::control::MAX_BUCKETS)
    }

    /// The records of the buckets that differ from `theirs`, from the `first` bucket on and round,
    /// and no more than so many bytes; whether that is all, and else the bucket to begin with next.
    pub(in crate::protocol) fn differing(
        &self,
        theirs: &[u32],
        first: usize,
        most: usize,
    ) -> (Vec<MemberRecord>, Option<usize>) {
        let count = theirs.len();
        let ours = self.buckets(count);
        let differ: Vec<bool> =
            ours.iter().zip(theirs).map(|(ours, theirs)| ours != theirs).collect();
        let first = first % count;
        let bucket = |record: &MemberRecord| bucket_of(&record.body.peer, count);
        let of_any = self.records.values().map(|kept| &kept.record).filter(|r| differ[bucket(r)]);
        let (later, earlier): (Vec<_>, Vec<_>) = of_any.partition(|record| bucket(record) >= first);
        let (mut records, mut bytes) = (Vec::new(), 0);
        for record in later.into_iter().chain(earlier) {
            bytes += record.encoded_len();
            if bytes > most {
                return (records, Some(bucket(record)));
            }
            records.push(record.clone());
        }
        (records, None)
    }
}

/// The bucket of a peer: by the first bits of its id, so that buckets are ranges of ids.
fn bucket_of(peer: &PeerId, count: usize) -> usize {
    let [a, b, ..] = peer.0;
    (usize::from(u16::from_be_bytes([a, b])) * count) >> 16
}

#[cfg(test)]
mod tests;
