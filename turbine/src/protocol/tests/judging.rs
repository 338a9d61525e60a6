//! Who is convicted by what: a peer by what is wrong under every view that it may honestly have,
//! and by nothing else.

use bytes::Bytes;
use fragcast_shredder::{Commitment, Kind, SetHeader, Shredder, merkle};

use super::hostile::{NOW, all, barred, cut_bytes, events, feed, messages, victim, world};
use super::*;
use crate::plan::Plan;

/// Another delegation of gateway 0, to a key of its own and member 2.
fn delegation(world: &World, sequence: u64, seed: u8) -> (SigningKey, SignedDelegation) {
    let key = SigningKey::from_bytes(&[seed; 32]);
    let delegation = Delegation {
        chain_id: CHAIN,
        first: 0,
        last: u64::MAX,
        sequence,
        peer: world.members.members()[2].peer(),
        key: key.verifying_key().to_bytes(),
    };
    (key, delegation.sign(&world.gateways[0]))
}

/// A frag of block 1 as another key of gateway 0 cuts it, naming the plan of whose key `named` is.
fn cut_by(world: &World, key: &SigningKey, named: &SigningKey, seq: u64) -> Vec<Bytes> {
    let message = world.sign(frag(1, seq, 5_000));
    let (route, route_param) = Route::Rotor.to_wire();
    let params = MessageParams {
        key: super::key(message.message(), 0),
        kind: Kind::Frag,
        plan: Plan::configured(CHAIN, named.verifying_key().to_bytes(), &world.members).id(),
        route,
        route_param,
        sent_at: Timestamp::from_micros(7),
    };
    let wire = message.to_wire();
    let rate = CodeRate::new(wire.len(), LossTarget::default());
    all(&Shredder::new(CHAIN, key.clone()).shred(&wire, &params, rate).unwrap())
}

fn learn(node: &mut Protocol, from: u32, signed: SignedDelegation) {
    node.handle_control(NOW, peer(from), &Control::Delegation(signed).to_bytes());
}

#[test]
fn a_shred_of_the_wrong_leader_is_refused_and_convicts_nobody() {
    let world = world();
    let mut node = victim(&world);
    // Gateway 1 signs a block of gateway 0's term: to who has another schedule it is good.
    let wire = world.sign(frag(1, 0, 500)).to_wire();
    let cut = cut_bytes(&world, 1, &wire, key(&frag(1, 0, 500), 0), Kind::Frag);
    for _ in 0..100 {
        feed(&mut node, 2, all(&cut));
    }
    assert!(events(&mut node).is_empty());
    assert_eq!(node.outcomes().get(Outcome::BadSignature), 0);
    assert!(node.outcomes().get(Outcome::Unproven) > 0);
    assert_eq!(node.counters().forwarded, 0);
}

#[test]
fn data_that_overtakes_its_delegation_convicts_nobody_and_comes_when_it_is_known() {
    let world = world();
    for named in [true, false] {
        let mut node = victim(&world);
        let (key, signed) = delegation(&world, 2, 77);
        let plan = if named { &key } else { &world.leader_keys[0] };
        for seq in 0..40 {
            feed(&mut node, 1, cut_by(&world, &key, plan, seq));
        }
        assert!(events(&mut node).is_empty());
        learn(&mut node, 1, signed);
        feed(&mut node, 1, cut_by(&world, &key, plan, 0));
        assert_eq!(messages(&events(&mut node)), 1);
    }
}

#[test]
fn two_delegations_of_one_sequence_end_in_one_leader_everywhere() {
    let world = world();
    let both = [delegation(&world, 5, 71), delegation(&world, 5, 72)];
    let mut nodes = [victim(&world), victim(&world)];
    learn(&mut nodes[0], 1, both[0].1);
    learn(&mut nodes[1], 1, both[1].1);
    // Each half forwards to the other what it takes for good.
    for node in &mut nodes {
        for (key, _) in &both {
            for seq in 0..30 {
                feed(node, 4, cut_by(&world, key, key, seq).into_iter().take(3));
            }
        }
        assert!(barred(&events(node)).is_empty());
    }
    learn(&mut nodes[0], 1, both[1].1);
    learn(&mut nodes[1], 1, both[0].1);
    let leaders = nodes.each_ref().map(|node| node.epochs().leader(1).map(|l| l.key));
    assert_eq!(leaders[0], leaders[1]);
    // What was begun under the other key stands in nobody's way.
    let (key, _) = both.iter().find(|(key, _)| Some(key.verifying_key()) == leaders[0]).unwrap();
    for node in &mut nodes {
        let before = messages(&events(node));
        feed(node, 2, (0..5).flat_map(|seq| cut_by(&world, key, key, seq)));
        assert_eq!(before + messages(&events(node)), 5);
    }
}

