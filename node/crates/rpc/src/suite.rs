//! execution-apis' own test cases (`suite/README.md`), each asked of a node that has their chain.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::Arc;

use alloy_consensus::{Block, ReceiptEnvelope};
use alloy_eips::eip2718::{Decodable2718 as _, Encodable2718 as _};
use alloy_genesis::{Genesis, GenesisAccount};
use alloy_primitives::{Address, Bytes};
use alloy_rlp::Decodable as _;
use flate2::read::GzDecoder;
use fragcast_execution::chain::ChainSpec;
use fragcast_execution::exec::memory::MemoryState;
use fragcast_execution::exec::receipt::Receipt;
use fragcast_execution::exec::tx::EthTx;
use fragcast_execution::exec::{Executed, Tx};
use fragcast_execution::testing::GivenChain;
use fragcast_turbine::Schedule;
use fragcast_turbine::testing::epochs;
use jsonrpsee::Methods;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::about::{self, About};
use crate::calls::{self, CallConfig, CallContext};
use crate::eth::{self, EthConfig, EthContext, Forwarded};
use crate::forward::tests::{GUARD, Gateway, good_gateway, to};
use crate::forward::{Forwarder, MakeReceipt};

const GENESIS: &str = include_str!("suite/genesis.json");
const CASES: &[u8] = include_bytes!("suite/cases.jsonl.gz");
/// Why an answer is not theirs, by the case's name.
const REASONS: &str = include_str!("suite/reasons.json");
/// Cases of theirs that are not among these, by the reason.
const LEFT_OUT: &str = include_str!("suite/left_out.json");

/// Their chains, which begin alike: its blocks as they export them, and what is known of those that
/// were mined.
const CHAINS: [(&str, &[u8], &[u8]); 2] = [
    (
        "forks",
        include_bytes!("suite/forks/chain.rlp.gz"),
        include_bytes!("suite/forks/mined.json.gz"),
    ),
    (
        "large",
        include_bytes!("suite/large/chain.rlp.gz"),
        include_bytes!("suite/large/mined.json.gz"),
    ),
];

/// The number of the last block that was mined. Those are taken as they are: rules of before the
/// merge are not executed here.
const LAST_MINED: u64 = 35;

/// A block that was mined: the accounts that it changed, as they are after it, and its receipts.
#[derive(Deserialize)]
struct Mined {
    state: BTreeMap<Address, GenesisAccount>,
    #[serde(default)]
    receipts: Vec<Bytes>,
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut unpacked = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut unpacked).unwrap();
    unpacked
}

/// The transactions of a block with their receipts. From before Byzantium a receipt has a state root,
/// for which there is no room here, and is taken for one of success.
fn with_receipts(txs: &[Bytes], receipts: &[Bytes]) -> Vec<Executed> {
    let mut before = 0;
    let executed = txs.iter().zip(receipts).map(|(tx, receipt)| {
        let receipt = ReceiptEnvelope::decode_2718_exact(receipt).unwrap();
        let used = receipt.cumulative_gas_used();
        let (ty, success) = (receipt.tx_type() as u8, receipt.status());
        let receipt = Receipt::new(ty, success, used, receipt.logs().to_vec());
        let gas_used = used - std::mem::replace(&mut before, used);
        Executed { tx: Tx::decode(tx, false).unwrap(), receipt, gas_used }
    });
    executed.collect()
}

