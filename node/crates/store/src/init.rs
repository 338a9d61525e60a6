//! Creates a database from the genesis, or checks an existing one.

use std::path::Path;
use std::sync::Arc;

use alloy_consensus::Header;
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::B256;
use alloy_trie::EMPTY_ROOT_HASH;
use fragcast_execution::chain::{ChainSpec, genesis_header};
use fragcast_execution::exec::memory::MemoryState;
use fragcast_execution::exec::overlay::StorageChange;
use fragcast_execution::exec::{ExecutedBlock, Layer};
use fragcast_execution::trie::StateTrie;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, TableError, WriteTransaction};

use super::codec::Bad;
use super::tables::{self, FORMAT, meta};
use super::view::corrupt;
use super::{StoreCore, StoreError, writer};

/// Block 0 of a chain.
pub(super) struct Start {
    spec: Arc<ChainSpec>,
    pub(super) header: Header,
    pub(super) hash: B256,
}

impl Start {
    pub(super) fn new(spec: &Arc<ChainSpec>) -> Result<Self, StoreError> {
        let genesis =
            spec.genesis.as_ref().ok_or_else(|| StoreError::NoGenesis(spec.name.clone()))?;
        let header = genesis_header(spec, genesis);
        let hash = header.hash_slow();
        Ok(Self { spec: Arc::clone(spec), header, hash })
    }

    /// Writes block 0 into empty tables. The genesis' state is in memory twice meanwhile, as
    /// accounts and as a trie.
    fn write(&self, txn: &WriteTransaction) -> Result<(), StoreError> {
        let genesis = self
            .spec
            .genesis
            .as_ref()
            .ok_or_else(|| StoreError::NoGenesis(self.spec.name.clone()))?;
        let state = MemoryState::of_genesis(genesis);
        let trie = state.trie().map_err(|e| StoreError::Corrupt(format!("the genesis: {e}")))?;
        let root = trie.root();
        if root != self.header.state_root {
            let wanted = self.header.state_root;
            return Err(StoreError::Corrupt(format!("the genesis has root {root}, not {wanted}")));
        }
        let diff = StateTrie::diff(&StateTrie::from_root(EMPTY_ROOT_HASH), &trie);
        let mut layer = Layer::default();
        for (address, account) in &genesis.alloc {
            let storage = account.storage.iter().flatten();
            let slots = storage.map(|(slot, value)| ((*slot).into(), (*value).into())).collect();
            layer.storage.insert(*address, StorageChange { wiped: false, slots });
        }
        layer.accounts.extend(state.accounts().map(|(a, account)| (a, Some(account))));
        writer::apply(txn, &layer, &diff)?;
        let mut codes = txn.open_table(tables::CODES)?;
        for (hash, code) in state.codes() {
            codes.insert(&hash.0, code.as_ref())?;
        }
        drop(codes);
        let shanghai = self.spec.is_shanghai_active_at_timestamp(self.header.timestamp);
        writer::put_block(
            txn,
            &ExecutedBlock {
                attempt: 0,
                hash: self.hash,
                header: self.header.clone(),
                frags: Vec::new(),
                withdrawals: (shanghai && !self.spec.is_op()).then(Arc::default),
            },
        )?;
        // Readers open all tables, so all must be there.
        txn.open_table(tables::TXS)?;
        txn.open_table(tables::UNDO)?;
        let mut known = txn.open_table(tables::META)?;
        known.insert(meta::FORMAT, FORMAT.to_le_bytes().as_slice())?;
        known.insert(meta::GENESIS, self.hash.as_slice())?;
        known.insert(meta::CHAIN_ID, self.spec.chain_id.to_le_bytes().as_slice())?;
        Ok(())
    }
}

/// Returns whether the database has contents; if so, checks that they are of this chain and this
/// format.
pub(super) fn check(db: &impl ReadableDatabase, start: &Start) -> Result<bool, StoreError> {
    let txn = db.begin_read()?;
    let known = match txn.open_table(tables::META) {
        Ok(known) => known,
        Err(TableError::TableDoesNotExist(_)) => {
            let other = txn.list_tables()?.next().is_some();
            return if other { Err(StoreError::Foreign) } else { Ok(false) };
        }
        Err(error) => return Err(error.into()),
    };
    let read = |key: &'static str| -> Result<Vec<u8>, StoreError> {
        let value = known.get(key)?.map(|value| value.value().to_vec());
        value.ok_or_else(|| corrupt(key)(Bad("it is gone")))
    };
    let wrong = |key: &'static str| corrupt(key)(Bad("it has a wrong length"));
    let format = read(meta::FORMAT)?.try_into().map_err(|_| wrong(meta::FORMAT))?;
    let found = u32::from_le_bytes(format);
    if found != FORMAT {
        return Err(StoreError::Format { found });
    }
    let chain_id = read(meta::CHAIN_ID)?.try_into().map_err(|_| wrong(meta::CHAIN_ID))?;
    let chain_id = u64::from_le_bytes(chain_id);
    if chain_id != start.spec.chain_id {
        return Err(StoreError::OtherChain { found: chain_id, wanted: start.spec.chain_id });
    }
    let genesis =
        B256::try_from(read(meta::GENESIS)?.as_slice()).map_err(|_| wrong(meta::GENESIS))?;
    if genesis != start.hash {
        return Err(StoreError::OtherGenesis { found: genesis, wanted: start.hash });
    }
    Ok(true)
}

pub(super) fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.to_owned()),
        DatabaseError::Storage(redb::StorageError::Io(error)) => {
            StoreError::Io(path.to_owned(), error)
        }
        error => StoreError::Db(Box::new(error.into())),
    }
}

/// Creates a database with the genesis under another name, and renames it once it is complete and
/// durable, because a half-made one after a crash could not be opened.
pub(super) fn create_file(path: &Path, builder: &Builder, start: &Start) -> Result<(), StoreError> {
    let failed = |error| StoreError::Io(path.to_owned(), error);
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".new.");
    // What earlier crashes left.
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            std::fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    let file = tempfile::Builder::new().prefix(&prefix).tempfile_in(directory).map_err(failed)?;
    let db = builder.create(file.path()).map_err(|error| open_error(path, error))?;
    create(&db, start)?;
    drop(db);
    file.as_file().sync_all().map_err(failed)?;
    // If somebody else was faster, theirs is as good.
    if let Err(error) = file.persist_noclobber(path)
        && error.error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(failed(error.error));
    }
    // The name is durable once the directory is.
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Writes the genesis into an empty database.
pub(super) fn create(db: &Database, start: &Start) -> Result<(), StoreError> {
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    start.write(&txn)?;
    txn.commit()?;
    Ok(())
}

/// Forgets everything but the genesis, in one transaction.
pub(super) fn reset(shared: &StoreCore) -> Result<(), StoreError> {
    let txn = writer::begin(shared)?;
    txn.delete_table(tables::META)?;
    txn.delete_table(tables::ACCOUNTS)?;
    txn.delete_table(tables::SLOTS)?;
    txn.delete_table(tables::CODES)?;
    txn.delete_table(tables::NODES)?;
    txn.delete_table(tables::HEADERS)?;
    txn.delete_table(tables::CANONICAL)?;
    txn.delete_table(tables::BODIES)?;
    txn.delete_table(tables::RECEIPTS)?;
    txn.delete_table(tables::TXS)?;
    txn.delete_table(tables::UNDO)?;
    shared.start.write(&txn)?;
    txn.commit()?;
    Ok(())
}
