//! What changes, and what does not, when an epoch comes and when one goes.

use std::time::Duration;

use fragcast_shredder::GatewayKey;

use super::*;
use crate::delegation::Delegation;
use crate::membership::{Membership, sample};
use crate::schedule::Schedule;

const CHAIN: u64 = 5;
const PATIENCE: Duration = Duration::from_secs(5);

/// Who sends delegations.
fn peer() -> PeerKey {
    PeerKey::from(3)
}

fn gateway(n: u8) -> GatewayKey {
    GatewayKey::from_bytes([n; 32]).unwrap()
}

fn id(n: usize) -> PeerId {
    sample(CHAIN, &[1; 12]).0.members()[n].peer()
}

fn delegation(n: u8, sequence: u64) -> SignedDelegation {
    let key = ed25519_dalek::SigningKey::from_bytes(&[n * 16 + sequence as u8; 32]);
    let (peer, key) = (id(n.into()), key.verifying_key().to_bytes());
    Delegation { chain_id: CHAIN, first: 0, last: u64::MAX, sequence, peer, key }.sign(&gateway(n))
}

/// An epoch of some of twelve members, each gateway with a delegation to the member of its
/// number.
fn epoch(from_block: u64, members: impl IntoIterator<Item = usize>, gateways: &[u8]) -> Epoch {
    let (all, _) = sample(CHAIN, &[1; 12]);
    let members = members.into_iter().map(|n| all.members()[n].clone()).collect();
    let members = Arc::new(Membership::new(CHAIN, members).unwrap());
    let addresses = gateways.iter().map(|n| gateway(*n).address()).collect();
    let schedule = Schedule::new(addresses, 10).unwrap();
    let delegations = gateways.iter().map(|n| delegation(*n, 1));
    Epoch::new(CHAIN, from_block, members, schedule, delegations).unwrap()
}

