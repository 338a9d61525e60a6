//! Measures drawing the tree of a shred, at the leader and at a relay.

use divan::Bencher;
use divan::counter::BytesCount;
use fragcast_turbine::{PlanView, Route};

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
        fragcast_turbine::route::Tree::new(&view, route, 0, &root, 3).children(sender, &mut out);
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
