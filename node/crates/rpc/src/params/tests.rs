//! Every method with every kind of wrong parameter.

use std::sync::Arc;

use alloy_primitives::{Address, B256};
use fragcast_execution::devnet::DevnetConfig;
use fragcast_execution::testing::TestChain;
use jsonrpsee::Methods;
use serde_json::json;

use super::*;
use crate::calls::{self, CallConfig, CallContext};
use crate::eth::{self, EthConfig, EthContext, NoForwarded};

const A: &str = "0x00000000000000000000000000000000000000aa";
const H: &str = "0x00000000000000000000000000000000000000000000000000000000000000aa";

/// A kind of parameter: values that are right and values that are wrong.
#[derive(Clone, Copy, Debug)]
enum P {
    Address,
    Hash,
    Number,
    Block,
    Index,
    Data,
    Flag,
    Key,
    Keys,
    Count,
    Percentiles,
    Request,
    State,
    Overrides,
    Payload,
    Filter,
    Trace,
    TraceCall,
    Kinds,
}

/// Strings that are no number, hash, address or data whatever their length, and what is no string.
fn never() -> Vec<Value> {
    let hex = ["", "1", "zz", "0xg", "0x-1", "0x 1", "0X1", "latest ", "0x1.5"];
    let others = json!([1, -1, 1.5, true, {}, [], ["0x1"]]);
    hex.iter().map(|text| json!(text)).chain(others.as_array().unwrap().clone()).collect()
}

fn with(mut values: Vec<Value>, more: impl Into<Value>) -> Vec<Value> {
    values.extend(more.into().as_array().unwrap().iter().cloned());
    values
}

fn fixed(bytes: usize) -> Vec<Value> {
    let digits = |count: usize| json!(format!("0x{}", "a".repeat(count)));
    let mut values = never();
    values
        .extend([0, 1, 2, 2 * bytes - 2, 2 * bytes - 1, 2 * bytes + 1, 2 * bytes + 2].map(digits));
    values.push(json!("a".repeat(2 * bytes)));
    values.push(json!("a".repeat(2 * bytes + 2)));
    values.push(json!(format!("0x{}", "g".repeat(2 * bytes))));
    values
}

impl P {
    fn right(self) -> Value {
        match self {
            Self::Address => json!(A),
            Self::Hash => json!(H),
            Self::Number | Self::Block => json!("latest"),
            Self::Index | Self::Key | Self::Count => json!("0x0"),
            Self::Data => json!("0x00"),
            Self::Flag => json!(false),
            Self::Keys => json!(["0x0", H]),
            Self::Percentiles => json!([0, 50.5]),
            Self::Request => json!({ "to": A, "input": "0x", "accessList": null }),
            Self::State => json!({ A: { "balance": "0x1", "stateDiff": { H: H } } }),
            Self::Overrides => json!({ "time": "0xffffff", "prevRandao": H }),
            Self::Payload => json!({ "blockStateCalls": [{ "calls": [{ "to": A }] }] }),
            Self::Filter => json!({ "fromBlock": "0x0", "address": [A], "topics": [null, [H]] }),
            Self::Trace => json!({ "tracer": "callTracer", "tracerConfig": { "withLog": true } }),
            Self::TraceCall => json!({ "stateOverrides": {}, "enableMemory": true }),
            Self::Kinds => json!(["trace"]),
        }
    }