/// A chain of theirs. Each block that is executed comes out with the header that it has there, so
/// with its state root.
fn chain(blocks: &[u8], mined: &[u8]) -> GivenChain {
    let mut genesis: Genesis = serde_json::from_str(GENESIS).unwrap();
    // Of a chain that begins before the merge only what comes after it is executed.
    genesis.config.terminal_total_difficulty_passed = true;
    let mut accounts = Genesis { alloc: genesis.alloc.clone(), ..Genesis::default() };
    let spec = ChainSpec::from_genesis("execution-apis", genesis).unwrap();
    let mut mined: BTreeMap<u64, Mined> = serde_json::from_slice(&unpacked(mined)).unwrap();
    let mut chain = GivenChain::new(spec);
    let blocks = unpacked(blocks);
    let mut rest = &blocks[..];
    while !rest.is_empty() {
        let block = Block::<EthTx>::decode(&mut rest).unwrap();
        let txs = block.body.transactions.iter().map(|tx| Bytes::from(tx.encoded_2718()));
        let txs: Vec<Bytes> = txs.collect();
        if block.header.number > LAST_MINED {
            let withdrawals = block.body.withdrawals.map(|withdrawals| withdrawals.0);
            chain.append(&block.header, &txs, withdrawals).unwrap();
            continue;
        }
        let mined = mined.remove(&block.header.number);
        let executed = mined.as_ref().map(|mined| with_receipts(&txs, &mined.receipts));
        let state = mined.map(|mined| {
            accounts.alloc.extend(mined.state);
            MemoryState::of_genesis(&accounts)
        });
        chain.take(block.header, executed.unwrap_or_default(), state);
    }
    chain
}

/// All methods of a node that executes, over `chain`.
fn methods(chain: &GivenChain, gateway: (Address, &Gateway)) -> Methods {
    let (spec, view) = (Arc::clone(&chain.spec), Arc::clone(&chain.view));
    let receipts = Arc::clone(&spec);
    let receipt: MakeReceipt =
        Arc::new(move |block, index| eth::receipt_json(&receipts, block, index));
    let leaders = watch::channel(epochs(Schedule::new(vec![gateway.0], 10).unwrap())).1;
    let config = to(&[gateway]);
    let forwarder = Forwarder::new(config, leaders, Arc::clone(&view), Arc::clone(&spec), receipt);
    let forwarder = Arc::new(forwarder);
    let config = EthConfig { pending_max_age_ms: 0, ..EthConfig::default() };
    let forwarded = Arc::clone(&forwarder) as Arc<dyn Forwarded>;
    let eth =
        Arc::new(EthContext::new(Arc::clone(&spec), Arc::clone(&view), config, None, forwarded));
    let config = CallConfig { time_limit: GUARD, ..CallConfig::default() };
    let calls = CallContext {
        spec,
        blocks: eth.blocks.clone(),
        pool: config.pool().unwrap(),
        config,
        upstream: None,
        forwarder: Some(Arc::clone(&forwarder)),
        stats: Arc::clone(&eth.stats),
    };
    let about = About {
        peers: Box::new(|| 0),
        forwarded: Some((forwarder, view)),
        rollup: None,
        stats: Arc::clone(&eth.stats),
    };
    let mut methods = Methods::new();
    methods.merge(eth::module(eth)).unwrap();
    methods.merge(calls::module(Arc::new(calls))).unwrap();
    methods.merge(about::module(about, std::iter::empty())).unwrap();
    methods
}

async fn ask(methods: &Methods, request: &Value) -> Value {
    let request = request.to_string();
    let (answer, _) = methods.raw_json_request(&request, 1).await.unwrap();
    serde_json::from_str(answer.get()).unwrap()
}

/// How an answer compares with the one in the case.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Same {
    /// It is that answer.
    Exact,
    /// Both are errors with the same code, told in other words.
    Code,
    /// The case asks for a form only, and the answer has it.
    Form,
    /// It is another.
    No,
}

/// The form of a value: its kind, the names in it, and the forms of what is under them.
fn same_form(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(name, value)| b.get(name).is_some_and(|b| same_form(value, b)))
        }
        (Value::Array(a), Value::Array(b)) => match (a.first(), b.first()) {
            (Some(a), Some(b)) => same_form(a, b),
            _ => true,
        },
        (Value::String(a), Value::String(b)) => a.starts_with("0x") == b.starts_with("0x"),
        (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Null, Value::Null) => true,
        _ => false,
    }
}

fn compare(ours: &Value, theirs: &Value, form: bool) -> Same {
    let (a, b) = (&ours["error"], &theirs["error"]);
    if !b.is_null() {
        return match (a["code"] == b["code"], a["message"] == b["message"]) {
            (true, true) => Same::Exact,
            (true, false) => Same::Code,
            _ => Same::No,
        };
    }
    let (a, b) = (&ours["result"], &theirs["result"]);
    match () {
        () if !ours["error"].is_null() => Same::No,
        () if a == b => Same::Exact,
        () if form && same_form(a, b) => Same::Form,
        () => Same::No,
    }
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(160).collect()
}

