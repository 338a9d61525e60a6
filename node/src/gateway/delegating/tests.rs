//! When a delegation is asked for, and what for.

use alloy_primitives::Address;

use super::*;
use crate::config::SignerApi;

const ME: PeerId = PeerId([1; 32]);
const OTHER: PeerId = PeerId([2; 32]);
const KEY: [u8; 32] = [3; 32];
const NOW: u64 = 1_700_000_000_000;
const LONG: Duration = Duration::from_secs(1_000);

fn settings(blocks: Option<u64>) -> Settings {
    let timeout = Duration::from_secs(1);
    let signer = Signer::new("http://x", SignerApi::Clef, Address::repeat_byte(9), timeout);
    Settings { signer, chain_id: 5, peer: ME, key: KEY, blocks, saved: "none".into() }
}

fn mine(first: u64, last: u64, sequence: u64) -> Delegation {
    Delegation { chain_id: 5, first, last, sequence, peer: ME, key: KEY }
}

fn step(
    blocks: Option<u64>,
    head: Option<u64>,
    up: Duration,
    known: &[Delegation],
    own: Option<Delegation>,
) -> Step {
    decide(&settings(blocks), &View { head, up, known, own, unix: NOW, ahead: AHEAD })
}

#[test]
fn the_first_is_for_all_blocks_or_for_so_many_and_comes_after_the_greetings() {
    let soon = Duration::from_millis(10);
    assert!(matches!(step(None, None, soon, &[], None), Step::Wait(_)), "peers may know one");
    assert_eq!(step(None, None, LONG, &[], None), Step::Ask(mine(0, u64::MAX, NOW)));
    assert_eq!(step(None, Some(41), soon, &[], None), Step::Ask(mine(42, u64::MAX, NOW)));
    assert_eq!(step(Some(100), Some(41), soon, &[], None), Step::Ask(mine(42, 141, NOW)));
}

#[test]
fn one_that_holds_is_not_asked_for_again_until_its_last_quarter() {
    let held = mine(42, 141, 7);
    for head in [41, 42, 100, 115] {
        assert_eq!(step(Some(100), Some(head), LONG, &[held], None), Step::Held(held), "{head}");
        // Nor while the network does not know it yet.
        assert_eq!(step(Some(100), Some(head), LONG, &[], Some(held)), Step::Held(held));
    }
    let renewed = step(Some(100), Some(117), LONG, &[held], Some(held));
    assert_eq!(renewed, Step::Ask(mine(118, 217, NOW)));
    // Until it is signed, and then there is nothing to do for long.
    let Step::Ask(new) = renewed else { panic!("{renewed:?}") };
    assert_eq!(step(Some(100), Some(117), LONG, &[held], Some(new)), Step::Held(new));
    // One that was prepared by hand goes on where it ends.
    let prepared = mine(142, 300, 6);
    assert_eq!(step(Some(100), Some(140), LONG, &[held, prepared], None), Step::Held(held));
    // The signer was away for too long: it has ended.
    assert_eq!(
        step(Some(100), Some(150), LONG, &[held], Some(held)),
        Step::Ask(mine(151, 250, NOW))
    );
}

#[test]
fn another_key_is_taken_over_from_the_first_block_that_nobody_has_open() {
    let old = Delegation { key: [4; 32], ..mine(0, u64::MAX, 7) };
    for old in [old, Delegation { peer: OTHER, ..old }] {
        assert_eq!(step(None, Some(41), LONG, &[old], None), Step::Ask(mine(49, u64::MAX, NOW)));
        assert!(matches!(step(None, None, Duration::ZERO, &[old], None), Step::Wait(_)));
        assert_eq!(step(None, None, LONG, &[old], None), Step::Ask(mine(0, u64::MAX, NOW)));
        // Above what it replaces, whatever the clock says.
        let high = Delegation { sequence: NOW + 9, ..old };
        let expected = Step::Ask(mine(49, u64::MAX, NOW + 10));
        assert_eq!(step(None, Some(41), LONG, &[high], None), expected);
        // Until it begins the old one holds, and nothing is to be done.
        let new = mine(49, u64::MAX, NOW);
        for known in [&[old, new][..], &[old]] {
            assert_eq!(step(None, Some(45), LONG, known, Some(new)), Step::Held(new));
            assert_eq!(step(None, Some(48), LONG, known, Some(new)), Step::Held(new));
        }
    }
}

