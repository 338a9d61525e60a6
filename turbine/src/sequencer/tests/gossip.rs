//! Attempts over gossip, where only a new Env starts one, and both ways mixed.

use std::collections::BTreeMap;

use alloy_primitives::{B256, Bytes};
use alloy_trie::root::ordered_trie_root_encoded;
use fragcast_shredder::{Env, Frag, Seal};

use super::*;

/// A consumer's view of block 7.
#[derive(Debug, Default)]
struct Consumer {
    number: Option<u8>,
    last: Option<u8>,
    roots: Vec<B256>,
    log: Vec<String>,
}

impl Consumer {
    fn take(&mut self, output: &Output) {
        self.log.push(describe(output));
        match output {
            Output::Retracted { attempt, .. } => {
                assert_eq!(self.number.take(), Some(*attempt), "{:?}", self.log);
                self.roots.clear();
            }
            Output::Message(m) => {
                assert_eq!(usize::from(m.key.message), self.roots.len(), "{:?}", self.log);
                if m.key.message == 0 {
                    assert_eq!(self.number, None, "{:?}", self.log);
                    assert!(self.last < Some(m.key.attempt), "numbers rise: {:?}", self.log);
                    (self.number, self.last) = (Some(m.key.attempt), Some(m.key.attempt));
                }
                assert_eq!(self.number, Some(m.key.attempt), "{:?}", self.log);
                self.roots.push(m.message.root());
            }
        }
    }
}

#[derive(Debug, Default)]
struct Bench {
    sequencer: Sequencer,
    consumer: Consumer,
}

impl Bench {
    fn push(&mut self, message: &VerifiedMessage, attempt: u8, via: Via) -> (Fate, Vec<String>) {
        let mut out = Vec::new();
        let fate = self.sequencer.push(by(via, message, attempt), &mut out);
        out.iter().for_each(|output| self.consumer.take(output));
        (fate, out.iter().map(describe).collect())
    }

    fn gossip(&mut self, message: &VerifiedMessage) -> (Fate, Vec<String>) {
        // Whatever the protocol guesses.
        self.push(message, 5, Via::Gossip)
    }

    fn turbine(&mut self, message: &VerifiedMessage, attempt: u8) -> (Fate, Vec<String>) {
        self.push(message, attempt, Via::Turbine)
    }

    fn holds(&self, messages: &[&VerifiedMessage]) {
        let roots: Vec<_> = messages.iter().map(|m| m.root()).collect();
        assert_eq!(self.consumer.roots, roots, "{:?}", self.consumer.log);
    }
}

fn env_on(parent: u8, timestamp: u64) -> VerifiedMessage {
    let parent_hash = B256::repeat_byte(parent);
    sign(Env { parent_hash, timestamp, ..BlockBuilder::new(7).env() })
}

/// A frag of block 7.
fn f(seq: u64, tx: u8) -> VerifiedMessage {
    frag_with(7, seq, false, tx)
}

/// The Seal of block 7 that these frags really have.
fn true_seal(parent: u8, frags: &[&VerifiedMessage]) -> VerifiedMessage {
    let txs: Vec<Bytes> = frags
        .iter()
        .flat_map(|m| match m.message() {
            Message::Frag(Frag { txs, .. }) => txs.clone(),
            _ => vec![],
        })
        .collect();
    sign(Seal {
        parent_hash: B256::repeat_byte(parent),
        transactions_root: ordered_trie_root_encoded(&txs),
        ..BlockBuilder::new(7).seal_of(frags.len() as u64)
    })
}

#[test]
fn gossip_alone_carries_a_block_in_any_order_under_attempt_0() {
    let mut bench = Bench::default();
    assert_eq!(bench.gossip(&seal(7, 2)), (Fate::Waiting, vec![]));
    assert_eq!(bench.gossip(&frag(7, 1)), (Fate::Waiting, vec![]));
    assert_eq!(bench.gossip(&env(7)).1, ["7.0.0"]);
    assert_eq!(bench.gossip(&env(7)), (Fate::Duplicate, vec![]));
    assert_eq!(bench.gossip(&frag(7, 0)).1, ["7.0.1", "7.0.2", "7.0.3"]);
    assert_eq!(bench.gossip(&frag(7, 0)), (Fate::Duplicate, vec![]));
    assert_eq!(bench.sequencer.sealed(), Some(7));
    assert_eq!(bench.sequencer.waiting(), 0);
}

