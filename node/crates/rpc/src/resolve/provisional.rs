//! The hash by which a block is told before it has one of its own.
//!
//! Receipts, logs and transactions name their block by hash, and the decoders of some clients refuse
//! null there. So until a block is verified they carry a *provisional* hash: one that every method
//! takes as long as the block is open, and that afterwards names the block that it became. It is made
//! from what the Env says, so it is the same after every frag, on every node, and after a restart;
//! and it ends with the block's number, so that the block is found without a table.
//!
//! ```text
//! keccak256(tag ‖ the Env's fields)[0..24] ‖ number, big-endian
//! ```
//!
//! The attempt is not in it: a block that is built again from the same Env has the same name, as the
//! one that is imported from an execution client has, which knows no attempts.

use alloy_consensus::Header;
use alloy_primitives::{B256, keccak256};
use fragcast_execution::exec::ExecutedBlock;

const TAG: &[u8] = b"fragcast: provisional block hash";

/// The provisional hash of the block with this header, which may be sealed by now.
pub fn provisional_hash(header: &Header) -> B256 {
    let mut text = Vec::with_capacity(TAG.len() + 256 + header.extra_data.len());
    text.extend_from_slice(TAG);
    text.extend_from_slice(header.parent_hash.as_slice());
    text.extend_from_slice(header.beneficiary.as_slice());
    for number in [header.timestamp, header.gas_limit, header.base_fee_per_gas.unwrap_or(0)] {
        text.extend_from_slice(&number.to_be_bytes());
    }
    text.extend_from_slice(&header.difficulty.to_be_bytes::<32>());
    text.extend_from_slice(header.mix_hash.as_slice());
    text.extend_from_slice(header.parent_beacon_block_root.unwrap_or_default().as_slice());
    text.extend_from_slice(&header.extra_data);
    let mut hash = keccak256(text);
    hash[24..].copy_from_slice(&header.number.to_be_bytes());
    hash
}

/// The number of the block that a hash names if it is provisional.
pub(super) fn number_in(hash: B256) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&hash[24..]);
    u64::from_be_bytes(number)
}

/// Whether this is the provisional hash of the block with that header.
pub(super) fn names(hash: B256, header: &Header) -> bool {
    number_in(hash) == header.number && provisional_hash(header) == hash
}

/// The hash by which a block is told: its own, or the provisional one until it is sealed.
pub fn told_hash(block: &ExecutedBlock) -> B256 {
    if block.is_sealed() { block.hash } else { provisional_hash(&block.header) }
}
