//! Plans of small worlds: who relays, where, and what the model makes of it.

use super::regions::divide;
use super::*;
use crate::delays::RttCode;

mod bounded;

/// Members in cities on a plane, in ms one way, 0.3 ms within a city.
struct World {
    at: Vec<(f64, f64)>,
}

impl World {
    /// `per_city` members in each city, city by city.
    fn new(cities: &[(f64, f64)], per_city: usize) -> Self {
        Self { at: cities.iter().flat_map(|city| vec![*city; per_city]).collect() }
    }

    /// Cities around three continents.
    fn globe(per_city: usize) -> Self {
        let around = |(x, y): (f64, f64)| {
            (0..6).map(move |i| (x + f64::from(i % 3) * 5.0, y + f64::from(i) * 4.0))
        };
        let cities: Vec<(f64, f64)> =
            [(0.0, 0.0), (70.0, 5.0), (40.0, 80.0)].into_iter().flat_map(around).collect();
        Self::new(&cities, per_city)
    }

    fn micros(&self, a: usize, b: usize) -> u32 {
        let ((ax, ay), (bx, by)) = (self.at[a], self.at[b]);
        (((ax - bx).hypot(ay - by) + 0.3) * 1_000.0) as u32
    }

    fn matrix(&self, known: impl Fn(usize, usize) -> bool) -> Arc<DelayMatrix> {
        let n = self.at.len();
        let mut matrix = DelayMatrix::unknown(n);
        for a in 0..n {
            for b in (0..a).filter(|b| known(a, *b)) {
                let rtt = RttCode::of_micros(2 * self.micros(a, b));
                matrix.set(a as PeerIndex, b as PeerIndex, rtt);
            }
        }
        Arc::new(matrix)
    }

    fn job(&self) -> PlanJob {
        let n = self.at.len();
        PlanJob {
            delays: self.matrix(|_, _| true),
            weights: vec![1; n],
            uplinks_bps: vec![1_000_000_000; n],
            leader: 0,
            loss: 0.01,
            hop: Duration::from_micros(100),
            next_leaders: 2,
            profile: Profile::Lean,
            connections: 1_024,
            previous: None,
            table: [0; 32],
        }
    }
}

#[test]
fn regions_are_groups_of_neighbours() {
    let world = World::globe(30);
    let delays = Delays::new(&world.matrix(|_, _| true));
    let groups = divide(&delays, &[true; 540], 3_000, 24);
    let mut all: Vec<PeerIndex> = groups.iter().flatten().copied().collect();
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..540), "everybody in one");
    for group in &groups {
        assert!(group.len() <= 26 && group.len() >= 12, "{}", group.len());
        for member in group {
            assert!(delays.micros(group[0], *member) <= 6_000);
        }
    }
    assert_eq!(groups.len(), 36, "each city is two groups");
}

#[test]
fn members_without_relays_around_join_those_of_others() {
    let world = World::globe(10);
    let delays = Delays::new(&world.matrix(|_, _| true));
    // Only every third city has members that relay: the others are 10 ms away or so.
    let may_relay: Vec<bool> = (0..180).map(|i| i / 10 % 3 == 0).collect();
    let groups = divide(&delays, &may_relay, 3_000, 24);
    assert!(groups.iter().all(|group| group.iter().any(|m| may_relay[*m as usize])));
    assert!(groups.iter().all(|group| group.len() <= 60), "{groups:?}");
}

#[test]
fn the_same_input_gives_the_same_plan_and_noise_gives_no_new_one() {
    let world = World::globe(12);
    let job = world.job();
    let [one, other] = [0, 1].map(|_| job.clone().run().unwrap());
    assert_eq!((&one.contents, &one.shapes), (&other.contents, &other.shapes));
    assert_eq!(one.shapes.last().unwrap().longest, usize::MAX);
    let mut noisy = DelayMatrix::clone(&job.delays);
    for a in 0..200 {
        let (a, b) = (a, (a * 7 + 1) % 216);
        let code = noisy.rtt(a, b).to_byte();
        noisy.set(a, b, RttCode::from_byte(code + 1));
    }
    let previous = Some(Arc::clone(&one.contents));
    let again = PlanJob { delays: Arc::new(noisy), previous, ..job.clone() }.run().unwrap();
    assert!(Arc::ptr_eq(&again.contents, &one.contents));
    // Where the leader is elsewhere, the plan is another.
    let previous = Some(Arc::clone(&one.contents));
    let moved = PlanJob { leader: 215, previous, ..job }.run().unwrap();
    assert_ne!(moved.contents, one.contents);
}

