//! Members who come and go, under real protocols: tables that leaders name, judge, fetch, refuse.

use std::collections::BTreeMap;

use super::network::Net;
use super::*;
use crate::control::{Records, RecordsPull, SignedTableNotice, TableNotice, TableRequest};
use crate::membership::{Member, RecordBody};
use crate::tables::{Unfit, Weights};

/// Records of nodes are dead after this long without renewal.
const LIFE: Duration = Duration::from_secs(20);

fn config(live: bool) -> Config {
    let mut config = Config::new(CHAIN);
    config.members.live = live;
    config.members.life = LIFE;
    config.members.renew = Duration::from_secs(5);
    config.guests = if live { 16 } else { 0 };
    config
}

/// A network of nodes of which `live` follow members, at a time of this century.
fn net(weights: &[u64], gateways: usize, live: impl Fn(usize) -> bool) -> Net {
    let mut world = World::new(weights, gateways);
    let now = Timestamp::from_nanos(1_700_000_000_000_000_000);
    // Records that live, which are renewed or die. Those of a file have no age.
    let renew = |(node, member): (usize, &Member)| {
        if !live(node) {
            return member.clone();
        }
        let body = RecordBody { sequence: now.as_micros() / 1_000, ..member.record.body.clone() };
        Member::new(body.sign(&world.identities[node]), member.weight)
    };
    let members = world.members.members().iter().enumerate().map(renew);
    world.members = Arc::new(Membership::new(CHAIN, members.collect()).unwrap());
    let n = weights.len();
    let nodes = (0..n).map(|node| {
        let mut protocol = world.node(node, config(live(node)));
        protocol.set_identity(world.identities[node].clone());
        let addresses = world.members.members()[node].record.addresses().collect();
        let own = OwnRecord { addresses, uplink_kbps: 1_000_000 };
        protocol.set_own_record(now, own);
        protocol
    });
    let nodes: Vec<Protocol> = nodes.collect();
    let ids = world.members.members().iter().map(Member::peer).collect();
    let mut net = Net::of(world, nodes, ids, 0.0);
    net.now = now;
    for one in 0..n {
        (0..one).for_each(|other| net.connect(one, other));
    }
    net.run_for(Duration::from_secs(1));
    net
}

/// Builds blocks, a second each.
fn build(net: &mut Net, blocks: std::ops::RangeInclusive<u64>) {
    for block in blocks {
        net.send(env(block), 0);
        net.send(frag(block, 0, 2_000), 0);
        net.send(seal(block, 1), 0);
        net.run_for(Duration::from_secs(1));
    }
}

/// First blocks and members of the epochs of a node.
fn epochs(net: &Net, node: usize) -> Vec<(u64, usize)> {
    let epochs = net.nodes[node].epochs().epochs().iter();
    epochs.map(|epoch| (epoch.from_block(), epoch.members().len())).collect()
}

fn table(net: &Net, node: usize) -> [u8; 32] {
    net.nodes[node].epochs().newest().members().hash()
}

fn news(net: &Net, node: usize) -> Vec<&TableNews> {
    let events = net.others[node].iter();
    events
        .filter_map(|event| if let Event::Table(news) = event { Some(news) } else { None })
        .collect()
}

fn assert_nobody_is_barred(net: &Net) {
    let mut all = net.others.iter().flatten();
    assert!(!all.any(|event| matches!(event, Event::Bar { .. })), "{:?}", net.others);
}

#[test]
fn a_member_that_is_gone_leaves_the_table_at_everybody_with_one_block() {
    let mut net = net(&[5, 5, 5, 5, 5, 1], 2, |_| true);
    build(&mut net, 1..=3);
    assert!((0..6).all(|node| epochs(&net, node) == [(0, 6)]), "nothing changes by itself");
    net.dead[5] = true;
    for other in 0..5 {
        let key = net.nodes[other].epochs().peers().key(&net.ids[5]).unwrap();
        net.nodes[other].handle_disconnected(key);
    }
    // Its record is 20 s old at block 20 or so: the leader of the next term names a table.
    build(&mut net, 4..=45);
    let first = table(&net, 0);
    for node in 0..5 {
        assert_eq!(net.nodes[node].epochs().newest().members().len(), 5, "node {node}");
        assert_eq!(table(&net, node), first);
        let taken = news(&net, node);
        let [TableNews::Taken { from_block, members: 5, .. }] = taken[..] else {
            panic!("node {node}: {taken:?}")
        };
        assert!(from_block % 10 == 0, "{from_block}");
        // The list of gateways holds since block 0 all the same.
        assert_eq!(net.nodes[node].epochs().newest().rotation_from(), 0);
        let (led, all) = (net.delivered[node].len(), 45 * 3);
        let own = (1..=45).filter(|block| net.world.gateway(*block) == node).count() * 3;
        assert_eq!(led, all - own, "node {node}: nobody lost a message");
    }
    assert_nobody_is_barred(&net);
}

