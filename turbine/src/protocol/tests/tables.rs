//! Tables that are full: the open block and the next ones are taken, whatever else is there.

use bytes::Bytes;
use fragcast_shredder::Kind;

use super::hostile::{NOW, cut_bytes, events, feed, messages, victim};
use super::*;

/// The first shreds of messages that nobody will see whole: `count` of them, one a set, spread
/// over `blocks`.
fn first_shreds(world: &World, gateway: usize, blocks: &[u64], count: usize) -> Vec<Bytes> {
    let of = |n: usize| {
        let (block, message) = (blocks[n % blocks.len()], 1 + (n / blocks.len()) as u16);
        let key = MessageKey { block, attempt: 0, message };
        cut_bytes(world, gateway, &[7; 2_000], key, Kind::Frag).sets[0].shreds[0].clone()
    };
    (0..count).map(of).collect()
}

/// What a gateway has of the validator's table.
const HALF: usize = fragcast_shredder::Validator::DEFAULT_CAPACITY / 2;

/// Blocks of a gateway.
fn led(world: &World, gateway: usize, blocks: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    blocks.filter(|block| world.gateway(*block) == gateway).collect()
}

fn delivers(node: &mut Protocol, world: &World, message: Message) -> bool {
    let message = world.sign(message);
    let cut = cut(world, &message, 0);
    feed(node, 1, cut.sets.iter().flat_map(|set| set.shreds.clone()));
    messages(&events(node)) == 1
}

#[test]
fn sets_of_a_gateways_old_blocks_do_not_stop_the_next_leader() {
    let world = World::new(&[1; 5], 2);
    let mut node = victim(&world);
    // Block 110 is gateway 1's; gateway 0 has half of the window before it.
    assert!(delivers(&mut node, &world, env(110)));
    let old = led(&world, 0, 46..=109);
    feed(&mut node, 2, first_shreds(&world, 0, &old, 8_300));
    assert_eq!(node.parts.delivery.sets(), HALF + 1, "its share, and the next leader's Env");
    for seq in 0..20 {
        assert!(delivers(&mut node, &world, frag(110, seq, 30_000)), "{seq}");
    }
    assert!(delivers(&mut node, &world, env(111)));
}

#[test]
fn sets_of_future_blocks_do_not_stop_the_open_one() {
    let world = World::new(&[1; 5], 2);
    let mut node = victim(&world);
    assert!(delivers(&mut node, &world, env(105)));
    feed(&mut node, 2, first_shreds(&world, 1, &led(&world, 1, 106..=112), 8_300));
    assert_eq!(node.parts.delivery.sets(), HALF + 1, "its share, and the Env");
    for seq in 0..20 {
        assert!(delivers(&mut node, &world, frag(105, seq, 30_000)), "{seq}");
    }
}

#[test]
fn sets_of_two_keys_of_a_gateway_have_one_share() {
    let world = World::new(&[1; 5], 2);
    let mut node = victim(&world);
    assert!(delivers(&mut node, &world, env(108)));
    let key = SigningKey::from_bytes(&[77; 32]);
    let delegation = Delegation {
        first: 105,
        sequence: 2,
        key: key.verifying_key().to_bytes(),
        ..world.delegations[0].delegation
    };
    let signed = delegation.sign(&world.gateways[0]);
    node.handle_control(NOW, peer(1), &Control::Delegation(signed).to_bytes());
    let mut other = World::new(&[1; 5], 2);
    other.leader_keys[0] = key;
    for (world, blocks) in [(&world, 100..=104), (&other, 105..=109)] {
        feed(&mut node, 2, first_shreds(world, 0, &blocks.collect::<Vec<_>>(), 3_000));
    }
    assert_eq!(node.parts.delivery.sets(), HALF);
}

/// Ten megabytes a block, with every setting at its default: the leader's own protocol cuts
/// them, and all that it sends to whomever reaches a node.
#[test]
fn a_chain_of_ten_megabyte_blocks_works_with_the_defaults() {
    let world = World::new(&[1; 5], 1);
    let (mut leader, mut node) =
        (world.node(0, Config::new(CHAIN)), world.node(3, Config::new(CHAIN)));
    leader.assume_connected([1u32, 2, 3, 4]);
    node.assume_connected([0u32, 1, 2, 4]);
    let mut now = NOW;
    let mut sets = 0;
    for block in 1..=18 {
        for message in [env(block), frag(block, 0, 10_000_000), seal(block, 1)] {
            let message = world.sign(message);
            let key = key(message.message(), 0);
            leader.broadcast(now, key, &message).unwrap();
            let mut seen = std::collections::BTreeSet::new();
            // Thirty megabytes at a gigabit take a quarter of a second.
            while leader.poll_timeout(now).is_some_and(|_| !leader.egress().is_empty()) {
                now = now + Duration::from_millis(2);
                let sent = std::iter::from_fn(|| leader.poll_transmit(now));
                let mut burst = Vec::new();
                for transmit in sent {
                    if let Payload::Shred(bytes) = transmit.payload {
                        let header = *Shred::parse(bytes.clone()).unwrap().header();
                        seen.insert(header.set_key());
                        burst.push((peer(0), bytes));
                    }
                }
                node.handle_datagrams(now, burst);
                node.handle_timeout(now);
                while node.poll_transmit(now).is_some() {}
            }
            sets += seen.len();
            let delivered: Vec<MessageKey> = events(&mut node)
                .into_iter()
                .filter_map(|event| match event {
                    Event::Message { delivered, .. } => Some(delivered.key),
                    _ => None,
                })
                .collect();
            assert_eq!(delivered, [key], "block {block}, after {sets} sets");
        }
        assert!(node.reassembly_bytes() <= Config::new(CHAIN).reassembly.memory);
    }
    assert!(sets > Config::new(CHAIN).validator_capacity, "more than the table holds: {sets}");
    let refused = [Outcome::TableFull, Outcome::Quota].map(|why| node.outcomes().get(why));
    assert_eq!(refused, [0, 0]);
}
