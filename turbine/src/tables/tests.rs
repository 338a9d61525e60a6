use std::net::SocketAddr;

use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::membership::{RecordBody, canonical, sample};

const CHAIN: u64 = 5;

/// The key of a number.
fn key(n: u32) -> SigningKey {
    SigningKey::from_bytes(&blake3::derive_key("member of tables", &n.to_le_bytes()))
}

fn record(n: u32, sequence: u64, address: &str) -> MemberRecord {
    record_at(n, sequence, &[address])
}

fn record_at(n: u32, sequence: u64, addresses: &[&str]) -> MemberRecord {
    let addresses = addresses.iter().map(|at| at.parse::<SocketAddr>().unwrap().into());
    let body = RecordBody {
        chain_id: CHAIN,
        peer: PeerId(key(n).verifying_key().to_bytes()),
        sequence,
        uplink_kbps: 1_000,
        coordinates: [0; 4],
        addresses: addresses.collect(),
    };
    body.sign(&key(n))
}

fn local(n: u32) -> MemberRecord {
    record(n, 1_700_000_000_000, "127.0.0.1:9300")
}

fn candidate(record: &MemberRecord, reached: bool) -> Candidate<'_> {
    let reached = if reached { Reached::all_of(record) } else { Reached::NONE };
    Candidate { record, reached }
}

fn all(records: &[MemberRecord]) -> impl Iterator<Item = Candidate<'_>> {
    records.iter().map(|record| candidate(record, true))
}

fn weights(of: &[(u32, u64)]) -> Weights {
    of.iter().map(|(n, weight)| (local(*n).body.peer, *weight)).collect()
}

fn none() -> Membership {
    Membership::new(CHAIN, Vec::new()).unwrap()
}

/// Weights of a table by the numbers of its members.
fn told(table: &Membership, of: std::ops::Range<u32>) -> Vec<(u32, u64)> {
    let of = of.filter_map(|n| {
        let index = table.index(&local(n).body.peer)?;
        Some((n, table.get(index).unwrap().weight))
    });
    of.collect()
}

#[test]
fn those_with_weight_come_first_and_nobody_comes_who_was_not_reached() {
    let records: Vec<MemberRecord> = (0..6).map(local).collect();
    let weights = weights(&[(1, 5), (3, 9), (4, 5), (99, 7)]);
    let compose = |reached: &[u32], before: &Membership, max| {
        let candidates =
            records.iter().zip(0..).map(|(record, n)| candidate(record, reached.contains(&n)));
        compose(CHAIN, candidates, &weights, before, max).unwrap()
    };
    let one = compose(&[0, 1, 3, 4], &none(), 10);
    assert_eq!(told(&one, 0..6), [(0, 0), (1, 5), (3, 9), (4, 5)], "2 and 5 were not reached");
    // Nor is anybody called at an address that is not his because he has weight.
    assert_eq!(told(&compose(&[0, 1], &none(), 10), 0..6), [(0, 0), (1, 5)]);
    // Who is a member already need not be reached again.
    let with_two = compose(&[0, 1, 2, 3, 4], &none(), 10);
    assert_eq!(told(&compose(&[], &with_two, 10), 0..6).len(), 5);
    // The heaviest come first, whoever they are.
    let two = compose(&[0, 1, 2, 3, 4, 5], &none(), 2);
    assert_eq!(two.len(), 2);
    assert!(told(&two, 0..6).contains(&(3, 9)));
}

