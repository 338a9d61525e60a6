//! Builds the messages of a block.
//!
//! A gateway calls [`BlockBuilder::from_env`] with the block's environment, then
//! [`frag`](BlockBuilder::frag) for each group of transactions and [`seal`](BlockBuilder::seal)
//! at the end; the builder numbers the frags, marks the last and applies the dialect. Tests and
//! simulations, which execute nothing, start from [`BlockBuilder::new`] and may ask for a frag
//! or Seal out of order.

use alloy_primitives::{Address, B256, Bytes, U256};

use super::{Dialect, Env, Frag, Message, Seal};

/// Builds the Env, frags and Seal of one block.
///
/// ```
/// use fragcast_shredder::{BlockBuilder, Dialect, GatewayKey, Seal};
///
/// let key = GatewayKey::from_bytes([7; 32])?;
/// let mut block = BlockBuilder::new(42).with_dialect(Dialect::V0);
/// let env = key.sign_verified(block.env());
/// let first = key.sign_verified(block.frag([vec![0x02, 0xaa]]));
/// let last = key.sign_verified(block.last_frag([vec![0x02, 0xbb], vec![0x02, 0xcc]]));
/// // What execution computed goes into the Seal; the builder knows the rest.
/// let seal = key.sign_verified(Seal { gas_used: 63_000, ..block.seal() });
///
/// let indices: Vec<_> = [&env, &first, &last, &seal].map(|m| m.message().index()).into();
/// assert_eq!(indices, [Some(0), Some(1), Some(2), Some(3)]);
/// # Ok::<(), fragcast_shredder::SignatureError>(())
/// ```
#[derive(Debug, Clone)]
pub struct BlockBuilder {
    env: Env,
    dialect: Dialect,
    blob_gas_used: u64,
    frags: u64,
}

impl BlockBuilder {
    /// The gas limit of a block that [`new`](Self::new) builds.
    pub const GAS_LIMIT: u64 = 30_000_000;

    /// A block whose environment is filled with placeholders: the timestamp is the number, the
    /// gas limit [`GAS_LIMIT`](Self::GAS_LIMIT), the base fee 7, all else zero.
    ///
    /// A node that executes refuses such a block. For tests, simulations and benchmarks.
    pub const fn new(number: u64) -> Self {
        Self::from_env(Env {
            number,
            parent_hash: B256::ZERO,
            beneficiary: Address::ZERO,
            timestamp: number,
            gas_limit: Self::GAS_LIMIT,
            basefee: 7,
            difficulty: U256::ZERO,
            prevrandao: B256::ZERO,
            extra_data: Bytes::new(),
            parent_beacon_block_root: B256::ZERO,
        })
    }

    /// A block with this environment, in the dialect `v0`.
    pub const fn from_env(env: Env) -> Self {
        Self { env, dialect: Dialect::V0, blob_gas_used: 0, frags: 0 }
    }

    /// Builds in `dialect` instead.
    pub const fn with_dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// Sets the blob gas that the next frag and the Seal state. Only `v0-blob` carries it.
    pub const fn set_blob_gas_used(&mut self, gas: u64) {
        self.blob_gas_used = gas;
    }

    fn blob_gas_used(&self) -> Option<u64> {
        (self.dialect == Dialect::V0Blob).then_some(self.blob_gas_used)
    }

    /// The Env that opens the block.
    pub fn env(&self) -> Env {
        self.env.clone()
    }

    /// The next frag, which is not the last.
    pub fn frag(&mut self, txs: impl IntoIterator<Item: Into<Bytes>>) -> Frag {
        let seq = self.frags;
        self.frags += 1;
        self.frag_at(seq, txs)
    }

    /// The next frag, marked as the last of the block.
    pub fn last_frag(&mut self, txs: impl IntoIterator<Item: Into<Bytes>>) -> Frag {
        Frag { is_last: true, ..self.frag(txs) }
    }

