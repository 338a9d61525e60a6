//! The executor as a whole: outputs in, heads, events and reports out.

mod again;
mod time;

use std::sync::{Condvar, Mutex};
use std::time::Instant;

use fragcast_shredder::{Kind, Message};

use super::*;
use crate::devnet::DevnetGateway;
use crate::exec::memory::MemorySource;
use crate::exec::{Anchor, Invalid, Unverified, Verdict};
use crate::follow::{ClientBlock, ClientHeads};
use crate::state::SourceError;
use crate::testing::{Bench, GUARD, Told, block, gateway, memory_source, output};

fn client_block(messages: &[Message], gateway: &DevnetGateway) -> ClientBlock {
    let txs = messages.iter().filter_map(|message| match message {
        Message::Frag(frag) => Some(frag.txs.clone()),
        Message::Env(_) | Message::Seal(_) => None,
    });
    let header = gateway.parent().clone();
    let hash = header.hash_slow();
    ClientBlock { header, hash, txs: txs.flatten().collect(), withdrawals: None }
}

fn heads(block: &ClientBlock) -> ClientHeads {
    let latest = (block.header.number, block.hash);
    ClientHeads { latest, safe: Some(latest), finalized: None }
}

#[test]
fn blocks_become_the_head_one_after_another() {
    let bench = Bench::new();
    let mut gateway = gateway();
    for number in 1..=3 {
        bench.push(0, &block(&mut gateway, 1_000 + 2 * number));
        bench.verified(number, 0);
    }
    let (view, told) = bench.end();
    let heads = view.heads().unwrap();
    assert_eq!(heads.latest.hash(), gateway.parent().hash_slow());
    assert!(heads.pending.is_none());
    assert!(Arc::ptr_eq(heads.pending(), &heads.latest.snapshot));
    use Told::{Frag, Verified};
    let each = |n| [Frag(n, 1), Frag(n, 2), Verified(n)];
    assert_eq!(told, [each(1), each(2), each(3)].concat_told());
    for number in 1..=3 {
        let hash = view.hash(number).unwrap().unwrap();
        let block = view.block(hash).unwrap().unwrap();
        assert_eq!((block.header.number, block.tx_count()), (number, 16));
        let tx = block.tx(7).unwrap().executed.tx.hash;
        assert_eq!(view.tx(tx).unwrap(), Some((hash, 7)));
    }
    assert_eq!(view.hash(4).unwrap(), None);
}

trait Concat {
    fn concat_told(self) -> Vec<Told>;
}

