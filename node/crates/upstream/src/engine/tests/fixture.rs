//! Messages for the tests of the forwarder and its machine.

use std::sync::Arc;

use alloy_primitives::{B256, Bytes, U256};
use fragcast_shredder::{Env, Frag, GatewayKey, Message, Seal};

use fragcast_turbine::output::{Ordered, Output, RetractReason, Times, Via};

/// The secret of the forwarder under test.
pub(crate) const SECRET: [u8; 32] = [7; 32];

fn output(attempt: u8, message: Message) -> Output {
    let key = GatewayKey::from_bytes([1; 32]).unwrap();
    let (block, index) = (message.block(), message.index().unwrap());
    let message = key.sign(message).verify(key.address()).unwrap();
    Output::Message(Arc::new(Ordered {
        block,
        attempt,
        index,
        message,
        times: Times::default(),
        via: Via::Turbine,
    }))
}

/// An Env; the test server reads the attempt off its gas limit.
pub(crate) fn env(number: u64, attempt: u8) -> Output {
    output(
        attempt,
        Message::Env(Env {
            number,
            parent_hash: B256::ZERO,
            beneficiary: Default::default(),
            timestamp: 2 * number,
            gas_limit: u64::from(attempt),
            basefee: 1,
            difficulty: U256::ZERO,
            prevrandao: B256::ZERO,
            extra_data: Bytes::new(),
            parent_beacon_block_root: B256::ZERO,
        }),
    )
}

pub(crate) fn frag(block_number: u64, attempt: u8, seq: u64) -> Output {
    let txs = vec![Bytes::from_static(&[1, 2, 3]); 3];
    let frag = Frag { block_number, seq, is_last: false, blob_gas_used: None, txs };
    output(attempt, Message::Frag(frag))
}

pub(crate) fn seal(block_number: u64, attempt: u8, total_frags: u64) -> Output {
    output(
        attempt,
        Message::Seal(Seal {
            total_frags,
            block_number,
            gas_used: 0,
            gas_limit: 0,
            parent_hash: B256::ZERO,
            transactions_root: B256::ZERO,
            receipts_root: B256::ZERO,
            state_root: B256::ZERO,
            block_hash: B256::ZERO,
            blob_gas_used: None,
        }),
    )
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
