use super::table::{Table, TableFull, TableLimits};
use super::*;

const A: Address = Address::repeat_byte(0xa);

fn tx(sender: Address, nonce: u64, salt: u8) -> Tx {
    let chain = 1;
    let tx = TxEip1559 { chain_id: chain, nonce, value: U256::from(salt), ..Default::default() };
    let bytes = sign(tx);
    // Whoever signed: the table does not care.
    Tx { sender, ..Tx::decode(&bytes, false).unwrap() }
}

fn limits() -> TableLimits {
    TableLimits { total: 4, bytes: 10_000, per_sender: 3, ttl: Duration::from_secs(10) }
}

#[test]
fn all_bounds_hold() {
    let now = Instant::now();
    let mut table = Table::new(limits());
    for nonce in 0..3 {
        table.insert(tx(A, nonce, 0), now).unwrap();
    }
    assert_eq!(table.insert(tx(A, 1, 0), now), Err(TableFull::Known));
    assert_eq!(table.insert(tx(A, 3, 0), now), Err(TableFull::Sender));
    // The oldest makes room.
    for other in 1..=2 {
        table.insert(tx(Address::with_last_byte(other), 0, other), now).unwrap();
    }
    assert_eq!(table.len(), 4);
    assert!(table.get(tx(A, 0, 0).hash).is_none());
    assert_eq!(table.pending_nonce(A, 0), 0);
    assert_eq!(table.pending_nonce(A, 1), 3);

    let one = tx(A, 0, 0).bytes.len();
    let mut table = Table::new(TableLimits { bytes: 2 * one, ..limits() });
    for nonce in 0..3 {
        table.insert(tx(A, nonce, 0), now).unwrap();
    }
    assert_eq!(table.len(), 2);
}

#[test]
fn entries_end_by_time_execution_and_nonce() {
    let start = Instant::now();
    let mut table = Table::new(limits());
    table.insert(tx(A, 0, 0), start).unwrap();
    table.insert(tx(A, 1, 0), start + Duration::from_secs(5)).unwrap();
    table.expire(start + Duration::from_secs(9));
    assert_eq!(table.len(), 2);
    table.expire(start + Duration::from_secs(10));
    assert_eq!((table.len(), table.pending_nonce(A, 1)), (1, 2));
    table.insert(tx(A, 2, 0), start).unwrap();
    // Another one with nonce 1 was executed.
    table.executed(tx(A, 1, 9).hash, A, 1);
    assert_eq!((table.len(), table.pending_nonce(A, 2)), (1, 3));
    table.executed(tx(A, 2, 0).hash, A, 2);
    assert_eq!(table.len(), 0);
    table.remove(tx(A, 2, 0).hash);
    table.executed(tx(A, 2, 0).hash, A, 2);
}

#[test]
fn a_replacement_counts_once() {
    let now = Instant::now();
    let mut table = Table::new(limits());
    for (nonce, salt) in [(5, 0), (5, 1), (6, 0)] {
        table.insert(tx(A, nonce, salt), now).unwrap();
    }
    assert_eq!(table.pending_nonce(A, 5), 7);
    assert_eq!(table.pending_nonce(A, 4), 4);
    assert_eq!(table.pending_nonce(A, 6), 7);
    let mut table = Table::new(limits());
    table.insert(tx(A, u64::MAX, 0), now).unwrap();
    assert_eq!(table.pending_nonce(A, u64::MAX), u64::MAX);
}