#[test]
fn weights_that_change_make_another_table() {
    let mut net = net(&[5; 20], 1, |_| true);
    let mut weights: Weights = net.ids.iter().map(|id| (*id, 5)).collect();
    weights.insert(net.ids[7], 9);
    let weights = Arc::new(weights);
    for node in 0..20 {
        let now = net.now;
        net.nodes[node].set_weights(now, weights.clone(), 7);
    }
    build(&mut net, 1..=12);
    for node in 0..20 {
        let newest = net.nodes[node].epochs().newest().members();
        assert_eq!(newest.members()[7].weight, 9, "node {node}");
        assert_eq!(epochs(&net, node), [(0, 20), (10, 20)]);
    }
    assert_nobody_is_barred(&net);
}

/// A table of the leader's own making, named by it at block 0 for block 10.
fn name(net: &mut Net, leader: usize, members: Vec<Member>) -> ([u8; 32], SignedTableNotice) {
    name_for(net, 10, leader, members)
}

/// The same for another block.
fn name_for(
    net: &mut Net,
    from_block: u64,
    leader: usize,
    members: Vec<Member>,
) -> ([u8; 32], SignedTableNotice) {
    let table = Membership::new(CHAIN, members).unwrap();
    let key = &net.world.leader_keys[leader];
    let notice = TableNotice {
        chain_id: CHAIN,
        from_block,
        table: table.hash(),
        members: table.len() as u32,
        weights_block: 0,
        leader: key.verifying_key().to_bytes(),
    };
    (table.hash(), notice.sign(key))
}

fn tell(net: &mut Net, from: usize, to: usize, frame: &Control) {
    let key = net.nodes[to].epochs().peers().key(&net.ids[from]).unwrap();
    let now = net.now;
    net.nodes[to].handle_control(now, key, &frame.to_bytes());
}

/// Answers, as `from`, what node `to` has asked it for of a table.
fn serve(net: &mut Net, from: usize, to: usize, members: Vec<Member>) {
    let table = Membership::new(CHAIN, members).unwrap();
    let bytes = bytes::Bytes::from(crate::tables::encode(&table));
    let part = crate::control::TablePart { table: table.hash(), part: 0, of: 1, bytes };
    tell(net, from, to, &Control::TablePart(part));
}

#[test]
fn a_leader_that_throws_out_half_of_the_weight_is_followed_by_nobody() {
    let mut net = net(&[5; 6], 2, |_| true);
    build(&mut net, 1..=1);
    let half = net.world.members.members()[..3].to_vec();
    let (hash, signed) = name(&mut net, 0, half.clone());
    tell(&mut net, 0, 3, &Control::TableNotice(Box::new(signed)));
    assert!(net.nodes[3].parts.tables.is_wanted(&hash), "it asks who named it");
    serve(&mut net, 0, 3, half);
    let told = news(&net, 3);
    assert!(told.is_empty());
    net.run_for(Duration::from_millis(100));
    let told = news(&net, 3);
    let [TableNews::Refused { from_block: 10, reason: Unfit::Omits { omitted: 15, total: 30 } }] =
        told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!(epochs(&net, 3), [(0, 6)]);
    assert_eq!(net.nodes[3].outcomes().get(Outcome::TableUnfit), 1);
    assert_eq!(net.nodes[3].members().refused, 1);
    // It is not asked for again, and the chain goes on.
    tell(&mut net, 1, 3, &Control::TableNotice(Box::new(signed)));
    assert!(!net.nodes[3].parts.tables.is_wanted(&hash));
    build(&mut net, 2..=12);
    assert_eq!(net.delivered[3].len(), 36);
    assert_nobody_is_barred(&net);
}