#[test]
fn a_renewed_record_makes_no_other_table() {
    let old: Vec<MemberRecord> = (0..4).map(local).collect();
    let before = compose(CHAIN, all(&old), &Weights::new(), &none(), 10).unwrap();
    let new: Vec<MemberRecord> =
        (0..4).map(|n| record(n, 1_800_000_000_000, "127.0.0.1:9300")).collect();
    let after = compose(CHAIN, all(&new), &Weights::new(), &before, 10).unwrap();
    assert_eq!(after.hash(), before.hash());
    let moved = record(2, 1_800_000_000_000, "127.0.0.1:9301");
    let all_new: Vec<MemberRecord> = new[..2].iter().cloned().chain([moved]).collect();
    let after = compose(CHAIN, all(&all_new), &Weights::new(), &before, 10).unwrap();
    assert_eq!(after.len(), 3);
    let index = after.index(&local(2).body.peer).unwrap();
    assert_eq!(after.get(index).unwrap().record.body.sequence, 1_800_000_000_000);
    // Until it was reached there it stays where it was: all would call where it says that it is.
    let claims = all_new.iter().map(|record| Candidate { record, reached: Reached::NONE });
    let stays = compose(CHAIN, claims, &Weights::new(), &before, 10).unwrap();
    assert_eq!(stays.get(stays.index(&local(2).body.peer).unwrap()).unwrap().record, local(2));
}

#[test]
fn of_a_record_those_addresses_count_at_which_its_member_was_reached() {
    let (four, six, far) = ("203.0.113.1:9300", "[2001:db8::1]:9300", "198.51.100.7:9300");
    let at = |address: &str| -> SocketAddr { address.parse().unwrap() };
    let make = |record: &MemberRecord, reached: &[&str], before: &Membership| {
        let is = |of: SocketAddr| reached.iter().any(|reached| at(reached) == of);
        let candidate = Candidate { record, reached: Reached::at(record, is) };
        compose(CHAIN, [candidate], &Weights::new(), before, 10).unwrap()
    };
    let dialled = |table: &Membership| -> Vec<SocketAddr> {
        table.members().iter().flat_map(Member::addresses).collect()
    };
    let both = record_at(0, 1, &[four, six]);
    assert!(make(&both, &[], &none()).is_empty());
    // A leader without IPv6, or a member whose IPv6 does not work: it is a member all the same.
    let first = make(&both, &[four], &none());
    assert_eq!(dialled(&first), [at(four)]);
    assert_eq!(first.members()[0].record, both, "as its member signed it");
    let bytes = encode(&first);
    assert_eq!(decode(CHAIN, &first.hash(), &bytes, |_| false), Ok(first.clone()));
    // The next leader has IPv6, and the one after it has not.
    let second = make(&both, &[six], &first);
    assert_eq!(dialled(&second), [at(four), at(six)]);
    assert_ne!(first.hash(), second.hash());
    assert_eq!(make(&both, &[four], &second).hash(), second.hash());
    assert_eq!(second.hash(), Membership::new(CHAIN, vec![Member::new(both, 0)]).unwrap().hash());
    // Who says that it is elsewhere as well is called where it was.
    let more = record_at(0, 2, &[far, four, six]);
    assert_eq!(dialled(&make(&more, &[], &second)), [at(four), at(six)]);
    let third = make(&more, &[six], &second);
    assert_eq!(dialled(&third), [at(four), at(six)], "and not where nobody has found it");
    assert_eq!(dialled(&make(&more, &[far], &third)), [at(far), at(four), at(six)]);
    // An address that its record has not counts nowhere.
    let (mut strange, bits) = (first.members()[0].clone(), [0, 4, 0xff]);
    for byte in bits {
        strange.reached = Reached::from_byte(byte);
        let refused = Err(MembershipError::Addresses(strange.peer()));
        assert_eq!(Membership::new(CHAIN, vec![strange.clone()]), refused);
        let forged = Membership::of_verified(CHAIN, vec![strange.clone()], |_| true).unwrap();
        assert_eq!(decode(CHAIN, &forged.hash(), &encode(&forged), |_| true), refused);
    }
    let scoped: SocketAddr = "[::ffff:203.0.113.1%3]:9300".parse().unwrap();
    assert_eq!(canonical(scoped), at(four));
}

