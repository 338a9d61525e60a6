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
