use super::*;
use crate::plan::{Entry, PlanView};

const TABLE: [u8; 32] = [1; 32];
/// Members of a region.
const EACH: u32 = 24;

/// Regions of 24 members, as many as there are weights for.
fn plan(weights: &[u64]) -> PlanView {
    let entry = |i: usize| Entry {
        region: (i as u32 / EACH) as u16,
        relays: true,
        heads: 1,
        ..Entry::default()
    };
    let entries: Vec<Entry> = (0..weights.len()).map(entry).collect();
    PlanView::from_entries(1, weights, &entries, &[]).unwrap()
}

const fn root(from: PeerIndex) -> Edge {
    Edge { role: Role::Root, from }
}

const fn head(from: PeerIndex) -> Edge {
    Edge { role: Role::Head, from }
}

/// Of every five shreds four come, but over the edges that `dead` names none.
fn share(dead: bool) -> (u16, u16) {
    if dead { (0, 5) } else { (4, 5) }
}

/// What members of regions of 24 say: of five roots (members 0, 24, 48, …) and of the first eight
/// members of their own regions as heads. `dead` says what does not come, or what a liar says.
fn told(
    weights: &[u64],
    at: (u64, u8),
    tallies: &mut Tallies,
    dead: impl Fn(Edge, PeerIndex) -> bool,
) {
    for member in 0..weights.len() as u32 {
        assert!(tallies.begin(TABLE, member, at));
        let first = member / EACH * EACH;
        let heads = (first..first + 8).map(head);
        let roots = (0..5).map(|i| root(i * EACH));
        let edges = roots.chain(heads).filter(|edge| edge.from != member);
        tallies.add(member, edges.map(|edge| (edge, share(dead(edge, member)))));
    }
}

fn verdict(weights: &[u64], dead: impl Fn(Edge, PeerIndex) -> bool) -> Verdict {
    let mut tallies = Tallies::default();
    told(weights, (1, 0), &mut tallies, dead);
    tallies.verdict(plan(weights).regions(), weights)
}

fn only(relays: &[PeerIndex], heads: &[PeerIndex]) -> Verdict {
    Verdict { relays: relays.into(), heads: heads.into() }
}

/// Whom liars accuse: two roots and four heads of the second region. They credit the others, since
/// who credits nobody accuses nobody.
const fn is_accused(edge: Edge) -> bool {
    matches!((edge.role, edge.from), (Role::Root, 0 | 48) | (Role::Head, 26..30))
}

#[test]
fn who_relays_nothing_is_found_in_both_roles() {
    let weights = [1; 144];
    assert_eq!(verdict(&weights, |_, _| false), only(&[], &[]));
    let silent = |edge: Edge, _| [24, 50].contains(&edge.from);
    assert_eq!(verdict(&weights, silent), only(&[24], &[50]));
}

#[test]
fn a_false_accuser_prunes_nobody_whatever_its_weight() {
    let mut weights = [1; 144];
    weights[30] = 1_000_000;
    let lies = |edge: Edge, member| member == 30 && is_accused(edge);
    assert_eq!(verdict(&weights, lies), only(&[], &[]));
}

#[test]
fn ten_who_collude_in_one_region_prune_nobody() {
    let lies = |edge: Edge, member| (30..40).contains(&member) && is_accused(edge);
    assert_eq!(verdict(&[1; 144], lies), only(&[], &[]));
    // Nor do they where they have nearly all weight of the network.
    let weights: Vec<u64> =
        (0..144).map(|i| if (30..40).contains(&i) { 1_000 } else { 1 }).collect();
    assert_eq!(verdict(&weights, lies), only(&[], &[]));
}

#[test]
fn a_region_whose_majority_lies_chooses_its_own_heads_and_nothing_else() {
    let lies = |edge: Edge, member| (30..43).contains(&member) && is_accused(edge);
    assert_eq!(verdict(&[1; 144], lies), only(&[], &[26, 27, 28, 29]));
}

#[test]
fn two_regions_that_lie_exclude_no_root_and_a_few_of_three_neither() {
    let of = |regions: u32, each: u32| {
        verdict(&[1; 144], move |edge, member| {
            edge == root(0) && member / EACH < regions && member % EACH < each
        })
    };
    assert_eq!(of(2, 24), only(&[], &[]), "a third of all, in two regions");
    assert_eq!(of(3, 10), only(&[], &[]), "less than a third of all, in three");
    assert_eq!(of(3, 20), only(&[0], &[]));
}

