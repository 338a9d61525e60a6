use super::*;

const OURS: [u8; 32] = [1; 32];
const OTHER: [u8; 32] = [2; 32];
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
fn who_is_barred_stays_so_until_its_connection_is_another_one() {
    let mut peers = peers();
    peers.connect(key(1));
    assert!(peers.bar(key(1)) && !peers.bar(key(1)), "once");
    assert!(!peers.bar(key(9)), "nobody");
    assert!(peers.is_refused(key(1)) && !peers.can_ask(key(1)));
    peers.disconnect(key(1));
    peers.connect(key(1));
    assert!(!peers.is_refused(key(1)) && peers.can_ask(key(1)));
}

#[test]
fn useless_work_is_paid_for_and_who_goes_on_goes_too_far() {
    let mut peers = peers();
    peers.connect(key(1));
    peers.connect(key(2));
    let mut charged = 0;
    while !peers.is_spent(NOW, key(1)) {
        peers.charge(NOW, key(1), 150);
        charged += 150;
    }
    assert!((WORK.1..WORK.1 + 300).contains(&charged), "{charged}");
    assert!(!peers.is_spent(NOW, key(2)), "each has its own");
    let strikes = (1..).find(|_| peers.strike(NOW, key(1)));
    assert_eq!(strikes, Some(STRIKES.1 + 1));
    assert!(!peers.is_spent(NOW + Duration::from_secs(1), key(1)), "it comes back");
    assert!(!peers.strike(NOW, key(2)), "who has no debts has no strikes");
    peers.charge(NOW, key(9), 1_000_000);
    assert!(!peers.is_spent(NOW, key(9)) && peers.accounts.len() == 1, "nobody has no account");
}

#[test]
fn what_guests_owe_together_is_no_more_than_their_burst() {
    let mut peers = peers();
    [1, 2].map(key).into_iter().for_each(|peer| peers.set_class(peer, Class::Guest));
    for _ in 0..1_000 {
        peers.charge(NOW, key(1), 50_000);
    }
    assert!(peers.are_guests_spent(NOW) && peers.is_spent(NOW, key(1)));
    let soon = NOW + Duration::from_millis(1);
    assert!(!peers.are_guests_spent(soon), "they go on at their rate");
    assert!(!peers.is_spent(soon, key(2)) && peers.is_spent(soon, key(1)));
    // What is passed over meanwhile is its sender's affair.
    let full = NOW + Duration::from_secs(5);
    peers.charge_alone(full, key(2), 1_000_000);
    assert!(peers.is_spent(full, key(2)) && peers.guests_work.is_full(full));
}

#[test]
fn accounts_that_are_settled_are_forgotten() {
    let mut peers = Peers::new(key(0), Arc::new(table(0..200)), OURS);
    for peer in 0..200 {
        let now = NOW + Duration::from_secs(peer.into());
        peers.charge(now, key(peer), 1_000);
        assert!(peers.accounts.len() <= MANY_ACCOUNTS, "{peer}");
    }
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
    assert!(peers.is_elsewhere(key(1)) && !peers.is_elsewhere(key(2)));
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
    peers.bar(key(2));
    peers.charge(NOW, key(2), 1_000_000);
    let mut table = table(0..4);
    peers.forget(key(2));
    table.forget(&PeerId([2; 32]));
    let next = table.intern(PeerId([7; 32])).unwrap();
    peers.set_table(Arc::new(table), OURS);
    assert_eq!(next.slot(), 2);
    assert!(!peers.contains(key(2)) && peers.is_refused(key(2)));
    assert!(!peers.is_refused(next) && !peers.is_connected(next));
    assert_eq!((peers.connected(), peers.elsewhere()), (0, 0));
    assert!(!peers.bar(key(2)) && !peers.is_spent(NOW, next));
}