#[test]
fn a_gateway_that_delegates_twice_with_one_sequence_is_reported_once_with_both() {
    let world = world();
    let mut node = victim(&world);
    let [first, second, third] = [71, 72, 73].map(|seed| delegation(&world, 5, seed).1);
    let reports = |node: &mut Protocol| -> Vec<(Address, [SignedDelegation; 2])> {
        let told = events(node).into_iter().filter_map(|event| match event {
            Event::DelegatedTwice { gateway, delegations } => Some((gateway, *delegations)),
            _ => None,
        });
        told.collect()
    };
    // A rotation has another sequence, and repeating is no crime.
    learn(&mut node, 1, delegation(&world, 4, 70).1);
    learn(&mut node, 1, first);
    learn(&mut node, 2, first);
    assert!(reports(&mut node).is_empty());
    learn(&mut node, 3, second);
    learn(&mut node, 4, second);
    let mut both = [first, second];
    both.sort_by_key(|signed| signed.delegation.digest());
    assert_eq!(reports(&mut node), [(world.gateways[0].address(), both)], "what counts first");
    learn(&mut node, 1, third);
    assert!(reports(&mut node).is_empty(), "two are proof enough");
    assert!(
        node.epochs().newest().delegations().contains(&third),
        "it is kept and told all the same"
    );
}

#[test]
fn half_of_the_network_has_another_list_of_gateways() {
    let world = world();
    let mut node = victim(&world);
    // To the others block 1 is gateway 1's, and they forward what it sends; where they agree
    // with us they send on as well.
    for round in 0..50u64 {
        let wire = world.sign(frag(1, round, 5_000)).to_wire();
        let place = key(&frag(1, round, 5_000), 0);
        feed(&mut node, 1, all(&cut_bytes(&world, 1, &wire, place, Kind::Frag)));
        let good = world.sign(frag(2, round, 2_000));
        feed(&mut node, 1, all(&super::cut(&world, &good, 0)));
        let other = world.sign(frag(12, round, 2_000));
        feed(&mut node, 1, all(&super::cut(&world, &other, 0)));
    }
    let events = events(&mut node);
    assert!(barred(&events).is_empty());
    assert_eq!(messages(&events), 100, "all of those on whose leader all agree");
}

#[test]
fn junk_is_looked_at_at_a_rate_and_good_shreds_of_others_always() {
    let world = world();
    let mut node = victim(&world);
    let junk: Vec<Bytes> = (0..500u64)
        .map(|seq| {
            let mut bytes = all(&super::cut(&world, &world.sign(frag(1, seq, 500)), 0))[0].to_vec();
            let end = bytes.len();
            bytes[end - 1] ^= 1;
            bytes.into()
        })
        .collect();
    feed(&mut node, 1, junk);
    assert!(events(&mut node).is_empty());
    let looked_at = 64;
    // What is not looked at is not taken either, though it were good: its sender has no credit.
    let good = all(&super::cut(&world, &world.sign(frag(1, 600, 5_000)), 0));
    feed(&mut node, 1, good.clone());
    assert_eq!(node.outcomes().get(Outcome::Unproven), 500 + good.len() as u64);
    assert!(500 > looked_at && messages(&events(&mut node)) == 0);
    feed(&mut node, 2, good[..1].iter().cloned());
    feed(&mut node, 1, good[1..].iter().cloned());
    assert_eq!(messages(&events(&mut node)), 1, "of a set that is known each shred is cheap");
    // A second later it has some again.
    let more = all(&super::cut(&world, &world.sign(frag(1, 601, 5_000)), 0));
    let later = NOW + Duration::from_secs(2);
    node.handle_datagrams(later, more.into_iter().map(|bytes| (peer(1), bytes)));
    assert_eq!(messages(&events(&mut node)), 1);
}