#[test]
fn what_was_signed_too_late_takes_over_no_open_block() {
    let other = Delegation { peer: OTHER, ..mine(0, u64::MAX, 7) };
    fn view(head: Option<u64>, known: &[Delegation], ahead: u64) -> View<'_> {
        View { head, up: LONG, known, own: None, unix: NOW, ahead }
    }
    let settings = settings(None);
    let ask = |view: &View<'_>| match decide(&settings, view) {
        Step::Ask(asked) => asked,
        step => panic!("{step:?}"),
    };
    let known = [other];
    let asked = ask(&view(Some(41), &known, AHEAD));
    assert_eq!(asked.first, 49);
    // The next block may be open elsewhere, and to tell everybody takes a while.
    for (head, late) in
        [(41, false), (46, false), (47, true), (49, true), (61, true), (9_000, true)]
    {
        assert_eq!(is_late(&settings, &view(Some(head), &known, AHEAD), &asked), late, "at {head}");
    }
    // After 20 blocks it is asked for from further ahead, so that it may take as long again.
    let ahead = further(AHEAD, 20);
    let again = ask(&view(Some(61), &known, ahead));
    assert!(again.first > 61 + 20, "{again:?}");
    assert!(!is_late(&settings, &view(Some(81), &known, ahead), &again));
    assert_eq!(further(ahead, 1), ahead, "it is not forgotten");
    let most = further(ahead, u64::MAX);
    assert!(most < 100_000 && further(most, u64::MAX) == most, "{most}");
    // Where nobody speaks for the gateway, nobody's block is taken over.
    assert!(!is_late(&settings, &view(Some(61), &[], AHEAD), &asked));
    // Nor where this node does, whoever did before.
    let (held, renewed) = (mine(49, 148, 8), mine(124, 223, 9));
    for head in [125, 140] {
        assert!(!is_late(&settings, &view(Some(head), &[other, held], AHEAD), &renewed), "{head}");
    }
    // But it ends, and then the other one speaks again.
    assert!(is_late(&settings, &view(Some(147), &[other, held], AHEAD), &renewed));
    // Somebody who began while it was being signed.
    let newer = Delegation { peer: OTHER, ..mine(50, 60, 8) };
    assert!(is_late(&settings, &view(Some(55), &[newer], AHEAD), &mine(42, u64::MAX, 9)));
    assert!(!is_late(&settings, &view(Some(47), &[newer], AHEAD), &mine(42, u64::MAX, 9)));
    // While no block is known any may be open, until it is known that the chain stands still.
    let soon = View { up: Duration::ZERO, ..view(None, &known, AHEAD) };
    assert!(is_late(&settings, &soon, &mine(0, u64::MAX, NOW)));
    assert!(!is_late(&settings, &view(None, &known, AHEAD), &mine(0, u64::MAX, NOW)));
}

