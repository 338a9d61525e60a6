//! Messages of a load, signed: what they say does not matter, their size does.

use alloy_primitives::{Address, B256, Bytes, U256};
use fragcast_shredder::{Env, Frag, GatewayKey, Kind, Message, Seal, VerifiedMessage};

use crate::load::Broadcast;

/// Bytes of a signed frag with one empty transaction: signature, fixed fields and offsets.
fn overhead(key: &GatewayKey) -> usize {
    key.sign(frag(1, 0, 0, 0)).to_wire().len()
}

fn frag(block_number: u64, seq: u64, len: usize, version: u8) -> Message {
    // Bytes that differ from message to message, so that no two have one root.
    let start = blake3::hash(&[&block_number.to_le_bytes()[..], &seq.to_le_bytes()].concat());
    let mut tx = vec![0; len];
    let mut reader =
        blake3::Hasher::new().update(start.as_bytes()).update(&[version]).finalize_xof();
    reader.fill(&mut tx);
    Message::Frag(Frag {
        block_number,
        seq,
        is_last: false,
        blob_gas_used: None,
        txs: vec![tx.into()],
    })
}

/// The message of `broadcast`, in one of two versions. A frag has as many bytes as the load
/// says, signature included; Env and Seal have what they have.
pub(super) fn signed(broadcast: &Broadcast, version: u8, key: &GatewayKey) -> VerifiedMessage {
    let (block, index) = (broadcast.key.block, u64::from(broadcast.key.message));
    let message = match broadcast.kind {
        Kind::Env => Message::Env(Env {
            number: block,
            parent_hash: B256::with_last_byte(version),
            beneficiary: Address::ZERO,
            timestamp: block,
            gas_limit: 30_000_000,
            basefee: 7,
            difficulty: U256::ZERO,
            // Another attempt is another message.
            prevrandao: B256::with_last_byte(broadcast.key.attempt),
            extra_data: Bytes::new(),
            parent_beacon_block_root: B256::ZERO,
        }),
        Kind::Frag => {
            let len = (broadcast.bytes as usize).saturating_sub(overhead(key));
            frag(block, index - 1, len, version)
        }
        Kind::Seal => Message::Seal(Seal {
            total_frags: index - 1,
            block_number: block,
            gas_used: 0,
            gas_limit: 30_000_000,
            parent_hash: B256::ZERO,
            transactions_root: B256::ZERO,
            receipts_root: B256::ZERO,
            state_root: B256::with_last_byte(version),
            block_hash: B256::ZERO,
            blob_gas_used: None,
        }),
    };
    key.sign(message).verify(key.address()).expect("signed a line above")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Load;

    #[test]
    fn env_and_seal_have_the_bytes_that_scenarios_say() {
        let key = GatewayKey::from_bytes([7; 32]).unwrap();
        let defaults = crate::scenario::LoadOptions::default();
        let frag = Load::single(vec![0], 500).broadcasts[0];
        for (kind, bytes) in [(Kind::Env, defaults.env_bytes), (Kind::Seal, defaults.seal_bytes)] {
            let message = signed(&Broadcast { kind, ..frag }, 0, &key);
            assert_eq!(message.to_wire().len(), bytes as usize, "{kind:?}");
        }
    }

    #[test]
    fn a_frag_has_the_bytes_that_the_load_says() {
        let key = GatewayKey::from_bytes([7; 32]).unwrap();
        for bytes in [500, 36_000, 144_000] {
            let broadcast = Load::single(vec![0], bytes).broadcasts[0];
            let message = signed(&broadcast, 0, &key);
            assert_eq!(message.to_wire().len(), bytes as usize);
            assert_eq!(message.message().index(), Some(1));
            assert_ne!(message.root(), signed(&broadcast, 1, &key).root());
        }
    }
}
