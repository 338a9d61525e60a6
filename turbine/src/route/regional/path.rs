//! The way of a shred to one member of the regional tree.

use super::Regional;
use crate::membership::PeerIndex;
use crate::route::path::Path;

impl Regional<'_> {
    /// The way of shred `index` of the set to `member`.
    pub(in crate::route) fn path(&self, member: PeerIndex, index: u8) -> Path {
        let Self { regions, deal, .. } = self;
        let region = regions.of(member);
        let head = || deal.head(regions, region, index).filter(|head| *head != member);
        match deal.root(regions.territory(member), index) {
            None => Path { root: None, head: head() },
            Some(root) if root == member => Path::default(),
            // A root serves its own region itself.
            Some(root) if regions.of(root) == region => Path { root: Some(root), head: None },
            Some(root) => Path { root: Some(root), head: head() },
        }
    }
}
