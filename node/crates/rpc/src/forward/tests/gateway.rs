//! A gateway's JSON-RPC port.

use fragcast_upstream::testing::http::{Answered, Asked, HttpServer};

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
    http: HttpServer,
}

impl Gateway {
    pub(in super::super) fn start(
        answer: impl Fn(&Bytes) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let arrived = Arc::<Mutex<Vec<Bytes>>>::default();
        let state = Arc::new((Arc::clone(&arrived), answer));
        let http = HttpServer::up(move |asked| serve(Arc::clone(&state), asked));
        Self { url: http.url() + "/", arrived, http }
    }

    pub(in super::super) fn good() -> Self {
        Self::start(|_| Answer::Hash)
    }

    /// Stops the server: nobody listens at its port any more.
    pub(in super::super) async fn stop(&mut self) {
        self.http.stop().await;
    }

    pub(in super::super) fn arrived(&self) -> Vec<Bytes> {
        self.arrived.lock().unwrap().clone()
    }
}

async fn serve<F: Fn(&Bytes) -> Answer>(
    state: Arc<(Arc<Mutex<Vec<Bytes>>>, F)>,
    asked: Asked,
) -> Answered {
    let request: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(request["method"], "eth_sendRawTransaction");
    let raw: Bytes = serde_json::from_value(request["params"][0].clone()).unwrap();
    state.0.lock().unwrap().push(raw.clone());
    let mut answer = json!({ "jsonrpc": "2.0", "id": request["id"] });
    match (state.1)(&raw) {
        Answer::Hash => answer["result"] = json!(keccak256(&raw)),
        Answer::Error(error) => answer["error"] = error,
        Answer::Status(status) => return Some((status, bytes::Bytes::new())),
        Answer::Silence => std::future::pending().await,
    }
    Some((200, answer.to_string().into()))
}
