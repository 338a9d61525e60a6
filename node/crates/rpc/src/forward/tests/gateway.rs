//! A gateway's JSON-RPC port.

use std::convert::Infallible;

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::*;

/// Its answer to a transaction.
pub(in super::super) enum Answer {
    /// Answers with its hash.
    Hash,
    /// Answers with an error.
    Error(Value),
    /// Answers with this status and no JSON.
    Status(u16),
    /// Never answers.
    Silence,
}

pub(in super::super) struct Gateway {
    pub(in super::super) url: String,
    arrived: Arc<Mutex<Vec<Bytes>>>,
    running: Option<JoinHandle<()>>,
}

impl Gateway {
    pub(in super::super) async fn start(
        answer: impl Fn(&Bytes) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let arrived = Arc::<Mutex<Vec<Bytes>>>::default();
        let state = Arc::new((Arc::clone(&arrived), answer));
        let running = tokio::spawn(async move {
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
        });
        Self { url, arrived, running: Some(running) }
    }

    pub(in super::super) async fn good() -> Self {
        Self::start(|_| Answer::Hash).await
    }

    /// Stops the server: nobody listens at its port any more.
    pub(in super::super) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
    }

    pub(in super::super) fn arrived(&self) -> Vec<Bytes> {
        self.arrived.lock().unwrap().clone()
    }
}

async fn serve(
    state: &(Arc<Mutex<Vec<Bytes>>>, impl Fn(&Bytes) -> Answer),
    request: Request<Incoming>,
) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let request: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(request["method"], "eth_sendRawTransaction");
    let raw: Bytes = serde_json::from_value(request["params"][0].clone()).unwrap();
    state.0.lock().unwrap().push(raw.clone());
    let mut answer = json!({ "jsonrpc": "2.0", "id": request["id"] });
    match (state.1)(&raw) {
        Answer::Hash => answer["result"] = json!(keccak256(&raw)),
        Answer::Error(error) => answer["error"] = error,
        Answer::Status(status) => {
            let response = Response::builder().status(status);
            return Ok(response.body(Full::default()).unwrap());
        }
        Answer::Silence => std::future::pending().await,
    }
    Ok(Response::new(Full::new(answer.to_string().into())))
}
