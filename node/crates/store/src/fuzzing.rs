//! Bodies of the fuzz targets; see `fragcast_shredder::fuzzing`.
//!
//! A file can be damaged by a disk, or come from somebody else. Each target takes any bytes and
//! panics if an invariant breaks.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use fragcast_execution::chain::ChainSpec;
use fragcast_execution::devnet::{DevnetConfig, Genesis};
use fragcast_execution::exec::StateSource as _;

use crate::body::{decode_body, decode_receipts};
use crate::codec::{Head, decode_account, decode_slot, encode_account, encode_slot};
use crate::undo::Undo;
use crate::{Store, StoreConfig};

/// A named fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[("record", record), ("file", file)];

/// A record of any table is an error, or encodes to the bytes it was decoded from.
pub fn record(data: &[u8]) {
    if let Ok(account) = decode_account(data) {
        assert_eq!(encode_account(&account), data);
    }
    if let Ok(value) = decode_slot(data) {
        assert_eq!(encode_slot(value), data);
    }
    if let Ok(head) = Head::decode(data) {
        assert_eq!(head.encode(), data);
    }
    if let Ok(undo) = Undo::decode(data) {
        assert_eq!(undo.encode(), data);
    }
    for op in [false, true] {
        if let Ok(body) = decode_body(data, op) {
            assert!(body.hashes().count() <= data.len());
        }
    }
    if let Ok(receipts) = decode_receipts(data) {
        assert!(receipts.len() <= data.len());
    }
}

fn config() -> StoreConfig {
    StoreConfig { cache_mib: 4, ..StoreConfig::default() }
}

/// A chain, and the file of a store with its genesis.
fn image() -> &'static (Arc<ChainSpec>, Vec<u8>) {
    static IMAGE: OnceLock<(Arc<ChainSpec>, Vec<u8>)> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let accounts = NonZeroU32::new(4).expect("not zero");
        let devnet = DevnetConfig { accounts, ..DevnetConfig::default() };
        let spec = Genesis::devnet(&devnet).chain_spec("dev").expect("a genesis of ours");
        let spec = Arc::new(spec);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("chain.redb");
        drop(Store::open(&path, &spec, config()).expect("a new store"));
        let bytes = std::fs::read(&path).expect("it was written");
        (spec, bytes)
    })
}

fn open(path: &Path, spec: &Arc<ChainSpec>) {
    let Ok(store) = Store::open(path, spec, config()) else { return };
    // What is read of it is the genesis, or an error.
    if store.verify().is_ok() {
        assert_eq!(store.durable().map(|(number, _)| number), Some(0));
    }
}

/// A store's file, cut short or with some of its bytes changed, opens to an error or to a store
/// that tells whether it is whole.
///
/// Four bytes say where something is changed and to what; a first byte above 200, that the file
/// ends there.
pub fn file(data: &[u8]) {
    let (spec, image) = image();
    let mut bytes = image.clone();
    for change in data.chunks_exact(5).take(64) {
        let at = u32::from_le_bytes([change[1], change[2], change[3], 0]) as usize % image.len();
        if change[0] > 200 {
            bytes.truncate(at);
        } else if let Some(byte) = bytes.get_mut(at) {
            *byte ^= change[4];
        }
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("chain.redb");
    std::fs::write(&path, &bytes).expect("room for the file");
    open(&path, spec);
}

#[cfg(test)]
mod tests {
    use super::*;
    use fragcast_shredder::fuzzing::run_on_seeded_bytes;

    /// Found by the fuzz target: redb panics on a page whose lengths are wrong.
    #[test]
    fn a_page_that_redb_cannot_read_is_an_error() {
        super::file(&[0, 0xff, 0xfc, 0xff, 0xff, 1, 0x40, 0, 0, 0, 2, 3, 0, 0x10, 1]);
    }

    #[test]
    fn records_hold_on_seeded_bytes() {
        let head = Head { number: 7, ..Head::decode(&[1; 72]).unwrap() }.encode();
        run_on_seeded_bytes(&TARGETS[..1], "fuzz store", (400, 300), |round, data| {
            if round % 3 == 0 {
                *data = head.clone();
            }
        });
    }

    #[test]
    fn damaged_files_are_errors_or_whole() {
        run_on_seeded_bytes(&TARGETS[1..], "fuzz store file", (24, 60), |_, _| {});
    }
}
