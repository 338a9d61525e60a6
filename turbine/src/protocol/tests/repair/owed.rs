//! What a relay owes of a set that repair has completed.

use std::collections::BTreeSet;

use bytes::Bytes;
use fragcast_shredder::Shred;

use super::peers::Scene;
use super::*;
use crate::control::{RepairRequest, Tip, Tips, WHOLE};

/// Shreds that the node sends now: set and index, receiver, lane.
fn sent(scene: &mut Scene) -> Vec<((u16, u8), PeerIndex, Lane)> {
    scene.node.handle_timeout(scene.now);
    let all = std::iter::from_fn(|| scene.node.poll_transmit(scene.now));
    all.filter_map(|t| match t.payload {
        Payload::Shred(bytes) => {
            let shred = Shred::parse(bytes).unwrap();
            Some(((shred.header().set, shred.index()), t.to.number(), t.lane))
        }
        Payload::Control(_) => None,
    })
    .collect()
}

type Requests = Vec<(PeerIndex, RepairRequest)>;

/// Peers answer: with all that may be lacked of each set.
fn answer(scene: &mut Scene, requests: &Requests, shreds: &[Bytes]) {
    for (peer, request) in requests {
        let of_set = |shred: &&Bytes| {
            let header = *Shred::parse((*shred).clone()).unwrap().header();
            request.set == WHOLE || header.set == request.set
        };
        let of_set: Vec<Bytes> = shreds.iter().filter(of_set).cloned().collect();
        scene.answer(*peer, request.nonce, &of_set);
    }
    assert!(matches!(scene.events()[..], [Event::Message { .. }]));
}

/// Node 3 of six has two shreds of a message and has just asked for the others. Peers in `told`
/// have told to have it.
fn asking(told: &[PeerIndex]) -> (Scene, Vec<Bytes>, Requests) {
    let mut scene = Scene::new();
    let first = scene.cut(env(1));
    scene.feed(1, &first);
    scene.settle();
    let shreds = scene.cut(frag(1, 0, 20_000));
    scene.feed(1, &shreds[..2]);
    sent(&mut scene);
    let tips = Tips { tips: vec![Tip { block: 1, attempt: 0, row: 2, above: 0 }] };
    told.iter().for_each(|peer| scene.control(*peer, &Control::Tips(tips.clone())));
    let requests = scene.wait();
    (scene, shreds, requests)
}

#[test]
fn a_relay_whose_set_repair_has_completed_serves_those_below_it_once() {
    let (mut scene, shreds, requests) = asking(&[]);
    let before = scene.node.counters().owed;
    answer(&mut scene, &requests, &shreds[2..]);
    let owed = sent(&mut scene);
    assert!(!owed.is_empty());
    assert_eq!(scene.node.counters().owed, before + owed.len() as u64);
    let indices: BTreeSet<(u16, u8)> = owed.iter().map(|(index, ..)| *index).collect();
    assert!(
        indices.iter().all(|(set, index)| *set > 0 || *index >= 2),
        "what came by itself was forwarded then"
    );
    for index in &indices {
        let of = owed.iter().filter(|(of, ..)| of == index);
        let to: Vec<PeerIndex> = of.map(|(_, to, _)| *to).collect();
        assert_eq!(to, [1, 2, 4, 5], "each once, and neither this node nor the leader");
    }
    assert!(owed.iter().all(|(.., lane)| *lane == Lane::Repair), "behind what is fresh");
    // They come by themselves after all: nothing is sent again.
    scene.feed(1, &shreds);
    assert!(sent(&mut scene).is_empty());
}

#[test]
fn who_has_told_to_have_the_message_is_owed_nothing() {
    let (mut scene, shreds, requests) = asking(&[2, 5]);
    assert!([2, 5].contains(&requests[0].0));
    answer(&mut scene, &requests, &shreds[2..]);
    let to: BTreeSet<PeerIndex> = sent(&mut scene).iter().map(|(_, to, _)| *to).collect();
    assert_eq!(to, [1, 4].into());
}

/// Who withholds all but a few shreds, or hands them out long after, must not have whole networks
/// send what nobody waits for.
#[test]
fn what_is_repaired_late_is_owed_to_nobody() {
    let (mut scene, shreds, requests) = asking(&[]);
    scene.now = scene.now + Duration::from_millis(150);
    answer(&mut scene, &requests, &shreds[2..]);
    assert!(sent(&mut scene).is_empty());
}

/// A node that was away gets whole messages by repair and relays nothing of them.
#[test]
fn of_what_came_by_repair_alone_nothing_is_owed() {
    let mut scene = Scene::new();
    let first = scene.cut(env(1));
    scene.feed(1, &first);
    scene.settle();
    let shreds = scene.cut(frag(1, 0, 20_000));
    let tips = Tips { tips: vec![Tip { block: 1, attempt: 0, row: 2, above: 0 }] };
    scene.control(4, &Control::Tips(tips));
    let requests = scene.wait();
    answer(&mut scene, &requests, &shreds);
    assert!(sent(&mut scene).is_empty());
}