#[test]
fn members_without_weight_judge_heads_by_number_and_roots_not_at_all() {
    let weights: Vec<u64> = (0..144).map(|i| u64::from(i % EACH < 8)).collect();
    let lies = |edge: Edge, member| edge == root(0) && weights[member as usize] == 0;
    assert_eq!(verdict(&weights, lies), only(&[], &[]));
    let silent = |edge: Edge, _| edge == head(3) || edge == root(48);
    assert_eq!(verdict(&weights, silent), only(&[48], &[3]));
}

#[test]
fn where_everything_is_lost_nobody_is_accused() {
    assert_eq!(verdict(&[1; 144], |_, _| true), only(&[], &[]));
}

#[test]
fn few_shreds_say_nothing() {
    let weights = [1; 144];
    let mut tallies = Tallies::default();
    let mut one_of_each_region = |place: u32| {
        for member in (0..6).map(|region| region * EACH + place) {
            tallies.begin(TABLE, member, (1, 0));
            tallies.add(member, [(root(0), (0, 2)), (root(24), (16, 20))]);
        }
        tallies.verdict(plan(&weights).regions(), &weights)
    };
    assert_eq!(one_of_each_region(1), only(&[], &[]));
    assert_eq!(one_of_each_region(2), only(&[0], &[]), "together they are enough");
    assert!((tallies.loss().unwrap() - 0.2).abs() < 1e-9, "what says nothing is in no loss");
}

#[test]
fn a_member_to_whom_much_was_to_come_counts_no_more_in_its_region_than_others() {
    let weights = [1; 144];
    let mut tallies = Tallies::default();
    for member in 1..144 {
        tallies.begin(TABLE, member, (1, 0));
        let liar = member % EACH == 1;
        let of_root = if liar { (0, 1_000) } else { (2, 2) };
        tallies.add(member, [(root(0), of_root), (root(24), (10_000, 10_000))]);
    }
    assert_eq!(tallies.verdict(plan(&weights).regions(), &weights), only(&[], &[]));
}

#[test]
fn what_was_long_ago_counts_little_and_what_is_forgotten_nothing() {
    let weights = [1; 144];
    let plan = plan(&weights);
    let mut tallies = Tallies::default();
    let silent = |edge: Edge, _| edge.from == 24;
    (1..4).for_each(|block| told(&weights, (block, 0), &mut tallies, silent));
    assert_eq!(tallies.verdict(plan.regions(), &weights), only(&[24], &[]));
    // It relays again.
    (4..7).for_each(|block| told(&weights, (block, 0), &mut tallies, |_, _| false));
    assert_eq!(tallies.verdict(plan.regions(), &weights), only(&[], &[]));
    (7..14).for_each(|block| told(&weights, (block, 0), &mut tallies, silent));
    assert_eq!(tallies.verdict(plan.regions(), &weights), only(&[24], &[]));
    tallies.forget(24);
    assert_eq!(tallies.verdict(plan.regions(), &weights), only(&[], &[]));
}

#[test]
fn a_member_is_heard_once_a_block_and_of_one_table() {
    let mut tallies = Tallies::default();
    assert!(tallies.begin(TABLE, 3, (0, 0)) && !tallies.begin(TABLE, 3, (0, 0)));
    assert!(tallies.begin(TABLE, 3, (0, 1)) && tallies.begin(TABLE, 3, (5, 0)));
    assert!(!tallies.begin(TABLE, 3, (4, 0)) && tallies.begin(TABLE, 4, (4, 0)));
    tallies.add(3, [(root(0), (1, 1))]);
    assert_eq!(tallies.reporters(), 1);
    assert!(tallies.begin([2; 32], 3, (1, 0)) && tallies.table() == [2; 32]);
    assert_eq!(tallies.reporters(), 0);
}

#[test]
fn edges_are_bounded_and_no_number_overflows() {
    let mut tallies = Tallies::default();
    tallies.begin(TABLE, 1, (1, 0));
    for _ in 0..3 {
        tallies.add(1, (0..MAX_EDGES as u32 + 9).map(|from| (root(from), (u16::MAX, u16::MAX))));
    }
    assert_eq!(tallies.edges.len(), MAX_EDGES);
    assert!(tallies.accuses(1, Share { came: 0, of: u16::MAX }).is_some());
}
