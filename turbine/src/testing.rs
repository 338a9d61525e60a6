//! Signed messages, and a schedule alone, for the tests of this crate and of `node`.

use std::sync::Arc;

use fragcast_shredder::{BlockBuilder, Env, Frag, GatewayKey, Message, VerifiedMessage};

use crate::epoch::{Epoch, EpochsView};
use crate::membership::Membership;
use crate::schedule::Schedule;

/// The key that signs them.
pub fn gateway() -> GatewayKey {
    GatewayKey::from_bytes([0x11; 32]).unwrap()
}

/// Signed by [`gateway`].
pub fn sign(message: impl Into<Message>) -> VerifiedMessage {
    gateway().sign_verified(message)
}

/// An Env that nobody has signed.
pub fn env_message(number: u64, timestamp: u64) -> Message {
    Env { timestamp, ..BlockBuilder::new(number).env() }.into()
}

/// An Env with a timestamp of its own.
pub fn env_at(number: u64, timestamp: u64) -> VerifiedMessage {
    sign(env_message(number, timestamp))
}

/// The Env of a block.
pub fn env(number: u64) -> VerifiedMessage {
    env_at(number, number)
}

/// A frag with one transaction of 20 bytes `tx`.
pub fn frag_with(block_number: u64, seq: u64, is_last: bool, tx: u8) -> VerifiedMessage {
    let frag = BlockBuilder::new(block_number).frag_at(seq, [vec![tx; 20]]);
    sign(Frag { is_last, ..frag })
}

/// A frag in the middle of its block.
pub fn frag(block_number: u64, seq: u64) -> VerifiedMessage {
    frag_with(block_number, seq, false, 1)
}

/// A Seal that nobody has signed, with no true root.
pub fn seal_message(block_number: u64, total_frags: u64) -> Message {
    BlockBuilder::new(block_number).seal_of(total_frags).into()
}

/// The Seal of a block of this many frags.
pub fn seal(block_number: u64, total_frags: u64) -> VerifiedMessage {
    sign(seal_message(block_number, total_frags))
}

/// The view of one epoch without members: for tests that need no more than a schedule.
pub fn epochs(schedule: Schedule) -> Arc<EpochsView> {
    const CHAIN: u64 = 5;
    let members = Arc::new(Membership::new(CHAIN, Vec::new()).expect("nobody is a table"));
    Arc::new(Epoch::new(CHAIN, 0, members, schedule, []).expect("no delegation").into())
}