#[test]
fn one_network_of_addresses_has_its_share_of_those_without_weight() {
    let at = |n: u32, net: u8| record(n, 1, &format!("203.0.{net}.{}:9300", n % 250 + 1));
    let records: Vec<MemberRecord> =
        (0..40).map(|n| at(n, 1)).chain((40..50).map(|n| at(n, 2))).collect();
    let table = compose(CHAIN, all(&records), &Weights::new(), &none(), 100).unwrap();
    assert_eq!(table.len(), MAX_OF_PREFIX + 10);
    let heavy = weights(&(0..40).map(|n| (n, 1)).collect::<Vec<_>>());
    assert_eq!(compose(CHAIN, all(&records), &heavy, &none(), 100).unwrap().len(), 50);
    // Such a table of another leader's is not taken, by whoever does not have it yet.
    let members = records.iter().map(|r| Member::new(r.clone(), 0));
    let lie = Membership::new(CHAIN, members.collect()).unwrap();
    let known =
        Known { before: &none(), weights: None, connected: &[], max: 100, latest: u64::MAX };
    assert_eq!(judge(&lie, &known), Err(Unfit::Prefix));
    assert_eq!(judge(&table, &known), Ok(()));
    for exempt in
        ["10.1.2.3", "127.0.0.1", "192.168.1.1", "169.254.0.1", "::1", "fd00::1", "fe80::1"]
    {
        assert_eq!(Prefix::of(exempt.parse().unwrap()), None, "{exempt}");
    }
    let v6 = Prefix::of("2001:db8:1:2::3".parse().unwrap());
    assert_eq!(v6, Prefix::of("2001:db8:1:ffff::4".parse().unwrap()));
    assert_ne!(v6, Prefix::of("2001:db8:2::3".parse().unwrap()));
    assert_eq!(Prefix::of("::ffff:203.0.1.1".parse().unwrap()), Some(Prefix::V4([203, 0, 1])));
}

#[test]
fn each_first_block_has_one_leader() {
    for term in [1, 3, 7, 8, 10, 30, 1_000] {
        for block in 0..200 {
            let Some(from) = first_block(block / term * term, term) else { panic!() };
            assert_eq!(naming_block(from, term), Some(block / term * term));
            assert!(from > block / term * term + crate::protocol::WINDOW_FUTURE);
        }
    }
    assert_eq!(naming_block(31, 30), None);
    assert_eq!(naming_block(0, 30), None);
    assert_eq!(naming_block(u64::MAX, 1), Some(u64::MAX - 8));
}

#[test]
fn a_leader_that_throws_out_who_is_there_or_gives_weight_to_its_own_is_not_followed() {
    let heavy = weights(&(0..20).map(|n| (n, 10)).collect::<Vec<_>>());
    let records: Vec<MemberRecord> = (0..21).map(local).collect();
    let before = compose(CHAIN, all(&records[..20]), &heavy, &none(), 100).unwrap();
    let peers: Vec<PeerId> = records.iter().map(|record| record.body.peer).collect();
    let known = Known {
        before: &before,
        weights: Some(&heavy),
        connected: &peers[..20],
        max: 100,
        latest: u64::MAX,
    };
    let without = |gone: std::ops::Range<usize>| {
        let kept: Vec<MemberRecord> = records
            .iter()
            .enumerate()
            .filter(|(n, _)| !gone.contains(n))
            .map(|(_, r)| r.clone())
            .collect();
        compose(CHAIN, all(&kept), &heavy, &before, 100).unwrap()
    };
    assert_eq!(judge(&without(0..2), &known), Ok(()), "a tenth may be a misunderstanding");
    assert_eq!(judge(&without(0..3), &known), Err(Unfit::Omits { omitted: 30, total: 200 }));
    // Of those who are gone nobody is missed.
    let gone = Known { connected: &peers[10..20], ..known };
    assert_eq!(judge(&without(0..10), &gone), Ok(()));
    // Who is connected to few of many counts those: it could refuse nothing else.
    let few = Known { connected: &peers[..2], ..known };
    assert_eq!(judge(&without(1..20), &few), Err(Unfit::Omits { omitted: 10, total: 20 }));
    // A record from the future would never die.
    let soon = Known { latest: records[0].body.sequence - 1, ..known };
    let future = judge(&before, &soon);
    assert!(matches!(future, Err(Unfit::Future(_))), "{future:?}");
    // What those weigh who are in neither table is no measure of a lie.
    let mut asleep = heavy.clone();
    asleep.insert(PeerId([0xaa; 32]), 1_000_000);
    let known_asleep = Known { weights: Some(&asleep), ..known };
    let mut lie = heavy.clone();
    lie.insert(peers[20], 100);
    let lie = compose(CHAIN, all(&records), &lie, &before, 100).unwrap();
    assert!(matches!(judge(&lie, &known_asleep), Err(Unfit::Weights { .. })));
    let mut more = heavy.clone();
    *more.get_mut(&peers[0]).unwrap() += 20;
    let inflated = compose(CHAIN, all(&records), &more, &before, 100).unwrap();
    assert_eq!(judge(&inflated, &known), Ok(()), "a tenth may be news");
    more.insert(peers[20], 1);
    let inflated = compose(CHAIN, all(&records), &more, &before, 100).unwrap();
    assert_eq!(judge(&inflated, &known), Err(Unfit::Weights { differ: 21, total: 200 }));
    // Without a source of its own a node goes by the weights that it had.
    let no_source = Known { weights: None, ..known };
    assert!(judge(&inflated, &no_source).is_err());
    // A newcomer knows nothing.
    let newcomer =
        Known { before: &none(), weights: None, connected: &peers, max: 100, latest: u64::MAX };
    assert_eq!(judge(&inflated, &newcomer), Ok(()));
    assert_eq!(judge(&inflated, &Known { max: 20, ..newcomer }), Err(Unfit::TooMany(21)));
}

