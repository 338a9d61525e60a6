//! The store against a model: forwards, backwards, and through crashes.

mod backend;
mod crash;
mod full;
mod history;
mod synth;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::{B256, U256};
use fragcast_execution::devnet::{DevnetConfig, Genesis};

use self::backend::TearingBackend;
use self::synth::{Model, Step, Tip};
use super::*;

/// SplitMix64.
#[derive(Debug)]
pub(super) struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn devnet() -> DevnetConfig {
    DevnetConfig { accounts: NonZeroU32::new(8).unwrap(), ..DevnetConfig::default() }
}

fn spec() -> Arc<ChainSpec> {
    Arc::new(Genesis::devnet(&devnet()).chain_spec("dev").unwrap())
}

fn small(reorg_depth: u64) -> StoreConfig {
    StoreConfig { reorg_depth, queue: 4, cache_mib: 4, keep_blocks: None }
}

fn genesis_step(spec: &ChainSpec) -> Step {
    let header = fragcast_execution::chain::genesis_header(spec, spec.genesis.as_ref().unwrap());
    let hash = header.hash_slow();
    Step { header, hash, model: Model::default() }
}

/// Draws how many blocks to take back: undo records reach 6 blocks down from the highest block that
/// there ever was.
fn back(chain: &[Step], highest: &mut usize, rng: &mut Rng) -> usize {
    let number = chain.len() - 1;
    *highest = number.max(*highest);
    rng.below((number + 7).saturating_sub(*highest).clamp(1, number + 1) as u64) as usize
}

/// Waits until all that was persisted is durable.
fn drain(store: &Store) {
    let begun = Instant::now();
    while store.stats().queued > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the writer makes no progress");
        std::thread::yield_now();
    }
}

#[test]
fn a_new_store_holds_the_genesis() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let spec = spec();
    let store = Store::open(&path, &spec, small(8)).unwrap();
    let genesis = genesis_step(&spec);
    assert_eq!(store.durable(), Some((0, genesis.hash)));
    assert_eq!(store.head().unwrap(), Some(genesis.hash));
    let anchor = store.at(genesis.hash).unwrap().unwrap();
    assert_eq!(anchor.header, genesis.header);
    for (address, expected) in &spec.genesis.as_ref().unwrap().alloc {
        let account = anchor.view.account(*address).unwrap().unwrap();
        assert_eq!(account.balance, expected.balance);
        let key = alloy_primitives::keccak256(address);
        assert_eq!(anchor.trie.account(key, &*anchor.nodes).unwrap(), Some(account));
        if let Some(code) = expected.code.as_ref().filter(|code| !code.is_empty()) {
            assert_eq!(&anchor.view.code(account.code_hash).unwrap(), code);
        }
        for (slot, value) in expected.storage.iter().flatten() {
            let value = U256::from_be_bytes(value.0);
            assert_eq!(anchor.view.storage(*address, (*slot).into()).unwrap(), value);
        }
    }
    let report = store.verify().unwrap();
    assert_eq!((report.number, report.headers, report.blocks), (0, 1, 1));
    assert_eq!(report.accounts, 12);
    assert!(store.at(B256::repeat_byte(1)).unwrap().is_none());
    let missing = anchor.view.code(B256::repeat_byte(1)).unwrap_err();
    assert!(matches!(missing, SourceError::Missing(_)), "{missing}");
}

#[test]
fn it_refuses_what_is_not_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let spec = spec();
    let store = Store::open(&path, &spec, small(8)).unwrap();
    let again = Store::open(&path, &spec, small(8)).unwrap_err();
    assert!(matches!(again, StoreError::InUse(_)), "{again}");
    drop(store);
    let of = |config| Arc::new(Genesis::devnet(&config).chain_spec("dev").unwrap());
    let other = of(DevnetConfig { chain_id: 5, ..devnet() });
    let error = Store::open(&path, &other, small(8)).unwrap_err();
    assert!(matches!(error, StoreError::OtherChain { wanted: 5, .. }), "{error}");
    let other = of(DevnetConfig { timestamp: 5, ..devnet() });
    let error = Store::open(&path, &other, small(8)).unwrap_err();
    assert!(matches!(error, StoreError::OtherGenesis { .. }), "{error}");
    let error = Store::open(&path, &Arc::new(ChainSpec::op_mainnet()), small(8)).unwrap_err();
    assert!(matches!(error, StoreError::NoGenesis(_)), "{error}");

    let db = Database::open(&path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(tables::META)
        .unwrap()
        .insert(tables::meta::FORMAT, 9_u32.to_le_bytes().as_slice())
        .unwrap();
    txn.commit().unwrap();
    drop(db);
    let error = Store::open(&path, &spec, small(8)).unwrap_err();
    assert!(matches!(error, StoreError::Format { found: 9 }), "{error}");

    let foreign = dir.path().join("foreign");
    let db = Database::create(&foreign).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(tables::CANONICAL).unwrap();
    txn.commit().unwrap();
    drop(db);
    let error = Store::open(&foreign, &spec, small(8)).unwrap_err();
    assert!(matches!(error, StoreError::Foreign), "{error}");
    let text = dir.path().join("text");
    std::fs::write(&text, [b'x'; 10_000]).unwrap();
    Store::open(&text, &spec, small(8)).unwrap_err();
}

