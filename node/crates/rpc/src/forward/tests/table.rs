use fragcast_execution::exec::admission::Why;

use super::*;
use crate::forward::dropped::Reasons;
use crate::forward::table::{Standing, Table, TableFull};

const A: Address = Address::repeat_byte(0xa);

fn tx(sender: Address, nonce: u64, salt: u8) -> Tx {
    let chain = 1;
    let tx = TxEip1559 { chain_id: chain, nonce, value: U256::from(salt), ..Default::default() };
    let bytes = sign(tx);
    // Whoever signed: the table does not care.
    Tx { sender, ..Tx::decode(&bytes, false).unwrap() }
}

fn limits() -> TableLimits {
    TableLimits { total: 4, bytes: 10_000, per_sender: 3, ttl: Duration::from_secs(10), blocks: 2 }
}

#[test]
fn all_bounds_hold() {
    let now = Instant::now();
    let mut table = Table::new(limits());
    for nonce in 0..3 {
        table.insert(tx(A, nonce, 0), 1, now).unwrap();
    }
    assert_eq!(table.insert(tx(A, 1, 0), 1, now), Err(TableFull::Known));
    assert_eq!(table.insert(tx(A, 3, 0), 1, now), Err(TableFull::Sender));
    // The oldest makes room.
    for other in 1..=2 {
        table.insert(tx(Address::with_last_byte(other), 0, other), 1, now).unwrap();
    }
    assert_eq!(table.len(), 4);
    assert!(table.get(tx(A, 0, 0).hash).is_none());
    assert_eq!(table.pending_nonce(A, 0), 0);
    assert_eq!(table.pending_nonce(A, 1), 3);

    let one = tx(A, 0, 0).bytes.len();
    let mut table = Table::new(TableLimits { bytes: 2 * one, ..limits() });
    for nonce in 0..3 {
        table.insert(tx(A, nonce, 0), 1, now).unwrap();
    }
    assert_eq!(table.len(), 2);
}

#[test]
fn entries_end_by_time_execution_and_nonce() {
    let start = Instant::now();
    let mut table = Table::new(limits());
    table.insert(tx(A, 0, 0), 1, start).unwrap();
    table.insert(tx(A, 1, 0), 1, start + Duration::from_secs(5)).unwrap();
    table.expire(start + Duration::from_secs(9));
    assert_eq!(table.len(), 2);
    table.expire(start + Duration::from_secs(10));
    assert_eq!((table.len(), table.pending_nonce(A, 1)), (1, 2));
    table.insert(tx(A, 2, 0), 1, start).unwrap();
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
        table.insert(tx(A, nonce, salt), 1, now).unwrap();
    }
    assert_eq!(table.pending_nonce(A, 5), 7);
    assert_eq!(table.pending_nonce(A, 4), 4);
    assert_eq!(table.pending_nonce(A, 6), 7);
    let mut table = Table::new(limits());
    table.insert(tx(A, u64::MAX, 0), 1, now).unwrap();
    assert_eq!(table.pending_nonce(A, u64::MAX), u64::MAX);
}