#[test]
fn a_leader_that_gives_weight_to_its_own_is_followed_by_nobody() {
    let mut net = net(&[5; 6], 2, |_| true);
    build(&mut net, 1..=1);
    let mut members = net.world.members.members().to_vec();
    members[0].weight = 9;
    let (_, signed) = name(&mut net, 0, members.clone());
    tell(&mut net, 0, 3, &Control::TableNotice(Box::new(signed)));
    serve(&mut net, 0, 3, members);
    net.run_for(Duration::from_millis(100));
    let told = news(&net, 3);
    assert!(
        matches!(
            told[..],
            [TableNews::Refused { reason: Unfit::Weights { differ: 4, total: 30 }, .. }]
        ),
        "{told:?}"
    );
    assert_nobody_is_barred(&net);
}

#[test]
fn a_table_that_nobody_has_is_given_up() {
    let mut net = net(&[5; 4], 2, |_| true);
    build(&mut net, 1..=1);
    let mut members = net.world.members.members().to_vec();
    members[1].weight = 6;
    let (_, signed) = name(&mut net, 0, members);
    tell(&mut net, 0, 3, &Control::TableNotice(Box::new(signed)));
    net.run_for(Duration::from_secs(60));
    assert!(net.nodes[3].counters().table_parts_asked < 80, "{:?}", net.nodes[3].counters());
    assert_eq!(epochs(&net, 3), [(0, 4)]);
    assert_nobody_is_barred(&net);
}

#[test]
fn of_two_tables_that_one_leader_names_for_a_block_neither_counts() {
    let mut net = net(&[50; 4], 2, |_| true);
    build(&mut net, 1..=1);
    let with = |net: &Net, weight: u64| {
        let mut members = net.world.members.members().to_vec();
        members[1].weight = weight;
        members
    };
    let (a, b) = (with(&net, 51), with(&net, 52));
    let mut two = [name(&mut net, 0, a), name(&mut net, 0, b)];
    two.sort_by_key(|(hash, _)| *hash);
    let [low, high] = two.map(|(hash, signed)| (hash, Control::TableNotice(Box::new(signed))));
    tell(&mut net, 0, 2, &high.1);
    tell(&mut net, 0, 3, &low.1);
    net.run_for(Duration::from_secs(2));
    for node in [2, 3] {
        let twice = |news: &&TableNews| matches!(news, TableNews::Twice { .. });
        assert_eq!(news(&net, node).into_iter().filter(twice).count(), 1, "node {node}");
        for (hash, _) in [&low, &high] {
            assert_eq!(net.nodes[node].parts.tables.first_block_of(hash), None);
        }
        // Also of who had taken one of them already.
        let newest = net.nodes[node].epochs().newest();
        assert_eq!(newest.members().hash(), net.world.members.hash(), "node {node}");
    }
    assert_nobody_is_barred(&net);
}

#[test]
fn notices_of_others_than_the_terms_leader_or_of_other_times_are_not_taken() {
    let mut net = net(&[5; 4], 2, |_| true);
    build(&mut net, 1..=1);
    let members = net.world.members.members().to_vec();
    let (_, signed) = name(&mut net, 0, members);
    let with = |change: &dyn Fn(&mut TableNotice)| {
        let mut notice = signed.notice;
        change(&mut notice);
        let key =
            net.world.leader_keys.iter().find(|k| k.verifying_key().to_bytes() == notice.leader);
        Control::TableNotice(Box::new(notice.sign(key.unwrap())))
    };
    let other = net.world.leader_keys[1].verifying_key().to_bytes();
    let frames = [
        (with(&|n| n.leader = other), Outcome::TableUnknown),
        (with(&|n| n.from_block = 20), Outcome::TableUnknown),
        (with(&|n| n.from_block = 15), Outcome::TableUnknown),
        (with(&|n| n.from_block = 100), Outcome::TableUnknown),
        (with(&|n| n.chain_id = 6), Outcome::TableUnknown),
        (with(&|n| n.from_block = 0), Outcome::TableOld),
    ];
    for (number, (frame, outcome)) in frames.into_iter().enumerate() {
        let before = net.nodes[3].outcomes().get(outcome);
        tell(&mut net, 0, 3, &frame);
        assert_eq!(net.nodes[3].outcomes().get(outcome), before + 1, "frame {number}");
    }
    let mut forged = signed;
    forged.signature[0] ^= 1;
    tell(&mut net, 1, 3, &Control::TableNotice(Box::new(forged)));
    assert_eq!(net.nodes[3].outcomes().get(Outcome::ControlBad), 1);
}

