use super::*;

const REANCHOR: Duration = Duration::from_secs(5);
const FAR: u64 = 1 << 40;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

fn window() -> Window {
    Window::new(REANCHOR, Duration::from_millis(50))
}

fn sight(block: u64, kind: Kind, gateway: u8, fresh: bool) -> Sight {
    let age = if fresh { Age::Fresh } else { Age::Old };
    Sight { block, kind, gateway: Address::repeat_byte(gateway), age }
}

/// Fresh, of gateway 1.
fn env(block: u64) -> Sight {
    sight(block, Kind::Env, 1, true)
}

fn seal(block: u64) -> Sight {
    sight(block, Kind::Seal, 1, true)
}

/// A window that two gateways have brought to block 101 at second 10.
fn backed() -> Window {
    let mut window = window();
    window.advance(at(10), &env(100));
    window.advance(at(10), &seal(100));
    window.advance(at(10), &sight(101, Kind::Env, 2, true));
    window
}

#[test]
fn it_follows_env_and_seal_and_never_goes_back() {
    let mut window = window();
    assert_eq!(window.bounds(), (0, u64::MAX), "anything, until something is known");
    window.advance(at(1), &env(100));
    assert_eq!(window.bounds(), (36, 107));
    window.advance(at(1), &env(103));
    window.advance(at(1), &env(101));
    assert_eq!(window.bounds(), (39, 110), "nothing is sealed: counted from what is open");
    window.advance(at(1), &seal(100));
    assert_eq!(window.bounds(), (36, 110), "block 100 is the last that is sealed");
    window.advance(at(1), &sight(103, Kind::Frag, 1, true));
    assert_eq!((window.bounds(), window.taken()), ((36, 110), Some(103)));
    window.move_to(at(1), 5_000);
    assert_eq!((window.bounds(), window.taken()), ((4_936, 5_007), Some(103)));
    window.advance(at(1), &env(u64::MAX));
    assert_eq!(window.bounds().1, u64::MAX, "no overflow at the end of numbers");
}

#[test]
fn two_gateways_that_make_progress_are_not_doubted() {
    let mut window = backed();
    for block in [FAR, 109, 1, 35, u64::MAX] {
        assert!(matches!(window.place(at(15), block), Place::Outside(_)), "{block}");
        assert!(!window.sighted(at(15), &sight(block, Kind::Env, 3, true)));
    }
    assert_eq!(window.gossip_bounds(at(15)), window.bounds());
}

#[test]
fn a_leap_within_the_window_has_but_one_gateway_behind_it() {
    let mut window = backed();
    window.advance(at(10), &sight(107, Kind::Env, 3, true));
    assert_eq!(window.opened(), Some(107));
    assert_eq!(window.place(at(10), FAR), Place::Elsewhere, "others are listened to");
    // The two that were behind it are at 102, and it is back as soon as it stands still.
    assert!(!window.sighted(at(10), &sight(30, Kind::Env, 1, true)));
    assert!(window.sighted(at(10), &sight(31, Kind::Env, 2, true)), "two against one");
    // The next block in order adds to what is behind the window.
    let mut window = backed();
    window.advance(at(10), &sight(102, Kind::Env, 3, true));
    assert_eq!(window.place(at(10), FAR), Place::Outside(Outcome::Future));
    // A Seal of a block that is far above what is open neither moves nor holds anything.
    window.advance(at(14), &sight(106, Kind::Seal, 3, true));
    assert_eq!((window.sealed(), window.opened()), (Some(100), Some(102)));
    assert_eq!(window.place(at(16), FAR), Place::Elsewhere, "nor is it progress");
    // Nor does a recording of a leap leave it backed.
    let mut window = backed();
    window.advance(at(10), &sight(107, Kind::Env, 3, false));
    assert!(window.sighted(at(10), &sight(30, Kind::Env, 1, true)));
    // A Seal that overtakes the Env of its block counts with it.
    let mut window = backed();
    window.advance(at(10), &sight(107, Kind::Seal, 3, true));
    window.advance(at(10), &sight(107, Kind::Env, 3, true));
    assert_eq!((window.sealed(), window.opened()), (Some(107), Some(107)));
}

#[test]
fn after_a_time_without_progress_it_takes_as_many_gateways_as_before_and_time() {
    let mut window = backed();
    assert_eq!(window.place(at(16), 150), Place::Elsewhere);
    assert!(!window.sighted(at(16), &sight(150, Kind::Env, 3, true)), "one is not enough");
    assert!(!window.sighted(at(16), &sight(150, Kind::Seal, 3, true)), "nor is one twice");
    assert!(window.sighted(at(16), &sight(151, Kind::Env, 4, true)));
    assert_eq!(window.bounds(), (86, 158));
    // Back too, but not by recordings.
    let mut window = backed();
    assert!(!window.sighted(at(16), &sight(5, Kind::Env, 3, false)));
    assert!(!window.sighted(at(16), &sight(5, Kind::Env, 4, false)));
    assert!(!window.sighted(at(16), &sight(5, Kind::Env, 3, true)));
    assert!(window.sighted(at(16), &sight(5, Kind::Env, 4, true)));
    assert_eq!(window.bounds(), (0, 12));
}

#[test]
fn one_gateway_alone_moves_it_no_further_than_time_allows() {
    let mut window = window();
    window.advance(at(10), &env(100));
    assert_eq!(window.place(at(10), FAR), Place::Elsewhere, "it is looked at");
    assert!(!window.sighted(at(10), &env(FAR)), "and not believed");
    assert!(!window.sighted(at(60), &env(FAR)), "nor after a minute");
    assert!(!window.sighted(at(14), &env(300)), "the window is not in doubt");
    assert!(window.sighted(at(16), &env(300)));
    // What one has moved, two move back at once, and one when it stands still.
    for (now, gateways) in [(16, &[2, 3][..]), (22, &[2])] {
        let mut lied = self::window();
        lied.advance(at(16), &env(FAR));
        let moved: Vec<bool> = gateways
            .iter()
            .map(|gateway| lied.sighted(at(now), &sight(40, Kind::Env, *gateway, true)))
            .collect();
        assert_eq!(moved.iter().filter(|moved| **moved).count(), 1, "{moved:?}");
        assert_eq!(lied.bounds(), (0, 47));
    }
}

