//! Round trips of pairs that nobody measured, from coordinates and from the peers that both ends have
//! measured.
//!
//! Coordinates know where everybody is on the whole and err by milliseconds, which is much for two
//! members of one city. Those that have measured the same peer there, such as a relay of their
//! region, are no farther from each other than by way of it.

use super::RttCode;
use super::coordinates::Coordinates;
use super::matrix::Row;
use crate::membership::PeerIndex;

/// What counts for each pair of which at least one end reports something: the same in the rows of
/// both ends, by rising index.
pub(super) fn joined(rows: &[Row]) -> Vec<Vec<(PeerIndex, RttCode)>> {
    let mut from: Vec<Vec<(PeerIndex, RttCode)>> = vec![Vec::new(); rows.len()];
    for (member, row) in (0..).zip(rows) {
        row.iter().for_each(|(to, code)| from[*to as usize].push((member, *code)));
    }
    let join = |(own, others): (&Row, Vec<(PeerIndex, RttCode)>)| {
        let (mut own, mut others) = (own.iter().peekable(), others.into_iter().peekable());
        let mut all = Vec::new();
        loop {
            let next = match (own.peek(), others.peek()) {
                (None, None) => return all,
                (Some((to, _)), None) | (None, Some((to, _))) => *to,
                (Some((a, _)), Some((b, _))) => *a.min(b),
            };
            let code = |found: Option<RttCode>| found.unwrap_or(RttCode::UNKNOWN);
            let there = own.next_if(|(to, _)| *to == next).map(|(_, code)| *code);
            let back = others.next_if(|(to, _)| *to == next).map(|(_, code)| code);
            all.push((next, code(there).join(code(back))));
        }
    };
    rows.iter().zip(from).map(join).collect()
}

/// Hands the round trips of each member to all, in µs, to `out`.
pub(super) fn rows(
    measured: &[Vec<(PeerIndex, RttCode)>],
    coordinates: &Coordinates,
    micros: impl Fn(RttCode) -> u32,
    mut out: impl FnMut(PeerIndex, &[u32]),
) {
    let n = measured.len();
    let (mut row, mut least, mut most) = (vec![0u32; n], vec![0u32; n], vec![u32::MAX; n]);
    for (member, own) in (0..).zip(measured) {
        coordinates.row(member, &mut row);
        least.fill(0);
        most.fill(u32::MAX);
        for (peer, there) in own {
            let there = micros(*there);
            for (other, on) in &measured[*peer as usize] {
                let (other, on) = (*other as usize, micros(*on));
                most[other] = most[other].min(there + on);
                least[other] = least[other].max(there.abs_diff(on));
            }
        }
        for ((way, least), most) in row.iter_mut().zip(&least).zip(&most) {
            *way = if *way == 0 { 0 } else { (*way).max(*least).min(*most) };
        }
        own.iter().for_each(|(peer, code)| row[*peer as usize] = micros(*code));
        row[member as usize] = 0;
        out(member, &row);
    }
}
