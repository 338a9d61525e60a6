//! Between one leader and its members, in virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::control::{MAX_RECEIPT_SETS, SetReceipt, UNTIMED};
use crate::egress::Payload;
use crate::membership::sample;
use crate::plan::{Entry, Plan, SignedPlan};
use crate::protocol::tests::{CHAIN, World, env, frag, key, peer, seal};
use crate::protocol::{Config, Event, Protocol, RoutePolicy};
use crate::route::Route;

const MEMBERS: u32 = 80;
/// Regions of twenty.
const EACH: u32 = 20;
/// One way, from everybody to everybody.
const WAY: Duration = Duration::from_millis(10);

/// Eighty members in four regions, of which the first runs the gateway and the second the next one.
struct Net {
    world: World,
    nodes: Vec<Protocol>,
    now: Timestamp,
    /// Who forwards and answers nothing.
    silent: Vec<u32>,
    /// What a member sends instead of a receipt.
    lie: fn(u32, Receipt) -> Receipt,
    /// Receipts by who sent them, with whom they went to.
    receipts: Vec<(u32, u32, Receipt)>,
    masks: usize,
    /// Who was barred by somebody.
    barred: Vec<u32>,
    packets: BTreeMap<(Timestamp, usize), (u32, u32, Payload)>,
    count: usize,
}

/// A plan of the first leader's, with a root in each of eight.
fn plan(world: &World) -> SignedPlan {
    let entry = |i: u32| Entry {
        region: (i / EACH) as u16,
        relays: true,
        heads: u8::from(i % EACH < 8),
        ..Entry::default()
    };
    let entries = (0..MEMBERS).map(|i| entry(i).to_bits());
    let roots = (1..9).map(|i| Plan::root(i * 9, 0));
    let leader = &world.leader_keys[0];
    let plan = Plan {
        chain_id: CHAIN,
        leader: leader.verifying_key().to_bytes(),
        version: 1,
        effective: 0,
        table: world.members.hash(),
        entries: entries.chain(roots).collect(),
    };
    plan.sign(leader)
}

impl Net {
    fn new() -> Self {
        let weights = [1; MEMBERS as usize];
        let mut world = World::new(&weights, 2);
        let gateways = world.gateways.iter().map(|gateway| gateway.address()).collect();
        world.schedule = crate::schedule::Schedule::new(gateways, 1_000).unwrap();
        let mut config = Config::new(CHAIN);
        config.repair.enabled = false;
        config.route = RoutePolicy::Fixed(Route::Regional { roots: 8 });
        let mut nodes: Vec<Protocol> =
            (0..MEMBERS as usize).map(|i| world.node(i, config.clone())).collect();
        for (index, (node, identity)) in nodes.iter_mut().zip(sample(CHAIN, &weights).1).enumerate()
        {
            node.set_identity(identity);
            node.assume_connected((0..MEMBERS).filter(|peer| *peer as usize != index));
        }
        let now = Timestamp::from_nanos(1_000_000_000_000);
        let mut net = Self {
            world,
            nodes,
            now,
            silent: Vec::new(),
            lie: |_, receipt| receipt,
            receipts: Vec::new(),
            masks: 0,
            barred: Vec::new(),
            packets: BTreeMap::new(),
            count: 0,
        };
        net.give_plan();
        net
    }

    /// Everybody has the leader's plan, and it leads with it.
    fn give_plan(&mut self) {
        let signed = plan(&self.world);
        let entries = &signed.plan.entries;
        let (entries, roots) = entries.split_at(MEMBERS as usize);
        let entries = entries.iter().map(|bits| Entry::from_bits(*bits)).collect();
        let contents = crate::planner::Contents { entries, roots: roots.to_vec() };
        let (contents, table) = (Arc::new(contents), self.world.members.hash());
        let draft = crate::planner::PlanDraft {
            contents,
            shapes: crate::planner::Shapes::default(),
            table,
        };
        self.nodes[0].planned(self.now, Some(draft));
        self.drain(0);
        self.run(100);
    }