#[test]
fn a_second_env_takes_over_at_once_and_later_frags_are_its_own() {
    let mut bench = Bench::default();
    let (first, second) = (env_at(7, 1), env_at(7, 2));
    bench.gossip(&first);
    bench.gossip(&f(0, 1));
    assert_eq!(bench.gossip(&second).1, ["-7.0 superseded", "7.1.0"]);
    assert_eq!(bench.gossip(&f(0, 2)).1, ["7.1.1"]);
    assert_eq!(bench.gossip(&first), (Fate::Stale, vec![]));
    // The later is preferred.
    assert_eq!(bench.gossip(&f(0, 3)).1, ["-7.1 gossip_order", "7.2.0", "7.2.1"]);
    assert_eq!(bench.gossip(&f(0, 2)), (Fate::Duplicate, vec![]));
}

#[test]
fn a_frag_from_before_the_second_env_is_used_when_the_seal_says_so() {
    let mut bench = Bench::default();
    let (shared, own, seconds) = (f(0, 1), f(1, 1), f(1, 2));
    let (first, second) = (env_at(7, 1), env_at(7, 2));
    for message in [&first, &shared, &own, &second, &seconds] {
        bench.gossip(message);
    }
    bench.holds(&[&second]);
    let seal = true_seal(0, &[&shared, &seconds]);
    assert_eq!(bench.gossip(&seal).1, ["7.1.1", "7.1.2", "7.1.3"]);
    bench.holds(&[&second, &shared, &seconds, &seal]);
}

#[test]
fn the_seal_corrects_what_was_preferred() {
    let mut bench = Bench::default();
    let (right, late) = (f(0, 2), f(0, 1));
    for message in [&env_at(7, 1), &env_at(7, 2), &right, &late] {
        bench.gossip(message);
    }
    assert_eq!(bench.consumer.roots[1], late.root(), "preferred");
    let seal = true_seal(0, &[&right]);
    let again = ["-7.2 gossip_order", "7.3.0", "7.3.1", "7.3.2"];
    assert_eq!(bench.gossip(&seal).1, again);
    // It has decided.
    assert_eq!(bench.gossip(&f(0, 3)), (Fate::Conflict, vec![]));
}

#[test]
fn the_seal_tells_which_env_counts_if_gossip_swapped_them() {
    let mut bench = Bench::default();
    let (old, new, frag) = (env_on(1, 1), env_on(2, 1), f(0, 1));
    for message in [&new, &frag, &old] {
        bench.gossip(message);
    }
    bench.holds(&[&old]);
    let seal = true_seal(2, &[&frag]);
    bench.gossip(&seal);
    bench.holds(&[&new, &frag, &seal]);
}

#[test]
fn a_sealed_block_is_rebuilt_and_its_old_seal_stays_with_it() {
    let mut bench = Bench::default();
    let (first, frag, second) = (env_at(7, 1), f(0, 1), env_at(7, 2));
    let old = true_seal(0, &[&frag]);
    for message in [&first, &frag, &old, &second] {
        bench.gossip(message);
    }
    bench.holds(&[&second]);
    let (new, newer) = (f(0, 2), f(1, 2));
    let seal = true_seal(0, &[&new, &newer]);
    for message in [&new, &newer, &seal] {
        bench.gossip(message);
    }
    bench.holds(&[&second, &new, &newer, &seal]);
}

#[test]
fn the_same_opening_by_both_ways_goes_on_without_a_retraction() {
    let mut bench = Bench::default();
    assert_eq!(bench.gossip(&env(7)).1, ["7.0.0"]);
    assert_eq!(bench.turbine(&frag(7, 0), 0).1, ["7.0.1"]);
    assert_eq!(bench.gossip(&frag(7, 0)), (Fate::Duplicate, vec![]));
    assert_eq!(bench.turbine(&env(7), 0), (Fate::Duplicate, vec![]));
    assert_eq!(bench.gossip(&frag(7, 1)).1, ["7.0.2"]);
    assert_eq!(bench.turbine(&frag(7, 1), 0), (Fate::Duplicate, vec![]));
    assert_eq!(bench.turbine(&seal(7, 2), 0).1, ["7.0.3"]);
    // All of it is certain: nothing of gossip's counts, and nothing is kept for it.
    assert_eq!(bench.gossip(&f(1, 9)), (Fate::Conflict, vec![]));
    assert_eq!(bench.gossip(&true_seal(0, &[])), (Fate::Conflict, vec![]));
    assert_eq!((bench.sequencer.waiting(), bench.sequencer.kept()), (0, 0));
}