#[test]
fn nodes_of_a_file_and_live_ones_go_together_and_bar_nobody() {
    let mut net = net(&[5, 5, 5, 5, 5, 1], 1, |node| node != 3 && node != 4);
    build(&mut net, 1..=3);
    net.dead[5] = true;
    for other in 0..5 {
        let key = net.nodes[other].epochs().peers().key(&net.ids[5]).unwrap();
        net.nodes[other].handle_disconnected(key);
    }
    // Nodes 3 and 4 renew nothing. They stay in tables, also once the first epoch is gone.
    build(&mut net, 4..=120);
    for node in [3, 4] {
        assert_eq!(epochs(&net, node), [(0, 6)], "it stays with its file");
        assert!(net.nodes[node].outcomes().get(Outcome::MembersOff) > 0);
    }
    for node in 0..3 {
        assert_eq!(epochs(&net, node), [(0, 5)], "node {node}");
    }
    for node in 1..5 {
        assert_eq!(net.delivered[node].len(), 360, "node {node}");
    }
    assert_nobody_is_barred(&net);
}

#[test]
fn what_is_not_asked_for_is_paid_for() {
    let mut net = net(&[5; 4], 1, |_| true);
    let frames = [
        Control::Records(Records { records: Vec::new() }),
        Control::TableRequest(TableRequest { table: [7; 32], part: 0 }),
    ];
    let expected = [Outcome::MembersUnasked, Outcome::MembersRefused];
    for (frame, outcome) in frames.iter().zip(expected) {
        let before = net.nodes[1].outcomes().get(outcome);
        tell(&mut net, 3, 1, frame);
        assert_eq!(net.nodes[1].outcomes().get(outcome), before + 1, "{outcome:?}");
    }
    // A flood of pulls is answered twice a second and then not looked at.
    let pull = Control::RecordsPull(RecordsPull { buckets: vec![0; 1_024] });
    let answered = |net: &Net| net.nodes[1].outcomes().get(Outcome::Control);
    let before = answered(&net);
    for _ in 0..3_000 {
        tell(&mut net, 2, 1, &pull);
    }
    assert!(answered(&net) <= before + 1);
}

/// A node that knows one member and the gateways, and nothing else.
fn newcomer(net: &mut Net, number: u8, first: usize) -> usize {
    let identity = SigningKey::from_bytes(&[number; 32]);
    let id = PeerId(identity.verifying_key().to_bytes());
    let nobody = Arc::new(Membership::new(CHAIN, Vec::new()).unwrap());
    let setup = Setup::new(config(true), nobody, net.world.schedule.clone(), []).unwrap();
    let mut node = setup.guest(&id, None);
    node.set_identity(identity);
    let addresses = vec![std::net::SocketAddr::from(([127, 0, 0, 1], 1_000 + u16::from(number)))];
    node.set_own_record(net.now, OwnRecord { addresses, uplink_kbps: 1_000_000 });
    let new = net.add(node, id);
    let (now, of_first) = (net.now, net.ids[first]);
    assert!(net.nodes[new].handle_contact(now, of_first).is_some());
    assert!(net.nodes[first].handle_guest(now, id).is_some());
    net.connect(new, first);
    new
}

/// A node is gone without a word.
fn gone(net: &mut Net, node: usize) {
    net.dead[node] = true;
    for other in (0..net.nodes.len()).filter(|other| *other != node) {
        if let Some(key) = net.nodes[other].epochs().peers().key(&net.ids[node]) {
            net.nodes[other].handle_disconnected(key);
        }
    }
}

