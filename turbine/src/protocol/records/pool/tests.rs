use ed25519_dalek::SigningKey;

use super::*;
use crate::membership::{MembershipError, RecordBody};
use crate::tables::MAX_OF_PREFIX;

const CHAIN: u64 = 5;
const LIFE: Duration = Duration::from_secs(300);
/// Now, in ms since 1970.
const NOW: u64 = 1_700_000_000_000;

fn now() -> Timestamp {
    Timestamp::from_micros(NOW * 1_000)
}

fn key(n: u32) -> SigningKey {
    SigningKey::from_bytes(&blake3::derive_key("member of a pool", &n.to_le_bytes()))
}

fn id(n: u32) -> PeerId {
    PeerId(key(n).verifying_key().to_bytes())
}

fn at(n: u32, sequence: u64, address: &str) -> MemberRecord {
    at_all(n, sequence, &[address])
}

fn at_all(n: u32, sequence: u64, addresses: &[&str]) -> MemberRecord {
    let addresses = addresses.iter().map(|at| at.parse::<SocketAddr>().unwrap().into());
    let body = RecordBody {
        chain_id: CHAIN,
        peer: id(n),
        sequence,
        uplink_kbps: 1_000,
        coordinates: [0; 4],
        addresses: addresses.collect(),
    };
    body.sign(&key(n))
}

fn local(n: u32, sequence: u64) -> MemberRecord {
    at(n, sequence, "127.0.0.1:9300")
}

fn pool() -> Pool {
    Pool::new(CHAIN, LIFE)
}

#[test]
fn the_newest_record_counts_and_an_old_one_is_not_verified() {
    let mut pool = pool();
    assert_eq!(pool.take(now(), local(1, NOW), false, Word::Other), Outcome::Control);
    for sequence in [NOW, NOW - 1] {
        let mut old = local(1, sequence);
        old.signature[0] ^= 1;
        assert_eq!(pool.take(now(), old, false, Word::Other), Outcome::RecordOld);
    }
    let mut forged = local(1, NOW + 1);
    forged.signature[0] ^= 1;
    assert_eq!(pool.take(now(), forged, false, Word::Other), Outcome::ControlBad);
    assert_eq!(pool.take(now(), local(1, NOW + 1), false, Word::Other), Outcome::Control);
    assert_eq!(pool.get(&id(1)).unwrap().body.sequence, NOW + 1);
    let mut other = local(2, NOW).body;
    other.chain_id = 6;
    assert_eq!(pool.take(now(), other.sign(&key(2)), false, Word::Other), Outcome::RecordChain);
}

#[test]
fn records_of_the_past_and_of_the_future_are_not_taken() {
    let mut pool = pool();
    assert_eq!(pool.take(now(), local(1, NOW - 300_001), false, Word::Other), Outcome::RecordDead);
    assert_eq!(pool.take(now(), local(1, NOW + 60_001), false, Word::Other), Outcome::RecordFuture);
    assert_eq!(pool.take(now(), local(1, u64::MAX), true, Word::Other), Outcome::RecordFuture);
    assert_eq!(pool.take(now(), local(1, NOW - 299_999), false, Word::Other), Outcome::Control);
    assert_eq!(pool.take(now(), local(2, NOW + 60_000), false, Word::Other), Outcome::Control);
    // Without age: of members alone.
    assert_eq!(pool.take(now(), local(3, 7), false, Word::Other), Outcome::RecordUnwanted);
    assert_eq!(pool.take(now(), local(3, 7), true, Word::Other), Outcome::Control);
    assert_eq!(pool.len(), 3);
    let later = now() + Duration::from_secs(2);
    pool.expire(later, |peer| *peer == id(3));
    assert_eq!(pool.len(), 2, "the first was not renewed");
    pool.expire(now() + Duration::from_secs(100_000), |peer| *peer == id(3));
    assert!(pool.get(&id(3)).is_some() && pool.len() == 1, "one without age has none");
    pool.expire(now(), |_| false);
    assert_eq!(pool.len(), 0, "and goes when nothing names it");
}

