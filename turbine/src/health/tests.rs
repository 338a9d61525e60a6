//! What flips a node, what does not, and the way back.

use super::*;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_000_000_000 + ms * 1_000_000)
}

/// Connected to three peers, at 0 ms.
fn well() -> Health {
    let mut health = Health::new(HealthConfig::default());
    assert!(health.next_timeout().is_some(), "it wants to be told the time");
    health.handle_timeout(at(0));
    health.connected(at(0), 3);
    health
}

/// Runs the timers until `end`.
fn run(health: &mut Health, end: u64) {
    let mut calls = 0;
    while let Some(next) = health.next_timeout().filter(|next| *next <= at(end)) {
        health.handle_timeout(next);
        calls += 1;
        assert!(calls < 1_000, "a timer that comes again and again: {health:?}");
    }
}

fn told(health: &mut Health) -> Vec<(State, Reason)> {
    health.take_changes().into_iter().map(|change| (change.to, change.reason)).collect()
}

/// Block `number`, of 4 messages, by the overlay.
fn complete(health: &mut Health, now: u64, number: u64) {
    for index in 0..4 {
        health.turbine(at(now), (number, 0, index), (index == 3).then_some(4));
    }
}

#[test]
fn peers_that_tell_keep_a_node_on_the_overlay_however_long_nothing_comes() {
    let mut health = well();
    health.expect(at(0), true);
    for tick in 1..280 {
        health.heard(at(tick * 50));
        run(&mut health, tick * 50);
    }
    assert!(told(&mut health).is_empty());
    // And when the block is old, nobody tells any more, and nobody expects it. A few probes
    // make sure that it is not this side of a broken path.
    health.expect(at(100_000), false);
    run(&mut health, 10_000_000);
    let quiet = (State::Probing, Reason::Quiet);
    let empty = (State::Turbine, Reason::ProbeEmpty);
    assert_eq!(told(&mut health), [quiet, empty, quiet, empty, quiet, empty]);
    assert_eq!((health.next_timeout(), health.is_pending()), (None, false));
}

#[test]
fn silence_probes_and_an_empty_probe_ends_and_pauses_longer_each_time() {
    let mut health = well();
    health.expect(at(0), true);
    let mut probes = Vec::new();
    let mut last = 0;
    while last < 120_000 {
        last = health.next_timeout().unwrap().since(at(0)).as_millis() as u64;
        health.handle_timeout(at(last));
        for change in health.take_changes() {
            assert_ne!(change.to, State::Gossip);
            if change.to == State::Probing && change.reason == Reason::Silence {
                probes.push(last);
            }
        }
    }
    assert_eq!(probes[..6], [300, 3_300, 7_300, 13_300, 23_300, 41_300]);
    // Whoever is heard again starts afresh.
    health.heard(at(last));
    health.handle_timeout(at(last));
    assert_ne!(health.state(), State::Probing);
}

#[test]
fn a_probe_that_gossip_answers_and_the_overlay_does_not_is_a_fallback() {
    let mut health = well();
    health.expect(at(0), true);
    run(&mut health, 500);
    assert_eq!(told(&mut health), [(State::Probing, Reason::Silence)]);
    health.gossip(at(500), (7, 0, 3), None);
    run(&mut health, 500);
    assert_eq!(told(&mut health), [(State::Gossip, Reason::GossipAhead)]);
    // A gap may still be filled by the overlay.
    let mut health = well();
    health.missing(Missing { told: None, certain: Some(at(0)) });
    run(&mut health, 700);
    health.gossip(at(700), (7, 0, 3), None);
    run(&mut health, 949);
    assert_eq!(told(&mut health), [(State::Probing, Reason::Gap)]);
    run(&mut health, 950);
    assert_eq!(told(&mut health), [(State::Gossip, Reason::GossipAhead)]);
}