#[test]
fn blocks_go_on_and_come_back() {
    let spec = spec();
    for seed in 0..20 {
        let mut rng = Rng(seed);
        let backend = TearingBackend::new(Vec::new());
        let store = Store::on(backend.clone(), &spec, small(6)).unwrap();
        let mut chain = vec![genesis_step(&spec)];
        let mut highest = 0;
        for _ in 0..6 {
            let mut tip = Tip::of(&store, chain.last().unwrap().clone());
            // Ahead of what is durable: later blocks resolve from whatever is.
            for _ in 0..1 + rng.below(8) {
                store.persist(&tip.block(&store, &mut rng));
                chain.push(tip.step.clone());
            }
            let back = back(&chain, &mut highest, &mut rng);
            // The target may still be queued.
            store.unwind(chain[chain.len() - 1 - back].hash).unwrap();
            chain.truncate(chain.len() - back);
            let head = chain.last().unwrap();
            assert_eq!(store.durable(), Some((head.header.number, head.hash)));
            head.model.check(&*store.view());
            let report = store.verify().unwrap();
            assert_eq!(report.headers, chain.len() as u64);
        }
        assert!(!store.stats().failed && store.stats().refused == 0);
        // What was closed properly is opened as it was.
        let genesis_root = chain[0].header.state_root;
        drop(store);
        let store = Store::on(backend, &spec, small(6)).unwrap();
        let head = chain.last().unwrap();
        head.model.check(&*store.view());
        assert_eq!(store.verify().unwrap().hash, head.hash);
        // By undo records or by starting over.
        store.unwind(chain[0].hash).unwrap();
        assert_eq!(store.verify().unwrap().state_root, genesis_root);
    }
}

#[test]
fn beyond_the_undo_records_only_the_genesis_is_left() {
    let spec = spec();
    let mut rng = Rng(7);
    let store = Store::on(TearingBackend::default(), &spec, small(3)).unwrap();
    let mut chain = vec![genesis_step(&spec)];
    let mut tip = Tip::of(&store, chain[0].clone());
    for _ in 0..10 {
        store.persist(&tip.block(&store, &mut rng));
        chain.push(tip.step.clone());
    }
    let error = store.unwind(chain[6].hash).unwrap_err();
    assert!(matches!(error, SourceError::Missing(_)), "{error}");
    assert_eq!(store.durable(), Some((10, chain[10].hash)));
    let error = store.unwind(B256::repeat_byte(3)).unwrap_err();
    assert!(matches!(error, SourceError::Missing(_)), "{error}");
    store.unwind(chain[7].hash).unwrap();
    assert_eq!(store.durable(), Some((7, chain[7].hash)));
    chain[7].model.check(&*store.view());
    store.verify().unwrap();
    // Nothing is left to undo.
    store.unwind(chain[6].hash).unwrap_err();
    store.unwind(chain[0].hash).unwrap();
    let report = store.verify().unwrap();
    assert_eq!((report.number, report.headers, report.accounts), (0, 1, 12));
    let mut tip = Tip::of(&store, chain[0].clone());
    store.persist(&tip.block(&store, &mut rng));
    drain(&store);
    assert_eq!(store.verify().unwrap().hash, tip.step.hash);
}

