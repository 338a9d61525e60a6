//! Measures drawing the tree of a shred, at the leader and at a relay, and planning.

use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use divan::counter::BytesCount;
use fragcast_turbine::route::{Slot, Tree};
use fragcast_turbine::{DelayMatrix, PlanJob, PlanView, Profile, Route, RttCode};

fn main() {
    divan::main();
}

fn weights(n: usize) -> Vec<u64> {
    // Falls like a stake distribution: member i has 1/i of the first one's weight.
    (1..=n as u64).map(|i| 1_000_000 / i).collect()
}

/// Draws the nodes to which `sender` sends shred 3, each time of another set. A shred has 1,137
/// bytes, which divan counts.
fn children(bencher: Bencher<'_, '_>, n: usize, route: Route, sender: u32) {
    let view = PlanView::from_weights(1, &weights(n));
    let mut set = 0u64;
    let mut out = Vec::new();
    bencher.counter(BytesCount::new(1137usize)).bench_local(|| {
        set += 1;
        let mut root = [0; 32];
        root[..8].copy_from_slice(&set.to_le_bytes());
        out.clear();
        let slot = Slot { index: 3, k: 22, m: 11 };
        Tree::new(&view, route, 0, &root, slot).children(sender, &mut out);
        out.len()
    });
}

/// The nodes to which a relay forwards a shred.
#[divan::bench(args = [8, 100, 1_000, 8_000])]
fn turbine_children_of_a_relay(bencher: Bencher<'_, '_>, n: usize) {
    children(bencher, n, Route::Turbine { fanout: 200 }, 1);
}

/// The relay to which a leader sends a shred.
#[divan::bench(args = [8, 100, 1_000, 8_000])]
fn root_of_a_shred(bencher: Bencher<'_, '_>, n: usize) {
    children(bencher, n, Route::Rotor, 0);
}

/// A plan for `n` members in 40 cities around the world, of which the sizes fall as stakes do.
#[divan::bench(args = [100, 1_000], sample_count = 10)]
fn planning(bencher: Bencher<'_, '_>, n: usize) {
    let city = |member: usize| (member * member + 3 * member) % 1_601 % 40;
    let mut delays = DelayMatrix::unknown(n);
    for a in 0..n {
        for b in 0..a {
            let away = city(a).abs_diff(city(b)) as u32;
            let rtt = RttCode::of_micros(600 + 5_000 * away.min(40 - away));
            delays.set(a as u32, b as u32, rtt);
        }
    }
    let job = PlanJob {
        delays: Arc::new(delays),
        weights: weights(n),
        uplinks_bps: vec![1_000_000_000; n],
        leader: 0,
        loss: 0.01,
        hop: Duration::from_micros(100),
        next_leaders: 2,
        profile: Profile::Lean,
        connections: 1_024,
        previous: None,
        table: [0; 32],
    };
    bencher.with_inputs(|| job.clone()).bench_local_values(PlanJob::run);
}