    fn wrong(self) -> Vec<Value> {
        let quantity = || {
            let odd = json!(["0x", "0x00", "0x01", "0x1ffffffffffffffff", "latest", "0xzz", "10"]);
            with(never(), odd)
        };
        match self {
            Self::Address => fixed(20),
            Self::Hash => fixed(32),
            Self::Index => quantity(),
            Self::Number => with(
                never(),
                json!(["0x", "0x00", "0x01", "0x1ffffffffffffffff", "newest", "Latest", H]),
            ),
            Self::Block => {
                let mut values = never();
                values.retain(|value| *value != json!({}));
                with(
                    values,
                    json!([
                        "0x", "0x00", "0x01", "0x1ffffffffffffffff", "newest", "Latest", {},
                        { "blockHash": "0x1" }, { "blockHash": 1 }, { "blockNumber": 1 },
                        { "blockNumber": "0x" }, { "blockHash": H, "blockNumber": "0x1" },
                        { "requireCanonical": true }, { "blockHash": H, "requireCanonical": "true" },
                    ]),
                )
            }
            Self::Data => with(never(), json!(["0x1", "0x123", "12", "0xzz"])),
            Self::Flag => {
                json!(["true", "false", "", 0, 1, "0x1", {}, []]).as_array().unwrap().clone()
            }
            Self::Key => {
                let digits = |count: usize| json!(format!("0x{}", "a".repeat(count)));
                with(never(), json!(["0x", digits(65), digits(66), digits(128), H.repeat(2)]))
            }
            Self::Keys => json!([
                "0x0",
                {},
                1,
                true,
                [1],
                [""],
                ["0x"],
                ["1"],
                ["0xg"],
                [null],
                [[]],
                [{}],
                [format!("0x{}", "a".repeat(66))],
                ["0x0", "0x"],
            ])
            .as_array()
            .unwrap()
            .clone(),
            Self::Count => json!(["", "0x", "0x01", -1, 1.5, true, {}, [], "latest", "1"])
                .as_array()
                .unwrap()
                .clone(),
            Self::Percentiles => {
                json!(["x", 5, {}, true, ["1"], [null], [101], [-1], [5, 4], [[1]], [1e300],])
                    .as_array()
                    .unwrap()
                    .clone()
            }
            Self::Request => objects(REQUEST),
            Self::State => objects(STATE),
            Self::Overrides => objects(OVERRIDES),
            Self::Payload => objects(PAYLOAD),
            Self::Filter => objects(FILTER),
            Self::Trace => objects(TRACE),
            Self::TraceCall => with(
                objects(TRACE),
                json!([
                    { "stateOverrides": 1 }, { "stateOverrides": { A: { "balance": 1 } } },
                    { "blockOverrides": { "time": 1 } }, { "txIndex": 1 }, { "txIndex": "0x" },
                ]),
            ),
            Self::Kinds => {
                json!(["trace", {}, 1, [1], ["no"], ["Trace"], [null]]).as_array().unwrap().clone()
            }
        }
    }
}

/// What is no object, and these objects, written as JSON with `A` and `H` for an address and a hash.
fn objects(texts: &str) -> Vec<Value> {
    let texts = texts.replace('\'', "\"").replace("$A", A).replace("$H", H);
    let lines = texts.lines().map(str::trim).filter(|line| !line.is_empty());
    let more: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut values = json!(["", "0x", "latest", 1, true, []]).as_array().unwrap().clone();
    values.extend(more);
    values
}

const REQUEST: &str = "
    {'to': ''}
    {'to': '0x'}
    {'to': 5}
    {'to': '0x12'}
    {'from': ''}
    {'from': {}}
    {'from': '$H'}
    {'gas': 1}
    {'gas': ''}
    {'gas': '0x'}
    {'gas': '0x01'}
    {'gas': '21000'}
    {'gas': '0x1ffffffffffffffff'}
    {'gas': -1}
    {'value': 1}
    {'value': '0x'}
    {'value': '0x00'}
    {'value': '0x1$H'}
    {'value': '1'}
    {'data': '0x1'}
    {'data': ''}
    {'data': 'ab'}
    {'data': []}
    {'input': 5}
    {'input': '0xzz'}
    {'nonce': '1'}
    {'nonce': 0}
    {'nonce': '0x'}
    {'gasPrice': '0x00'}
    {'gasPrice': 1}
    {'maxFeePerGas': '1'}
    {'maxPriorityFeePerGas': ''}
    {'maxFeePerBlobGas': '0x'}
    {'chainId': 1}
    {'chainId': '0x'}
    {'type': '2'}
    {'type': 2}
    {'type': '0x100'}
    {'type': '0x02'}
    {'accessList': {}}
    {'accessList': [{}]}
    {'accessList': [{'address': '0x', 'storageKeys': []}]}
    {'accessList': [{'address': '$A', 'storageKeys': ['0x1']}]}
    {'accessList': [{'address': '$A', 'storageKeys': '$H'}]}
    {'accessList': ['$A']}
    {'blobVersionedHashes': ['0x1']}
    {'blobVersionedHashes': '$H'}
    {'authorizationList': [{}]}
    {'authorizationList': [{'chainId': 1, 'address': '$A', 'nonce': '0x0', 'yParity': '0x0', 'r': '0x1', 's': '0x1'}]}
