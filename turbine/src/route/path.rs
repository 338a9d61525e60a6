//! The way of a shred to one member: what a receipt is about.

use super::{Route, Slot, Tree};
use crate::membership::PeerIndex;
use crate::plan::PlanView;

/// The relays between the leader and a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Path {
    /// The one to whom the leader sends.
    pub(crate) root: Option<PeerIndex>,
    /// The one in the member's own region.
    pub(crate) head: Option<PeerIndex>,
}

impl Path {
    /// Who sends the member the shred; `None`: the leader does.
    pub(crate) fn parent(self) -> Option<PeerIndex> {
        self.head.or(self.root)
    }

    /// Hops from the leader to the member.
    pub(crate) fn hops(self) -> u8 {
        1 + u8::from(self.root.is_some()) + u8::from(self.head.is_some())
    }
}

/// The ways of all shreds of a set.
#[derive(Debug)]
pub(crate) struct Paths<'a> {
    tree: Tree<'a>,
    root: [u8; 32],
    slot: Slot,
}

impl<'a> Paths<'a> {
    /// Of the set with `root` and the shape of `slot`, sent by `leader`.
    pub(crate) fn new(
        view: &'a PlanView,
        route: Route,
        leader: PeerIndex,
        root: &[u8; 32],
        slot: Slot,
    ) -> Self {
        Self { tree: Tree::new(view, route, leader, root, slot), root: *root, slot }
    }

    /// Shreds of the set.
    pub(crate) const fn shards(&self) -> u8 {
        self.slot.k.saturating_add(self.slot.m)
    }

    /// The way of shred `index`, which the set has, to a member that is not the leader. `None` on
    /// the route `turbine`: a place in it takes a whole shuffle to find.
    pub(crate) fn of(&self, member: PeerIndex, index: u8) -> Option<Path> {
        match self.tree.route {
            Route::Direct => Some(Path::default()),
            Route::Regional { .. } => {
                self.tree.regional.as_ref().map(|regional| regional.path(member, index))
            }
            Route::Rotor => {
                let (view, leader) = (self.tree.view, self.tree.leader);
                let tree =
                    Tree::new(view, Route::Rotor, leader, &self.root, Slot { index, ..self.slot });
                let relay = (tree.relay_count() > 0).then(|| tree.drawn(1)[0]);
                Some(Path { root: relay.filter(|relay| *relay != member), head: None })
            }
            Route::Turbine { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Entry, Plan};

    /// Nine members in three regions of three, two more in a fourth; member 0 leads.
    fn view() -> PlanView {
        let entry =
            |i: usize| Entry { region: (i / 3) as u16, relays: true, heads: 1, ..Entry::default() };
        let entries: Vec<Entry> = (0..11).map(entry).collect();
        let roots: Vec<u32> = [1, 4, 7].map(|member| Plan::root(member, 0)).into();
        PlanView::from_entries(9, &[1; 11], &entries, &roots).unwrap()
    }

    #[test]
    fn a_path_is_the_way_that_the_tree_sends() {
        let view = view();
        let routes = [Route::Direct, Route::Rotor, Route::Regional { roots: 3 }];
        for (route, leader) in routes.into_iter().flat_map(|route| [(route, 0), (route, 10)]) {
            for set in 0..20u8 {
                let (root, slot) = ([set; 32], Slot { index: 0, k: 4, m: 4 });
                let paths = Paths::new(&view, route, leader, &root, slot);
                for index in 0..paths.shards() {
                    let tree = Tree::new(&view, route, leader, &root, Slot { index, ..slot });
                    for sender in 0..11 {
                        let mut children = Vec::new();
                        tree.children(sender, &mut children);
                        for child in children {
                            let path = paths.of(child, index).unwrap();
                            assert_eq!(path.parent().unwrap_or(leader), sender, "{route:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_way_through_the_tree_of_many_layers_is_not_looked_for() {
        let view = view();
        let route = Route::Turbine { fanout: 2 };
        let paths = Paths::new(&view, route, 0, &[1; 32], Slot { index: 0, k: 4, m: 4 });
        assert_eq!(paths.of(3, 1), None);
    }
}
