//! Signed messages for the tests of this crate and of `node`.

use alloy_primitives::{Address, B256, Bytes, U256};
use fragcast_shredder::{Env, Frag, GatewayKey, Message, Seal, VerifiedMessage};

/// The key that signs them.
pub fn gateway() -> GatewayKey {
    GatewayKey::from_bytes([0x11; 32]).unwrap()
}

/// Signed by [`gateway`].
pub fn sign(message: Message) -> VerifiedMessage {
    gateway().sign(message).verify(gateway().address()).unwrap()
}

/// An Env that nobody has signed.
pub fn env_message(number: u64, timestamp: u64) -> Message {
    Message::Env(Env {
        number,
        parent_hash: B256::ZERO,
        beneficiary: Address::ZERO,
        timestamp,
        gas_limit: 30_000_000,
        basefee: 7,
        difficulty: U256::ZERO,
        prevrandao: B256::ZERO,
        extra_data: Bytes::new(),
        parent_beacon_block_root: B256::ZERO,
    })
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
    let txs = vec![vec![tx; 20].into()];
    sign(Message::Frag(Frag { block_number, seq, is_last, blob_gas_used: None, txs }))
}

/// A frag in the middle of its block.
pub fn frag(block_number: u64, seq: u64) -> VerifiedMessage {
    frag_with(block_number, seq, false, 1)
}

/// A Seal that nobody has signed, with no true root.
pub fn seal_message(block_number: u64, total_frags: u64) -> Message {
    Message::Seal(Seal {
        total_frags,
        block_number,
        gas_used: 0,
        gas_limit: 30_000_000,
        parent_hash: B256::ZERO,
        transactions_root: B256::ZERO,
        receipts_root: B256::ZERO,
        state_root: B256::ZERO,
        block_hash: B256::ZERO,
        blob_gas_used: None,
    })
}

/// The Seal of a block of so many frags.
pub fn seal(block_number: u64, total_frags: u64) -> VerifiedMessage {
    sign(seal_message(block_number, total_frags))
}
