//! When a substitute may lead: if nothing was heard of the gateways before it for long enough.
//!
//! The substitute alone judges, by its own clock: whoever receives takes every rank and prefers the
//! lower ones, so who was wrong about the silence has cost others a block that they drop again. Time
//! runs from the Seal of the block before, or where there is none from the last message of ranks up
//! to the one that counts for it (the lowest that has opened it, else the lowest that was heard), and
//! rank r waits r times [`Config::substitute_after`](super::Config::substitute_after). Whoever sends
//! *something* of the block is not silent.
//!
//! A node that knows no block, or is not connected to half of the peers that it should be connected
//! to, the silent leaders aside, cannot tell silence from its own deafness, and leads for nobody.
//!
//! # Bounds
//! [`MAX_BLOCKS`] blocks, 100 bytes each.

use std::collections::BTreeMap;

use fragcast_shredder::{Kind, MessageKey};

use super::connecting;
use super::ctx::Ctx;
use super::leading::BroadcastError;
use crate::peer::PeerKey;
use crate::schedule::MAX_SUBSTITUTES;
use crate::time::Timestamp;

/// Blocks of which it is remembered who was heard: the highest.
const MAX_BLOCKS: usize = 80;

const RANKS: usize = MAX_SUBSTITUTES as usize + 1;

/// What was heard of a block.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    /// By rank: the last message.
    last: [Option<Timestamp>; RANKS],
    /// By rank: whether its Env is here.
    opened: [bool; RANKS],
    /// When the Seal came, of the lowest rank that has opened it.
    sealed: Option<Timestamp>,
}

impl Heard {
    /// The lowest rank that has opened the block.
    fn opened_by(&self) -> Option<u8> {
        (0..).zip(self.opened).find(|(_, opened)| *opened).map(|(rank, _)| rank)
    }

    /// The rank that counts: the lowest that has opened the block, else the lowest that was heard.
    fn counts(&self) -> Option<usize> {
        let opened = self.opened.iter().position(|opened| *opened);
        opened.or_else(|| self.last.iter().position(Option::is_some))
    }