#[test]
fn an_opening_that_the_overlay_numbers_otherwise_is_not_handed_on_again() {
    let mut bench = Bench::default();
    bench.gossip(&env(7));
    bench.gossip(&frag(7, 0));
    assert_eq!(bench.turbine(&env(7), 3), (Fate::Duplicate, vec![]));
    assert_eq!(bench.turbine(&frag(7, 1), 3).1, ["7.0.2"]);
    // What is said of lower ones is of no use; parity is by the leader's number.
    assert_eq!(bench.turbine(&frag(7, 2), 0), (Fate::Stale, vec![]));
    let mut out = Vec::new();
    bench.sequencer.bad_parity(7, 0, &mut out);
    assert!(out.is_empty());
    bench.sequencer.bad_parity(7, 3, &mut out);
    assert_eq!(out.iter().map(describe).collect::<Vec<_>>(), ["-7.0 bad_parity"]);
    assert_eq!(bench.turbine(&frag(7, 2), 3).0, Fate::Stale);
    assert_eq!(push(&mut bench.sequencer, &env_at(7, 9), 4).1, ["7.4.0"]);
}

#[test]
fn what_the_overlay_says_replaces_what_gossip_had_brought() {
    let mut bench = Bench::default();
    bench.turbine(&env(7), 0);
    bench.gossip(&f(0, 9));
    assert_eq!(bench.turbine(&f(0, 1), 0).1, ["-7.0 gossip_order", "7.1.0", "7.1.1"]);
    assert_eq!(bench.gossip(&f(0, 8)), (Fate::Conflict, vec![]));
    // The next attempt of the leader's, whose number is used up.
    assert_eq!(bench.turbine(&env_at(7, 9), 1).1, ["-7.1 superseded", "7.2.0"]);
    assert_eq!(bench.turbine(&f(0, 2), 1).1, ["7.2.1"]);
}

#[test]
fn an_old_env_that_is_replayed_supersedes_nothing() {
    let mut bench = Bench::default();
    let envs = [env_at(7, 1), env_at(7, 2), env_at(7, 3), env_at(7, 4)];
    bench.turbine(&envs[0], 0);
    bench.turbine(&envs[2], 2);
    assert_eq!(bench.gossip(&envs[0]), (Fate::Stale, vec![]));
    // One of those before is not known: it may be this one.
    assert_eq!(bench.gossip(&envs[1]), (Fate::Waiting, vec![]));
    // Now all are.
    assert_eq!(bench.gossip(&envs[3]).1, ["-7.2 superseded", "7.3.0"]);
    assert_eq!(bench.turbine(&envs[1], 1), (Fate::Stale, vec![]));
    bench.holds(&[&envs[3]]);
}

#[test]
fn an_env_taken_for_an_old_one_counts_when_a_seal_fits_it() {
    let mut bench = Bench::default();
    let (known, new, frag) = (env_on(1, 1), env_on(2, 1), f(0, 1));
    bench.turbine(&known, 1);
    assert_eq!(bench.gossip(&new).0, Fate::Waiting);
    bench.gossip(&frag);
    let seal = true_seal(2, &[&frag]);
    bench.gossip(&seal);
    bench.holds(&[&new, &frag, &seal]);
}

#[test]
fn a_frag_of_a_superseded_attempt_is_there_for_the_next_that_has_the_same() {
    let mut bench = Bench::default();
    let (first, second, shared, own) = (env_at(7, 1), env_at(7, 2), f(0, 1), f(1, 2));
    bench.turbine(&first, 0);
    bench.turbine(&shared, 0);
    bench.turbine(&second, 1);
    // Gossip brings the rest, and what is known not again.
    bench.gossip(&own);
    let seal = true_seal(0, &[&shared, &own]);
    assert_eq!(bench.gossip(&seal).1, ["7.1.1", "7.1.2", "7.1.3"]);
    bench.holds(&[&second, &shared, &own, &seal]);
}

