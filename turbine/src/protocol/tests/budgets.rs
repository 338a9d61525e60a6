//! What a peer may cost: useless control frames are paid for, and honest ones are not.

use super::hostile::{NOW, barred, events, victim, world};
use super::*;
use crate::control::{Evidence, Tip, Tips};
use crate::plan::Plan;

/// Frames that are looked at, and those that are not, of `count` of a kind.
fn flood(frame: impl Fn(u64) -> Control, count: u64) -> (u64, u64, Vec<(PeerIndex, Outcome)>) {
    let world = world();
    let mut node = victim(&world);
    let before: u64 = node.outcomes().labels().map(|(_, count)| count).sum();
    for n in 0..count {
        node.handle_control(NOW, peer(1), &frame(n).to_bytes());
    }
    let spent = node.outcomes().get(Outcome::OverBudget);
    let barred_too = node.outcomes().get(Outcome::Barred);
    let all: u64 = node.outcomes().labels().map(|(_, count)| count).sum();
    let bars = barred(&events(&mut node));
    // Another peer is none the worse.
    let tips = Control::Tips(Tips { tips: vec![] });
    let taken = node.outcomes().get(Outcome::Control);
    node.handle_control(NOW, peer(2), &tips.to_bytes());
    assert_eq!(node.outcomes().get(Outcome::Control), taken + 1);
    (all - before - spent - barred_too, spent, bars)
}

fn foreign(n: u64) -> SignedDelegation {
    let stranger = GatewayKey::from_bytes([99; 32]).unwrap();
    let mut delegation = world().delegations[0].delegation;
    delegation.sequence = n;
    delegation.sign(&stranger)
}

#[test]
fn delegations_of_strangers_cost_their_sender() {
    let (looked_at, spent, bars) = flood(|n| Control::Delegation(foreign(n)), 6_000);
    // A tenth of a second of work, at 45 µs each.
    assert!((2_000..2_300).contains(&looked_at), "{looked_at}");
    assert!(spent > 1_999, "{spent}");
    assert_eq!(bars, [(1, Outcome::OverBudget)]);
}

#[test]
fn evidence_against_strangers_costs_its_sender() {
    let world = world();
    let key = world.leader_keys[0].verifying_key();
    let mut validator = fragcast_shredder::Validator::new(CHAIN, 10);
    let first = |len| hashed(&cut(&world, &world.sign(frag(1, 0, len)), 0)).remove(0);
    validator.validate(first(900), &key).unwrap();
    let Err(fragcast_shredder::ValidateError::Equivocation(proof)) =
        validator.validate(first(800), &key)
    else {
        panic!("two lengths")
    };
    // Under a delegation of a gateway that is none of ours.
    let evidence = |n: u64| {
        let proof = (*proof).clone();
        Control::Evidence(Box::new(Evidence { delegation: foreign(n), proof }))
    };
    let (looked_at, _, bars) = flood(evidence, 6_000);
    assert!(looked_at < 2_300, "{looked_at}");
    assert_eq!(bars, [(1, Outcome::OverBudget)]);
}

#[test]
fn greetings_without_end_cost_their_sender() {
    let hello = |n: u64| {
        let mut table = [0; 32];
        table[..8].copy_from_slice(&n.to_le_bytes());
        Control::Hello(Hello { version: 1, chain_id: CHAIN, table })
    };
    let (looked_at, _, bars) = flood(hello, 40_000);
    assert!(looked_at < 30_000, "{looked_at}");
    assert_eq!(bars, [(1, Outcome::OverBudget)]);
}

#[test]
fn tips_without_end_cost_their_sender() {
    let tip = |block| Tip { block, attempt: 0, row: 3, above: 0 };
    let tips = |n: u64| Control::Tips(Tips { tips: (n..n + 8).map(tip).collect() });
    let (looked_at, _, bars) = flood(tips, 20_000);
    assert!(looked_at < 11_000, "{looked_at}");
    assert_eq!(bars, [(1, Outcome::OverBudget)]);
}

#[test]
fn plans_without_end_cost_their_leader() {
    let world = world();
    let leader = &world.leader_keys[1];
    let first = Plan::configured(CHAIN, leader.verifying_key().to_bytes(), &world.members);
    let plan = |n| Control::Plan(Plan { version: n + 1, ..first.clone() }.sign(leader));
    let (looked_at, _, bars) = flood(plan, 6_000);
    // A tenth of a second of work, at 50 µs each.
    assert!(looked_at < 2_300, "{looked_at}");
    assert_eq!(bars, [(1, Outcome::OverBudget)]);
}

#[test]
fn an_honest_peer_never_comes_near_its_budget() {
    let world = world();
    let mut node = victim(&world);
    let hello = Hello { version: 1, chain_id: CHAIN, table: world.members.hash() };
    let mut now = NOW;
    for second in 0..60u64 {
        // It connects anew each second, and tells all that it knows each time.
        node.handle_disconnected(peer(1));
        node.handle_connected(peer(1));
        node.handle_control(now, peer(1), &Control::Hello(hello).to_bytes());
        for signed in &world.delegations {
            node.handle_control(now, peer(1), &Control::Delegation(*signed).to_bytes());
        }
        for n in 0..20 {
            let tip = |block| Tip { block, attempt: 0, row: 3, above: 0 };
            let tips = Tips { tips: (second..second + 8).map(tip).collect() };
            now = now + Duration::from_millis(50);
            node.handle_control(now, peer(1), &Control::Tips(tips).to_bytes());
            // Of an operator's list of gateways that is another one.
            if n % 5 == 0 {
                let signed = foreign(second * 20 + n);
                node.handle_control(now, peer(1), &Control::Delegation(signed).to_bytes());
            }
        }
    }
    assert_eq!(node.outcomes().get(Outcome::OverBudget), 0);
    assert!(barred(&events(&mut node)).is_empty());
}
