//! Networks that are lied to about where the chain stands: by a gateway with a far block, by
//! members without any key, over the overlay and over gossip. Everybody is back within seconds.

use super::network::{Net, config};
use super::*;
use crate::control::{Tip, Tips};
use crate::gossip::{Gate, GossipOutcome, Policy};

/// In the term of gateway 0 of three, whose terms have ten blocks.
const FAR: u64 = (1u64 << 40) / 30 * 30;
const NOW: Timestamp = Timestamp::from_nanos(1_000 * 1_000_000_000);

/// Six nodes, three gateways; the Unix clock is not at its beginning.
fn net() -> Net {
    with(&config(RoutePolicy::Fixed(Route::Direct), 0.0))
}

fn with(config: &Config) -> Net {
    let mut net = Net::new(World::new(&[1; 6], 3), 0.0, config);
    net.now = NOW;
    net
}

fn gossiping() -> Net {
    let mut config = config(RoutePolicy::Fixed(Route::Direct), 0.0);
    config.gossip.policy = Policy::Always;
    with(&config)
}

/// A node starts anew: it knows nothing, and everybody connects to it again.
fn restart(net: &mut Net, node: usize) {
    let config = net.nodes[node].parts.ctx.config.clone();
    net.nodes[node] = net.world.node(node, config);
    for other in (0..net.nodes.len()).filter(|other| *other != node) {
        net.nodes[other].handle_disconnected(peer(node as u32));
        net.connect(node, other);
    }
}

fn blocks(net: &mut Net, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        net.send(env(number), 0);
        net.send(frag(number, 0, 2_000), 0);
        net.send(seal(number, 1), 0);
        net.run_for(Duration::from_millis(300));
    }
}

/// Whether a node has a block: all of it but what it led itself.
fn has(net: &Net, node: usize, block: u64) -> bool {
    let of_block = net.delivered[node].iter().filter(|d| d.key.block == block);
    let places: std::collections::BTreeSet<u16> = of_block.map(|d| d.key.message).collect();
    net.world.gateway(block) == node || places.len() == 3
}

/// Sends blocks from `number` on, one a second, until all but `except` have one of them; how many it
/// took.
fn until_all_have(net: &mut Net, number: u64, except: &[usize]) -> u64 {
    for taken in 0..30 {
        let number = number + taken;
        blocks(net, number..=number);
        net.run_for(Duration::from_millis(700));
        let nodes = (0..net.nodes.len()).filter(|node| !except.contains(node));
        if nodes.into_iter().all(|node| has(net, node, number)) {
            return taken;
        }
    }
    let windows: Vec<_> = net.nodes.iter().map(Protocol::window).collect();
    panic!("nobody comes back: {windows:?}");
}

/// The liar's own Env and Seal of a far block, sent as its node sends everything.
fn lie(net: &mut Net) {
    net.send(env(FAR), 0);
    net.send(seal(FAR, 0), 0);
}

fn shreds_of(net: &Net, message: Message) -> Vec<bytes::Bytes> {
    let message = net.world.sign(message);
    cut(&net.world, &message, 0).sets.into_iter().flat_map(|set| set.shreds).collect()
}

fn feed(net: &mut Net, node: usize, from: u32, shreds: Vec<bytes::Bytes>) {
    let now = net.now;
    net.nodes[node].handle_datagrams(now, shreds.into_iter().map(|bytes| (peer(from), bytes)));
}

#[test]
fn a_far_block_after_a_silence_pins_nobody() {
    for silence in [6, 30] {
        let mut net = net();
        blocks(&mut net, 7..=12);
        net.run_for(Duration::from_secs(silence));
        lie(&mut net);
        net.run_for(Duration::from_secs(1));
        let pinned = (1..6).filter(|node| net.nodes[*node].window().0 > 1_000).count();
        assert_eq!(pinned, 0, "after {silence} s");
        assert_eq!(until_all_have(&mut net, 13, &[0]), 0, "after {silence} s");
    }
}

#[test]
fn a_far_block_from_one_gateway_after_its_own_term_alone_pins_nobody() {
    let mut net = net();
    blocks(&mut net, 1..=3);
    net.run_for(Duration::from_secs(20));
    lie(&mut net);
    net.run_for(Duration::from_secs(1));
    assert_eq!(until_all_have(&mut net, 11, &[0]), 0);
}

