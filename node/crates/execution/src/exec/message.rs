//! Env and Seal of a block with a known header.

use alloy_consensus::Header;
use alloy_primitives::B256;
use fragcast_shredder::{Env, Seal};

/// The Env of a block with this header.
pub fn env_of(header: &Header) -> Env {
    Env {
        number: header.number,
        parent_hash: header.parent_hash,
        beneficiary: header.beneficiary,
        timestamp: header.timestamp,
        gas_limit: header.gas_limit,
        basefee: header.base_fee_per_gas.unwrap_or_default(),
        difficulty: header.difficulty,
        prevrandao: header.mix_hash,
        extra_data: header.extra_data.clone(),
        parent_beacon_block_root: header.parent_beacon_block_root.unwrap_or_default(),
    }
}

/// The Seal of a block with this header and hash; `with_blobs` in the dialect that has the field.
pub fn seal_of(header: &Header, hash: B256, total_frags: u64, with_blobs: bool) -> Seal {
    Seal {
        total_frags,
        block_number: header.number,
        gas_used: header.gas_used,
        gas_limit: header.gas_limit,
        parent_hash: header.parent_hash,
        transactions_root: header.transactions_root,
        receipts_root: header.receipts_root,
        state_root: header.state_root,
        block_hash: hash,
        blob_gas_used: with_blobs.then(|| header.blob_gas_used.unwrap_or(0)),
    }
}
