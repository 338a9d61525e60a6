//! Puts verified messages in order: Env, the frags by `seq`, the Seal. Pure.
//!
//! Several blocks may be open at once, and each has its own order; early messages wait. A leader
//! may open a block again; the newest opening counts, and messages of another that were handed on
//! are retracted.
//!
//! ```text
//! push ─▶ candidates: what is known of each place, by root
//!           ├─▶ openings: which Env counts, which attempt it is
//!           └─▶ block: which messages are its own ─▶ search: the Seal decides
//!                 └─▶ Message, Retracted
//! ```
//!
//! The overlay's shreds are signed with the attempt, so there nothing is to decide. Over gossip
//! frags and Seals name no Env, and arrive in any order; `attempt` is a guess there, and not
//! looked at. A message that came both ways, either first, is one message, known by its root.
//!
//! # What belongs to an opening
//! 1. What the overlay says is of its attempt, always.
//! 2. Else, of what only gossip has brought: if the block was opened once, the first; if it may
//!    have been opened before, the latest after the Env.
//! 3. Anything, if there is more than one choice and the transactions root of the opening's
//!    Seal says so. Where there is one choice nothing is checked here: the executor checks all.
//!
//! A message that was handed on and turns out to be another opening's is taken back, and the
//! block handed on again.
//!
//! # Numbers
//! What is handed on is numbered by the sequencer: max(the leader's attempt, the number used last
//! plus one). So numbers rise, each stands for one opening and one choice of messages, and
//! without doubts about gossip they are the leader's. An opening is *not* handed on again merely
//! because the overlay numbers it otherwise than was presumed, higher or lower: its messages are
//! the same, consumers only need numbers that rise, and a higher number of ours that the leader
//! never used hurts nobody. `bad_parity` takes the leader's number.
//!
//! # What cannot be known
//! Over gossip alone, a Seal that came before an Env belongs to a block that is now opened again:
//! the Env takes over. If gossip had swapped the two, the Env is an old one, and the block stays
//! wrong until the overlay tells, or the executor finds that there is no Seal. Two openings with
//! parent hash and gas limit in common cannot be told apart by a Seal; the later Env counts.
//!
//! # Substitutes
//! Where the next registered gateways may lead as well ([`Sequencer::new`]), the lowest rank that
//! has opened a block counts, and messages of others do not belong to its opening, whichever way they
//! came. Of content that two have signed, as Envs are likely to be, the lower rank is taken to be the
//! sender. Both have room of their own for what gossip alone has brought.
//!
//! # Bounds
//! [`MAX_BLOCKS`] blocks of [`MAX_MESSAGES`] messages, about 250 bytes each for what is
//! remembered of them (1 MiB for the worst block, 2 kB for a usual one); [`MAX_WAITING`] bytes of
//! messages that wait for an earlier one, the farthest future is dropped first; [`MAX_KEPT`] bytes
//! of messages that were handed on and may be again, the oldest block is let go first, and one that
//! is complete as the overlay says at once. Of both a gateway has half before others make room for
//! it, and who has an eighth or less makes none for those who have more. Of one place at
//! most 4 messages and of one block 8 Envs of one gateway that gossip alone has brought, and an eighth
//! of a block's messages are of each substitute. What waits of others than the gateway that a block
//! counts for, which are those of higher ranks, makes room before all else. A block is handed on at
//! most 32 times: for the later of two frags of gossip's only while the number is below 8, from
//! there on gossip's frags need a Seal that proves them, and from 16 on the overlay alone counts. 64 choices are tried for a Seal.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::Address;
use fragcast_shredder::MessageKey;
use strum::{IntoStaticStr, VariantArray};

use crate::counts::labelled;
use crate::output::{Delivered, Output, RetractReason};
use block::Block;
use candidates::Held;

mod block;
mod candidates;
mod openings;
mod search;

/// Blocks that are remembered: the protocol's window with room to spare.
pub const MAX_BLOCKS: usize = 128;
/// Bytes of messages that wait for an earlier one.
pub const MAX_WAITING: usize = 64 * 1024 * 1024;
/// Bytes of messages that were handed on, and are kept since they may have to be once more.
pub const MAX_KEPT: usize = 64 * 1024 * 1024;
/// Messages that are remembered of a block, all attempts together: ten minutes of frags.
pub const MAX_MESSAGES: usize = 4096;
/// Of these, what one substitute has sent.
const MAX_SUBSTITUTED: usize = MAX_MESSAGES / 8;
/// Blocks that are handed on again at a time.
const MAX_REPEATED: usize = 64;
/// Numbers that the leader has for the attempts of a block.
const MAX_ATTEMPTS: u8 = 8;
/// Numbers that are used for what only gossip says: as many again, for Envs that gossip alone
/// brought and for what Seals correct.
const MAX_GUESSED: u8 = 2 * MAX_ATTEMPTS;
/// Numbers that the sequencer has: from [`MAX_GUESSED`] on, each of the leader's attempts needs
/// two at most, one for its Env and one if a Seal had proven a frag that the overlay contradicts.
const MAX_NUMBERS: u8 = 4 * MAX_ATTEMPTS;

