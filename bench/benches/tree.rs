//! Drawing the tree of a shred: the leader's step and a relay's.

use divan::Bencher;
use divan::counter::BytesCount;
use fragcast_turbine::{PlanView, Route};

fn main() {
    divan::main();
}

fn weights(n: usize) -> Vec<u64> {
    // Falling like a stake distribution: the largest has 1/i of the first.
    (1..=n as u64).map(|i| 1_000_000 / i).collect()
}

/// To whom a relay forwards a shred of 1,137 bytes; divan counts those bytes.
#[divan::bench(args = [8, 100, 1_000, 8_000])]
fn turbine_children_of_a_relay(bencher: Bencher<'_, '_>, n: usize) {
    let view = PlanView::from_weights(1, &weights(n));
    let mut set = 0u64;
    let mut out = Vec::new();
    bencher.counter(BytesCount::new(1137usize)).bench_local(|| {
        set += 1;
        let mut root = [0; 32];
        root[..8].copy_from_slice(&set.to_le_bytes());
        out.clear();
        let route = Route::Turbine { fanout: 200 };
        fragcast_turbine::route::Tree::new(&view, route, 0, &root, 3).children(1, &mut out);
        out.len()
    });
}

/// The root that a leader sends a shred to.
#[divan::bench(args = [8, 100, 1_000, 8_000])]
fn root_of_a_shred(bencher: Bencher<'_, '_>, n: usize) {
    let view = PlanView::from_weights(1, &weights(n));
    let mut set = 0u64;
    let mut out = Vec::new();
    bencher.counter(BytesCount::new(1137usize)).bench_local(|| {
        set += 1;
        let mut root = [0; 32];
        root[..8].copy_from_slice(&set.to_le_bytes());
        out.clear();
        fragcast_turbine::route::Tree::new(&view, Route::Rotor, 0, &root, 3).children(0, &mut out);
        out.len()
    });
}
