//! What both test binaries use: the program, processes that end with their test, JSON-RPC.
//!
//! Time limits only catch what hangs; no test waits for one.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use fragcast::gateway::ingest;
use fragcast_shredder::{GatewayKey, Message};
use fragcast_upstream::http::HttpClient;
use serde_json::{Value, json};

/// How long one event may take.
pub(crate) const GUARD: Duration = Duration::from_secs(120);

/// How long a program may run that ends by itself.
const RUN_GUARD: Duration = Duration::from_secs(1_200);

/// A process that is killed when this is dropped.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program that has ended left behind.
pub(crate) struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Asserts that it succeeded.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// Runs `command` to its end.
pub(crate) fn run(command: &mut Command) -> Ended {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running =
        Running(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    let texts = (collect(running.0.stdout.take()), collect(running.0.stderr.take()));
    let text = |of: Receiver<String>| {
        of.recv_timeout(RUN_GUARD).unwrap_or_else(|_| panic!("{command:?} does not end"))
    };
    let (stdout, stderr) = (text(texts.0), text(texts.1));
    Ended { code: running.0.wait().unwrap().code(), stdout, stderr }
}

/// Reads `stream` to its end on a thread, so that neither pipe fills up and blocks the program.
fn collect(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let mut stream = stream.expect("a pipe");
    let (sender, text) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    text
}

/// `fragcast` with `args`.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fragcast"));
    command.args(args);
    command
}

/// Runs `fragcast` to its end.
pub(crate) fn fragcast(args: &[&str]) -> Ended {
    run(&mut command(args))
}

/// What `future` gives; fails if it hangs.
pub(crate) async fn guarded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, future).await.expect("it hangs")
}

/// Posts JSON: the HTTP status and the answer, `Null` if that is no JSON. `None` without an answer.
pub(crate) async fn post(url: &str, body: &Value) -> Option<(u16, Value)> {
    let client = HttpClient { timeout: GUARD, ..HttpClient::default() };
    let body = serde_json::to_vec(body).unwrap();
    let (status, answer) = client.post_json(url, None, body).await.ok()?;
    Some((status, serde_json::from_slice(&answer).unwrap_or(Value::Null)))
}

/// Makes a JSON-RPC request: the whole answer, `Null` if there is none.
pub(crate) async fn request(url: &str, method: &str, params: Value) -> Value {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    post(url, &body).await.map_or(Value::Null, |(_, answer)| answer)
}

/// Signs `message` and posts it to the ingest of a leader's node at `url`; the whole answer.
pub(crate) async fn post_signed(url: &str, key: &GatewayKey, message: impl Into<Message>) -> Value {
    let (method, param) = ingest::request(&key.sign_verified(message));
    request(url, method, json!([param])).await
}
