//! An execution client that behaves like based-op-geth: it checks the token, keeps one unsealed
//! block, and throws it away on anything out of sequence. It fails on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::testing::http::{Answered, Asked, HttpServer};

/// The longest wait for any condition; only a failing test reaches it.
const GUARD: Duration = Duration::from_secs(30);

/// What to do with one message instead of answering at once. The message was processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// An error; not processed.
    Error,
    /// No answer, ever.
    Silence,
    /// The connection is closed without an answer.
    Close,
    /// The server is busy: HTTP 503.
    Unavailable,
    /// 200, but no JSON-RPC.
    Garbage,
    /// Processed and answered only when the fault is taken back.
    Hold,
}

/// A message that arrived with a good token: block, attempt of the last Env, index.
pub(super) type Arrival = (u64, u64, u64);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) secret: [u8; 32],
    pub(super) arrivals: Vec<Arrival>,
    /// Requests with a bad token.
    pub(super) unauthorised: u64,
    /// How often a block was asked for.
    pub(super) asked: u64,
    /// Unsealed blocks thrown away for a message out of sequence; a newer Env is in order.
    pub(super) ruined: u64,
    /// Sealed blocks and those that came the slow way.
    pub(super) blocks: BTreeSet<u64>,
    /// By block and index.
    pub(super) faults: BTreeMap<(u64, u64), Fault>,
    /// Block, attempt, next index.
    unsealed: Option<Arrival>,
}

pub(super) struct Server {
    pub(super) state: watch::Sender<State>,
    http: HttpServer,
}

impl Server {
    /// A server that is down and has the blocks up to `head`.
    pub(super) fn down(head: u64) -> Self {
        let state = State {
            secret: super::fixture::SECRET,
            blocks: (0..=head).collect(),
            ..State::default()
        };
        let state = watch::Sender::new(state);
        let served = state.clone();
        let http = HttpServer::down(move |asked| serve(served.clone(), asked));
        Self { state, http }
    }

    pub(super) fn up(head: u64) -> Self {
        let mut server = Self::down(head);
        server.start();
        server
    }

    pub(super) fn url(&self) -> String {
        self.http.url()
    }

    pub(super) fn start(&mut self) {
        self.http.start();
    }

    /// Stops the server: connections break, and the unsealed block is lost.
    pub(super) async fn stop(&mut self) {
        self.http.stop().await;
        self.state.send_modify(|state| state.unsealed = None);
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }

    /// Blocks of messages that arrived, in order.
    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        self.state.borrow().arrivals.clone()
    }

    pub(super) async fn until(&self, what: &str, condition: impl FnMut(&State) -> bool) {
        let mut state = self.state.subscribe();
        let reached = tokio::time::timeout(GUARD, state.wait_for(condition)).await.is_ok();
        assert!(reached, "never {what}: {:?}", self.state.borrow());
    }
}

/// Waits until `condition` of something that cannot be subscribed to.
pub(super) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(GUARD, poll).await.is_ok(), "never {what}");
}

#[derive(Deserialize)]
struct Claims {
    iat: u64,
}

fn authorised(secret: &[u8], bearer: Option<&str>) -> bool {
    let Some(token) = bearer else { return false };
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_exp = false;
    validation.required_spec_claims.clear();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_secret(secret), &validation)
        .is_ok_and(|token| token.claims.iat.abs_diff(now) <= 60)
}

async fn serve(state: watch::Sender<State>, asked: Asked) -> Answered {
    let secret = state.borrow().secret;
    if !authorised(&secret, asked.bearer.as_deref()) {
        state.send_modify(|state| state.unauthorised += 1);
        return Some((401, "token signature is invalid".into()));
    }
    let call: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(call["jsonrpc"], "2.0");
    let (method, params) = (call["method"].as_str().unwrap(), &call["params"]);
    let answer = |result: Result<Value, &str>| {
        let id = &call["id"];
        let answer = match result {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err(message) => {
                let error = json!({ "code": -32000, "message": message });
                json!({ "jsonrpc": "2.0", "id": id, "error": error })
            }
        };
        Some((200, answer.to_string().into()))
    };
    if method == "eth_getBlockByNumber" {
        let number = params[0].as_str().unwrap().strip_prefix("0x").unwrap();
        let number = u64::from_str_radix(number, 16).unwrap();
        assert_eq!(params[1], false);
        let mut present = false;
        state.send_modify(|state| {
            state.asked += 1;
            present = state.blocks.contains(&number);
        });
        return answer(Ok(if present { json!({ "number": params[0] }) } else { Value::Null }));
    }
    let signature = params[0]["signature"].as_str().unwrap();
    assert!(signature.len() == 132 && ["1b", "1c"].contains(&&signature[130..]), "{signature}");
    let message = &params[0]["message"];
    let number = |name: &str| message[name].as_u64().unwrap();
    let (block, index) = match method {
        "engine_envV0" => (number("number"), 0),
        "engine_newFragV0" => (number("blockNumber"), number("seq") + 1),
        "engine_sealFragV0" => (number("blockNumber"), number("totalFrags") + 1),
        _ => panic!("no such method: {method}"),
    };
    let mut fault = None;
    state.send_modify(|state| {
        fault = state.faults.get(&(block, index)).copied();
        let attempt = match state.unsealed {
            _ if index == 0 => number("gasLimit"),
            Some((_, attempt, _)) => attempt,
            None => 0,
        };
        state.arrivals.push((block, attempt, index));
    });
    if fault == Some(Fault::Hold) {
        let mut state = state.subscribe();
        let _ = state.wait_for(|state| !state.faults.contains_key(&(block, index))).await;
    }
    let mut result = Err("injected");
    if fault != Some(Fault::Error) {
        let attempt = (index == 0).then(|| number("gasLimit"));
        state.send_modify(|state| result = state.process(method, block, index, attempt));
    }
    match fault {
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Close) => None,
        Some(Fault::Unavailable) => Some((503, "busy".into())),
        Some(Fault::Garbage) => Some((200, "{\"result\":".into())),
        Some(Fault::Error | Fault::Hold) | None => answer(result.map(Value::from)),
    }
}

impl State {
    fn process(
        &mut self,
        method: &str,
        block: u64,
        index: u64,
        attempt: Option<u64>,
    ) -> Result<&'static str, &'static str> {
        let unsealed = self.unsealed.take();
        if let Some(attempt) = attempt {
            if block > 0 && !self.blocks.contains(&(block - 1)) {
                return Err("unknown parent");
            }
            if unsealed.is_some_and(|(old, old_attempt, _)| (block, attempt) <= (old, old_attempt))
            {
                self.ruined += 1;
            }
            self.unsealed = Some((block, attempt, 1));
            return Ok("VALID");
        }
        let Some((open, attempt, next)) = unsealed else { return Err("no unsealed block") };
        if (block, index) != (open, next) {
            self.ruined += 1;
            return Err("out of sequence");
        }
        if method == "engine_sealFragV0" {
            self.blocks.insert(block);
        } else {
            self.unsealed = Some((open, attempt, next + 1));
        }
        Ok("VALID")
    }
}