/// The outcome of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Fate {
    /// Handed on, perhaps with others that waited for it.
    Passed,
    /// Waits for an earlier one.
    Waiting,
    /// The same message again, whatever its `v`.
    Duplicate,
    /// Another message has its place.
    Conflict,
    /// It belongs to an attempt that was superseded or is void.
    Stale,
    /// Behind the end that the Seal gives the block.
    BehindSeal,
    /// It belongs to a block that is forgotten, or too far ahead for the memory.
    OutOfBounds,
}

labelled!(pub Fate, label);

/// The sequencer.
#[derive(Debug, Default)]
pub struct Sequencer {
    blocks: BTreeMap<u64, Block>,
    held: Held,
    /// Blocks that are handed on again: the leader's attempt, and as which.
    repeated: BTreeMap<u64, (u8, u8)>,
    opened: Option<u64>,
    sealed: Option<u64>,
    substitutes: u8,
}

impl Sequencer {
    /// For a network with so many [substitutes](crate::Schedule::with_substitutes).
    pub fn new(substitutes: u8) -> Self {
        Self { substitutes, ..Self::default() }
    }

    /// The newest block whose Env was handed on.
    pub const fn opened(&self) -> Option<u64> {
        self.opened
    }

    /// The newest block whose Seal was handed on.
    pub const fn sealed(&self) -> Option<u64> {
        self.sealed
    }

    /// Bytes that wait.
    pub const fn waiting(&self) -> usize {
        self.held.waiting
    }

    /// Bytes that were handed on and are kept.
    pub const fn kept(&self) -> usize {
        self.held.kept
    }

    /// Takes a message and appends to `out` what can be handed on.
    pub fn push(&mut self, delivered: Arc<Delivered>, out: &mut Vec<Output>) -> Fate {
        let number = delivered.key.block;
        if !self.admit(number) {
            return Fate::OutOfBounds;
        }
        let (gateway, lead) = (delivered.message.gateway(), delivered.rank);
        let new = || Block::new(number, gateway, lead, self.substitutes);
        self.blocks.entry(number).or_insert_with(new);
        let fate = self.with(number, |block| {
            let fate = block.push(delivered, out);
            (fate, block.is_opened(), block.is_sealed())
        });
        let Some((fate, opened, sealed)) = fate else { return Fate::OutOfBounds };
        if opened {
            self.opened = self.opened.max(Some(number));
        }
        if sealed {
            self.sealed = self.sealed.max(Some(number));
        }
        let dropped = self.shrink((number, lead));
        if dropped && fate == Fate::Waiting { Fate::OutOfBounds } else { fate }
    }

    /// A message that was handed on before, or was to be, for a consumer that has lost it: under the
    /// number that its block has now. To be asked for all messages of a block in order from its Env
    /// on; `None` for one that does not count, since another has its place.
    pub fn again(&mut self, delivered: Arc<Delivered>) -> Option<Output> {
        let MessageKey { block, attempt, message } = delivered.key;
        let known = self.blocks.get(&block);
        let number = known.map_or(Some(attempt), |block| block.number_of(&delivered));
        if let (0, Some(number)) = (message, number) {
            self.repeated.insert(block, (attempt, number));
            while self.repeated.len() > MAX_REPEATED {
                self.repeated.pop_first();
            }
        }
        // From the Env on under one number, or not at all.
        let as_before = |number: &u8| self.repeated.get(&block) == Some(&(attempt, *number));
        let Some(number) = number.filter(as_before) else {
            self.repeated.remove(&block);
            return None;
        };
        Some(Output::Message(numbered(delivered, number)))
    }

