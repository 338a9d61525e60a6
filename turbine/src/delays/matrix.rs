//! The round trips between all members of a table.

use std::sync::Arc;

use super::RttCode;
use super::coordinates::Coordinates;
use super::estimate;
use crate::membership::PeerIndex;

/// Members of a table up to which every pair has a byte: 4 MB. In a larger one a member reports
/// some of its pairs, and coordinates stand for the others.
pub const WHOLE: usize = 2_048;

/// What one member of a large table reports, by rising index.
pub(super) type Row = Arc<[(PeerIndex, RttCode)]>;

#[derive(Debug, Clone, PartialEq)]
enum Pairs {
    /// Row by row, one byte a pair and direction.
    Whole(Vec<RttCode>),
    /// What each member reports, and coordinates for the rest. Rows are shared, so a copy of the
    /// matrix is small.
    Sparse { rows: Vec<Row>, coordinates: Coordinates },
}

/// Round trips between all members of a table, by index.
#[derive(Debug, Clone, PartialEq)]
pub struct DelayMatrix {
    members: usize,
    pairs: Pairs,
    reported: Vec<bool>,
}

impl DelayMatrix {
    /// The matrix of a table in which nothing is known.
    pub fn unknown(members: usize) -> Self {
        match members <= WHOLE {
            true => Self::whole(members),
            false => Self::sparse(members),
        }
    }

    /// The same with a byte for every pair, however many members there are.
    pub fn whole(members: usize) -> Self {
        let pairs = Pairs::Whole(vec![RttCode::UNKNOWN; members * members]);
        Self { members, pairs, reported: vec![false; members] }
    }

    /// The same of a table in which not everybody measures everybody: coordinates stand for the
    /// pairs that nobody measured.
    pub fn sparse(members: usize) -> Self {
        let coordinates = Coordinates::new(members);
        let pairs = Pairs::Sparse { rows: vec![Row::from([]); members], coordinates };
        Self { members, pairs, reported: vec![false; members] }
    }

    /// Number of members.
    pub const fn members(&self) -> usize {
        self.members
    }

    fn at(&self, a: PeerIndex, b: PeerIndex) -> usize {
        assert!((a as usize) < self.members && (b as usize) < self.members, "no members");
        a as usize * self.members + b as usize
    }

    /// Sets the round trip between two members, for both directions, and takes both as reported.
    ///
    /// # Panics
    /// If an index is not that of a member.
    pub fn set(&mut self, a: PeerIndex, b: PeerIndex, code: RttCode) {
        self.reported[a as usize] = true;
        self.reported[b as usize] = true;
        if matches!(self.pairs, Pairs::Whole(_)) {
            return self.set_code(a, b, code);
        }
        for (from, to) in [(a, b), (b, a)] {
            let mut row = self.row(from).to_vec();
            row.retain(|(index, _)| *index != to);
            row.push((to, code));
            row.sort_unstable();
            self.set_row(from, row.into());
        }
    }

    /// Sets what counts for a pair of a small table.
    pub(super) fn set_code(&mut self, a: PeerIndex, b: PeerIndex, code: RttCode) {
        let (there, back) = (self.at(a, b), self.at(b, a));
        if let Pairs::Whole(codes) = &mut self.pairs {
            codes[there] = code;
            codes[back] = code;
        }
    }

    /// Sets what a member of a large table reports.
    pub(super) fn set_row(&mut self, member: PeerIndex, row: Row) {
        if let Pairs::Sparse { rows, .. } = &mut self.pairs {
            rows[member as usize] = row;
        }
    }

    /// What a member of a large table reports.
    pub(super) fn row(&self, member: PeerIndex) -> &[(PeerIndex, RttCode)] {
        match &self.pairs {
            Pairs::Whole(_) => &[],
            Pairs::Sparse { rows, .. } => &rows[member as usize],
        }
    }

    /// The coordinates of a large table.
    pub(super) const fn coordinates(&self) -> Option<&Coordinates> {
        match &self.pairs {
            Pairs::Whole(_) => None,
            Pairs::Sparse { coordinates, .. } => Some(coordinates),
        }
    }

    /// Moves a member's coordinates to where its row says that it is.
    pub(super) fn place(&mut self, member: PeerIndex) {
        if let Pairs::Sparse { rows, coordinates } = &mut self.pairs {
            coordinates.place(member, &rows[member as usize]);
        }
    }

