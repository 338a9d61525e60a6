//! What flips a node, what does not, and the way back.

use super::*;

#[test]
fn names_are_distinct() {
    let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Reason::ALL.len());
}

/// In netsim a node that no peer was heard at took 1,097 ms from the first message it missed:
/// 400 of silence, then 250 of grace for an overlay that said nothing at all.
#[test]
fn a_probe_of_silence_that_finds_something_is_answered_at_once() {
    let config = HealthConfig::default();
    let at = |ms: u64| Timestamp::from_nanos(1_000_000_000 + ms * 1_000_000);
    let probing = || {
        let mut health = Health::new(config);
        health.connected(at(0), 5);
        health.expect(at(0), true);
        health.handle_timeout(at(400));
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
