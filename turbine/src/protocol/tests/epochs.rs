//! Epochs that change under real protocols: members join, leave and weigh otherwise, a gateway is
//! added, between two blocks, while both tables are in use.

use super::network::{Net, TREES, config};
use super::*;
use crate::epoch::EpochError;
use crate::gossip::Listener;
use crate::health::State;
use crate::membership::{Member, Membership};

/// Identities; node 5 joins with the second epoch and node 30 leaves, so each of the tables has
/// 50 members, and hardly anybody has the same place in both.
const NODES: usize = 51;
const JOINS: usize = 5;
const LEAVES: usize = 30;
/// The first block of the second epoch: in the middle of a term.
const FROM: u64 = 25;

/// The two epochs of the world, and one after them.
struct Story {
    world: World,
    first: Epoch,
    second: Epoch,
    third: Epoch,
}

fn table(members: impl IntoIterator<Item = Member>) -> Arc<Membership> {
    Arc::new(Membership::new(CHAIN, members.into_iter().collect()).unwrap())
}

impl Story {
    /// Gateways 0 and 1 lead in the first epoch, gateway 2 as well from the second on; gateway g
    /// is run by node g.
    fn new(nodes: usize, joins: usize, leaves: usize) -> Self {
        let weights: Vec<u64> = (0..nodes as u64).map(|i| 1 + i % 7).collect();
        let mut world = World::new(&weights, 3);
        let all = world.members.members().to_vec();
        let but = |gone: usize| all.iter().enumerate().filter(move |(n, _)| *n != gone);
        let before = table(but(joins).map(|(_, member)| member.clone()));
        let after = table(but(leaves).map(|(n, member)| {
            let weight = if n == 7 { 40 } else { member.weight };
            Member { weight, ..member.clone() }
        }));
        let schedule = |gateways: usize| {
            let gateways = world.gateways[..gateways].iter().map(GatewayKey::address);
            Schedule::new(gateways.collect(), 10).unwrap()
        };
        let epoch = |from, members: &Arc<Membership>, gateways: usize| {
            let delegations = world.delegations[..gateways].iter().copied();
            Epoch::new(CHAIN, from, members.clone(), schedule(gateways), delegations).unwrap()
        };
        let (first, second) = (epoch(0, &before, 2), epoch(FROM, &after, 3));
        let third = epoch(FROM + 200, &after, 3);
        let later = vec![(FROM, schedule(3))];
        world.schedule = schedule(2);
        world.later = later;
        Self { world, first, second, third }
    }

    /// All nodes, each with what it knows at the beginning, connected as far as they know one
    /// another.
    fn net(self, config: &Config, loss: f64) -> (Net, Epoch, Epoch) {
        let Self { world, first, second, third } = self;
        let ids: Vec<PeerId> = world.members.members().iter().map(Member::peer).collect();
        let is_member = |id: &PeerId| first.members().index(id).is_some();
        let nodes = ids.iter().enumerate().map(|(n, id)| {
            let (mut config, mut epochs) = (config.clone(), vec![first.clone()]);
            if !is_member(id) {
                // It is alone until then, and has no reason to complain.
                config.gossip.policy = Policy::Off;
                epochs.push(second.clone());
            }
            let setup = Setup::of(config, epochs).unwrap();
            setup.node(id, world.leader_keys.get(n).cloned()).unwrap()
        });
        let nodes = nodes.collect();
        let mut net = Net::of(world, nodes, ids, loss);
        for one in 0..net.nodes.len() {
            (0..one).for_each(|other| net.connect(one, other));
        }
        net.settle();
        (net, second, third)
    }
}

fn take(net: &mut Net, node: usize, epoch: &Epoch) {
    let now = net.now;
    net.nodes[node].handle_epoch(now, epoch.clone()).unwrap();
}

/// Keys of the messages of some blocks that a node was given, in order, each as often as it came.
fn given(net: &Net, node: usize, blocks: std::ops::RangeInclusive<u64>) -> Vec<(u64, u16)> {
    let all = net.delivered[node].iter().map(|d| (d.key.block, d.key.message));
    let mut given: Vec<(u64, u16)> = all.filter(|(block, _)| blocks.contains(block)).collect();
    given.sort_unstable();
    given
}

/// Each message of some blocks of so many frags, once.
fn whole(blocks: std::ops::RangeInclusive<u64>, frags: u16) -> Vec<(u64, u16)> {
    blocks.flat_map(|block| (0..frags + 2).map(move |message| (block, message))).collect()
}

/// What is built of the blocks after that.
const TAIL: [u64; 10] = [36, 43, 50, 57, 64, 71, 78, 85, 92, 93];