    fn drain(&mut self, node: u32) {
        let protocol = &mut self.nodes[node as usize];
        while let Some(event) = protocol.poll_event() {
            if let Event::Bar { peer, .. } = event {
                self.barred.push(peer.number());
            }
        }
        while let Some(transmit) = protocol.poll_transmit(self.now) {
            let mut payload = transmit.payload;
            let to = transmit.to.number();
            if let Payload::Control(frame) = &payload {
                match Control::from_bytes(frame) {
                    Ok(Control::Receipt(receipt)) => {
                        let receipt = (self.lie)(node, receipt);
                        payload = Payload::Control(Control::Receipt(receipt.clone()).to_bytes());
                        self.receipts.push((node, to, receipt));
                    }
                    Ok(Control::Exclusions(_)) => self.masks += 1,
                    _ => {}
                }
            } else if self.silent.contains(&node) {
                continue;
            }
            self.count += 1;
            self.packets.insert((self.now + WAY, self.count), (node, to, payload));
        }
    }

    /// Time passes. Once a second all nodes are given their samples.
    fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        for node in 0..MEMBERS {
            self.nodes[node as usize].handle_round_trips(self.now, []);
            self.drain(node);
        }
        loop {
            let timers = self.nodes.iter().filter_map(|node| node.poll_timeout(self.now));
            let packet = self.packets.keys().next().map(|(at, _)| *at);
            let next = timers.chain(packet).min().unwrap_or(end).max(self.now);
            if next >= end {
                self.now = end;
                return;
            }
            self.now = next;
            let due: Vec<_> =
                self.packets.range(..=(next, usize::MAX)).map(|(at, _)| *at).collect();
            for at in due {
                let (from, to, payload) = self.packets.remove(&at).unwrap();
                let node = &mut self.nodes[to as usize];
                match payload {
                    Payload::Shred(bytes) => node.handle_datagrams(next, [(peer(from), bytes)]),
                    Payload::Control(frame) => node.handle_control(next, peer(from), &frame),
                }
                self.drain(to);
            }
            for node in 0..MEMBERS {
                if self.nodes[node as usize].poll_timeout(next).is_some_and(|at| at <= next) {
                    self.nodes[node as usize].handle_timeout(next);
                    self.drain(node);
                }
            }
        }
    }

    /// The leader sends a block of three frags of 12 kB, and two seconds pass.
    fn block(&mut self, number: u64) {
        self.block_of(number, 3);
    }

    fn block_of(&mut self, number: u64, frags: u64) {
        let frag = |seq| frag(number, seq, 12_000);
        let seal = seal(number, frags);
        let messages = std::iter::once(env(number)).chain((0..frags).map(frag)).chain([seal]);
        for message in messages {
            let key = key(&message, 0);
            let message = self.world.sign(message);
            self.nodes[0].broadcast(self.now, key, &message).unwrap();
            self.drain(0);
        }
        (0..4).for_each(|_| self.run(500));
    }

    /// Who is excluded, altogether and as a head.
    fn excluded(&self) -> [Vec<u32>; 2] {
        let state = self.state();
        let place = |id: &crate::peer::PeerId| self.world.members.index(id).unwrap();
        [state.excluded, state.no_heads].map(|of| of.iter().map(place).collect())
    }

    fn state(&self) -> ReceiptsState {
        assert!(self.barred.is_empty());
        self.nodes[0].receipts()
    }
}

