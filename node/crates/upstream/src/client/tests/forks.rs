//! Fork times of a client, compared with a chain's.

use std::collections::BTreeMap;

use fragcast_execution::chain::ChainSpec;
use serde_json::{Value, json};

use super::*;
use crate::client::forks::{ClientForks, Differences, differences, forks};

/// What a client tells that answers `method` with `answer` and lacks all others.
async fn told(method: &str, answer: &Value) -> ClientForks {
    let server = Server::up(10, blocks(&mut TestChain::new(&config()), 1, 1));
    server.state().more.insert(method.to_owned(), answer.clone());
    forks(&client(&server)).await.unwrap()
}

/// OP Mainnet's forks by the keys that `key` makes.
fn op_mainnet(key: impl Fn(&str) -> String) -> serde_json::Map<String, Value> {
    let times = [
        ("canyon", 1_704_992_401_u64),
        ("ecotone", 1_710_374_401),
        ("fjord", 1_720_627_201),
        ("granite", 1_726_070_401),
        ("holocene", 1_736_445_601),
        ("isthmus", 1_746_806_401),
        ("jovian", 1_764_691_201),
        ("karst", 1_783_526_401),
    ];
    times.into_iter().map(|(name, time)| (key(name), time.into())).collect()
}

const NOW: u64 = 1_790_000_000;

fn op() -> ChainSpec {
    ChainSpec::load("op-mainnet").unwrap()
}

#[tokio::test]
async fn fork_times_that_agree_say_nothing() {
    let mut geth = op_mainnet(|name| format!("{name}Time"));
    for (key, time) in
        [("regolithTime", 0_u64), ("shanghaiTime", 1_704_992_401), ("cancunTime", 1_710_374_401)]
    {
        geth.insert(key.into(), time.into());
    }
    geth.insert("lagoonTime".into(), Value::Null);
    let mut rollup = op_mainnet(|name| format!("{name}_time"));
    rollup.insert("delta_time".into(), 1_708_560_000.into());
    rollup.insert("block_time".into(), "2".into());
    rollup.insert("pectra_blob_schedule_time".into(), 5.into());
    for (method, answer) in [
        ("optimism_rollupConfig", json!(rollup)),
        ("debug_chainConfig", json!(geth)),
        ("admin_nodeInfo", json!({ "protocols": { "eth": { "config": geth } } })),
    ] {
        let client = told(method, &answer).await;
        assert!(matches!(&client, ClientForks::Named(by, _) if *by == method), "{client:?}");
        assert_eq!(differences(&op(), &client, NOW), Differences::default(), "{method}");
    }
}

#[tokio::test]
async fn each_fork_that_differs_is_named() {
    let mut theirs = op_mainnet(|name| format!("{name}Time"));
    theirs.insert("karstTime".into(), 1_783_526_402_u64.into());
    theirs.remove("granite_time");
    theirs.remove("graniteTime");
    theirs.insert("lagoonTime".into(), (NOW + 1).into());
    let client = told("debug_chainConfig", &json!(theirs)).await;
    let found = differences(&op(), &client, NOW);
    assert_eq!(
        found.now,
        [
            "granite: 1726070401 here, none at the client",
            "karst: 1783526401 here, 1783526402 at the client",
        ]
    );
    assert_eq!(found.later, [format!("lagoon: none here, {} at the client", NOW + 1)]);
    // A fork that this build lacks, and knows of, is no difference.
    let mut times: BTreeMap<String, u64> = theirs
        .iter()
        .map(|(key, time)| (key.trim_end_matches("Time").to_owned(), time.as_u64().unwrap()))
        .collect();
    times.insert("granite".into(), 1_726_070_401);
    let spec = ChainSpec::op_with_times("test", 10, &times).unwrap();
    let found = differences(&spec, &client, NOW);
    assert_eq!((found.now.len(), found.later.len()), (1, 0), "{found:?}");
}

#[tokio::test]
async fn eth_config_is_compared_by_its_times_and_blobs() {
    let answer = |current: u64, next: Value, max: u64| {
        let blobs = json!({ "target": 14, "max": max, "baseFeeUpdateFraction": 11_684_671 });
        json!({ "current": { "activationTime": current, "blobSchedule": blobs }, "next": next })
    };
    let spec = ChainSpec::load("mainnet").unwrap();
    let compare = async |answer| differences(&spec, &told("eth_config", &answer).await, NOW);
    let bpo2 = 1_767_747_671;
    assert_eq!(compare(answer(bpo2, Value::Null, 21)).await, Differences::default());
    assert_eq!(compare(answer(bpo2 - 1, Value::Null, 21)).await.now.len(), 1);
    assert_eq!(compare(answer(bpo2, Value::Null, 15)).await.now.len(), 1);
    let next = json!({ "activationTime": "0x77777777" });
    let found = compare(answer(bpo2, next, 21)).await;
    assert_eq!(found.later, ["the next fork: none here, 2004318071 at the client"]);
}

#[tokio::test]
async fn answers_that_mean_nothing_tell_no_times() {
    for (method, answer) in [
        ("eth_config", json!({ "current": [] })),
        ("debug_chainConfig", json!({ "karstTime": "soon" })),
        ("admin_nodeInfo", json!([1, 2])),
        ("net_version", json!("1")),
    ] {
        let client = told(method, &answer).await;
        let nothing = match &client {
            ClientForks::Unknown => true,
            ClientForks::Named(_, times) => times.is_empty(),
            ClientForks::Times { .. } => false,
        };
        assert!(nothing, "{client:?}");
    }
}
