//! The tables of the database. Their names and layouts are its format: a change of one raises
//! [`FORMAT`].

use redb::TableDefinition;

/// Version of the format.
pub(super) const FORMAT: u32 = 1;

/// Facts about the database: [`meta`].
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Account by address.
pub(super) const ACCOUNTS: TableDefinition<'_, &[u8; 20], &[u8]> = TableDefinition::new("accounts");
/// Value by address and slot.
pub(super) const SLOTS: TableDefinition<'_, &[u8; 52], &[u8]> = TableDefinition::new("slots");
/// Code by hash. Never deleted: another account may have the same.
pub(super) const CODES: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("codes");
/// RLP of a trie node by trie and path.
pub(super) const NODES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("nodes");
/// RLP of a canonical header by hash.
pub(super) const HEADERS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("headers");
/// Hash by number.
pub(super) const CANONICAL: TableDefinition<'_, u64, &[u8; 32]> = TableDefinition::new("canonical");
/// Transactions, frags and withdrawals by number.
pub(super) const BODIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bodies");
/// Receipts by number.
pub(super) const RECEIPTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("receipts");
/// Number and index by hash of the transaction.
pub(super) const TXS: TableDefinition<'_, &[u8; 32], (u64, u32)> = TableDefinition::new("txs");
/// The values that a block overwrote, by its number.
pub(super) const UNDO: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("undo");

/// Keys of [`META`].
pub(super) mod meta {
    /// [`FORMAT`](super::FORMAT), u32.
    pub(crate) const FORMAT: &str = "format";
    /// Hash of the genesis.
    pub(crate) const GENESIS: &str = "genesis";
    /// Chain id, u64.
    pub(crate) const CHAIN_ID: &str = "chain_id";
    /// The newest block.
    pub(crate) const HEAD: &str = "head";
}