#[test]
fn nobody_relays_who_has_no_weight_or_whom_nobody_measured() {
    let world = World::globe(12);
    let unknown = |i: usize| i % 12 == 3;
    let delays = world.matrix(|a, b| !unknown(a) && !unknown(b));
    let mut job = PlanJob { delays, ..world.job() };
    (0..216).filter(|i| i % 12 == 4).for_each(|i| job.weights[i] = 0);
    let PlanDraft { contents, shapes, .. } = job.clone().run().unwrap();
    for (member, entry) in contents.entries.iter().enumerate() {
        let silent = unknown(member) || job.weights[member] == 0;
        assert_eq!(entry.relays, !silent, "member {member}");
        assert!(!silent || entry.heads == 0);
        let roots = contents.roots.iter().filter(|root| **root & 0xffff == member as u32);
        assert!(roots.count() <= usize::from(!silent && member != 0));
    }
    assert!(!shapes[1].direct);
    let nothing = PlanJob { delays: world.matrix(|_, _| false), ..job };
    assert!(nothing.run().is_none());
}

#[test]
fn heads_stand_near_the_way_and_a_small_region_has_all_of_its_own() {
    let mut world = World::globe(12);
    // A town of three beside a city.
    world.at.extend([(100.0, 100.0); 3]);
    let contents = world.job().run().unwrap().contents;
    let region = contents.entries[216].region;
    let of = |number: u16| contents.entries.iter().filter(move |e| e.region == number);
    assert_eq!(of(region).count(), 3);
    assert!(of(region).all(|entry| entry.heads != 0), "of three all");
    let (heads, members) =
        (of(0).filter(|e| e.heads & 1 > 0 || e.heads > 0).count(), of(0).count());
    assert!(members >= 3 && (3..=members).contains(&heads));
}

#[test]
fn the_leaders_uplink_decides_how_it_sends() {
    let few = World::globe(2);
    let fast = PlanJob { uplinks_bps: vec![10_000_000_000; 36], ..few.job() };
    let slow = PlanJob { uplinks_bps: vec![50_000_000; 36], ..few.job() };
    assert!(
        fast.run().unwrap().shapes[0].direct,
        "3.6 kB to 35 members takes nothing at 10 Gbit/s"
    );
    let slow = slow.run().unwrap();
    assert!(!slow.shapes[2].direct, "144 kB to 35 members takes a second at 50 Mbit/s");
    let many = World::globe(40);
    let shapes = many.job().run().unwrap().shapes;
    assert!(shapes.iter().all(|shape| !shape.direct));
    assert!(shapes[0].roots <= shapes[2].roots, "more for longer messages: {shapes:?}");
}

#[test]
fn a_handful_of_members_is_never_planned_worse_than_direct() {
    for n in 3..=20 {
        let cities: Vec<(f64, f64)> = (0..n).map(|i| (f64::from(i % 3) * 30.0, 0.0)).collect();
        for at in [vec![(0.0, 0.0); n as usize], cities] {
            let world = World { at };
            let weights: [&dyn Fn(i32) -> u64; 4] =
                [&|_| 1, &|_| 0, &|i| u64::from(i == 0), &|i| u64::from(i % 2 == 0) * 7];
            for (weight, uplink) in weights.into_iter().flat_map(|w| [(w, 50), (w, 1_000)]) {
                let weights: Vec<u64> = (0..n).map(weight).collect();
                let uplinks_bps = vec![uplink * 1_000_000; n as usize];
                let job = PlanJob { weights: weights.clone(), uplinks_bps, ..world.job() };
                // Only the leader has weight: nobody else relays.
                let Some(draft) = job.run() else {
                    assert_eq!(weights.iter().filter(|weight| **weight > 0).count(), 1);
                    continue;
                };
                assert!(Candidate::of(Arc::clone(&draft.contents), &weights).is_some());
                for shape in draft.shapes.iter() {
                    assert!(shape.estimate().mean_micros <= shape.estimates[1].mean_micros);
                }
            }
        }
    }
    let world = World::new(&[(0.0, 0.0)], 9);
    let unknown = PlanJob { delays: world.matrix(|_, _| false), ..world.job() };
    assert!(unknown.run().is_none());
}

#[test]
fn the_way_to_a_member_is_known_where_it_was_measured() {
    let world = World::globe(3);
    let delays = world.matrix(|a, b| !(a == 50 && b == 0));
    let shapes = PlanJob { delays, ..world.job() }.run().unwrap().shapes;
    assert_eq!([0, 50, 54].map(|member| shapes.way(member)), [Duration::ZERO; 3]);
    let (way, truly) = (shapes.way(40).as_secs_f64(), f64::from(world.micros(0, 40)) / 1e6);
    assert!((way / truly - 1.0).abs() < 0.03, "{way} {truly}");
}

#[test]
fn a_slow_member_is_no_root() {
    let world = World::globe(12);
    let mut job = world.job();
    // The leader's own city, best placed as it is, has modems.
    (1..12).for_each(|i| job.uplinks_bps[i] = 2_000_000);
    let contents = job.run().unwrap().contents;
    let best = contents.roots.iter().take(8).map(|root| root & 0xffff);
    assert!(best.clone().all(|root| root >= 12), "{:?}", best.collect::<Vec<_>>());
}

