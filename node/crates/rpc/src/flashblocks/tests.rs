//! Flashblocks of executed chains, and the server.

mod consumers;
mod format;
mod op;
mod ring;
mod serving;

use std::num::NonZeroU32;
use std::sync::Arc;

use alloy_primitives::Bytes;
use fragcast_execution::devnet::DevnetConfig;
use fragcast_execution::exec::{OpenBlock, SealedBlock, Snapshot};
use fragcast_execution::executor::ChainEvent;
use fragcast_execution::testing::TestChain;
use op_alloy_rpc_types_engine::OpFlashblockPayload;

use super::sequence::{Sequences, Step};

/// A devnet's chain with a trie, so that its blocks have all their roots.
fn chain() -> TestChain {
    let accounts = NonZeroU32::new(20).unwrap();
    TestChain::with_trie(&DevnetConfig { accounts, ..DevnetConfig::default() })
}

fn txs(chain: &mut TestChain, count: usize) -> Vec<Bytes> {
    (0..count).map(|_| chain.workload.next_tx().bytes).collect()
}

/// The snapshots of a block, one for each frag, and the block.
fn build(chain: &mut TestChain, frags: &[usize]) -> (Vec<Arc<Snapshot>>, Arc<SealedBlock>) {
    let mut block = chain.open();
    let mut snapshots = Vec::new();
    for (seq, count) in frags.iter().enumerate() {
        let txs = txs(chain, *count);
        chain.frag(&mut block, &txs, seq + 1 == frags.len());
        snapshots.push(block.snapshot());
    }
    (snapshots, chain.seal(block))
}

fn frag(snapshot: &Arc<Snapshot>) -> ChainEvent {
    ChainEvent::Frag(Arc::clone(snapshot))
}

fn verified(block: &Arc<SealedBlock>) -> ChainEvent {
    ChainEvent::Verified(Arc::clone(block))
}

/// The flashblock of a step, parsed by op-alloy's types; and whether it is the first or the last.
fn read(step: Step) -> (OpFlashblockPayload, bool, bool) {
    match step {
        Step::Payload { text, at, last } => {
            let payload: OpFlashblockPayload =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
            assert_eq!((at.block, at.index), (payload.block_number(), payload.index));
            (payload, at.index == 0, last)
        }
        other => panic!("{other:?} is no flashblock"),
    }
}

/// The flashblocks of a block.
fn payloads(snapshots: &[Arc<Snapshot>], sealed: &Arc<SealedBlock>) -> Vec<OpFlashblockPayload> {
    let mut sequences = Sequences::default();
    let events = snapshots.iter().map(frag).chain([verified(sealed)]);
    events.map(|event| read(sequences.take(&event)).0).collect()
}

/// An open block with one frag of two transactions.
fn opened(chain: &mut TestChain) -> OpenBlock {
    let mut block = chain.open();
    let txs = txs(chain, 2);
    chain.frag(&mut block, &txs, false);
    block
}
