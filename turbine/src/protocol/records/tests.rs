use super::*;
use crate::protocol::config::Config;
use crate::protocol::ctx::testing::{ctx, sent};
use crate::protocol::tests::{CHAIN, World, peer};

fn live() -> Config {
    let mut config = Config::new(CHAIN);
    config.members.live = true;
    config.members.origin = Duration::from_secs(1_700_000_000);
    config
}

fn frames(ctx: &mut Ctx) -> Vec<(PeerKey, Control)> {
    let frame = |transmit: crate::egress::Transmit| match transmit.payload {
        crate::egress::Payload::Control(bytes) => {
            (transmit.to, Control::from_bytes(&bytes).unwrap())
        }
        crate::egress::Payload::Shred(_) => panic!("a shred"),
    };
    sent(ctx).into_iter().map(frame).collect()
}

fn own(port: u16) -> OwnRecord {
    let addresses = vec![std::net::SocketAddr::from(([127, 0, 0, 1], port))];
    OwnRecord { addresses, uplink_kbps: 1_000 }
}

/// Two nodes of a world, each with its own record.
fn two(world: &World) -> [(Ctx, RecordBook); 2] {
    [0, 1].map(|me| {
        let ctx = ctx(world, me, live());
        let mut book = RecordBook::new(&ctx);
        book.set_identity(world.identities[me as usize].clone());
        book.set_own(own(10 + me as u16));
        (ctx, book)
    })
}

#[test]
fn records_are_pulled_once_and_what_was_not_asked_for_is_not_looked_at() {
    let world = World::new(&[1; 3], 1);
    let [(mut ctx, mut book), (mut theirs, mut other)] = two(&world);
    book.connected(&ctx, peer(1));
    book.timeout(&mut ctx, None);
    other.timeout(&mut theirs, None);
    let pull = frames(&mut ctx).into_iter().find(|(to, _)| *to == peer(1));
    let Some((_, Control::RecordsPull(pull))) = pull else { panic!("{pull:?}") };
    drop(frames(&mut theirs));
    assert_eq!(other.answer(&mut theirs, peer(0), &pull), Outcome::Control);
    let answer = frames(&mut theirs).pop();
    let Some((to, Control::Records(answer))) = answer else { panic!("{answer:?}") };
    assert_eq!(to, peer(0));
    let unasked = book.take(&mut ctx, None, peer(2), answer.clone());
    assert_eq!(unasked, Outcome::MembersUnasked);
    assert_eq!(book.take(&mut ctx, None, peer(1), answer.clone()), Outcome::Control);
    let of_other = book.pool.get(&theirs.peers.id(peer(1)).unwrap()).unwrap();
    assert_eq!(of_other.addresses().next().unwrap().port(), 11);
    assert!(of_other.body.sequence >= 1_700_000_000_000);
    assert_eq!(book.take(&mut ctx, None, peer(1), answer), Outcome::MembersUnasked, "once");
    assert_eq!(ctx.counters.records_learnt, 1);
    // And again at once.
    assert_eq!(other.answer(&mut theirs, peer(0), &pull), Outcome::MembersRefused);
    theirs.now = theirs.now + ANSWER_EVERY;
    assert_eq!(other.answer(&mut theirs, peer(0), &pull), Outcome::Control);
}

#[test]
fn a_forged_record_convicts_who_passed_it_on() {
    let world = World::new(&[1; 3], 1);
    let [(mut ctx, mut book), (theirs, mut other)] = two(&world);
    other.renew(&theirs);
    let mut record = other.pool.get(&theirs.peers.id(peer(1)).unwrap()).unwrap().clone();
    record.signature[0] ^= 1;
    book.pull(&mut ctx, peer(1));
    let lie = Records { records: vec![record] };
    assert_eq!(book.take(&mut ctx, None, peer(1), lie), Outcome::ControlBad);
}

#[test]
fn a_node_renews_its_record_and_asks_in_turn() {
    let world = World::new(&[1; 5], 1);
    let [(mut ctx, mut book), _] = two(&world);
    let me = ctx.peers.id(peer(0)).unwrap();
    let (mut sequences, mut asked) = (std::collections::BTreeSet::new(), BTreeMap::new());
    let begun = ctx.now;
    while ctx.now.since(begun) < Duration::from_secs(600) {
        ctx.now = book.next_timeout(&ctx).unwrap().max(ctx.now);
        book.timeout(&mut ctx, None);
        sequences.extend(book.pool.get(&me).map(|record| record.body.sequence));
        for (to, _) in frames(&mut ctx) {
            *asked.entry(to).or_insert(0) += 1;
        }
        // A late tick.
        ctx.now = ctx.now + Duration::from_millis(1);
    }
    assert!((10..=11).contains(&sequences.len()), "once a minute: {}", sequences.len());
    assert_eq!(asked.len(), 4, "everybody in turn");
    let all: u32 = asked.values().sum();
    assert!((270..=330).contains(&all), "every two seconds: {all}");
}

#[test]
fn a_node_that_is_not_live_tells_and_asks_nothing() {
    let world = World::new(&[1; 3], 1);
    let mut ctx = ctx(&world, 0, Config::new(CHAIN));
    let mut book = RecordBook::new(&ctx);
    book.set_own(own(9));
    assert_eq!(book.next_timeout(&ctx), None);
    book.timeout(&mut ctx, None);
    assert!(frames(&mut ctx).is_empty());
    assert_eq!(book.pool.len(), 0);
}
