//! A gateway's JSON-RPC port.

use fragcast_upstream::testing::http::{Answered, Asked, HttpServer};

use super::*;

/// Its answer to a transaction.
pub(crate) enum Answer {
    /// Answers with its hash.
    Hash,
    /// Answers with an error.
    Error(Value),
    /// Answers with this status and no JSON.
    Status(u16),
    /// Never answers.
    Silence,
}

pub(crate) struct Gateway {
    pub(crate) url: String,
    arrived: Arc<Mutex<Vec<Bytes>>>,
    conditions: Arc<Mutex<Vec<Value>>>,
    http: HttpServer,
}

impl Gateway {
    pub(crate) fn start(answer: impl Fn(&Bytes) -> Answer + Send + Sync + 'static) -> Self {
        let arrived = Arc::<Mutex<Vec<Bytes>>>::default();
        let conditions = Arc::<Mutex<Vec<Value>>>::default();
        let state = Arc::new((Arc::clone(&arrived), answer, Arc::clone(&conditions)));
        let http = HttpServer::up(move |asked| serve(Arc::clone(&state), asked));
        Self { url: http.url() + "/", arrived, conditions, http }
    }

    pub(crate) fn good() -> Self {
        Self::start(|_| Answer::Hash)
    }

    /// Stops the server: nobody listens at its port any more.
    pub(crate) async fn stop(&mut self) {
        self.http.stop().await;
    }

    pub(crate) fn arrived(&self) -> Vec<Bytes> {
        self.arrived.lock().unwrap().clone()
    }

    /// The conditions that came with transactions.
    pub(crate) fn conditions(&self) -> Vec<Value> {
        self.conditions.lock().unwrap().clone()
    }
}

/// What was sent, what is answered, and the conditions that were told.
type State<F> = (Arc<Mutex<Vec<Bytes>>>, F, Arc<Mutex<Vec<Value>>>);

async fn serve<F: Fn(&Bytes) -> Answer>(state: Arc<State<F>>, asked: Asked) -> Answered {
    let request: Value = serde_json::from_slice(&asked.body).unwrap();
    if request["method"] == "eth_sendRawTransactionConditional" {
        state.2.lock().unwrap().push(request["params"][1].clone());
    } else {
        assert_eq!(request["method"], "eth_sendRawTransaction");
    }
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
