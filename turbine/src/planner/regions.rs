//! Members that are near one another: groups that get a shred by one head.
//!
//! Greedy covering: again and again the member with the most members around it that have no region
//! yet takes them all, and what is too large for one head is halved along its longest axis.

use super::delays::{Delays, FAR};
use crate::membership::PeerIndex;

/// A member without relays around it is put into the region of relays nearest to it, if that is
/// not farther than this, in µs; a root sends to it else.
const STRAY: u32 = 20_000;

/// Divides all members into groups of at most `group`, each within `radius` µs of its centre, so
/// far as there are members that `may_relay` in it.
pub(super) fn divide(
    delays: &Delays,
    may_relay: &[bool],
    radius: u32,
    group: usize,
) -> Vec<Vec<PeerIndex>> {
    let mut out = Vec::new();
    for ball in cover(delays, radius) {
        halve(delays, ball, group, &mut out);
    }
    gather(delays, may_relay, group, out)
}

/// A group of fewer than one in so many of the members that a region may have joins others.
const SMALL: usize = 8;
/// Members of a group at least: with fewer beside the leader it would have no heads.
const FEWEST: usize = 4;

/// Divides all members into groups of at most `most`, each with relays and as far as possible not
/// small: for networks where a root is connected to the relays of a group and to nobody else.
pub(super) fn divide_bounded(
    delays: &Delays,
    may_relay: &[bool],
    radius: u32,
    most: usize,
) -> Vec<Vec<PeerIndex>> {
    let mut groups = Vec::new();
    for ball in cover(delays, radius) {
        // What halving lets pass is a tenth more.
        halve(delays, ball, (most * 10 / 11).max(1), &mut groups);
    }
    let stands = |members: &Vec<PeerIndex>| {
        members.len() >= (most / SMALL).max(FEWEST)
            && members.iter().any(|member| may_relay[*member as usize])
    };
    if !groups.iter().any(stands) {
        return gather(delays, may_relay, most, groups);
    }
    join(delays, may_relay, groups, stands, (most, u32::MAX))
}

/// Balls of `radius`, those with the most members first.
fn cover(delays: &Delays, radius: u32) -> Vec<Vec<PeerIndex>> {
    let n = delays.members() as PeerIndex;
    let near = |a: PeerIndex| {
        let row = delays.from(a);
        (0..n).filter(move |b| row.to(*b) <= radius)
    };
    let neighbours: Vec<Vec<PeerIndex>> = (0..n).map(|a| near(a).collect()).collect();
    let mut count: Vec<usize> = neighbours.iter().map(Vec::len).collect();
    let mut free = vec![true; n as usize];
    let mut balls = Vec::new();
    loop {
        let best = (0..n as usize).filter(|a| free[*a]).max_by_key(|a| (count[*a], n as usize - a));
        let Some(best) = best else { return balls };
        let ball: Vec<PeerIndex> =
            neighbours[best].iter().copied().filter(|b| free[*b as usize]).collect();
        for member in &ball {
            free[*member as usize] = false;
            neighbours[*member as usize].iter().for_each(|b| count[*b as usize] -= 1);
        }
        balls.push(ball);
    }
}

/// Halves a ball until its parts have at most `group` members.
fn halve(delays: &Delays, mut ball: Vec<PeerIndex>, group: usize, out: &mut Vec<Vec<PeerIndex>>) {
    // A tenth more costs its head less than another region costs every root.
    if ball.len() <= group + group / 10 {
        ball.sort_unstable();
        out.push(ball);
        return;
    }
    let farthest = |from: PeerIndex| {
        let all = ball.iter().copied();
        all.max_by_key(|to| (delays.micros(from, *to), std::cmp::Reverse(*to))).unwrap_or(from)
    };
    let one = farthest(ball[0]);
    let other = farthest(one);
    let along = |member: &PeerIndex| {
        let (there, back) = (delays.micros(one, *member), delays.micros(other, *member));
        (i64::from(there) - i64::from(back), *member)
    };
    ball.sort_by_key(along);
    // So that the parts are groups of about the same size, and not a full one and a rest.
    let groups = ball.len().div_ceil(group);
    let rest = ball.split_off(ball.len() * (groups / 2) / groups);
    halve(delays, ball, group, out);
    halve(delays, rest, group, out);
}

/// Puts the members of groups without relays into the nearest ones that have some.
fn gather(
    delays: &Delays,
    may_relay: &[bool],
    group: usize,
    groups: Vec<Vec<PeerIndex>>,
) -> Vec<Vec<PeerIndex>> {
    let has_relay =
        |members: &Vec<PeerIndex>| members.iter().any(|member| may_relay[*member as usize]);
    let strays = groups.iter().filter(|members| !has_relay(members)).map(Vec::len).sum::<usize>();
    let with = groups.iter().filter(|members| has_relay(members)).count();
    // A root can send to a few members more. To many it cannot, however far they are.
    let reach = if strays > with.max(group) { FAR } else { STRAY };
    let most = 2 * group.max(delays.members().div_ceil(with.max(1)));
    join(delays, may_relay, groups, has_relay, (most, reach))
}

/// Puts the members of groups that do not stand by themselves into the nearest of those that do, by
/// their relays, as long as these have fewer members than `most` and are no farther than `reach`.
fn join(
    delays: &Delays,
    may_relay: &[bool],
    groups: Vec<Vec<PeerIndex>>,
    stands: impl Fn(&Vec<PeerIndex>) -> bool,
    (most, reach): (usize, u32),
) -> Vec<Vec<PeerIndex>> {
    let (mut with, without): (Vec<_>, Vec<_>) = groups.into_iter().partition(stands);
    let relays: Vec<(usize, PeerIndex)> = with
        .iter()
        .enumerate()
        .flat_map(|(number, members)| members.iter().map(move |member| (number, *member)))
        .filter(|(_, member)| may_relay[*member as usize])
        .collect();
    let strays: Vec<PeerIndex> = without.iter().flatten().copied().collect();
    let mut alone = Vec::new();
    for stray in strays {
        let row = delays.from(stray);
        let open = relays.iter().filter(|(number, _)| with[*number].len() < most);
        let nearest =
            open.min_by_key(|(number, relay)| (row.to(*relay), with[*number].len(), *number));
        match nearest.filter(|(_, relay)| row.to(*relay) <= reach) {
            Some((number, _)) => with[*number].push(stray),
            None => alone.push(vec![stray]),
        }
    }
    with.extend(alone);
    with.iter_mut().for_each(|members| members.sort_unstable());
    with
}
