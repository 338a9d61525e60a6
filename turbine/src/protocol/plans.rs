//! The plans of one epoch.
//!
//! Every delegated key has the plan that configuration alone gives, as long as the delegation is
//! known; a leader may send others. A gateway has room for [`MAX_LEARNT`] of those. The key that
//! has most of them makes room, with its lowest version: no leader pushes out another's, nor does
//! a key that the gateway has replaced push out those of its successor, nor an old plan that
//! somebody sends again a newer one. A plan takes 44 bytes a member with its frame, which peers may
//! ask for, and 4 MB for draws once shreds name it.
//!
//! A plan under an [exclusion mask](crate::plan::Exclusions) is a plan as well, and takes as much. Of
//! those each key has room for [`MAX_MASKED`], the newest: none takes the place of a plan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::Address;
use bytes::Bytes;

use crate::plan::PlanView;

mod views;

pub(super) use views::Views;

/// Plans that the leaders of one gateway send.
pub(super) const MAX_LEARNT: usize = 12;

/// Plans under a mask that are kept of a key: the newest, and those that blocks under way may name.
pub(super) const MAX_MASKED: usize = 4;

/// How long members have for the connections that a plan asks for, where these follow it: it is not
/// in force before.
pub(super) const CONNECTING: Duration = Duration::from_secs(5);

/// Seconds after which a plan is taken to be in force.
const SETTLES: u64 = 8;

/// Where a plan is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin {
    /// The ed25519 key of its leader.
    leader: [u8; 32],
    /// For a plan that was sent: for which gateway, and its version.
    learnt: Option<(Address, u64)>,
}

/// A plan that is known.
#[derive(Debug, Clone)]
struct Known {
    origin: Origin,
    view: Arc<PlanView>,
    /// The control frame that it came in; empty for one that configuration gives.
    frame: Bytes,
}

/// A plan of a leader's under a mask.
#[derive(Debug, Clone)]
pub(super) struct Masked {
    /// The key of the leader.
    pub(super) leader: [u8; 32],
    /// The mask's.
    pub(super) sequence: u64,
    /// The id of the plan.
    pub(super) base: u64,
    /// The plan under it.
    pub(super) view: Arc<PlanView>,
    /// The control frame of the mask.
    pub(super) frame: Bytes,
}

/// Plans by id.
#[derive(Debug, Clone, Default)]
pub(super) struct Plans {
    known: BTreeMap<u64, Known>,
    masked: Vec<Masked>,
}

impl Plans {
    /// A plan.
    pub(super) fn get(&self, id: u64) -> Option<&Arc<PlanView>> {
        let masked = || self.masked.iter().find(|masked| masked.view.id() == id);
        self.known.get(&id).map(|known| &known.view).or_else(|| masked().map(|of| &of.view))
    }

    /// The control frames that tell a peer of a plan that a leader has sent, in their order: of one
    /// under a mask also that of the plan.
    pub(super) fn frames(&self, id: u64) -> impl Iterator<Item = &Bytes> {
        let masked = self.masked.iter().find(|masked| masked.view.id() == id);
        let plan = self.known.get(&masked.map_or(id, |masked| masked.base));
        let plan = plan.map(|known| &known.frame).filter(|frame| !frame.is_empty());
        plan.into_iter().chain(masked.map(|masked| &masked.frame))
    }

    /// A plan of this leader's that is under no mask.
    pub(super) fn unmasked(&self, id: u64, leader: &[u8; 32]) -> Option<&Arc<PlanView>> {
        let known = self.known.get(&id).filter(|known| known.origin.leader == *leader);
        known.map(|known| &known.view)
    }

    /// Whether a plan of a leader's under a mask with this sequence would be kept, and is news.
    pub(super) fn wants_masked(&self, id: u64, leader: &[u8; 32], sequence: u64) -> bool {
        let of_key = self.masked.iter().filter(|masked| masked.leader == *leader);
        let mut newer = of_key.filter(|masked| masked.sequence >= sequence);
        newer.clone().count() < MAX_MASKED && newer.all(|masked| masked.view.id() != id)
    }