/// Where nobody has weight a leader could fill a table with inventions and say that it was full.
#[test]
fn a_full_table_keeps_those_who_are_members() {
    let records: Vec<MemberRecord> = (0..40).map(local).collect();
    let mut by_id = records.clone();
    by_id.sort_by_key(|record| std::cmp::Reverse(record.body.peer));
    // Members with the highest ids, and newcomers below them.
    let before = compose(CHAIN, all(&by_id[..20]), &Weights::new(), &none(), 20).unwrap();
    let table = compose(CHAIN, all(&by_id), &Weights::new(), &before, 20).unwrap();
    assert_eq!(table.hash(), before.hash());
    let peers: Vec<PeerId> = records.iter().map(|record| record.body.peer).collect();
    let known =
        Known { before: &before, weights: None, connected: &peers, max: 20, latest: u64::MAX };
    let invented = compose(CHAIN, all(&by_id[20..]), &Weights::new(), &none(), 20).unwrap();
    assert_eq!(judge(&invented, &known), Err(Unfit::Omits { omitted: 20, total: 20 }));
}

/// Whoever is asked for a table could answer with another, and have the true one refused.
#[test]
fn bytes_that_are_another_table_are_malformed_whatever_is_wrong_with_them() {
    let (table, _) = sample(CHAIN, &[3, 2, 1]);
    let first = &table.members()[0];
    let row = || Row { record: first.record.clone(), weight: 3, reached: 1 };
    let twice = codec::encode(&vec![row(), row()]);
    let malformed = Err(MembershipError::Decode(codec::DecodeError::Malformed));
    assert_eq!(decode(CHAIN, &table.hash(), &twice, |_| false), malformed);
    let elsewhere = encode(&sample(CHAIN + 1, &[3, 2, 1]).0);
    assert_eq!(decode(CHAIN, &table.hash(), &elsewhere, |_| false), malformed);
}

