//! No answer mixes two states, whatever happens meanwhile.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_of_one_state() {
    let mut f = Fixture::new();
    f.chain.block(2, 10);
    let (ctx, module, done) =
        (Arc::clone(&f.ctx), f.module.clone(), Arc::new(AtomicBool::new(false)));
    let stop = Arc::clone(&done);
    let accounts = f.chain.workload.addresses().to_vec();
    let chain = f.chain;
    let writer = std::thread::spawn(move || {
        let mut chain = chain;
        for _ in 0..20 {
            chain.block(4, 5);
        }
        stop.store(true, Ordering::Relaxed);
        chain
    });
    let mut seen = HashSet::new();
    let call = async |method: &str, params: Value| -> Value {
        let params: Vec<Value> = serde_json::from_value(params).unwrap();
        module.call(method, params).await.unwrap()
    };
    while !done.load(Ordering::Relaxed) {
        let block = call("eth_getBlockByNumber", json!(["pending", true])).await;
        seen.insert((block["number"].clone(), block["gasUsed"].clone()));
        let txs = block["transactions"].as_array().unwrap();
        assert!(txs.iter().all(|tx| tx["blockNumber"] == block["number"]));
        let hashes: HashSet<_> = txs.iter().map(|tx| tx["blockHash"].as_str().unwrap()).collect();
        assert!(hashes.len() <= 1);
        // An open block has no hash of its own.
        assert!(block["hash"].is_null() || hashes.iter().all(|hash| block["hash"] == *hash));
        let receipts = call("eth_getBlockReceipts", json!(["pending"])).await;
        let receipts = receipts.as_array().unwrap();
        let one: HashSet<_> =
            receipts.iter().map(|r| (r["blockNumber"].as_str(), r["blockHash"].as_str())).collect();
        assert!(one.len() <= 1, "{one:?}");
        let gas: u64 = receipts.iter().map(|r| quantity(&r["gasUsed"])).sum();
        let last = receipts.last().map_or(0, |r| quantity(&r["cumulativeGasUsed"]));
        assert_eq!(gas, last);
        let logs = call("eth_getLogs", json!([{ "fromBlock": "0x1", "toBlock": "pending" }])).await;
        let places: Vec<_> = logs
            .as_array()
            .unwrap()
            .iter()
            .map(|log| (quantity(&log["blockNumber"]), quantity(&log["logIndex"])))
            .collect();
        for pair in places.windows(2) {
            let next =
                pair[1] == (pair[0].0, pair[0].1 + 1) || pair[1].0 > pair[0].0 && pair[1].1 == 0;
            assert!(next, "{pair:?}");
        }
        // Block and state of one snapshot: every block has 20 transactions, each counted by a
        // nonce.
        let heads = ctx.blocks.heads().unwrap_or_else(|_| panic!("heads"));
        let pending = heads.pending();
        let nonce = |address| pending.state.account(address).unwrap().map_or(0, |a| a.nonce);
        let nonces: u64 = accounts.iter().map(|address| nonce(*address)).sum();
        assert_eq!(nonces, 20 * (pending.header.number - 1) + pending.tx_count() as u64);
    }
    writer.join().unwrap();
    assert!(seen.len() > 1);
}