#[test]
fn a_block_that_does_not_follow_is_passed_over() {
    let spec = spec();
    let mut rng = Rng(1);
    let store = Store::on(TearingBackend::default(), &spec, small(3)).unwrap();
    let mut tip = Tip::of(&store, genesis_step(&spec));
    let first = tip.block(&store, &mut rng);
    let second = tip.block(&store, &mut rng);
    store.persist(&second);
    let no_trie = SealedBlock { parent_trie: None, ..(*first).clone() };
    store.persist(&Arc::new(no_trie));
    store.persist(&first);
    // Twice the same is no error.
    store.persist(&first);
    store.persist(&second);
    drain(&store);
    let stats = store.stats();
    assert_eq!((stats.refused, stats.commits, stats.durable), (2, 2, 2));
    assert!(!stats.failed && store.failure().is_none());
    store.verify().unwrap();
}

#[test]
fn verification_finds_damage() {
    type Damage = fn(&redb::WriteTransaction);
    let damages: [(&str, Damage); 6] = [
        ("flat state", |txn| {
            drop(txn.open_table(tables::ACCOUNTS).unwrap().pop_first().unwrap());
        }),
        ("flat state", |txn| {
            drop(txn.open_table(tables::SLOTS).unwrap().pop_first().unwrap());
        }),
        ("lacks node", |txn| {
            drop(txn.open_table(tables::NODES).unwrap().pop_last().unwrap());
        }),
        ("are stored", |txn| {
            let mut nodes = txn.open_table(tables::NODES).unwrap();
            nodes.insert([1, 2, 3].as_slice(), [1].as_slice()).unwrap();
        }),
        ("code", |txn| {
            drop(txn.open_table(tables::CODES).unwrap().pop_first().unwrap());
        }),
        ("header", |txn| {
            let mut canonical = txn.open_table(tables::CANONICAL).unwrap();
            canonical.insert(0, &[7; 32]).unwrap();
        }),
    ];
    let dir = tempfile::tempdir().unwrap();
    let spec = spec();
    for (i, (what, damage)) in damages.into_iter().enumerate() {
        let path = dir.path().join(format!("{i}"));
        drop(Store::open(&path, &spec, small(3)).unwrap());
        let db = Database::open(&path).unwrap();
        let txn = db.begin_write().unwrap();
        damage(&txn);
        txn.commit().unwrap();
        drop(db);
        let error = Store::open(&path, &spec, small(3)).unwrap().verify().unwrap_err();
        assert!(error.to_string().contains(what) || what == "header", "{error}");
    }
}

#[test]
fn a_database_is_checked_without_being_opened_for_writing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chain.redb");
    let spec = spec();
    assert_eq!(Store::check(&path, &spec).unwrap(), Found::Nothing);
    assert!(!path.exists());
    let store = Store::open(&path, &spec, small(8)).unwrap();
    let told = |checked: Result<Found, StoreError>| checked.unwrap_err().to_string();
    assert!(told(Store::check(&path, &spec)).contains("is in use"));
    let genesis = store.durable().unwrap();
    drop(store);
    let before = std::fs::read(&path).unwrap();
    assert_eq!(Store::check(&path, &spec).unwrap(), Found::Head(0, genesis.1));
    let other = DevnetConfig { chain_id: 77, ..devnet() };
    let other = Arc::new(Genesis::devnet(&other).chain_spec("dev").unwrap());
    assert!(told(Store::check(&path, &other)).contains("is of chain"));
    let other = DevnetConfig { timestamp: 3, ..devnet() };
    let other = Arc::new(Genesis::devnet(&other).chain_spec("dev").unwrap());
    assert!(told(Store::check(&path, &other)).contains("began with the genesis"));
    assert!(std::fs::read(&path).unwrap() == before, "nothing has changed");
    // Whoever does not close it leaves it to be repaired, and not damaged.
    let db = Database::builder().open(&path).unwrap();
    db.begin_write().unwrap().commit().unwrap();
    std::mem::forget(db.begin_write().unwrap());
    let copy = dir.path().join("copy.redb");
    std::fs::copy(&path, &copy).unwrap();
    assert_eq!(Store::check(&copy, &spec).unwrap(), Found::NotClosed);
    Store::open(&copy, &spec, small(8)).unwrap();
    // Something else under that name.
    std::fs::write(&copy, "no database").unwrap();
    assert!(told(Store::check(&copy, &spec)).contains("copy.redb"));
    let empty = redb::Database::create(dir.path().join("other.redb")).unwrap();
    drop(empty);
    assert_eq!(Store::check(&dir.path().join("other.redb"), &spec).unwrap(), Found::Nothing);
}
