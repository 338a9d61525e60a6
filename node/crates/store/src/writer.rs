//! Writing: one durable transaction per block, forwards and back, and the thread that does it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use alloy_primitives::B256;
use alloy_rlp::Encodable;
use fragcast_execution::exec::{ExecutedBlock, Layer, SealedBlock};
use fragcast_execution::state::SourceError;
use fragcast_execution::trie::{StateTrie, TrieDiff, TrieId};
use redb::{Table, WriteTransaction};

use super::codec::{
    Head, decode_account, decode_slot, encode_account, encode_slot, slot_key, slot_range, trie_end,
    trie_key, trie_prefix,
};
use super::tables::{self, meta};
use super::undo::Undo;
use super::view::{StoreView, corrupt};
use super::{StoreCore, StoreError, body, init};

/// The most old records that are deleted with each block. One becomes old with every block; if the
/// configured number has been lowered, this many catch up without making a block slow.
const PRUNE_PER_BLOCK: u64 = 16;

/// A command to the writer's thread; commands are done in order.
pub(super) enum Command {
    /// Write a block.
    Persist(Arc<SealedBlock>),
    /// Go back to a block, and report the result.
    Unwind(B256, SyncSender<Result<(), SourceError>>),
}

/// Runs until all senders are gone and everything is written.
pub(super) fn run(shared: &StoreCore, commands: &Receiver<Command>) {
    for command in commands {
        match command {
            Command::Persist(block) => {
                let result = persist(shared, &block);
                shared.stats.queued.fetch_sub(1, Ordering::Relaxed);
                if let Err(error) = result {
                    shared.fail(&format!("block {}: {error}", block.number()), &error);
                }
            }
            Command::Unwind(block, answer) => {
                let result = unwind(shared, block);
                if let Err(error @ StoreError::Db(_)) = &result {
                    shared.fail(&format!("unwinding to {block}: {error}"), error);
                }
                // Whoever asked may have gone.
                let _ = answer.send(result.map_err(SourceError::from));
            }
        }
    }
}

/// A transaction that is durable once it is committed.
///
/// Quick repair keeps the allocator's state with each commit and commits in two phases: without it
/// the first start after a crash would read the whole file.
pub(super) fn begin(shared: &StoreCore) -> Result<WriteTransaction, StoreError> {
    let mut txn = shared.db.begin_write()?;
    txn.set_quick_repair(true);
    Ok(txn)
}

fn persist(shared: &StoreCore, block: &SealedBlock) -> Result<(), StoreError> {
    if shared.failure().is_some() {
        return Ok(());
    }
    let head = shared.view.load().head;
    let header = &block.snapshot.header;
    if block.hash() == head.hash {
        return Ok(());
    }
    if header.parent_hash != head.hash || head.number.checked_add(1) != Some(header.number) {
        return Err(StoreError::Order { block: block.hash(), head: head.hash });
    }
    let (Some(before), Ok(after)) = (&block.parent_trie, &block.trie) else {
        return Err(StoreError::NoTrie(block.hash()));
    };
    let start = Instant::now();
    let diff = StateTrie::diff(before, after);
    let txn = begin(shared)?;
    let undo = apply(&txn, &block.layer, &diff)?;
    put_block(&txn, &block.snapshot.block)?;
    txn.open_table(tables::UNDO)?.insert(header.number, undo.encode().as_slice())?;
    prune(shared, &txn, header.number)?;
    txn.commit()?;
    shared.stats.committed(start.elapsed());
    shared.publish()
}

/// Reads a value before it is overwritten.
macro_rules! replace {
    ($table:expr, $undo:expr, $key:expr, $new:expr) => {{
        let (key, new): (_, Option<Vec<u8>>) = ($key, $new);
        let old = $table.get(&key)?.map(|old| old.value().to_vec());
        // Reading touches accounts without changing them, and pages that are not written cost
        // nothing.
        if old != new {
            match &new {
                Some(new) => $table.insert(&key, new.as_slice())?,
                None => $table.remove(&key)?,
            };
            $undo.push((key, old));
        }
    }};
}