";

const STATE: &str = "
    {'0x12': {}}
    {'': {}}
    {'$A': 1}
    {'$A': []}
    {'$A': {'balance': 1}}
    {'$A': {'balance': '0x'}}
    {'$A': {'balance': ''}}
    {'$A': {'nonce': '0x01'}}
    {'$A': {'nonce': 1}}
    {'$A': {'code': '0x1'}}
    {'$A': {'code': ''}}
    {'$A': {'state': []}}
    {'$A': {'state': {'0x1': '$H'}}}
    {'$A': {'stateDiff': {'$H': '0x1'}}}
    {'$A': {'stateDiff': {'$H': 1}}}
    {'$A': {'stateDiff': {'': '$H'}}}
    {'$A': {'state': {}, 'stateDiff': {}}}
    {'$A': {'movePrecompileToAddress': '0x'}}
    {'$A': {'foo': '0x1'}}
    {'$A': {'storage': {}}}
";

const OVERRIDES: &str = "
    {'number': 1}
    {'number': ''}
    {'number': '0x'}
    {'number': 'latest'}
    {'time': '0x01'}
    {'time': 5}
    {'time': '0x1ffffffffffffffff'}
    {'gasLimit': '-0x1'}
    {'gasLimit': '0x'}
    {'feeRecipient': '0x'}
    {'prevRandao': '0x1'}
    {'baseFeePerGas': '1'}
    {'blobBaseFee': '0x'}
    {'difficulty': 0}
    {'beaconRoot': '0x1'}
    {'withdrawals': {}}
    {'withdrawals': [{}]}
    {'withdrawals': [{'index': 1, 'validatorIndex': '0x0', 'address': '$A', 'amount': '0x1'}]}
    {'blockHash': {'x': '$H'}}
    {'blockHash': {'1': '0x1'}}
    {'foo': '0x1'}
    {'number': '0x1', 'blockNumber': '0x2'}
";

const PAYLOAD: &str = "
    {'blockStateCalls': {}}
    {'blockStateCalls': '0x'}
    {'blockStateCalls': [1]}
    {'blockStateCalls': [{'calls': {}}]}
    {'blockStateCalls': [{'calls': [1]}]}
    {'blockStateCalls': [{'calls': [{'gas': '0x'}]}]}
    {'blockStateCalls': [{'calls': [{'to': ''}]}]}
    {'blockStateCalls': [{'stateOverrides': []}]}
    {'blockStateCalls': [{'stateOverrides': {'$A': {'balance': ''}}}]}
    {'blockStateCalls': [{'blockOverrides': {'time': 1}}]}
    {'blockStateCalls': [{'blockOverrides': {'withdrawals': [1]}}]}
    {'blockStateCalls': [{'call': []}]}
    {'blockStateCalls': [{}], 'validation': 'true'}
    {'blockStateCalls': [{}], 'traceTransfers': 1}
    {'blockStateCalls': [{}], 'returnFullTransactions': '0x1'}
    {'blockStateCalls': [{}], 'foo': true}
    {}
";

const FILTER: &str = "
    {'fromBlock': 'newest'}
    {'fromBlock': 1}
    {'fromBlock': ''}
    {'fromBlock': '0x'}
    {'fromBlock': '0x01'}
    {'toBlock': ''}
    {'toBlock': '0xg'}
    {'toBlock': {}}
    {'address': ''}
    {'address': '0x'}
    {'address': ['0x12']}
    {'address': [1]}
    {'address': 5}
    {'topics': '0x'}
    {'topics': {}}
    {'topics': ['0x1']}
    {'topics': [1]}
    {'topics': [['0x']]}
    {'topics': [['$H', 5]]}
    {'topics': [null, null, null, null, null]}
    {'blockHash': '0x1'}
    {'blockHash': 1}
    {'blockHash': '$H', 'fromBlock': '0x1'}
    {'blockHash': '$H', 'toBlock': 'latest'}
