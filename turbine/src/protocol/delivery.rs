//! From shreds to messages: validated, put together, and verified when whole.
//!
//! It owns the validator and the reassembler, so what counts as a message that is here is
//! decided in one place. What follows from a shred (who is sent it, what repair makes of it) is
//! for [`Parts`](super::parts::Parts) to do.

use std::collections::BTreeMap;

use fragcast_shredder::equivocation::EquivocationProof;
use fragcast_shredder::{
    Assembled, Commitment, HashedShred, Limits, MessageKey, Owner, Push, PushError, Reassembler,
    RecoveredSet, SetHeader, SignedMessage, ValidateError, ValidatedShred, Validator,
};

use super::config::Config;
use super::ctx::Ctx;
use super::fallback::Fallback;
use crate::membership::PeerIndex;
use crate::outcome::Outcome;
use crate::output::{Delivered, Times, Via};
use crate::time::Timestamp;

/// Messages whose first arrival is remembered, 24 bytes each.
const MAX_ARRIVALS: usize = 65_536;
/// Sets outside the window that are known at a time, and the bytes for their shards.
const SCOUT_SETS: usize = 256;
const SCOUT_MEMORY: usize = 2 * 1024 * 1024;
/// Re-encoding checks per timeout, about 100 µs each.
const CHECKS_AT_ONCE: usize = 8;

/// What became of a shred.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for a call, and a box would be an allocation for each shred"
)]
pub(super) enum Step {
    /// Nothing changes by it.
    Refused(Outcome),
    /// The leader's key does not cover this. Perhaps another one's does. What was claimed, if
    /// nothing of the set is known.
    Unproven(Option<Box<Commitment>>),
    /// The leader signed two contradictory things.
    Equivocation(Box<EquivocationProof>),
    /// The leader's parity is inconsistent: its message is refused.
    BadParity,
    /// Kept.
    Kept {
        valid: ValidatedShred,
        /// In the table of its block's epoch.
        leader: PeerIndex,
        /// It is the first of its set.
        first: bool,
        /// What it completed.
        complete: Option<Complete>,
    },
}

/// What a shred completed: a set.
pub(super) struct Complete {
    /// The set, if something of it had to be recovered. Of one that came whole the rest is made
    /// when the re-encoding check is due.
    pub(super) recovered: Option<Box<RecoveredSet>>,
    /// The message, if this was its last set.
    pub(super) message: Option<Assembled>,
}

/// Shreds in, messages out.
pub(super) struct Delivery {
    validator: Validator,
    reassembler: Reassembler,
    /// When the first shred of a message arrived.
    arrivals: BTreeMap<MessageKey, Timestamp>,
    /// The oldest block that is open.
    open_from: u64,
    checks_due: bool,
}