#[test]
fn where_nobody_has_weight_members_are_counted() {
    let records: Vec<MemberRecord> = (0..21).map(local).collect();
    let table =
        |n: usize| compose(CHAIN, all(&records[..n]), &Weights::new(), &none(), 100).unwrap();
    let before = table(20);
    let peers: Vec<PeerId> = records.iter().map(|record| record.body.peer).collect();
    let known =
        Known { before: &before, weights: None, connected: &peers, max: 100, latest: u64::MAX };
    assert_eq!(judge(&table(18), &known), Ok(()));
    assert_eq!(judge(&table(17), &known), Err(Unfit::Omits { omitted: 3, total: 20 }));
    assert_eq!(judge(&table(21), &known), Ok(()), "newcomers are welcome");
    let one = vec![Member::new(records[20].clone(), 1)];
    let members = before.members().iter().cloned().chain(one).collect();
    let weighed = Membership::new(CHAIN, members).unwrap();
    assert_eq!(judge(&weighed, &known), Err(Unfit::Weights { differ: 1, total: 0 }));
}

#[test]
fn a_table_is_read_back_and_a_false_one_is_not() {
    let (table, _) = sample(CHAIN, &[3, 2, 1]);
    let bytes = encode(&table);
    let strange = |_: &MemberRecord| false;
    assert_eq!(decode(CHAIN, &table.hash(), &bytes, strange), Ok(table.clone()));
    assert!(decode(CHAIN, &[7; 32], &bytes, strange).is_err());
    for at in (0..bytes.len()).step_by(7) {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(decode(CHAIN, &table.hash(), &bad, strange).is_err(), "byte {at}");
    }
    let mut claims = bytes;
    claims[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(decode(CHAIN, &table.hash(), &claims, strange).is_err());
    // A leader that names a record which its member has not signed.
    let mut members = table.members().to_vec();
    members[0].record.signature[0] ^= 1;
    let forged = Membership::of_verified(CHAIN, members, |_| true).unwrap();
    let read = decode(CHAIN, &forged.hash(), &encode(&forged), strange);
    assert!(matches!(read, Err(MembershipError::Signature(_))));
}

#[test]
fn the_longest_table_is_sent_in_as_many_parts_as_are_allowed() {
    let longest = 8 + MAX_SPREAD * (MemberRecord::MAX_LEN + 9);
    assert_eq!(longest, MAX_TABLE_LEN);
    const { assert!(crate::control::MAX_TABLE_PARTS <= 64) };
    let (table, _) = sample(CHAIN, &[1; 9]);
    let one = MemberRecord::MAX_LEN - 3 * 18 + 9;
    assert_eq!(encode(&table).len(), 8 + 9 * one);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whoever has the same records and weights makes the same table, in whatever order they came.
    #[test]
    fn two_nodes_with_one_pool_make_one_table(
        of in proptest::collection::vec((0..60u32, 0..5u64, any::<bool>()), 1..40),
        max in 1usize..50,
        turn: usize,
    ) {
        let mut of = of;
        of.sort_unstable_by_key(|(n, ..)| *n);
        of.dedup_by_key(|(n, ..)| *n);
        let records: Vec<(MemberRecord, bool)> = of.iter().map(|(n, _, reached)| (local(*n), *reached)).collect();
        let weights: Weights = of.iter().map(|(n, weight, _)| (local(*n).body.peer, *weight)).collect();
        let make = |records: &[(MemberRecord, bool)]| {
            let all = records.iter().map(|(record, reached)| candidate(record, *reached));
            compose(CHAIN, all, &weights, &none(), max).unwrap()
        };
        let one = make(&records);
        let mut turned = records.clone();
        let by = turn % turned.len();
        turned.rotate_left(by);
        prop_assert_eq!(one.hash(), make(&turned).hash());
        prop_assert!(one.len() <= max);
        for (record, reached) in &records {
            let weight = weights[&record.body.peer];
            if let Some(index) = one.index(&record.body.peer) {
                prop_assert_eq!(one.get(index).unwrap().weight, weight);
                prop_assert!(weight > 0 || *reached);
            }
        }
        // Its maker takes it.
        let peers: Vec<PeerId> = records.iter().map(|(record, _)| record.body.peer).collect();
        let known = Known { before: &none(), weights: Some(&weights), connected: &peers, max, latest: u64::MAX };
        prop_assert_eq!(judge(&one, &known), Ok(()));
    }
}
