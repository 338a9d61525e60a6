//! Peers that ask without end cost a node with a narrow uplink nothing that is live, nor each other's
//! answers.

use super::*;
use crate::control::{RepairShreds, WHOLE};

/// A net whose node 1 has an uplink of 50 Mbit/s, a quarter of it for guests, and an archive of 15 MB, in
/// the middle of block 51.
fn narrow() -> Net {
    let config = config(RoutePolicy::Fixed(Route::Direct), 0.0);
    let mut net = Net::new(World::new(&[1; 5], 1), 0.0, &config);
    let (uplink_bps, guests_bps) = (50_000_000, 12_500_000);
    net.replace(1, Config { uplink_bps, guests_bps, guests: 8, ..config });
    for number in 1..=50 {
        net.send(env(number), 0);
        (0..3).for_each(|seq| net.send(frag(number, seq, 100_000), 0));
        net.send(seal(number, 3), 0);
        net.run_for(Duration::from_millis(200));
    }
    net.send(env(51), 0);
    net.send(frag(51, 0, 20_000), 0);
    net.run_for(Duration::from_millis(300));
    net
}

/// A question for as many blocks as an answer has.
fn blocks_request(nonce: u64) -> Control {
    let block = 1 + nonce % 40;
    Control::BlocksRequest(BlocksRequest { nonce, block, message: 0, have: 0, last: 50 })
}

fn repair_request(nonce: u64, block: u64) -> Control {
    let (attempt, message, set) = (0, 1, WHOLE);
    Control::RepairRequest(RepairRequest { nonce, block, attempt, message, set, have: 0 })
}

/// What node 1 sends within a second, a millisecond at a time, and when. `asking` ask four times in each,
/// and after half of the time `other` asks for a message of the open block.
fn sent(
    net: &mut Net,
    asking: &[PeerKey],
    ask: impl Fn(u64) -> Control,
    other: PeerKey,
) -> Vec<(Duration, Transmit)> {
    let start = net.now;
    let node = &mut net.nodes[1];
    while node.poll_transmit(start).is_some() {}
    let (mut sent, mut nonce) = (Vec::new(), 0);
    for ms in 0..1_000 {
        let passed = Duration::from_millis(ms);
        let now = start + passed;
        for asks in asking.iter().flat_map(|from| [*from; 4]) {
            nonce += 1;
            node.handle_control(now, asks, &ask(nonce).to_bytes());
        }
        if ms == 500 {
            node.handle_control(now, other, &repair_request(7, 51).to_bytes());
        }
        if node.poll_timeout(now).is_some_and(|at| at <= now) {
            node.handle_timeout(now);
        }
        sent.extend(std::iter::from_fn(|| node.poll_transmit(now)).map(|t| (passed, t)));
    }
    sent
}

fn is(transmit: &Transmit, what: impl Fn(&Control) -> bool) -> bool {
    match &transmit.payload {
        Payload::Control(frame) => what(&Control::from_bytes(frame).unwrap()),
        Payload::Shred(_) => false,
    }
}

/// After how long `other` has its answer.
fn answered(sent: &[(Duration, Transmit)], other: PeerKey) -> Duration {
    let is_answer = |c: &Control| matches!(c, Control::RepairShreds(RepairShreds { nonce: 7, .. }));
    let answer = sent.iter().find(|(_, t)| t.to == other && is(t, is_answer));
    answer.expect("it is answered").0 - Duration::from_millis(500)
}

/// How long no tips left at most.
fn without_tips(sent: &[(Duration, Transmit)]) -> Duration {
    let told = sent.iter().filter(|(_, t)| is(t, |c| matches!(c, Control::Tips(_))));
    let told = std::iter::once(Duration::ZERO).chain(told.map(|(at, _)| *at));
    let told: Vec<Duration> = told.chain([Duration::from_secs(1)]).collect();
    told.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
}

/// Bytes of blocks that were sent.
fn block_bytes(sent: &[(Duration, Transmit)]) -> usize {
    let parts = sent.iter().filter(|(_, t)| is(t, |c| matches!(c, Control::BlockPart(_))));
    parts.map(|(_, t)| t.payload.len()).sum()
}

const SOON: Duration = Duration::from_millis(50);
const TIPS: Duration = Duration::from_millis(200);

#[test]
fn who_catches_up_keeps_neither_repair_nor_tips_waiting() {
    for asking in [&[peer(2)][..], &[peer(2), peer(4)]] {
        let mut net = narrow();
        let sent = sent(&mut net, asking, blocks_request, peer(3));
        let (at, tips) = (answered(&sent, peer(3)), without_tips(&sent));
        assert!(at <= SOON && tips <= TIPS, "{at:?}, {tips:?} without tips");
        let bytes = block_bytes(&sent);
        assert!(bytes > 1_000_000, "{bytes}: blocks take what is left");
        let queued: usize = Lane::ALL.iter().map(|lane| net.nodes[1].egress().queued(*lane)).sum();
        assert!(queued <= 400_000, "{queued}: a twentieth of a second, and a part");
    }
}

#[test]
fn who_asks_for_shreds_without_end_keeps_neither_others_nor_tips_waiting() {
    let mut net = narrow();
    let ask = |nonce| repair_request(nonce + 10, 40 + nonce % 11);
    let sent = sent(&mut net, &[peer(2), peer(4)], ask, peer(3));
    let (at, tips) = (answered(&sent, peer(3)), without_tips(&sent));
    assert!(at <= SOON && tips <= TIPS, "{at:?}, {tips:?} without tips");
    let repair = net.nodes[1].egress().sent(Lane::Repair);
    assert!(repair > 1_500_000, "{repair}: half of the uplink");
}

#[test]
fn a_guest_that_catches_up_keeps_no_other_guest_waiting() {
    let mut net = narrow();
    let now = net.now;
    let node = &mut net.nodes[1];
    let guests = [101, 102].map(|n| node.handle_guest(now, PeerId([n; 32])).expect("a place"));
    guests.iter().for_each(|guest| node.handle_connected(*guest));
    let sent = sent(&mut net, &guests[..1], blocks_request, guests[1]);
    let at = answered(&sent, guests[1]);
    assert!(at <= SOON, "{at:?}");
    assert!(block_bytes(&sent) > 200_000, "{}", block_bytes(&sent));
    let queued = net.nodes[1].egress().queued(Lane::GuestBackfill);
    assert!(queued <= 100_000, "{queued}: a twentieth of a second of theirs, and a part");
}

#[test]
fn a_gap_is_closed_over_narrow_uplinks_without_a_break() {
    let mut config = config(RoutePolicy::Fixed(Route::Direct), 0.0);
    // Each of four peers sends a megabyte at once, and then 312 kB a second to one.
    (config.uplink_bps, config.catch_up.answer_burst) = (20_000_000, 1 << 20);
    let took = time_for(&config, 8, 24, 100_000);
    // 7.2 MB, of which four come at once.
    assert!(took < Duration::from_secs(6), "{took:?}");
}