#[test]
fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
    let mut bench = Bench::default();
    let big = |block, tx| sign(BlockBuilder::new(block).frag([vec![tx; 30 * 1024 * 1024]]));
    let mut out = Vec::new();
    for number in [7, 8, 9] {
        for message in [env(number), big(number, 1)] {
            let gossiped = by(Via::Gossip, &message, 0);
            assert_eq!(bench.sequencer.push(gossiped, &mut out), Fate::Passed);
            assert!(bench.sequencer.kept() <= MAX_KEPT);
        }
    }
    assert_eq!(bench.sequencer.blocks[&7].held(), Held::default());
    assert!(bench.sequencer.blocks[&8].held().kept > 0);
    // Block 7 stays as it is, and goes on; only another opening can replace it.
    out.iter().filter(|o| describe(o).starts_with('7')).for_each(|o| bench.consumer.take(o));
    assert_eq!(bench.turbine(&f(0, 2), 0).1, [""; 0]);
    assert_eq!(bench.turbine(&env_at(7, 9), 1).1, ["-7.0 superseded", "7.1.0"]);
}

#[test]
fn a_gateway_that_floods_is_bounded() {
    let mut bench = Bench::default();
    for round in 0..40u8 {
        bench.gossip(&env_at(7, round.into()));
        for seq in 0..4 {
            bench.gossip(&f(seq, round));
        }
        bench.gossip(&true_seal(0, &[&f(0, round)]));
    }
    assert!(bench.consumer.last < Some(MAX_GUESSED), "{:?}", bench.consumer.log);
    let before = bench.sequencer.kept() + bench.sequencer.waiting();
    assert!(before < 64 * 1024, "{before}");
    // The overlay's word gets through, since nothing can be newer than the last attempt.
    for attempt in 0..8u8 {
        bench.turbine(&env_at(7, 100 + u64::from(attempt)), attempt);
        bench.turbine(&f(0, 200 + attempt), attempt);
    }
    bench.holds(&[&env_at(7, 107), &f(0, 207)]);
}

/// A history of block 7: its openings and, for each, its frags; only the last has a Seal.
#[derive(Debug, Clone)]
struct History {
    envs: Vec<VerifiedMessage>,
    frags: Vec<Vec<VerifiedMessage>>,
    seal: VerifiedMessage,
    /// Whether the Seal distinguishes the Envs.
    distinct: bool,
}

fn history() -> impl Strategy<Value = History> {
    // With more choices than are tried the Seal need not find the right one.
    let frags = |openings: usize| 1..=(if openings == 3 { 3 } else { 6usize });
    (1..=3usize, any::<bool>()).prop_flat_map(move |(openings, distinct)| {
        let counts = proptest::collection::vec(frags(openings), openings);
        let shared = proptest::collection::vec(proptest::bool::weighted(0.3), 18);
        (counts, shared).prop_map(move |(counts, shared)| {
            let parent = |opening: usize| if distinct { opening as u8 } else { 0 };
            let envs = (0..openings).map(|o| env_on(parent(o), o as u64)).collect();
            let frags: Vec<Vec<_>> = (0..openings)
                .map(|o| {
                    // No two frags have the same transactions, but those that are the same: else
                    // two choices could have the same root.
                    let tx = |seq: usize| if shared[o * 6 + seq] { seq } else { 6 * (o + 1) + seq };
                    (0..counts[o]).map(|seq| f(seq as u64, tx(seq) as u8)).collect()
                })
                .collect();
            let last: Vec<_> = frags[openings - 1].iter().collect();
            let seal = true_seal(parent(openings - 1), &last);
            History { envs, frags, seal, distinct }
        })
    })
}

/// One arrival.
#[derive(Debug, Clone)]
struct Arrival {
    message: VerifiedMessage,
    attempt: u8,
    via: Via,
}

impl Arrival {
    fn describe(&self) -> String {
        let what = match self.message.message() {
            Message::Env(env) => format!("env {}", env.timestamp),
            Message::Frag(frag) => format!("frag {} {}", frag.seq, frag.txs[0][0]),
            Message::Seal(seal) => format!("seal {}", seal.total_frags),
        };
        match self.via {
            Via::Gossip => what,
            _ => format!("{what} of {}", self.attempt),
        }
    }
}

impl History {
    /// Everything by gossip, and some of it by the overlay.
    fn arrivals(&self, overlay: &[bool]) -> Vec<Arrival> {
        let mut all = Vec::new();
        let mut once = BTreeMap::new();
        for (attempt, (env, frags)) in self.envs.iter().zip(&self.frags).enumerate() {
            let last = (attempt + 1 == self.envs.len()).then_some(&self.seal);
            for message in std::iter::once(env).chain(frags).chain(last) {
                if once.insert(message.root(), ()).is_none() {
                    let message = message.clone();
                    all.push(Arrival { message, attempt: 0, via: Via::Gossip });
                }
                if overlay[all.len() % overlay.len()] {
                    let (message, attempt) = (message.clone(), attempt as u8);
                    all.push(Arrival { message, attempt, via: Via::Turbine });
                }
            }
        }
        all
    }

