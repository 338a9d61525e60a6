//! The plans of one epoch.
//!
//! Every delegated key has the plan that configuration alone gives, and a leader may send others.
//! A gateway has room for [`MAX_LEARNT`] learnt plans, of which the oldest goes first: no leader
//! can push out another's. Configured plans always stay. A plan takes 40 bytes a member, and 4 MB
//! for draws once shreds name it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use alloy_primitives::Address;

use crate::delegation;
use crate::plan::PlanView;

/// Learnt plans of one gateway: one for each of its delegations, and four that it sends.
pub(super) const MAX_LEARNT: usize = delegation::MAX_PER_GATEWAY + 4;

/// Plans by id.
#[derive(Debug, Clone, Default)]
pub(super) struct Plans {
    known: BTreeMap<u64, Arc<PlanView>>,
    /// By gateway, the ids of what was learnt, oldest first.
    learnt: BTreeMap<Address, VecDeque<u64>>,
}

impl Plans {
    /// A plan.
    pub(super) fn get(&self, id: u64) -> Option<&Arc<PlanView>> {
        self.known.get(&id)
    }

    /// Takes a plan that configuration gives.
    pub(super) fn configure(&mut self, view: Arc<PlanView>) {
        self.known.insert(view.id(), view);
    }

    /// Takes a plan of a leader of `gateway`.
    pub(super) fn learn(&mut self, gateway: Address, view: Arc<PlanView>) {
        if self.known.contains_key(&view.id()) {
            return;
        }
        let learnt = self.learnt.entry(gateway).or_default();
        if learnt.len() >= MAX_LEARNT
            && let Some(oldest) = learnt.pop_front()
        {
            self.known.remove(&oldest);
        }
        learnt.push_back(view.id());
        self.known.insert(view.id(), view);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(id: u64) -> Arc<PlanView> {
        Arc::new(PlanView::from_weights(id, &[1, 1]))
    }

    #[test]
    fn a_leader_pushes_out_its_own_plans_and_nobody_elses() {
        let [one, other] = [1, 2].map(Address::with_last_byte);
        let mut plans = Plans::default();
        plans.configure(plan(0));
        plans.learn(other, plan(1));
        (100..200).for_each(|id| plans.learn(one, plan(id)));
        plans.learn(one, plan(0));
        assert!(plans.get(0).is_some() && plans.get(1).is_some());
        let kept: Vec<u64> = (100..200).filter(|id| plans.get(*id).is_some()).collect();
        assert_eq!(kept, (200 - MAX_LEARNT as u64..200).collect::<Vec<u64>>());
        // What is known already takes no place again.
        (0..100).for_each(|_| plans.learn(one, plan(199)));
        assert!(plans.get(200 - MAX_LEARNT as u64).is_some());
        plans.learn(other, plan(2));
        assert!(plans.get(1).is_some() && plans.get(2).is_some());
    }
}