    /// Sets whether others report a member.
    pub(super) fn set_reported(&mut self, member: PeerIndex, reported: bool) {
        self.reported[member as usize] = reported;
    }

    /// Whether others than itself report a member: who is reported by nobody relays nothing.
    ///
    /// # Panics
    /// If the index is not that of a member.
    pub fn reported(&self, member: PeerIndex) -> bool {
        self.reported[member as usize]
    }

    /// The round trip between two members, if somebody measured it.
    ///
    /// # Panics
    /// If an index is not that of a member.
    pub fn measured(&self, a: PeerIndex, b: PeerIndex) -> RttCode {
        let at = self.at(a, b);
        match &self.pairs {
            Pairs::Whole(codes) => codes[at],
            Pairs::Sparse { rows, .. } => {
                let of = |row: &Row, to: PeerIndex| match row.binary_search_by_key(&to, |r| r.0) {
                    Ok(place) => row[place].1,
                    Err(_) => RttCode::UNKNOWN,
                };
                of(&rows[a as usize], b).join(of(&rows[b as usize], a))
            }
        }
    }

    /// The round trip between two members. Of two that did not measure each other, in a table of
    /// more than [`WHOLE`] members, it is what their coordinates say.
    ///
    /// # Panics
    /// If an index is not that of a member.
    pub fn rtt(&self, a: PeerIndex, b: PeerIndex) -> RttCode {
        let measured = self.measured(a, b);
        match &self.pairs {
            Pairs::Sparse { coordinates, .. } if !measured.is_known() && a != b => {
                coordinates.between(a, b)
            }
            _ => measured,
        }
    }

    /// Hands every member's round trips to all, in µs and by index, to `out`: 0 where nothing is
    /// known, and from a member to itself.
    ///
    /// In a sparse matrix a pair that nobody measured has what coordinates say, which are settled for
    /// this, within what the peers allow that both have measured: a detour over one of them is no
    /// shorter than the way, and the difference of the two parts no longer.
    pub(crate) fn rows(&self, mut out: impl FnMut(PeerIndex, &[u32])) {
        let of_code: Vec<u32> =
            (0..=u8::MAX).map(|byte| RttCode::from_byte(byte).micros().unwrap_or(0)).collect();
        let micros = |code: RttCode| of_code[usize::from(code.to_byte())];
        match &self.pairs {
            Pairs::Whole(codes) => {
                let mut row = vec![0; self.members];
                for (member, codes) in (0..).zip(codes.chunks_exact(self.members.max(1))) {
                    row.iter_mut().zip(codes).for_each(|(to, code)| *to = micros(*code));
                    row[member as usize] = 0;
                    out(member, &row);
                }
            }
            Pairs::Sparse { rows, coordinates } => {
                let mut coordinates = coordinates.clone();
                coordinates.settle(rows);
                estimate::rows(&estimate::joined(rows), &coordinates, micros, out);
            }
        }
    }

    /// Half of the round trip between two members in µs, 0 from a member to itself; `None` if
    /// it is not known.
    ///
    /// # Panics
    /// If an index is not that of a member.
    pub fn one_way_micros(&self, a: PeerIndex, b: PeerIndex) -> Option<u32> {
        if a == b { Some(0) } else { self.rtt(a, b).micros().map(|micros| micros / 2) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_has_one_delay_in_both_directions() {
        for members in [3, WHOLE + 1] {
            let mut matrix = DelayMatrix::unknown(members);
            matrix.set(0, 2, RttCode::of_micros(80_000));
            assert_eq!(matrix.rtt(2, 0), matrix.rtt(0, 2));
            let way = matrix.one_way_micros(2, 0).unwrap();
            assert!((39_000..41_000).contains(&way), "{way}");
            assert_eq!((matrix.one_way_micros(1, 1), matrix.one_way_micros(0, 1)), (Some(0), None));
            assert!(matrix.reported(0) && matrix.reported(2) && !matrix.reported(1));
        }
    }

    #[test]
    #[should_panic(expected = "no members")]
    fn an_index_of_no_member_is_the_callers_mistake() {
        DelayMatrix::unknown(3).rtt(0, 3);
    }
}