/// Nodes to whom the epoch comes late, when blocks of it have been under way for a second.
const LATE: [usize; 6] = [9, 14, 23, 33, 41, 50];

/// Runs the story: blocks 22 to 29, those around the boundary at the same time. Gives the nodes.
fn run(route: RoutePolicy, loss: f64) -> Net {
    let story = Story::new(NODES, JOINS, LEAVES);
    let (mut net, second, third) = story.net(&config(route, loss), loss);
    for block in 22..24 {
        net.block(block, 3, 8_000);
    }
    // It comes at different moments, to some a whole block before.
    for node in (0..NODES).filter(|node| *node != JOINS && !LATE.contains(node)) {
        if node % 3 == 0 {
            net.run_for(Duration::from_millis(3));
        }
        take(&mut net, node, &second);
    }
    // Block 24 is of the first epoch and led by node 0, block 25 of the second, led by node 2.
    assert_eq!((net.world.gateway(24), net.world.gateway(25)), (0, 2));
    net.send(env(24), 0);
    net.send(frag(24, 0, 8_000), 0);
    net.send(env(25), 0);
    for seq in 1..3 {
        net.send(frag(25, seq - 1, 8_000), 0);
        net.send(frag(24, seq, 8_000), 0);
        net.run_for(Duration::from_millis(15));
    }
    net.send(frag(25, 2, 8_000), 0);
    net.send(seal(25, 3), 0);
    net.send(seal(24, 3), 0);
    net.run_for(Duration::from_secs(1));
    for node in LATE {
        net.run_for(Duration::from_millis(20));
        take(&mut net, node, &second);
    }
    net.run();
    for block in 26..30 {
        net.block(block, 3, 8_000);
    }
    // The chain goes on, though nobody builds most of its blocks, until the window has left the
    // first epoch behind, and for a while.
    for block in TAIL {
        net.block(block, 0, 100);
        net.run_for(Duration::from_secs(if block < 90 { 0 } else { 6 }));
    }
    // The next one is known to everybody before the first of its blocks.
    (0..NODES).for_each(|node| {
        let now = net.now;
        // Who is no member any more may not have been told.
        if node != LEAVES {
            net.nodes[node].handle_epoch(now, third.clone()).unwrap();
        }
    });
    net.run();
    net
}

#[test]
fn fifty_nodes_change_their_epoch_between_two_blocks_and_lose_nothing() {
    for route in TREES {
        let net = run(route, 0.05);
        for node in 0..NODES {
            let leads = |block| net.world.gateway(block) == node;
            let led = |all: Vec<(u64, u16)>| {
                all.into_iter().filter(|(block, _)| !leads(*block)).collect::<Vec<_>>()
            };
            if node != JOINS {
                assert_eq!(given(&net, node, 22..=24), led(whole(22..=24, 3)), "node {node}");
            }
            if node != LEAVES {
                assert_eq!(given(&net, node, 25..=29), led(whole(25..=29, 3)), "node {node}");
                let tail = TAIL.iter().flat_map(|block| whole(*block..=*block, 0)).collect();
                assert_eq!(given(&net, node, 30..=99), led(tail), "node {node}");
            }
        }
        for (node, events) in net.others.iter().enumerate() {
            let quiet = events.iter().all(|event| matches!(event, Event::Epoch(_)));
            assert!(quiet, "{route:?}: nobody is barred, nothing is wrong: {node} {events:?}");
        }
        for node in (0..NODES).filter(|node| *node != LEAVES) {
            assert_eq!(net.nodes[node].outcomes().get(Outcome::BadSignature), 0, "node {node}");
        }
        let late: u64 =
            LATE.iter().map(|n| net.nodes[*n].outcomes().get(Outcome::OtherTable)).sum();
        assert!(late > 0, "who was late had shreds that it could not check");
    }
}