";

const TRACE: &str = "
    {'tracer': 1}
    {'tracer': 'callTracer '}
    {'tracer': 'nope'}
    {'tracer': '{data: [], fault: function(log) {}}'}
    {'tracer': 'callTracer', 'tracerConfig': 1}
    {'tracer': 'callTracer', 'tracerConfig': {'onlyTopCall': 'yes'}}
    {'tracer': 'prestateTracer', 'tracerConfig': {'diffMode': 1}}
    {'tracer': 'muxTracer', 'tracerConfig': {'nope': {}}}
    {'timeout': 5}
    {'timeout': 'soon'}
    {'timeout': '-5s'}
    {'enableMemory': 'true'}
    {'disableStack': 1}
    {'limit': '5'}
    {'limit': -1}
    {'reexec': 'x'}
    {'overrides': {}}
";

/// The methods: what they must have, and what they may have.
const METHODS: &[(&str, &[P], &[P])] = &[
    ("web3_clientVersion", &[], &[]),
    ("net_version", &[], &[]),
    ("eth_chainId", &[], &[]),
    ("eth_syncing", &[], &[]),
    ("eth_blockNumber", &[], &[]),
    ("eth_gasPrice", &[], &[]),
    ("eth_maxPriorityFeePerGas", &[], &[]),
    ("eth_blobBaseFee", &[], &[]),
    ("eth_baseFee", &[], &[]),
    ("eth_newBlockFilter", &[], &[]),
    ("eth_config", &[], &[]),
    ("eth_capabilities", &[], &[]),
    ("eth_getBalance", &[P::Address], &[P::Block]),
    ("eth_getTransactionCount", &[P::Address], &[P::Block]),
    ("eth_getCode", &[P::Address], &[P::Block]),
    ("eth_getStorageAt", &[P::Address, P::Key], &[P::Block]),
    ("eth_getProof", &[P::Address], &[P::Keys, P::Block]),
    ("eth_getBlockByNumber", &[P::Number], &[P::Flag]),
    ("eth_getBlockByHash", &[P::Hash], &[P::Flag]),
    ("eth_getBlockTransactionCountByNumber", &[P::Number], &[]),
    ("eth_getBlockTransactionCountByHash", &[P::Hash], &[]),
    ("eth_getUncleCountByBlockNumber", &[P::Number], &[]),
    ("eth_getUncleCountByBlockHash", &[P::Hash], &[]),
    ("eth_getTransactionByBlockNumberAndIndex", &[P::Number, P::Index], &[]),
    ("eth_getTransactionByBlockHashAndIndex", &[P::Hash, P::Index], &[]),
    ("eth_getTransactionByHash", &[P::Hash], &[]),
    ("eth_getRawTransactionByHash", &[P::Hash], &[]),
    ("eth_getTransactionReceipt", &[P::Hash], &[]),
    ("eth_getBlockReceipts", &[P::Block], &[]),
    ("eth_getLogs", &[P::Filter], &[]),
    ("eth_newFilter", &[P::Filter], &[]),
    ("eth_feeHistory", &[P::Count, P::Number], &[P::Percentiles]),
    ("eth_call", &[P::Request], &[P::Block, P::State, P::Overrides]),
    ("eth_estimateGas", &[P::Request], &[P::Block, P::State, P::Overrides]),
    ("eth_createAccessList", &[P::Request], &[P::Block, P::State, P::Overrides]),
    ("eth_simulateV1", &[P::Payload], &[P::Block]),
    ("eth_sendRawTransaction", &[P::Data], &[]),
    ("eth_getRawTransactionByBlockNumberAndIndex", &[P::Number, P::Index], &[]),
    ("eth_getRawTransactionByBlockHashAndIndex", &[P::Hash, P::Index], &[]),
    ("eth_getHeaderByNumber", &[P::Number], &[]),
    ("eth_getHeaderByHash", &[P::Hash], &[]),
    ("eth_getAccountInfo", &[P::Address, P::Block], &[]),
    ("debug_getRawBlock", &[P::Block], &[]),
    ("debug_getRawHeader", &[P::Block], &[]),
    ("debug_getRawReceipts", &[P::Block], &[]),
    ("debug_getRawTransaction", &[P::Hash], &[]),
    ("debug_traceTransaction", &[P::Hash], &[P::Trace]),
    ("debug_traceBlockByNumber", &[P::Number], &[P::Trace]),
    ("debug_traceBlockByHash", &[P::Hash], &[P::Trace]),
    ("debug_traceCall", &[P::Request], &[P::Block, P::TraceCall]),
    ("trace_transaction", &[P::Hash], &[]),
    ("trace_block", &[P::Block], &[]),
    ("trace_call", &[P::Request, P::Kinds], &[P::Block, P::State, P::Overrides]),
];