#[test]
fn a_liar_s_junk_of_far_blocks_takes_none_of_the_looks_of_others() {
    let world = world();
    let mut node = victim(&world);
    feed(&mut node, 1, all(&super::cut(&world, &world.sign(env(1)), 0)));
    let junk = |message: Message| -> Bytes {
        let mut bytes = all(&super::cut(&world, &world.sign(message), 0))[0].to_vec();
        let end = bytes.len();
        bytes[end - 1] ^= 1;
        bytes.into()
    };
    let seen =
        |node: &Protocol| [Outcome::Unproven, Outcome::Future].map(|o| node.outcomes().get(o));
    let far = junk(env(1_000));
    feed(&mut node, 4, std::iter::repeat_n(far.clone(), 500));
    assert_eq!(seen(&node), [32, 468], "it has so many looks");
    // Whose signatures are verified no more takes none at all.
    feed(&mut node, 4, (0..32).map(|seq| junk(frag(1, seq, 500))));
    feed(&mut node, 4, std::iter::repeat_n(far, 500));
    assert_eq!(seen(&node), [564, 468]);
    feed(&mut node, 1, all(&super::cut(&world, &world.sign(env(1_000)), 0)));
    assert!(node.outcomes().get(Outcome::Elsewhere) > 0);
}

#[test]
fn junk_of_a_set_that_is_known_costs_its_sender_and_what_the_tree_proves_is_free() {
    let world = world();
    let cut = super::cut(&world, &world.sign(frag(1, 0, 5_000)), 0);
    let good = all(&cut);
    // Of the same set: a bit of the shard and one of the signature, so that only that tells.
    let mut junk = good[1].to_vec();
    let end = junk.len();
    (junk[60], junk[end - 1]) = (junk[60] ^ 1, junk[end - 1] ^ 1);
    // And the same shred of a leader who equivocates, again and again.
    let mut other = frag(1, 0, 5_000);
    if let Message::Frag(frag) = &mut other {
        frag.is_last = true;
    }
    let other = all(&super::cut(&world, &world.sign(other), 0));
    for (flood, outcome, whole) in [
        (Bytes::from(junk.clone()), Outcome::Unproven, false),
        (other[0].clone(), Outcome::Equivocation, false),
        (junk.into(), Outcome::Unproven, true),
    ] {
        let mut node = victim(&world);
        feed(&mut node, 2, if whole { good.clone() } else { good[..1].to_vec() });
        feed(&mut node, 1, std::iter::repeat_n(flood, 500));
        assert!(barred(&events(&mut node)).is_empty());
        let (verified, unseen) =
            (node.outcomes().get(outcome), node.outcomes().get(Outcome::Unproven));
        assert!(outcome == Outcome::Unproven || (verified, unseen) == (65, 435));
        // It has used up what it had: nothing of its that is new is looked at.
        let new = all(&super::cut(&world, &world.sign(frag(1, 1, 500)), 0));
        feed(&mut node, 1, new.clone());
        assert_eq!(messages(&events(&mut node)), 0, "{outcome:?} {whole}");
        feed(&mut node, 2, new);
        feed(&mut node, 1, good[1..].iter().cloned());
        assert_eq!(messages(&events(&mut node)), if whole { 1 } else { 2 }, "{outcome:?}");
    }
}

/// A key may stand in several delegations: of other blocks, or of a gateway that names another's.
/// Told under one of those, the proof once convicted every node that told it.
#[test]
fn evidence_is_told_under_the_delegation_that_counts_and_bars_nobody() {
    let world = world();
    let delegation = world.delegations[0].delegation;
    let later = Delegation { first: 1_000, last: 2_000, sequence: 2, ..delegation };
    let first = super::cut(&world, &world.sign(frag(1, 0, 900)), 0);
    let second = super::cut(&world, &world.sign(frag(1, 0, 800)), 0);
    for signer in 0..2 {
        let mut nodes = [victim(&world), victim(&world)];
        for node in &mut nodes {
            learn(node, 1, later.sign(&world.gateways[signer]));
        }
        feed(&mut nodes[0], 2, [&first, &second].map(|cut| cut.sets[0].shreds[0].clone()));
        let accused = |events: &[Event]| {
            let accused = events.iter().find_map(|event| match event {
                Event::Equivocation { gateway, evidence } => Some((*gateway, evidence.clone())),
                _ => None,
            });
            accused.expect("it has proof")
        };
        let (gateway, evidence) = accused(&events(&mut nodes[0]));
        assert_eq!(gateway, world.gateways[0].address());
        let frame = Control::Evidence(evidence).to_bytes();
        nodes[1].handle_control(NOW, peer(2), &frame);
        let events = events(&mut nodes[1]);
        assert_eq!(barred(&events), [], "signed by gateway {signer}");
        assert_eq!(accused(&events).0, gateway);
    }
}