#[test]
fn what_was_saved_and_never_told_takes_over_no_open_block_after_a_restart() {
    let other = Delegation { peer: OTHER, ..mine(0, u64::MAX, 7) };
    let newer = Delegation { peer: OTHER, ..mine(60, u64::MAX, 9) };
    let (own, soon, greeted) = (mine(49, u64::MAX, 8), Duration::ZERO, Duration::from_secs(6));
    let settings = settings(None);
    let becomes = |head, up, known: &[Delegation]| {
        untold(&settings, &View { head, up, known, own: None, unix: NOW, ahead: AHEAD }, &own)
    };
    // Somebody else has led meanwhile.
    assert_eq!(becomes(Some(9_000), greeted, &[other]), Untold::Drop);
    assert_eq!(becomes(Some(47), greeted, &[other]), Untold::Drop);
    assert_eq!(becomes(Some(41), greeted, &[other]), Untold::Tell, "nobody has its first block");
    // Nobody has, or this node.
    for known in [&[][..], &[mine(0, u64::MAX, 7)], &[other, mine(40, u64::MAX, 8)]] {
        assert_eq!(becomes(Some(9_000), greeted, known), Untold::Tell, "{known:?}");
    }
    // Before peers have told what they know, and while no block is known, nothing is decided.
    for known in [&[][..], &[other]] {
        for head in [None, Some(9_000)] {
            assert_eq!(becomes(head, soon, known), Untold::Wait, "{head:?} {known:?}");
        }
    }
    assert_eq!(becomes(None, greeted, &[other]), Untold::Wait);
    assert_eq!(becomes(None, LONG, &[other]), Untold::Tell, "the chain stands still");
    assert_eq!(becomes(None, greeted, &[]), Untold::Tell, "there is nobody to take over from");
    // To who is newer the node leaves it: it is not asked for again above that.
    assert_eq!(becomes(Some(9_000), greeted, &[other, newer]), Untold::Wait);
    let step = step(None, Some(9_000), greeted, &[other, newer], Some(own));
    assert_eq!(step, Step::Elsewhere(OTHER));
}

#[test]
fn above_the_highest_sequence_nothing_is_asked_for() {
    let other = Delegation { peer: OTHER, ..mine(0, u64::MAX, u64::MAX) };
    let own = mine(49, u64::MAX, u64::MAX);
    // Of two with the highest sequence no third one decides; each request would only contradict more.
    for own in [None, Some(own), Some(mine(49, u64::MAX, 7))] {
        let next = step(None, Some(41), LONG, &[other], own);
        assert!(matches!(next, Step::Wait(NO_SEQUENCE) | Step::Elsewhere(_)), "{own:?}: {next:?}");
    }
    assert_eq!(step(None, Some(41), LONG, &[other], Some(own)), Step::Wait(NO_SEQUENCE));
    // One before it there is one left.
    let last = Delegation { sequence: u64::MAX - 1, ..other };
    assert_eq!(step(None, Some(41), LONG, &[last], None), Step::Ask(own));
    // One that ends holds to its end, and then there is none.
    let held = mine(42, 141, u64::MAX);
    assert_eq!(step(Some(100), Some(140), LONG, &[held], Some(held)), Step::Held(held));
    assert_eq!(step(Some(100), Some(141), LONG, &[held], Some(held)), Step::Wait(NO_SEQUENCE));
    // The operator is told.
    let status = DelegationStatus::default();
    status.note(&Step::Wait(NO_SEQUENCE), Some(141));
    assert!(status.describe().unwrap().contains(NO_SEQUENCE));
    assert_eq!(status.json(Reader::Operator)["error"], NO_SEQUENCE);
}

#[test]
fn two_nodes_of_a_gateway_do_not_take_over_from_one_another_for_ever() {
    let (first, second) =
        (mine(0, u64::MAX, 7), Delegation { peer: OTHER, ..mine(49, u64::MAX, 8) });
    assert_eq!(step(None, Some(48), LONG, &[first, second], Some(first)), Step::Elsewhere(OTHER));
    assert_eq!(step(None, Some(40), LONG, &[first, second], Some(first)), Step::Held(first));
    // Without what it had before, a node is one that is to take over.
    assert!(matches!(step(None, Some(48), LONG, &[first, second], None), Step::Ask(_)));
}

#[test]
fn a_node_that_did_not_get_its_delegation_from_the_signer_gives_way_as_well() {
    let (given, second) =
        (mine(0, u64::MAX, 7), Delegation { peer: OTHER, ..mine(49, u64::MAX, 8) });
    let view = |head, own| View { head, up: LONG, known: &[], own, unix: NOW, ahead: AHEAD };
    assert_eq!(step(None, Some(40), LONG, &[given], None), Step::Held(given));
    assert!(takes(&view(Some(40), None), &given), "from now on it is its own");
    assert!(!takes(&view(None, None), &given), "no block is known");
    assert!(!takes(&view(Some(40), Some(given)), &given));
    let renewed = mine(60, 123, 9);
    assert!(takes(&view(Some(70), Some(given)), &renewed));
    assert!(!takes(&view(Some(40), Some(renewed)), &given));
    assert_eq!(step(None, Some(48), LONG, &[given, second], Some(given)), Step::Elsewhere(OTHER));
}

