//! Encodings, what is refused, and what is remembered.

use std::sync::Arc;

use super::drawn::{DRAW_COST, MAX_DRAWN, Recent};
use super::*;
use crate::membership::sample;

#[test]
fn the_encoding_is_pinned() {
    let (members, keys) = sample(5, &[1, 0, 3]);
    let key = &keys[0];
    let plan = Plan::configured(5, key.verifying_key().to_bytes(), &members);
    assert_eq!(plan.entries, [RELAY, 0, RELAY]);
    assert_eq!(format!("{:016x}", plan.id()), "3b11dc4f189898bc");
    let signed = plan.sign(key);
    assert!(signed.verify());
    let bytes = codec::encode(&signed);
    assert_eq!(SignedPlan::from_bytes(&bytes).unwrap(), signed);
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(!SignedPlan::from_bytes(&bad).is_ok_and(|p| p.verify()), "byte {at}");
    }
}

#[test]
fn without_any_weight_everybody_relays() {
    let (members, _) = sample(5, &[0, 0, 0]);
    let plan = Plan::configured(5, [0; 32], &members);
    let view = PlanView::new(&plan, &members).unwrap();
    assert_eq!((view.relays().len(), view.leaves().len()), (3, 0));
}

#[test]
fn a_plan_of_another_table_is_refused() {
    let (members, _) = sample(5, &[1, 2]);
    let (other, _) = sample(5, &[1, 3]);
    let plan = Plan::configured(5, [0; 32], &members);
    assert_eq!(PlanView::new(&plan, &other).unwrap_err(), PlanError::Table);
    let short = Plan { entries: vec![0], ..plan };
    let error = PlanError::Entries { found: 1, members: 2 };
    assert_eq!(PlanView::new(&short, &members).unwrap_err(), error);
}

#[test]
fn draws_are_remembered_within_a_bound() {
    let view = PlanView::from_weights(1, &[1; 5_000]);
    for round in 0..400u64 {
        let seed = blake3::derive_key("draw", &round.to_le_bytes());
        let one = view.drawn(&seed, None, 1);
        let all = view.drawn(&seed, None, 5_000);
        assert_eq!((one[0], all.len()), (all[0], 5_000));
        assert!(Arc::ptr_eq(&all, &view.drawn(&seed, None, 7)), "not drawn again");
        assert_ne!(view.drawn(&seed, Some(all[0] as usize), 1)[0], all[0]);
        let drawn = view.drawn_for_test();
        assert!(drawn.positions <= MAX_DRAWN && drawn.orders.len() == drawn.age.len());
        assert_eq!(
            drawn.positions,
            drawn.orders.values().map(|o| o.len() + DRAW_COST).sum::<usize>()
        );
    }
}

#[test]
fn the_busiest_share_leaves_the_leader_out() {
    let (members, _) = sample(5, &[50, 10, 20, 20]);
    let view = PlanView::new(&Plan::configured(5, [0; 32], &members), &members).unwrap();
    assert!((view.busiest(0) - 0.8).abs() < 1e-12);
    assert!((view.busiest(3) - 60.0 / 80.0).abs() < 0.2);
}

#[test]
fn deals_are_remembered_within_a_bound() {
    let mut recent = Recent::new(3);
    let seeds: Vec<[u8; 32]> = (0..5).map(|n| [n; 32]).collect();
    for seed in &seeds {
        let made = recent.get(seed, || seed[0]);
        assert!(Arc::ptr_eq(&made, &recent.get(seed, || unreachable!("it is known"))));
        assert!(recent.len() <= 3);
    }
    assert_eq!(*recent.get(&seeds[0], || 77), 77, "the oldest has made room");
}

fn refused(weights: &[u64], entries: &[Entry], roots: &[u32]) -> PlanError {
    PlanView::from_entries(1, weights, entries, roots).unwrap_err()
}

#[test]
fn entries_and_roots_out_of_range_are_refused() {
    let one = Entry { region: 0, territory: 0, relays: true, heads: 1 };
    let entries = [one; 4];
    let weights = [1, 1, 1, 0];
    PlanView::from_entries(1, &weights, &entries, &[Plan::root(0, 6), Plan::root(2, 0)]).unwrap();
    let far = Entry { region: 4, ..one };
    let error = PlanError::Region { found: 4, members: 4 };
    assert_eq!(refused(&weights, &[one, one, one, far], &[]), error);
    let torn = Entry { territory: 1, ..one };
    assert_eq!(refused(&weights, &[one, one, one, torn], &[]), PlanError::Territory(1));
    let many = Entry { region: 1, territory: MAX_TERRITORIES as u8, ..one };
    assert_eq!(refused(&weights, &[one, one, one, many], &[]), PlanError::Territory(8));
    let silent = Entry { relays: false, ..one };
    for roots in [
        vec![Plan::root(4, 0)],
        vec![Plan::root(0, CLASSES as u8)],
        vec![Plan::root(1, 0), Plan::root(1, 1)],
        vec![Plan::root(3, 0)],
        vec![1 << 24],
    ] {
        assert_eq!(refused(&weights, &entries, &roots), PlanError::Roots, "{roots:?}");
    }
    assert_eq!(refused(&weights, &[silent; 4], &[Plan::root(0, 0)]), PlanError::Roots);
    let all = vec![one; 300];
    assert_eq!(refused(&[1; 300], &all, &[]), PlanError::Heads(0));
    let few: Vec<Entry> =
        (0..300).map(|i| Entry { heads: u8::from(i < MAX_HEADS), ..one }).collect();
    let roots = |count| -> Vec<u32> { (0..count).map(|i| Plan::root(i, 0)).collect() };
    PlanView::from_entries(1, &[1; 300], &few, &roots(MAX_ROOTS as u32)).unwrap();
    assert_eq!(refused(&[1; 300], &few, &roots(129)), PlanError::Roots);
}

#[test]
fn every_word_is_an_entry() {
    for bits in [0, u32::MAX, 0x0102_0304, RELAY, 1 << 31, 0xdead_beef] {
        let entry = Entry::from_bits(bits);
        assert_eq!(entry.to_bits(), bits);
        assert!(entry.heads < 128);
    }
}