    /// Takes a plan under a mask.
    pub(super) fn learn_masked(&mut self, new: Masked) {
        let leader = new.leader;
        // The same bits again, under a higher sequence, are the same plan.
        self.masked.retain(|of| of.leader != leader || of.view.id() != new.view.id());
        self.masked.push(new);
        let of_key = self.masked.iter().filter(|masked| masked.leader == leader);
        let mut sequences: Vec<u64> = of_key.map(|masked| masked.sequence).collect();
        sequences.sort_unstable_by_key(|sequence| std::cmp::Reverse(*sequence));
        let lowest = sequences.get(MAX_MASKED - 1).copied().unwrap_or(0);
        self.masked.retain(|masked| masked.leader != leader || masked.sequence >= lowest);
    }

    /// The plans of a leader's key that connections are to follow, at `now` in seconds, the more
    /// important first: the newest that it sent, and the one before it for [`SETTLES`], of which
    /// each comes first for as long as it is likely to be in force. The version of a plan is the
    /// second at which it was made; when it takes effect only its leader knows.
    pub(super) fn followed(
        &self,
        leader: &[u8; 32],
        now: u64,
    ) -> impl Iterator<Item = &Arc<PlanView>> {
        let of_key = self.known.values().filter(|known| known.origin.leader == *leader);
        let sent = of_key.filter_map(|known| Some((known.origin.learnt?.1, &known.view)));
        let mut sent: Vec<(u64, &Arc<PlanView>)> = sent.filter(|(_, v)| v.has_roots()).collect();
        sent.sort_unstable_by_key(|(version, view)| std::cmp::Reverse((*version, view.id())));
        let newest = sent.first().map_or(0, |(version, _)| *version);
        sent.truncate(if now < newest.saturating_add(SETTLES) { 2 } else { 1 });
        if now < newest.saturating_add(CONNECTING.as_secs()) {
            sent.reverse();
        }
        sent.into_iter().map(|(_, view)| view)
    }

    /// Whether a plan is known, and is one of this leader's.
    pub(super) fn is_of(&self, id: u64, leader: &[u8; 32]) -> bool {
        let masked = self.masked.iter().any(|of| of.leader == *leader && of.view.id() == id);
        masked || self.known.get(&id).is_some_and(|known| known.origin.leader == *leader)
    }

    /// Takes the plan that configuration gives for a key.
    pub(super) fn configure(&mut self, leader: [u8; 32], view: Arc<PlanView>) {
        let origin = Origin { leader, learnt: None };
        self.known.insert(view.id(), Known { origin, view, frame: Bytes::new() });
    }

    /// Forgets the configured plans of keys that no delegation names any more.
    pub(super) fn keep_configured(&mut self, is_delegated: impl Fn(&[u8; 32]) -> bool) {
        self.known.retain(|_, Known { origin, .. }| {
            origin.learnt.is_some() || is_delegated(&origin.leader)
        });
        self.masked.retain(|masked| is_delegated(&masked.leader));
    }