fn methods() -> Methods {
    let mut chain = TestChain::new(&DevnetConfig::default());
    chain.block(1, 2);
    let (spec, view) = (&chain.spec, &chain.view);
    let forwarded = Arc::new(NoForwarded);
    // However slow the machine is.
    let config = EthConfig { pending_max_age_ms: 0, ..EthConfig::default() };
    let eth = EthContext::new(Arc::clone(spec), Arc::clone(view), config, None, forwarded);
    let config = CallConfig { threads: 1.try_into().unwrap(), ..CallConfig::default() };
    let calls = CallContext {
        spec: Arc::clone(spec),
        blocks: eth.blocks.clone(),
        pool: config.pool().unwrap(),
        config,
        upstream: None,
        forwarder: None,
        stats: Arc::clone(&eth.stats),
    };
    let mut methods = Methods::new();
    methods.merge(eth::module(Arc::new(eth))).unwrap();
    methods.merge(calls::module(Arc::new(calls))).unwrap();
    methods
}

async fn ask(methods: &Methods, method: &str, params: &Value) -> Result<Value, (i64, String)> {
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let (answer, _) = methods.raw_json_request(&request.to_string(), 1).await.unwrap();
    let answer: Value = serde_json::from_str(answer.get()).unwrap();
    match answer.get("error") {
        None => Ok(answer["result"].clone()),
        Some(e) => Err((e["code"].as_i64().unwrap(), e["message"].as_str().unwrap().to_owned())),
    }
}

/// Asserts that a request is refused for its parameters, with a text that has `what`.
async fn refused(methods: &Methods, method: &str, params: Value, what: &str) {
    let (code, message) = match ask(methods, method, &params).await {
        Ok(answer) => panic!("{method} {params} was answered: {answer}"),
        Err(error) => error,
    };
    assert_eq!(code, -32602, "{method} {params}: {message}");
    assert!(message.contains(what), "{method} {params}: {message}");
}

#[tokio::test]
async fn no_method_takes_a_parameter_of_another_kind() {
    let methods = methods();
    let mut cases = 0;
    for (method, must, may) in METHODS {
        let all: Vec<P> = must.iter().chain(*may).copied().collect();
        let right: Vec<Value> = all.iter().map(|kind| kind.right()).collect();
        // What is right is not refused for its form.
        for count in must.len()..=all.len() {
            let params = json!(right[..count]);
            if let Err((code, message)) = ask(&methods, method, &params).await {
                assert_ne!(code, -32602, "{method} {params}: {message}");
            }
            cases += 1;
        }
        for (at, kind) in all.iter().enumerate() {
            for wrong in kind.wrong() {
                let mut params = right.clone();
                params[at] = wrong;
                refused(&methods, method, json!(params), "").await;
                cases += 1;
            }
        }
        // Too few, too many, by name.
        for count in 0..must.len() {
            let what = format!("missing value for required argument {count}");
            refused(&methods, method, json!(right[..count]), &what).await;
            let mut params = right.clone();
            params[count] = Value::Null;
            refused(&methods, method, json!(params), &what).await;
            cases += 2;
        }
        let mut more = right.clone();
        more.push(json!("0x1"));
        let what = format!("too many arguments, want at most {}", all.len());
        refused(&methods, method, json!(more), &what).await;
        refused(&methods, method, json!({ "a": 1 }), "non-array args").await;
        cases += 2;
    }
    println!("{cases} requests to {} methods", METHODS.len());
    assert!(cases > 2_000, "{cases}");
}

