//! An execution client in this process: serves a [`TestChain`](fragcast_execution::testing::TestChain)'s blocks
//! over HTTP JSON-RPC, and on demand is slow, silent, down, lies, or reorganises.

mod answers;
pub mod http;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy_primitives::{B256, Bytes};
use fragcast_execution::exec::SealedBlock;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use http::{Answered, Asked, HttpServer};

/// The fault that every request meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answered after this time.
    Slow(Duration),
    /// Never answered.
    Silent,
    /// The connection is closed without an answer.
    Close,
    /// Only the first half of the answer's JSON.
    Truncated,
    /// HTTP 503.
    Busy,
}

/// The lie in its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// A byte of the last node of proofs.
    ProofByte,
    /// Proofs lack their last node.
    ProofShort,
    /// Proofs are of another address.
    ProofOther,
    /// Proofs are empty.
    ProofEmpty,
    /// Proofs hold a node that is too large, or too many.
    ProofHuge,
    /// Proofs are of the block before.
    ProofStale,
    /// The gas used in headers.
    Header,
    /// Another block than the one asked for.
    OtherBlock,
    /// Code.
    Code,
    /// The last transaction of blocks is missing.
    TxMissing,
    /// The first transaction of blocks is another one.
    TxOther,
}

/// The client's state; all fields may be changed at any time.
#[derive(Default)]
pub struct State {
    /// Chain id (EIP-155).
    pub chain_id: u64,
    /// Its canonical chain, ascending.
    pub chain: Vec<Arc<SealedBlock>>,
    /// All blocks that it has.
    pub known: HashMap<B256, Arc<SealedBlock>>,
    /// Number of its safe block.
    pub safe: Option<u64>,
    /// Number of its finalized block.
    pub finalized: Option<u64>,
    /// The fault that requests meet from now on.
    pub fault: Option<Fault>,
    /// The lie in answers from now on.
    pub lie: Option<Lie>,
    /// Whether it offers `debug_getRawBlock`.
    pub raw_blocks: bool,
    /// Whether it refuses batches.
    pub no_batches: bool,
    /// The number of blocks before its head whose state it has.
    pub proofs_back: Option<u64>,
    /// How often each method was called.
    pub asked: BTreeMap<String, u64>,
    /// HTTP requests.
    pub requests: u64,
    /// Answers of methods that it has besides.
    pub more: BTreeMap<String, Value>,
    /// Transactions that were sent to it.
    pub sent: Vec<Bytes>,
}

/// The server. It has a runtime of its own, so that it can be used from anywhere.
pub struct Server {
    state: Arc<Mutex<State>>,
    http: HttpServer,
    runtime: Option<Runtime>,
}

impl Server {
    /// A server that serves `chain`, ascending.
    pub fn up(chain_id: u64, chain: Vec<Arc<SealedBlock>>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let known = chain.iter().map(|block| (block.hash(), Arc::clone(block))).collect();
        let state = State { chain_id, chain, known, raw_blocks: true, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let served = Arc::clone(&state);
        let entered = runtime.enter();
        let http = HttpServer::up(move |asked| serve(Arc::clone(&served), asked));
        drop(entered);
        Self { state, http, runtime: Some(runtime) }
    }

    /// Its address.
    pub fn url(&self) -> String {
        self.http.url()
    }

    /// Its state, to read or change.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `chain` its canonical chain; blocks of the old one stay known.
    pub fn reorganise(&self, chain: Vec<Arc<SealedBlock>>) {
        let mut state = self.state();
        state.known.extend(chain.iter().map(|block| (block.hash(), Arc::clone(block))));
        state.chain = chain;
    }

    /// Makes this block, a child of the head, the new head.
    pub fn extend(&self, block: &Arc<SealedBlock>) {
        let mut state = self.state();
        state.known.insert(block.hash(), Arc::clone(block));
        state.chain.push(Arc::clone(block));
    }

    /// Starts the server (again): the port is open.
    pub fn start(&mut self) {
        let _entered = self.runtime.as_ref().unwrap().enter();
        self.http.start();
    }

    /// Stops the server: the port is closed and connections break.
    pub fn stop(&mut self) {
        self.http.stop_blocking();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(state: Arc<Mutex<State>>, asked: Asked) -> Answered {
    let call: Value = serde_json::from_slice(&asked.body).unwrap();
    let (fault, answer) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests += 1;
        let answer = match &call {
            Value::Array(_) if state.no_batches => {
                json!({ "jsonrpc": "2.0", "id": null,
                        "error": { "code": -32600, "message": "batches are not supported" } })
            }
            // Backwards: the order of a batch's answers is free.
            Value::Array(calls) => calls.iter().rev().map(|call| state.answer(call)).collect(),
            call => state.answer(call),
        };
        (state.fault, answer.to_string())
    };
    match fault {
        None => Some((200, answer.into())),
        Some(Fault::Slow(by)) => {
            tokio::time::sleep(by).await;
            Some((200, answer.into()))
        }
        Some(Fault::Silent) => std::future::pending().await,
        Some(Fault::Close) => None,
        Some(Fault::Truncated) => Some((200, answer[..answer.len() / 2].to_owned().into())),
        Some(Fault::Busy) => Some((503, "busy".into())),
    }
}
