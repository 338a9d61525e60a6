//! A gateway's side of a block whose transactions are known: executes them, makes the Seal.

use std::sync::Arc;

use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{B256, Bytes};
use fragcast_shredder::{BlockBuilder, Dialect, Env, Frag, MAX_MESSAGE_LEN, Message};

use crate::chain::ChainSpec;
use crate::exec::seal_of;
use crate::exec::{
    BlockError, OnInvalid, OpenBlock, Parent, SealedBlock, StateSource, Tx, Unverified,
};

/// The most bytes of transactions in a frag: the rest of a message after fixed fields, the offsets
/// of as many transactions as possible, and the signature.
const MAX_FRAG_BYTES: usize = MAX_MESSAGE_LEN / 2;

/// A block as messages, executed.
pub struct Built {
    /// Env, frags, Seal.
    pub messages: Vec<Message>,
    /// The executed block.
    pub sealed: SealedBlock,
}

/// Cuts transactions into frags: `per_frag` (0 counts as 1) in each, fewer where they are long.
/// There is always a frag.
pub fn chunks(txs: &[Bytes], per_frag: usize) -> Vec<&[Bytes]> {
    let mut chunks = Vec::new();
    let mut rest = txs;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take(per_frag.max(1)).take_while(|tx| {
            bytes += tx.len() + 4;
            bytes <= MAX_FRAG_BYTES
        });
        let (chunk, others) = rest.split_at(fitting.count().max(1));
        chunks.push(chunk);
        rest = others;
    }
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    chunks
}

/// Executes a block frag by frag and makes its Seal.
///
/// # Errors
/// A transaction cannot be included, the Env contradicts its parent, or the source lacks state.
pub fn build(
    spec: &Arc<ChainSpec>,
    env: &Env,
    parent: Parent,
    source: &Arc<dyn StateSource>,
    withdrawals: Option<Vec<Withdrawal>>,
    chunks: &[&[Bytes]],
    dialect: Dialect,
) -> Result<Built, BlockError> {
    let mut open = OpenBlock::open(spec, env, 0, parent, source, withdrawals)?;
    let blobs = dialect == Dialect::V0Blob;
    let mut block = BlockBuilder::from_env(env.clone()).with_dialect(dialect);
    let mut messages = vec![block.env().into()];
    for (seq, txs) in chunks.iter().enumerate() {
        let is_last = seq + 1 == chunks.len();
        let decoded = txs.iter().map(|tx| Tx::decode(tx, spec.is_op())).collect();
        open.execute(decoded, is_last, OnInvalid::Fail)?;
        if blobs {
            block.set_blob_gas_used(open.snapshot().header.blob_gas_used.unwrap_or_default());
        }
        messages.push(Frag { is_last, ..block.frag(txs.to_vec()) }.into());
    }
    messages.push(open.make_seal(blobs)?.into());
    let sealed = open.sealed().ok_or_else(|| Unverified::Internal("no sealed block".into()))?;
    Ok(Built { messages, sealed })
}

/// A block as messages that repeat its header, whether that is true or not: nothing is executed.
/// `blob_gas` is the blob gas of the transactions up to and with each.
pub fn stated(
    env: &Env,
    header: &alloy_consensus::Header,
    hash: B256,
    chunks: &[&[Bytes]],
    blob_gas: &[u64],
    dialect: Dialect,
) -> Vec<Message> {
    let mut block = BlockBuilder::from_env(env.clone()).with_dialect(dialect);
    let mut messages = vec![block.env().into()];
    let mut txs = 0;
    for (seq, chunk) in chunks.iter().enumerate() {
        txs += chunk.len();
        let used = txs.checked_sub(1).and_then(|last| blob_gas.get(last)).copied();
        block.set_blob_gas_used(used.unwrap_or_default());
        let is_last = seq + 1 == chunks.len();
        messages.push(Frag { is_last, ..block.frag(chunk.to_vec()) }.into());
    }
    let blobs = dialect == Dialect::V0Blob;
    messages.push(seal_of(header, hash, chunks.len() as u64, blobs).into());
    messages
}
