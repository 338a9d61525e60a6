//! The delays of a matrix, in µs and one way, as planning uses them.

use crate::delays::DelayMatrix;
use crate::membership::PeerIndex;

/// What a pair is taken for that nobody measured, in µs: farther than any two places are.
pub(super) const FAR: u32 = 250_000;

/// µs of a unit in which delays are kept: two bytes reach 650 ms.
const UNIT: u32 = 10;

/// The delays from one member to all.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a>(&'a [u16]);

impl<'a> Row<'a> {
    /// To a member, in µs.
    pub fn to(self, member: PeerIndex) -> u32 {
        u32::from(self.0[member as usize]) * UNIT
    }

    /// To all members, in µs.
    pub fn iter(self) -> impl Iterator<Item = u32> + use<'a> {
        self.0.iter().map(|units| u32::from(*units) * UNIT)
    }
}

/// One-way delays between all members. Two bytes a pair: 200 MB for 10,000 members, while planning.
#[derive(Debug)]
pub struct Delays {
    members: usize,
    units: Vec<u16>,
    /// Members of whom at least one pair is known, and whom others report.
    known: Vec<bool>,
}

impl Delays {
    /// The delays of a matrix.
    pub fn new(matrix: &DelayMatrix) -> Self {
        let n = matrix.members();
        let units = |micros: u32| u16::try_from(micros / UNIT).unwrap_or(u16::MAX);
        let mut all = Vec::with_capacity(n * n);
        let mut known = vec![false; n];
        matrix.rows(|a, row| {
            let way = |(b, rtt): (PeerIndex, &u32)| match *rtt {
                _ if a == b => 0,
                0 => units(FAR),
                rtt => units(rtt / 2),
            };
            all.extend((0..).zip(row).map(way));
            known[a as usize] = row.iter().any(|rtt| *rtt > 0) && matrix.reported(a);
        });
        Self { members: n, units: all, known }
    }

    /// Number of members.
    pub const fn members(&self) -> usize {
        self.members
    }

    /// From one member to another.
    pub fn micros(&self, from: PeerIndex, to: PeerIndex) -> u32 {
        u32::from(self.units[from as usize * self.members + to as usize]) * UNIT
    }

    /// From a member to all.
    pub fn from(&self, member: PeerIndex) -> Row<'_> {
        Row(&self.units[member as usize * self.members..][..self.members])
    }

    /// Whether others have measured the way to this member: what it says of itself makes it no relay.
    pub fn is_known(&self, member: PeerIndex) -> bool {
        self.known[member as usize]
    }

    /// The mean delay from a member to others, in µs.
    pub fn mean(&self, from: PeerIndex, to: &[PeerIndex]) -> f64 {
        let row = self.from(from);
        let sum: u64 = to.iter().map(|to| u64::from(row.to(*to))).sum();
        sum as f64 / to.len().max(1) as f64
    }
}
