//! Exclusion masks of a leader: what receipts say of relays, for how long it holds, and under which
//! mask a block is sent.
//!
//! A relay that receipts show not to relay is excluded for [`FIRST`] blocks, and for twice as long
//! each time that it is found again before it has been good for four times as long as it was
//! excluded, up to [`LONGEST`]. Then it is tried again.
//!
//! A mask goes to everybody when it is made, before any shred that names it, and again with each
//! greeting; the first block that begins [`RIPE`] later is sent under it. It is made only while the
//! leader is connected to relays with nine tenths of the weight: who has not got it cannot relay.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fragcast_shredder::CodeRate;

use super::{Leading, OwnPlan};
use crate::control::Control;
use crate::egress::Lane;
use crate::membership::PeerIndex;
use crate::peer::PeerId;
use crate::plan::{Exclusions, PlanView, Root};
use crate::protocol::ctx::Ctx;
use crate::protocol::epochs::Living;
use crate::protocol::plans::{MAX_MASKED, Masked};
use crate::protocol::receipts::{Receipts, Verdict};
use crate::time::Timestamp;

/// Blocks for which a relay is excluded the first time, and at most.
const FIRST: u64 = 32;
const LONGEST: u64 = 1_024;
/// At most one relay in so many is excluded at a time.
const MOST: usize = 3;
/// The least time between two masks over one plan.
const EVERY: Duration = Duration::from_secs(2);
/// How long a mask has been on its way before it is used.
const RIPE: Duration = Duration::from_millis(500);

/// What a relay was found to do.
#[derive(Debug, Clone, Copy)]
struct Offence {
    /// Only as a head of its region.
    as_head: bool,
    /// The first block in which it is tried again.
    until: u64,
    /// For how many blocks it is, or was last, excluded.
    blocks: u64,
}

/// A mask that was sent.
#[derive(Debug)]
struct Mask {
    /// The plan that it is over.
    base: u64,
    excluded: Excluded,
    view: Arc<PlanView>,
    sent_at: Timestamp,
    frame: Control,
}

/// Relays, and heads, that are excluded, rising.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Excluded {
    relays: Vec<PeerIndex>,
    heads: Vec<PeerIndex>,
}

