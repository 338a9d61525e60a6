//! How the newest message spreads: the tree of its first set, for whoever wants to see it.

use std::sync::Arc;

use fragcast_shredder::{MessageKey, SetHeader};

use super::ctx::Ctx;
use crate::membership::{Membership, PeerIndex};
use crate::plan::PlanView;
use crate::route::{Route, Slot, Tree};

/// Blocks by which the newest message may be ahead of one that comes: more, and the window was moved.
const FAR: u64 = 64;

/// The first set of the newest message of which a shred is here.
#[derive(Debug, Default)]
pub(super) struct Newest(Option<(SetHeader, [u8; 32])>);

impl Newest {
    /// A set is new here, or this node's own.
    pub(super) fn note(&mut self, header: &SetHeader, root: &[u8; 32]) {
        let key = header.message_key();
        let is_newer = self.0.as_ref().is_none_or(|(known, _)| {
            let known = known.message_key();
            key > known || key.block.saturating_add(FAR) < known.block
        });
        if is_newer {
            self.0 = Some((*header, *root));
        }
    }

    /// What its tree is drawn from; `None` while its plan or route is not known.
    pub(super) fn spread(&self, ctx: &Ctx) -> Option<Spread> {
        let (header, root) = self.0.as_ref()?;
        let living = ctx.epochs.at(header.block)?;
        Some(Spread {
            key: header.message_key(),
            route: Route::from_wire(header.route, header.route_param)?,
            leader: living.epoch().leader_index_of(header.block, header.attempt)?,
            members: Arc::clone(living.epoch().members()),
            plan: Arc::clone(living.plans.get(header.plan)?),
            root: *root,
            slot: Slot::new(header, 0),
        })
    }
}

/// What the tree of a message's first shred is drawn from.
#[derive(Debug, Clone)]
pub struct Spread {
    /// The message.
    pub key: MessageKey,
    /// Its route.
    pub route: Route,
    /// Its leader.
    pub leader: PeerIndex,
    members: Arc<Membership>,
    plan: Arc<PlanView>,
    root: [u8; 32],
    slot: Slot,
}

impl Spread {
    /// The table that it is drawn over.
    pub const fn members(&self) -> &Arc<Membership> {
        &self.members
    }

    /// The id of the plan.
    pub fn plan_id(&self) -> u64 {
        self.plan.id()
    }

    /// The region of a member in the plan.
    pub fn region(&self, member: PeerIndex) -> u16 {
        self.plan.regions().of(member)
    }

    /// From whom each member is to get the shred, in the order of the table: nobody for the leader
    /// and for whom the tree does not reach. It takes time of the order of the number of members
    /// squared.
    pub fn parents(&self) -> Vec<Option<PeerIndex>> {
        let tree = Tree::new(&self.plan, self.route, self.leader, &self.root, self.slot);
        let mut parents = vec![None; self.members.len()];
        let (mut todo, mut children) = (vec![self.leader], Vec::new());
        while let Some(sender) = todo.pop() {
            children.clear();
            tree.children(sender, &mut children);
            for child in children.drain(..).filter(|child| *child != self.leader) {
                let Some(parent) = parents.get_mut(child as usize) else { continue };
                if parent.is_none() {
                    *parent = Some(sender);
                    todo.push(child);
                }
            }
        }
        parents
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::config::Config;
    use crate::protocol::ctx::testing::ctx;
    use crate::protocol::tests::{CHAIN, World, cut, frag};

    /// The first set of a message of `block`.
    fn set(world: &World, block: u64) -> (SetHeader, [u8; 32]) {
        let cut = cut(world, &world.sign(frag(block, 0, 2_000)), 0);
        (cut.sets[0].header, cut.sets[0].root)
    }

    #[test]
    fn every_member_has_one_parent_and_a_way_from_the_leader() {
        let world = World::new(&[1; 6], 1);
        let ctx = ctx(&world, 3, Config::new(CHAIN));
        let mut newest = Newest::default();
        assert!(newest.spread(&ctx).is_none());
        let (header, root) = set(&world, 1);
        newest.note(&header, &root);
        let spread = newest.spread(&ctx).unwrap();
        assert_eq!((spread.leader, spread.key), (0, header.message_key()));
        let parents = spread.parents();
        assert_eq!((parents.len(), parents[0]), (6, None));
        for mut at in 1..6 {
            let mut hops = 0;
            while at != spread.leader {
                at = parents[at as usize].unwrap();
                hops += 1;
                assert!(hops < 6, "a circle");
            }
        }
    }

    #[test]
    fn the_tree_of_a_substitutes_message_begins_with_the_substitute() {
        let mut world = World::new(&[1; 6], 4);
        world.schedule = world.schedule.with_substitutes(1).unwrap();
        let ctx = ctx(&world, 3, Config::new(CHAIN));
        let mut newest = Newest::default();
        // Attempts 0 and 1 are the substitute's.
        for (attempt, leader) in [(0, 1), (1, 1), (2, 0)] {
            let (header, root) = set(&world, 1);
            newest.note(&SetHeader { attempt, ..header }, &root);
            let spread = newest.spread(&ctx).unwrap();
            assert_eq!((spread.leader, spread.key.attempt), (leader, attempt));
            let alone = (0..).zip(spread.parents()).filter(|(_, parent)| parent.is_none());
            assert_eq!(alone.map(|(at, _)| at).collect::<Vec<PeerIndex>>(), [leader]);
        }
    }

    #[test]
    fn an_older_message_does_not_replace_a_newer_one_unless_the_window_has_moved() {
        let world = World::new(&[1; 6], 1);
        let mut newest = Newest::default();
        let note = |newest: &mut Newest, block| {
            let (header, root) = set(&world, 1);
            newest.note(&SetHeader { block, ..header }, &root);
            newest.0.unwrap().0.block
        };
        assert_eq!([5, 4, 6, 1].map(|block| note(&mut newest, block)), [5, 5, 6, 6]);
        assert_eq!([500, 20].map(|block| note(&mut newest, block)), [500, 20]);
    }
}
