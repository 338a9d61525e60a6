//! Makes the signed messages of a load. Only their size matters, not their content.

use alloy_primitives::B256;
use fragcast_shredder::{BlockBuilder, Env, Frag, GatewayKey, Kind, Seal, VerifiedMessage};

use crate::load::Broadcast;

/// Bytes of a signed frag with one empty transaction: signature, fixed fields and offsets.
fn overhead(key: &GatewayKey) -> usize {
    key.sign(frag(1, 0, 0, 0)).to_wire().len()
}

fn frag(block_number: u64, seq: u64, len: usize, version: u8) -> Frag {
    // The content differs for every message, so that all roots differ.
    let start = blake3::hash(&[&block_number.to_le_bytes()[..], &seq.to_le_bytes()].concat());
    let mut tx = vec![0; len];
    let mut reader =
        blake3::Hasher::new().update(start.as_bytes()).update(&[version]).finalize_xof();
    reader.fill(&mut tx);
    BlockBuilder::new(block_number).frag_at(seq, [tx])
}

/// The message of `broadcast`, in one of two versions. A frag has the number of bytes in the load,
/// signature included; Env and Seal have their own size.
pub(super) fn signed(broadcast: &Broadcast, version: u8, key: &GatewayKey) -> VerifiedMessage {
    let (block, index) = (broadcast.key.block, u64::from(broadcast.key.message));
    let builder = BlockBuilder::new(block);
    match broadcast.kind {
        Kind::Env => key.sign_verified(Env {
            parent_hash: B256::with_last_byte(version),
            // Differs between attempts.
            prevrandao: B256::with_last_byte(broadcast.key.attempt),
            ..builder.env()
        }),
        Kind::Frag => {
            let len = (broadcast.bytes as usize).saturating_sub(overhead(key));
            key.sign_verified(frag(block, index - 1, len, version))
        }
        Kind::Seal => key.sign_verified(Seal {
            state_root: B256::with_last_byte(version),
            ..builder.seal_of(index - 1)
        }),
    }
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