/// Applies a block's changes and returns the values that they overwrote.
pub(super) fn apply(
    txn: &WriteTransaction,
    layer: &Layer,
    diff: &TrieDiff,
) -> Result<Undo, StoreError> {
    use redb::ReadableTable;

    let mut undo = Undo::default();
    // In order of their keys: neighbours share pages.
    let mut accounts: Vec<_> = layer.accounts.iter().collect();
    accounts.sort_unstable_by_key(|(address, _)| **address);
    let mut table = txn.open_table(tables::ACCOUNTS)?;
    for (address, account) in &accounts {
        let new = account.as_ref().map(encode_account);
        replace!(table, undo.accounts, address.into_array(), new);
    }
    drop(table);

    let mut table = txn.open_table(tables::SLOTS)?;
    for (address, account) in accounts {
        let change = layer.storage.get(address);
        // An account that is gone has no storage, whatever its layer says; so has it in the trie.
        if account.is_none() || change.is_some_and(|change| change.wiped) {
            let (first, last) = slot_range(*address);
            for removed in table.extract_from_if::<&[u8; 52], _>(&first..=&last, |_, _| true)? {
                let (key, value) = removed?;
                undo.slots.push((*key.value(), Some(value.value().to_vec())));
            }
        }
        if account.is_none() {
            continue;
        }
        let mut slots: Vec<_> = change.iter().flat_map(|change| &change.slots).collect();
        slots.sort_unstable();
        for (slot, value) in slots {
            let new = (!value.is_zero()).then(|| encode_slot(*value));
            replace!(table, undo.slots, slot_key(*address, *slot), new);
        }
    }
    drop(table);

    let mut table = txn.open_table(tables::CODES)?;
    for (hash, code) in &layer.codes {
        if table.get(&hash.0)?.is_some() {
            continue;
        }
        table.insert(&hash.0, code.original_byte_slice())?;
    }
    drop(table);

    let mut table = txn.open_table(tables::NODES)?;
    for address in &diff.wiped {
        let trie = TrieId::Storage(*address);
        let (first, end) = (trie_prefix(trie), trie_end(trie));
        let range = first.as_slice()..end.as_slice();
        for removed in table.extract_from_if(range, |_, _| true)? {
            let (key, value) = removed?;
            undo.nodes.push((key.value().to_vec(), Some(value.value().to_vec())));
        }
    }
    let mut changes: Vec<_> =
        diff.changes.iter().map(|c| (trie_key(c.trie, &c.path), c.after.as_ref())).collect();
    changes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    for (key, new) in changes {
        let old = match new {
            Some(new) => table.insert(key.as_slice(), new.as_ref())?,
            None => table.remove(key.as_slice())?,
        };
        let old = old.map(|old| old.value().to_vec());
        undo.nodes.push((key, old));
    }
    Ok(undo)
}

/// Stores a block as the head.
pub(super) fn put_block(txn: &WriteTransaction, block: &ExecutedBlock) -> Result<(), StoreError> {
    let (number, hash) = (block.header.number, block.hash);
    let mut header = Vec::with_capacity(block.header.length());
    block.header.encode(&mut header);
    txn.open_table(tables::HEADERS)?.insert(&hash.0, header.as_slice())?;
    txn.open_table(tables::CANONICAL)?.insert(number, &hash.0)?;
    txn.open_table(tables::BODIES)?.insert(number, body::encode_body(block).as_slice())?;
    txn.open_table(tables::RECEIPTS)?.insert(number, body::encode_receipts(block).as_slice())?;
    let mut txs = txn.open_table(tables::TXS)?;
    for placed in block.txs() {
        txs.insert(&placed.executed.tx.hash.0, (number, placed.index as u32))?;
    }
    set_head(txn, &Head { number, hash, state_root: block.header.state_root })
}

fn set_head(txn: &WriteTransaction, head: &Head) -> Result<(), StoreError> {
    txn.open_table(tables::META)?.insert(meta::HEAD, head.encode().as_slice())?;
    Ok(())
}

/// Deletes records that are older than the configuration keeps.
fn prune(shared: &StoreCore, txn: &WriteTransaction, number: u64) -> Result<(), StoreError> {
    let keep = &shared.config;
    if let Some(last) = number.checked_sub(keep.reorg_depth) {
        first_up_to(&mut txn.open_table(tables::UNDO)?, last)?;
    }
    let Some(blocks) = keep.keep_blocks else { return Ok(()) };
    // What can be taken back is kept whole.
    let Some(last) = number.checked_sub(blocks.max(keep.reorg_depth).max(1)) else { return Ok(()) };
    for (number, record) in first_up_to(&mut txn.open_table(tables::BODIES)?, last)? {
        forget_txs(shared, txn, number, &record)?;
    }
    first_up_to(&mut txn.open_table(tables::RECEIPTS)?, last)?;
    Ok(())
}

