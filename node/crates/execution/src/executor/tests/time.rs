//! Blocks that would take for ever.

use std::sync::atomic::AtomicBool;

use alloy_primitives::{Address, hex};

use super::*;
use crate::exec::{Allowance, BlockError, OpenBlock};
use crate::testing::OpGround;

const CONTRACT: Address = Address::repeat_byte(0xcc);
/// More gas than anybody can wait for.
const ENDLESS: u64 = 1 << 59;

/// JUMPDEST, PUSH1 0, JUMP.
const LOOP: &[u8] = &hex!("5b600056");
/// Calls itself twice, without a JUMPDEST: 2^1024 calls.
const CALLS: &[u8] = &hex!("5f5f5f5f5f305af150 5f5f5f5f5f305af150");
/// The same with CALLCODE, DELEGATECALL and STATICCALL.
const CALLCODES: &[u8] = &hex!("5f5f5f5f5f305af250 5f5f5f5f5f305af250");
const DELEGATECALLS: &[u8] = &hex!("5f5f5f5f305af450 5f5f5f5f305af450");
const STATICCALLS: &[u8] = &hex!("5f5f5f5f305afa50 5f5f5f5f305afa50");
/// Creates itself twice, as its own init code, with CREATE and CREATE2.
const CREATES: &[u8] = &hex!("385f5f39 385f5ff050 385f5ff050");
const CREATES2: &[u8] = &hex!("385f5f39 5a385f5ff550 5a385f5ff550");
/// A loop of the dearest precompile: BLAKE2 with some rounds.
const PRECOMPILES: &[u8] = &hex!("5b 61ffff60e01b5f52 5f5f60d55f5f60095af150 5f56");

fn ground(code: &[u8]) -> OpGround {
    OpGround::new(ENDLESS, &[(CONTRACT, code)])
}

fn endless() -> Vec<Bytes> {
    vec![OpGround::attributes(), OpGround::call(CONTRACT, ENDLESS / 2)]
}

fn run(ground: &OpGround, allowance: Allowance) -> Result<(), BlockError> {
    let mut block = ground.open();
    block.allow(allowance);
    ground.execute(&mut block, &endless())
}

#[test]
fn whatever_takes_for_ever_is_given_up_and_left_unverified() {
    let time = Duration::from_millis(20);
    for code in [LOOP, CALLS, CALLCODES, DELEGATECALLS, STATICCALLS, CREATES, CREATES2, PRECOMPILES]
    {
        let allowance = Allowance::new(Some(time), Arc::default());
        let error = run(&ground(code), allowance).unwrap_err();
        assert_eq!(error, Unverified::TimeLimit(time).into(), "{}", hex::encode(code));
    }
}

#[test]
fn the_time_is_that_of_all_frags_together() {
    let ground = ground(&[]);
    let mut block = ground.open();
    let time = Duration::from_secs(3_600);
    let mut allowance = Allowance::new(Some(time), Arc::default());
    allowance.take(time);
    block.allow(allowance);
    let error = ground.execute(&mut block, &[OpGround::attributes()]).unwrap_err();
    assert_eq!(error, Unverified::TimeLimit(time).into());
}

#[test]
fn the_node_s_end_ends_a_transaction() {
    let ending = Arc::new(AtomicBool::new(false));
    let allowance = Allowance::new(None, Arc::clone(&ending));
    let running = std::thread::spawn(move || run(&ground(LOOP), allowance));
    ending.store(true, Ordering::Relaxed);
    assert_eq!(running.join().unwrap().unwrap_err(), Unverified::Ending.into());
}

#[test]
fn an_endless_block_leaves_the_executor_to_the_next_attempt() {
    let ground = ground(LOOP);
    let time = Duration::from_millis(500);
    let config = ExecutorConfig { time_limit: Some(time), ..ExecutorConfig::default() };
    let bench = Bench::on(Arc::clone(&ground.spec), Arc::clone(&ground.source), config);
    bench.push(0, &ground.unsealed(&endless()));
    let report = bench.report();
    assert_eq!(report.verdict, Verdict::Unverified(Unverified::TimeLimit(time)));
    assert_eq!(bench.executor.stats().snapshot().reasons["time_limit"], 1);
    bench.retract(11, 0);
    let txs = [OpGround::attributes()];
    let mut good = ground.unsealed(&txs).to_vec();
    good.push(Message::Seal(ground.seal(&txs)));
    // However slow the machine is: what was given up is tried again.
    let begun = Instant::now();
    while bench.executor.stats().snapshot().verified != Some(11) {
        assert!(begun.elapsed() < GUARD, "{:?}", bench.executor.stats().snapshot());
        bench.push(1, &good);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_has_used_up_its_time_is_tried_again_ever_more_seldom() {
    let ground = ground(LOOP);
    let time = Duration::from_millis(50);
    let config = ExecutorConfig { time_limit: Some(time), ..ExecutorConfig::default() };
    let bench = Bench::on(Arc::clone(&ground.spec), Arc::clone(&ground.source), config);
    let given_up = Verdict::Unverified(Unverified::TimeLimit(time));
    let begun = Instant::now();
    // At once, after as long, three times, seven times as long.
    for _ in 0..5 {
        let report = loop {
            assert!(begun.elapsed() < GUARD, "it is tried again");
            bench.push(0, &ground.unsealed(&endless()));
            bench.settle();
            if let Some(report) = bench.try_report() {
                break report;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        assert_eq!(report.verdict, given_up);
    }
    assert!(begun.elapsed() >= time * (5 + 1 + 3 + 7), "{:?}", begun.elapsed());
}

#[test]
fn an_executor_in_an_endless_block_ends_when_the_node_does() {
    let ground = ground(LOOP);
    let time_limit = Some(Duration::from_secs(1 << 40));
    let config = ExecutorConfig { time_limit, ..ExecutorConfig::default() };
    let bench = Bench::on(Arc::clone(&ground.spec), Arc::clone(&ground.source), config);
    bench.push(0, &ground.unsealed(&endless()));
    // What waits behind it is not begun either.
    bench.push(1, &ground.unsealed(&endless()));
    bench.executor.interrupt();
    let (ended, wait) = mpsc::channel();
    std::thread::spawn(move || {
        bench.end();
        ended.send(()).unwrap();
    });
    wait.recv_timeout(GUARD).expect("the executor ends");
}

#[test]
fn a_gas_limit_that_the_chain_cannot_have_is_not_executed() {
    let ground = OpGround::new(30_000_000, &[]);
    let open = |gas_limit| {
        let env = fragcast_shredder::Env { gas_limit, ..ground.env() };
        let parent = ground.parent.clone();
        OpenBlock::open(&ground.spec, &env, 0, parent, &ground.source, None).map(drop)
    };
    // What SystemConfig allows, at once.
    assert_eq!(open(500_000_000), Ok(()));
    for got in [500_000_001, 1 << 40, i64::MAX as u64] {
        let why = Unverified::GasLimit { got, most: 500_000_000 };
        assert_eq!(open(got), Err(why.into()));
    }
    // A chain that has more already may double it.
    let large = OpGround::new(3_000_000_000, &[]);
    assert_eq!(large.spec.most_gas(&large.parent.header), 6_000_000_000);
}