#[test]
fn a_newcomer_that_knows_one_member_becomes_one() {
    let mut net = net(&[5; 5], 2, |_| true);
    build(&mut net, 1..=3);
    let new = newcomer(&mut net, 200, 4);
    net.run_for(Duration::from_millis(600));
    assert_eq!(epochs(&net, new), [(0, 5)], "it has its contact's table");
    assert!(!net.nodes[new].members().is_member);
    build(&mut net, 4..=45);
    for node in 0..6 {
        assert_eq!(net.nodes[node].epochs().newest().members().len(), 6, "node {node}");
        assert_eq!(table(&net, node), table(&net, 0));
    }
    assert!(net.nodes[new].members().is_member);
    let last: Vec<u64> = net.delivered[new].iter().map(|d| d.key.block).collect();
    for block in 36..=45 {
        assert_eq!(last.iter().filter(|of| **of == block).count(), 3, "block {block}");
    }
    assert_nobody_is_barred(&net);
}

#[test]
fn a_node_that_knows_no_head_takes_every_table_that_is_named() {
    let mut net = net(&[50; 5], 2, |_| true);
    let new = newcomer(&mut net, 200, 4);
    net.run_for(Duration::from_millis(600));
    assert_eq!(epochs(&net, new), [(0, 5)], "it has its contact's table, and no head");
    for number in 1..=3u64 {
        let mut members = net.world.members.members().to_vec();
        members[1].weight = 50 + number;
        let leader = net.world.gateway(number * 10 - 10);
        let (_, signed) = name_for(&mut net, number * 10, leader, members.clone());
        tell(&mut net, 4, new, &Control::TableNotice(Box::new(signed)));
        serve(&mut net, 4, new, members);
    }
    // No epoch of it ever ends, so the oldest makes room, and the next answers for its blocks.
    assert_eq!(epochs(&net, new), [(0, 5), (20, 5), (30, 5)]);
    assert!(net.nodes[new].epochs().at(5).is_some());
    assert_eq!(net.nodes[new].epochs().newest().members().members()[1].weight, 53);
    assert_eq!(net.nodes[new].outcomes().get(Outcome::TableUnknown), 0);
}

#[test]
fn a_table_without_a_block_comes_above_those_that_are_announced() {
    let mut net = net(&[50; 5], 2, |_| true);
    build(&mut net, 1..=1);
    let with = |net: &Net, weight: u64| {
        let mut members = net.world.members.members().to_vec();
        members[1].weight = weight;
        Arc::new(Membership::new(CHAIN, members).unwrap())
    };
    let (announced, newer) = (with(&net, 51), with(&net, 52));
    let parts = &mut net.nodes[3].parts;
    assert_eq!(parts.change_table(Some(10), announced).unwrap(), 10);
    // Most peers go by it, and its notice was missed.
    assert_eq!(parts.change_table(None, Arc::clone(&newer)).unwrap(), 11);
    assert_eq!(epochs(&net, 3), [(0, 5), (10, 5), (11, 5)]);
    assert_eq!(table(&net, 3), newer.hash());
}

#[test]
fn a_notice_for_which_there_is_no_room_waits_until_there_is() {
    let mut net = net(&[50; 5], 1, |_| true);
    build(&mut net, 1..=1);
    for (number, from_block) in [10, 20, 30].into_iter().enumerate() {
        let mut members = net.world.members.members().to_vec();
        members[1].weight = 51 + number as u64;
        let (hash, signed) = name_for(&mut net, from_block, 0, members.clone());
        tell(&mut net, 0, 3, &Control::TableNotice(Box::new(signed)));
        assert_eq!(net.nodes[3].parts.tables.is_wanted(&hash), number < 2, "{from_block}");
        serve(&mut net, 0, 3, members);
        // It is passed on all the same.
        net.run_for(Duration::from_millis(100));
        let at_another = net.nodes[2].parts.tables.first_block_of(&hash);
        assert_eq!(at_another, Some(from_block));
    }
    assert_eq!(epochs(&net, 3), [(0, 5), (10, 5), (20, 5)]);
    // The first epoch goes eight blocks and five seconds after its end.
    build(&mut net, 2..=25);
    assert_eq!(epochs(&net, 3), [(0, 5), (20, 5)], "and the third table is with nobody");
    assert!(net.nodes[3].counters().table_parts_asked > 2, "it was asked for");
}