#[test]
fn a_recording_holds_nobody_for_a_moment() {
    let mut window = window();
    window.advance(at(1), &sight(FAR, Kind::Env, 1, false));
    assert_eq!(window.place(at(1), 900), Place::Elsewhere);
    assert!(window.sighted(at(1), &sight(900, Kind::Env, 2, true)));
    // A whole series of them, and what is live is ahead.
    let mut window = self::window();
    for block in 1..50 {
        window.advance(at(1), &sight(block, Kind::Env, block as u8 / 10, false));
        window.advance(at(1), &sight(block, Kind::Seal, block as u8 / 10, false));
    }
    assert!(window.sighted(at(1), &sight(1_000, Kind::Env, 9, true)));
}

#[test]
fn what_has_no_time_of_its_own_counts_until_the_chain_has_shown_its_time() {
    let unknown =
        |block, gateway| Sight { age: Age::Unknown, ..sight(block, Kind::Env, gateway, true) };
    let mut window = window();
    window.advance(at(1), &unknown(2, 1));
    window.advance(at(1), &unknown(3, 2));
    assert_eq!(window.gossip_bounds(at(1)), (0, 10), "two stand behind it");
    window.note_time();
    assert_eq!(window.gossip_bounds(at(1)), (0, u64::MAX), "those may have been recordings");
    assert!(window.sighted(at(1), &sight(900, Kind::Env, 2, true)));
    assert!(!window.sighted(at(9), &unknown(2, 1)), "back only what is fresh leads");
}

#[test]
fn the_verified_head_bounds_what_is_believed() {
    let mut window = window();
    assert!(window.verified(at(1_000), 500, at(990)));
    assert_eq!(window.bounds(), (436, 507));
    assert_eq!(window.place(at(1_000), FAR), Place::Outside(Outcome::Future));
    assert!(!window.sighted(at(1_000), &env(FAR)));
    window.advance(at(1_000), &env(FAR));
    assert_eq!(window.opened(), Some(500), "nor if it is told before the window is known");
    assert_eq!(window.place(at(1_000), 435), Place::Outside(Outcome::Past));
    // Ten seconds are 200 blocks of 50 ms, and twice as many for speed.
    assert!(window.sighted(at(1_000), &env(900)));
    assert!(!window.verified(at(1_001), 501, at(1_000)), "what is behind moves nothing");
    assert_eq!(window.opened(), Some(900));
    assert!(window.verified(at(1_100), 2_000, at(1_099)), "and what is ahead does");
    // A chain whose time is not ours bounds nothing.
    for built_at in [Timestamp::default(), at(5_000)] {
        let mut window = self::window();
        window.verified(at(1_000), 500, built_at);
        assert!(window.sighted(at(1_000), &env(FAR)), "{built_at:?}");
    }
}

#[test]
fn most_peers_move_it_at_once_and_a_liar_does_not() {
    let tell = |window: &mut Window, words: &[(u32, u64)]| {
        let all = words.len() as u128;
        for (peer, block) in words {
            window.told(at(11), PeerKey::from(*peer), *block);
        }
        window.count(at(11), 1, all, |_| Some(1))
    };
    let mut window = backed();
    assert!(!tell(&mut window, &[(1, FAR), (2, 101), (3, 102)]));
    assert_eq!(window.opened(), Some(101));
    assert!(!tell(&mut window, &[(1, FAR), (2, FAR), (3, 102)]), "with our own word two to two");
    assert!(tell(&mut window, &[(1, 900), (2, 900), (3, 901)]));
    assert_eq!(window.bounds(), (835, 907));
    let mut lied = self::window();
    lied.advance(at(10), &env(FAR));
    lied.advance(at(10), &seal(FAR));
    assert!(tell(&mut lied, &[(1, 30), (2, 31), (3, 31)]));
    assert_eq!(lied.bounds(), (0, 38));
    // Not against the operator, for a while.
    let mut held = backed();
    held.move_to(at(11), 5_000);
    assert!(!tell(&mut held, &[(1, 30), (2, 31), (3, 31)]));
    let mut first = self::window();
    first.move_to(at(11), 5_000);
    assert!(tell(&mut first, &[(1, 30), (2, 31), (3, 31)]), "who knew nothing was not put right");
    held.told(at(22), PeerKey::from(1), 31);
    assert!(held.count(at(22), 1, 1, |_| Some(1)));
}

#[test]
fn epochs_are_needed_as_far_back_as_anybody_who_counts_is() {
    let mut window = backed();
    assert_eq!(window.lowest_needed(at(10)), window.bounds().0);
    window.verified(at(11), 80, at(11));
    assert_eq!(window.lowest_needed(at(11)), window.bounds().0, "it is of the window");
    assert_eq!(window.lowest_live(at(11)), 72, "a gateway may have leapt there");
    window.verified(at(11), 30, at(11));
    assert_eq!(window.lowest_needed(at(11)), 0);
    let mut held = backed();
    held.move_to(at(11), 5_000);
    assert_eq!(held.lowest_needed(at(11)), 4_936);
    held.verified(at(12), 100, at(12));
    assert_eq!(held.lowest_needed(at(12)), 36);
    assert_eq!(held.lowest_live(at(12)), 92);
}
