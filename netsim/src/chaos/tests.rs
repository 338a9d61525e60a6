use super::*;
use crate::MILLIS;

/// A few seeds for each of the routes; many more by the program.
#[test]
fn a_few_seeds_break_no_invariant() {
    let mut faults = std::collections::BTreeSet::new();
    for seed in [3, 8, 16] {
        let outcome = run(&Options::new(seed, 12, 60 * SECONDS));
        assert_eq!(outcome.broken, None, "{}", outcome.options.command());
        let Tallies { completed, held, .. } = outcome.tallies;
        // Ten honest nodes, some 30 blocks, three quarters of them by gateways that do not lie.
        assert!(completed > 100 && held > 1_000, "seed {seed}: {completed} {held}");
        faults.extend(outcome.tallies.faults.into_keys());
    }
    assert!(faults.len() > 5, "{faults:?}");
}

#[test]
fn the_same_options_give_the_same_digest() {
    let options = Options::new(7, 8, 40 * SECONDS);
    let (one, other) = (run(&options), run(&options));
    assert_eq!(one, other);
    assert_ne!(one.digest, run(&Options { seed: 8, ..options }).digest);
}

/// With a bound that no node can meet that was cut off, cutting off is what is left.
#[test]
fn a_failing_run_is_repeated_by_its_command_and_shrunk() {
    let bound = 700 * MILLIS;
    let quiet = Options { bound, only: Some(Vec::new()), ..Options::new(0, 8, 40 * SECONDS) };
    assert_eq!(run(&quiet).broken, None, "without faults everything is there at once");
    let failing = (0..20)
        .map(|seed| run(&Options { bound, ..Options::new(seed, 8, 60 * SECONDS) }))
        .find(|outcome| outcome.broken.is_some())
        .expect("some fault takes longer than the bound");
    let broken = failing.broken.clone().expect("it failed");
    assert_eq!(broken.invariant, Invariant::Delivery);
    assert!(failing.options.command().contains("--bound 0.7"));
    let shrunk = shrink(&failing);
    let kept = shrunk.options.only.clone().expect("numbers");
    assert_eq!(run(&shrunk.options).broken, Some(shrunk.broken.clone()), "{shrunk}");
    let numbers: Vec<String> = kept.iter().map(usize::to_string).collect();
    assert!(shrunk.to_string().contains(&format!("--only {}", numbers.join(","))));
    // Every fault that is left is needed, and there is one.
    for left_out in &kept {
        let rest = kept.iter().filter(|n| *n != left_out).copied().collect();
        let less = Options { only: Some(rest), ..shrunk.options.clone() };
        assert_eq!(run(&less).broken, None, "{left_out} of {shrunk}");
    }
    assert!(!kept.is_empty());
}

#[test]
fn the_table_sums_up() {
    let mut outcome = run(&Options { only: Some(Vec::new()), ..Options::new(1, 8, 8 * SECONDS) });
    outcome.tallies.faults.insert("pause", 3);
    outcome.worst_delay = 1_500 * MILLIS;
    let text = table(&[outcome.clone(), outcome]);
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).expect(name);
        line.split_whitespace().next_back().expect("a value").to_owned()
    };
    assert_eq!(value("runs "), "2");
    assert_eq!(value("fault: pause"), "6");
    assert_eq!(value("worst delay"), "1500");
    assert_eq!(value("runs with"), "0");
}