    /// The last message of a rank below `rank`.
    fn last_below(&self, rank: usize) -> Option<Timestamp> {
        self.last[..rank.min(RANKS)].iter().flatten().max().copied()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Substituting {
    blocks: BTreeMap<u64, Heard>,
}

impl Substituting {
    /// A message was taken, or one of this node's own was sent.
    pub(super) fn note(&mut self, ctx: &mut Ctx, key: &MessageKey, kind: Kind) {
        let substitutes = |block| {
            ctx.epochs.at(block).is_some_and(|living| living.epoch().schedule().substitutes() > 0)
        };
        // What ends before a list with substitutes begins counts for its first block.
        if !substitutes(key.block) && !substitutes(key.block.saturating_add(1)) {
            return;
        }
        let rank = ctx.rank(key);
        let heard = self.blocks.entry(key.block).or_default();
        let before = heard.opened_by();
        heard.last[usize::from(rank)] = Some(ctx.now);
        match kind {
            Kind::Env => {
                let is_new = !std::mem::replace(&mut heard.opened[usize::from(rank)], true);
                ctx.counters.substituted += u64::from(is_new && rank > 0);
                if before.is_some_and(|before| rank < before) {
                    heard.sealed = None;
                }
            }
            Kind::Seal if before.is_none_or(|before| rank <= before) => {
                heard.sealed.get_or_insert(ctx.now);
            }
            Kind::Frag | Kind::Seal => {}
        }
        while self.blocks.len() > MAX_BLOCKS {
            self.blocks.pop_first();
        }
    }

    /// The chain stands elsewhere: of blocks above `high` nothing was heard.
    pub(super) fn forget_above(&mut self, high: u64) {
        self.blocks.retain(|block, _| *block <= high);
    }

    /// Whether this node may send a message of its own.
    ///
    /// # Errors
    /// [`BroadcastError::NotDue`], [`BroadcastError::Overtaken`].
    pub(super) fn may_send(
        &self,
        ctx: &Ctx,
        key: &MessageKey,
        kind: Kind,
    ) -> Result<(), BroadcastError> {
        let rank = ctx.rank(key);
        match kind {
            Kind::Env => self.may_open(ctx, key.block, rank),
            Kind::Frag | Kind::Seal => self.leads_still(key.block, rank),
        }
    }

    /// Whether nobody of a lower rank has opened a block.
    fn leads_still(&self, block: u64, rank: u8) -> Result<(), BroadcastError> {
        let opened_by = self.blocks.get(&block).and_then(Heard::opened_by);
        match opened_by.filter(|lower| *lower < rank) {
            Some(lower) => Err(BroadcastError::Overtaken { block, rank: lower }),
            None => Ok(()),
        }
    }

    /// Whether this node may open a block by its rank, which is always so of the scheduled gateway's.
    ///
    /// # Errors
    /// [`BroadcastError::NotDue`], [`BroadcastError::Overtaken`].
    pub(super) fn may_open(&self, ctx: &Ctx, block: u64, rank: u8) -> Result<(), BroadcastError> {
        if rank == 0 {
            return Ok(());
        }
        self.leads_still(block, rank)?;
        let not_due = |wait| BroadcastError::NotDue { block, rank, wait };
        let (number, before) = self.blocks.range(..block).next_back().ok_or(not_due(None))?;
        if !hears(ctx, block, rank) {
            return Err(not_due(None));
        }
        let sealed = before.sealed.filter(|_| number.checked_add(1) == Some(block));
        // What higher ranks send of a block that is not theirs makes nobody less silent.
        let silent = sealed.or_else(|| before.last_below(before.counts()? + 1));
        let begun = self.blocks.get(&block).and_then(|heard| heard.last_below(rank.into()));
        let since = silent.max(begun).ok_or(not_due(None))?;
        let due = since + ctx.config.substitute_after * u32::from(rank);
        match ctx.now < due {
            true => Err(not_due(Some(due.since(ctx.now)))),
            false => Ok(()),
        }
    }
}

/// Whether this node hears so many others that a silence says something: half of those that it is to
/// be connected to, the leaders of lower ranks aside.
fn hears(ctx: &Ctx, block: u64, rank: u8) -> bool {
    let Some(living) = ctx.epochs.at(block) else { return false };
    let epoch = living.epoch();
    let lower = epoch.schedule().ranked(block).take_while(|(other, _)| *other < rank);
    let lower = lower.filter_map(|(_, gateway)| {
        let leader = epoch.delegations().leader(&gateway, block)?;
        ctx.peers.table().key(&leader.peer)
    });
    let silent: Vec<PeerKey> = lower.collect();
    let others = |peer: &PeerKey| *peer != ctx.me() && !silent.contains(peer);
    let wanted: Vec<PeerKey> = match connecting::wanted(ctx) {
        Some(wanted) => wanted.into_iter().filter(others).collect(),
        None => (0..living.members() as u32).map(|at| living.key(at)).filter(others).collect(),
    };
    let heard = wanted.iter().filter(|peer| ctx.peers.is_connected(**peer)).count();
    2 * heard >= wanted.len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::config::Config;
    use crate::protocol::ctx::testing::ctx;
    use crate::protocol::tests::{CHAIN, World, peer};

    /// A context of member 2 of six, with four gateways and two substitutes: blocks 1 to 9 are
    /// gateway 0's, and member 2 is their second substitute.
    fn second() -> Ctx {
        let mut world = World::new(&[1; 6], 4);
        world.schedule = world.schedule.with_substitutes(2).unwrap();
        let mut config = Config::new(CHAIN);
        config.substitute_after = Duration::from_secs(1);
        ctx(&world, 2, config)
    }

    const fn key(block: u64, attempt: u8) -> MessageKey {
        MessageKey { block, attempt, message: 0 }
    }

    fn wait(result: Result<(), BroadcastError>) -> Option<u64> {
        match result {
            Ok(()) => Some(0),
            Err(BroadcastError::NotDue { block: 5, rank: 2, wait }) => {
                wait.map(|wait| wait.as_millis() as u64)
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_substitute_waits_by_its_rank_from_the_seal_before() {
        let (mut ctx, mut substituting) = (second(), Substituting::default());
        let start = ctx.now;
        let at = |ctx: &mut Ctx, millis| ctx.now = start + Duration::from_millis(millis);
        assert_eq!(substituting.may_open(&ctx, 5, 0), Ok(()), "the scheduled one at any time");
        assert_eq!(wait(substituting.may_open(&ctx, 5, 2)), None, "nothing is known");
        substituting.note(&mut ctx, &key(4, 4), Kind::Env);
        at(&mut ctx, 300);
        substituting.note(&mut ctx, &key(4, 4), Kind::Seal);
        assert_eq!(wait(substituting.may_open(&ctx, 5, 2)), Some(2_000));
        at(&mut ctx, 1_000);
        assert_eq!(wait(substituting.may_open(&ctx, 5, 2)), Some(1_300));
        // A frag of the first substitute's: who sends is not silent.
        substituting.note(&mut ctx, &key(5, 2), Kind::Frag);
        assert_eq!(wait(substituting.may_open(&ctx, 5, 2)), Some(2_000));
        // What comes late of the block before, once it is sealed, changes nothing.
        substituting.note(&mut ctx, &key(4, 4), Kind::Frag);
        at(&mut ctx, 3_000);
        assert_eq!(wait(substituting.may_open(&ctx, 5, 2)), Some(0));
        // Most of the others are gone, so it is this node that hears nothing.
        [0, 1, 3].iter().for_each(|gone| ctx.peers.disconnect(peer(*gone)));
        assert_eq!(wait(substituting.may_open(&ctx, 5, 2)), Some(0), "two of 3, 4 and 5 are here");
        ctx.peers.disconnect(peer(4));
        assert_eq!(wait(substituting.may_open(&ctx, 5, 2)), None);
    }

    #[test]
    fn what_higher_ranks_send_of_the_block_before_does_not_shift_the_time() {
        let (mut ctx, mut substituting) = (second(), Substituting::default());
        let start = ctx.now;
        let at = |ctx: &mut Ctx, millis| ctx.now = start + Duration::from_millis(millis);
        // Rank 1 has opened and sealed block 4, and then rank 0 opens it, and falls silent.
        substituting.note(&mut ctx, &key(4, 2), Kind::Env);
        substituting.note(&mut ctx, &key(4, 2), Kind::Seal);
        at(&mut ctx, 100);
        substituting.note(&mut ctx, &key(4, 4), Kind::Env);
        at(&mut ctx, 1_000);
        for (attempt, kind) in [(2, Kind::Frag), (2, Kind::Seal), (0, Kind::Env), (0, Kind::Seal)] {
            substituting.note(&mut ctx, &key(4, attempt), kind);
        }
        assert_eq!(wait(substituting.may_open(&ctx, 5, 2)), Some(1_100));
        substituting.note(&mut ctx, &key(4, 4), Kind::Frag);
        assert_eq!(wait(substituting.may_open(&ctx, 5, 2)), Some(2_000));
        // Where nobody has opened it the lowest that was heard counts.
        let mut substituting = Substituting::default();
        substituting.note(&mut ctx, &key(4, 2), Kind::Frag);
        at(&mut ctx, 1_500);
        substituting.note(&mut ctx, &key(4, 0), Kind::Frag);
        assert_eq!(wait(substituting.may_open(&ctx, 5, 2)), Some(1_500));
    }

    #[test]
    fn where_the_chain_stands_elsewhere_what_was_heard_above_is_forgotten() {
        let (mut ctx, mut substituting) = (second(), Substituting::default());
        for block in [4, 5, 900] {
            substituting.note(&mut ctx, &key(block, 4), Kind::Env);
        }
        substituting.forget_above(4);
        assert_eq!(substituting.blocks.keys().copied().collect::<Vec<_>>(), [4]);
        ctx.now = ctx.now + Duration::from_secs(2);
        assert_eq!(wait(substituting.may_open(&ctx, 5, 2)), Some(0), "5 was another chain's");
    }

    #[test]
    fn who_is_overtaken_stops() {
        let (mut ctx, mut substituting) = (second(), Substituting::default());
        substituting.note(&mut ctx, &key(4, 4), Kind::Frag);
        ctx.now = ctx.now + Duration::from_secs(2);
        let (env, frag) = (key(5, 0), Kind::Frag);
        assert_eq!(substituting.may_send(&ctx, &env, Kind::Env), Ok(()));
        substituting.note(&mut ctx, &env, Kind::Env);
        assert_eq!(substituting.may_send(&ctx, &env, frag), Ok(()));
        for (attempt, rank) in [(3, 1), (7, 0)] {
            substituting.note(&mut ctx, &key(5, attempt), Kind::Env);
            let overtaken = Err(BroadcastError::Overtaken { block: 5, rank });
            assert_eq!(substituting.may_send(&ctx, &env, frag), overtaken);
            assert_eq!(substituting.may_send(&ctx, &env, Kind::Env), overtaken);
        }
        assert_eq!(substituting.may_send(&ctx, &key(5, 7), frag), Ok(()));
        assert_eq!(ctx.counters.substituted, 2, "those of ranks 2 and 1");
        (0..200).for_each(|block| substituting.note(&mut ctx, &key(block, 4), Kind::Env));
        assert_eq!(substituting.blocks.len(), MAX_BLOCKS);
    }
}
