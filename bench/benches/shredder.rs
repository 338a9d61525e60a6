//! Measures shredding, Merkle trees, validation and reassembly, in payload bytes per second on one
//! core.

use divan::Bencher;
use divan::counter::BytesCount;
use fragcast_bench::{half, params, payload, rate, shredder, validate};
use fragcast_shredder::{Limits, LossTarget, Push, Reassembler, merkle};

fn main() {
    divan::main();
}

const MIB: usize = 1 << 20;

/// Cuts, encodes, hashes and signs a message of 1 MiB, at the code rate for 5 % loss.
#[divan::bench]
fn shred_1mib_default_rate(bencher: Bencher<'_, '_>) {
    let (mut shredder, wire) = (shredder(), payload(MIB));
    let rate = fragcast_shredder::CodeRate::new(MIB, LossTarget::default());
    bencher
        .counter(BytesCount::new(MIB))
        .bench_local(|| shredder.shred(&wire, &params(), rate).unwrap());
}

/// The same at a code rate of 32:32.
#[divan::bench]
fn shred_1mib_32_32(bencher: Bencher<'_, '_>) {
    let (mut shredder, wire) = (shredder(), payload(MIB));
    bencher
        .counter(BytesCount::new(MIB))
        .bench_local(|| shredder.shred(&wire, &params(), rate(MIB, 32, 32)).unwrap());
}

/// The same for a frag of 36 kB.
#[divan::bench]
fn shred_36kb_default_rate(bencher: Bencher<'_, '_>) {
    let (mut shredder, wire) = (shredder(), payload(36_000));
    let rate = fragcast_shredder::CodeRate::new(36_000, LossTarget::default());
    bencher
        .counter(BytesCount::new(36_000usize))
        .bench_local(|| shredder.shred(&wire, &params(), rate).unwrap());
}

/// Parses, hashes and validates the rest of 1 MiB at 32:32, with half of the shreds lost.
#[divan::bench]
fn validate_1mib_half_lost(bencher: Bencher<'_, '_>) {
    let cut = shredder().shred(&payload(MIB), &params(), rate(MIB, 32, 32)).unwrap();
    let kept = half(&cut);
    bencher.counter(BytesCount::new(MIB)).bench_local(|| validate(&kept));
}

/// Recovers, re-encodes, compares roots and assembles, from validated shreds.
#[divan::bench]
fn reassemble_1mib_half_lost(bencher: Bencher<'_, '_>) {
    let cut = shredder().shred(&payload(MIB), &params(), rate(MIB, 32, 32)).unwrap();
    let valid = validate(&half(&cut));
    bencher.counter(BytesCount::new(MIB)).bench_local(|| {
        let mut reassembler = Reassembler::new(Limits::default());
        let done = valid.iter().filter(|shred| {
            matches!(reassembler.push(shred), Ok(Push::Complete { message: Some(_), .. }))
        });
        assert_eq!(done.count(), 1);
    });
}

/// Validation and reassembly together, as at a follower.
#[divan::bench]
fn validate_and_reassemble_1mib_half_lost(bencher: Bencher<'_, '_>) {
    let cut = shredder().shred(&payload(MIB), &params(), rate(MIB, 32, 32)).unwrap();
    let kept = half(&cut);
    bencher.counter(BytesCount::new(MIB)).bench_local(|| {
        let mut reassembler = Reassembler::new(Limits::default());
        let done = validate(&kept)
            .iter()
            .filter(|shred| {
                matches!(reassembler.push(shred), Ok(Push::Complete { message: Some(_), .. }))
            })
            .count();
        assert_eq!(done, 1);
    });
}

/// Builds a tree over 64 shards of 832 bytes.
#[divan::bench]
fn merkle_64_shards(bencher: Bencher<'_, '_>) {
    let data = payload(64 * 832);
    let shards: Vec<&[u8]> = data.chunks(832).collect();
    let mut leaves = Vec::new();
    bencher.counter(BytesCount::new(data.len())).bench_local(|| {
        merkle::leaves(&shards, &mut leaves);
        merkle::Tree::new(&leaves).root()
    });
}

/// The same, hashing one leaf after the other.
#[divan::bench]
fn merkle_64_shards_one_by_one(bencher: Bencher<'_, '_>) {
    let data = payload(64 * 832);
    let shards: Vec<&[u8]> = data.chunks(832).collect();
    bencher.counter(BytesCount::new(data.len())).bench_local(|| {
        let leaves: Vec<_> = shards.iter().map(|shard| merkle::leaf(shard)).collect();
        merkle::Tree::new(&leaves).root()
    });
}
