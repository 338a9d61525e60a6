//! How long a message is quiet before it is asked for.

use super::peers::Scene;
use super::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A node with the Env of block 1.
fn scene() -> Scene {
    let mut scene = Scene::new();
    let first = scene.cut(env(1));
    scene.feed(1, &first);
    scene.settle();
    scene
}

/// Frags of which the middle comes so much later than the rest.
fn frags(scene: &mut Scene, seqs: std::ops::Range<u64>, silence: Duration) {
    for seq in seqs {
        let shreds = scene.cut(frag(1, seq, 5_000));
        scene.feed(1, &shreds[..2]);
        scene.now = scene.now + silence;
        scene.feed(1, &shreds[2..]);
        scene.settle();
    }
}

/// After how long a frag is asked for of which but two shreds came; repair brings the rest.
fn asked_after(scene: &mut Scene, seq: u64) -> Duration {
    let shreds = scene.cut(frag(1, seq, 5_000));
    scene.feed(1, &shreds[..2]);
    while scene.node.poll_transmit(scene.now).is_some() {}
    let from = scene.now;
    let (peer, request) = scene.wait()[0];
    let after = scene.now.since(from);
    scene.answer(peer, request.nonce, &shreds[2..]);
    scene.settle();
    after
}

#[test]
fn it_follows_the_silences_of_the_leaders_messages() {
    let mut scene = scene();
    assert!(asked_after(&mut scene, 0) >= ms(100), "nothing was seen yet");
    frags(&mut scene, 1..9, ms(3));
    let after: Vec<Duration> = (9..29).map(|seq| asked_after(&mut scene, seq)).collect();
    // Twice 3 ms and 20 ms, with a quarter of jitter; but for the few that wait long.
    let soon = after.iter().filter(|after| (ms(26)..=ms(33)).contains(after)).count();
    assert!((15..20).contains(&soon), "{after:?}");
    assert!(after.iter().all(|after| *after <= ms(125)), "{after:?}");
}

#[test]
fn where_round_trips_are_short_it_is_short_from_the_beginning() {
    let mut scene = scene();
    let samples = [1, 2, 4, 5].map(|n| (super::peer(n), ms(2)));
    scene.node.handle_round_trips(scene.now, samples);
    let after: Vec<Duration> = (0..5).map(|seq| asked_after(&mut scene, seq)).collect();
    let soon = after.iter().filter(|after| (ms(54)..=ms(68)).contains(after)).count();
    assert!(soon >= 4, "{after:?}");
}

/// The silences of messages that had to be asked for cannot be seen: one message in sixteen
/// waits as long as may be, and shows that asking was too early.
#[test]
fn a_network_that_became_slower_is_not_asked_for_ever() {
    let mut scene = scene();
    frags(&mut scene, 0..16, ms(3));
    let mut asked = Vec::new();
    for seq in 16..116 {
        let shreds = scene.cut(frag(1, seq, 5_000));
        scene.feed(1, &shreds[..2]);
        while scene.node.poll_transmit(scene.now).is_some() {}
        let rest = scene.now + ms(60);
        let mut requests = Vec::new();
        while requests.is_empty() && scene.next(rest.since(scene.now)) {
            requests = scene.requests();
        }
        asked.push(!requests.is_empty());
        // Peers are near, and answer before the rest has come.
        requests.iter().for_each(|(to, r)| scene.answer(*to, r.nonce, &shreds[2..]));
        scene.now = scene.now.max(rest);
        scene.feed(1, &shreds);
        scene.settle();
    }
    let first = asked.iter().filter(|asked| **asked).count();
    assert!((1..50).contains(&first), "{first}");
    assert!(asked[50..].iter().all(|asked| !asked), "{asked:?}");
}