#[test]
fn no_peer_is_a_fallback_soon_and_at_the_start_after_a_while() {
    let mut health = well();
    health.connected(at(1_000), 0);
    health.connected(at(1_100), 0);
    run(&mut health, 1_299);
    assert!(told(&mut health).is_empty());
    run(&mut health, 1_300);
    assert_eq!(told(&mut health), [(State::Gossip, Reason::NoRelay)]);

    let mut health = Health::new(HealthConfig::default());
    health.handle_timeout(at(0));
    run(&mut health, 4_999);
    assert!(told(&mut health).is_empty());
    run(&mut health, 5_000);
    assert_eq!(told(&mut health), [(State::Gossip, Reason::NoRelay)]);
}

#[test]
fn what_two_peers_have_is_a_fallback_and_what_only_must_exist_a_probe() {
    let mut health = well();
    health.missing(Missing { told: Some(at(100)), certain: Some(at(100)) });
    run(&mut health, 800);
    // Two may lie together: gossip has to have it as well.
    assert_eq!(told(&mut health), [(State::Probing, Reason::TipsAhead)]);
    health.gossip(at(850), (7, 0, 3), None);
    run(&mut health, 1_100);
    assert_eq!(told(&mut health), [(State::Gossip, Reason::GossipAhead)]);

    let mut health = well();
    health.missing(Missing { told: None, certain: Some(at(100)) });
    run(&mut health, 800);
    assert_eq!(told(&mut health), [(State::Probing, Reason::Gap)]);
    health.heard(at(801));
    assert_eq!(health.state(), State::Probing, "it is not silence that is the matter");
    health.missing(Missing::default());
    health.handle_timeout(at(900));
    assert_eq!(told(&mut health), [(State::Turbine, Reason::Filled)]);
}

#[test]
fn where_gossip_is_always_on_it_takes_three_misses_in_a_row() {
    let mut health = well();
    for n in 0..20 {
        let now = n * 1_000;
        health.heard(at(now));
        health.gossip(at(now), (7, 0, n as u16), None);
        if n % 3 == 2 {
            // The overlay is late with this one, but it comes.
            health.turbine(at(now + 200), (7, 0, n as u16), None);
        }
        run(&mut health, now + 900);
    }
    assert!(told(&mut health).is_empty());
    for n in 20..23 {
        health.gossip(at(n * 1_000), (7, 0, n as u16), None);
        run(&mut health, n * 1_000 + 900);
    }
    assert_eq!(told(&mut health), [(State::Gossip, Reason::GossipAhead)]);
}

#[test]
fn the_way_back_takes_blocks_in_a_row_that_the_overlay_completed_alone() {
    let mut health = well();
    health.connected(at(0), 0);
    run(&mut health, 300);
    health.connected(at(400), 3);
    assert_eq!((health.state(), health.dwell()), (State::Gossip, 2));
    complete(&mut health, 500, 10);
    assert_eq!(health.streak(), 1);
    // Block 11 lacks a message by the time its grace is over.
    (0..2).for_each(|index| health.turbine(at(600), (11, 0, index), None));
    health.gossip(at(600), (11, 0, 3), Some(4));
    run(&mut health, 900);
    assert_eq!(health.streak(), 0);
    // What was judged already does not count again.
    complete(&mut health, 1_000, 14);
    complete(&mut health, 1_000, 14);
    assert_eq!((health.streak(), health.state()), (1, State::Gossip));
    // A rebuilt block counts by its last attempt.
    health.turbine(at(1_100), (15, 0, 0), None);
    for index in 0..3 {
        health.turbine(at(1_100), (15, 1, index), (index == 2).then_some(3));
    }
    assert_eq!(health.state(), State::Turbine);
    assert_eq!(health.take_changes().last().unwrap().reason, Reason::Recovered);
}

