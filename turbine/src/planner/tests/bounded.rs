//! Plans for networks of more members than a node has connections.

use super::*;
use crate::peering::Shares;

const CONNECTIONS: usize = 120;

fn bounded(world: &World) -> PlanJob {
    PlanJob { connections: CONNECTIONS, ..world.job() }
}

/// By region: its members, and of those the relays.
fn regions(contents: &Contents) -> Vec<(Vec<usize>, Vec<usize>)> {
    let count = contents.entries.iter().map(|entry| entry.region + 1).max().unwrap();
    let mut regions = vec![(Vec::new(), Vec::new()); count.into()];
    for (member, entry) in contents.entries.iter().enumerate() {
        let (members, relays) = &mut regions[usize::from(entry.region)];
        members.push(member);
        relays.extend(entry.relays.then_some(member));
    }
    regions
}

#[test]
fn regions_and_relays_keep_to_their_shares_of_the_connections() {
    let world = World::globe(20);
    let shares = Shares::of(360, CONNECTIONS);
    let PlanDraft { contents, shapes, .. } = bounded(&world).run().unwrap();
    assert!(contents.entries.iter().filter(|entry| entry.relays).count() <= shares.relays);
    for (members, relays) in regions(&contents) {
        assert!((4..=shares.region).contains(&members.len()), "{members:?}");
        assert!(relays.len() >= 2, "a silent one takes no region along: {relays:?}");
        let all_classes = |relay: &usize| contents.entries[*relay].heads != 0;
        assert!(relays.iter().all(all_classes) && !relays.contains(&0), "the leader is none");
    }
    let relays = |root: &u32| contents.entries[(root & 0xffff) as usize].relays;
    assert!(!contents.roots.is_empty() && contents.roots.iter().all(relays));
    assert!(shapes.iter().all(|shape| !shape.direct), "the leader reaches some only");
}

#[test]
fn where_everybody_can_be_connected_the_bound_changes_nothing() {
    let world = World::globe(12);
    let plan = |connections| PlanJob { connections, ..world.job() }.run().unwrap().contents;
    assert_eq!(plan(215), plan(usize::MAX));
    assert_ne!(plan(100), plan(usize::MAX));
}

#[test]
fn of_the_near_members_of_a_region_the_heaviest_relay() {
    let world = World::globe(20);
    let heavy = |member: usize| member % 4 == 1;
    let weights = (0..360).map(|member| if heavy(member) { 50 } else { 1 }).collect();
    let contents = PlanJob { weights, ..bounded(&world) }.run().unwrap().contents;
    let relays: Vec<usize> =
        regions(&contents).into_iter().flat_map(|(_, relays)| relays).collect();
    let of_them = relays.iter().filter(|relay| heavy(**relay)).count();
    assert!(of_them * 4 >= relays.len() * 3, "{of_them} of {}", relays.len());
}

#[test]
fn who_is_far_from_all_or_unknown_is_in_a_region_with_relays_too() {
    let mut world = World::globe(20);
    // Three islands of one member each, and one that nobody measured.
    for (member, at) in [(40, (300.0, 0.0)), (41, (0.0, 300.0)), (42, (-200.0, -200.0))] {
        world.at[member] = at;
    }
    let delays = world.matrix(|a, b| a != 43 && b != 43);
    let contents = PlanJob { delays, ..bounded(&world) }.run().unwrap().contents;
    assert!(!contents.entries[43].relays);
    for (members, relays) in regions(&contents) {
        assert!(members.len() >= 4 && !relays.is_empty(), "{members:?}");
    }
}

#[test]
fn a_tenth_of_the_pairs_is_enough_to_plan_nearly_as_well_as_with_all() {
    let world = World::globe(20);
    let job = bounded(&world);
    let PlanDraft { shapes, .. } = job.clone().run().unwrap();
    let known =
        |a: usize, b: usize| (a * 31 + b * 17).is_multiple_of(10) || (b * 31 + a * 17) % 10 == 5;
    let mut matrix = DelayMatrix::sparse(360);
    for a in 0..360 {
        for b in (0..a).filter(|b| known(a, *b)) {
            let rtt = RttCode::of_micros(2 * world.micros(a, b));
            matrix.set(a as PeerIndex, b as PeerIndex, rtt);
        }
    }
    let guessed = PlanJob { delays: Arc::new(matrix), ..job.clone() }.run().unwrap();
    // What that plan costs with the true delays.
    let delays = Delays::new(&job.delays);
    let model = Model::new(&job, &delays);
    let tree = Candidate::of(guessed.contents, &job.weights).unwrap();
    let cost = tree.shape(&model, job.profile, USUAL).mean();
    let best = shapes[1].estimate().mean_micros;
    assert!(cost <= 1.15 * best, "{cost} µs instead of {best}");
}
