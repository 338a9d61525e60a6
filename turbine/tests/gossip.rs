//! The gossip driver on loopback: real sockets and handshakes, nodes without an overlay, and
//! peers that are plain libp2p.
//!
//! Time limits only guard against hanging.
#![cfg(feature = "gossip")]

#[path = "gossip/world.rs"]
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fragcast_shredder::{BlockBuilder, GatewayKey, Kind, Message};
use fragcast_turbine::gossip::{GossipAction, GossipOutcome, Listener, outsider};
use fragcast_turbine::net::gossip::{
    GossipLimits, GossipNetConfig, GossipNetError, GossipSnapshot, libp2p_id_of,
};
use fragcast_turbine::testing::{env, frag, seal, sign};
use fragcast_turbine::{Epoch, EpochsView, Membership};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::{CHAIN, GUARD, Node, Stranger, World, epoch, pour, topic, until, wire_of};

fn publish(kind: Kind, wire: &Bytes) -> GossipAction {
    GossipAction::Publish { kind, wire: wire.clone() }
}

/// The member at this place of the table.
fn member(place: u32) -> Listener {
    Listener::Member(place.into())
}

/// Each of two nodes has learnt that the other one listens.
async fn both_meshed(a: &Node, b: &Node) {
    for node in [a, b] {
        node.until(|s| s.mesh == [1; 3] && s.listeners == 1).await;
    }
}