#[test]
fn a_flood_of_one_network_gets_its_share_and_no_verification_beyond() {
    let mut pool = pool();
    let of = |n: u32, net: u8| at(n, NOW, &format!("203.0.{net}.{}:9300", n % 250 + 1));
    for n in 0..MAX_OF_PREFIX as u32 {
        assert_eq!(pool.take(now(), of(n, 1), false, Word::Other), Outcome::Control);
    }
    let mut flood = of(100, 1);
    flood.signature[0] ^= 1;
    assert_eq!(pool.take(now(), flood, false, Word::Other), Outcome::RecordPrefix);
    assert_eq!(pool.take(now(), of(100, 2), false, Word::Other), Outcome::Control);
    // Members are not counted, and a renewal needs no other place.
    assert_eq!(pool.take(now(), of(101, 1), true, Word::Other), Outcome::Control);
    let renewed = at(0, NOW + 1, "203.0.1.1:9300");
    assert_eq!(pool.take(now(), renewed, false, Word::Other), Outcome::Control);
    // Who becomes a member makes room for another.
    pool.expire(now(), |peer| [id(0), id(101)].contains(peer));
    assert_eq!(pool.take(now(), of(102, 1), false, Word::Other), Outcome::Control);
    assert_eq!(pool.take(now(), of(103, 1), false, Word::Other), Outcome::RecordPrefix);
    // And who moves away.
    assert_eq!(
        pool.take(now(), at(1, NOW + 1, "203.0.9.1:1"), false, Word::Other),
        Outcome::Control
    );
    assert_eq!(pool.take(now(), of(103, 1), false, Word::Other), Outcome::Control);
}

#[test]
fn in_a_full_pool_members_come_first() {
    let mut pool = pool();
    for n in 0..MAX_RECORDS as u32 {
        // As if taken: to sign so many takes longer than the test is worth.
        let mut record = local(0, NOW + u64::from(n));
        record.body.peer = PeerId(blake3::derive_key("stranger", &n.to_le_bytes()));
        pool.replace(record, true, Reached::NONE);
    }
    assert_eq!(pool.take(now(), local(1, NOW), false, Word::Other), Outcome::RecordsFull);
    let first = pool.least().unwrap();
    assert_eq!(pool.take(now(), local(1, NOW), true, Word::Other), Outcome::Control);
    assert!(pool.get(&first).is_none() && pool.len() == MAX_RECORDS);
    let mut forged = local(2, NOW);
    forged.signature[0] ^= 1;
    let first = pool.least().unwrap();
    assert_eq!(pool.take(now(), forged, true, Word::Other), Outcome::ControlBad);
    assert!(pool.get(&first).is_some(), "nobody gives way to a lie");
    // Nor are those kept out who speak for themselves.
    assert_eq!(pool.take(now(), local(3, NOW), false, Word::Own), Outcome::Control);
    assert!(pool.get(&first).is_none() && pool.len() == MAX_RECORDS);
}

#[test]
fn everybody_is_called_back_in_turn() {
    let mut pool = pool();
    (0..30).for_each(|n| pool.replace(local(n, NOW), true, Reached::NONE));
    let mut called = std::collections::BTreeSet::new();
    for look in 0..15 {
        // Whoever makes ever new records with low ids keeps nobody else waiting.
        let mut low = local(0, NOW);
        low.body.peer = PeerId([0, look, 0, 0].repeat(8).try_into().unwrap());
        pool.replace(low, true, Reached::NONE);
        called.extend(pool.take_probes(now(), 3).into_iter().map(|(peer, _)| peer));
    }
    assert!((0..30).all(|n| called.contains(&id(n))), "{} of 30", called.len());
}

#[test]
fn an_address_counts_after_a_handshake_there() {
    let mut pool = pool();
    pool.take(now(), at(1, NOW, "203.0.113.1:9300"), false, Word::Other);
    let reached = |pool: &Pool| pool.iter().all(|(record, reached)| reached.is_all_of(record));
    let probes = pool.take_probes(now(), 5);
    assert_eq!(probes, [(id(1), vec!["203.0.113.1:9300".parse().unwrap()])]);
    assert_eq!(pool.take_probes(now() + Duration::from_secs(59), 5), [], "once a minute");
    assert_eq!(pool.take_probes(now() + Duration::from_secs(60), 5).len(), 1);
    pool.reached(&id(1), "203.0.113.1:9301".parse().unwrap());
    assert!(!reached(&pool), "another port");
    pool.reached(&id(1), "203.0.113.1:9300".parse().unwrap());
    assert!(reached(&pool) && pool.take_probes(now() + LIFE, 5).is_empty());
    pool.take(now(), at(1, NOW + 1, "203.0.113.1:9300"), false, Word::Other);
    assert!(reached(&pool), "renewed at the same address");
    pool.take(now(), at(1, NOW + 2, "203.0.113.2:9300"), false, Word::Other);
    assert!(!reached(&pool), "it says that it has moved");
}

