//! The disk is full, or fails, for a while.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use ed25519_dalek::SigningKey;
use fragcast_execution::executor::{Executor, ExecutorConfig};
use fragcast_execution::testing::{Bench, GUARD, block, config, gateway};
use fragcast_shredder::delivery::{Delivered, Times, Via};
use fragcast_shredder::{GatewayKey, Message, Timestamp};
use fragcast_turbine::membership::sample;
use fragcast_turbine::sequencer::Sequencer;
use fragcast_turbine::{Delegation, Event, Protocol, Schedule};

use super::*;

/// The operation that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// No room for data.
    Write,
    /// No room to grow.
    Grow,
    /// `fsync` fails, and the next one forgets what this one could not write.
    Sync,
}

#[derive(Debug, Default)]
struct State {
    /// The contents as the program sees them, and as they are after a crash.
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync, whatever it came to; `None`: the length was set.
    unsynced: Vec<(u64, Option<Vec<u8>>)>,
    fault: Option<Fault>,
    failed: u64,
}

impl State {
    fn fails(&mut self, fault: Fault) -> io::Result<()> {
        if self.fault != Some(fault) {
            return Ok(());
        }
        self.failed += 1;
        Err(io::ErrorKind::StorageFull.into())
    }
}

fn put(image: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let (from, to) = (offset as usize, offset as usize + data.len());
    if image.len() < to {
        image.resize(to, 0);
    }
    image[from..to].copy_from_slice(data);
}

/// A disk that fails while it is told to; clones are the same disk.
#[derive(Debug, Clone, Default)]
struct FailingDisk(Arc<Mutex<State>>);

impl FailingDisk {
    fn set(&self, fault: Option<Fault>) {
        self.0.lock().unwrap().fault = fault;
    }

    fn failed(&self) -> u64 {
        self.0.lock().unwrap().failed
    }

