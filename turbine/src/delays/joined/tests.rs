use super::*;

/// Members on a ring, half a millisecond apart: the true round trip in µs.
fn truth(a: u32, b: u32, members: u32) -> u32 {
    let apart = a.abs_diff(b);
    1_000 + 500 * apart.min(members - apart)
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

/// What each member reports: the truth, or what `says` has for a pair.
fn joined(members: u32, says: impl Fn(u32, u32) -> Option<u32>) -> Joined {
    let mut joined = Joined::new(members as usize, usize::MAX);
    for member in 0..members {
        let others = (0..members).filter(|other| *other != member);
        let row =
            others.filter_map(|other| Some((other, RttCode::of_micros(says(member, other)?))));
        joined.take_pairs(at(10), member, 1, &row.collect::<Vec<_>>());
    }
    joined
}

fn code(micros: u32) -> RttCode {
    RttCode::of_micros(micros)
}

#[test]
fn honest_members_give_the_truth() {
    let joined = joined(50, |a, b| Some(truth(a, b, 50)));
    let matrix = joined.matrix();
    for (a, b) in (0..50).flat_map(|a| (0..50).map(move |b| (a, b))).filter(|(a, b)| a != b) {
        assert_eq!(matrix.rtt(a, b), code(truth(a, b, 50)));
        assert!(matrix.reported(a));
    }
    assert_eq!((joined.reporters(), joined.pairs()), (50, 50 * 49 / 2));
    let median = joined.median().unwrap();
    assert!((6_500..8_500).contains(&median), "{median}");
    assert_eq!(joined.error(), None);
}

#[test]
fn a_tenth_of_liars_moves_no_pair_with_an_honest_end_nearer() {
    // Every tenth lies: the first wants to be everybody's root and says that all are near, and so
    // do its friends; one says that all are far.
    const N: u32 = 100;
    let lies = |member: u32| member.is_multiple_of(10);
    let joined = joined(N, |a, b| match a {
        90 => Some(2_000_000),
        a if lies(a) => Some(60),
        a => Some(truth(a, b, N)),
    });
    let matrix = joined.matrix();
    let (mut wrong, mut pairs) = (0, 0);
    for a in 0..N {
        for b in 0..a {
            let (told, truth) = (matrix.rtt(a, b), code(truth(a, b, N)));
            pairs += 1;
            wrong += u32::from(told != truth);
            match (lies(a), lies(b)) {
                (false, false) => assert_eq!(told, truth, "between two honest members"),
                (true, true) => {}
                // The honest end's word stands, whatever the other says to be nearer.
                _ => assert!(told >= truth, "{a} {b}"),
            }
        }
    }
    // 45 pairs of two liars, of which those of the one who says far are not nearer, and 90 of that
    // one with the honest.
    assert!(wrong <= 45 + 90 && pairs == 4_950, "{wrong} of {pairs}");
    // Who wants to be the root is not nearer to all than it is, by more than its friends' share.
    let others = || (1..N).filter(|b| *b != 90);
    let mean = |of: &dyn Fn(u32) -> u32| others().map(|b| u64::from(of(b))).sum::<u64>() / 98;
    let told = mean(&|b| matrix.rtt(0, b).micros().unwrap());
    let honest = mean(&|b| truth(0, b, N));
    assert!(told as f64 > 0.9 * honest as f64, "{told} {honest}");
}

#[test]
fn what_one_end_alone_says_counts_longer() {
    let mut joined = Joined::new(4, usize::MAX);
    joined.take_pairs(at(10), 0, 1, &[(1, code(10_000)), (2, code(20_000))]);
    let way = joined.matrix().rtt(0, 1).micros().unwrap();
    assert!((13_000..14_000).contains(&way), "{way}");
    joined.take_pairs(at(10), 1, 1, &[(0, code(10_000))]);
    assert_eq!(joined.matrix().rtt(0, 1), code(10_000));
    // One that says it again without the pair takes it back.
    joined.take_pairs(at(20), 0, 2, &[(2, code(20_000))]);
    joined.take_pairs(at(20), 1, 2, &[]);
    assert!(!joined.matrix().rtt(0, 1).is_known());
    assert_eq!(joined.pairs(), 1);
}

#[test]
fn who_is_reported_by_nobody_else_counts_for_nothing() {
    // Member 9 says that it is near to all; nobody knows it. Member 8 has one friend,
    // and that one.
    let joined = joined(10, |a, b| match (a, b) {
        (9, _) => Some(100),
        (_, 9) => None,
        (a, 8) if a > 0 => None,
        (a, b) => Some(truth(a, b, 10)),
    });
    let reported: Vec<bool> = (0..10).map(|member| joined.matrix().reported(member)).collect();
    assert_eq!(reported, [[true; 8].as_slice(), &[false; 2]].concat());
    // While one alone has told anything its word is enough.
    let mut few = Joined::new(3, usize::MAX);
    few.take_pairs(at(10), 0, 1, &[(1, code(100)), (2, code(100))]);
    assert_eq!([0, 1, 2].map(|member| few.matrix().reported(member)), [false, true, true]);
}

#[test]
fn a_member_is_heard_once_in_a_while_and_in_order() {
    let mut joined = Joined::new(4, usize::MAX);
    assert_eq!(joined.step(at(10), 0, 5), Step::New);
    joined.take_pairs(at(10), 0, 5, &[(1, code(10_000))]);
    assert_eq!(joined.step(at(100), 0, 5), Step::Old);
    assert_eq!(joined.step(at(100), 0, 4), Step::Old);
    assert_eq!(joined.step(at(14), 0, 6), Step::Soon);
    assert_eq!(joined.step(at(15), 0, 6), Step::New);
    assert_eq!(joined.step(at(11), 1, 1), Step::New);
}

#[test]
fn a_generation_is_a_noticeable_change() {
    const N: u32 = 80;
    let mut joined = joined(N, |a, b| Some(truth(a, b, N)));
    joined.settle(at(20));
    let before = joined.generation();
    assert!(before >= 1);
    joined.settle(at(30));
    assert_eq!(joined.generation(), before, "nothing has changed");
    let row = |member: u32, slower: u32| -> Vec<(u32, RttCode)> {
        let others = (0..N).filter(|other| *other != member);
        others.map(|other| (other, code(truth(member, other, N) * slower / 100))).collect()
    };
    // Noise, and one member that is elsewhere, are none.
    joined.take_pairs(at(40), 0, 2, &row(0, 106));
    joined.take_pairs(at(40), 1, 2, &row(1, 300));
    assert_eq!(joined.generation(), before);
    joined.take_pairs(at(40), 2, 2, &row(2, 300));
    assert_eq!(joined.generation(), before + 1);
    // Not twice at a time.
    (3..7).for_each(|member| joined.take_pairs(at(41), member, 2, &row(member, 300)));
    assert_eq!(joined.generation(), before + 1);
    joined.settle(at(42));
    assert_eq!(joined.generation(), before + 2);
}

#[test]
fn coordinates_stand_for_what_a_large_table_did_not_measure() {
    // Members on a sheet of 80 × 60 ms, each measured by 80 others.
    const N: u32 = 2_100;
    let spot =
        |m: u32| (f64::from(m * 7_919 % 2_100) / 2_100.0, f64::from(m * 104_729 % 1_999) / 1_999.0);
    let truth = |a: u32, b: u32| {
        let ((x, y), (u, v)) = (spot(a), spot(b));
        let length = ((x - u).powi(2) * 80.0 * 80.0 + (y - v).powi(2) * 60.0 * 60.0).sqrt();
        (2_000.0 + 1_000.0 * length) as u32
    };
    let knows = |a: u32, b: u32| (a ^ b).wrapping_mul(0x85eb_ca6b) >> 16 < 2_500;
    let mut joined = joined(N, |a, b| knows(a, b).then(|| truth(a, b)));
    joined.settle(at(20));
    let matrix = Arc::clone(joined.matrix());
    let mut errors: Vec<f64> = (0..N)
        .map(|a| (a, (a * 31 + 17) % N))
        .filter(|(a, b)| a != b && !knows(*a, *b))
        .map(|(a, b)| {
            assert!(!matrix.measured(a, b).is_known());
            let told = f64::from(matrix.rtt(a, b).micros().unwrap());
            (told / f64::from(truth(a, b)) - 1.0).abs()
        })
        .collect();
    errors.sort_unstable_by(f64::total_cmp);
    let median = errors[errors.len() / 2];
    assert!(errors.len() > 1_500 && median < 0.15, "{median} over {}", errors.len());
    // The metric, made of measured pairs that placed nobody, says the same.
    let told = joined.error().unwrap();
    assert!((told - median).abs() < 0.1, "{told} and {median}");
    // What is measured is not guessed.
    let (a, b) =
        (0..N).flat_map(|a| (0..a).map(move |b| (a, b))).find(|(a, b)| knows(*a, *b)).unwrap();
    assert_eq!(matrix.rtt(a, b), code(truth(a, b)));
}