#[test]
fn an_error_of_the_signers_is_told_until_nothing_is_asked_for() {
    let status = DelegationStatus::default();
    for (step, told) in [
        (Step::Ask(mine(0, 9, 1)), true),
        (Step::Held(mine(0, 9, 1)), false),
        (Step::Wait("somebody else"), false),
        (Step::Elsewhere(OTHER), false),
    ] {
        status.lock().error = Some("refused".into());
        status.note(&step, Some(1));
        assert_eq!(status.describe().is_some(), told, "{step:?}");
        assert_eq!(status.json(Reader::Operator)["error"].is_string(), told, "{step:?}");
        // Who leaves the gateway to another node waits for no renewal.
        let elsewhere = matches!(step, Step::Elsewhere(_));
        assert_eq!(status.renewed_from(), (!elsewhere).then_some(2 * AHEAD), "{step:?}");
    }
}

#[test]
fn everybody_is_told_of_an_error_and_the_operator_of_which() {
    let status = DelegationStatus::default();
    status.lock().signer = settings(None).signer.name();
    status.lock().error = Some("ERROR".into());
    status.note(&Step::Ask(mine(0, 9, 1)), Some(1));
    let operator = status.json(Reader::Operator);
    assert_eq!(
        (&operator["error"], &operator["signer"]),
        (&"ERROR".into(), &"clef at http://x".into())
    );
    let public = status.json(Reader::Anybody);
    assert!(public["error"].is_string() && public["signer"].is_null(), "{public}");
    assert!(!public.to_string().contains("ERROR"), "{public}");
    assert_eq!(public["state"], operator["state"]);
}

#[test]
fn while_no_block_is_known_what_was_obtained_is_kept() {
    let own = mine(48, 111, 7);
    assert_eq!(step(Some(64), None, LONG, &[own], Some(own)), Step::Held(own));
    let newer = Delegation { peer: OTHER, ..mine(100, 200, 8) };
    assert_eq!(step(Some(64), None, LONG, &[newer], Some(own)), Step::Elsewhere(OTHER));
    let older = Delegation { sequence: 6, ..newer };
    assert_eq!(step(Some(64), None, LONG, &[older], Some(own)), Step::Held(own));
    // The gateway's own Env tells where the chain is.
    assert_eq!(step(Some(64), Some(999), LONG, &[], Some(own)), Step::Ask(mine(1000, 1063, NOW)));
}

#[test]
fn what_is_saved_is_read_and_of_others_none() {
    let dir = tempfile::tempdir().unwrap();
    let key = fragcast_shredder::GatewayKey::from_bytes([0x11; 32]).unwrap();
    let timeout = Duration::from_secs(1);
    let signer = Signer::new("http://x", SignerApi::Clef, key.address(), timeout);
    let saved = dir.path().join("leader.delegation");
    let ours = Settings { signer, saved: saved.clone(), ..settings(None) };
    assert_eq!(read(&ours), None);
    let signed = mine(0, 9, 1).sign(&key);
    // Whether the overlay has had it is kept as well.
    for is_told in [false, true, true] {
        write(&saved, &signed, is_told).unwrap();
        assert_eq!(read(&ours), Some((signed, is_told)));
    }
    assert_eq!(read(&Settings { chain_id: 6, ..ours.clone() }), None);
    assert_eq!(read(&Settings { peer: OTHER, ..ours.clone() }), None);
    assert_eq!(read(&Settings { key: [4; 32], ..ours.clone() }), None);
    let stranger = Signer::new("http://x", SignerApi::Clef, Address::repeat_byte(8), timeout);
    assert_eq!(read(&Settings { signer: stranger, ..ours.clone() }), None);
    std::fs::write(&saved, "0xjunk").unwrap();
    assert_eq!(read(&ours), None);
}