#[test]
fn a_relapse_doubles_the_dwell_and_a_long_good_time_forgives() {
    let mut health = well();
    let (mut now, mut number) = (0, 1);
    let mut dwells = Vec::new();
    for round in 0..9 {
        health.connected(at(now), 0);
        run(&mut health, now + 400);
        health.connected(at(now + 400), 3);
        assert_eq!(health.state(), State::Gossip);
        dwells.push(health.dwell());
        while health.state() == State::Gossip {
            now += 2_000;
            complete(&mut health, now, number);
            number += 1;
        }
        // A fallback is dated by the newest block that was heard of.
        let pause = if round == 7 { 65 } else { 3 };
        number += pause;
        complete(&mut health, now, number);
        number += 1;
        now += 2_000;
    }
    assert_eq!(dwells, [2, 4, 8, 16, 32, 64, 64, 64, 2]);
}

#[test]
fn orders_are_followed_and_said() {
    let mut health = well();
    health.order(at(5), State::Gossip);
    health.order(at(6), State::Gossip);
    health.order(at(7), State::Turbine);
    assert_eq!(
        told(&mut health),
        [(State::Gossip, Reason::Operator), (State::Turbine, Reason::Operator)]
    );
    assert_eq!(health.since(), at(7));
}

#[test]
fn an_island_finds_out_that_the_chain_goes_on_without_it() {
    let mut health = well();
    for tick in 1..=300 {
        // The others on this side of the broken path tell what they have.
        health.heard(at(tick * 50));
        run(&mut health, tick * 50);
    }
    assert_eq!(told(&mut health), [(State::Probing, Reason::Quiet)]);
    health.heard(at(15_010));
    health.gossip(at(15_100), (9, 0, 2), None);
    run(&mut health, 15_400);
    assert_eq!(told(&mut health), [(State::Gossip, Reason::GossipAhead)]);
    // Where the chain goes on, the overlay ends the probe.
    let mut health = well();
    health.heard(at(14_999));
    run(&mut health, 15_000);
    health.gossip(at(15_100), (9, 0, 2), None);
    health.turbine(at(15_200), (9, 0, 2), None);
    run(&mut health, 16_000);
    let back = (State::Turbine, Reason::Heard);
    assert_eq!(told(&mut health), [(State::Probing, Reason::Quiet), back]);
}

#[test]
fn what_was_missing_before_the_return_is_no_relapse() {
    let mut health = well();
    health.order(at(1_000), State::Gossip);
    health.missing(Missing { told: Some(at(500)), certain: Some(at(500)) });
    complete(&mut health, 2_000, 1);
    complete(&mut health, 4_000, 2);
    health.missing(Missing { told: Some(at(500)), certain: Some(at(500)) });
    run(&mut health, 4_699);
    assert_eq!(health.state(), State::Turbine);
}

#[test]
fn who_leads_alone_returns_if_peers_are_heard() {
    let mut health = well();
    health.order(at(0), State::Gossip);
    health.led(at(2_000), 1);
    assert_eq!((health.state(), health.streak()), (State::Gossip, 0), "nobody is heard");
    for block in 2..4 {
        health.heard(at(block * 2_000 - 100));
        health.led(at(block * 2_000), block);
    }
    assert_eq!((health.state(), health.reason()), (State::Turbine, Some(Reason::Recovered)));
}

/// In netsim a node that no peer was heard at took 1,097 ms from the first message it missed:
/// 400 of silence, then 250 of grace for an overlay that said nothing at all.
#[test]
fn a_probe_of_silence_that_finds_something_is_answered_at_once() {
    let probing = || {
        let mut health = Health::new(HealthConfig::default());
        health.connected(at(0), 5);
        health.expect(at(0), true);
        health.handle_timeout(at(300));
        assert_eq!((health.state(), health.reason()), (State::Probing, Some(Reason::Silence)));
        health
    };
    let mut health = probing();
    health.gossip(at(600), (7, 0, 0), None);
    assert_eq!(health.next_timeout(), Some(at(600)));
    health.handle_timeout(at(600));
    assert_eq!((health.state(), health.reason()), (State::Gossip, Some(Reason::GossipAhead)));
    // Whoever is heard before that ends the probe, and the grace is the usual one again.
    let mut health = probing();
    health.heard(at(599));
    health.gossip(at(600), (7, 0, 0), None);
    health.handle_timeout(at(600));
    assert_eq!(health.state(), State::Turbine);
}

