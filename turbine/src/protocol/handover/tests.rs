use super::*;
use crate::protocol::Config;
use crate::protocol::ctx::testing::{ctx, sent};
use crate::protocol::tests::{CHAIN, World, peer};

/// Terms of ten blocks: node 0 leads up to 9, node 1 from 10 on, node 2 from 20, node 0 from 30.
fn node(world: &World, number: u32, hand_over: bool) -> Ctx {
    ctx(world, number, Config { hand_over, ..Config::new(CHAIN) })
}

fn frames(ctx: &mut Ctx) -> Vec<(PeerKey, Control)> {
    let sent = sent(ctx).into_iter();
    sent.map(|transmit| match transmit.payload {
        crate::egress::Payload::Control(bytes) => {
            assert_eq!(transmit.lane, Lane::NextLeader);
            (transmit.to, Control::from_bytes(&bytes).unwrap())
        }
        crate::egress::Payload::Shred(_) => panic!("no shreds here"),
    })
    .collect()
}

const KEY: MessageKey = MessageKey { block: 9, attempt: 0, message: 3 };

#[test]
fn the_next_leader_is_asked_once_a_term_and_acknowledges() {
    let world = World::new(&[1; 4], 3);
    let (mut leader, mut next) = (node(&world, 0, true), node(&world, 1, false));
    let (mut asks, mut acks) = (HandOver::default(), HandOver::default());
    assert!(!asks.awaits(9));
    (0..3).for_each(|_| asks.ask(&mut leader, 9));
    let asked = frames(&mut leader);
    let request = AckRequest { first: 9, last: 9 };
    assert_eq!(asked, [(peer(1), Control::AckRequest(request))], "once");
    assert!(asks.awaits(9) && !asks.awaits(10));

    acks.arrived(&mut next, KEY);
    acks.arrived(&mut next, MessageKey { block: 8, ..KEY });
    assert!(frames(&mut next).is_empty(), "nobody has asked");
    // What was there before the request is acknowledged with it, once.
    let told = MessageAck::of(KEY);
    for expected in [&[(peer(0), Control::MessageAck(told))][..], &[]] {
        assert_eq!(acks.requested(&mut next, peer(0), request), Outcome::Control);
        assert_eq!(frames(&mut next), expected);
    }
    let later = MessageKey { message: 4, ..KEY };
    acks.arrived(&mut next, later);
    assert_eq!(frames(&mut next), [(peer(0), Control::MessageAck(MessageAck::of(later)))]);
    (0..100).for_each(|_| acks.arrived(&mut next, MessageKey { block: 10, ..KEY }));
    assert_eq!(acks.arrived.len(), MAX_ARRIVED);
    acks.arrived(&mut next, MessageKey { block: 10, ..KEY });
    assert!(frames(&mut next).is_empty(), "its own block");

    assert_eq!(asks.acknowledged(&mut leader, peer(1), told), Outcome::Control);
    assert!(matches!(leader.events.pop_back(), Some(Event::Held(key)) if key == KEY));
    // The rotation comes round: another term is asked for anew.
    asks.ask(&mut leader, 30);
    assert_eq!(frames(&mut leader).len(), 1);
    // Whoever comes back has forgotten it.
    asks.disconnected(peer(1));
    assert!(!asks.awaits(30));
    asks.ask(&mut leader, 30);
    assert_eq!(frames(&mut leader).len(), 1);
}

#[test]
fn nobody_else_acknowledges_and_nobody_else_is_believed() {
    let world = World::new(&[1; 4], 3);
    let (mut leader, mut next) = (node(&world, 0, true), node(&world, 1, false));
    let (mut asks, mut acks) = (HandOver::default(), HandOver::default());
    let stale = Outcome::ControlStale;
    let told = MessageAck::of(KEY);
    assert_eq!(asks.acknowledged(&mut leader, peer(1), told), stale, "nobody was asked");
    asks.ask(&mut leader, 9);
    assert_eq!(asks.acknowledged(&mut leader, peer(2), told), stale, "it was not asked");
    let other = MessageAck { block: 10, ..told };
    assert_eq!(asks.acknowledged(&mut leader, peer(1), other), stale, "not this leader's");
    assert!(!leader.events.iter().any(|event| matches!(event, Event::Held(_))));

    for (from, first, last) in [(2, 9, 9), (0, 10, 10), (0, 9, 10), (0, 9, 8), (0, 0, u64::MAX)] {
        assert_eq!(acks.requested(&mut next, peer(from), AckRequest { first, last }), stale);
    }
    // Node 2 is not next after node 0.
    let mut third = node(&world, 2, false);
    assert_eq!(acks.requested(&mut third, peer(0), AckRequest { first: 9, last: 9 }), stale);
    assert!(acks.askers.is_empty());
    // Who asks again and again has one place.
    for block in (9..900).step_by(30) {
        let request = AckRequest { first: block, last: block };
        assert_eq!(acks.requested(&mut next, peer(0), request), Outcome::Control);
    }
    assert_eq!(acks.askers.len(), 1);
}

#[test]
fn a_leader_that_does_not_ask_for_it_sends_nothing() {
    let world = World::new(&[1; 4], 3);
    let mut leader = node(&world, 0, false);
    let mut asks = HandOver::default();
    asks.ask(&mut leader, 9);
    assert!(frames(&mut leader).is_empty() && !asks.awaits(9));
    // With one gateway there is no next leader.
    let world = World::new(&[1; 4], 1);
    let mut leader = node(&world, 0, true);
    asks.ask(&mut leader, 9);
    assert!(frames(&mut leader).is_empty() && !asks.awaits(9));
}
