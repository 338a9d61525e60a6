//! Whether the messages of a block are those of one opening.
//!
//! A gateway's signature on a message says nothing of the attempt that it belongs to: shreds do, and
//! what comes without them is of the attempt that a peer says. A peer can so mix openings of a block
//! that its gateway opened twice, each message of which is signed. The Seal decides: it names the
//! root of the block's transactions.

use alloy_primitives::{B256, Bytes};
use alloy_trie::root::ordered_trie_root_encoded;
use fragcast_shredder::{Message, VerifiedMessage};

/// Whether the messages of a block, Env first and Seal last, are of one opening as far as the Seal
/// says. One that names no root, as simulations sign, says it of parent and gas limit alone.
pub(super) fn agrees<'a>(messages: impl Iterator<Item = &'a VerifiedMessage>) -> bool {
    let (mut env, mut txs): (_, Vec<Bytes>) = (None, Vec::new());
    for message in messages {
        match (message.message(), env) {
            (Message::Env(opened), None) => env = Some((opened.parent_hash, opened.gas_limit)),
            (Message::Frag(frag), Some(_)) => txs.extend(frag.txs.iter().cloned()),
            (Message::Seal(seal), Some(env)) => {
                let root = seal.transactions_root;
                return env == (seal.parent_hash, seal.gas_limit)
                    && (root == B256::ZERO || ordered_trie_root_encoded(&txs) == root);
            }
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use fragcast_shredder::{BlockBuilder, Env, Seal};

    use super::*;
    use crate::testing::sign;

    fn block(txs: &[u8], root_of: &[u8], parent: u8) -> Vec<VerifiedMessage> {
        let mut block = BlockBuilder::new(7);
        let env = Env { parent_hash: B256::repeat_byte(parent), ..block.env() };
        let mut messages = vec![sign(env)];
        messages.extend(txs.iter().map(|tx| sign(block.frag([vec![*tx]]))));
        let root_of: Vec<Vec<u8>> = root_of.iter().map(|tx| vec![*tx]).collect();
        let transactions_root = ordered_trie_root_encoded(&root_of);
        let parent_hash = B256::repeat_byte(1);
        messages.push(sign(Seal { transactions_root, parent_hash, ..block.seal() }));
        messages
    }

    #[test]
    fn the_seal_tells_its_own_frags_and_env_from_others() {
        assert!(agrees(block(&[1, 2], &[1, 2], 1).iter()));
        assert!(agrees(block(&[], &[], 1).iter()));
        assert!(!agrees(block(&[1, 3], &[1, 2], 1).iter()), "a frag of another opening");
        assert!(!agrees(block(&[2, 1], &[1, 2], 1).iter()));
        assert!(!agrees(block(&[1, 2], &[1, 2], 2).iter()), "an Env of another parent");
        let whole = block(&[1, 2], &[1, 2], 1);
        assert!(!agrees(whole[1..].iter()) && !agrees(whole[..3].iter()), "not whole");
    }

    #[test]
    fn a_seal_without_a_root_proves_nothing_of_frags() {
        let (env, seal) = (BlockBuilder::new(7).env(), BlockBuilder::new(7).seal_of(1));
        let frag = sign(BlockBuilder::new(7).frag_at(0, [vec![9]]));
        let messages = [sign(env.clone()), frag.clone(), sign(seal.clone())];
        assert!(agrees(messages.iter()));
        let other = Seal { gas_limit: 1, ..seal };
        assert!(!agrees([sign(env), frag, sign(other)].iter()));
    }
}