#[test]
fn direct_is_what_it_is_by_hand() {
    let world = World::new(&[(0.0, 0.0), (30.0, 0.0)], 1);
    let job = PlanJob { loss: 0.0, next_leaders: 0, ..world.job() };
    let delays = Delays::new(&job.delays);
    let model = Model::new(&job, &delays);
    let rate = job.direct_rate(36_000);
    // The leader is member 0 of two, and sends to all for the sake of a simple formula.
    let bits =
        f64::from(rate.k) * f64::from(rate.sets) * 2.0 * ((rate.shred_len() + FRAMING) * 8) as f64;
    let expected = f64::from(delays.micros(0, 1)) + 100.0 + bits / 1_000.0;
    let told = model.direct(rate).mean_micros;
    assert!((told - expected).abs() < 0.02 * expected, "{told} {expected}");
}

#[test]
fn a_relay_behind_a_modem_costs_what_it_costs() {
    let world = World::globe(12);
    let job = PlanJob { profile: Profile::Fast, ..world.job() };
    let delays = Delays::new(&job.delays);
    let model = Model::new(&job, &delays);
    let draft = job.clone().run().unwrap();
    let candidate = Candidate::of(Arc::clone(&draft.contents), &job.weights).unwrap();
    let rate = Profile::Fast.rate(USUAL, 32, model.target());
    let usual = model.regional(&candidate.view, 12, rate);
    let slow = PlanJob { uplinks_bps: vec![20_000_000; 216], ..job.clone() };
    let slow = Model::new(&slow, &delays).regional(&candidate.view, 12, rate);
    assert!(slow.mean_micros > 1.5 * usual.mean_micros, "{usual:?} {slow:?}");
    assert!(usual.bytes_per_byte <= 3.0 && usual.bytes_per_byte > 2.3, "{usual:?}");
    // More loss means waiting for more shreds.
    let lossy = PlanJob { loss: 0.05, ..job };
    let lossy = Model::new(&lossy, &delays).regional(&candidate.view, 12, rate);
    assert!(lossy.mean_micros > usual.mean_micros);
}

/// Why plans are sent whole: one that replaces another has other words for most members. Even if
/// regions kept the numbers of those with the same members, who may be a head for which class of
/// roots would be another set for most.
#[test]
fn a_plan_that_replaces_another_changes_most_of_its_words() {
    let world = World::globe(12);
    let job = world.job();
    let before = job.clone().run().unwrap().contents;
    let changed = |what: &str, job: PlanJob| {
        let previous = Some(Arc::clone(&before));
        let after = PlanJob { previous, ..job }.run().unwrap().contents;
        let pairs = || before.entries.iter().zip(&after.entries);
        let members = before.entries.len();
        let words = pairs().filter(|(old, new)| old != new).count() * 100 / members;
        // The number that most members of a region had before.
        let renamed = |new: &Entry| {
            let of = pairs().filter(|(_, other)| other.region == new.region);
            let mut counts = std::collections::BTreeMap::<u16, usize>::new();
            of.for_each(|(old, _)| *counts.entry(old.region).or_default() += 1);
            counts.into_iter().max_by_key(|(_, count)| *count).map_or(new.region, |(old, _)| old)
        };
        let moved =
            |(old, new): &(&Entry, &Entry)| **old != Entry { region: renamed(new), ..**new };
        let renumbered = pairs().filter(moved).count() * 100 / members;
        println!("{what}: {words} % of the words change, {renumbered} % with stable numbers");
        (words, renumbered, Arc::ptr_eq(&before, &after))
    };
    let mut one = job.clone();
    one.uplinks_bps[100] = 0;
    assert!(changed("one silent relay", one).2, "not worth another plan");
    let mut tenth = job.clone();
    (0..216).step_by(10).for_each(|i| tenth.uplinks_bps[i] = 0);
    let (words, renumbered, _) = changed("a tenth of the relays silent", tenth);
    assert!(words > 90 && renumbered > 50, "{words} {renumbered}");
    let mut noisy = DelayMatrix::clone(&job.delays);
    for (a, b) in (0..216u32).flat_map(|a| (0..a).map(move |b| (a, b))) {
        let step = (a * 31 + b * 17) % 5;
        let code = (noisy.rtt(a, b).to_byte() + step as u8).saturating_sub(2);
        noisy.set(a, b, RttCode::from_byte(code));
    }
    let (words, renumbered, _) =
        changed("every pair up to 10 % off", PlanJob { delays: Arc::new(noisy), ..job });
    assert!(words > 90 && renumbered > 50, "{words} {renumbered}");
}
