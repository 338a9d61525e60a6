use std::sync::Arc;

use super::*;
use crate::epoch::Epoch;
use crate::membership::{Membership, sample};
use crate::protocol::config::{Config, GossipConfig};
use crate::protocol::ctx::testing::{ctx, sent};
use crate::protocol::tests::{CHAIN, World, frag, key, peer};

fn standby() -> GossipConfig {
    GossipConfig { policy: Policy::Standby, memory: 1 << 20, ..GossipConfig::default() }
}

fn part(world: &World, me: u32) -> (Ctx, Fallback) {
    let config = Config { gossip: standby(), ..Config::new(CHAIN) };
    (ctx(world, me, config), Fallback::new(standby()))
}

fn published(fallback: &mut Fallback) -> usize {
    let actions = std::iter::from_fn(|| fallback.poll());
    actions.filter(|action| matches!(action, GossipAction::Publish { .. })).count()
}

#[test]
fn the_leader_and_two_of_those_who_know_a_listener_publish_for_it() {
    let world = World::new(&[1; 12], 1);
    let message = world.sign(frag(1, 0, 500));
    let place = key(message.message(), 0);
    let mut count = 0;
    for me in 0..12 {
        let (mut ctx, mut fallback) = part(&world, me);
        fallback.offer(&mut ctx, &place, &message);
        assert_eq!(published(&mut fallback), 0, "nobody listens");
        fallback.listener(&mut ctx, Listener::Member(peer(7)), true);
        fallback.offer(&mut ctx, &place, &message);
        count += published(&mut fallback);
    }
    assert_eq!(count, 3);
}

#[test]
fn links_are_those_of_every_table_that_lives() {
    let world = World::new(&[1; 6], 1);
    let (mut ctx, mut fallback) = part(&world, 0);
    fallback.listener(&mut ctx, Listener::Member(peer(3)), true);
    let links =
        |fallback: &Fallback| fallback.publishing.listeners[&Listener::Member(peer(3))].clone();
    assert_eq!(links(&fallback), [0, 1, 2, 4, 5].map(peer));
    // Members 4 and 5 leave, another one joins.
    let (others, _) = sample(CHAIN, &[1; 40]);
    let old = world.members.members();
    let new = others.members().iter().find(|m| world.members.index(&m.peer()).is_none());
    let members = old[..4].iter().chain(new).cloned().collect();
    let members = Arc::new(Membership::new(CHAIN, members).unwrap());
    let delegations = world.delegations.iter().copied();
    let epoch = Epoch::new(CHAIN, 100, members, world.schedule.clone(), delegations).unwrap();
    let joined = ctx.epochs.take(epoch, 0, None).unwrap().joined[0].0;
    ctx.peers.set_table(ctx.epochs.view().peers().clone(), [0; 32]);
    fallback.relink(&ctx);
    assert_eq!(links(&fallback), [[0, 1, 2, 4, 5].map(peer).as_slice(), &[joined]].concat());
    fallback.forget_peer(peer(3));
    assert_eq!(fallback.listeners(), 0);
}

#[test]
fn strangers_are_told_of_now_and_then_and_what_peers_tell_is_bounded() {
    let (mut ctx, mut fallback) = part(&World::new(&[1; 4], 1), 0);
    (0..300).for_each(|n| fallback.listener(&mut ctx, Listener::Outside(n), true));
    assert_eq!(fallback.listeners(), MAX_LISTENERS);
    assert_eq!(sent(&mut ctx).len(), 3, "told once, to each of three");
    assert_eq!(fallback.publishing.next_timeout(), Some(ctx.now + TELL_EVERY));
    ctx.now = ctx.now + TELL_EVERY;
    fallback.tell_of_listeners(&mut ctx);
    fallback.tell_of_listeners(&mut ctx);
    assert_eq!(sent(&mut ctx).len(), 3);
    for from in 1..4 {
        let ids = (0..10_000).map(|n| 1_000 * u64::from(from) + n).collect();
        fallback.take_listeners(peer(from), &Listeners { ids });
    }
    assert!(fallback.publishing.told.len() <= MAX_OUTSIDE);
    (1..4).for_each(|from| fallback.forget_told(peer(from)));
    assert!(fallback.publishing.told.is_empty());
}