impl Delivery {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            validator: Validator::new(config.chain_id, config.validator_capacity),
            reassembler: Reassembler::new(config.reassembly),
            arrivals: BTreeMap::new(),
            open_from: 0,
            checks_due: false,
        }
    }

    /// A small one, for Envs and Seals of blocks outside the window: 256 sets.
    pub(super) fn scout(config: &Config) -> Self {
        Self {
            validator: Validator::new(config.chain_id, SCOUT_SETS),
            reassembler: Reassembler::new(Limits { memory: SCOUT_MEMORY }),
            arrivals: BTreeMap::new(),
            open_from: 0,
            checks_due: false,
        }
    }

    /// Takes a shred that came by itself, or one that came by repair. What only a signature could
    /// prove is refused unless its sender `may_verify` one.
    pub(super) fn shred(
        &mut self,
        ctx: &Ctx,
        hashed: HashedShred,
        repaired: bool,
        may_verify: bool,
    ) -> Step {
        let header = *hashed.shred().header();
        let Some(living) = ctx.epochs.at(header.block) else {
            return Step::Refused(Outcome::UnknownLeader);
        };
        let epoch = living.epoch();
        let leader = epoch.leader_of(header.block, header.attempt);
        let leader = leader.and_then(|l| Some((l, epoch.members().index(&l.peer)?)));
        let Some((delegate, leader)) = leader else {
            return Step::Refused(Outcome::UnknownLeader);
        };
        if Some(leader) == living.me() {
            return Step::Refused(Outcome::Own);
        }
        // First what costs nothing, and the signature last.
        let key = header.message_key();
        if let Err(error) = self.reassembler.admit(&key) {
            return Step::Refused(error.into());
        }
        // All that is charged to a gateway is, whichever of its keys signs.
        let owner = Owner::from(delegate.gateway);
        let first = !self.validator.knows(&header.set_key());
        if first && self.reassembler.is_done(&key) {
            return Step::Refused(Outcome::Late);
        }
        let claim = first.then(|| hashed.clone());
        let valid = match self.validator.validate_for(hashed, &delegate.key, owner, may_verify) {
            Ok(valid) => valid,
            Err(ValidateError::Equivocation(proof)) => return Step::Equivocation(proof),
            Err(ValidateError::Signature) => {
                return Step::Unproven(claim.map(|hashed| Box::new(hashed.claim())));
            }
            Err(error) => return Step::Refused((&error).into()),
        };
        let pushed = match repaired {
            false => self.reassembler.push(&valid),
            true => self.reassembler.push_repaired(&valid),
        };
        let complete = match pushed {
            Ok(Push::Stored) => None,
            Ok(Push::Complete { recovered, message }) => {
                // The rest of a set that arrived whole is owed as well, but its message goes on
                // first: the check re-encodes it.
                self.checks_due |= recovered.is_none();
                Some(Complete { recovered, message })
            }
            Ok(Push::Duplicate) => return Step::Refused(Outcome::Duplicate),
            Ok(Push::Late) => return Step::Refused(Outcome::Late),
            Err(PushError::BadParity) => {
                self.validator.finish(&key);
                return Step::BadParity;
            }
            Err(error) => return Step::Refused(error.into()),
        };
        self.note_arrival(ctx.now, key);
        if self.reassembler.is_done(&key) {
            self.validator.finish(&key);
        }
        Step::Kept { valid, leader, first, complete }
    }

    /// Whether a shred's set is known, so that no signature need be verified for what belongs to it.
    pub(super) fn knows(&self, header: &SetHeader) -> bool {
        self.validator.knows(&header.set_key())
    }

    /// Remembers when a message began to arrive. An evicted message leaves its entry behind
    /// until the window passes, so the table has a bound of its own.
    fn note_arrival(&mut self, now: Timestamp, key: MessageKey) {
        self.arrivals.entry(key).or_insert(now);
        if self.arrivals.len() > MAX_ARRIVALS {
            let past =
                self.arrivals.first_key_value().is_some_and(|(k, _)| k.block < self.open_from);
            if past {
                self.arrivals.pop_first()
            } else {
                self.arrivals.pop_last()
            };
        }
    }

    /// Decodes and verifies a message that is whole.
    ///
    /// # Errors
    /// The message's key and what is wrong with it. It is refused from now on.
    pub(super) fn open(
        &mut self,
        ctx: &Ctx,
        assembled: Assembled,
    ) -> Result<Delivered, (MessageKey, String)> {
        let Assembled { header, wire, repaired, .. } = assembled;
        let key = header.message_key();
        let first_shred_at = self.arrivals.remove(&key).unwrap_or(ctx.now);
        let gateway = ctx.epochs.view().gateway_of(key.block, key.attempt);
        let verified =
            SignedMessage::from_wire(header.message_kind(), ctx.config.dialect, &wire.into())
                .map_err(|error| error.to_string())
                .and_then(|signed| {
                    if signed.message.block() != key.block {
                        return Err(format!("it is of block {}", signed.message.block()));
                    }
                    if signed.message.index() != Some(key.message) {
                        return Err(format!("its own index is {:?}", signed.message.index()));
                    }
                    let gateway = gateway.ok_or("its block is of no epoch that is known")?;
                    signed.verify(gateway).map_err(|error| error.to_string())
                });
        match verified {
            Ok(message) => Ok(Delivered {
                key,
                message,
                times: Times {
                    sent_at: Some(header.sent_at()),
                    first_shred_at,
                    complete_at: ctx.now,
                },
                via: if repaired { Via::Repair } else { Via::Turbine },
                rank: ctx.rank(&key),
            }),
            Err(reason) => {
                self.reassembler.refuse(&key);
                self.validator.finish(&key);
                Err((key, reason))
            }
        }
    }

    /// Re-encodes the next set that came whole; `None` when nothing more is due now.
    pub(super) fn check_next(&mut self) -> Option<Result<RecoveredSet, MessageKey>> {
        let next = self.reassembler.check_next();
        self.checks_due &= next.is_some();
        next
    }

    /// How many of those a timeout may do.
    pub(super) const CHECKS: usize = CHECKS_AT_ONCE;

    /// Whether sets wait to be re-encoded.
    pub(super) const fn checks_due(&self) -> bool {
        self.checks_due
    }

    /// Drops the attempts of a block below one.
    pub(super) fn supersede(&mut self, block: u64, attempt: u8) {
        self.reassembler.supersede(block, attempt);
        self.validator.supersede(block, attempt);
    }

    /// Drops all blocks outside the window.
    pub(super) fn set_window(&mut self, low: u64, high: u64) {
        self.reassembler.set_window(low, high);
        self.validator.forget_below(low);
        self.arrivals = self.arrivals.split_off(&MessageKey { block: low, attempt: 0, message: 0 });
    }

    /// The blocks that are open, both ends included: they and the next ones come first.
    pub(super) fn set_open(&mut self, low: u64, high: u64) {
        self.open_from = low;
        self.reassembler.set_open(low, high);
        self.validator.set_open(low, high);
    }

    /// Drops what has come of messages whose attempts are led by another key now than by the one
    /// that signed them.
    pub(super) fn follow_leaders(&mut self, ctx: &Ctx) {
        self.reassembler.keep_signers(|key, signer| {
            ctx.leader_of(key).is_some_and(|leader| leader.key.as_bytes() == signer)
        });
    }

    /// Bytes that the reassembler holds.
    pub(super) const fn bytes(&self) -> usize {
        self.reassembler.bytes()
    }

    /// Sets that the validator knows.
    #[cfg(test)]
    pub(super) fn sets(&self) -> usize {
        self.validator.len()
    }

    #[cfg(test)]
    pub(super) fn set_limits(&mut self, limits: fragcast_shredder::Limits) {
        self.reassembler = Reassembler::new(limits);
    }
}