#[tokio::test]
async fn the_reason_is_told_with_the_place() {
    let methods = methods();
    for (method, params, what) in [
        ("eth_getBalance", json!(["0x12"]), "invalid argument 0: hex string has length 2, want 40"),
        ("eth_getStorageValues", json!([{}]), "empty request"),
        (
            "eth_getStorageValues",
            json!([{ A: ["0x0", "0x"] }]),
            "invalid argument 0: 0x00000000000000000000000000000000000000…[1]: storage key without digits",
        ),
        (
            "eth_getStorageValues",
            json!([{ "0xaa": ["0x0"] }]),
            "invalid argument 0: account: hex string has length 2, want 40 for an address",
        ),
        (
            "eth_getStorageValues",
            json!([[A]]),
            "invalid argument 0: an object is wanted, not [\"0x000000000000000000000000000000000000…",
        ),
        ("eth_getStorageAt", json!([A, "0x"]), "invalid argument 1: storage key without digits"),
        ("eth_getStorageAt", json!([A, ""]), "invalid argument 1: empty hex string"),
        (
            "eth_getStorageAt",
            json!([A, format!("0x{}", "0".repeat(66))]),
            "invalid argument 1: storage key too long (want at most 32 bytes)",
        ),
        ("eth_getBlockByNumber", json!(["0x01"]), "hex number with leading zero digits"),
        ("eth_call", json!([{ "gas": "0x" }]), "invalid argument 0: gas: hex string \"0x\""),
        (
            "eth_call",
            json!([{}, "latest", { A: { "nonce": 1 } }]),
            "invalid argument 2: 0x00000000000000000000000000000000000000aa: nonce: cannot",
        ),
        (
            "eth_call",
            json!([{}, "latest", {}, { "foo": 1 }]),
            "unknown field foo; there are number",
        ),
        ("debug_traceCall", json!([{}, "latest", { "tracer": "x" }]), "there are callTracer"),
    ] {
        refused(&methods, method, params, what).await;
    }
}

#[test]
fn what_is_right_is_read() {
    fn read<T: Kind>(value: Value) -> T {
        T::read(value).unwrap_or_else(|why| panic!("{why}"))
    }
    assert_eq!(read::<Address>(json!(A)), Address::with_last_byte(0xaa));
    let upper = A.to_uppercase().replace("0X", "0x");
    assert_eq!(read::<Address>(json!(upper)), read::<Address>(json!(A)));
    assert_eq!(read::<U64>(json!("0xffffffffffffffff")), U64::MAX);
    assert_eq!(read::<U256>(json!(format!("0x{}", "f".repeat(64)))), U256::MAX);
    assert_eq!(read::<Bytes>(json!("0x")), Bytes::new());
    for key in ["0x0", "0x00", "0x1", "0x01", H] {
        read::<JsonStorageKey>(json!(key));
    }
    assert_eq!(read::<JsonStorageKey>(json!(H)), JsonStorageKey::Hash(read::<B256>(json!(H))));
    assert_eq!(read::<JsonStorageKey>(json!("0xaa")), JsonStorageKey::Number(U256::from(0xaa)));
    assert_eq!(read::<BlockId>(json!(H)), BlockId::from(read::<B256>(json!(H))));
    let hash = json!({ "blockHash": H, "requireCanonical": false });
    assert!(matches!(read(hash), BlockId::Hash(_)));
    assert_eq!(read::<BlockId>(json!({ "blockNumber": "0x5" })), BlockId::number(5));
    assert_eq!(read::<Count>(json!(5)), read::<Count>(json!("0x5")));
    // A null among topics is any of them; one address needs no list.
    let filter: Filter = read(json!({ "address": A, "topics": [[H, null], [], H] }));
    assert_eq!((filter.topics[0].len(), filter.topics[1].len(), filter.topics[2].len()), (0, 0, 1));
    assert_eq!(filter.address.len(), 1);
}