#[test]
fn who_joins_and_who_leaves_is_told_and_keys_stay() {
    let net = run(TREES[2], 0.0);
    let id = |node: usize| net.ids[node];
    for node in (0..NODES).filter(|node| ![JOINS, LEAVES].contains(node)) {
        let changes: Vec<&EpochChange> = net.others[node]
            .iter()
            .map(|event| match event {
                Event::Epoch(change) => &**change,
                other => panic!("{other:?}"),
            })
            .collect();
        let [came, went, next] = changes[..] else { panic!("{changes:?}") };
        assert_eq!((came.began, came.ended), (Some(FROM), None));
        assert_eq!(came.joined.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [id(JOINS)]);
        assert!(came.left.is_empty(), "not before the window has passed");
        assert_eq!((went.began, went.ended), (None, Some(0)));
        assert_eq!(went.left.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [id(LEAVES)]);
        assert_eq!((next.began, &next.joined, &next.left), (Some(FROM + 200), &vec![], &vec![]));
        let view = net.nodes[node].epochs();
        assert_eq!((view.peers().len(), view.epochs().len()), (NODES - 1, 2));
        // In the first table everybody from the newcomer's place on stood one place further on.
        let others = (0..NODES).filter(|n| ![JOINS, LEAVES].contains(n));
        for other in others {
            let key = view.peers().key(&id(other)).unwrap();
            assert_eq!(key.slot(), other - usize::from(other > JOINS));
            assert!(other == node || net.nodes[node].is_connected(key), "{node} {other}");
        }
        assert_eq!(view.peers().key(&id(LEAVES)), None);
        assert_eq!(net.nodes[node].peers_elsewhere(), 0, "all have greeted with the new table");
        let me = view.peers().key(&id(node)).unwrap();
        assert_eq!(net.nodes[node].me(), me);
    }
    // Who is no member any more is alone.
    let gone = &net.nodes[LEAVES];
    let connected = gone.epochs().peers().iter().filter(|(key, _)| gone.is_connected(*key));
    assert_eq!(connected.count(), 0);
    // The newcomer relays, in trees of which it has a place of its own.
    assert!(net.nodes[JOINS].counters().forwarded > 0);
    assert_eq!(net.nodes[JOINS].counters().unknown_plan, 0);
}

#[test]
fn the_change_is_the_same_for_the_same_seed() {
    let digest = || run(TREES[2], 0.05).digest.finalize().to_hex().to_string();
    let first = digest();
    assert_eq!(first, digest());
    assert_eq!(
        first, "2cb6baf703a3373625d3dc85755a8e22da490cb6e2f1b1a0348f9877459d6f8a",
        "the protocol's behaviour changed; pin the new digest if it was meant"
    );
}

#[test]
fn what_a_late_node_missed_is_repaired_across_the_boundary() {
    let story = Story::new(12, 5, 8);
    let (mut net, second, _) = story.net(&config(TREES[2], 0.02), 0.0);
    net.block(23, 2, 5_000);
    for node in (0..12).filter(|node| ![5, 9].contains(node)) {
        take(&mut net, node, &second);
    }
    // Of block 24 node 9 loses the end as well.
    net.send(env(24), 0);
    net.run_for(Duration::from_millis(300));
    net.cut[9] = true;
    net.send(frag(24, 0, 5_000), 0);
    net.send(seal(24, 1), 0);
    net.run_for(Duration::from_millis(50));
    net.cut[9] = false;
    net.send(env(25), 0);
    net.send(frag(25, 0, 5_000), 0);
    net.send(seal(25, 1), 0);
    net.run_for(Duration::from_secs(2));
    assert_eq!(given(&net, 9, 24..=25), whole(24..=24, 1), "of block 25 it can check nothing");
    assert!(net.others[9].is_empty(), "and accuses nobody: {:?}", net.others[9]);
    take(&mut net, 9, &second);
    net.run();
    assert_eq!(given(&net, 9, 24..=25), whole(24..=25, 1));
    let repaired = net.delivered[9].iter().filter(|d| d.via == Via::Repair);
    assert!(repaired.map(|d| d.key.block).any(|block| block == 25));
    // From whom it comes makes no difference: those of the old table answer for the new blocks.
    assert_eq!(given(&net, 5, 25..=25), whole(25..=25, 1), "who joined has all of it as well");
}

#[test]
fn an_epoch_that_comes_too_late_is_refused_and_the_node_goes_on() {
    let story = Story::new(12, 5, 8);
    let (mut net, second, third) = story.net(&config(TREES[2], 0.02), 0.0);
    // Everybody is late, and the old schedule's leader goes on.
    net.world.later.clear();
    (23..30).for_each(|block| net.block(block, 1, 2_000));
    let (now, before) = (net.now, net.nodes[4].epochs().clone());
    let error = net.nodes[4].handle_epoch(now, second).unwrap_err();
    assert_eq!(error, EpochError::Late { from_block: FROM, block: 25 });
    assert!(Arc::ptr_eq(&before, net.nodes[4].epochs()) && net.nodes[4].poll_event().is_none());
    let early = Epoch::new(
        CHAIN,
        0,
        third.members().clone(),
        third.schedule().clone(),
        net.world.delegations.clone(),
    );
    let error = net.nodes[4].handle_epoch(now, early.unwrap()).unwrap_err();
    assert_eq!(error, EpochError::Order { from_block: 0, newest: 0 });
    net.block(30, 1, 2_000);
    assert_eq!(given(&net, 4, 30..=30), whole(30..=30, 1));
    take(&mut net, 4, &third);
}