#[test]
fn a_network_that_heard_a_far_block_first_of_all_comes_back() {
    let mut net = net();
    lie(&mut net);
    net.run_for(Duration::from_millis(500));
    assert!(net.nodes[1..].iter().all(|node| node.window().0 > 1_000), "they know no better");
    let took = until_all_have(&mut net, 11, &[0]);
    assert!(took <= 10, "{took} s");
    // And the liar too, once it is told.
    net.run_for(Duration::from_secs(10));
    assert_eq!(until_all_have(&mut net, 25, &[]), 0);
}

#[test]
fn a_liar_that_goes_on_lying_is_left_once_two_others_have_spoken() {
    // Nobody repairs, so nobody tells tips: it is the two alone who are believed.
    let mut settings = config(RoutePolicy::Fixed(Route::Direct), 0.0);
    settings.repair.enabled = false;
    let mut net = with(&settings);
    lie(&mut net);
    net.run_for(Duration::from_millis(200));
    for number in 15..35 {
        // A newer far block every second keeps its window alive.
        let far = FAR + (number - 15) % 10;
        if net.world.gateway(number) != 0 {
            net.send(env(far), 0);
            net.send(seal(far, 0), 0);
        }
        blocks(&mut net, number..=number);
        net.run_for(Duration::from_millis(700));
    }
    assert!((1..6).all(|node| has(&net, node, 34)), "{:?}", net.nodes[2].window());
}

#[test]
fn a_node_that_just_started_and_hears_a_far_block_first_comes_back_at_once() {
    let mut net = net();
    blocks(&mut net, 5..=24);
    restart(&mut net, 5);
    let at = net.now;
    for message in [env(FAR), seal(FAR, 0)] {
        let signed = net.world.sign(message);
        let fresh = fresh_shreds(&net, &signed, at);
        feed(&mut net, 5, 0, fresh);
    }
    net.nodes[5].handle_timeout(at);
    net.run_for(Duration::from_millis(300));
    assert_eq!(until_all_have(&mut net, 25, &[]), 0);
}

/// Shreds as the leader would send them now.
fn fresh_shreds(net: &Net, message: &VerifiedMessage, at: Timestamp) -> Vec<bytes::Bytes> {
    let gateway = net.world.gateway(message.message().block());
    let quick = Config { burst: Duration::from_secs(1_000), ..Config::new(CHAIN) };
    let mut leader = net.world.node(gateway, quick);
    leader.assume_connected([1u32, 5].into_iter().filter(|peer| *peer as usize != gateway));
    leader.broadcast(at, key(message.message(), 0), message).unwrap();
    let sent = std::iter::from_fn(|| leader.poll_transmit(at));
    let shreds = sent.filter_map(|transmit| match transmit.payload {
        Payload::Shred(bytes) => Some(bytes),
        Payload::Control(_) => None,
    });
    shreds.collect()
}

#[test]
fn a_far_block_by_gossip_pins_nobody_either() {
    // To one that knows nothing, to one that has heard nothing for long, and to all.
    for (started, silence, all) in [(true, 0, false), (false, 30, false), (false, 30, true)] {
        let mut net = gossiping();
        blocks(&mut net, 7..=24);
        if started {
            restart(&mut net, 5);
        }
        net.run_for(Duration::from_secs(silence));
        let now = net.now;
        for node in (1..6).filter(|node| all || *node == 5) {
            for message in [env(FAR), seal(FAR, 0)] {
                let message = net.world.sign(message);
                net.nodes[node].handle_gossip(now, message, true);
            }
            assert!(started || net.nodes[node].window().1 < 100, "{silence} {all}");
        }
        net.run_for(Duration::from_millis(300));
        let took = until_all_have(&mut net, 25, &[0]);
        assert!(took <= 1, "{took} s: {started} {silence} {all}");
    }
}

#[test]
fn junk_and_recordings_of_a_member_without_a_key_hold_nobody() {
    for (started, silence) in [(true, 0), (false, 6), (false, 30)] {
        let mut net = net();
        blocks(&mut net, 95..=124);
        // Recorded long ago: signed by their leaders, and sent at another time.
        let recorded: Vec<Vec<bytes::Bytes>> = (1..60)
            .flat_map(|number| [env(number), frag(number, 0, 500), seal(number, 1)])
            .map(|message| shreds_of(&net, message))
            .collect();
        let mut junk = shreds_of(&net, env(u64::MAX)).remove(0).to_vec();
        let len = junk.len();
        junk[len - 70] ^= 1;
        if started {
            restart(&mut net, 5);
        }
        net.run_for(Duration::from_secs(silence));
        let before = net.nodes[5].window();
        feed(&mut net, 5, 4, vec![junk.into()]);
        assert_eq!(net.nodes[5].window(), before, "{started} {silence}");
        for shreds in recorded {
            feed(&mut net, 5, 3, shreds);
        }
        // Who knows nothing begins with what he hears, and goes on with what most peers tell.
        assert!(started || net.nodes[5].window() == before, "{silence}");
        net.run_for(Duration::from_millis(300));
        assert_eq!(until_all_have(&mut net, 125, &[]), 0, "{started} {silence}");
    }
}