    /// The Seal after the frags built so far, with the parent and gas limit of the Env. Gas used,
    /// roots and hash are zero: the caller has executed the block and sets them.
    pub fn seal(&self) -> Seal {
        self.seal_of(self.frags)
    }

    /// Frag `seq`, whatever was built before; it does not count as built.
    pub fn frag_at(&self, seq: u64, txs: impl IntoIterator<Item: Into<Bytes>>) -> Frag {
        Frag {
            block_number: self.env.number,
            seq,
            is_last: false,
            blob_gas_used: self.blob_gas_used(),
            txs: txs.into_iter().map(Into::into).collect(),
        }
    }

    /// The [`seal`](Self::seal) of the block if it had `total_frags` frags.
    pub fn seal_of(&self, total_frags: u64) -> Seal {
        Seal {
            total_frags,
            block_number: self.env.number,
            gas_used: 0,
            gas_limit: self.env.gas_limit,
            parent_hash: self.env.parent_hash,
            transactions_root: B256::ZERO,
            receipts_root: B256::ZERO,
            state_root: B256::ZERO,
            block_hash: B256::ZERO,
            blob_gas_used: self.blob_gas_used(),
        }
    }

    /// The whole block: Env, one frag for each item of `frags`, the last of them marked, Seal.
    pub fn messages<F>(mut self, frags: impl IntoIterator<Item = F>) -> Vec<Message>
    where
        F: IntoIterator<Item: Into<Bytes>>,
    {
        let mut messages = vec![self.env().into()];
        messages.extend(frags.into_iter().map(|txs| Message::from(self.frag(txs))));
        if let Some(Message::Frag(last)) = messages.last_mut() {
            last.is_last = true;
        }
        messages.push(self.seal().into());
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Kind;

    #[test]
    fn a_whole_block_is_numbered_and_its_last_frag_marked() {
        for dialect in [Dialect::V0, Dialect::V0Blob] {
            let block = BlockBuilder::new(7).with_dialect(dialect);
            let messages = block.messages([vec![vec![1u8]], vec![], vec![vec![2], vec![3, 4]]]);
            let kinds: Vec<Kind> = messages.iter().map(Message::kind).collect();
            assert_eq!(kinds, [Kind::Env, Kind::Frag, Kind::Frag, Kind::Frag, Kind::Seal]);
            for (index, message) in messages.iter().enumerate() {
                assert_eq!((message.block(), message.index()), (7, Some(index as u16)));
                assert!(message.dialect().is_none_or(|spoken| spoken == dialect));
                if let Message::Frag(frag) = message {
                    assert_eq!(frag.is_last, index == 3);
                }
            }
        }
    }

    #[test]
    fn a_block_without_frags_is_env_and_seal() {
        let messages = BlockBuilder::new(7).messages(Vec::<Vec<Bytes>>::new());
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[1].index(), Some(1));
    }

    #[test]
    fn frag_and_seal_state_the_blob_gas_so_far() {
        let mut block = BlockBuilder::new(7).with_dialect(Dialect::V0Blob);
        assert_eq!(block.frag([vec![1]]).blob_gas_used, Some(0));
        block.set_blob_gas_used(131_072);
        assert_eq!(block.frag([vec![2]]).blob_gas_used, Some(131_072));
        assert_eq!(block.seal().blob_gas_used, Some(131_072));
        assert_eq!(block.seal().total_frags, 2);
        assert_eq!(block.with_dialect(Dialect::V0).seal().blob_gas_used, None);
    }

    #[test]
    fn a_message_out_of_order_does_not_count() {
        let mut block = BlockBuilder::new(7);
        assert_eq!(block.frag_at(5, [vec![1]]).seq, 5);
        assert_eq!(block.seal_of(9).total_frags, 9);
        assert_eq!(block.last_frag([vec![1]]).seq, 0);
        assert_eq!(block.seal().total_frags, 1);
    }
}
