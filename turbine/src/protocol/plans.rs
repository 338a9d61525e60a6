//! The plans of one epoch.
//!
//! Every delegated key has the plan that configuration alone gives, as long as the delegation is
//! known; a leader may send others. A gateway has room for [`MAX_LEARNT`] of those. The key that
//! has most of them makes room, with its lowest version: no leader pushes out another's, nor does
//! a key that the gateway has replaced push out those of its successor, nor an old plan that
//! somebody sends again a newer one. A plan takes 40 bytes a member, and 4 MB for draws once
//! shreds name it.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::Address;

use crate::plan::PlanView;

/// Plans that the leaders of one gateway send.
pub(super) const MAX_LEARNT: usize = 12;

/// Where a plan is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin {
    /// The ed25519 key of its leader.
    leader: [u8; 32],
    /// For a plan that was sent: for which gateway, and its version.
    learnt: Option<(Address, u64)>,
}

/// Plans by id.
#[derive(Debug, Clone, Default)]
pub(super) struct Plans {
    known: BTreeMap<u64, (Origin, Arc<PlanView>)>,
}

impl Plans {
    /// A plan.
    pub(super) fn get(&self, id: u64) -> Option<&Arc<PlanView>> {
        self.known.get(&id).map(|(_, view)| view)
    }

    /// Whether a plan is known, and is one of this leader's.
    pub(super) fn is_of(&self, id: u64, leader: &[u8; 32]) -> bool {
        self.known.get(&id).is_some_and(|(origin, _)| origin.leader == *leader)
    }

    /// Takes the plan that configuration gives for a key.
    pub(super) fn configure(&mut self, leader: [u8; 32], view: Arc<PlanView>) {
        self.known.insert(view.id(), (Origin { leader, learnt: None }, view));
    }

    /// Forgets the configured plans of keys that no delegation names any more.
    pub(super) fn keep_configured(&mut self, is_delegated: impl Fn(&[u8; 32]) -> bool) {
        self.known.retain(|_, (origin, _)| origin.learnt.is_some() || is_delegated(&origin.leader));
    }

    /// Takes a plan that a leader of `gateway` has sent. Says whether there is room for it.
    pub(super) fn learn(
        &mut self,
        gateway: Address,
        leader: [u8; 32],
        version: u64,
        view: Arc<PlanView>,
    ) -> bool {
        let new = view.id();
        if self.known.contains_key(&new) {
            return true;
        }
        let origin = Origin { leader, learnt: Some((gateway, version)) };
        self.known.insert(new, (origin, view));
        let learnt = self.known.iter().filter_map(|(id, (origin, _))| {
            let (of, version) = origin.learnt?;
            (of == gateway).then_some((origin.leader, version, *id))
        });
        let learnt: Vec<([u8; 32], u64, u64)> = learnt.collect();
        if learnt.len() <= MAX_LEARNT {
            return true;
        }
        let mut of_key = BTreeMap::<[u8; 32], usize>::new();
        learnt.iter().for_each(|(leader, ..)| *of_key.entry(*leader).or_default() += 1);
        let most = of_key.values().max().copied().unwrap_or(0);
        let crowded = learnt.iter().filter(|(leader, ..)| of_key[leader] == most);
        // Of equal versions the newcomer goes: nothing says which of them is newer.
        let gone = crowded.min_by_key(|(_, version, id)| (*version, *id != new, *id));
        let gone = gone.map(|(.., id)| *id);
        gone.map(|gone| self.known.remove(&gone));
        gone != Some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [1; 32];
    const NEXT: [u8; 32] = [2; 32];

    fn plan(id: u64) -> Arc<PlanView> {
        Arc::new(PlanView::from_weights(id, &[1, 1]))
    }

    #[test]
    fn a_leader_pushes_out_its_own_plans_and_nobody_elses() {
        let [one, other] = [1, 2].map(Address::with_last_byte);
        let mut plans = Plans::default();
        plans.configure(KEY, plan(0));
        plans.learn(other, [3; 32], 0, plan(1));
        (100..200).for_each(|id| assert!(plans.learn(one, KEY, id, plan(id))));
        plans.learn(one, KEY, 0, plan(0));
        assert!(plans.get(0).is_some() && plans.get(1).is_some());
        let kept: Vec<u64> = (100..200).filter(|id| plans.get(*id).is_some()).collect();
        assert_eq!(kept, (200 - MAX_LEARNT as u64..200).collect::<Vec<u64>>());
        // What is known already takes no place again.
        (0..100).for_each(|_| assert!(plans.learn(one, KEY, 199, plan(199))));
        assert!(plans.get(200 - MAX_LEARNT as u64).is_some());
        plans.learn(other, [3; 32], 0, plan(2));
        assert!(plans.get(1).is_some() && plans.get(2).is_some());
        assert!(plans.is_of(199, &KEY) && !plans.is_of(199, &NEXT) && !plans.is_of(7, &KEY));
    }

    #[test]
    fn neither_a_replaced_key_nor_old_plans_push_out_what_counts() {
        let gateway = Address::with_last_byte(1);
        let mut plans = Plans::default();
        [KEY, NEXT].into_iter().zip([0, 1]).for_each(|(key, id)| plans.configure(key, plan(id)));
        (0..3).for_each(|n| assert!(plans.learn(gateway, NEXT, 7 + n, plan(10 + n))));
        // The old key signs without end, with ever higher versions.
        for id in 100..200 {
            plans.learn(gateway, KEY, id * 1_000, plan(id));
        }
        assert!([0, 1, 10, 11, 12].iter().all(|id| plans.get(*id).is_some()));
        // Somebody sends again what the new key had signed long ago.
        let mut plans = Plans::default();
        (0..MAX_LEARNT as u64).for_each(|n| assert!(plans.learn(gateway, KEY, 100 + n, plan(n))));
        (50..90).for_each(|id| assert!(!plans.learn(gateway, KEY, id, plan(id))));
        assert!((0..MAX_LEARNT as u64).all(|id| plans.get(id).is_some()));
        assert!(!plans.learn(gateway, KEY, 100, plan(200)), "one of the same version");
    }

    #[test]
    fn a_configured_plan_lives_as_long_as_its_delegation() {
        let mut plans = Plans::default();
        plans.configure(KEY, plan(0));
        plans.configure(NEXT, plan(1));
        plans.learn(Address::ZERO, KEY, 1, plan(2));
        plans.keep_configured(|key| *key == NEXT);
        let known = [0, 1, 2].map(|id| plans.get(id).is_some());
        assert_eq!(known, [false, true, true]);
    }
}
