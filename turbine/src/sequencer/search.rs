//! The Seal decides: which frags have the transactions root that it names.

use std::collections::BTreeSet;

use alloy_primitives::B256;
use alloy_trie::root::ordered_trie_root_encoded;

use super::candidates::Candidate;

/// Choices that are tried for one Seal.
pub(super) const MAX_TRIES: usize = 64;
/// Bytes that may be hashed for one block, about 0.2 s of work.
pub(super) const MAX_HASHED: usize = 64 * 1024 * 1024;

/// Finds the choice of one option for each place whose transactions have this root.
///
/// The first options are preferred and tried first; then the oldest; then those that change
/// from the oldest to the preferred ones at one place, or back, as they do if nothing came out
/// of order; then any. `hashed` counts the work.
pub(super) fn search<'a>(
    options: &[Vec<&'a Candidate>],
    root: B256,
    hashed: &mut usize,
) -> Option<Vec<&'a Candidate>> {
    let mut tried = BTreeSet::new();
    for choice in choices(options) {
        let picked: Vec<_> = options.iter().zip(&choice).map(|(all, at)| all[*at]).collect();
        if !tried.insert(choice) {
            continue;
        }
        let txs = picked.iter().map(|c| c.txs()).collect::<Option<Vec<_>>>();
        if let Some(txs) = txs {
            let txs = txs.concat();
            let bytes = txs.iter().map(|tx| tx.len() + 128).sum::<usize>();
            *hashed += 1024 + 16 * options.len() + bytes;
            if *hashed > MAX_HASHED {
                return None;
            }
            if ordered_trie_root_encoded(&txs) == root {
                return Some(picked);
            }
        }
        if tried.len() >= MAX_TRIES {
            return None;
        }
    }
    None
}

/// Choices in the order in which they are tried, with repeats: positions in `options`.
fn choices(options: &[Vec<&Candidate>]) -> impl Iterator<Item = Vec<usize>> {
    let oldest: Vec<usize> = options
        .iter()
        .map(|all| (0..all.len()).min_by_key(|at| all[*at].rank).unwrap_or(0))
        .collect();
    let open: Vec<usize> = (0..options.len()).filter(|place| options[*place].len() > 1).collect();
    let counts: Vec<usize> = options.iter().map(Vec::len).collect();
    let preferred = vec![0; options.len()];
    let simple = [preferred, oldest.clone()];
    // Those between the first and the last open place differ; more than MAX_TRIES are not used.
    let turns: Vec<usize> = open.iter().skip(1).take(MAX_TRIES).copied().collect();
    let turning = turns.into_iter().flat_map(move |turn| {
        let old = |keep: &dyn Fn(usize) -> bool| -> Vec<usize> {
            let choose = |(place, at): (usize, &usize)| if keep(place) { *at } else { 0 };
            oldest.iter().enumerate().map(choose).collect()
        };
        [old(&|place| place < turn), old(&|place| place >= turn)]
    });
    // Counting up, the last open place fastest: ten times the limit leaves room for repeats.
    let mut digits = vec![0; counts.len()];
    let counting = (0..10 * MAX_TRIES).map_while(move |_| {
        for place in open.iter().rev() {
            digits[*place] += 1;
            if digits[*place] < counts[*place] {
                return Some(digits.clone());
            }
            digits[*place] = 0;
        }
        None
    });
    simple.into_iter().chain(turning).chain(counting)
}
