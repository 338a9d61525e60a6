//! Guests: who they are to members, what they may say, and how they get their messages.

use super::hostile::{barred, events};
use super::network::{Net, TREES, config};
use super::*;
use crate::control::{Attach, Attached, RepairRequest, Share, Tip, Tips, WHOLE};
use crate::peer::MAX_CONTACTS;

const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000);

fn id(number: u32) -> PeerId {
    PeerId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// Member 3 of five with room for some guests, everybody connected.
fn host(world: &World, guests: usize) -> Protocol {
    let mut node = world.node(3, Config { guests, ..Config::new(CHAIN) });
    [0, 1, 2, 4].map(peer).into_iter().for_each(|peer| node.handle_connected(peer));
    drain(&mut node);
    node
}

fn drain(node: &mut Protocol) -> Vec<Transmit> {
    std::iter::from_fn(|| node.poll_transmit(NOW + Duration::from_secs(100))).collect()
}

/// Members, and guests after them, with what their configuration says.
fn network(weights: &[u64], guests: usize, loss: f64, config: &Config) -> Net {
    let world = World::new(weights, 1);
    let config = Config { guests: 64, ..config.clone() };
    let delegations = world.delegations.iter().copied();
    let (members, schedule) = (world.members.clone(), world.schedule.clone());
    let setup = Setup::new(config.clone(), members, schedule, delegations).unwrap();
    let mut ids: Vec<PeerId> = world.members.members().iter().map(|m| m.peer()).collect();
    let mut nodes: Vec<Protocol> =
        (0..weights.len()).map(|node| world.node(node, config.clone())).collect();
    for guest in 0..guests as u32 {
        ids.push(id(guest));
        nodes.push(setup.guest(&id(guest), None));
    }
    let mut net = Net::of(world, nodes, ids, loss);
    for one in 0..weights.len() {
        (0..one).for_each(|other| net.connect(one, other));
    }
    net.settle();
    net
}

/// Does what drivers do once a second: connections as guests want them, and round trips.
fn follow(net: &mut Net, members: usize) {
    for guest in members..net.nodes.len() {
        let wanted = net.nodes[guest].wanted_connections().expect("a guest says whom");
        for member in 0..members {
            let key = net.nodes[guest].epochs().peers().key(&net.ids[member]).unwrap();
            let up = net.nodes[guest].is_connected(key);
            let can = !net.dead[member] || net.cut[member];
            if wanted.contains(&key) && !up && can {
                let (now, id) = (net.now, net.ids[guest]);
                let Some(of) = net.nodes[member].handle_guest(now, id) else {
                    net.nodes[guest].handle_refused(now, key);
                    continue;
                };
                net.nodes[member].handle_connected(of);
                net.nodes[guest].handle_connected(key);
            } else if up && !wanted.contains(&key) {
                let of = net.nodes[member].epochs().peers().key(&net.ids[guest]).unwrap();
                net.nodes[member].handle_disconnected(of);
                net.nodes[guest].handle_disconnected(key);
            }
        }
        let trip = |member: usize| {
            let there = (guest as u64 * 7 + member as u64 * 13) % 40;
            let back = (member as u64 * 7 + guest as u64 * 13) % 40;
            Duration::from_millis(10 + there + back)
        };
        let keys: Vec<PeerKey> = net.nodes[guest].connected_peers().collect();
        let samples = keys.into_iter().map(|key| (key, trip(key.number() as usize)));
        let samples: Vec<_> = samples.collect();
        let now = net.now;
        net.nodes[guest].handle_round_trips(now, samples);
    }
}

fn primary(net: &Net, guest: usize) -> usize {
    let primary = net.nodes[guest].attached().expect("a guest").primary.expect("one");
    net.ids.iter().position(|id| *id == primary).unwrap()
}

#[test]
fn a_guest_has_a_key_while_it_is_connected_and_no_more_come_than_there_are_places() {
    let world = World::new(&[1; 5], 1);
    let mut node = host(&world, 2);
    let before = node.epochs().clone();
    let [one, two] = [1, 2].map(|n| node.handle_guest(NOW, id(n)).expect("room"));
    assert_eq!(node.handle_guest(NOW, id(3)), None);
    assert_eq!(node.handle_guest(NOW, id(1)), Some(one), "the same");
    assert_eq!(node.handle_guest(NOW, world.members.members()[2].peer()), Some(peer(2)));
    assert!(node.has_guest(one) && node.has_guest(two) && !node.has_guest(peer(2)));
    assert_eq!((node.guests(), node.epochs().peers().peer(two)), (2, Some(id(2))));
    assert!(node.epochs().has_same_epochs(&before), "nobody need look at members anew");
    assert_eq!(node.epochs().members().count(), 5);

    node.handle_connected(one);
    let kinds: Vec<u8> = drain(&mut node)
        .iter()
        .map(|transmit| {
            assert_eq!((transmit.to, transmit.lane), (one, Lane::Guest));
            let Payload::Control(frame) = &transmit.payload else { panic!("a greeting") };
            frame[0]
        })
        .collect();
    assert_eq!(kinds, [0, 11, 1], "hello, terms, a delegation");
    assert!(node.is_connected(one) && !node.connected_peers().any(|peer| peer == one));

    node.handle_disconnected(one);
    assert_eq!((node.guests(), node.epochs().peers().key(&id(1))), (1, None));
    let hello = Control::Hello(Hello { version: 1, chain_id: CHAIN, table: [0; 32] });
    node.handle_control(NOW, one, &hello.to_bytes());
    assert_eq!(node.outcomes().get(Outcome::Barred), 1, "its key is nobody's");
    let again = node.handle_guest(NOW, id(1)).expect("room again");
    assert_ne!(again, one);
    assert_eq!(host(&world, 0).handle_guest(NOW, id(1)), None, "who lets in nobody");
}

#[test]
fn what_members_alone_may_say_is_passed_over_and_bars_nobody() {
    let world = World::new(&[1; 5], 1);
    let mut node = host(&world, 4);
    let guest = node.handle_guest(NOW, id(1)).unwrap();
    node.handle_connected(guest);
    drain(&mut node);
    let window = node.window();
    let tips = Tips { tips: vec![Tip { block: 900, attempt: 0, row: 9, above: 0 }] };
    let evidence = [3, 0, 0];
    let frames = [
        Control::Tips(tips).to_bytes().to_vec(),
        Control::PlanAck(7).to_bytes().to_vec(),
        Control::PlanRequest(7).to_bytes().to_vec(),
        Control::Listeners(crate::control::Listeners { ids: vec![1] }).to_bytes().to_vec(),
        evidence.to_vec(),
        vec![13],
        vec![16, 1],
        vec![17, 2],
    ];
    frames.iter().for_each(|frame| node.handle_control(NOW, guest, frame));
    let message = world.sign(frag(1, 0, 5_000));
    let cut = super::cut(&world, &message, 0);
    let shreds: Vec<_> = cut.sets[0].shreds.iter().map(|bytes| (guest, bytes.clone())).collect();
    let count = frames.len() + shreds.len();
    node.handle_datagrams(NOW, shreds);
    assert_eq!(node.outcomes().get(Outcome::Guest), count as u64);
    assert_eq!((node.window(), node.listeners()), (window, 0));
    assert!(events(&mut node).is_empty() && drain(&mut node).is_empty());
    // What it may say and says wrongly bars it as anybody.
    node.handle_control(NOW, guest, &[18, 9, 9]);
    assert_eq!(barred(&events(&mut node)), [(guest.number(), Outcome::ControlBad)]);
}

#[test]
fn guests_that_flood_are_not_looked_at_any_more_and_members_are() {
    let world = World::new(&[1; 5], 1);
    let mut node = host(&world, 200);
    let guests: Vec<PeerKey> = (0..200).map(|n| node.handle_guest(NOW, id(n)).unwrap()).collect();
    guests.iter().for_each(|guest| node.handle_connected(*guest));
    drain(&mut node);
    // A request for what there is not.
    let request = RepairRequest { nonce: 1, block: 1, attempt: 0, message: 0, set: WHOLE, have: 0 };
    let request = Control::RepairRequest(request).to_bytes();
    for _ in 0..1_500 {
        guests.iter().for_each(|guest| node.handle_control(NOW, *guest, &request));
    }
    let looked_at =
        node.outcomes().get(Outcome::RepairLacking) + node.outcomes().get(Outcome::RepairRefused);
    // A tenth of a second of work at two microseconds each, and no more.
    assert!((10_000..=50_001).contains(&looked_at), "{looked_at}");
    node.handle_control(NOW, peer(1), &request);
    let more =
        node.outcomes().get(Outcome::RepairLacking) + node.outcomes().get(Outcome::RepairRefused);
    assert_eq!(more, looked_at + 1, "a member has a budget of its own");
}

#[test]
fn a_guest_gets_less_by_request_than_a_member_and_behind_all_else() {
    let world = World::new(&[1; 5], 1);
    let mut node = host(&world, 4);
    let guest = node.handle_guest(NOW, id(1)).unwrap();
    node.handle_connected(guest);
    let message = world.sign(frag(1, 0, 100_000));
    let cut = super::cut(&world, &message, 0);
    let shreds = cut.sets.iter().flat_map(|set| set.shreds.clone());
    node.handle_datagrams(NOW, shreds.map(|bytes| (peer(0), bytes)));
    node.handle_timeout(NOW);
    drain(&mut node);
    let mut answered = |from: PeerKey, later: u64| {
        let mut bytes = 0;
        for n in 0..400u64 {
            // After all that the lanes were drained at.
            let now = NOW + Duration::from_millis(later + 100 * n);
            let ask =
                RepairRequest { nonce: n, block: 1, attempt: 0, message: 1, set: WHOLE, have: 0 };
            node.handle_control(now, from, &Control::RepairRequest(ask).to_bytes());
            while let Some(sent) = node.poll_transmit(now + Duration::from_secs(1)) {
                assert!(sent.to != guest || sent.lane == Lane::Guest);
                bytes += if sent.to == from { sent.payload.len() } else { 0 };
            }
        }
        bytes
    };
    let (of_guest, of_member) = (answered(guest, 200_000), answered(peer(1), 300_000));
    assert!(of_guest > 0 && of_guest * 3 / 2 < of_member, "{of_guest} {of_member}");
}

#[test]
fn who_becomes_a_member_keeps_its_key_and_who_is_none_any_more_stays_as_a_guest() {
    let world = World::new(&[1; 6], 1);
    let all = world.members.members().to_vec();
    let table = |members: &[crate::membership::Member]| {
        Arc::new(Membership::new(CHAIN, members.to_vec()).unwrap())
    };
    // Member 5 is no member yet.
    let first = table(&all[..5]);
    let epoch = |from, members: &Arc<Membership>| {
        let (schedule, delegations) = (world.schedule.clone(), world.delegations.clone());
        Epoch::new(CHAIN, from, members.clone(), schedule, delegations).unwrap()
    };
    let config = Config { guests: 4, ..Config::new(CHAIN) };
    let setup = Setup::of(config, [epoch(0, &first)]).unwrap();
    let mut node = setup.node(&all[3].peer(), None).unwrap();
    let key = node.handle_guest(NOW, all[5].peer()).unwrap();
    node.handle_connected(key);
    node.handle_connected(peer(1));
    drain(&mut node);
    assert!(node.has_guest(key));

    let second = table(&[&all[..1], &all[2..]].concat());
    node.handle_epoch(NOW, epoch(100, &second)).unwrap();
    assert!(!node.has_guest(key) && node.is_connected(key));
    let change = events(&mut node).into_iter().find_map(|event| match event {
        Event::Epoch(change) => Some(change),
        _ => None,
    });
    assert_eq!(change.unwrap().joined, [(key, all[5].peer())]);
    let told: Vec<Lane> =
        drain(&mut node).iter().filter(|sent| sent.to == key).map(|sent| sent.lane).collect();
    assert!(told.len() >= 3 && !told.contains(&Lane::Guest), "{told:?}: greeted as a member");

    // Member 1 is in no table once the first epoch is past.
    node.handle_head(NOW, 500);
    for n in 0..20 {
        node.handle_head(NOW + Duration::from_secs(n), 500);
    }
    let change = events(&mut node).into_iter().find_map(|event| match event {
        Event::Epoch(change) => Some(change),
        _ => None,
    });
    let change = change.expect("the first epoch ended");
    assert_eq!((change.stayed, change.left), (vec![(peer(1), all[1].peer())], vec![]));
    assert!(node.has_guest(peer(1)) && node.is_connected(peer(1)));
    node.handle_disconnected(peer(1));
    assert_eq!(node.epochs().peers().key(&all[1].peer()), None);
}

#[test]
fn contacts_can_be_asked_are_counted_nowhere_and_are_bounded() {
    let world = World::new(&[1; 5], 1);
    let mut node = host(&world, 4);
    let contact = node.handle_contact(NOW, id(9)).unwrap();
    node.handle_connected(contact);
    assert!(node.has_contact(contact) && node.connected_peers().any(|peer| peer == contact));
    assert_eq!(node.handle_contact(NOW, world.members.members()[1].peer()), Some(peer(1)));
    assert!(!node.has_contact(peer(1)));
    for n in 100..200 + MAX_CONTACTS as u32 {
        node.handle_contact(NOW, id(n));
    }
    assert_eq!(node.parts.ctx.peers.contacts(), MAX_CONTACTS);
    assert_eq!(node.parts.ctx.peers.len(), 5, "of the table");
    assert_eq!(node.forget_contact(NOW, &id(9)), Some(contact));
    assert!(!node.is_connected(contact) && node.epochs().peers().key(&id(9)).is_none());
    assert_eq!(node.forget_contact(NOW, &world.members.members()[1].peer()), None);
}

#[test]
fn guests_have_every_message_as_soon_as_their_primary_and_send_nobody_anything() {
    for loss in [0.0, 0.03] {
        let mut net = network(&[1; 10], 6, loss, &config(TREES[2], loss));
        follow(&mut net, 10);
        net.run();
        for block in 1..6 {
            net.block(block, 4, 20_000);
            follow(&mut net, 10);
        }
        net.assert_complete(0, 30);
        for guest in 10..16 {
            let state = net.nodes[guest].attached().unwrap();
            assert!(state.granted && state.others.len() == 2, "{state:?}");
            let relays = net.nodes[guest].counters();
            assert_eq!((relays.forwarded, relays.owed, relays.repair_answered_shreds), (0, 0, 0));
            assert!(net.others[guest].is_empty(), "{:?}", net.others[guest]);
            if loss == 0.0 {
                assert_eq!(state.rotations, 0, "{state:?}");
                let repaired = net.nodes[guest].counters().repair_requested;
                assert_eq!(repaired, 0, "nothing is lost, nothing is asked for");
            }
        }
        for member in &net.nodes[..10] {
            let outcomes = member.outcomes();
            assert_eq!((outcomes.get(Outcome::Guest), outcomes.get(Outcome::ControlBad)), (0, 0));
        }
    }
}

#[test]
fn a_guest_whose_primary_falls_silent_rotates_and_loses_nothing() {
    let mut net = network(&[1; 12], 4, 0.0, &config(TREES[2], 0.0));
    follow(&mut net, 12);
    net.run();
    net.block(1, 4, 20_000);
    let before: Vec<usize> = (12..16).map(|guest| primary(&net, guest)).collect();
    let silent = *before.iter().find(|member| **member != 0).expect("one that is not the leader");
    // It says nothing any more, and nobody knows.
    net.dead[silent] = true;
    for block in 2..8 {
        net.send(env(block), 0);
        for seq in 0..4 {
            net.send(frag(block, seq, 20_000), 0);
            net.run_for(Duration::from_millis(200));
        }
        net.send(seal(block, 4), 0);
        net.run_for(Duration::from_millis(400));
        follow(&mut net, 12);
    }
    net.run_for(Duration::from_secs(5));
    net.assert_complete(0, 42);
    for (guest, before) in (12..16).zip(before) {
        let (after, state) = (primary(&net, guest), net.nodes[guest].attached().unwrap());
        if before == silent {
            assert!(after != silent && state.rotations >= 1 && state.granted, "{state:?}");
        } else {
            assert_eq!((after, state.rotations), (before, 0));
        }
    }
}

#[test]
fn a_member_that_is_full_says_so_and_the_guest_takes_another() {
    let mut net = network(&[1; 10], 3, 0.0, &config(TREES[2], 0.0));
    follow(&mut net, 10);
    let [full, one] = [primary(&net, 10), 10];
    net.run();
    // Others have taken all its places.
    net.nodes[full].parts.ctx.config.guests = 0;
    let of = net.nodes[full].epochs().peers().key(&net.ids[one]).unwrap();
    net.nodes[full].handle_disconnected(of);
    let key = net.nodes[one].epochs().peers().key(&net.ids[full]).unwrap();
    net.nodes[one].handle_disconnected(key);
    net.nodes[full].parts.ctx.config.guests = 1;
    let of = net.nodes[full].handle_guest(net.now, net.ids[one]).unwrap_or_else(|| {
        net.nodes[full].parts.ctx.config.guests = 64;
        net.nodes[full].handle_guest(net.now, net.ids[one]).unwrap()
    });
    net.nodes[full].parts.ctx.config.guests = 0;
    net.nodes[full].handle_connected(of);
    let wants = Control::Attach(Attach { share: Share::All, extra: 0 });
    let (now, served) = (net.now, net.nodes[full].guests_served());
    net.nodes[full].handle_control(now, of, &wants.to_bytes());
    assert_eq!(net.nodes[full].guests_served(), served, "it has no place");
    net.nodes[one].handle_connected(key);
    net.run();
    follow(&mut net, 10);
    net.run();
    let state = net.nodes[one].attached().unwrap();
    assert!(primary(&net, one) != full && state.granted, "{state:?}");
}

/// What a guest with one member asks it for in so many seconds, with when; the member answers with
/// `grants`, or not at all.
fn asked(seconds: u64, grants: Option<Share>) -> Vec<(Duration, Share)> {
    let world = World::new(&[1; 5], 1);
    let delegations = world.delegations.iter().copied();
    let (members, schedule) = (world.members.clone(), world.schedule.clone());
    let setup = Setup::new(Config::new(CHAIN), members, schedule, delegations).unwrap();
    let mut guest = setup.guest(&id(0), None);
    guest.handle_connected(peer(1));
    let mut asked = Vec::new();
    for after in (0..seconds * 100).map(|n| Duration::from_millis(10 * n)) {
        let now = NOW + after;
        guest.handle_round_trips(now, [(peer(1), Duration::from_millis(10))]);
        guest.handle_timeout(now);
        while let Some(sent) = guest.poll_transmit(now) {
            let Payload::Control(frame) = &sent.payload else { panic!("a guest sends no shreds") };
            let Ok(Control::Attach(wants)) = Control::from_bytes(frame) else { continue };
            asked.push((after, wants.share));
            if let Some(most) = grants {
                let granted = Attached { share: wants.share.min(most), places: 1, taken: 1 };
                guest.handle_control(now, peer(1), &Control::Attached(granted).to_bytes());
                let is_granted = guest.attached().is_some_and(|attached| attached.granted);
                assert_eq!(is_granted, most == Share::All);
            }
        }
    }
    asked
}

#[test]
fn a_guest_whose_only_member_is_full_asks_it_once_a_minute() {
    let shares = |asked: Vec<(Duration, Share)>| asked.into_iter().map(|(_, share)| share);
    assert!(shares(asked(10, Some(Share::Tips))).eq([Share::All]));
    assert!(shares(asked(10, Some(Share::All))).eq([Share::All]));
    let minutes = asked(150, Some(Share::Tips));
    assert_eq!(minutes.iter().filter(|(_, share)| *share == Share::All).count(), 3, "{minutes:?}");
    assert!(minutes.len() <= 5, "{minutes:?}");
}

#[test]
fn a_guest_asks_again_who_has_not_answered() {
    let asked = asked(22, None);
    assert!((4..=5).contains(&asked.len()), "{asked:?}");
    assert!(asked.iter().all(|(_, share)| *share == Share::All), "{asked:?}");
    assert!(asked.windows(2).all(|pair| pair[1].0 - pair[0].0 >= Duration::from_secs(5)));
}

/// Members let in twelve each; each guest looked for the nearest of six, and as many have three.
#[test]
fn guests_give_back_the_places_that_they_do_not_need() {
    let mut net = network(&[1; 10], 30, 0.0, &config(TREES[0], 0.0));
    net.nodes[..10].iter_mut().for_each(|node| node.parts.ctx.config.guests = 12);
    let connections = |net: &Net| {
        (10..40).map(|guest| net.nodes[guest].connected_peers().count()).collect::<Vec<_>>()
    };
    follow(&mut net, 10);
    assert!(connections(&net).contains(&0), "120 places, and 30 guests that look at six members");
    let mut most = 0;
    for _ in 0..90 {
        net.run_for(Duration::from_secs(1));
        follow(&mut net, 10);
        most = most.max(connections(&net).into_iter().max().unwrap());
    }
    assert!(most <= 6, "{most}");
    let held = connections(&net);
    assert!(held.iter().all(|count| *count >= 3), "{held:?}");
    assert!(held.iter().filter(|count| **count == 3).count() > 20, "{held:?}");
    for guest in 10..40 {
        let state = net.nodes[guest].attached().unwrap();
        assert!(state.granted && state.others.len() == 2, "{state:?}");
    }
    net.block(1, 4, 20_000);
    net.assert_complete(0, 6);
}

#[test]
fn a_member_without_a_place_is_called_no_more_for_a_minute_and_another_is_drawn() {
    let mut net = network(&[1; 40], 1, 0.0, &config(TREES[0], 0.0));
    follow(&mut net, 40);
    let guest = 40;
    let [first, kept] = [0, 1].map(|_| net.nodes[guest].wanted_connections().unwrap());
    assert_eq!((first.len(), &first), (6, &kept));
    let refused = first[0];
    let of = net.nodes[refused.number() as usize].epochs().peers().key(&net.ids[guest]).unwrap();
    net.nodes[refused.number() as usize].handle_disconnected(of);
    net.nodes[guest].handle_disconnected(refused);
    let now = net.now;
    net.nodes[guest].handle_refused(now, refused);
    let mut wanted = std::collections::BTreeSet::new();
    for _ in 0..58 {
        let now_wanted = net.nodes[guest].wanted_connections().unwrap();
        assert!(!now_wanted.contains(&refused), "{now_wanted:?}");
        wanted.extend(now_wanted);
        net.run_for(Duration::from_secs(1));
        follow(&mut net, 40);
    }
    assert!(wanted.len() > 8, "{wanted:?}");
    assert!(net.nodes[guest].attached().unwrap().granted);
}

/// All guests drew the same eight members, which have places for a few: the others were served by
/// nobody.
#[test]
fn guests_are_spread_over_the_members() {
    let net = network(&[1; 60], 12, 0.0, &config(TREES[0], 0.0));
    let wanted = (60..72).flat_map(|guest| net.nodes[guest].wanted_connections().unwrap());
    let wanted: std::collections::BTreeSet<PeerKey> = wanted.collect();
    assert!(wanted.len() > 30, "{} of 60 members", wanted.len());
}