    /// The disk after a crash.
    fn crashed(&self) -> Self {
        let durable = self.0.lock().unwrap().durable.clone();
        let state = State { current: durable.clone(), durable, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl redb::StorageBackend for FailingDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let data = state.current.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(data.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.fails(Fault::Grow)?;
        state.current.resize(len as usize, 0);
        state.unsynced.push((len, None));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        // A disk that is full takes a part.
        let taken = if state.fault == Some(Fault::Write) { data.len() / 2 } else { data.len() };
        put(&mut state.current, offset, &data[..taken]);
        state.unsynced.push((offset, Some(data[..taken].to_vec())));
        state.fails(Fault::Write)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let unsynced = std::mem::take(&mut state.unsynced);
        state.fails(Fault::Sync)?;
        for (offset, data) in unsynced {
            match data {
                Some(data) => put(&mut state.durable, offset, &data),
                None => state.durable.resize(offset as usize, 0),
            }
        }
        Ok(())
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < GUARD, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Persists `count` blocks on a thread of their own, which tells of each.
fn persist(store: &Arc<Store>, from: Step, count: usize) -> Receiver<Step> {
    let store = Arc::clone(store);
    let (tell, told) = channel();
    let mut tip = Tip::of(&store, from);
    std::thread::spawn(move || {
        let mut rng = Rng(7);
        for _ in 0..count {
            store.persist(&tip.block(&store, &mut rng));
            if tell.send(tip.step.clone()).is_err() {
                return;
            }
        }
    });
    told
}

#[test]
fn a_full_disk_delays_what_it_cannot_take_and_nothing_is_lost() {
    let spec = spec();
    for fault in [Fault::Write, Fault::Sync] {
        let disk = FailingDisk::default();
        let store = Store::patient_on(disk.clone(), &spec, small(8)).unwrap();
        let mut last = genesis_step(&spec);
        for step in persist(&store, last.clone(), 3) {
            last = step;
        }
        drain(&store);
        let before = last.clone();
        disk.set(Some(fault));
        let steps = persist(&store, last, 40);
        until("the disk is asked and fails", || store.trouble().is_some());
        let stuck = store.durable().unwrap();
        // One is being written, four wait, one waits for a place.
        let mut taken = Vec::new();
        until("the queue is full", || {
            taken.extend(steps.try_iter());
            store.stats().queued == 6
        });
        assert!(store.trouble().unwrap().contains("storage"), "{:?}", store.trouble());
        until("it is tried again", || store.stats().retries > 2);
        assert_eq!(store.durable().unwrap(), stuck, "{fault:?}");
        assert_eq!(store.failure(), None);
        // What is there is served meanwhile.
        assert_eq!(stuck.1, before.hash);
        before.model.check(&*store.view());
        assert!(store.verify().is_ok());
        // A crash now leaves the last commit.
        let crashed = Store::on(disk.crashed(), &spec, small(8)).unwrap();
        assert_eq!(crashed.durable(), Some(stuck), "{fault:?}");
        crashed.verify().unwrap();

        disk.set(None);
        taken.extend(steps.iter());
        assert_eq!(taken.len(), 40);
        drain(&store);
        let last = taken.last().unwrap();
        assert_eq!(store.durable(), Some((last.header.number, last.hash)), "{fault:?}");
        assert!(store.trouble().is_none() && disk.failed() > 2);
        last.model.check(&*store.view());
        let crashed = Store::on(disk.crashed(), &spec, small(8)).unwrap();
        assert_eq!(crashed.durable(), Some((last.header.number, last.hash)), "{fault:?}");
        crashed.verify().unwrap();
    }
}

#[test]
fn a_disk_that_is_full_again_and_again_keeps_every_block() {
    let spec = spec();
    let disk = FailingDisk::default();
    let store = Store::patient_on(disk.clone(), &spec, small(8)).unwrap();
    let mut last = genesis_step(&spec);
    let mut rng = Rng(11);
    for step in persist(&store, last.clone(), 60) {
        let faults = [None, Some(Fault::Write), Some(Fault::Grow), Some(Fault::Sync)];
        disk.set(None);
        if rng.below(6) == 0 {
            disk.set(faults[rng.below(4) as usize]);
            std::thread::sleep(Duration::from_millis(5));
            disk.set(None);
        }
        last = step;
    }
    drain(&store);
    assert_eq!(store.durable(), Some((last.header.number, last.hash)));
    store.verify().unwrap();
    last.model.check(&*store.view());
}

#[test]
fn unwinding_waits_for_a_full_disk_too() {
    let spec = spec();
    let disk = FailingDisk::default();
    let store = Store::patient_on(disk.clone(), &spec, small(8)).unwrap();
    let genesis = genesis_step(&spec);
    let steps: Vec<Step> = persist(&store, genesis, 3).iter().collect();
    drain(&store);
    disk.set(Some(Fault::Write));
    let unwinding = {
        let (store, to) = (Arc::clone(&store), steps[0].hash);
        std::thread::spawn(move || store.unwind(to))
    };
    until("the disk is asked and fails", || store.trouble().is_some());
    disk.set(None);
    unwinding.join().unwrap().unwrap();
    assert_eq!(store.durable(), Some((1, steps[0].hash)));
    store.verify().unwrap();
}

/// Against a model: whatever fails in between, reads give what was written, and what a successful
/// sync leaves is on the disk.
#[test]
fn what_the_disk_does_not_take_is_read_from_memory() {
    use redb::StorageBackend;

    let mut behind = 0;
    for seed in 0..200 {
        let mut rng = Rng(seed);
        let disk = FailingDisk::default();
        let (patient, state) = Patient::new(disk.clone());
        state.be_patient();
        let mut model = Vec::new();
        for step in 0..60_u8 {
            disk.set([None, Some(Fault::Write), Some(Fault::Grow)][rng.below(3) as usize]);
            match rng.below(8) {
                0 => {
                    let len = rng.below(5_000);
                    patient.set_len(len).unwrap();
                    model.resize(len as usize, 0);
                }
                1 => {
                    disk.set(None);
                    patient.sync_data().unwrap();
                    assert!(disk.0.lock().unwrap().durable == model, "seed {seed}");
                    assert!(state.trouble().is_none());
                }
                _ => {
                    let offset = rng.below(4_000);
                    let data = vec![step + 1; 1 + rng.below(900) as usize];
                    patient.write(offset, &data).unwrap();
                    put(&mut model, offset, &data);
                }
            }
            behind += u64::from(state.trouble().is_some());
            assert_eq!(patient.len().unwrap(), model.len() as u64, "seed {seed}");
            let from = rng.below(model.len() as u64 + 1) as usize;
            let mut read = vec![0xff; rng.below((model.len() - from) as u64 + 1) as usize];
            patient.read(from as u64, &mut read).unwrap();
            assert!(read == model[from..from + read.len()], "seed {seed}");
        }
        let beyond = &mut [0; 2];
        assert!(patient.read(model.len() as u64 - model.len().min(1) as u64, beyond).is_err());
    }
    assert!(behind > 1_000, "{behind}");
}

fn devnet_store(disk: &FailingDisk) -> (Arc<ChainSpec>, Arc<Store>) {
    let spec = Arc::new(Genesis::devnet(&config()).chain_spec("dev").unwrap());
    let store = Store::patient_on(disk.clone(), &spec, small(8)).unwrap();
    (spec, store)
}

/// Blocks that the executor verified.
fn verified(executor: &Executor) -> u64 {
    executor.stats().snapshot().verified.unwrap_or(0)
}

/// A node that leads alone, as far as its blocks are concerned: protocol and sequencer in virtual
/// time, and an executor behind them.
struct Lone {
    protocol: Protocol,
    sequencer: Sequencer,
    bench: Bench,
    gateway: GatewayKey,
    now: Timestamp,
}

impl Lone {
    fn new(bench: Bench) -> Self {
        const CHAIN: u64 = 5;
        let gateway = GatewayKey::from_bytes([0x11; 32]).unwrap();
        let members = Arc::new(sample(CHAIN, &[1]).0);
        let peer = members.members()[0].peer();
        let leader = SigningKey::from_bytes(&[7; 32]);
        let key = leader.verifying_key().to_bytes();
        let of = Delegation { chain_id: CHAIN, first: 0, last: u64::MAX, sequence: 1, peer, key };
        let schedule = Schedule::new(vec![gateway.address()], 10).unwrap();
        let delegations = [of.sign(&gateway)];
        let config = fragcast_turbine::Config::new(CHAIN);
        let protocol =
            Protocol::new(config, &peer, members, schedule, delegations, Some(leader)).unwrap();
        let now = Timestamp::from_nanos(1_000_000_000);
        Self { protocol, sequencer: Sequencer::default(), bench, gateway, now }
    }

    /// Its gateway hands in a block.
    fn send(&mut self, block: &[Message]) {
        for message in block {
            let message = self.gateway.sign_verified(message.clone());
            let (times, via) = (Times::whole(self.now), Via::Own);
            let delivered = Delivered::of_attempt(0, message, times, via).unwrap();
            self.protocol.broadcast(self.now, delivered.key, &delivered.message).unwrap();
            let mut outputs = Vec::new();
            self.sequencer.push(Arc::new(delivered), &mut outputs);
            // What finds no room is lost.
            for output in &outputs {
                let _ = self.bench.executor.try_push(output);
            }
        }
    }

    /// A moment passes, in which it is told how far its executor is.
    fn tick(&mut self) {
        self.now = self.now + Duration::from_millis(100);
        let executor = &self.bench.executor;
        if let Some(heads) = executor.view().heads() {
            self.protocol.handle_verified(self.now, heads.latest.number(), Timestamp::default());
        }
        self.protocol.handle_idle(self.now, executor.is_idle());
        while let Some(event) = self.protocol.poll_event() {
            if let Event::Again(delivered) = event
                && let Some(output) = self.sequencer.again(delivered)
            {
                let _ = executor.try_push(&output);
            }
        }
    }
}

#[test]
fn the_executor_stops_on_a_full_disk_and_goes_on_when_there_is_room() {
    let disk = FailingDisk::default();
    let (spec, store) = devnet_store(&disk);
    let config = ExecutorConfig { queue: 24, ..ExecutorConfig::default() };
    let bench = Bench::on(spec, Arc::clone(&store) as Arc<dyn StateSource>, config);
    let mut node = Lone::new(bench);
    let mut gateway = gateway();
    disk.set(Some(Fault::Write));
    // Some are verified and wait; of four messages each, six blocks find room in the queue, and the
    // rest none.
    (1..=20).for_each(|n| node.send(&block(&mut gateway, 1_000 + 2 * n)));
    until("the executor waits for the disk", || {
        node.tick();
        store.stats().queued == 6
    });
    assert!(store.trouble().is_some());
    let executor = |node: &Lone| node.bench.executor.stats().snapshot();
    assert!(executor(&node).overrun >= 4 * (20 - 6 - 6 - 1), "{:?}", executor(&node));
    // What is there is served, and that is all there is in memory.
    let heads = node.bench.executor.view().heads().unwrap();
    assert!(heads.latest.number() <= verified(&node.bench.executor));
    assert!(verified(&node.bench.executor) <= 6);
    (0..100).for_each(|_| node.tick());
    assert_eq!(node.protocol.counters().handed_again, 0, "it is at work");
    disk.set(None);
    until("the executor has what it had lost", || {
        node.tick();
        verified(&node.bench.executor) == 20
    });
    assert!(node.protocol.counters().handed_again > 0);
    until("all is durable", || store.durable().unwrap().0 == 20);
    store.verify().unwrap();
}

#[test]
fn the_node_s_end_does_not_wait_for_a_full_disk() {
    for interrupted in [false, true] {
        let disk = FailingDisk::default();
        let (spec, store) = devnet_store(&disk);
        let source = Arc::clone(&store) as Arc<dyn StateSource>;
        let bench = Bench::on(spec, source, ExecutorConfig::default());
        let mut gateway = gateway();
        disk.set(Some(Fault::Sync));
        for n in 1..=10 {
            bench.push(0, &block(&mut gateway, 1_000 + 2 * n));
        }
        until("the executor waits for the disk", || store.stats().queued == 6);
        let (ended, wait) = channel();
        std::thread::spawn(move || {
            if interrupted {
                bench.executor.interrupt();
            }
            drop(bench.end());
            drop(store);
            ended.send(()).unwrap();
        });
        wait.recv_timeout(GUARD).expect("it ends");
        let (_, again) = devnet_store(&disk.crashed());
        again.verify().unwrap();
    }
}

#[test]
fn a_disk_that_has_failed_for_good_stops_the_executor() {
    let backend = TearingBackend::default();
    let spec = Arc::new(Genesis::devnet(&config()).chain_spec("dev").unwrap());
    let store = Store::on(backend.clone(), &spec, small(8)).unwrap();
    let source = Arc::clone(&store) as Arc<dyn StateSource>;
    let bench = Bench::on(spec, source, ExecutorConfig::default());
    let mut gateway = gateway();
    bench.push(0, &block(&mut gateway, 1_002));
    until("block 1 is durable", || store.durable().unwrap().0 == 1);
    backend.die_after(0);
    let mut n = 1;
    until("layers do not pile up over a state that never becomes durable", || {
        if n < 40 && bench.executor.is_idle() {
            n += 1;
            bench.push(0, &block(&mut gateway, 1_000 + 2 * n));
        }
        bench.executor.stats().snapshot().stopped
    });
    assert!(n < 40 && store.failure().is_some() && !bench.executor.is_idle());
    assert!(verified(&bench.executor) <= n);
    bench.executor.interrupt();
    drop(bench.end());
}