/// What is here already, by shreds or by gossip, and what sets lack: what repair asks.
#[derive(Clone, Copy)]
pub(super) struct Here<'a> {
    pub(super) delivery: &'a Delivery,
    pub(super) fallback: &'a Fallback,
}

impl Here<'_> {
    /// Whether a message needs no shreds any more, whichever way it came.
    pub(super) fn has(&self, key: &MessageKey) -> bool {
        self.is_whole(key) || self.by_gossip(key)
    }

    /// Whether shreds brought it, or it was refused.
    pub(super) fn is_whole(&self, key: &MessageKey) -> bool {
        self.delivery.reassembler.is_done(key)
    }

    /// Whether gossip brought it, here or to a peer that answered.
    pub(super) fn by_gossip(&self, key: &MessageKey) -> bool {
        self.fallback.has(key)
    }

    /// Whether shreds of a message are taken at all.
    pub(super) fn admits(&self, key: &MessageKey) -> bool {
        self.delivery.reassembler.admits(key)
    }

    /// The sets that a message lacks, with a bit for every shred that is here.
    pub(super) fn incomplete(
        &self,
        key: &MessageKey,
    ) -> Option<impl Iterator<Item = (u16, u64)> + '_> {
        self.delivery.reassembler.incomplete(key)
    }
}

#[cfg(test)]
mod tests;
