//! What a member tells: the sets that it picks, and what came of them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use fragcast_shredder::{Kind, SetHeader};

use super::book::Known;
use crate::control::{AFTER_MICROS, MAX_RECEIPT_SETS, Receipt, SetReceipt, UNTIMED};
use crate::peer::PeerKey;
use crate::protocol::ctx::Ctx;
use crate::time::Timestamp;

/// Blocks and attempts that are sampled at a time.
const MAX_BLOCKS: usize = 4;
/// A receipt is made so long after the last shred of a block that is over…
const AFTER_BLOCK: Duration = Duration::from_millis(500);
/// …and up to so much later, by the secret: so that not all members send at once.
const SPREAD_MICROS: u64 = 250_000;
/// And so long after the last shred of one that does not end.
const QUIET: Duration = Duration::from_secs(3);

/// A set that was picked.
#[derive(Debug)]
struct Sampled {
    /// The sets with the lowest scores are picked.
    score: u64,
    place: (u16, u16),
    /// By shred: who is to send it.
    parents: Vec<PeerKey>,
    came: u64,
    /// The shred that is timed, and when it came.
    timed: (u8, Option<i32>),
}

impl Sampled {
    fn note(&mut self, now: Timestamp, from: PeerKey, header: &SetHeader, index: u8) {
        if self.parents.get(usize::from(index)) != Some(&from) {
            return;
        }
        let first = self.came >> index & 1 == 0;
        self.came |= 1 << index;
        if first && index == self.timed.0 {
            let micros = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
            let took = micros(now.as_micros()).saturating_sub(micros(header.sent_at_micros));
            let units = took / AFTER_MICROS;
            self.timed.1 = Some(units.clamp(i32::MIN.into(), i32::MAX.into()) as i32);
        }
    }

    fn receipt(&self) -> SetReceipt {
        let (message, set) = self.place;
        let (timed, after) = match self.timed {
            (index, Some(after)) => (index, after),
            (_, None) => (UNTIMED, 0),
        };
        SetReceipt { message, set, came: self.came, timed, after }
    }
}

#[derive(Debug)]
struct Block {
    sets: Vec<Sampled>,
    last: Timestamp,
    sealed: bool,
    spread: Duration,
}

/// The blocks of which a receipt is being made.
#[derive(Debug, Default)]
pub(super) struct Samples {
    secret: Option<[u8; 32]>,
    blocks: BTreeMap<(u64, u8), Block>,
    /// The highest block and attempt that a receipt was made of.
    done: Option<(u64, u8)>,
}

impl Samples {
    pub(super) fn set_secret(&mut self, secret: [u8; 32]) {
        self.secret = Some(secret);
    }

    /// A number that nobody else can know, for a place in a block.
    fn score(secret: &[u8; 32], (block, attempt): (u64, u8), place: [u16; 2]) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(secret);
        hasher.update(&block.to_le_bytes()).update(&[attempt]);
        place.iter().for_each(|part| _ = hasher.update(&part.to_le_bytes()));
        u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes"))
    }

    /// A shred came unasked. With `root`, it was validated and its set may be picked; without, it is
    /// of a set that was here already.
    pub(super) fn note(
        &mut self,
        ctx: &Ctx,
        from: PeerKey,
        header: &SetHeader,
        index: u8,
        root: Option<&[u8; 32]>,
    ) {
        let Some(secret) = self.secret else { return };
        let at = (header.block, header.attempt);
        if self.done.is_some_and(|done| at <= done) {
            return;
        }
        if let Entry::Vacant(place) = self.blocks.entry(at) {
            if root.is_none() {
                return;
            }
            let spread = Self::score(&secret, at, [u16::MAX; 2]) % SPREAD_MICROS;
            let spread = Duration::from_micros(spread);
            place.insert(Block { sets: Vec::new(), last: ctx.now, sealed: false, spread });
            if self.blocks.len() > MAX_BLOCKS {
                self.blocks.pop_first();
            }
        }
        let Some(block) = self.blocks.get_mut(&at) else { return };
        block.last = ctx.now;
        block.sealed |= header.message_kind() == Kind::Seal;
        let place = (header.message, header.set);
        if let Some(set) = block.sets.iter_mut().find(|set| set.place == place) {
            set.note(ctx.now, from, header, index);
            return;
        }
        let Some(root) = root else { return };
        let score = Self::score(&secret, at, [place.0, place.1]);
        if block.sets.len() >= MAX_RECEIPT_SETS {
            let highest = (0..block.sets.len()).max_by_key(|i| block.sets[*i].score);
            match highest {
                Some(highest) if block.sets[highest].score > score => {
                    block.sets.swap_remove(highest);
                }
                _ => return,
            }
        }
        let Some(parents) = parents(ctx, header, root) else { return };
        let timed = ((score >> 32) % parents.len().max(1) as u64) as u8;
        let mut set = Sampled { score, place, parents, came: 0, timed: (timed, None) };
        set.note(ctx.now, from, header, index);
        block.sets.push(set);
    }

    fn due(&self, at: (u64, u8), block: &Block) -> Timestamp {
        let over = block.sealed || self.blocks.keys().next_back().is_some_and(|last| *last > at);
        block.last + block.spread + if over { AFTER_BLOCK } else { QUIET }
    }

    /// When the next receipt is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.blocks.iter().map(|(at, block)| self.due(*at, block)).min()
    }

    /// The receipts that are due, by rising block.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<Receipt> {
        let due = self.blocks.iter().rev().find(|(at, block)| self.due(**at, block) <= now);
        let Some(last) = due.map(|(at, _)| *at) else { return Vec::new() };
        // What is below one that is over is over as well.
        let mut receipts = Vec::new();
        while self.blocks.first_key_value().is_some_and(|(at, _)| *at <= last)
            && let Some(((block, attempt), sampled)) = self.blocks.pop_first()
        {
            let mut sets: Vec<SetReceipt> = sampled.sets.iter().map(Sampled::receipt).collect();
            sets.sort_unstable_by_key(|set| (set.message, set.set));
            if !sets.is_empty() {
                receipts.push(Receipt { block, attempt, sets });
            }
        }
        self.done = Some(last);
        receipts
    }
}

/// Who is to send this node each shred of a set; `None` where that is not known.
fn parents(ctx: &Ctx, header: &SetHeader, root: &[u8; 32]) -> Option<Vec<PeerKey>> {
    let living = ctx.epochs.at(header.block)?;
    let (me, leader) =
        (living.me()?, living.epoch().leader_index_of(header.block, header.attempt)?);
    let paths = Known::of(header, root).paths(living.plans.get(header.plan)?, leader)?;
    let parent = |index| Some(living.key(paths.of(me, index)?.parent().unwrap_or(leader)));
    (0..paths.shards()).map(parent).collect()
}
