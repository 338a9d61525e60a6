//! Messages for the tests of the forwarder and its machine.

use std::sync::Arc;

use fragcast_shredder::{BlockBuilder, Env, GatewayKey, Message};

use fragcast_shredder::delivery::{Delivered, Output, RetractReason, Times, Via};

/// The secret of the forwarder under test.
pub(crate) const SECRET: [u8; 32] = [7; 32];

fn output(attempt: u8, message: impl Into<Message>) -> Output {
    let message = GatewayKey::from_bytes([1; 32]).unwrap().sign_verified(message);
    let delivered = Delivered::of_attempt(attempt, message, Times::default(), Via::Turbine);
    Output::Message(Arc::new(delivered.unwrap()))
}

/// An Env; the test server reads the attempt off its gas limit.
pub(crate) fn env(number: u64, attempt: u8) -> Output {
    output(attempt, Env { gas_limit: attempt.into(), ..BlockBuilder::new(number).env() })
}

pub(crate) fn frag(block_number: u64, attempt: u8, seq: u64) -> Output {
    let txs = vec![vec![1, 2, 3]; 3];
    output(attempt, BlockBuilder::new(block_number).frag_at(seq, txs))
}

pub(crate) fn seal(block_number: u64, attempt: u8, total_frags: u64) -> Output {
    output(attempt, BlockBuilder::new(block_number).seal_of(total_frags))
}

/// A whole block: Env, `frags` frags, Seal.
pub(crate) fn block(number: u64, attempt: u8, frags: u64) -> Vec<Output> {
    let frags_of = (0..frags).map(|seq| frag(number, attempt, seq));
    std::iter::once(env(number, attempt))
        .chain(frags_of)
        .chain([seal(number, attempt, frags)])
        .collect()
}

pub(crate) fn superseded(block: u64, attempt: u8) -> Output {
    let reason = RetractReason::Superseded { by: attempt + 1 };
    Output::Retracted { block, attempt, reason }
}

pub(crate) fn bad_parity(block: u64, attempt: u8) -> Output {
    Output::Retracted { block, attempt, reason: RetractReason::BadParity }
}