    /// Whether the arrivals determine which opening is the last; see "What cannot be known".
    fn is_decidable(&self, arrivals: &[Arrival]) -> bool {
        let first = |m: &VerifiedMessage| {
            arrivals.iter().position(|a| a.message.root() == m.root()).expect("arrives")
        };
        let (last, old) = self.envs.split_last().unwrap();
        if old.is_empty() {
            return true;
        }
        let signed = |a: &Arrival| a.via == Via::Turbine && a.message.root() == last.root();
        let numbered = arrivals.iter().any(signed);
        let seal = first(&self.seal);
        let envs: Vec<_> = self.envs.iter().map(first).collect();
        if self.distinct {
            numbered || old.iter().all(|env| first(env) < seal.max(first(last)))
        } else {
            envs.is_sorted() && first(last) < seal
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn whatever_the_way_and_the_order_the_last_opening_is_what_remains(
        history in history(),
        overlay in proptest::collection::vec(proptest::bool::weighted(0.3), 40),
        overlaid in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let overlay = if overlaid { overlay } else { vec![false] };
        let mut arrivals = history.arrivals(&overlay);
        let mut state = seed | 1;
        for at in (1..arrivals.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            arrivals.swap(at, (state >> 33) as usize % (at + 1));
        }
        if !history.is_decidable(&arrivals) {
            // Envs first, in their order: always decidable.
            arrivals.sort_by_key(|a| match a.message.message() {
                Message::Env(env) => env.timestamp,
                _ => u64::MAX,
            });
        }
        prop_assert!(history.is_decidable(&arrivals));
        let mut bench = Bench::default();
        for Arrival { message, attempt, via } in &arrivals {
            bench.push(message, *attempt, *via);
        }
        let last = history.frags.last().unwrap().iter();
        let whole: Vec<_> = history.envs.last().into_iter().chain(last).chain([&history.seal]).collect();
        let roots: Vec<_> = whole.iter().map(|m| m.root()).collect();
        let came: Vec<_> = arrivals.iter().map(Arrival::describe).collect();
        prop_assert_eq!(&bench.consumer.roots, &roots, "{:?} {:?}", came, bench.consumer.log);
    }

    #[test]
    fn whatever_comes_what_is_handed_on_is_in_order_and_the_sums_are_right(
        arrivals in proptest::collection::vec((0..40usize, 0..10u8, any::<bool>()), 1..120),
    ) {
        let mut pool: Vec<_> = (0..6).map(|at| env_on(at % 2, at.into())).collect();
        pool.extend((0..24).map(|at| f(u64::from(at % 4), at)));
        let pair = |a: usize, b: usize| true_seal((a % 2) as u8, &[&pool[6 + 4 * a], &pool[7 + 4 * b]]);
        let seals: Vec<_> = (0..9).map(|at| pair(at / 3, at % 3)).collect();
        pool.extend(seals);
        let mut bench = Bench::default();
        for (at, attempt, overlay) in arrivals {
            match pool.get(at) {
                Some(message) => {
                    let via = if overlay { Via::Turbine } else { Via::Gossip };
                    bench.push(message, attempt, via);
                }
                None => {
                    let mut out = Vec::new();
                    bench.sequencer.bad_parity(7, attempt, &mut out);
                    out.iter().for_each(|output| bench.consumer.take(output));
                }
            }
            if let Some(block) = bench.sequencer.blocks.get_mut(&7) {
                prop_assert_eq!(block.held(), block.count_held());
            }
        }
    }
}

/// A member that tells of attempt 7, and answers with the genuine Env, took whole blocks from
/// others: what answers in parts name an attempt, and nothing proves it.
#[test]
fn an_answer_under_a_made_up_attempt_moves_nothing() {
    let mut bench = Bench::default();
    let (env, first, second) = (env_on(1, 1), f(0, 1), f(1, 1));
    bench.turbine(&env, 0);
    bench.turbine(&first, 0);
    assert_eq!(bench.push(&env, 7, Via::Whole).0, Fate::Duplicate);
    assert_eq!(bench.push(&first, 3, Via::Whole).0, Fate::Duplicate);
    assert_eq!(bench.turbine(&second, 0).0, Fate::Passed);
    bench.holds(&[&env, &first, &second]);
    assert!(bench.consumer.log.iter().all(|line| !line.starts_with('-')));
}
