//! What was lost before the executor, or in it, is handed in again.

use super::*;

/// Hands a block in again, from its Env to its Seal.
fn again(bench: &Bench, messages: &[Message]) {
    bench.push(0, messages);
}

fn overrun(bench: &Bench, number: u64) {
    let report = bench.report();
    assert_eq!(report.number, number);
    assert_eq!(report.verdict, Verdict::Unverified(Unverified::Overrun));
}

#[test]
fn whatever_of_a_block_was_lost_it_is_verified_when_it_is_handed_in_again() {
    use Told::{Frag, Retracted, Verified};
    let whole = vec![Frag(1, 1), Frag(1, 2), Verified(1)];
    let twice = vec![Frag(1, 1), Retracted(1, "handed_again"), Frag(1, 1), Frag(1, 2), Verified(1)];
    // Which messages come at first: Env, two frags, Seal.
    for (first, is_overrun, expected) in [
        (vec![], false, &whole),
        (vec![1, 2, 3], false, &whole),
        (vec![0], false, &whole),
        (vec![0, 2, 3], true, &whole),
        (vec![0, 1], false, &whole),
        (vec![0, 1, 3], true, &twice),
        (vec![0, 1, 2], false, &whole),
        (vec![0, 1, 2, 3], false, &whole),
    ] {
        let bench = Bench::new();
        let one = block(&mut gateway(), 1_002);
        first.iter().for_each(|n| bench.push(0, &one[*n..=*n]));
        if is_overrun {
            overrun(&bench, 1);
        }
        again(&bench, &one);
        bench.verified(1, 0);
        // Once more does nothing.
        again(&bench, &one);
        bench.settle();
        assert!(bench.try_report().is_none());
        let (_, told) = bench.end();
        assert_eq!(&told, expected, "{first:?}");
    }
}

#[test]
fn a_block_that_waits_for_its_parent_is_completed_there() {
    let bench = Bench::new();
    let mut gateway = gateway();
    let one = block(&mut gateway, 1_002);
    let two = block(&mut gateway, 1_004);
    // Of the second a frag is lost, and then everything comes twice.
    bench.push(0, &two[..2]);
    bench.push(0, &two[3..]);
    again(&bench, &two);
    again(&bench, &two);
    let report = bench.report();
    assert!(matches!(report.verdict, Verdict::Unverified(Unverified::Parent(_))), "{report:?}");
    again(&bench, &one);
    bench.verified(2, 0);
    bench.verified(1, 0);
    let (view, _) = bench.end();
    assert_eq!(view.heads().unwrap().latest.number(), 2);
}

#[test]
fn a_block_of_which_the_executor_itself_says_that_a_message_is_lost() {
    let (spec, inner) = memory_source();
    let source = Arc::new(Gated { inner, open: Mutex::new(false), changed: Condvar::new() });
    let config = ExecutorConfig { queue: 3, ..ExecutorConfig::default() };
    let bench = Bench::on(spec, Arc::clone(&source) as Arc<dyn StateSource>, config);
    let one = block(&mut gateway(), 1_002);
    // The Seal finds no room.
    let taken = one.iter().filter(|m| bench.executor.try_push(&output(0, m)));
    assert_eq!(taken.count(), 3);
    source.let_through();
    overrun(&bench, 1);
    // Only the Seal is needed.
    for message in &one {
        bench.settle();
        again(&bench, std::slice::from_ref(message));
    }
    bench.verified(1, 0);
    let (_, told) = bench.end();
    assert_eq!(told, [Told::Frag(1, 1), Told::Frag(1, 2), Told::Verified(1)]);
}

#[test]
fn a_rejected_block_is_not_executed_again_and_another_attempt_is() {
    let bench = Bench::new();
    let good = block(&mut gateway(), 1_002);
    let mut bad = good.clone();
    match bad.last_mut() {
        Some(Message::Seal(seal)) => seal.gas_used += 1,
        other => panic!("not a seal: {other:?}"),
    }
    bench.push(0, &bad);
    assert_eq!(bench.report().verdict.name(), "rejected");
    again(&bench, &bad);
    bench.settle();
    assert!(bench.try_report().is_none());
    bench.push(1, &good);
    bench.verified(1, 1);
}

#[test]
fn blocks_that_were_too_many_behind_a_hole_are_counted_and_come_back() {
    let bench = Bench::new();
    let mut gateway = gateway();
    let blocks: Vec<_> = (1..=80).map(|n| gateway.block(1_000 + 2 * n, 1, 2).unwrap()).collect();
    blocks[1..].iter().for_each(|block| bench.push(0, block));
    bench.settle();
    let evicted = bench.executor.stats().snapshot().evicted;
    assert_eq!(evicted, 79 - 64);
    again(&bench, &blocks[0]);
    bench.settle();
    let reached = bench.executor.stats().snapshot().verified.unwrap();
    assert!((60..80).contains(&reached), "{reached}");
    blocks[reached as usize..].iter().for_each(|block| again(&bench, block));
    bench.settle();
    assert_eq!(bench.executor.stats().snapshot().verified, Some(80));
}

#[test]
fn what_is_noted_while_nothing_is_taken_is_bounded() {
    let (spec, inner) = memory_source();
    let source = Arc::new(Gated { inner, open: Mutex::new(false), changed: Condvar::new() });
    let config = ExecutorConfig { queue: 1, ..ExecutorConfig::default() };
    let bench = Bench::on(spec, Arc::clone(&source) as Arc<dyn StateSource>, config);
    let mut gateway = gateway();
    let one = block(&mut gateway, 1_002);
    assert!(bench.executor.try_push(&output(0, &one[0])));
    // One is lost of each attempt, and each is retracted.
    let notes = u32::try_from(queue::MAX_NOTES).unwrap();
    for attempt in 0..notes {
        let attempt = (attempt % 200) as u8;
        assert!(!bench.executor.try_push(&output(attempt, &one[1])));
        bench.retract(1, attempt);
    }
    let counted = bench.executor.stats().snapshot().overrun;
    assert_eq!(counted, 2 * u64::from(notes), "each message, and half of the notes");
    assert_eq!(bench.executor.pending.count(), 1 + notes as usize);
    source.let_through();
    bench.settle();
    assert_eq!(bench.executor.pending.count(), 0);
    bench.push(1, &one[..1]);
    bench.settle();
}

#[test]
fn blocks_that_wait_for_one_that_finds_no_room_make_room() {
    let (spec, source) = memory_source();
    let config = ExecutorConfig { queue: 8, ..ExecutorConfig::default() };
    let bench = Bench::on(spec, Arc::new(source), config);
    let mut gateway = gateway();
    let blocks: Vec<_> = (1..=4).map(|n| block(&mut gateway, 1_000 + 2 * n)).collect();
    // Three messages each wait for the first block, which nothing is left for.
    for messages in &blocks[1..] {
        for message in messages {
            let _ = bench.executor.try_push(&output(0, message));
            bench.settle();
        }
    }
    assert_eq!(bench.executor.queued(), 8);
    let begun = Instant::now();
    while bench.executor.stats().snapshot().verified != Some(4) {
        assert!(begun.elapsed() < GUARD, "{:?}", bench.executor.stats().snapshot());
        for message in blocks.iter().flatten() {
            let _ = bench.executor.try_push(&output(0, message));
        }
        bench.settle();
    }
    assert!(bench.executor.stats().snapshot().evicted > 0);
}