impl<const N: usize, const M: usize> Concat for [[Told; M]; N] {
    fn concat_told(self) -> Vec<Told> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn blocks_stack_where_an_env_comes_before_the_seal_or_even_the_last_frag() {
    let bench = Bench::new();
    let mut gateway = gateway();
    let one = block(&mut gateway, 1_002);
    let two = block(&mut gateway, 1_004);
    let three = block(&mut gateway, 1_006);
    // 2's Env and first frag before 1's last frag; 3 whole before any Seal.
    bench.push(0, &one[..2]);
    bench.push(0, &two[..2]);
    bench.push(0, &one[2..3]);
    bench.push(0, &two[2..3]);
    bench.push(0, &three[..3]);
    // Seals out of order: 3 is right, but cannot be the head before 2.
    bench.push(0, &one[3..]);
    bench.verified(1, 0);
    bench.push(0, &two[3..]);
    bench.verified(2, 0);
    let view = Arc::clone(bench.executor.view());
    let heads = view.heads().unwrap();
    assert_eq!(heads.latest.number(), 2);
    assert_eq!(heads.pending().header.number, 3);
    assert_eq!(heads.pending().tx_count(), 16);
    bench.push(0, &three[3..]);
    bench.verified(3, 0);
    let (_, told) = bench.end();
    use Told::{Frag, Verified};
    assert_eq!(
        told,
        [
            Frag(1, 1),
            Frag(1, 2),
            Frag(2, 1),
            Frag(2, 2),
            Frag(3, 1),
            Frag(3, 2),
            Verified(1),
            Verified(2),
            Verified(3),
        ]
    );
}

#[test]
fn a_superseded_attempt_is_unwound_exactly() {
    let bench = Bench::new();
    let mut gateway = gateway();
    let first = [
        Message::Env(gateway.open(1_002).unwrap()),
        Message::Frag(gateway.frag(30, false).unwrap()),
    ];
    bench.push(0, &first);
    bench.retract(1, 0);
    // The block is built again, with fewer transactions.
    let again = gateway.block(1_003, 1, 5).unwrap();
    bench.push(1, &again);
    bench.verified(1, 1);
    let (view, told) = bench.end();
    assert_eq!(view.heads().unwrap().latest.snapshot.tx_count(), 5);
    use Told::{Frag, Retracted, Verified};
    assert_eq!(told, [Frag(1, 1), Retracted(1, "superseded"), Frag(1, 1), Verified(1)]);
}

#[test]
fn a_verified_block_whose_leader_opens_it_again_is_taken_back() {
    let bench = Bench::new();
    let mut first = gateway();
    let one = block(&mut first, 1_002);
    let two = block(&mut first, 1_004);
    bench.push(0, &one);
    bench.verified(1, 0);
    bench.push(0, &two);
    bench.verified(2, 0);
    // Block 3 has begun when 2 is opened again.
    let three = block(&mut first, 1_006);
    bench.push(0, &three[..2]);
    bench.retract(2, 0);
    let mut other = gateway();
    block(&mut other, 1_002);
    let two = other.block(1_005, 1, 3).unwrap();
    bench.push(1, &two);
    bench.verified(2, 1);
    let (view, told) = bench.end();
    assert_eq!(view.heads().unwrap().latest.hash(), other.parent().hash_slow());
    assert_eq!(view.hash(2).unwrap(), Some(other.parent().hash_slow()));
    use Told::{Frag, Retracted, Unwound, Verified};
    assert_eq!(
        told[6..],
        [Frag(3, 1), Retracted(3, "contradicted"), Unwound(2), Frag(2, 1), Verified(2)]
    );
}

#[test]
fn a_rejected_block_takes_what_stands_on_it_along_and_the_next_attempt_counts() {
    let bench = Bench::new();
    let mut first = gateway();
    let mut one = block(&mut first, 1_002);
    let two = block(&mut first, 1_004);
    let good = one.clone();
    match one.last_mut() {
        Some(Message::Seal(seal)) => seal.receipts_root[3] ^= 1,
        other => panic!("not a seal: {other:?}"),
    }
    bench.push(0, &one[..3]);
    bench.push(0, &two[..2]);
    bench.push(0, &one[3..]);
    let report = bench.report();
    let Verdict::Rejected(Invalid::Seal { field, .. }) = report.verdict else {
        panic!("{report:?}")
    };
    assert_eq!(field.name(), "receipts_root");
    bench.push(1, &good);
    bench.verified(1, 1);
    let stats = Arc::clone(bench.executor.stats());
    let (view, told) = bench.end();
    assert_eq!(view.heads().unwrap().latest.number(), 1);
    let retracted: Vec<_> = told.iter().filter(|t| matches!(t, Told::Retracted(..))).collect();
    assert_eq!(
        retracted,
        [&Told::Retracted(1, "rejected"), &Told::Retracted(2, "parent_retracted")]
    );
    assert_eq!(stats.snapshot().reasons.get("receipts_root"), Some(&1));
}

#[test]
fn a_block_whose_parent_is_unknown_is_unverified_and_executed_when_it_comes() {
    let bench = Bench::new();
    let mut gateway = gateway();
    let one = block(&mut gateway, 1_002);
    let two = block(&mut gateway, 1_004);
    bench.push(0, &two);
    let report = bench.report();
    assert!(matches!(report.verdict, Verdict::Unverified(Unverified::Parent(_))), "{report:?}");
    bench.push(0, &one);
    // 2 is complete as soon as 1's last frag is executed, and is the head after 1's Seal.
    bench.verified(2, 0);
    bench.verified(1, 0);
    let (view, told) = bench.end();
    assert_eq!(view.heads().unwrap().latest.number(), 2);
    assert_eq!(told[4..], [Told::Verified(1), Told::Verified(2)]);
}

/// A source that does not answer before it is released.
struct Gated {
    inner: MemorySource,
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gated {
    fn let_through(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

impl StateSource for Gated {
    fn at(&self, block: B256) -> Result<Option<Anchor>, SourceError> {
        let open = self.open.lock().unwrap();
        let (_open, timeout) = self.changed.wait_timeout_while(open, GUARD, |open| !*open).unwrap();
        assert!(!timeout.timed_out());
        self.inner.at(block)
    }
    fn head(&self) -> Result<Option<B256>, SourceError> {
        self.inner.head()
    }
    fn header(&self, hash: B256) -> Result<Option<alloy_consensus::Header>, SourceError> {
        self.inner.header(hash)
    }
}

#[test]
fn a_slow_source_never_blocks_who_hands_in_and_what_finds_no_room_is_unverified() {
    let (spec, inner) = memory_source();
    let source = Arc::new(Gated { inner, open: Mutex::new(false), changed: Condvar::new() });
    let config = ExecutorConfig { queue: 16, ..ExecutorConfig::default() };
    let bench = Bench::on(spec, Arc::clone(&source) as Arc<dyn StateSource>, config);
    let mut gateway = gateway();
    // Eight messages each: the third finds no room for its last ones.
    let blocks: Vec<_> = (1..=3).map(|n| gateway.block(1_000 + 2 * n, 6, 2).unwrap()).collect();
    let taken = blocks.iter().flatten().filter(|m| bench.executor.try_push(&output(0, m)));
    assert_eq!(taken.count(), 16);
    assert_eq!(bench.executor.stats().snapshot().overrun, 8);
    source.let_through();
    bench.verified(1, 0);
    bench.verified(2, 0);
    // All of block 3 is gone; built again it is fine.
    bench.push(1, &blocks[2]);
    bench.verified(3, 1);
    let begin = Instant::now();
    while bench.executor.queued() > 0 {
        assert!(begin.elapsed() < GUARD, "the room that messages took is given back");
        std::thread::yield_now();
    }
    assert_eq!(bench.executor.gate.queued_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn a_block_whose_seal_was_lost_is_sealed_by_its_verified_child() {
    let (spec, inner) = memory_source();
    let source = Arc::new(Gated { inner, open: Mutex::new(false), changed: Condvar::new() });
    let config = ExecutorConfig { queue: 15, ..ExecutorConfig::default() };
    let bench = Bench::on(spec, Arc::clone(&source) as Arc<dyn StateSource>, config);
    let mut gateway = gateway();
    // Eight messages each: of the second block the Seal finds no room.
    let blocks: Vec<_> = (1..=3).map(|n| gateway.block(1_000 + 2 * n, 6, 2).unwrap()).collect();
    let taken = blocks[..2].iter().flatten().filter(|m| bench.executor.try_push(&output(0, m)));
    assert_eq!(taken.count(), 15);
    source.let_through();
    bench.verified(1, 0);
    let report = bench.report();
    assert_eq!(report.verdict, Verdict::Unverified(Unverified::Overrun));
    for message in &blocks[2] {
        // The queue is short here: one after the other.
        let begin = Instant::now();
        while !bench.executor.try_push(&output(0, message)) {
            assert!(begin.elapsed() < GUARD, "there is no room for {message:?}");
            std::thread::yield_now();
        }
    }
    bench.verified(3, 0);
    let (view, told) = bench.end();
    assert_eq!(view.heads().unwrap().latest.hash(), gateway.parent().hash_slow());
    assert!(told.ends_with(&[Told::Verified(2), Told::Verified(3)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn frags_of_the_branch_that_wins_are_kept_while_ours_is_taken_back() {
    let bench = Bench::new();
    let (mut ours, mut theirs) = (gateway(), gateway());
    let one = block(&mut ours, 1_002);
    block(&mut theirs, 1_002);
    bench.push(0, &one);
    bench.verified(1, 0);
    let fork = ours.parent().hash_slow();
    bench.push(0, &block(&mut ours, 1_004));
    bench.verified(2, 0);
    let their_two = theirs.block(1_005, 1, 3).unwrap();
    let their_two = client_block(&their_two, &theirs);
    // Their third block comes as frags before anybody here knows its parent.
    bench.push(1, &block(&mut theirs, 1_006));
    assert_eq!(bench.report().verdict.name(), "unverified");
    let follow = Follow { fork, heads: heads(&their_two), blocks: vec![their_two] };
    bench.executor.follow(follow).await.unwrap();
    bench.verified(3, 1);
    let (view, told) = tokio::task::block_in_place(|| bench.end());
    assert_eq!(view.heads().unwrap().latest.hash(), theirs.parent().hash_slow());
    assert!(!told.iter().any(|told| matches!(told, Told::Retracted(..))), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_delivers_a_block_that_had_no_frags() {
    let bench = Bench::new();
    let mut gateway = gateway();
    let genesis = gateway.genesis_hash();
    let one = block(&mut gateway, 1_002);
    let missed = client_block(&one, &gateway);
    let two = block(&mut gateway, 1_004);
    // 2 comes as frags and waits for 1, which never does.
    bench.push(0, &two);
    assert_eq!(bench.report().verdict.name(), "unverified");
    let follow = Follow { fork: genesis, heads: heads(&missed), blocks: vec![missed] };
    bench.executor.follow(follow).await.unwrap();
    bench.verified(2, 0);
    let (view, told) = tokio::task::block_in_place(|| bench.end());
    assert_eq!(view.heads().unwrap().latest.number(), 2);
    assert_eq!(view.heads().unwrap().safe.map(|(n, _)| n), Some(1));
    use Told::{Frag, Verified};
    assert_eq!(told, [Verified(1), Frag(2, 1), Frag(2, 2), Verified(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_reorganises_three_deep_and_every_retraction_is_told() {
    let bench = Bench::new();
    let mut ours = gateway();
    let mut theirs = gateway();
    let first = block(&mut ours, 1_002);
    block(&mut theirs, 1_002);
    bench.push(0, &first);
    bench.verified(1, 0);
    let fork = ours.parent().hash_slow();
    for number in 2..=4 {
        bench.push(0, &block(&mut ours, 1_000 + 2 * number));
        bench.verified(number, 0);
    }
    let five = block(&mut ours, 1_010);
    bench.push(0, &five[..2]);
    let blocks: Vec<_> = (2..=5)
        .map(|number| {
            let messages = theirs.block(1_001 + 2 * number, 1, 3).unwrap();
            client_block(&messages, &theirs)
        })
        .collect();
    let follow = Follow { fork, heads: heads(&blocks[3]), blocks: blocks.clone() };
    bench.executor.follow(follow).await.unwrap();
    // The leader's next attempt cannot take back what the client has.
    bench.retract(5, 0);
    let (view, told) = tokio::task::block_in_place(|| bench.end());
    assert_eq!(view.heads().unwrap().latest.hash(), blocks[3].hash);
    use Told::{Frag, Retracted, Unwound, Verified};
    let at = told.iter().position(|t| *t == Frag(5, 1)).unwrap();
    assert_eq!(
        told[at + 1..],
        [
            Retracted(5, "contradicted"),
            Unwound(4),
            Unwound(3),
            Unwound(2),
            Verified(2),
            Verified(3),
            Verified(4),
            Verified(5)
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_block_cannot_be_right_is_not_followed() {
    let bench = Bench::new();
    let mut gateway = gateway();
    let genesis = gateway.genesis_hash();
    let one = block(&mut gateway, 1_002);
    let mut lie = client_block(&one, &gateway);
    lie.header.state_root[0] ^= 1;
    lie.hash = lie.header.hash_slow();
    let follow = Follow { fork: genesis, heads: heads(&lie), blocks: vec![lie] };
    let error = bench.executor.follow(follow).await.unwrap_err();
    assert!(error.to_string().contains("state root"), "{error}");
    let stray = ClientBlock {
        header: alloy_consensus::Header { number: 7, ..Default::default() },
        hash: B256::repeat_byte(7),
        txs: Vec::new(),
        withdrawals: None,
    };
    let follow = Follow { fork: genesis, heads: heads(&stray), blocks: vec![stray] };
    assert_eq!(bench.executor.follow(follow).await, Err(FollowError::Fork(genesis)));
    bench.push(0, &one);
    bench.verified(1, 0);
    assert_eq!(one[0].kind(), Kind::Env);
    tokio::task::block_in_place(|| drop(bench));
}