#[test]
fn tables_that_are_looked_for_again_keep_no_others_from_coming() {
    let mut net = net(&[50; 5], 1, |_| true);
    build(&mut net, 1..=1);
    let before = net.nodes[3].counters().table_parts_asked;
    for (number, from_block) in [10, 20, 30].into_iter().enumerate() {
        // Nobody has them, and there are two places for tables that are on their way.
        let mut members = net.world.members.members().to_vec();
        members[1].weight = 51 + number as u64;
        let (_, signed) = name_for(&mut net, from_block, 0, members);
        tell(&mut net, 0, 3, &Control::TableNotice(Box::new(signed)));
    }
    net.run_for(Duration::from_millis(900));
    let asked = net.nodes[3].counters().table_parts_asked - before;
    assert_eq!(asked, 3, "each once, whatever was looked for since");
}

#[test]
fn a_table_is_named_though_blocks_are_shorter_than_the_looks_are_apart() {
    // Three blocks of ten are early enough, for 150 ms together.
    for phase in (0..250).step_by(50) {
        let mut net = net(&[5; 6], 1, |_| true);
        net.run_for(Duration::from_millis(phase));
        let mut weights: Weights = net.ids.iter().map(|id| (*id, 5)).collect();
        for block in 1..=19u64 {
            if block == 5 {
                // It is too late for block 10.
                weights.insert(net.ids[3], 6);
                for node in 0..6 {
                    let now = net.now;
                    net.nodes[node].set_weights(now, Arc::new(weights.clone()), 7);
                }
            }
            net.send(env(block), 0);
            net.send(seal(block, 0), 0);
            net.run_for(Duration::from_millis(50));
        }
        net.run_for(Duration::from_millis(200));
        for node in 0..6 {
            assert_eq!(epochs(&net, node), [(0, 6), (20, 6)], "node {node}, {phase} ms");
        }
    }
}

#[test]
fn who_is_told_of_a_table_by_a_peer_that_does_not_have_it_yet_gets_it_with_the_peer() {
    let mut net = net(&[50; 5], 1, |_| true);
    build(&mut net, 1..=3);
    // Its contact is 30 ms away and back, and the leader 50 ms from that.
    let new = newcomer(&mut net, 200, 4);
    net.unreachable.push(new);
    build(&mut net, 4..=9);
    let mut weights: Weights = net.ids.iter().map(|id| (*id, 50)).collect();
    weights.insert(net.ids[1], 51);
    let now = net.now;
    net.nodes[0].set_weights(now, Arc::new(weights), 7);
    net.send(env(10), 0);
    let has = |net: &Net, node: usize| table(net, node) != net.world.members.hash();
    let mut at = [None; 2];
    for _ in 0..1_000 {
        net.run_for(Duration::from_millis(5));
        for (at, node) in at.iter_mut().zip([4, new]) {
            *at = at.or_else(|| has(&net, node).then_some(net.now));
        }
    }
    let [contact, newcomer] = at.map(|at| at.expect("everybody has it"));
    assert!(newcomer.since(contact) <= Duration::from_millis(100), "{at:?}");
}

