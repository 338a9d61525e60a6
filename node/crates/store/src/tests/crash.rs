//! The power fails at any operation of the disk; the remains always open, and are consistent.

use super::*;

/// Disks, and how often the power fails on each.
const SEEDS: u64 = 60;
const CRASHES: u64 = 5;

#[test]
fn whatever_a_crash_leaves_is_a_verified_block() {
    let spec = spec();
    let (mut opened, mut died_early, mut lost) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut rng = Rng(seed.wrapping_mul(0x1234_5678_9abc_def1));
        let mut image = Vec::new();
        let mut chain = vec![genesis_step(&spec)];
        // The block that must at least be there, and how many of `chain` can be.
        let (mut least, mut highest) = (None, 0);
        for _ in 0..CRASHES {
            let backend = TearingBackend::new(std::mem::take(&mut image));
            let longest = if rng.below(4) == 0 { 50 } else { 900 };
            backend.die_after(rng.below(longest));
            match Store::on(backend.clone(), &spec, small(6)) {
                Err(error) => {
                    assert!(backend.is_dead(), "seed {seed}: {error}");
                    died_early += 1;
                    // A file gets its name only once the genesis is durable in it.
                    if least.is_none() {
                        image = Vec::new();
                        continue;
                    }
                }
                Ok(store) => {
                    opened += 1;
                    lost += check(&store, &mut chain, least, seed);
                    least = Some(run(&store, &backend, &mut chain, &mut highest, &mut rng));
                }
            }
            image = backend.crash(&mut rng);
        }
        let store = Store::on(TearingBackend::new(image), &spec, small(6)).unwrap();
        lost += check(&store, &mut chain, least, seed);
    }
    // The test tests something.
    println!("{opened} openings, {died_early} deaths while opening, {lost} blocks lost");
    assert!(opened > SEEDS * 3 && died_early > 0 && lost > SEEDS, "{opened} {died_early} {lost}");
}

/// Checks that the opened store is consistent and at one of the possible blocks. Returns how many
/// blocks are lost.
fn check(store: &Store, chain: &mut Vec<Step>, least: Option<u64>, seed: u64) -> u64 {
    let report = store.verify().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let (number, hash) = store.durable().unwrap();
    assert_eq!((report.number, report.hash), (number, hash));
    assert!(number >= least.unwrap_or(0), "seed {seed}: {number} after {least:?}");
    let at = chain.iter().position(|step| step.hash == hash);
    let at = at.unwrap_or_else(|| panic!("seed {seed}: block {number} was never persisted"));
    chain[at].model.check(&*store.view());
    let lost = chain.len() - 1 - at;
    chain.truncate(at + 1);
    lost as u64
}

/// Persists and unwinds until the power fails; returns the block that must be there afterwards.
fn run(
    store: &Arc<Store>,
    backend: &TearingBackend,
    chain: &mut Vec<Step>,
    highest: &mut usize,
    rng: &mut Rng,
) -> u64 {
    let mut tip = Tip::of(store, chain.last().unwrap().clone());
    for _ in 0..60 {
        if backend.is_dead() {
            break;
        }
        if rng.below(8) > 0 {
            let block = tip.block(store, rng);
            chain.push(tip.step.clone());
            store.persist(&block);
            continue;
        }
        let back = back(chain, highest, rng);
        let target = chain[chain.len() - 1 - back].clone();
        if let Err(error) = store.unwind(target.hash) {
            assert!(backend.is_dead(), "{error}");
            // Somewhere on the way, or before it.
            drain(store);
            return store.durable().unwrap().0.min(target.header.number);
        }
        chain.truncate(chain.len() - back);
        assert_eq!(store.durable(), Some((target.header.number, target.hash)));
        tip = Tip::of(store, target);
    }
    drain(store);
    store.durable().unwrap().0
}