    /// The chain stands elsewhere: blocks above `high` are forgotten, and what was handed on of
    /// those without a Seal is void. Lower ones stay, since they may be under way to those who
    /// catch up; they make room for newer ones.
    pub fn move_to(&mut self, high: u64, out: &mut Vec<Output>) {
        while let Some(last) = self.blocks.last_entry().filter(|last| *last.key() > high) {
            let (block, gone) = last.remove_entry();
            self.held.waiting -= gone.held().waiting;
            self.held.kept -= gone.held().kept;
            if let Some(attempt) = gone.unsealed() {
                out.push(Output::Retracted { block, attempt, reason: RetractReason::Elsewhere });
            }
        }
        let newest = |which: &dyn Fn(&Block) -> bool| {
            self.blocks.iter().rev().find(|(_, block)| which(block)).map(|(number, _)| *number)
        };
        if self.opened.is_some_and(|opened| opened > high) {
            self.opened = newest(&Block::is_opened);
        }
        if self.sealed.is_some_and(|sealed| sealed > high) {
            self.sealed = newest(&Block::is_sealed);
        }
    }

    /// Voids an attempt whose message turned out to be none; `tried` is the leader's number.
    pub fn bad_parity(&mut self, number: u64, tried: u8, out: &mut Vec<Output>) {
        self.with(number, |block| block.bad_parity(tried, out));
    }

    /// Does something with a block, and keeps the sums right.
    fn with<T>(&mut self, number: u64, act: impl FnOnce(&mut Block) -> T) -> Option<T> {
        let block = self.blocks.get_mut(&number)?;
        self.held.waiting -= block.held().waiting;
        self.held.kept -= block.held().kept;
        let result = act(block);
        self.held.waiting += block.held().waiting;
        self.held.kept += block.held().kept;
        Some(result)
    }

    /// Makes room for a block number; false if it is older than all that is remembered.
    fn admit(&mut self, number: u64) -> bool {
        if self.blocks.contains_key(&number) || self.blocks.len() < MAX_BLOCKS {
            return true;
        }
        let (oldest, _) = self.blocks.first_key_value().expect("full, so not empty");
        if number < *oldest {
            return false;
        }
        if let Some((_, gone)) = self.blocks.pop_first() {
            self.held.waiting -= gone.held().waiting;
            self.held.kept -= gone.held().kept;
        }
        true
    }

    /// Which blocks have something to give where more than `capacity` is held: those of a gateway
    /// that has more than half, else of those that have more than an eighth, else all.
    fn who_gives_way(
        &self,
        of: fn(Held) -> usize,
        capacity: usize,
    ) -> impl Fn(&Block) -> bool + use<> {
        let mut sums: BTreeMap<Address, usize> = BTreeMap::new();
        for block in self.blocks.values() {
            *sums.entry(block.gateway()).or_default() += of(block.held());
        }
        let most = sums.values().copied().max().unwrap_or(0);
        let least = [capacity / 2, capacity / 8].into_iter().find(|part| most > *part);
        let least = least.unwrap_or(0);
        move |block| {
            let sum = sums.get(&block.gateway()).copied().unwrap_or(0);
            sum > least && of(block.held()) > 0
        }
    }

    /// Drops waiting messages of the farthest blocks while too much waits, before all others those of
    /// ranks that their block does not count for, and kept messages of the oldest while too much is
    /// kept; says whether any waiting message of block `number` and of `rank` was dropped.
    fn shrink(&mut self, (number, rank): (u64, u8)) -> bool {
        let mut dropped = false;
        while self.held.waiting > MAX_WAITING {
            // They would be charged to the gateway that they were to stand in for.
            let others = self.blocks.iter().rfind(|(_, block)| block.has_others());
            if let Some((&farthest, _)) = others {
                let gone = self.with(farthest, |block| block.drop_waiting_of_others(rank));
                dropped |= gone == Some(true) && farthest == number;
                continue;
            }
            let gives = self.who_gives_way(|held| held.waiting, MAX_WAITING);
            let farthest = self.blocks.iter().rfind(|(_, block)| gives(block));
            let Some((&farthest, block)) = farthest else { break };
            let opened = block.is_opened();
            self.with(farthest, Block::drop_waiting);
            if !opened {
                self.blocks.remove(&farthest);
            }
            dropped |= farthest == number;
        }
        while self.held.kept > MAX_KEPT {
            let gives = self.who_gives_way(|held| held.kept, MAX_KEPT);
            let oldest = self.blocks.iter().find(|(_, block)| gives(block));
            let Some((&oldest, _)) = oldest else { break };
            self.with(oldest, Block::let_go);
        }
        dropped
    }
}

/// A message under the sequencer's number.
fn numbered(delivered: Arc<Delivered>, number: u8) -> Arc<Delivered> {
    if delivered.key.attempt == number {
        return delivered;
    }
    let key = MessageKey { attempt: number, ..delivered.key };
    Arc::new(Delivered { key, ..(*delivered).clone() })
}

#[cfg(test)]
mod tests;