#[test]
fn a_newcomer_is_called_only_where_it_was_reached() {
    let mut net = net(&[5; 5], 2, |_| true);
    build(&mut net, 1..=3);
    let new = newcomer(&mut net, 200, 4);
    // One of its addresses is somebody else's, or of a family that leaders do not have.
    let [own, other] = [1_200, 9].map(|port| std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    let now = net.now;
    let record = OwnRecord { addresses: vec![other, own], uplink_kbps: 1_000_000 };
    net.nodes[new].set_own_record(now, record);
    net.nowhere.push(other);
    build(&mut net, 4..=45);
    for node in 0..6 {
        let newest = net.nodes[node].epochs().newest();
        let member = newest.members().index(&net.ids[new]).map(|of| newest.members().get(of));
        let member = member.flatten().unwrap_or_else(|| panic!("node {node}: it is a member"));
        assert_eq!(member.addresses().collect::<Vec<_>>(), [own], "node {node}");
        assert_eq!(member.record.addresses().count(), 2, "as it was signed");
        assert_eq!(table(&net, node), table(&net, 0));
    }
    assert_nobody_is_barred(&net);
}

#[test]
fn who_is_not_reached_at_its_address_does_not_become_a_member() {
    let mut net = net(&[5; 5], 2, |_| true);
    build(&mut net, 1..=3);
    let new = newcomer(&mut net, 200, 4);
    // Its record says that it is where somebody else is, who has another key.
    net.unreachable.push(new);
    build(&mut net, 4..=45);
    assert!((0..6).all(|node| net.nodes[node].epochs().newest().members().len() == 5));
    assert!(net.nodes[0].parts.records.pool.get(&net.ids[new]).is_some(), "its record is known");
}

/// Mean latency of what came, in ms, and of the pairs of a member and a message of others the share
/// that came; of blocks from `from` on.
fn measured(net: &Net, from: u64, to: u64, members: &dyn Fn(usize, u64) -> bool) -> (f64, f64) {
    let (mut came, mut due, mut sum) = (0u64, 0u64, 0.0);
    for node in 0..net.nodes.len() {
        for block in (from..=to).filter(|block| members(node, *block)) {
            if net.world.gateway(block) == node {
                continue;
            }
            due += 3;
            for delivered in net.delivered[node].iter().filter(|d| d.key.block == block) {
                came += 1;
                sum += delivered.times.latency().map_or(0.0, |latency| latency.as_secs_f64() * 1e3);
            }
        }
    }
    (sum / came as f64, came as f64 / due as f64)
}

/// Notes since which block newcomers are members: of the next but nine, since the table is known ahead
/// of its first block.
fn note_members(net: &Net, came: &mut BTreeMap<usize, u64>, block: u64) {
    for (node, at) in came.iter_mut().filter(|(_, at)| **at == u64::MAX) {
        if net.nodes[*node].members().is_member {
            let first = net.nodes[*node].members().from_block;
            *at = first.max(block) + 1;
        }
    }
}

#[test]
fn a_network_whose_members_come_and_go_loses_nothing_and_is_as_fast() {
    const NODES: usize = 40;
    const LAST: u64 = 180;
    let still = {
        let mut net = net(&[0; NODES], 2, |_| true);
        build(&mut net, 1..=LAST);
        measured(&net, 20, LAST, &|_, _| true)
    };
    let mut net = net(&[0; NODES], 2, |_| true);
    // Every ten seconds one goes and one comes: of forty members fifteen percent a minute.
    let (mut went, mut came, mut began) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for number in 0..8u8 {
        let begin = u64::from(number) * 10 + 1;
        build(&mut net, begin..=begin + 4);
        let goes = 2 + usize::from(number);
        gone(&mut net, goes);
        went.insert(goes, begin + 5);
        let new = newcomer(&mut net, 100 + number, NODES - 1 - usize::from(number));
        came.insert(new, u64::MAX);
        began.insert(new, begin + 4);
        for block in begin + 5..=begin + 9 {
            build(&mut net, block..=block);
            note_members(&net, &mut came, block);
        }
    }
    for block in 81..=LAST {
        build(&mut net, block..=block);
        note_members(&net, &mut came, block);
    }
    // Who comes counts from its first block as a member on, who goes to its end.
    let old = |node: usize, block: u64| {
        !came.contains_key(&node) && went.get(&node).is_none_or(|at| block < *at)
    };
    let new = |node: usize, block: u64| came.get(&node).is_some_and(|at| block >= *at);
    let (latency, complete) = measured(&net, 20, LAST, &old);
    assert!(complete >= 0.999, "{complete}");
    assert!(latency <= still.0 * 1.05, "{latency} ms, {} ms", still.0);
    // Ten blocks of a term, as many before the next one's, and a wait for one of three epochs to end.
    let waited: Vec<u64> = came.iter().map(|(node, at)| at - began[node]).collect();
    assert!(waited.iter().all(|blocks| *blocks <= 50), "{waited:?}");
    let (_, complete) = measured(&net, 20, LAST, &new);
    assert!(complete >= 0.999, "{complete}");
    let alive = (0..net.nodes.len()).filter(|node| !net.dead[*node]);
    let sizes: std::collections::BTreeSet<usize> =
        alive.map(|node| net.nodes[node].epochs().newest().members().len()).collect();
    assert!(sizes.iter().all(|members| (NODES - 4..=NODES + 4).contains(members)), "{sizes:?}");
    assert_nobody_is_barred(&net);
}
