//! An execution client in this process: serves a [`TestChain`](fragcast_execution::testing::TestChain)'s blocks
//! over HTTP JSON-RPC, and on demand is slow, silent, down, lies, or reorganises.

mod answers;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use alloy_primitives::{B256, Bytes};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, JoinSet};

use fragcast_execution::exec::SealedBlock;

/// Longer than stopping takes.
const GUARD: Duration = Duration::from_secs(60);

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
    /// Transactions that were sent to it.
    pub sent: Vec<Bytes>,
}

/// The server. It has a runtime of its own, so that it can be used from anywhere.
pub struct Server {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    /// Bound and never listening: keeps the port while the server is down.
    _reservation: TcpSocket,
    running: Option<JoinHandle<()>>,
    runtime: Option<Runtime>,
}

fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

impl Server {
    /// A server that serves `chain`, ascending.
    pub fn up(chain_id: u64, chain: Vec<Arc<SealedBlock>>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let reservation = {
            let _entered = runtime.enter();
            socket(SocketAddr::from(([127, 0, 0, 1], 0)))
        };
        let address = reservation.local_addr().unwrap();
        let known = chain.iter().map(|block| (block.hash(), Arc::clone(block))).collect();
        let state = State { chain_id, chain, known, raw_blocks: true, ..State::default() };
        let mut server = Self {
            state: Arc::new(Mutex::new(state)),
            address,
            _reservation: reservation,
            running: None,
            runtime: Some(runtime),
        };
        server.start();
        server
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
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
        let runtime = self.runtime.as_ref().unwrap();
        let listener = {
            let _entered = runtime.enter();
            socket(self.address).listen(64).unwrap()
        };
        let state = Arc::clone(&self.state);
        self.running = Some(runtime.spawn(async move {
            // Dropped with the task, and all connections with it.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    let service = service_fn(|request| serve(&state, request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        }));
    }

    /// Stops the server: the port is closed and connections break.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let asked = Instant::now();
            while !running.is_finished() {
                assert!(asked.elapsed() < GUARD, "the server does not end");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn respond(status: u16, body: impl Into<bytes::Bytes>) -> Response<Full<bytes::Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

async fn serve(
    state: &Mutex<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<bytes::Bytes>>, std::io::Error> {
    let Ok(body) = request.into_body().collect().await else {
        return Err(std::io::Error::other("the request broke off"));
    };
    let call: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
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
        None => Ok(respond(200, answer)),
        Some(Fault::Slow(by)) => {
            tokio::time::sleep(by).await;
            Ok(respond(200, answer))
        }
        Some(Fault::Silent) => {
            let never: Infallible = std::future::pending().await;
            match never {}
        }
        Some(Fault::Close) => Err(std::io::Error::other("closed on demand")),
        Some(Fault::Truncated) => Ok(respond(200, answer[..answer.len() / 2].to_owned())),
        Some(Fault::Busy) => Ok(respond(503, "busy")),
    }
}