/// Removes the first records up to `last`, a few at a time.
fn first_up_to(
    table: &mut Table<'_, u64, &'static [u8]>,
    last: u64,
) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    let mut removed = Vec::new();
    for record in table.extract_from_if(..=last, |_, _| true)?.take(PRUNE_PER_BLOCK as usize) {
        let (number, record) = record?;
        removed.push((number.value(), record.value().to_vec()));
    }
    Ok(removed)
}

fn forget_txs(
    shared: &StoreCore,
    txn: &WriteTransaction,
    number: u64,
    record: &[u8],
) -> Result<(), StoreError> {
    let body = body::decode_body(record, shared.op)
        .map_err(corrupt(format_args!("the body of block {number}")))?;
    let mut txs = txn.open_table(tables::TXS)?;
    for hash in body.hashes() {
        txs.remove(&hash.0)?;
    }
    Ok(())
}

/// Goes back to `target`, one transaction per block, so that the state is a verified one at every
/// moment.
fn unwind(shared: &StoreCore, target: B256) -> Result<(), StoreError> {
    if let Some(failure) = shared.failure() {
        return Err(StoreError::Failed(failure));
    }
    let view = shared.view.load_full();
    let head = view.head;
    if target == head.hash {
        return Ok(());
    }
    let missing = || StoreError::Missing(format!("block {target} among the head's ancestors"));
    let number = view.header(target)?.ok_or_else(missing)?.number;
    if number >= head.number || view.hash(number)? != Some(target) {
        return Err(missing());
    }
    // All or nothing: half of the way back would leave neither chain.
    for undone in number + 1..=head.number {
        if view.undo.get(undone)?.is_some() {
            continue;
        }
        if target == shared.genesis {
            init::reset(shared)?;
            return shared.publish();
        }
        return Err(StoreError::Missing(format!(
            "the undo record of block {undone}: reorg_depth is {}",
            shared.config.reorg_depth
        )));
    }
    drop(view);
    while shared.view.load().head.hash != target {
        take_back(shared)?;
    }
    Ok(())
}

/// Takes the head back.
fn take_back(shared: &StoreCore) -> Result<(), StoreError> {
    let view: Arc<StoreView> = shared.view.load_full();
    let head = view.head;
    let number = head.number;
    let wrong = || corrupt(format!("the undo record of block {number}"));
    let gone = |what: &str| StoreError::Corrupt(format!("{what} of block {number} is gone"));
    let header = view.header(head.hash)?.ok_or_else(|| gone("the header"))?;
    let parent = view.header(header.parent_hash)?.ok_or_else(|| gone("the parent"))?;
    let undo = view.undo.get(number)?.ok_or_else(|| gone("the undo record"))?;
    let undo = Undo::decode(undo.value()).map_err(wrong())?;
    drop(view);

    let txn = begin(shared)?;
    put_back(&txn, &undo)?;
    if let Some(body) = txn.open_table(tables::BODIES)?.remove(number)? {
        forget_txs(shared, &txn, number, body.value())?;
    }
    txn.open_table(tables::RECEIPTS)?.remove(number)?;
    txn.open_table(tables::UNDO)?.remove(number)?;
    txn.open_table(tables::CANONICAL)?.remove(number)?;
    txn.open_table(tables::HEADERS)?.remove(&head.hash.0)?;
    let (hash, state_root) = (header.parent_hash, parent.state_root);
    set_head(&txn, &Head { number: parent.number, hash, state_root })?;
    txn.commit()?;
    shared.publish()
}

/// Restores the overwritten values, the last first.
fn put_back(txn: &WriteTransaction, undo: &Undo) -> Result<(), StoreError> {
    let wrong = || corrupt("an undo record");
    let mut table = txn.open_table(tables::ACCOUNTS)?;
    for (key, value) in undo.accounts.iter().rev() {
        match value {
            Some(value) => {
                decode_account(value).map_err(wrong())?;
                table.insert(key, value.as_slice())?
            }
            None => table.remove(key)?,
        };
    }
    drop(table);
    let mut table = txn.open_table(tables::SLOTS)?;
    for (key, value) in undo.slots.iter().rev() {
        match value {
            Some(value) => {
                decode_slot(value).map_err(wrong())?;
                table.insert(key, value.as_slice())?
            }
            None => table.remove(key)?,
        };
    }
    drop(table);
    let mut table = txn.open_table(tables::NODES)?;
    for (key, value) in undo.nodes.iter().rev() {
        match value {
            Some(value) => table.insert(key.as_slice(), value.as_slice())?,
            None => table.remove(key.as_slice())?,
        };
    }
    Ok(())
}
