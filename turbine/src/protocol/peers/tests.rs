use super::*;

const OURS: [u8; 32] = [1; 32];
const OTHER: [u8; 32] = [2; 32];
const NEWEST: Doubt = Doubt { newest: true, plan: false };
const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000);

fn table(ids: impl IntoIterator<Item = u8>) -> PeerTable {
    let mut table = PeerTable::default();
    for id in ids {
        table.intern(PeerId([id; 32])).unwrap();
    }
    table
}

fn peers() -> Peers {
    Peers::new(PeerKey::from(0), Arc::new(table(0..4)), OURS)
}

fn key(number: u32) -> PeerKey {
    PeerKey::from(number)
}

#[test]
fn connections_are_counted_once_and_strangers_not_at_all() {
    let mut peers = peers();
    assert!(peers.connect(key(1)) && peers.connect(key(1)) && peers.connect(key(3)));
    assert!(!peers.connect(key(4)) && !peers.connect(key(1 << 18)));
    peers.assume_connected(key(3));
    peers.assume_connected(key(9));
    assert_eq!(peers.connected(), 2);
    assert_eq!(peers.iter_connected().collect::<Vec<_>>(), [key(1), key(3)]);
    peers.disconnect(key(1));
    peers.disconnect(key(1));
    peers.disconnect(key(9));
    assert_eq!(peers.connected(), 1);
    assert!(peers.can_ask(key(3)) && !peers.can_ask(key(1)) && !peers.can_ask(key(0)));
}

#[test]
fn a_bad_signature_bars_who_has_greeted_and_the_others_in_the_end() {
    let mut peers = peers();
    peers.connect(key(1));
    let bad = Outcome::BadSignature;
    for n in 1..MAX_EARLY {
        assert_eq!(peers.judge(NOW, key(1), bad, NEWEST), (bad, false), "{n}");
    }
    assert_eq!(peers.judge(NOW, key(1), bad, NEWEST), (bad, true));
    assert_eq!(peers.judge(NOW, key(1), bad, NEWEST), (bad, false), "barred already");
    assert!(peers.is_refused(key(1)) && !peers.can_ask(key(1)));
    peers.connect(key(2));
    peers.greet(key(2), OURS);
    assert_eq!(peers.judge(NOW, key(2), Outcome::Late, NEWEST), (Outcome::Late, false));
    assert_eq!(peers.judge(NOW, key(2), bad, NEWEST), (bad, true));
    // A new connection is a new beginning, but not for what came too early.
    peers.disconnect(key(1));
    peers.connect(key(1));
    assert!(!peers.is_refused(key(1)));
    assert_eq!(peers.judge(NOW, key(1), bad, NEWEST), (bad, true));
}

#[test]
fn a_plan_that_is_not_known_is_an_excuse_for_a_while() {
    let mut peers = peers();
    peers.connect(key(1));
    peers.greet(key(1), OURS);
    let (bad, doubt) = (Outcome::BadSignature, Doubt { newest: true, plan: true });
    for n in 1..MAX_EARLY {
        assert_eq!(peers.judge(NOW, key(1), bad, doubt), (bad, false), "{n}");
    }
    assert_eq!(peers.judge(NOW, key(1), bad, doubt), (bad, true));
    peers.connect(key(2));
    peers.greet(key(2), OURS);
    assert!(peers.judge(NOW, key(2), Outcome::Malformed, doubt).1);
}

#[test]
fn who_goes_by_another_table_is_excused_at_a_bounded_rate() {
    let mut peers = peers();
    peers.connect(key(1));
    assert!(!peers.greet(key(1), OTHER), "its first greeting");
    assert_eq!((peers.elsewhere(), peers.is_muted(NOW, key(1))), (1, false));
    let bad = Outcome::BadSignature;
    let mut taken = 0;
    while !peers.is_muted(NOW, key(1)) {
        assert_eq!(peers.judge(NOW, key(1), bad, NEWEST), (Outcome::OtherTable, false));
        taken += 1;
    }
    assert_eq!(taken, OTHER_TABLE.1);
    assert!(!peers.is_muted(NOW + Duration::from_millis(32), key(1)));
    assert!(!peers.is_refused(key(1)) && !peers.is_muted(NOW, key(2)));
    // What is junk whatever the table, or of blocks on which both agree, is no one's but its.
    assert!(peers.judge(NOW, key(1), Outcome::Malformed, NEWEST).1);
    peers.connect(key(2));
    peers.greet(key(2), OTHER);
    assert_eq!(peers.judge(NOW, key(2), bad, Doubt::default()), (bad, true));
}

#[test]
fn greetings_are_read_anew_when_our_own_table_changes() {
    let mut peers = peers();
    for (peer, table) in [(1, OURS), (2, OTHER), (3, [3; 32])] {
        peers.connect(key(peer));
        peers.greet(key(peer), table);
    }
    assert_eq!(peers.elsewhere(), 2);
    // We take the table that peer 2 has already; peer 1 still goes by the old one.
    let mut table = table(0..4);
    let joined = table.intern(PeerId([9; 32])).unwrap();
    peers.set_table(Arc::new(table), OTHER);
    assert_eq!(peers.elsewhere(), 2, "now it is 1 and 3");
    assert!(peers.judge(NOW, key(2), Outcome::BadSignature, NEWEST).1);
    assert!(!peers.judge(NOW, key(1), Outcome::BadSignature, NEWEST).1);
    assert!(peers.greet(key(1), OTHER), "it has changed its table");
    assert!(!peers.greet(key(1), OTHER), "and says so again");
    assert!(!peers.greet(key(1), OURS) && !peers.greet(key(1), OTHER), "and goes on");
    assert_eq!(peers.elsewhere(), 1);
    assert!(peers.connect(joined) && peers.is_connected(key(3)));
}

#[test]
fn who_is_forgotten_is_nobody_and_its_slot_begins_anew() {
    let mut peers = peers();
    peers.connect(key(2));
    peers.greet(key(2), OTHER);
    peers.judge(NOW, key(2), Outcome::Malformed, NEWEST);
    let mut table = table(0..4);
    peers.forget(key(2));
    table.forget(&PeerId([2; 32]));
    let next = table.intern(PeerId([7; 32])).unwrap();
    peers.set_table(Arc::new(table), OURS);
    assert_eq!(next.slot(), 2);
    assert!(!peers.contains(key(2)) && peers.is_refused(key(2)));
    assert!(!peers.is_refused(next) && !peers.is_connected(next));
    assert_eq!((peers.connected(), peers.elsewhere()), (0, 0));
    assert!(!peers.judge(NOW, key(2), Outcome::Malformed, NEWEST).1);
}