#[test]
fn an_address_that_answers_vouches_for_no_other() {
    let (one, other) = ("203.0.113.1:9300", "198.51.100.7:9300");
    let mut pool = pool();
    let counting = |pool: &Pool| -> Vec<SocketAddr> {
        pool.iter().flat_map(|(record, reached)| reached.addresses(record)).collect()
    };
    let both = [one, other].map(|at| at.parse::<SocketAddr>().unwrap());
    pool.take(now(), at_all(1, NOW, &[one, other]), false, Word::Other);
    assert_eq!(pool.take_probes(now(), 5), [(id(1), both.to_vec())], "all are called");
    pool.reached(&id(1), both[0]);
    assert_eq!(counting(&pool), both[..1]);
    // The other is called again, and seldom.
    assert_eq!(pool.take_probes(now() + PROBE_AGAIN, 5), []);
    assert_eq!(pool.take_probes(now() + PROBE_REST, 5), [(id(1), both[1..].to_vec())]);
    // A renewed record takes along what was reached and no more, in whatever order.
    pool.take(now(), at_all(1, NOW + 1, &[other, one]), false, Word::Other);
    assert_eq!(counting(&pool), both[..1]);
    pool.reached(&id(1), both[1]);
    assert_eq!(counting(&pool).len(), 2);
    assert_eq!(pool.take_probes(now() + 2 * PROBE_REST, 5), []);
}

#[test]
fn an_address_that_an_ipv6_socket_maps_is_that_of_the_record() {
    let mut pool = pool();
    pool.take(now(), at(1, NOW, "203.0.113.1:9300"), false, Word::Other);
    pool.reached(&id(1), "[::ffff:203.0.113.1]:9300".parse().unwrap());
    assert!(pool.iter().all(|(record, reached)| reached.is_all_of(record)));
}

#[test]
fn a_record_with_private_addresses_beside_public_ones_is_none() {
    let public = "203.0.113.1:9300";
    for private in ["127.0.0.1:1", "10.1.2.3:1", "169.254.0.1:1", "[::1]:1", "[fd00::1]:1"] {
        let mut pool = pool();
        let mixed = at_all(1, NOW, &[public, private]);
        assert_eq!(mixed.verify(CHAIN), Err(MembershipError::Mixed(id(1))), "{private}");
        assert_eq!(pool.take(now(), mixed, false, Word::Own), Outcome::ControlBad);
        at_all(1, NOW, &[private, "192.168.0.9:1"]).verify(CHAIN).unwrap();
    }
    at_all(1, NOW, &[public, "[2001:db8::1]:9300"]).verify(CHAIN).unwrap();
}

#[test]
fn only_buckets_that_differ_are_sent_and_a_long_difference_ends() {
    let (mut one, mut other) = (pool(), pool());
    for n in 0..200 {
        one.take(now(), local(n, NOW), false, Word::Other);
        other.take(now(), local(n, NOW), false, Word::Other);
    }
    let buckets = other.buckets(other.bucket_count());
    assert_eq!(buckets.len(), 256);
    assert_eq!(one.differing(&buckets, 7, 64_000), (Vec::new(), None));
    one.take(now(), local(3, NOW + 5), false, Word::Other);
    let (sent, next) = one.differing(&buckets, 7, 64_000);
    assert!(sent.contains(&local(3, NOW + 5)) && sent.len() < 8 && next.is_none());
    // A newcomer with few bytes at a time.
    let mut new = pool();
    let (mut first, mut rounds) = (100, 0);
    while new.len() < one.len() {
        let buckets = new.buckets(new.bucket_count());
        let count = buckets.len();
        let (sent, next) = one.differing(&buckets, (first * count) >> 16, 5_000);
        assert!(sent.iter().map(|record| record.to_bytes().len()).sum::<usize>() <= 5_000);
        sent.into_iter().for_each(|record| _ = new.take(now(), record, false, Word::Other));
        first = next.map_or(first, |next| (next << 16) / count);
        rounds += 1;
        assert!(rounds < 60, "{} of {}", new.len(), one.len());
    }
    assert_eq!(one.buckets(64), new.buckets(64));
}