/// Those of member 0, which begin with members 0 to 5.
fn epochs() -> Epochs {
    Epochs::new(CHAIN, vec![epoch(0, 0..6, &[1, 2])]).unwrap().of_node(id(0)).0
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

#[test]
fn keys_stay_and_places_are_those_of_each_table() {
    let mut epochs = epochs();
    // Members 2 and 3 leave, 8 and 9 join.
    let taken = epochs.take(epoch(100, [0, 1, 4, 5, 8, 9], &[1, 2]), 0, None).unwrap();
    let joined: Vec<(u32, PeerId)> =
        taken.joined.iter().map(|(key, id)| (key.number(), *id)).collect();
    assert_eq!(joined, [(6, id(8)), (7, id(9))]);
    let view = epochs.view().clone();
    for block in [5, 100] {
        let living = epochs.at(block).unwrap();
        for (index, member) in (0..).zip(living.epoch().members().members()) {
            let key = living.key(index);
            assert_eq!(view.peers().peer(key), Some(member.peer()));
            assert_eq!(living.index(key), Some(index));
        }
    }
    let key = |n| view.peers().key(&id(n)).unwrap();
    let places = |block| [0, 2, 4, 9].map(|n| epochs.at(block).unwrap().index(key(n)));
    assert_eq!(places(99), [Some(0), Some(2), Some(4), None]);
    assert_eq!(places(100), [Some(0), None, Some(2), Some(5)]);
    assert_eq!(epochs.at(100).unwrap().index(PeerKey::from(1 << 18)), None, "another generation");
    assert_eq!([5, 100].map(|block| epochs.at(block).unwrap().me()), [Some(0), Some(0)]);
}

#[test]
fn delegations_go_into_every_epoch_that_has_the_gateway() {
    let mut epochs = epochs();
    epochs.take(epoch(100, 0..6, &[2, 3]), 0, None).unwrap();
    epochs.take(epoch(200, 0..6, &[3, 4]), 0, None).unwrap();
    let before = epochs.view().clone();
    epochs.learn(at(0), peer(), delegation(3, 2)).unwrap();
    assert!(!Arc::ptr_eq(&before, epochs.view()), "drivers are told");
    let sequences: Vec<Vec<u64>> = epochs
        .iter()
        .map(|living| {
            let all = living.epoch().delegations().iter().map(|l| l.signed.delegation);
            all.filter(|d| d.peer == id(3)).map(|d| d.sequence).collect()
        })
        .collect();
    assert_eq!(sequences, [vec![], vec![2, 1], vec![2, 1]]);
    assert_eq!(epochs.learn(at(0), peer(), delegation(3, 2)), Err(DelegationError::Stale));
    let stranger = DelegationError::NotAGateway(gateway(9).address());
    assert_eq!(epochs.learn(at(0), peer(), delegation(9, 1)), Err(stranger));
    // Of one that only an old epoch knows, what that says counts.
    assert_eq!(epochs.learn(at(0), peer(), delegation(1, 1)), Err(DelegationError::Stale));
    epochs.learn(at(0), peer(), delegation(1, 2)).unwrap();
    // What was learnt goes into an epoch that comes later, and what comes with it into the others.
    let next = epoch(300, 0..6, &[1, 3]);
    let new = delegation(3, 7);
    let with = [new, delegation(1, 1)];
    let members = next.members().clone();
    let next = Epoch::new(CHAIN, 300, members, next.schedule().clone(), with).unwrap();
    let taken = epochs.take(next, 0, None).unwrap();
    assert_eq!(taken.delegations, [new], "the only one that peers do not know");
    let newest = |epoch: &Epoch, n: u8| {
        let all = epoch.delegations().iter().map(|l| l.signed.delegation);
        all.filter(|d| d.peer == id(n.into())).map(|d| d.sequence).max()
    };
    assert_eq!(newest(epochs.newest().epoch(), 1), Some(2));
    assert_eq!(newest(epochs.at(100).unwrap().epoch(), 3), Some(7));
    let plans = |living: &Living| {
        living.epoch().delegations().iter().all(|leader| {
            let key = leader.signed.delegation.key;
            let plan = Plan::configured(CHAIN, key, living.epoch().members());
            living.plans.get(plan.id()).is_some()
        })
    };
    assert!(epochs.iter().all(plans), "each key has its plan");
    let all = epochs.delegations();
    assert!((1..all.len()).all(|n| !all[..n].contains(&all[n])), "each once");
}

#[test]
fn who_signs_delegations_without_end_is_heard_at_a_rate() {
    let mut epochs = epochs();
    let taken = |epochs: &mut Epochs, now, n: u8, sequences: std::ops::Range<u64>| {
        let news = sequences.map(|sequence| epochs.learn(now, peer(), delegation(n, sequence)));
        news.filter(Result::is_ok).count() as u64
    };
    assert_eq!(taken(&mut epochs, at(0), 1, 2..60), NEWS.1);
    assert_eq!(taken(&mut epochs, at(0), 2, 2..4), 2, "another gateway is none the worse");
    assert_eq!(taken(&mut epochs, at(10), 1, 60..80), 1);
    assert_eq!(epochs.learn(at(20), peer(), delegation(1, 60)), Err(DelegationError::Stale));
}

#[test]
fn old_delegations_sent_again_use_up_nothing_of_what_is_new() {
    let mut epochs = epochs();
    // Nine: the first one has had to make room.
    (2..10).for_each(|sequence| epochs.learn(at(0), peer(), delegation(1, sequence)).unwrap());
    for _ in 0..2 * NEWS.1 {
        assert_eq!(epochs.learn(at(0), peer(), delegation(1, 1)), Err(DelegationError::Stale));
    }
    assert_eq!(epochs.learn(at(0), peer(), delegation(1, 10)), Ok(()));
}

#[test]
fn what_cannot_be_an_epoch_changes_nothing() {
    let mut epochs = epochs();
    epochs.take(epoch(100, 0..6, &[1, 2]), 0, None).unwrap();
    let before = epochs.view().clone();
    for from_block in [0, 99, 100] {
        let error = epochs.take(epoch(from_block, 0..9, &[1]), 0, None).unwrap_err();
        assert_eq!(error, EpochError::Order { from_block, newest: 100 });
    }
    let (members, _) = sample(6, &[1]);
    let schedule = Schedule::new(vec![gateway(1).address()], 10).unwrap();
    let foreign = Epoch::new(6, 200, Arc::new(members), schedule, []).unwrap();
    let error = epochs.take(foreign, 0, None).unwrap_err();
    assert_eq!(error, EpochError::Chain { expected: CHAIN, found: 6 });
    // Block 150 is gateway 2's before and gateway 3's after.
    let late = |epochs: &mut Epochs, gateways: &[u8], taken| {
        epochs.take(epoch(140, 0..6, gateways), 90, Some(taken))
    };
    let error = late(&mut epochs, &[1, 3], 155).unwrap_err();
    assert_eq!(error, EpochError::Late { from_block: 140, block: 150 });
    assert!(Arc::ptr_eq(&before, epochs.view()) && epochs.living.len() == 2);
    let mut again = epochs.clone();
    assert_eq!(late(&mut again, &[1, 3], 149).unwrap().changed, Some(150));
    assert_eq!(late(&mut epochs, &[1, 2], 155).unwrap().changed, None, "as before");
}

#[test]
fn three_live_and_the_oldest_makes_room() {
    let mut epochs = epochs();
    for (from_block, first) in [(100, 1), (200, 2)] {
        assert!(
            epochs.take(epoch(from_block, first..6, &[1]), 0, None).unwrap().dropped.is_empty()
        );
    }
    let taken = epochs.take(epoch(300, 3..6, &[1]), 0, None).unwrap();
    let [dropped] = &taken.dropped[..] else { panic!("{taken:?}") };
    assert_eq!((dropped.from_block(), epochs.iter().count()), (0, MAX_EPOCHS));
    assert!(epochs.at(99).is_none());
    // Member 0 is in none of the rest, but it is this node.
    let [left, _] = epochs.leave(std::slice::from_ref(dropped), |_| false);
    assert_eq!(left, [(PeerKey::from(0), id(0))]);
    assert_eq!(epochs.view().peers().key(&id(0)), Some(PeerKey::from(0)));
}

#[test]
fn an_epoch_goes_once_the_window_has_been_past_it_for_long() {
    let mut epochs = epochs();
    assert!(epochs.retire(at(1), [u64::MAX; 2], PATIENCE).is_none(), "the only one stays");
    epochs.take(epoch(100, [0, 1, 8], &[1]), 0, None).unwrap();
    assert!(epochs.retire(at(10), [99; 2], PATIENCE).is_none());
    assert!(epochs.retire(at(11), [100; 2], PATIENCE).is_none());
    // The window comes back: a liar had moved it.
    assert!(epochs.retire(at(13), [50; 2], PATIENCE).is_none());
    assert!(epochs.retire(at(17), [100; 2], PATIENCE).is_none());
    assert!(epochs.retire(at(21), [120; 2], PATIENCE).is_none());
    let gone = epochs.retire(at(22), [120; 2], PATIENCE).unwrap();
    assert_eq!(gone.from_block(), 0);
    assert!(epochs.at(99).is_none() && epochs.view().at(99).is_none());
    let left = epochs.leave(&[gone], |_| false)[0].clone();
    let left: Vec<PeerId> = left.into_iter().map(|(_, peer)| peer).collect();
    assert_eq!(left, [2, 3, 4, 5].map(id));
    let view = epochs.view();
    assert_eq!((view.peers().len(), view.peers().key(&id(2))), (3, None));
    // Their slots go to whoever joins next, under other keys.
    let taken = epochs.take(epoch(200, [0, 10], &[1]), 150, None).unwrap();
    let (key, peer) = taken.joined[0];
    assert_eq!(peer, id(10));
    assert!((2..6).contains(&key.slot()) && key.number() > 1 << 17);
}

#[test]
fn an_epoch_before_another_table_alone_goes_sooner_and_leaves_its_blocks_to_the_next() {
    let mut epochs = epochs();
    let tables = [[0, 1, 2, 3, 8], [0, 2, 3, 8, 9]].map(|members| epoch(0, members, &[1, 2]));
    for (from_block, of) in [(100, &tables[0]), (110, &tables[1])] {
        let members = Arc::clone(of.members());
        let next = epochs.newest().epoch().with_members(from_block, members);
        epochs.take(next, 36, None).unwrap();
    }
    assert!(epochs.retire(at(10), [44, 99], PATIENCE).is_none(), "it has not passed");
    assert!(epochs.retire(at(11), [45, 100], PATIENCE).is_none());
    let gone = epochs.retire(at(16), [46, 101], PATIENCE).unwrap();
    assert_eq!((gone.from_block(), epochs.at(7).unwrap().members()), (0, 5));
    assert_eq!(epochs.view().at(7).unwrap().members().len(), 5, "the next answers for its blocks");
    assert_eq!(epochs.newest().epoch().rotation_from(), 0);
    let [left, _] = epochs.leave(&[gone], |_| false);
    assert_eq!(left.len(), 2, "members 4 and 5");
    // With the next table a leader is no member any more: this one stays for as long as its blocks.
    assert!(epochs.retire(at(20), [53, 117], PATIENCE).is_none());
    assert!(epochs.retire(at(26), [54, 118], PATIENCE).is_none());
    assert!(epochs.retire(at(30), [110, 166], PATIENCE).is_none());
    assert!(epochs.retire(at(35), [110, 166], PATIENCE).is_some());
    // So does one before another list.
    epochs.take(epoch(300, [0, 2, 3, 8, 9], &[1, 2]), 200, None).unwrap();
    assert!(epochs.retire(at(40), [250, 306], PATIENCE).is_none());
    assert!(epochs.retire(at(46), [250, 306], PATIENCE).is_none());
}

#[test]
fn the_same_table_under_another_schedule_keeps_its_places() {
    let mut epochs = epochs();
    epochs.take(epoch(100, 0..6, &[3]), 0, None).unwrap();
    assert!(matches!(epochs.newest().keys, Keys::Same));
    let table = epochs.newest().epoch().members().hash();
    assert_eq!(epochs.of_table(table).count(), 2, "plans of one are plans of the other");
}

#[test]
fn an_epoch_may_take_the_place_of_those_that_have_not_begun() {
    let mut epochs = epochs();
    epochs.take(epoch(100, 0..6, &[1, 2, 3]), 0, None).unwrap();
    epochs.take(epoch(200, 0..7, &[3]), 0, None).unwrap();
    let blocks = |epochs: &Epochs| -> Vec<u64> { epochs.iter().map(Living::first_block).collect() };
    // Block 99 is open: both of them may go, and the first, which has begun, may not.
    let error = epochs.take_above(epoch(0, 0..6, &[1]), 99, 0, Some(99)).unwrap_err();
    assert_eq!(error, EpochError::Order { from_block: 0, newest: 0 });
    let mut moved = epochs.clone();
    let taken = moved.take_above(epoch(130, 0..6, &[1, 2, 3]), 99, 0, Some(99)).unwrap();
    assert_eq!(blocks(&moved), [0, 130]);
    let gone: Vec<u64> = taken.dropped.iter().map(|epoch| epoch.from_block()).collect();
    assert_eq!((gone, taken.changed), (vec![100, 200], Some(100)));
    let left = moved.leave(&taken.dropped, |_| false)[0].clone();
    let left: Vec<PeerId> = left.into_iter().map(|(_, id)| id).collect();
    assert_eq!(left, [id(6)]);
    // Block 150 is open: only the second one may go.
    epochs.take_above(epoch(160, 0..6, &[3]), 150, 80, Some(150)).unwrap();
    assert_eq!(blocks(&epochs), [0, 100, 160]);
}

#[test]
fn a_delegation_that_comes_before_its_gateway_is_kept_for_it() {
    let mut epochs = epochs();
    let stranger = DelegationError::NotAGateway(gateway(3).address());
    assert_eq!(epochs.learn(at(0), peer(), delegation(3, 7)), Err(stranger));
    assert_eq!(epochs.learn(at(0), peer(), delegation(3, 7)), Err(DelegationError::Stale), "kept");
    // The epoch that has the gateway was made by somebody who does not know the delegation.
    let next = epoch(100, 0..6, &[1, 3]);
    let schedule = next.schedule().clone();
    let next = Epoch::new(CHAIN, 100, next.members().clone(), schedule, []).unwrap();
    let taken = epochs.take(next, 0, None).unwrap();
    assert_eq!(taken.delegations, [delegation(3, 7)], "peers are told of it");
    let leader = epochs.newest().epoch().delegations().leader(&gateway(3).address(), 100);
    assert_eq!(leader.unwrap().signed, delegation(3, 7));
    let plan =
        Plan::configured(CHAIN, delegation(3, 7).delegation.key, epochs.newest().epoch().members());
    assert!(epochs.newest().plans.get(plan.id()).is_some());
}

#[test]
fn another_list_of_gateways_leaves_plans_in_force() {
    let mut epochs = epochs();
    let view = Arc::new(PlanView::from_weights(77, &[1; 6]));
    let key = delegation(1, 1).delegation.key;
    let learn = |living: &mut Living| {
        living.plans.learn(gateway(1).address(), (key, 4), view.clone(), bytes::Bytes::new())
    };
    assert!(epochs.iter_mut().all(learn));
    epochs.take(epoch(100, 0..6, &[1, 2, 3]), 0, None).unwrap();
    assert!(epochs.newest().plans.get(77).is_some());
    let new = delegation(3, 1).delegation.key;
    let plan = Plan::configured(CHAIN, new, epochs.newest().epoch().members());
    assert!(epochs.newest().plans.get(plan.id()).is_some(), "and the new gateway has one");
    epochs.take(epoch(200, 0..7, &[1, 2, 3]), 0, None).unwrap();
    assert!(epochs.newest().plans.get(77).is_none(), "it is not of this table");
}
