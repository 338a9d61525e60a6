//! Compares the erasure code with reed-solomon-simd: 32 data and 32 coding shards of 832 bytes, in
//! the same run, with the ratio of the medians at the end.

use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::BytesCount;
use fragcast_bench::payload;
use fragcast_shredder::coding::Codes;

const K: usize = 32;
const M: usize = 32;
const LEN: usize = 832;

fn main() {
    divan::main();
    ratios();
}

fn encode_ours(codes: &mut Codes, data: &[&[u8]], coding: &mut [Vec<u8>]) {
    let mut coding: Vec<&mut [u8]> = coding.iter_mut().map(Vec::as_mut_slice).collect();
    codes.encode(data, &mut coding).unwrap();
}

fn whole() -> (Vec<Vec<u8>>, Codes) {
    let bytes = payload(K * LEN);
    let mut codes = Codes::default();
    let data: Vec<&[u8]> = bytes.chunks(LEN).collect();
    let mut coding = vec![vec![0; LEN]; M];
    encode_ours(&mut codes, &data, &mut coding);
    (data.iter().map(|s| s.to_vec()).chain(coding).collect(), codes)
}

/// Every second data shred is lost, in another pattern each time, so that a cache of inverted
/// matrices does not help.
fn recover_ours(codes: &mut Codes, shards: &mut [Vec<u8>], round: u32) {
    let lost = 0x5555_5555u32.rotate_left(round) ^ (1 << (round % 32)) & 0x5555_5555;
    let present = u64::from(!lost) | 0xffff_ffff << 32;
    let mut refs: Vec<&mut [u8]> = shards.iter_mut().map(Vec::as_mut_slice).collect();
    codes.recover(K, &mut refs, present).unwrap();
}

fn recover_theirs(shards: &[Vec<u8>]) {
    let original = (0..K).filter(|i| i % 2 == 1).map(|i| (i, &shards[i]));
    let recovery = (0..M).map(|i| (i, &shards[K + i])).take(K / 2);
    divan::black_box(reed_solomon_simd::decode(K, M, original, recovery).unwrap());
}

fn theirs() -> Vec<Vec<u8>> {
    let data: Vec<Vec<u8>> = payload(K * LEN).chunks(LEN).map(<[u8]>::to_vec).collect();
    let coding = reed_solomon_simd::encode(K, M, &data).unwrap();
    data.into_iter().chain(coding).collect()
}

#[divan::bench]
fn encode_reed_solomon_erasure(bencher: Bencher<'_, '_>) {
    let bytes = payload(K * LEN);
    let data: Vec<&[u8]> = bytes.chunks(LEN).collect();
    let (mut codes, mut coding) = (Codes::default(), vec![vec![0; LEN]; M]);
    bencher
        .counter(BytesCount::new(K * LEN))
        .bench_local(|| encode_ours(&mut codes, &data, &mut coding));
}

#[divan::bench]
fn encode_reed_solomon_simd(bencher: Bencher<'_, '_>) {
    let data: Vec<Vec<u8>> = payload(K * LEN).chunks(LEN).map(<[u8]>::to_vec).collect();
    bencher
        .counter(BytesCount::new(K * LEN))
        .bench_local(|| reed_solomon_simd::encode(K, M, &data).unwrap());
}

#[divan::bench]
fn recover_reed_solomon_erasure(bencher: Bencher<'_, '_>) {
    let (mut shards, mut codes) = whole();
    let mut round = 0;
    bencher.counter(BytesCount::new(K * LEN)).bench_local(|| {
        round += 1;
        recover_ours(&mut codes, &mut shards, round);
    });
}

#[divan::bench]
fn recover_reed_solomon_simd(bencher: Bencher<'_, '_>) {
    let shards = theirs();
    bencher.counter(BytesCount::new(K * LEN)).bench_local(|| recover_theirs(&shards));
}

fn median(mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..501)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[250]
}

#[expect(clippy::print_stdout, reason = "a benchmark's result")]
fn ratios() {
    let bytes = payload(K * LEN);
    let data: Vec<&[u8]> = bytes.chunks(LEN).collect();
    let owned: Vec<Vec<u8>> = data.iter().map(|s| s.to_vec()).collect();
    let (mut codes, mut coding) = (Codes::default(), vec![vec![0; LEN]; M]);
    let ours = median(|| encode_ours(&mut codes, &data, &mut coding));
    let simd = median(|| drop(divan::black_box(reed_solomon_simd::encode(K, M, &owned).unwrap())));
    println!("encode:  ours {ours:?}, reed-solomon-simd {simd:?}, ratio {:.2}", ratio(ours, simd));
    let (mut shards, mut codes) = whole();
    let mut round = 0;
    let ours = median(|| {
        round += 1;
        recover_ours(&mut codes, &mut shards, round);
    });
    let other = theirs();
    let simd = median(|| recover_theirs(&other));
    println!("recover: ours {ours:?}, reed-solomon-simd {simd:?}, ratio {:.2}", ratio(ours, simd));
}

fn ratio(ours: Duration, theirs: Duration) -> f64 {
    theirs.as_secs_f64() / ours.as_secs_f64()
}