#[test]
fn recordings_alone_and_nobody_who_tells_better_end_with_the_first_live_block() {
    // Nobody repairs, so nobody tells tips.
    let mut settings = config(RoutePolicy::Fixed(Route::Direct), 0.0);
    settings.repair.enabled = false;
    let mut net = with(&settings);
    for number in 1..60 {
        for message in [env(number), frag(number, 0, 500), seal(number, 1)] {
            let shreds = shreds_of(&net, message);
            feed(&mut net, 5, 3, shreds);
        }
    }
    assert!(net.nodes[5].window().1 < 100);
    net.run();
    blocks(&mut net, 1_000..=1_000);
    assert!(has(&net, 5, 1_000), "{:?}", net.nodes[5].window());
}

#[test]
fn without_tips_a_network_that_was_lied_to_comes_back_when_the_lie_stands_still() {
    let mut settings = config(RoutePolicy::Fixed(Route::Direct), 0.0);
    settings.repair.enabled = false;
    let mut net = with(&settings);
    lie(&mut net);
    net.run_for(Duration::from_millis(500));
    let took = until_all_have(&mut net, 11, &[0]);
    assert!(took <= 7, "{took} s");
}

#[test]
fn members_whose_tips_lie_move_nobody_while_they_are_the_lesser_part() {
    let mut net = net();
    blocks(&mut net, 5..=12);
    for liar in [3, 4] {
        for block in [FAR, u64::MAX, 0] {
            let tips = vec![Tip { block, attempt: 0, row: 9, above: 0 }];
            let frame = Control::Tips(Tips { tips }).to_bytes();
            let now = net.now;
            net.nodes[5].handle_control(now, peer(liar), &frame);
            assert_eq!(net.nodes[5].window().1, 19, "{liar} {block}");
        }
    }
    blocks(&mut net, 13..=13);
    assert!(has(&net, 5, 13));
}

#[test]
fn an_operator_that_errs_is_put_right_by_the_peers() {
    let mut net = net();
    blocks(&mut net, 5..=12);
    let now = net.now;
    net.nodes[5].handle_head(now, FAR);
    assert!(net.nodes[5].window().0 > 1_000);
    let took = until_all_have(&mut net, 13, &[]);
    assert!(took <= 11, "{took} s");
}

#[test]
fn a_node_that_knows_its_head_believes_nothing_that_time_does_not_allow() {
    for gossip in [false, true] {
        let mut net = if gossip { gossiping() } else { net() };
        for node in 1..6 {
            let now = net.now;
            let built_at = Timestamp::from_nanos(now.as_nanos() / 2);
            net.nodes[node].handle_verified(now, 4, built_at);
        }
        lie(&mut net);
        let now = net.now;
        for node in (1..6).filter(|_| gossip) {
            let message = net.world.sign(env(FAR));
            net.nodes[node].handle_gossip(now, message, true);
        }
        net.run_for(Duration::from_millis(500));
        assert!((1..6).all(|node| net.nodes[node].window().1 < 100), "the first moment too");
        assert_eq!(until_all_have(&mut net, 5, &[0]), 0);
    }
}

/// A node whose stored head is old knows little of where the chain is by now. Gossip's gate, which
/// keeps a window of 128 blocks, once took the end of all that time allows for the head, and every
/// real block for past.
#[test]
fn an_old_stored_head_lets_gossip_bring_the_next_block() {
    let mut net = gossiping();
    let now = NOW;
    let built_at = Timestamp::default() + Duration::from_secs(1);
    net.nodes[5].handle_verified(now, 4, built_at);
    let (low, high) = net.nodes[5].gossip_window(now);
    let mut gate = Gate::new(fragcast_shredder::Dialect::V0, Arc::clone(net.nodes[5].epochs()));
    gate.set_window(low, high);
    let message = env(5);
    let gateway = net.world.gateway(5);
    let wire = net.world.gateways[gateway].sign_verified(message.clone()).to_wire();
    let checked = gate.check(message.kind(), &wire.into());
    assert_eq!(checked.outcome, GossipOutcome::Accepted);
}
