//! kill -9 at random moments: whatever the store is doing, on opening it again it is whole, and
//! holds at least the block that it last said was durable.
//!
//! This binary runs itself as the process to be killed: it executes blocks of the devnet's
//! workload on the store's head, persists them, goes back now and then, and prints how far it is.
#![expect(clippy::print_stderr, reason = "a test says how it went")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroU32;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::{Address, Bytes, keccak256};
use fragcast_execution::chain::ChainSpec;
use fragcast_execution::devnet::{DevnetConfig, Genesis, Workload};
use fragcast_execution::exec::{OnInvalid, OpenBlock, Parent, StateSource, Tx};
use fragcast_execution::executor::History;
use fragcast_shredder::Env;
use fragcast_store::{Store, StoreConfig};

use crate::common::{GUARD, Running};

/// Where the child's database is.
const CHILD: &str = "FRAGCAST_STORE_KILL_CHILD";
const KILLS: u64 = 50;
/// The child is killed after fewer lines than this from its first new block on, among which it
/// goes back at most once,
const LINES: u64 = 25;
/// and up to this time later, which is about what it takes to write a block.
const LONGEST: Duration = Duration::from_millis(20);

fn devnet() -> DevnetConfig {
    DevnetConfig { accounts: NonZeroU32::new(64).unwrap(), ..DevnetConfig::default() }
}

fn open(path: &Path) -> (Arc<ChainSpec>, Arc<Store>) {
    let spec = Arc::new(Genesis::devnet(&devnet()).chain_spec("dev").unwrap());
    let config = StoreConfig { reorg_depth: 16, queue: 4, cache_mib: 8, keep_blocks: Some(40) };
    let store = Store::open(path, &spec, config).unwrap();
    (spec, store)
}

/// The transactions of the chain so far are the workload's first ones.
fn workload(store: &Store) -> Workload {
    let mut workload = Workload::new(&devnet());
    let done = store.durable().unwrap().0 * TXS_PER_BLOCK;
    (0..done).for_each(|_| drop(workload.next_tx()));
    workload
}

const FRAGS: u64 = 2;
/// Few: the workload is signed anew from its beginning whenever the child starts.
const TXS_PER_FRAG: u64 = 3;
const TXS_PER_BLOCK: u64 = FRAGS * TXS_PER_FRAG;

/// Executes and persists until it is killed.
fn child(path: &Path) {
    let (spec, store) = open(path);
    let source: Arc<dyn StateSource> = store.clone();
    let mut out = std::io::stdout();
    let mut say = |word: &str| {
        let (number, hash) = store.durable().unwrap();
        writeln!(out, "{word} {number} {hash}").unwrap();
        out.flush().unwrap();
    };
    let mut workload = workload(&store);
    let mut marks = BTreeMap::from([(store.durable().unwrap().0, workload.mark())]);
    say("open");
    for round in 0_u64.. {
        let mut parent = Parent::from(store.at(store.head().unwrap().unwrap()).unwrap().unwrap());
        for _ in 0..20 {
            let timestamp = parent.header.timestamp + 2;
            let env = Env {
                number: parent.header.number + 1,
                parent_hash: parent.hash,
                beneficiary: Address::repeat_byte(0xfe),
                timestamp,
                gas_limit: parent.header.gas_limit,
                basefee: spec.next_base_fee(&parent.header, timestamp).unwrap(),
                difficulty: Default::default(),
                prevrandao: keccak256(parent.hash),
                extra_data: Bytes::from_static(b"kill"),
                parent_beacon_block_root: keccak256(b"beacon"),
            };
            let mut block = OpenBlock::open(&spec, &env, 0, parent, &source, None).unwrap();
            for frag in 1..=FRAGS {
                let txs = (0..TXS_PER_FRAG).map(|_| Tx::decode(&workload.next_tx().bytes, false));
                block.execute(txs.collect(), frag == FRAGS, OnInvalid::Fail).unwrap();
            }
            block.finish().unwrap();
            let sealed = Arc::new(block.sealed().unwrap());
            store.persist(&sealed);
            marks.insert(sealed.number(), workload.mark());
            parent = sealed.as_parent();
            say("durable");
        }
        // Back by a few blocks. Until that is done nothing is promised about what is above.
        let head = parent.header.number;
        let target = head - 1 - round % 5;
        // It may still be queued.
        let asked = Instant::now();
        while store.durable().unwrap().0 < target {
            assert!(asked.elapsed() < GUARD, "{target} does not become durable");
            std::thread::yield_now();
        }
        let hash = store.hash(target).unwrap().unwrap();
        println!("unwinding {target} {hash} from {head}");
        store.unwind(hash).unwrap();
        workload.rewind(marks.remove(&target).unwrap());
        marks.insert(target, workload.mark());
        say("durable");
    }
}

fn random(seed: u64) -> u64 {
    u64::from_be_bytes(keccak256(seed.to_be_bytes())[..8].try_into().unwrap())
}

/// Whether a line says that a block is durable, and which.
fn durable(line: &str) -> Option<u64> {
    // The harness may have written before it on the same line.
    let mut words =
        line.split(' ').skip_while(|word| !["durable", "unwinding", "open"].contains(word));
    words.next()?;
    words.next()?.parse().ok()
}

#[test]
fn killed_at_any_moment_it_opens_whole() {
    if let Some(path) = std::env::var_os(CHILD) {
        return child(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chain.redb");
    let start = Instant::now();
    let (mut before, mut ahead) = (0, 0);
    for kill in 0..KILLS {
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["store_kill::killed_at_any_moment_it_opens_whole", "--exact", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn();
        let mut process = Running(process.unwrap());
        let stdout = BufReader::new(process.0.stdout.take().unwrap());
        let mut said = stdout.lines().map_while(Result::ok).filter_map(|line| durable(&line));
        // Some are killed while they open, and the first while it writes the genesis.
        let early = kill % 5 == 0;
        let mut next = || said.next().unwrap_or_else(|| panic!("kill {kill}: it ended"));
        let mut promised = None;
        if !early {
            // It gets somewhere; the first lines may tell of a block that was durable before.
            while promised.is_none_or(|block| block <= before) {
                promised = Some(next());
            }
            for _ in 0..random(kill) % LINES {
                promised = Some(next());
            }
        }
        let wait = random(KILLS + kill) % LONGEST.as_micros() as u64;
        std::thread::sleep(Duration::from_micros(wait));
        process.0.kill().unwrap();
        process.0.wait().unwrap();
        // What it said before it died is still in the pipe. The last line may be cut short.
        promised = said.last().or(promised);
        let (_, store) = open(&path);
        let report = store.verify().unwrap_or_else(|error| panic!("kill {kill}: {error}"));
        // If it said nothing it did nothing but open.
        let promised = promised.unwrap_or(before);
        assert!(report.number >= promised, "kill {kill}: {} after {promised}", report.number);
        assert!(early || report.number > before, "kill {kill}: still at {before}");
        ahead += report.number - promised;
        before = report.number;
    }
    let took = start.elapsed();
    eprintln!("{KILLS} kills in {took:?}: block {before}, {ahead} ahead");
}