#[test]
fn a_replacement_must_offer_a_tenth_more_and_ends_what_it_replaces() {
    let now = Instant::now();
    let offer = |fee: u128, tip: u128, salt: u8| {
        let bytes = sign(TxEip1559 {
            chain_id: 1,
            max_fee_per_gas: fee,
            max_priority_fee_per_gas: tip,
            value: U256::from(salt),
            ..Default::default()
        });
        Tx { sender: A, ..Tx::decode(&bytes, false).unwrap() }
    };
    let mut table = Table::new(limits());
    let old = offer(1_000, 15, 0);
    table.insert(old.clone(), 1, now).unwrap();
    table.taken(old.hash);
    for (fee, tip) in [(1_000, 15), (1_099, 17), (1_100, 15), (5_000, 15), (1_000, 500)] {
        let refused = table.insert(offer(fee, tip, 1), 1, now).unwrap_err();
        let TableFull::Underpriced(text) = &refused else { panic!("{refused:?}") };
        assert!(text.starts_with("replacement transaction underpriced: "), "{text}");
    }
    // A tenth, rounded down.
    let new = offer(1_100, 16, 1);
    table.insert(new.clone(), 1, now).unwrap();
    // Both, until somebody has taken the new one.
    assert_eq!((table.len(), table.take_dropped()), (2, Vec::new()));
    table.taken(new.hash);
    assert_eq!(table.len(), 1);
    assert_eq!(table.take_dropped(), [(old.hash, Dropped::Replaced(new.hash))]);
    // Whichever is executed in the end, the other is told of it.
    table.insert(offer(2_000, 20, 2), 1, now).unwrap();
    table.executed(new.hash, A, 0);
    assert_eq!(table.len(), 0);
    let [(hash, Dropped::Replaced(by))] = table.take_dropped()[..] else { panic!() };
    assert_eq!((hash, by), (offer(2_000, 20, 2).hash, new.hash));
}

#[test]
fn what_blocks_leave_out_is_dropped_and_what_waits_is_not() {
    let now = Instant::now();
    let mut table = Table::new(TableLimits { total: 10, ..limits() });
    let (first, second) = (tx(A, 5, 0), tx(A, 6, 0));
    for tx in [&first, &second] {
        table.insert(tx.clone(), 10, now).unwrap();
    }
    let hash = first.hash;
    assert_eq!(table.advance(A, 5, 12).as_ref(), Some(&first));
    // Nobody has taken it yet.
    table.stands(hash, Standing::Includable, 12);
    table.taken(hash);
    table.stands(hash, Standing::Includable, 11);
    // Its fees were too low in between.
    table.stands(hash, Standing::Waits, 12);
    table.stands(hash, Standing::Includable, 13);
    assert_eq!((table.len(), table.pending_nonce(A, 5)), (2, 7));
    table.stands(hash, Standing::Includable, 14);
    assert_eq!(table.take_dropped(), [(hash, Dropped::LeftOut(2))]);
    assert_eq!(table.pending_nonce(A, 5), 5, "the sender may go on where the state is");
    // The other waits for one with nonce 5, whatever the block.
    assert_eq!(table.advance(A, 5, 20), None);
    table.taken(second.hash);
    assert_eq!(table.advance(A, 6, 20).as_ref(), Some(&second));
    table.stands(second.hash, Standing::Includable, 20);
    assert_eq!(table.len(), 1, "it can be in blocks since now");
    let broke = Standing::Over(Why::Funds, "insufficient funds".into());
    table.stands(second.hash, broke, 21);
    assert_eq!(table.take_dropped()[0].1.label(), "funds");
    // Nonces that have passed.
    table.insert(first, 10, now).unwrap();
    assert_eq!(table.advance(A, 6, 22), None);
    assert_eq!(table.take_dropped()[0].1.to_string(), "nonce too low: next nonce 6, tx nonce 5");
    assert_eq!(table.len(), 0);
}

#[test]
fn every_reason_has_a_label_and_the_newest_are_kept() {
    use strum::VariantArray as _;

    let mut labels: Vec<&str> = Why::VARIANTS.iter().map(Into::into).collect();
    let others =
        [Dropped::Replaced(B256::ZERO), Dropped::LeftOut(4), Dropped::Expired, Dropped::Full];
    labels.extend(others.iter().map(Dropped::label));
    assert_eq!(labels, Dropped::LABELS);
    let mut reasons = Reasons::default();
    for n in 0..2_000_u64 {
        reasons.add(B256::from(U256::from(n)), Dropped::Expired);
    }
    assert!(reasons.get(B256::from(U256::from(975))).is_none());
    assert!(reasons.get(B256::from(U256::from(976))).is_some());
    reasons.forget(B256::from(U256::from(1_999)));
    assert!(reasons.get(B256::from(U256::from(1_999))).is_none());
}