#[test]
fn listeners_are_served_in_both_epochs() {
    let mut settings = config(TREES[2], 0.02);
    settings.gossip.policy = Policy::Standby;
    let story = Story::new(12, 5, 8);
    let (mut net, second, _) = story.net(&settings, 0.0);
    let block = |net: &mut Net, number: u64| {
        net.send(env(number), 0);
        for seq in 0..5 {
            net.run_for(Duration::from_millis(200));
            net.send(frag(number, seq, 3_000), 0);
        }
        net.send(seal(number, 5), 0);
    };
    block(&mut net, 22);
    // Node 10 lives on gossip, and so does somebody from outside, whom five members know.
    net.cut[10] = true;
    let outsider = crate::gossip::outsider(b"a peer of based-op's");
    for node in [3, 4, 6, 7, 8] {
        let now = net.now;
        net.nodes[node].handle_listener(now, outsider, true);
    }
    block(&mut net, 23);
    net.run_for(Duration::from_millis(500));
    for node in (0..12).filter(|node| *node != 5) {
        take(&mut net, node, &second);
    }
    net.gossip.copies.clear();
    for number in 24..27 {
        block(&mut net, number);
    }
    net.run_for(Duration::from_secs(1));
    assert_eq!(net.nodes[10].health().state(), State::Gossip);
    assert_eq!(given(&net, 10, 22..=26), whole(22..=26, 5));
    for node in (0..12).filter(|node| ![10, 8, 5].contains(node)) {
        let led = |all: Vec<(u64, u16)>| -> Vec<(u64, u16)> {
            all.into_iter().filter(|(block, _)| net.world.gateway(*block) != node).collect()
        };
        assert_eq!(given(&net, node, 22..=26), led(whole(22..=26, 5)), "node {node}");
        assert_eq!(net.nodes[node].health().state(), State::Turbine);
    }
    let copies = net.gossip.copies.values();
    assert_eq!(copies.len(), 21, "each message of three blocks");
    let most = copies.max().unwrap();
    assert!(*most <= 5, "the leader, two for each listener: {most}");
    // Who left is nobody's link any more; it is still a peer, until the window has passed.
    let view = net.nodes[3].epochs();
    assert!(view.newest().members().index(&net.ids[8]).is_none());
    assert!(view.peers().key(&net.ids[8]).is_some());
    assert_eq!(net.nodes[3].listeners(), 2);
    let listener = Listener::Member(view.peers().key(&net.ids[10]).unwrap());
    let now = net.now;
    net.nodes[3].handle_listener(now, listener, false);
    assert_eq!(net.nodes[3].listeners(), 1);
}

#[test]
fn delegations_that_are_learnt_serve_both_epochs() {
    let story = Story::new(12, 5, 8);
    let (mut net, second, _) = story.net(&config(TREES[2], 0.02), 0.0);
    for node in (0..12).filter(|node| *node != 5) {
        take(&mut net, node, &second);
    }
    net.run();
    // Gateway 0 moves to node 3 and another key from block 24 on. One node is told.
    let key = SigningKey::from_bytes(&[77; 32]);
    let delegation = Delegation {
        chain_id: CHAIN,
        first: 24,
        last: u64::MAX,
        sequence: 2,
        peer: net.ids[3],
        key: key.verifying_key().to_bytes(),
    };
    let frame = Control::Delegation(delegation.sign(&net.world.gateways[0])).to_bytes();
    let (now, from) = (net.now, net.nodes[6].epochs().peers().key(&net.ids[7]).unwrap());
    let before = net.nodes[11].epochs().clone();
    net.nodes[6].handle_control(now, from, &frame);
    net.run();
    for (n, node) in net.nodes.iter().enumerate() {
        let leaders = [23, 24, 30].map(|block| node.epochs().leader(block).map(|l| l.peer));
        assert_eq!(leaders, [net.ids[0], net.ids[3], net.ids[3]].map(Some), "node {n}");
    }
    assert!(!Arc::ptr_eq(&before, net.nodes[11].epochs()), "it is published");
}

