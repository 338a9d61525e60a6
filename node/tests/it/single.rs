//! One node in a process of its own, of a chain of the test's choice, set up as a user would.

use std::io::{BufRead as _, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::channel;

use fragcast::network::NetworkFile;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::common::{Ended, GUARD, Running, command, fragcast, guarded, run};

/// Waits for a line of a program's output in which `find` finds something. What comes after is read
/// and dropped, so that the program never waits.
pub(crate) fn told<T: Send + 'static>(
    output: impl Read + Send + 'static,
    mut find: impl FnMut(&str) -> Option<T> + Send + 'static,
) -> T {
    let (sender, found) = channel();
    std::thread::spawn(move || {
        let mut all = String::new();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(value) = find(&line) {
                drop(sender.send(Ok(value)));
            } else if all.len() < 100_000 {
                all.push_str(&line);
                all.push('\n');
            }
        }
        drop(sender.send(Err(all)));
    });
    let found = found.recv_timeout(GUARD).expect("it starts");
    found.unwrap_or_else(|all| panic!("it ended without a word:\n{all}"))
}

/// The directory of a node that is a network of its own.
pub(crate) struct Setup {
    /// Its configuration, by the names of the environment.
    pub(crate) env: Vec<(&'static str, String)>,
    dir: PathBuf,
}

impl Setup {
    /// A chain after the merge with these forks, by the keys and times of a genesis file.
    pub(crate) fn new(dir: &Path, chain_id: u64, forks: &[(&str, u64)]) -> Self {
        let node = dir.join("node");
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let gossip = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (id, gossip) = (chain_id.to_string(), gossip.to_string());
        let chain = ["--chain-id", &id, "--gossip-port", &gossip];
        let place = ["--advertise", &port, "--listen", &port];
        fragcast(&[&["init", "--dir", node.to_str().unwrap()], &chain[..], &place].concat()).ok();
        let file = node.join("network.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let mut network: NetworkFile = toml::from_str(&text).unwrap();
        network.gateways = vec![alloy_primitives::Address::repeat_byte(1)];
        std::fs::write(&file, toml::to_string(&network).unwrap()).unwrap();

        let mut config = json!({
            "chainId": chain_id,
            "terminalTotalDifficulty": 0,
            "terminalTotalDifficultyPassed": true,
        });
        for block in ["homestead", "eip150", "eip155", "eip158", "byzantium", "constantinople"]
            .into_iter()
            .chain(["petersburg", "istanbul", "berlin", "london"])
        {
            config[format!("{block}Block")] = 0.into();
        }
        for (fork, time) in forks {
            config[format!("{fork}Time")] = (*time).into();
        }
        let genesis = json!({
            "config": config, "nonce": "0x0", "timestamp": "0x0", "extraData": "0x",
            "gasLimit": "0x1c9c380", "difficulty": "0x0", "alloc": {},
            "mixHash": alloy_primitives::B256::ZERO,
            "coinbase": alloy_primitives::Address::ZERO,
        });
        let path = dir.join("genesis.json");
        std::fs::write(&path, genesis.to_string()).unwrap();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let env = vec![
            ("FRAGCAST_CONFIG", text(node.join("node.toml"))),
            ("FRAGCAST_CHAIN", text(path)),
            ("FRAGCAST_EXECUTION_DB", text(dir.join("db"))),
            ("FRAGCAST_INGEST_LISTEN", "127.0.0.1:0".into()),
            ("FRAGCAST_METRICS", "127.0.0.1:0".into()),
            ("FRAGCAST_ADMIN_LISTEN", "127.0.0.1:0".into()),
            ("FRAGCAST_HTTP_PORT", "0".into()),
            ("FRAGCAST_LOG_FORMAT", "json".into()),
        ];
        Self { env, dir: node }
    }

    /// Replaces something in its configuration file that must be there.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let path = self.dir.join("node.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(path, text.replacen(from, to, 1)).unwrap();
    }

    /// What `check-config` says of its configuration file.
    pub(crate) fn check(&self) -> Ended {
        run(&mut command(&[
            "check-config",
            "--config",
            self.dir.join("node.toml").to_str().unwrap(),
        ]))
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Single {
        let mut process = command(&["run"])
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map(Running)
            .unwrap();
        let fields = told(process.0.stderr.take().unwrap(), |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["fields"]["message"] == "running").then(|| line["fields"].clone())
        });
        let at = |door: &str| fields[door].as_str().unwrap().to_owned();
        Single { url: format!("http://{}", at("http")), metrics: at("metrics"), _process: process }
    }
}

/// A node that runs until it is dropped.
pub(crate) struct Single {
    /// Its public JSON-RPC.
    pub(crate) url: String,
    metrics: String,
    _process: Running,
}

impl Single {
    /// A page of its metrics' port, head and all.
    pub(crate) async fn page(&self, path: &str) -> String {
        guarded(async {
            let mut stream = TcpStream::connect(&self.metrics).await.unwrap();
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        })
        .await
    }
}
