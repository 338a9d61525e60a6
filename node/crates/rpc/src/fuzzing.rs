//! Bodies of the fuzz targets; see `fragcast_shredder::fuzzing`.

use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};

use alloy_primitives::{Address, Bytes};
use fragcast_execution::devnet::DevnetConfig;
use fragcast_execution::testing::TestChain;
use jsonrpsee::RpcModule;
use serde_json::Value;

use crate::eth::{EthConfig, EthContext, Forwarded, module};

/// A named fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[("body", body)];

/// Nothing is forwarded.
struct Nothing;

impl Forwarded for Nothing {
    fn pending_nonce(&self, _: Address, state_nonce: u64) -> u64 {
        state_nonce
    }
}

struct Served {
    module: RpcModule<EthContext>,
    runtime: tokio::runtime::Runtime,
}

/// The methods over a chain of two blocks.
fn served() -> &'static Served {
    static SERVED: OnceLock<Served> = OnceLock::new();
    SERVED.get_or_init(|| {
        let accounts = NonZeroU32::new(8).expect("not zero");
        let mut chain = TestChain::new(&DevnetConfig { accounts, ..DevnetConfig::default() });
        for _ in 0..2 {
            let mut block = chain.open();
            let txs: Vec<Bytes> = (0..4).map(|_| chain.workload.next_tx().bytes).collect();
            chain.frag(&mut block, &txs, true);
            chain.seal(block);
        }
        let (spec, view) = (Arc::clone(&chain.spec), Arc::clone(&chain.view));
        let config = EthConfig { max_log_blocks: 8, ..EthConfig::default() };
        let ctx = Arc::new(EthContext::new(spec, view, config, None, Arc::new(Nothing)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Served { module: module(ctx), runtime: runtime.expect("a runtime") }
    })
}

/// A request of any shape is an error or gets an answer: JSON-RPC 2.0, with a result or an error
/// and never with both.
pub fn body(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Served { module, runtime } = served();
    let Ok((answer, _)) = runtime.block_on(module.raw_json_request(text, 1)) else { return };
    let answer: Value = serde_json::from_str(answer.get()).expect("JSON");
    assert_eq!(answer["jsonrpc"], "2.0", "{answer}");
    let has = |what| answer.get(what).is_some();
    assert!(has("result") != has("error"), "{answer}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn targets_hold_on_seeded_bytes() {
        let requests = [
            r#"{"jsonrpc":"2.0","id":1,"method":"eth_getBlockByNumber","params":["latest",true]}"#,
            r#"{"jsonrpc":"2.0","id":2,"method":"eth_getLogs","params":[{"fromBlock":"0x0"}]}"#,
            r#"{"jsonrpc":"2.0","id":3,"method":"eth_feeHistory","params":["0x2","latest",[9]]}"#,
            r#"{"jsonrpc":"2.0","id":"a","method":"eth_getBalance","params":["0x00","0x1"]}"#,
            r#"{"jsonrpc":"2.0","id":5,"method":"eth_getCode","params":["0x7070707070707070707070707070707070707070",{"blockNumber":"0x1","fragIndex":"0x0"}]}"#,
            r#"{"jsonrpc":"2.0","id":6,"method":"eth_getLogs","params":[{"fromBlock":"pending","toBlock":"0x2","topics":[null]}]}"#,
        ];
        fragcast_shredder::fuzzing::run_on_seeded_bytes(
            super::TARGETS,
            "fuzz rpc",
            (300, 200),
            |round, data| {
                let Some(request) = requests.get(round % 7) else { return };
                let mut changed = request.as_bytes().to_vec();
                for change in data.chunks_exact(2).take(round / 7 % 4) {
                    let at = usize::from(change[0]) % changed.len();
                    changed[at] = change[1] % 128;
                }
                *data = changed;
            },
        );
    }
}