#[test]
fn delegations_of_another_epoch_leave_before_the_data_that_they_authorise() {
    let story = Story::new(12, 5, 8);
    let (mut net, second, _) = story.net(&config(TREES[2], 0.02), 0.0);
    take(&mut net, 6, &second);
    let (now, node) = (net.now, &mut net.nodes[6]);
    let sent: Vec<Transmit> = std::iter::from_fn(|| node.poll_transmit(now)).collect();
    let delegation = |sent: &&Transmit| match &sent.payload {
        Payload::Control(frame) => {
            matches!(Control::from_bytes(frame), Ok(Control::Delegation(_)))
        }
        Payload::Shred(_) => false,
    };
    let lanes: Vec<Lane> = sent.iter().filter(delegation).map(|sent| sent.lane).collect();
    assert_eq!(lanes.len(), 10, "gateway 2's, to all that are connected: {lanes:?}");
    assert!(lanes.iter().all(|lane| *lane == Lane::Data), "{lanes:?}");
}

#[test]
fn a_gateway_that_registers_later_delegates_without_anybodys_restart() {
    let story = Story::new(12, 5, 8);
    let (mut net, second, _) = story.net(&config(TREES[2], 0.02), 0.0);
    net.cut[5] = true;
    // Gateway 2 leads from block 25 on, and only its own node has the delegation.
    let known = net.world.delegations[..2].to_vec();
    let (members, schedule) = (second.members().clone(), second.schedule().clone());
    let without = Epoch::new(CHAIN, FROM, members, schedule, known).unwrap();
    let others = || (0..12).filter(|node| ![2, 5].contains(node));
    // Half of them know the gateway before it tells, half of them after.
    others().filter(|node| node % 2 == 0).for_each(|node| take(&mut net, node, &without));
    take(&mut net, 2, &second);
    net.run();
    let leads = |net: &Net, node: usize| net.nodes[node].epochs().leader(25).map(|l| l.peer);
    // To the others block 25 is gateway 0's still.
    assert!(
        others().all(|node| leads(&net, node) == Some(net.ids[if node % 2 == 0 { 2 } else { 0 }]))
    );
    others().filter(|node| node % 2 == 1).for_each(|node| take(&mut net, node, &without));
    net.run();
    assert!(others().all(|node| leads(&net, node) == Some(net.ids[2])));
    (23..27).for_each(|block| net.block(block, 2, 3_000));
    for node in others().filter(|node| *node != 8) {
        let mine = |(block, _): &(u64, u16)| net.world.gateway(*block) == node;
        let all: Vec<_> = whole(23..=26, 2).into_iter().filter(|key| !mine(key)).collect();
        assert_eq!(given(&net, node, 23..=26), all, "node {node}");
        let quiet = net.others[node].iter().all(|event| matches!(event, Event::Epoch(_)));
        assert!(quiet, "{:?}", net.others[node]);
    }
}

#[test]
fn a_change_that_was_announced_is_moved_and_the_old_leader_goes_on_until_then() {
    let story = Story::new(12, 5, 8);
    let (mut net, second, _) = story.net(&config(TREES[2], 0.02), 0.0);
    net.cut[5] = true;
    let all = || (0..12).filter(|node| *node != 5);
    all().for_each(|node| take(&mut net, node, &second));
    net.block(23, 2, 3_000);
    let at = |net: &Net, node: usize| net.nodes[node].epochs().newest().from_block();
    assert!(all().all(|node| at(&net, node) == FROM));
    // A term later, by order of everybody's registry: what stays is the first table until then.
    let (members, known) = (second.members().clone(), net.world.delegations.clone());
    let moved = Epoch::new(CHAIN, 30, members, second.schedule().clone(), known).unwrap();
    for node in all() {
        let now = net.now;
        net.nodes[node].handle_epoch_instead(now, moved.clone()).unwrap();
    }
    net.world.later[0].0 = 30;
    net.run();
    (24..32).for_each(|block| net.block(block, 2, 3_000));
    for node in all() {
        // Node 8 is no member of the second table.
        let last = if node == 8 { 29 } else { 31 };
        let mine = |(block, _): &(u64, u16)| net.world.gateway(*block) == node;
        let all: Vec<_> = whole(23..=last, 2).into_iter().filter(|key| !mine(key)).collect();
        assert_eq!(given(&net, node, 23..=last), all, "node {node}");
        assert_eq!(net.nodes[node].epochs().epochs().len(), 2);
    }
    // What has begun is moved no more.
    let (now, members) = (net.now, second.members().clone());
    let back = Epoch::new(CHAIN, 30, members, net.world.schedule.clone(), []).unwrap();
    let error = net.nodes[3].handle_epoch_instead(now, back).unwrap_err();
    assert_eq!(error, EpochError::Order { from_block: 30, newest: 30 });
}