/// Where two values first differ, for whoever reads the test's output.
fn difference(path: &str, ours: &Value, theirs: &Value, into: &mut Vec<String>) {
    let empty = Value::Null;
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for name in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                let (a, b) = (a.get(name).unwrap_or(&empty), b.get(name).unwrap_or(&empty));
                difference(&format!("{path}.{name}"), a, b, into);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                difference(&format!("{path}[{i}]"), a, b, into);
            }
        }
        (a, b) if a != b => into.push(format!("{path}: {} and not {}", short(a), short(b))),
        _ => {}
    }
}

/// An answer with the lists in it that have no order sorted.
fn in_order(mut answer: Value) -> Value {
    let entries = answer.pointer_mut("/result/accessList").and_then(Value::as_array_mut);
    for entry in entries.into_iter().flatten() {
        if let Some(keys) = entry["storageKeys"].as_array_mut() {
            keys.sort_by_key(Value::to_string);
        }
    }
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cases_of_execution_apis() {
    let gateway = good_gateway();
    let leader = Address::with_last_byte(1);
    let chains = CHAINS.map(|(name, blocks, mined)| (name, chain(blocks, mined)));
    let cases = String::from_utf8(unpacked(CASES)).unwrap();
    let mut reasons: BTreeMap<String, String> = serde_json::from_str(REASONS).unwrap();
    let mut told = BTreeMap::<Same, Vec<String>>::new();
    let mut wrong = Vec::new();
    let mut node = (String::new(), Methods::new());
    for case in cases.lines() {
        let case: Value = serde_json::from_str(case).unwrap();
        let name = case["name"].as_str().unwrap();
        let chain = chains.iter().find(|(chain, _)| case["chain"] == **chain);
        // Requests of one file are of one node. What they send is not left behind for others.
        let file = name.split('#').next().unwrap();
        if node.0 != file {
            node = (file.to_owned(), methods(&chain.expect(name).1, (leader, &gateway)));
        }
        let mut request = case["request"].clone();
        request["jsonrpc"] = json!("2.0");
        request["id"] = json!(1);
        let ours = tokio::time::timeout(GUARD, ask(&node.1, &request)).await.unwrap();
        let (ours, theirs) = (in_order(ours), in_order(case["response"].clone()));
        let same = compare(&ours, &theirs, case["form"] == true);
        let reason = reasons.remove(name);
        match (&same, &reason) {
            (Same::No | Same::Code, Some(reason)) => {
                told.entry(same).or_default().push(format!("{name}: {reason}"));
                continue;
            }
            (Same::No | Same::Code, None) => {
                let mut what = Vec::new();
                difference("result", &ours["result"], &theirs["result"], &mut what);
                difference("error", &ours["error"], &theirs["error"], &mut what);
                what.truncate(8);
                let request: String = request.to_string().chars().take(400).collect();
                wrong.push(format!("{name}: {request}\n    {}", what.join("\n    ")));
            }
            (_, Some(_)) => wrong.push(format!("{name} has a reason and is {same:?}")),
            (_, None) => {}
        }
        told.entry(same).or_default().push(name.to_owned());
    }
    let count = |same| told.get(&same).map_or(0, Vec::len);
    println!(
        "execution-apis: {} cases: {} exact, {} errors with the same code and another text, {} with the \
         form that is asked for, {} otherwise:",
        told.values().map(Vec::len).sum::<usize>(),
        count(Same::Exact),
        count(Same::Code),
        count(Same::Form),
        count(Same::No),
    );
    for same in [Same::Code, Same::No] {
        told.get(&same).into_iter().flatten().for_each(|one| println!("  {one}"));
    }
    let left_out: BTreeMap<String, Vec<String>> = serde_json::from_str(LEFT_OUT).unwrap();
    for (why, names) in left_out {
        println!("{} more are {why}: {}", names.len(), names.join(", "));
    }
    assert!(wrong.is_empty(), "{} cases\n{}", wrong.len(), wrong.join("\n"));
    assert!(reasons.is_empty(), "no such case: {reasons:#?}");
}