/// A signature that is as good as that of `key.sign`, which always chooses the same nonce.
fn sign_with_nonce(key: &SigningKey, nonce: u8, message: &[u8]) -> [u8; 64] {
    use sha2::Digest;
    let nonce = SigningKey::from_bytes(&[nonce; 32]);
    let r = nonce.verifying_key().to_bytes();
    let hash = sha2::Sha512::new().chain_update(r);
    let hash = hash.chain_update(key.verifying_key().as_bytes()).chain_update(message).finalize();
    let challenge = curve25519_dalek::Scalar::from_bytes_mod_order_wide(&hash.into());
    let s = nonce.to_scalar() + challenge * key.to_scalar();
    [r, s.to_bytes()].concat().try_into().expect("64 bytes")
}

/// The sets of a message in another form: under headers of which `change` has changed some that
/// is not content, and with another signature.
fn in_other_form(
    world: &World,
    cut: &ShreddedMessage,
    change: impl Fn(&mut SetHeader),
) -> Vec<Bytes> {
    let mut out = Vec::new();
    for set in &cut.sets {
        let mut header = set.header;
        change(&mut header);
        let root: merkle::Hash = set.root;
        let digest = header.digest(CHAIN, &root);
        let signature = sign_with_nonce(&world.leader_keys[0], 99, &digest);
        let claim = Commitment { header, root, signature };
        assert!(claim.verify(CHAIN, &world.leader_keys[0].verifying_key()));
        for bytes in &set.shreds {
            let mut bytes = bytes.to_vec();
            bytes[..48].copy_from_slice(&header.to_bytes());
            let end = bytes.len();
            bytes[end - 64..].copy_from_slice(&signature);
            out.push(bytes.into());
        }
    }
    out
}

/// Carries what two nodes, 3 and 4, send each other.
fn exchange(nodes: &mut [Protocol; 2], from: Timestamp, time: Duration) {
    let mut now = from;
    while now < from + time {
        now = now + Duration::from_millis(10);
        for (sender, to) in [(0, 1), (1, 0)] {
            nodes[sender].handle_timeout(now);
            while let Some(transmit) = nodes[sender].poll_transmit(now) {
                if transmit.to != peer(3 + to as u32) {
                    continue;
                }
                let me = peer(3 + sender as u32);
                match transmit.payload {
                    Payload::Shred(bytes) => nodes[to].handle_datagrams(now, [(me, bytes)]),
                    Payload::Control(bytes) => nodes[to].handle_control(now, me, &bytes),
                }
            }
        }
    }
}

#[test]
fn a_leader_cannot_split_nodes_by_forms_of_one_content() {
    let world = world();
    let changes: [fn(&mut SetHeader); 4] = [
        |_| {},
        |header| header.sent_at_micros += 1,
        |header| header.plan ^= 1,
        |header| (header.route, header.route_param) = (1, 9),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut nodes = [world.node(3, Config::new(CHAIN)), world.node(4, Config::new(CHAIN))];
        // Only the two know each other: the leader answers nobody.
        nodes[0].assume_connected([4u32]);
        nodes[1].assume_connected([3u32]);
        let cut = super::cut(&world, &world.sign(frag(1, 0, 60_000)), 0);
        let other = in_other_form(&world, &cut, change);
        // One has a few shreds of one form, the other all of the other.
        let few = cut.sets.iter().flat_map(|set| set.shreds[..3].to_vec());
        feed(&mut nodes[0], 1, few);
        feed(&mut nodes[1], 1, other.clone());
        assert_eq!(messages(&events(&mut nodes[1])), 1);
        exchange(&mut nodes, NOW, Duration::from_secs(3));
        let events = events(&mut nodes[0]);
        assert_eq!((messages(&events), barred(&events)), (1, vec![]), "form {n}");
        // Shreds of the other form from whoever sends them are good, too.
        let mut third = victim(&world);
        feed(&mut third, 1, cut.sets.iter().map(|set| set.shreds[0].clone()));
        feed(&mut third, 2, other);
        assert_eq!(messages(&self::events(&mut third)), 1, "form {n}");
    }
}