    /// Takes a plan that a leader of `gateway` has sent, with its frame. Says whether there is room
    /// for it.
    pub(super) fn learn(
        &mut self,
        gateway: Address,
        (leader, version): ([u8; 32], u64),
        view: Arc<PlanView>,
        frame: Bytes,
    ) -> bool {
        let new = view.id();
        if self.known.contains_key(&new) {
            return true;
        }
        let origin = Origin { leader, learnt: Some((gateway, version)) };
        self.known.insert(new, Known { origin, view, frame });
        let learnt = self.known.iter().filter_map(|(id, Known { origin, .. })| {
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

    fn learn(plans: &mut Plans, gateway: Address, key: [u8; 32], version: u64, id: u64) -> bool {
        plans.learn(gateway, (key, version), plan(id), Bytes::from(vec![id as u8]))
    }

    #[test]
    fn a_leader_pushes_out_its_own_plans_and_nobody_elses() {
        let [one, other] = [1, 2].map(Address::with_last_byte);
        let mut plans = Plans::default();
        plans.configure(KEY, plan(0));
        learn(&mut plans, other, [3; 32], 0, 1);
        (100..200).for_each(|id| assert!(learn(&mut plans, one, KEY, id, id)));
        learn(&mut plans, one, KEY, 0, 0);
        assert!(plans.get(0).is_some() && plans.get(1).is_some());
        let kept: Vec<u64> = (100..200).filter(|id| plans.get(*id).is_some()).collect();
        assert_eq!(kept, (200 - MAX_LEARNT as u64..200).collect::<Vec<u64>>());
        // What is known already takes no place again.
        (0..100).for_each(|_| assert!(learn(&mut plans, one, KEY, 199, 199)));
        assert!(plans.get(200 - MAX_LEARNT as u64).is_some());
        learn(&mut plans, other, [3; 32], 0, 2);
        assert!(plans.get(1).is_some() && plans.get(2).is_some());
        assert!(plans.is_of(199, &KEY) && !plans.is_of(199, &NEXT) && !plans.is_of(7, &KEY));
    }

    #[test]
    fn neither_a_replaced_key_nor_old_plans_push_out_what_counts() {
        let gateway = Address::with_last_byte(1);
        let mut plans = Plans::default();
        [KEY, NEXT].into_iter().zip([0, 1]).for_each(|(key, id)| plans.configure(key, plan(id)));
        (0..3).for_each(|n| assert!(learn(&mut plans, gateway, NEXT, 7 + n, 10 + n)));
        // The old key signs without end, with ever higher versions.
        for id in 100..200 {
            learn(&mut plans, gateway, KEY, id * 1_000, id);
        }
        assert!([0, 1, 10, 11, 12].iter().all(|id| plans.get(*id).is_some()));
        // Somebody sends again what the new key had signed long ago.
        let mut plans = Plans::default();
        (0..MAX_LEARNT as u64).for_each(|n| assert!(learn(&mut plans, gateway, KEY, 100 + n, n)));
        (50..90).for_each(|id| assert!(!learn(&mut plans, gateway, KEY, id, id)));
        assert!((0..MAX_LEARNT as u64).all(|id| plans.get(id).is_some()));
        assert!(!learn(&mut plans, gateway, KEY, 100, 200), "one of the same version");
        assert!(
            learn(&mut plans, gateway, KEY, 1_000, 201) && plans.get(0).is_none(),
            "a newer one"
        );
    }

    #[test]
    fn a_configured_plan_lives_as_long_as_its_delegation() {
        let mut plans = Plans::default();
        plans.configure(KEY, plan(0));
        plans.configure(NEXT, plan(1));
        learn(&mut plans, Address::ZERO, KEY, 1, 2);
        let frames = |id| plans.frames(id).cloned().collect::<Vec<Bytes>>();
        assert_eq!(frames(2), [Bytes::from(vec![2])]);
        assert!(frames(0).is_empty() && frames(7).is_empty());
        plans.keep_configured(|key| *key == NEXT);
        let known = [0, 1, 2].map(|id| plans.get(id).is_some());
        assert_eq!(known, [false, true, true]);
    }

    #[test]
    fn plans_under_masks_have_room_of_their_own_and_the_newest_stay() {
        let mut plans = Plans::default();
        plans.configure(KEY, plan(0));
        let masked = |leader, sequence, id: u64| {
            let frame = Bytes::from(vec![id as u8]);
            Masked { leader, sequence, base: 3, view: plan(id), frame }
        };
        learn(&mut plans, Address::ZERO, KEY, 1, 3);
        (1..=6u64).for_each(|n| plans.learn_masked(masked(KEY, n, 100 + n)));
        plans.learn_masked(masked(NEXT, 1, 200));
        let frames: Vec<Bytes> = plans.frames(104).cloned().collect();
        assert_eq!(frames, [vec![3], vec![104]], "the plan, and the mask over it");
        let known: Vec<u64> = (100..=200).filter(|id| plans.get(*id).is_some()).collect();
        assert_eq!(known, [103, 104, 105, 106, 200]);
        assert!(plans.get(0).is_some() && plans.is_of(104, &KEY) && !plans.is_of(104, &NEXT));
        assert!(!plans.wants_masked(9, &KEY, 3) && plans.wants_masked(9, &NEXT, 0));
        assert!(plans.wants_masked(104, &KEY, 7) && !plans.wants_masked(104, &KEY, 4));
        // An old one again takes no other's place.
        plans.learn_masked(masked(KEY, 7, 103));
        assert!([103, 104, 105, 106].iter().all(|id| plans.get(*id).is_some()));
        assert!(plans.unmasked(0, &KEY).is_some() && plans.unmasked(103, &KEY).is_none());
        plans.keep_configured(|key| *key == NEXT);
        assert!(plans.get(103).is_none() && plans.get(200).is_some());
    }
}
