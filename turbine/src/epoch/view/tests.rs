//! Which epoch answers for a block, and what the peers of all of them are.

use std::sync::Arc;

use super::*;
use crate::delegation::{Delegation, SignedDelegation};
use crate::membership::{Membership, sample};
use crate::schedule::Schedule;
use fragcast_shredder::GatewayKey;

const CHAIN: u64 = 5;

fn gateway(n: u8) -> GatewayKey {
    GatewayKey::from_bytes([n; 32]).unwrap()
}

/// Of gateway `n`, to member `n` of the table.
fn delegation(n: u8, members: &Membership) -> SignedDelegation {
    let key = ed25519_dalek::SigningKey::from_bytes(&[n; 32]).verifying_key().to_bytes();
    let peer = members.members()[usize::from(n)].peer();
    Delegation { chain_id: CHAIN, first: 0, last: u64::MAX, sequence: 1, peer, key }
        .sign(&gateway(n))
}

/// An epoch of the first `members` of a table of twelve, with terms of ten blocks.
fn epoch(from_block: u64, members: std::ops::Range<usize>, gateways: &[u8]) -> Epoch {
    let (all, _) = sample(CHAIN, &[1; 12]);
    let members = Membership::new(CHAIN, all.members()[members].to_vec()).unwrap();
    let schedule =
        Schedule::new(gateways.iter().map(|n| gateway(*n).address()).collect(), 10).unwrap();
    let delegations = gateways.iter().map(|n| delegation(*n, &all));
    Epoch::new(CHAIN, from_block, Arc::new(members), schedule, delegations).unwrap()
}

fn view(epochs: impl IntoIterator<Item = Epoch>) -> EpochsView {
    EpochsView::new(epochs.into_iter().map(Arc::new).collect()).unwrap()
}

#[test]
fn each_block_has_the_epoch_that_began_last() {
    let view = view([epoch(5, 0..8, &[1, 2]), epoch(100, 1..9, &[3]), epoch(200, 2..10, &[4])]);
    let at = |block| view.at(block).map(|epoch| epoch.from_block());
    assert_eq!(
        [4, 5, 99, 100, 199, 200, u64::MAX].map(at),
        [None, Some(5), Some(5), Some(100), Some(100), Some(200), Some(200)]
    );
    assert_eq!(view.gateway(4), None);
    assert_eq!(view.gateway(99), Some(gateway(2).address()));
    assert_eq!(view.gateway(100), Some(gateway(3).address()));
    assert_eq!(view.leader(100).unwrap().gateway, gateway(3).address());
    assert!(view.is_gateway(&gateway(1).address()) && view.is_gateway(&gateway(4).address()));
    assert!(!view.is_gateway(&gateway(9).address()));
    assert_eq!((view.oldest().from_block(), view.newest().from_block()), (5, 200));
}

#[test]
fn peers_are_those_of_all_epochs_and_the_first_table_keeps_its_order() {
    let view = view([epoch(0, 2..8, &[3]), epoch(100, 0..10, &[3])]);
    let first = view.oldest().members().members();
    for (index, member) in (0..).zip(first) {
        assert_eq!(view.peers().key(&member.peer()).unwrap().number(), index);
    }
    assert_eq!((view.peers().len(), view.members().count()), (10, 10));
    for (key, member) in view.members() {
        assert_eq!(view.peers().peer(key), Some(member.peer()));
    }
    assert_eq!(view.member(&PeerId([9; 32])), None);
}

#[test]
fn the_newest_record_of_a_member_counts() {
    let (all, keys) = sample(CHAIN, &[1; 3]);
    let mut newer = all.members().to_vec();
    let mut body = newer[1].record.body.clone();
    body.sequence = 2;
    newer[1].record = body.sign(&keys[1]);
    let schedule = Schedule::new(vec![gateway(1).address()], 10).unwrap();
    let epoch = |from, members: Membership| {
        Epoch::new(CHAIN, from, Arc::new(members), schedule.clone(), []).unwrap()
    };
    let newer = Membership::new(CHAIN, newer).unwrap();
    let view = view([epoch(0, all.clone()), epoch(9, newer)]);
    let sequence = |n: usize| view.member(&all.members()[n].peer()).unwrap().record.body.sequence;
    assert_eq!([sequence(0), sequence(1)], [1, 2]);
}

#[test]
fn the_next_terms_go_on_into_the_next_epoch() {
    let next = |view: &EpochsView, block| {
        view.next_terms(block)
            .map(|(g, first)| ((1..9).find(|n| gateway(*n).address() == g).unwrap(), first))
            .collect::<Vec<(u8, u64)>>()
    };
    let one = view([epoch(0, 0..8, &[1, 2, 3])]);
    assert_eq!(next(&one, 35), [(2, 40), (3, 50)]);
    // The epoch begins within the rotation, and in the middle of a term.
    let two = view([epoch(0, 0..8, &[1, 2, 3]), epoch(45, 0..8, &[4, 5])]);
    assert_eq!(next(&two, 35), [(2, 40), (4, 45), (5, 50)]);
    assert_eq!(next(&two, 15), [(3, 20), (1, 30), (4, 45), (5, 50)]);
    assert_eq!(next(&two, 14), [(3, 20), (1, 30)], "too far ahead");
    assert_eq!(next(&two, 46), [(5, 50)]);
    let later = view([epoch(45, 0..8, &[4, 5])]);
    assert_eq!(next(&later, 7), [(4, 45), (5, 50)], "nothing is known of now");
    let leaders = |block| two.next_leaders(block).map(|l| l.gateway).collect::<Vec<_>>();
    assert_eq!(leaders(35), [2, 4, 5].map(|n| gateway(n).address()));
    assert_eq!(one.next_terms(u64::MAX).count(), 0);
}

#[test]
fn epochs_of_another_chain_or_out_of_order_are_no_view() {
    let of = |epochs: Vec<Epoch>| EpochsView::new(epochs.into_iter().map(Arc::new).collect());
    assert_eq!(of(Vec::new()).unwrap_err(), EpochError::None);
    let order = of(vec![epoch(9, 0..3, &[1]), epoch(9, 0..4, &[1])]).unwrap_err();
    assert_eq!(order, EpochError::Order { from_block: 9, newest: 9 });
    let members = Arc::new(sample(6, &[1]).0);
    let schedule = Schedule::new(vec![gateway(1).address()], 10).unwrap();
    let foreign = Epoch::new(6, 99, members, schedule, []).unwrap();
    let chain = of(vec![epoch(9, 0..3, &[1]), foreign]).unwrap_err();
    assert_eq!(chain, EpochError::Chain { expected: CHAIN, found: 6 });
    let many = (0..5).map(|n| epoch(n * 10, 0..3, &[1])).collect();
    assert_eq!(of(many).unwrap().oldest().from_block(), 20, "the newest three");
}