/// Of two leaders that take turns each saw but every other block by the overlay, never two in a
/// row, and stayed on gossip for ever.
#[test]
fn a_leader_returns_although_its_own_blocks_come_between() {
    let now = Timestamp::from_nanos(1_000_000_000);
    let mut health = Health::new(HealthConfig::default());
    health.connected(now, 5);
    health.order(now, State::Gossip);
    let block = |health: &mut Health, block: u64, complete: bool| {
        if complete {
            health.turbine(now, (block, 0, 0), None);
        }
        health.turbine(now, (block, 0, 1), Some(2));
        health.handle_timeout(now + HealthConfig::default().grace);
    };
    block(&mut health, 7, true);
    block(&mut health, 9, false);
    block(&mut health, 11, true);
    assert_eq!((health.state(), health.streak()), (State::Gossip, 1), "9 was incomplete");
    block(&mut health, 13, true);
    assert_eq!((health.state(), health.reason()), (State::Turbine, Some(Reason::Recovered)));
}

mod random {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Input {
        Wait(u16),
        Connected(u8),
        Heard,
        Expect(bool),
        Missing(Option<u16>, Option<u16>),
        Gossip(u8, u8, bool),
        Turbine(u8, u8, bool),
        Order(bool),
    }

    fn input() -> impl Strategy<Value = Input> {
        prop_oneof![
            3 => (0..2_000u16).prop_map(Input::Wait),
            1 => (0..3u8).prop_map(Input::Connected),
            2 => Just(Input::Heard),
            1 => any::<bool>().prop_map(Input::Expect),
            1 => any::<(Option<u16>, Option<u16>)>().prop_map(|(a, b)| Input::Missing(a, b)),
            3 => (0..20u8, 0..5u8, any::<bool>()).prop_map(|(b, i, s)| Input::Gossip(b, i, s)),
            3 => (0..20u8, 0..5u8, any::<bool>()).prop_map(|(b, i, s)| Input::Turbine(b, i, s)),
            1 => any::<bool>().prop_map(Input::Order),
        ]
    }

    proptest! {
        /// Whatever happens: timers make progress, states follow one another without a gap, and
        /// the dwell stays within its bounds.
        #[test]
        fn any_history_is_orderly(inputs in proptest::collection::vec(input(), 0..200)) {
            let mut health = Health::new(HealthConfig::default());
            let mut now = 0;
            let mut state = State::Turbine;
            for input in inputs {
                match input {
                    Input::Wait(ms) => now += u64::from(ms),
                    Input::Connected(n) => health.connected(at(now), n.into()),
                    Input::Heard => health.heard(at(now)),
                    Input::Expect(is) => health.expect(at(now), is),
                    Input::Missing(told, certain) => {
                        let ago = |ms: u16| at(now.saturating_sub(ms.into()));
                        health.missing(Missing { told: told.map(ago), certain: certain.map(ago) });
                    }
                    Input::Gossip(block, index, seal) => {
                        let place = (block.into(), 0, index.into());
                        health.gossip(at(now), place, seal.then_some(u32::from(index) + 1));
                    }
                    Input::Turbine(block, index, seal) => {
                        let place = (block.into(), 0, index.into());
                        health.turbine(at(now), place, seal.then_some(u32::from(index) + 1));
                    }
                    Input::Order(gossip) => {
                        health.order(at(now), if gossip { State::Gossip } else { State::Turbine });
                    }
                }
                run(&mut health, now);
                for change in health.take_changes() {
                    prop_assert_eq!(change.from, state);
                    prop_assert_ne!(change.to, change.from);
                    prop_assert!((2..=64).contains(&change.dwell));
                    state = change.to;
                }
                prop_assert_eq!(state, health.state());
            }
        }
    }
}