impl Excluded {
    const fn is_empty(&self) -> bool {
        self.relays.is_empty() && self.heads.is_empty()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Masks {
    /// The table whose members these are.
    table: [u8; 32],
    offences: BTreeMap<PeerIndex, Offence>,
    /// Oldest first.
    sent: Vec<Mask>,
    sequence: u64,
    /// The block that is being sent, and the plan, without a mask and under it.
    chosen: Option<(u64, u64, Arc<PlanView>)>,
}

impl Masks {
    /// Notes what a relay was found to do before `block`. Says whether it is excluded by it.
    fn offend(&mut self, relay: PeerIndex, as_head: bool, block: u64) -> bool {
        let known = self.offences.get(&relay).copied();
        let blocks = match known {
            Some(known) if known.until > block && (as_head || !known.as_head) => return false,
            Some(known) if block < known.until.saturating_add(4 * known.blocks) => {
                (2 * known.blocks).min(LONGEST)
            }
            _ => FIRST,
        };
        let until = block.saturating_add(blocks);
        self.offences.insert(relay, Offence { as_head, until, blocks });
        true
    }

    /// Takes what was found before `block`, but excludes no more relays than `most`. Returns who is
    /// excluded by it, or no head any more.
    fn take(&mut self, found: &Verdict, block: u64, most: usize) -> Vec<PeerIndex> {
        let mut new = Vec::new();
        for relay in &found.relays {
            if self.excluded(block).relays.len() < most && self.offend(*relay, false, block) {
                new.push(*relay);
            }
        }
        new.extend(found.heads.iter().copied().filter(|head| self.offend(*head, true, block)));
        new
    }

    /// Who is excluded in `block`.
    fn excluded(&self, block: u64) -> Excluded {
        let of = |as_head: bool| {
            let active = self.offences.iter();
            let active = active.filter(move |(_, o)| o.until > block && o.as_head == as_head);
            active.map(|(relay, _)| *relay).collect()
        };
        Excluded { relays: of(false), heads: of(true) }
    }

    /// The plan that `block` is sent by, which is `base` or that under a mask: the same for all of
    /// the block.
    pub(super) fn view_at(
        &mut self,
        now: Timestamp,
        base: &Arc<PlanView>,
        block: u64,
    ) -> Arc<PlanView> {
        if let Some((of, plan, view)) = &self.chosen
            && (*of, *plan) == (block, base.id())
        {
            return Arc::clone(view);
        }
        let ripe = |mask: &&Mask| mask.base == base.id() && now.since(mask.sent_at) >= RIPE;
        let mask = self.sent.iter().rev().find(ripe).filter(|_| !self.excluded(block).is_empty());
        let view = Arc::clone(mask.map_or(base, |mask| &mask.view));
        self.chosen = Some((block, base.id(), Arc::clone(&view)));
        view
    }

    /// The masks over plans of one table, or of any, as peers are told of them.
    pub(super) fn frames(&self, table: Option<[u8; 32]>) -> impl Iterator<Item = &Control> {
        let told = table.is_none_or(|table| table == self.table);
        self.sent.iter().filter(move |_| told).map(|mask| &mask.frame)
    }
}

impl Leading {
    /// Takes what receipts say, and sends masks that follow.
    pub(in crate::protocol) fn exclude(&mut self, ctx: &mut Ctx, receipts: &mut Receipts) {
        let block = self.next_block(ctx);
        let Some(living) = ctx.epochs.at(block) else { return };
        let (from_block, table) = (living.epoch().from_block(), living.epoch().members().hash());
        let own = self.plans.iter().find(|plans| plans.from_block == from_block);
        let (Some(own), Some(me)) = (own, living.me()) else { return };
        let masks = &mut self.masks;
        if masks.table != table {
            let sequence = masks.sequence;
            *masks = Masks { table, sequence, ..Masks::default() };
        }
        masks.offences.retain(|_, o| block < o.until.saturating_add(4 * o.blocks));
        let current = &own.current.view;
        if let Some(Verdict { relays, heads }) = receipts.verdict(living, current) {
            self.loss = receipts.loss();
            let most = current.relays().len() / MOST;
            let others = |of: Vec<PeerIndex>| of.into_iter().filter(|relay| *relay != me).collect();
            let found = Verdict { relays: others(relays), heads: others(heads) };
            masks.take(&found, block, most).into_iter().for_each(|relay| receipts.forget(relay));
        }
        let excluded = masks.excluded(block);
        if excluded.is_empty() || !reaches_relays(ctx, living, current) {
            return;
        }
        let plans: Vec<u64> = own.iter().map(|plan| plan.view.id()).collect();
        masks.sent.retain(|mask| plans.contains(&mask.base));
        let plans: Vec<Arc<PlanView>> =
            own.iter().map(|plan: &OwnPlan| plan.view.clone()).collect();
        for base in plans {
            let last = self.masks.sent.iter().rev().find(|mask| mask.base == base.id());
            let is_due = last.is_none_or(|mask| {
                mask.excluded != excluded && ctx.now.since(mask.sent_at) >= EVERY
            });
            if is_due {
                self.send_mask(ctx, table, &base, &excluded);
            }
        }
    }

    fn send_mask(&mut self, ctx: &mut Ctx, table: [u8; 32], base: &PlanView, excluded: &Excluded) {
        let leader = self.key.verifying_key().to_bytes();
        let sequence = ctx.now.as_micros().max(self.masks.sequence + 1);
        let living = ctx.epochs.of_table(table).next();
        let Some(members) = living.map(|living| living.epoch().members().clone()) else { return };
        let of = (ctx.config.chain_id, leader, base.id());
        let relays = (&excluded.relays[..], &excluded.heads[..]);
        let mask = Exclusions::new(of, sequence, members.len(), relays);
        let Ok(view) = mask.apply(base, &members).map(Arc::new) else { return };
        let frame = Control::Exclusions(Box::new(mask.sign(&self.key)));
        for living in ctx.epochs.of_table(table) {
            living.plans.learn_masked(Masked {
                leader,
                sequence,
                base: base.id(),
                view: Arc::clone(&view),
                frame: frame.to_bytes(),
            });
        }
        // Before any shred that names it.
        ctx.send_control_to_all(Lane::Data, &frame, None);
        let masks = &mut self.masks;
        masks.sequence = sequence;
        if masks.sent.len() >= MAX_MASKED {
            masks.sent.remove(0);
        }
        let (base, excluded, sent_at) = (base.id(), excluded.clone(), ctx.now);
        masks.sent.push(Mask { base, excluded, view, sent_at, frame });
    }

    /// Who is excluded in the block that comes next, altogether and as a head.
    pub(in crate::protocol) fn excluded(&self, ctx: &Ctx) -> [Vec<PeerId>; 2] {
        let Excluded { relays, heads } = self.masks.excluded(self.next_block(ctx));
        let mut epochs = ctx.epochs.iter().map(Living::epoch);
        let epoch = epochs.find(|epoch| epoch.members().hash() == self.masks.table);
        let id = |index: &PeerIndex| Some(epoch?.members().get(*index)?.peer());
        [relays, heads].map(|of| of.iter().filter_map(id).collect())
    }

    /// The block after those that this node has sent or seen.
    fn next_block(&self, ctx: &Ctx) -> u64 {
        self.led.max(ctx.window.opened()).map_or(0, |block| block.saturating_add(1))
    }
}

/// How many roots a message has under a mask that had `roots` without: data shreds go over the same
/// ones, but for those that are excluded. Who would take their places is farther away, and a set
/// is complete with the last shred that it needs.
pub(super) fn roots_left(
    base: &PlanView,
    masked: &PlanView,
    leader: PeerIndex,
    roots: u16,
    rate: CodeRate,
) -> u16 {
    let (k, n) = (usize::from(rate.k), usize::from(rate.k) + usize::from(rate.m));
    let of_territory = |pool: &Vec<Root>| {
        let pool = pool.iter().map(|root| root.peer).filter(|root| *root != leader);
        let pool: Vec<_> = pool.take(roots.into()).collect();
        let data = (pool.len() * k).div_ceil(n);
        let stay = |root: &&PeerIndex| masked.relays().binary_search(root).is_ok();
        pool[..data].iter().filter(stay).count() * n / k
    };
    let left = base.regions().roots().iter().map(of_territory).max().unwrap_or(0);
    u16::try_from(left.max(1)).unwrap_or(roots).min(roots)
}

/// Whether this node is connected to relays of a plan with nine tenths of their weight.
fn reaches_relays(ctx: &Ctx, living: &Living, plan: &PlanView) -> bool {
    let (mut all, mut reached) = (0u128, 0u128);
    for (relay, weight) in plan.relays().iter().zip(plan.weights().iter()) {
        let key = living.key(*relay);
        let up = key == ctx.me() || ctx.peers.is_connected(key);
        all += u128::from(weight);
        reached += u128::from(if up { weight } else { 0 });
    }
    10 * reached >= 9 * all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Entry, Plan};

    fn view(id: u64) -> Arc<PlanView> {
        Arc::new(PlanView::from_weights(id, &[1; 4]))
    }

    #[test]
    fn who_offends_again_is_excluded_for_longer_and_who_has_been_good_is_not() {
        let mut masks = Masks::default();
        assert!(masks.offend(1, false, 10) && !masks.offend(1, false, 20), "known");
        assert!(!masks.offend(1, true, 20), "as a relay, so as a head as well");
        assert_eq!(masks.excluded(41).relays, [1]);
        assert!(masks.excluded(42).is_empty(), "it is tried again");
        assert!(masks.offend(1, false, 45));
        assert_eq!(
            (masks.excluded(45 + 63).relays.len(), masks.excluded(45 + 64).relays.len()),
            (1, 0)
        );
        // Four times 64 blocks later.
        assert!(masks.offend(1, false, 45 + 5 * 64));
        assert!(masks.excluded(45 + 5 * 64 + FIRST).is_empty());
        let mut block = 0;
        (0..20).for_each(|_| {
            assert!(masks.offend(2, false, block));
            block = masks.offences[&2].until;
        });
        assert_eq!(masks.offences[&2].blocks, LONGEST);
    }

    #[test]
    fn a_head_that_does_not_relay_at_all_is_excluded_altogether() {
        let mut masks = Masks::default();
        assert!(masks.offend(3, true, 10) && !masks.offend(3, true, 11));
        assert_eq!(masks.excluded(12), Excluded { relays: vec![], heads: vec![3] });
        assert!(masks.offend(3, false, 12));
        assert_eq!(masks.excluded(13), Excluded { relays: vec![3], heads: vec![] });
    }

    #[test]
    fn no_more_are_excluded_than_a_share_and_the_first_stay() {
        let mut masks = Masks::default();
        let found = |relays: &[u32]| Verdict { relays: relays.into(), heads: vec![9] };
        assert_eq!(masks.take(&found(&[4, 5]), 1, 3), [4, 5, 9]);
        assert_eq!(masks.take(&found(&[1, 2, 4]), 2, 3), [1]);
        assert_eq!(masks.excluded(3), Excluded { relays: vec![1, 4, 5], heads: vec![9] });
        assert_eq!(masks.take(&found(&[2]), 40, 3), [2, 9], "when the others are tried again");
    }

    #[test]
    fn under_a_mask_data_goes_over_the_roots_that_are_left() {
        let roots: Vec<u32> = (0..20).map(|peer| Plan::root(peer, 0)).collect();
        let entries = [Entry { relays: true, ..Entry::default() }; 30];
        let entries = entries.iter().map(|entry| entry.to_bits()).chain(roots).collect();
        let members = crate::membership::sample(1, &[1; 30]).0;
        let base =
            PlanView::new(&Plan { entries, ..Plan::configured(1, [1; 32], &members) }, &members);
        let base = base.unwrap();
        let rate = CodeRate { sets: 1, k: 20, m: 10, shard_len: 1_000 };
        let left = |roots, excluded: &[PeerIndex]| {
            let mask = Exclusions::new((1, [1; 32], base.id()), 1, 30, (excluded, &[]));
            roots_left(&base, &mask.apply(&base, &members).unwrap(), 5, roots, rate)
        };
        assert_eq!(left(15, &[]), 15);
        // Data goes over ten: 0 to 10 without 5, who leads.
        assert_eq!(left(15, &[3, 7]), 12, "over eight of them, coding over four more");
        assert_eq!(left(15, &[11, 12, 25]), 15, "only coding, which has others");
        assert_eq!(left(3, &[0, 1]), 1);
    }

    #[test]
    fn a_block_is_sent_under_one_mask_which_has_been_told_for_a_while() {
        let (base, masked, other) = (view(1), view(2), view(7));
        let second = Timestamp::from_nanos(1_000_000_000);
        let mut masks = Masks::default();
        masks.offend(1, false, 10);
        let frame = Control::Listeners(crate::control::Listeners { ids: vec![] });
        let excluded = masks.excluded(11);
        masks.sent.push(Mask { base: 1, excluded, view: masked, sent_at: second, frame });
        let at = |masks: &mut Masks, millis, base, block| {
            masks.view_at(second + Duration::from_millis(millis), base, block).id()
        };
        assert_eq!(at(&mut masks, 499, &base, 11), 1);
        assert_eq!(at(&mut masks, 700, &base, 11), 1, "the block has begun without");
        assert_eq!(at(&mut masks, 700, &base, 12), 2);
        assert_eq!(at(&mut masks, 800, &other, 12), 7, "another plan");
        assert_eq!(at(&mut masks, 900, &base, 41), 2);
        assert_eq!(at(&mut masks, 900, &base, 42), 1, "it has expired");
    }
}
