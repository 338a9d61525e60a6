//! A remote signer in this process, for tests and devnets: Web3Signer's REST, clef's and a client's
//! JSON-RPC at one port, which can refuse, be silent, answer junk, go away and come back.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy_primitives::{Address, B256, eip191_hash_message, hex, keccak256};
use anyhow::Context;
use fragcast_shredder::GatewayKey;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Bytes of a request that are read at most.
const MAX_REQUEST: usize = 64 * 1024;

/// How often it is looked whether a request that is held may be answered.
const LOOK: Duration = Duration::from_millis(10);

/// How it answers requests to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It signs.
    Signs,
    /// It refuses, as clef does when nobody approves.
    Refuses,
    /// It takes the request and says nothing.
    Silent,
    /// It takes the request and answers once its mood is another one: somebody has to approve it.
    Holds,
    /// It answers something that is no signature.
    Junk,
    /// It answers more than anybody should read.
    Endless,
    /// It signs something else.
    SignsElse,
}

/// What it does and has done.
#[derive(Debug)]
pub struct Desk {
    /// How it answers.
    pub mood: Mood,
    /// Whether it has the key; a Web3Signer answers 404 without.
    pub has_key: bool,
    /// Requests to sign so far.
    pub asked: u64,
    /// The texts that wallets were shown.
    pub texts: Vec<String>,
}

/// The server.
pub struct TestSigner {
    key: Arc<GatewayKey>,
    desk: Arc<Mutex<Desk>>,
    address: SocketAddr,
    running: Option<JoinHandle<()>>,
}

fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TestSigner {
    /// Starts it at a port of the system's choice.
    ///
    /// # Errors
    /// There is none.
    pub async fn start(key: GatewayKey) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let desk = Desk { mood: Mood::Signs, has_key: true, asked: 0, texts: Vec::new() };
        let (key, desk) = (Arc::new(key), Arc::new(Mutex::new(desk)));
        let mut signer = Self { key, desk, address, running: None };
        signer.serve(listener);
        Ok(signer)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The gateway whose key it has.
    pub fn gateway(&self) -> Address {
        self.key.address()
    }

    /// What it does, to read or change.
    pub fn desk(&self) -> MutexGuard<'_, Desk> {
        lock(&self.desk)
    }

    /// Closes the port and all connections.
    pub async fn go_away(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            // Aborted, so it is an error.
            let _ = running.await;
        }
    }

    /// Opens the port again.
    ///
    /// # Errors
    /// Somebody else has it.
    pub async fn come_back(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.address).await.context("the signer's port")?;
        self.serve(listener);
        Ok(())
    }

    fn serve(&mut self, listener: TcpListener) {
        let (key, desk) = (Arc::clone(&self.key), Arc::clone(&self.desk));
        self.running = Some(tokio::spawn(async move {
            // Dropped with the task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (key, desk) = (Arc::clone(&key), Arc::clone(&desk));
                connections.spawn(async move {
                    // A client that hangs up is nothing to tell.
                    let _ = answer(stream, &key, &desk).await;
                });
                while connections.try_join_next().is_some() {}
            }
        }));
    }
}

/// Reads one request: its first line and its body.
async fn read(stream: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if bytes.len() > MAX_REQUEST || stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    while bytes.len() < end + length.min(MAX_REQUEST) {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let first = head.lines().next().unwrap_or_default().to_owned();
    Ok((first, bytes.split_off(end)))
}

async fn answer(mut stream: TcpStream, key: &GatewayKey, desk: &Mutex<Desk>) -> anyhow::Result<()> {
    let (first, body) = read(&mut stream).await?;
    let mut parts = first.split(' ');
    let (method, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let public = format!("0x{}", hex::encode(key.public_key()));
    let (status, text) = if method == "get" && path == "/api/v1/eth1/publickeys" {
        let another = format!("0x{}", "11".repeat(64));
        let keys = if lock(desk).has_key { json!([another, public]) } else { json!([another]) };
        (200, keys.to_string())
    } else if let Some(asked) = path.strip_prefix("/api/v1/eth1/sign/") {
        let body: Value = serde_json::from_slice(&body)?;
        let data = hex::decode(body["data"].as_str().unwrap_or_default())?;
        if asked != public || !lock(desk).has_key {
            (404, String::new())
        } else {
            match sign(key, desk, keccak256(&data)).await {
                Some(signature) => (200, signature),
                None => (500, "no".to_owned()),
            }
        }
    } else {
        let body: Value = serde_json::from_slice(&body)?;
        (200, call(key, desk, &body).await?.to_string())
    };
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(text.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

/// A signature as such servers give it, with v of 27 or 28; `None`: it is refused.
async fn sign(key: &GatewayKey, desk: &Mutex<Desk>, digest: B256) -> Option<String> {
    lock(desk).asked += 1;
    while lock(desk).mood == Mood::Holds {
        tokio::time::sleep(LOOK).await;
    }
    let mood = lock(desk).mood;
    let digest = match mood {
        Mood::Holds => return None,
        Mood::Signs => digest,
        Mood::SignsElse => keccak256(digest),
        Mood::Refuses => return None,
        Mood::Silent => std::future::pending().await,
        Mood::Junk => return Some("0x01".to_owned()),
        Mood::Endless => return Some("0".repeat(1024 * 1024)),
    };
    let mut signature = *key.sign_digest(&digest).as_bytes();
    signature[64] += 27;
    Some(hex::encode_prefixed(signature))
}

async fn call(key: &GatewayKey, desk: &Mutex<Desk>, body: &Value) -> anyhow::Result<Value> {
    let params = &body["params"];
    let error = |code: i64, message: &str| json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": code, "message": message } });
    let result = |value: Value| json!({ "jsonrpc": "2.0", "id": 1, "result": value });
    let (account, data) = match body["method"].as_str().unwrap_or_default() {
        "account_version" => return Ok(result("6.1.0".into())),
        "eth_accounts" => {
            let has = lock(desk).has_key;
            return Ok(result(if has { json!([key.address()]) } else { json!([]) }));
        }
        "account_signData" if params[0] == "text/plain" => (&params[1], &params[2]),
        "eth_sign" => (&params[0], &params[1]),
        _ => return Ok(error(-32601, "Method not found")),
    };
    let known = account.as_str().and_then(|account| account.parse().ok()) == Some(key.address());
    if !known || !lock(desk).has_key {
        return Ok(error(-32000, "unknown account"));
    }
    let data = hex::decode(data.as_str().unwrap_or_default())?;
    lock(desk).texts.push(String::from_utf8_lossy(&data).into_owned());
    Ok(match sign(key, desk, eip191_hash_message(&data)).await {
        Some(signature) => result(signature.into()),
        None => error(-32000, "Request denied"),
    })
}