/// Signed by somebody else.
fn forged(seq: u64) -> Bytes {
    let key = GatewayKey::from_bytes([0x77; 32]).unwrap();
    key.sign(frag(1, seq).message().clone()).to_wire().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_reaches_every_listener_byte_for_byte() {
    let world = World::new(4);
    let mut nodes = world.start_all(&GossipNetConfig::new(CHAIN)).await;
    for node in &nodes {
        node.act(GossipAction::Listen(true)).await;
    }
    let mut stranger = Stranger::new();
    stranger.subscribe();
    stranger.dial(&nodes[3]);
    stranger.until(|s| s.subscribed.len() == 1).await;
    for (i, node) in nodes.iter().enumerate() {
        // With the stranger, for the one that it is connected to.
        node.until(|s| s.mesh == [3 + usize::from(i == 3); 3]).await;
    }
    for (kind, message) in [
        (Kind::Env, env(1)),
        (Kind::Frag, frag(1, 0)),
        (Kind::Frag, frag(1, 1)),
        (Kind::Seal, seal(1, 2)),
    ] {
        let wire = wire_of(&message);
        nodes[0].act(publish(kind, &wire)).await;
        for node in &mut nodes[1..] {
            assert_eq!(node.message().await, message);
        }
        stranger.until(|s| s.received.iter().any(|(_, data)| *data == wire)).await;
        let (from, _) = stranger.received.iter().find(|(_, data)| *data == wire).unwrap();
        assert_eq!(*from, topic(kind));
    }
    // And the other way.
    let message = frag(2, 0);
    stranger.publish(Kind::Frag, &wire_of(&message));
    stranger
        .drive_while(async {
            for node in &mut nodes {
                assert_eq!(node.message().await, message);
            }
        })
        .await;
    let outside = outsider(&stranger.id().to_bytes());
    assert!(nodes[3].told().contains(&(outside, true)));
    let snapshot = nodes[0].handle.fresh_snapshot().await;
    assert_eq!(snapshot.published, 4);
    assert!(snapshot.bytes_sent > 0 && snapshot.bytes_received > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_in_standby_publishes_to_listeners() {
    let world = World::new(3);
    let mut nodes = world.start_all(&GossipNetConfig::new(CHAIN)).await;
    nodes[1].act(GossipAction::Listen(true)).await;
    nodes[0].listener(member(1), true).await;
    let message = frag(1, 0);
    nodes[0].act(publish(Kind::Frag, &wire_of(&message))).await;
    assert_eq!(nodes[1].message().await, message);
    // Nobody listens any more.
    nodes[1].act(GossipAction::Listen(false)).await;
    nodes[0].listener(member(1), false).await;
    // Topics are left one by one, and that of Frags perhaps last: until then it may be sent some.
    let nobody = async {
        for seq in 1.. {
            nodes[0].act(publish(Kind::Frag, &wire_of(&frag(1, seq)))).await;
            let snapshot = nodes[0].handle.fresh_snapshot().await;
            if snapshot.not_published.iter().any(|(why, n)| *why == "no_peers" && *n > 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(GUARD, nobody).await.expect("nobody is published to any more");
    assert_eq!(nodes[2].waiting(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_listens_late_is_sent_what_it_has_missed() {
    let world = World::new(3);
    let mut nodes = world.start_all(&GossipNetConfig::new(CHAIN)).await;
    nodes[1].act(GossipAction::Listen(true)).await;
    nodes[0].listener(member(1), true).await;
    let all: Vec<_> = [env(1), frag(1, 0), frag(1, 1), seal(1, 2)].into();
    let kinds = [Kind::Env, Kind::Frag, Kind::Frag, Kind::Seal];
    for (kind, message) in kinds.into_iter().zip(&all) {
        nodes[0].act(publish(kind, &wire_of(message))).await;
        assert_eq!(nodes[1].message().await, *message);
    }
    let before = nodes[1].handle.fresh_snapshot().await.bytes_received;

    nodes[2].act(GossipAction::Listen(true)).await;
    nodes[0].listener(member(2), true).await;
    // What the protocol does when a listener appears.
    for (kind, message) in kinds.into_iter().zip(&all) {
        nodes[0].act(publish(kind, &wire_of(message))).await;
    }
    let mut got = Vec::new();
    for _ in &all {
        got.push(nodes[2].message().await);
    }
    assert_eq!(got, all);
    // Once more changes nothing: everybody has it.
    for (kind, message) in kinds.into_iter().zip(&all) {
        nodes[0].act(publish(kind, &wire_of(message))).await;
    }
    nodes[0].until(|s| s.not_published.contains(&("duplicate", 4))).await;
    let snapshot = nodes[0].handle.fresh_snapshot().await;
    assert_eq!((snapshot.published, snapshot.caught_up), (4, 4));
    // The first listener was not sent it again.
    let after = nodes[1].handle.fresh_snapshot().await;
    assert_eq!(after.received, 4);
    assert!(after.bytes_received - before < 16 * 1024, "{} bytes", after.bytes_received - before);
    // And still gets what is new.
    let message = frag(2, 0);
    nodes[0].act(publish(Kind::Frag, &wire_of(&message))).await;
    assert_eq!(nodes[1].message().await, message);
    assert_eq!(nodes[2].message().await, message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_rejected_counted_and_held_against_its_sender() {
    let world = World::new(2);
    let mut nodes = world.start_all(&GossipNetConfig::new(CHAIN)).await;
    nodes[0].act(GossipAction::Listen(true)).await;
    let mut stranger = Stranger::new();
    stranger.dial(&nodes[0]);
    stranger.until(|s| s.subscribed.len() == 1).await;

    let good = wire_of(&frag(1, 0));
    let other_dialect = |seq| {
        let Message::Frag(mut frag) = frag(1, seq).message().clone() else { unreachable!() };
        frag.blob_gas_used = Some(0);
        let key = fragcast_turbine::testing::gateway();
        Bytes::from(key.sign(Message::Frag(frag)).to_wire())
    };
    let bad = [
        (forged(0), GossipOutcome::WrongSigner),
        (other_dialect(1), GossipOutcome::Dialect),
        (good.slice(..64), GossipOutcome::Truncated),
        (Bytes::from(vec![7; 11 * 1024 * 1024]), GossipOutcome::TooLong),
    ];
    for (wire, outcome) in bad {
        stranger.publish(Kind::Frag, &wire);
        let handle = nodes[0].handle.clone();
        stranger.drive_while(until(&handle, |s| s.outcomes.get(outcome) == 1)).await;
    }
    assert_eq!(nodes[0].waiting(), 0);
    // A good one from the same peer is still taken.
    stranger.publish(Kind::Frag, &good);
    stranger.drive_while(async { assert_eq!(nodes[0].message().await, frag(1, 0)) }).await;

    // A signer that is none of our gateways may be one elsewhere, and the other dialect may be
    // spoken there; junk may not.
    for seq in 1..40 {
        stranger.publish(Kind::Frag, &forged(seq));
        stranger.publish(Kind::Frag, &other_dialect(seq + 1));
    }
    let handle = nodes[0].handle.clone();
    let foreign = [GossipOutcome::WrongSigner, GossipOutcome::Dialect];
    let all = |s: &GossipSnapshot| foreign.iter().all(|of| s.outcomes.get(*of) == 40);
    stranger.drive_while(until(&handle, all)).await;
    assert_eq!(nodes[0].handle.fresh_snapshot().await.barred_now, 0);
    for n in 0..64u8 {
        stranger.publish(Kind::Frag, &Bytes::from(vec![n; 64]));
    }
    stranger.until(|s| s.connected == 0).await;
    let snapshot = nodes[0].handle.fresh_snapshot().await;
    assert_eq!(snapshot.barred_for("rejected"), 1);
    assert_eq!(snapshot.barred_now, 1);
    let rejected = snapshot.outcomes.get(GossipOutcome::Truncated);
    assert!(rejected < 32, "{rejected} were looked at");
    // It does not get back in.
    stranger.dial(&nodes[0]);
    let handle = nodes[0].handle.clone();
    stranger.drive_while(until(&handle, |s| s.refused_for("barred") > 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_unknown_signers_is_barred_all_the_same() {
    let world = World::new(2);
    let nodes = world.start_all(&GossipNetConfig::new(CHAIN)).await;
    nodes[0].act(GossipAction::Listen(true)).await;
    let mut flooder = Stranger::new();
    flooder.dial(&nodes[0]);
    flooder.until(|s| s.subscribed.len() == 1).await;
    for seq in 0..2_000 {
        flooder.publish(Kind::Frag, &forged(seq));
    }
    flooder.until(|s| s.connected == 0).await;
    let snapshot = nodes[0].handle.fresh_snapshot().await;
    assert_eq!(snapshot.barred_for("rejected"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_v_is_handed_on_but_not_forwarded() {
    let world = World::new(2);
    let mut nodes = world.start_all(&GossipNetConfig::new(CHAIN)).await;
    for node in &nodes {
        node.act(GossipAction::Listen(true)).await;
    }
    both_meshed(&nodes[0], &nodes[1]).await;
    let mut stranger = Stranger::new();
    stranger.dial(&nodes[0]);
    stranger.until(|s| s.subscribed.len() == 1).await;
    let mut wire = wire_of(&frag(1, 0)).to_vec();
    wire[64] += 27;
    stranger.publish(Kind::Frag, &wire.into());
    stranger.drive_while(async { assert_eq!(nodes[0].message().await, frag(1, 0)) }).await;
    stranger.publish(Kind::Frag, &wire_of(&frag(1, 1)));
    stranger.drive_while(async { assert_eq!(nodes[1].message().await, frag(1, 1)) }).await;
    assert_eq!(nodes[0].message().await, frag(1, 1));
    let snapshot = nodes[1].handle.fresh_snapshot().await;
    assert_eq!(snapshot.received, 1);
    let snapshot = nodes[0].handle.fresh_snapshot().await;
    assert_eq!(snapshot.outcomes.get(GossipOutcome::OtherV), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_gets_its_sender_barred_and_keeps_nobody_waiting() {
    const JUNK: u32 = 20_000;
    let world = World::new(2);
    let mut nodes = world.start_all(&GossipNetConfig::new(CHAIN)).await;
    for node in &nodes {
        node.act(GossipAction::Listen(true)).await;
    }
    both_meshed(&nodes[0], &nodes[1]).await;
    let mut flooder = Stranger::new();
    flooder.dial(&nodes[0]);
    flooder.until(|s| s.subscribed.len() == 1).await;
    let capacity = nodes[0].inputs.max_capacity();

    for n in 0..JUNK {
        let mut junk = vec![0x5a; 200];
        junk[..4].copy_from_slice(&n.to_le_bytes());
        flooder.publish(Kind::Frag, &junk.into());
    }
    let flood = tokio::spawn(async move {
        flooder.until(|s| s.connected == 0).await;
        flooder
    });
    for seq in 0..40 {
        let message = frag(1, seq);
        nodes[1].act(publish(Kind::Frag, &wire_of(&message))).await;
        assert_eq!(nodes[0].message().await, message);
        let back = frag(2, seq);
        nodes[0].act(publish(Kind::Frag, &wire_of(&back))).await;
        assert_eq!(nodes[1].message().await, back);
        assert!(nodes[0].inputs.len() < capacity);
    }
    let mut flooder = tokio::time::timeout(GUARD, flood).await.expect("barred in time").unwrap();
    let snapshot = nodes[0].handle.fresh_snapshot().await;
    assert_eq!(snapshot.barred_for("rejected"), 1);
    // Of all the junk the gate has seen no more than it takes.
    let honest = snapshot.outcomes.get(GossipOutcome::Accepted);
    assert!(honest == 40 && snapshot.received - honest <= 32, "{snapshot:?}");
    assert_eq!(snapshot.overrun, 0);
    let dial = nodes[0].address();
    flooder.dial_address(dial);
    let handle = nodes[0].handle.clone();
    flooder.drive_while(until(&handle, |s| s.refused_for("barred") > 0)).await;
    let message = frag(3, 0);
    nodes[1].act(publish(Kind::Frag, &wire_of(&message))).await;
    assert_eq!(nodes[0].message().await, message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_that_must_be_borne_starves_nobody() {
    const JUNK: u64 = 20_000;
    // Nobody is to blame for messages of the past, and here nobody is barred for them.
    let limits = GossipLimits {
        ignored: (u32::MAX, u32::MAX),
        bytes: (1 << 40, 1 << 40),
        ..GossipLimits::default()
    };
    let world = World::new(2);
    let config = GossipNetConfig { limits, ..GossipNetConfig::new(CHAIN) };
    let mut nodes = world.start_all(&config).await;
    for node in &nodes {
        node.act(GossipAction::Listen(true)).await;
        node.outlook.send_modify(|outlook| outlook.window = (100, 227));
    }
    both_meshed(&nodes[0], &nodes[1]).await;
    let mut flooder = Stranger::new();
    flooder.dial(&nodes[0]);
    flooder.until(|s| s.subscribed.len() == 1).await;
    let capacity = nodes[0].inputs.max_capacity();
    let old = wire_of(&frag(1, 0));
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let flood = tokio::spawn(async move {
        for n in 0u64.. {
            let mut junk = old.to_vec();
            let end = junk.len() - 8;
            junk[end..].copy_from_slice(&n.to_le_bytes());
            flooder.publish(Kind::Frag, &junk.into());
            if n % 16 == 0 {
                flooder.drive_while(tokio::task::yield_now()).await;
            }
            if stopped.load(Ordering::Relaxed) {
                return flooder;
            }
        }
        flooder
    });
    let past = |s: &GossipSnapshot| s.outcomes.get(GossipOutcome::Past);
    // Every round trip is one during the flood, which ends afterwards.
    let (mut seq, mut seen) = (0, 0);
    let exchange = async {
        while seq < 40 || seen < JUNK {
            // A block has room for 512 messages.
            let block = 100 + 2 * (seq / 500);
            let (message, back) = (frag(block, seq % 500), frag(block + 1, seq % 500));
            nodes[1].act(publish(Kind::Frag, &wire_of(&message))).await;
            assert_eq!(nodes[0].message().await, message);
            nodes[0].act(publish(Kind::Frag, &wire_of(&back))).await;
            assert_eq!(nodes[1].message().await, back);
            assert!(nodes[0].inputs.len() < capacity);
            seen = past(&nodes[0].handle.fresh_snapshot().await);
            seq += 1;
        }
    };
    tokio::time::timeout(GUARD, exchange).await.expect("the flood is seen in time");
    stop.store(true, Ordering::Relaxed);
    let snapshot = nodes[0].handle.fresh_snapshot().await;
    assert_eq!((snapshot.overrun, snapshot.barred_now), (0, 0));
    assert_eq!(snapshot.outcomes.get(GossipOutcome::Accepted), seq);
    drop(flood.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_asked_for_is_traffic() {
    let limits =
        GossipLimits { quiet_bytes: 1000, bytes: (1000, 512 * 1024), ..GossipLimits::default() };
    let world = World::new(1);
    let config = GossipNetConfig { limits, ..GossipNetConfig::new(CHAIN) };
    let nodes = world.start_all(&config).await;
    // In standby, on a topic of ours and on another.
    let topics = [&*topic(Kind::Frag), "/optimism/7/0/blocks"];
    let sent = pour(&nodes[0], &topics, 2000).await;
    nodes[0].until(|s| s.barred_for("traffic") == 1).await;
    let snapshot = nodes[0].handle.fresh_snapshot().await;
    assert_eq!(snapshot.received, 0);
    let foreign = snapshot.outcomes.get(GossipOutcome::Topic);
    assert!(foreign > 0 && foreign <= sent as u64, "{foreign} of {sent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_half_open_handshakes_do_no_harm() {
    let limits = GossipLimits {
        pending: 8,
        per_address: 6,
        handshake_timeout: Duration::from_secs(1),
        ..GossipLimits::default()
    };
    let world = World::new(2);
    let config = GossipNetConfig { limits, ..GossipNetConfig::new(CHAIN) };
    let mut nodes = world.start_all(&config).await;
    nodes[0].act(GossipAction::Listen(true)).await;
    nodes[1].listener(member(0), true).await;
    let socket = nodes[0].socket();
    let mut half_open = Vec::new();
    for n in 0..12u8 {
        let mut stream = tokio::net::TcpStream::connect(socket).await.unwrap();
        match n % 3 {
            // Says nothing.
            0 => {}
            // Speaks something else.
            1 => stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap(),
            // Begins, and does not go on.
            _ => stream.write_all(b"\x13/multistream/1.0.0\n\x07/noise\n").await.unwrap(),
        }
        half_open.push(stream);
    }
    let handle = nodes[0].handle.clone();
    until(&handle, |s| s.refused_for("address") > 0 && s.handshakes_failed > 0).await;
    // They are given up.
    for mut stream in half_open {
        let closed = async { while !matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)) {} };
        tokio::time::timeout(GUARD, closed).await.expect("closed in time");
    }
    let message = frag(1, 0);
    nodes[1].act(publish(Kind::Frag, &wire_of(&message))).await;
    assert_eq!(nodes[0].message().await, message);
    let snapshot = nodes[0].handle.fresh_snapshot().await;
    assert_eq!(snapshot.connections, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_in_excess_are_refused_and_members_are_not() {
    let limits = GossipLimits { incoming: 2, ..GossipLimits::default() };
    let world = World::new(2);
    let config = GossipNetConfig { limits, ..GossipNetConfig::new(CHAIN) };
    let first = world.start(0, &config, &[]).await;
    let mut strangers = Vec::new();
    let handle = first.handle.clone();
    for n in 1..=2 {
        let mut stranger = Stranger::new();
        stranger.dial(&first);
        stranger.drive_while(until(&handle, |s| s.outsiders == n)).await;
        strangers.push(tokio::spawn(stranger.forever()));
    }
    let mut third = Stranger::new();
    third.dial(&first);
    third.drive_while(until(&handle, |s| s.refused_for("incoming") == 1)).await;
    third.until(|s| s.connected == 0).await;
    let nodes = [&first];
    let _second = world.start(1, &config, &nodes).await;
    until(&handle, |s| s.members == 1 && s.outsiders == 2).await;
    let snapshot = first.handle.fresh_snapshot().await;
    assert!(snapshot.connections >= 3 && snapshot.incoming >= 2, "{snapshot:?}");
    strangers.into_iter().for_each(|task| task.abort());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_member_is_recognised() {
    let world = World::new(2);
    let config = GossipNetConfig::new(CHAIN);
    let mut first = world.start(0, &config, &[]).await;
    let second = world.start(1, &config, &[&first]).await;
    second.act(GossipAction::Listen(true)).await;
    first.listener(member(1), true).await;
    let id = second.handle.local_peer_id();
    second.stop().await;
    first.listener(member(1), false).await;

    let mut second = world.start(1, &config, &[&first]).await;
    assert_eq!(second.handle.local_peer_id(), id);
    assert_eq!(libp2p_id_of(&world.members.get(1).unwrap().peer()), Some(id));
    second.act(GossipAction::Listen(true)).await;
    first.listener(member(1), true).await;
    let message = frag(1, 0);
    first.act(publish(Kind::Frag, &wire_of(&message))).await;
    assert_eq!(second.message().await, message);
    assert_eq!(first.handle.fresh_snapshot().await.members, 1);
}

/// From block 100 on the third is a member instead of the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_links_and_gateways_follow_the_epochs() {
    let world = World::new(3);
    let table = |places: [u32; 2]| {
        let some = places.map(|place| world.members.get(place).unwrap().clone());
        Arc::new(Membership::new(CHAIN, some.into()).unwrap())
    };
    let (old, new) = (epoch(0, &table([0, 1])), epoch(100, &table([0, 2])));
    let view = |epochs: &[&Arc<Epoch>]| {
        Arc::new(EpochsView::new(epochs.iter().map(|epoch| Arc::clone(epoch)).collect()).unwrap())
    };
    let both = view(&[&old, &new]);
    let config = GossipNetConfig::new(CHAIN);
    let mut first = world.start_in(view(&[&old]), 0, &config, &[]).await;
    let second = world.start_in(view(&[&old]), 1, &config, &[&first]).await;
    second.act(GossipAction::Listen(true)).await;
    first.listener(member(1), true).await;
    // Not a member yet, for all the first one knows.
    let mut third = world.start_in(both.clone(), 2, &config, &[&first]).await;
    third.act(GossipAction::Listen(true)).await;
    let outside = outsider(&third.handle.local_peer_id().to_bytes());
    first.listener(outside, true).await;

    let key = Listener::Member(both.peers().key(&third.listed().0).unwrap());
    first.outlook.send_modify(|outlook| outlook.epochs = both.clone());
    first.listener(key, true).await;
    first.until(|s| (s.members, s.outsiders) == (2, 0)).await;
    // Of a gateway of the second epoch.
    let message = frag(100, 0);
    first.act(publish(Kind::Frag, &wire_of(&message))).await;
    assert_eq!(third.message().await, message);
    // And who has left is somebody from outside.
    let gone = outsider(&second.handle.local_peer_id().to_bytes());
    first.outlook.send_modify(|outlook| outlook.epochs = view(&[&new]));
    first.listener(gone, true).await;
    first.until(|s| (s.members, s.outsiders) == (1, 1)).await;

    // Who lost its connection is called anew, where it is now.
    third.stop().await;
    let third = world.start_in(view(&[&new]), 2, &config, &[]).await;
    first.handle.set_addresses([third.listed()].into()).await;
    first.until(|s| s.members == 1).await;
    third.until(|s| s.members == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_find_no_room_are_dropped_and_listeners_are_not() {
    let world = World::new(2);
    let config = GossipNetConfig::new(CHAIN);
    let mut first = world.try_start(0, &config, &[], 1).await.unwrap();
    let second = world.start(1, &config, &[&first]).await;
    first.act(GossipAction::Listen(true)).await;
    second.act(GossipAction::Listen(true)).await;
    both_meshed(&first, &second).await;
    // Fills the only place: that the second one listens, or the first message.
    for seq in 0..3 {
        second.act(publish(Kind::Frag, &wire_of(&frag(1, seq)))).await;
    }
    first.until(|s| s.overrun >= 2 && s.overrun + s.received == 3).await;
    // The listener is told of once there is room.
    first.listener(member(1), true).await;
    first.until(|_| true).await;
    let waiting = first.waiting() as u64;
    assert_eq!(waiting, first.handle.fresh_snapshot().await.received);
    second.act(publish(Kind::Frag, &wire_of(&frag(1, 3)))).await;
    for _ in 0..waiting {
        first.message().await;
    }
    assert_eq!(first.message().await, frag(1, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_to_do() {
    let world = World::new(2);
    let first = world.start(0, &GossipNetConfig::new(CHAIN), &[]).await;
    let taken = first.handle.listen_addrs();
    let config = GossipNetConfig { listen: taken, ..GossipNetConfig::new(CHAIN) };
    let error = world.try_start(1, &config, &[], 1).await.map(drop).unwrap_err();
    assert!(matches!(error, GossipNetError::Listen { .. }));
    assert!(error.to_string().contains("choose another port"), "{error}");

    let quic = "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap();
    let config = GossipNetConfig { listen: vec![quic], ..GossipNetConfig::new(CHAIN) };
    let error = world.try_start(1, &config, &[], 1).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("is no TCP address"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_nobody_drives_any_more_ends() {
    let world = World::new(1);
    let node = world.start(0, &GossipNetConfig::new(CHAIN), &[]).await;
    let Node { task, actions, inputs, outlook, handle, .. } = node;
    drop((actions, inputs, outlook, handle));
    tokio::time::timeout(GUARD, task).await.expect("ends in time").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standby_costs_next_to_nothing_while_nobody_listens() {
    let world = World::new(3);
    let mut nodes = world.start_all(&GossipNetConfig::new(CHAIN)).await;
    let before = nodes[0].handle.fresh_snapshot().await;
    for seq in 0..100 {
        let message = sign(BlockBuilder::new(1).frag_at(seq, [vec![seq as u8; 1_000]]));
        nodes[0].act(publish(Kind::Frag, &wire_of(&message))).await;
    }
    nodes[0].until(|s| s.not_published.contains(&("no_peers", 100))).await;
    let after = nodes[0].handle.fresh_snapshot().await;
    let bytes = after.bytes_sent - before.bytes_sent;
    // Of 100 kB. On a slow machine keeping the connections may cost some kilobytes.
    assert!(bytes < 16 * 1024, "{bytes} bytes");
    assert!(nodes[1].told().is_empty());
}