#[test]
fn members_tell_the_leader_and_the_next_what_came_and_how_long_it_took() {
    let mut net = Net::new();
    net.block(1);
    let of = |leader: u32| net.receipts.iter().filter(move |(_, to, _)| *to == leader);
    assert_eq!((of(0).count(), of(1).count()), (79, 78), "a leader tells itself");
    for (_, _, receipt) in &net.receipts {
        assert!(receipt.block == 1 && (3..=MAX_RECEIPT_SETS).contains(&receipt.sets.len()));
        assert!(receipt.sets.iter().all(|set| set.came != 0 && set.timed != UNTIMED));
        let len = Control::Receipt(receipt.clone()).to_bytes().len() + FRAMING;
        assert!(len <= 250, "{len}");
    }
    let picked = |member: u32| {
        let (.., receipt) = of(0).find(|(from, ..)| *from == member).unwrap();
        let place = |set: &SetReceipt| (set.message, set.set, set.timed);
        receipt.sets.iter().map(place).collect::<Vec<_>>()
    };
    assert_ne!(picked(30), picked(31), "which of them are timed is the member's secret");
    let state = net.state();
    assert_eq!((state.taken, state.reporters, state.loss), (79, 79, Some(0.0)));
    let hops: Vec<_> = state.hops.iter().map(|hop| hop.median_micros / 10_000).collect();
    assert_eq!(hops, [1, 2, 3], "{:?}", state.hops);
    assert_eq!(state.regions.iter().map(|region| region.region).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!((state.excluded.len(), state.no_heads.len(), net.masks), (0, 0, 0));
    assert_eq!(net.nodes[1].receipts().taken, 79);
    assert_eq!(net.nodes[2].receipts().taken, 0);
}

#[test]
fn relays_that_do_not_relay_are_pruned_and_tried_again() {
    let mut net = Net::new();
    // Roots, of whom 9 is no head; heads, of whom none is a root.
    net.silent = vec![9, 27, 3, 44];
    (1..=3).for_each(|block| net.block(block));
    assert_eq!(net.excluded(), [vec![9, 27], vec![3, 44]]);
    let (masks, id) = (net.masks, |net: &Net| net.nodes[0].outcomes().get(Outcome::Control));
    assert!(masks >= 79 && id(&net) > 0);
    // Nothing is to come from them any more, and everything comes.
    net.receipts.clear();
    net.block(4);
    net.block(5);
    let complete = |set: &SetReceipt| set.came & (set.came + 1) == 0;
    assert!(net.receipts.iter().flat_map(|(.., receipt)| &receipt.sets).all(complete));
    assert_eq!(net.masks, masks, "nothing new");
    // They are tried again later, and have mended.
    net.silent.clear();
    (6..=34).for_each(|block| net.block_of(block, 0));
    (35..=40).for_each(|block| net.block(block));
    assert_eq!(net.excluded(), [Vec::<u32>::new(), Vec::new()]);
    let unknown: u64 = net.nodes.iter().map(|node| node.counters().unknown_plan).sum();
    assert_eq!(unknown, 0, "everybody had every mask in time");
}

#[test]
fn who_offends_again_is_excluded_for_longer() {
    let mut net = Net::new();
    net.silent = vec![9];
    (1..=3).for_each(|block| net.block(block));
    assert_eq!(net.excluded()[0], [9]);
    (4..=33).for_each(|block| net.block_of(block, 0));
    // It is tried again.
    (34..=39).for_each(|block| net.block(block));
    assert_eq!(net.excluded()[0], [9], "by the mask that everybody has");
    (40..=90).for_each(|block| net.block_of(block, 0));
    assert_eq!(net.excluded()[0], [9], "for longer than the first time");
}

/// A receipt of a liar, who accuses all roots that bring coding shreds, and dates shreds back.
fn accuses_all(receipt: &Receipt) -> Receipt {
    let liar = |set: &SetReceipt| {
        let came = set.came & 0x3fff;
        let timed = if came & 1 == 1 { 0 } else { UNTIMED };
        SetReceipt { came, timed, after: i32::MIN, ..*set }
    };
    Receipt { sets: receipt.sets.iter().map(liar).collect(), ..*receipt }
}

#[test]
fn a_false_accuser_or_ten_in_one_region_prune_nobody() {
    for lie in [
        (|member, receipt| if member == 45 { accuses_all(&receipt) } else { receipt })
            as fn(u32, Receipt) -> Receipt,
        |member, receipt| match member {
            42..52 => accuses_all(&receipt),
            _ => receipt,
        },
    ] {
        let mut net = Net::new();
        net.lie = lie;
        (1..=6).for_each(|block| net.block(block));
        let state = net.state();
        assert_eq!((state.excluded.len(), state.no_heads.len(), net.masks), (0, 0, 0));
        assert!(state.loss.unwrap() < 0.01);
        // What liars say of time moves no median.
        assert!(state.hops.iter().all(|hop| hop.median_micros < 40_000), "{:?}", state.hops);
    }
}

#[test]
fn a_receipt_counts_once_and_only_of_what_the_leader_sent() {
    let mut net = Net::new();
    net.block(1);
    let (from, _, receipt) = net.receipts.iter().find(|(_, to, _)| *to == 0).unwrap().clone();
    let give = |net: &mut Net, from: u32, receipt: &Receipt, outcome: Outcome| {
        let before = net.nodes[0].outcomes().get(outcome);
        let frame = Control::Receipt(receipt.clone()).to_bytes();
        net.nodes[0].handle_control(net.now, peer(from), &frame);
        net.nodes[0].outcomes().get(outcome) - before
    };
    assert_eq!(give(&mut net, from, &receipt, Outcome::ReceiptOld), 1);
    let other = Receipt { block: 2, ..receipt.clone() };
    assert_eq!(give(&mut net, from, &other, Outcome::ReceiptUnwanted), 1, "not sent");
    let next = Receipt { attempt: 1, ..receipt };
    assert_eq!(give(&mut net, from, &next, Outcome::ReceiptUnwanted), 1, "no such attempt");
    net.block(2);
    assert_eq!(net.state().taken, 158);
    // More shreds than any set of the block has.
    net.lie = |member, mut receipt| {
        receipt.sets.iter_mut().filter(|_| member == 60).for_each(|set| set.came |= 1 << 63);
        receipt
    };
    net.block(3);
    assert_eq!(net.barred, [60, 60], "by both leaders");
}

#[test]
fn without_an_identity_nothing_is_told_and_without_a_lead_nothing_taken() {
    let world = World::new(&[1; 4], 1);
    let mut node = world.node(2, Config::new(CHAIN));
    node.assume_connected([0u32, 1, 3]);
    let now = Timestamp::from_nanos(1_000_000_000_000);
    let receipt = Control::Receipt(Receipt { block: 1, attempt: 0, sets: vec![] });
    node.handle_control(now, peer(3), &receipt.to_bytes());
    assert_eq!(node.outcomes().get(Outcome::ReceiptUnwanted), 1);
    assert_eq!(node.receipts(), ReceiptsState::default());
}

/// A mask over the plan of the first leader, as it signs it.
fn mask(world: &World, relays: &[PeerIndex], sequence: u64) -> crate::plan::Exclusions {
    let signed = plan(world);
    let of = (CHAIN, signed.plan.leader, signed.plan.id());
    crate::plan::Exclusions::new(of, sequence, MEMBERS as usize, (relays, &[]))
}

#[test]
fn a_mask_is_taken_once_from_its_leader_and_over_a_plan_that_is_known() {
    let net = Net::new();
    let (world, now) = (&net.world, net.now);
    let give = |node: &mut Protocol, frame: &Bytes, outcome: Outcome| {
        let before = node.outcomes().get(outcome);
        node.handle_control(now, peer(7), frame);
        node.outcomes().get(outcome) - before
    };
    let sign = |mask: crate::plan::Exclusions, key: usize| {
        Control::Exclusions(Box::new(mask.sign(&world.leader_keys[key]))).to_bytes()
    };
    let mut fresh = world.node(20, Config::new(CHAIN));
    let good = sign(mask(world, &[9], 5), 0);
    assert_eq!(give(&mut fresh, &good, Outcome::ControlStale), 1, "no such plan yet");
    fresh.handle_control(now, peer(0), &Control::Plan(plan(world)).to_bytes());
    assert_eq!(give(&mut fresh, &good, Outcome::Control), 1);
    assert_eq!(give(&mut fresh, &good, Outcome::ControlStale), 1, "again");
    for sequence in 6..10 {
        let next = sign(mask(world, &[sequence as u32], sequence), 0);
        assert_eq!(give(&mut fresh, &next, Outcome::Control), 1);
    }
    assert_eq!(give(&mut fresh, &good, Outcome::ControlStale), 1, "four newer ones are known");
    let mut elsewhere = mask(world, &[1], 20);
    elsewhere.chain_id = 9;
    assert_eq!(give(&mut fresh, &sign(elsewhere, 0), Outcome::ControlStale), 1);
    let mut stranger = mask(world, &[1], 20);
    stranger.leader = [3; 32];
    assert_eq!(give(&mut fresh, &sign(stranger, 0), Outcome::ControlStale), 1);
    assert_eq!(give(&mut fresh, &sign(mask(world, &[1], 20), 1), Outcome::ControlBad), 1, "forged");
    let mut fresh = world.node(21, Config::new(CHAIN));
    fresh.handle_control(now, peer(0), &Control::Plan(plan(world)).to_bytes());
    let signed = plan(world);
    let of = (CHAIN, signed.plan.leader, signed.plan.id());
    let short = crate::plan::Exclusions::new(of, 30, 8, (&[1], &[]));
    assert_eq!(give(&mut fresh, &sign(short, 0), Outcome::ControlBad), 1, "of another table");
}
