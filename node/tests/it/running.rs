//! A devnet in a process of its own, and scripts of Node.js that are run against it.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fragcast_shredder::testing;
use jsonrpsee::core::client::{Subscription, SubscriptionClientT};
use jsonrpsee::rpc_params;
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::common::{Running, command};

/// The threads that serve strangers are the whole process's ([`fragcast::node::Runtimes`]).
static SERVING: RwLock<()> = RwLock::const_new(());

/// Held by a test whose nodes run in this process: nobody keeps their threads busy meanwhile.
pub(crate) async fn serving() -> RwLockReadGuard<'static, ()> {
    SERVING.read().await
}

/// Held by a test that keeps those threads busy: no other has nodes in this process meanwhile.
pub(crate) async fn serving_alone() -> RwLockWriteGuard<'static, ()> {
    SERVING.write().await
}

/// A devnet of three nodes that runs until it is dropped. Node 0 leads.
pub(crate) struct Devnet {
    addresses: Value,
    dir: TempDir,
    _process: Running,
}

impl Devnet {
    pub(crate) fn start(more: &[&str]) -> Self {
        Self::of(3, more)
    }

    /// The same with so many nodes.
    pub(crate) fn of(nodes: usize, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let few = if more.contains(&"--txs") { &[][..] } else { &["--txs", "10"] };
        let process = command(&["devnet", "--blocks", "10000"])
            .args(few)
            .args(["--nodes", &nodes.to_string()])
            .args(["--addresses", "--dir", dir.path().to_str().unwrap()])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut process = Running(process.unwrap());
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { addresses: serde_json::from_str(&line).unwrap(), dir, _process: process }
    }

    /// Where the keys are.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How many nodes have a door of this kind.
    pub(crate) fn doors(&self, kind: &str) -> usize {
        self.addresses[kind].as_array().unwrap().len()
    }

    fn address<'a>(&'a self, kind: &str, node: usize) -> &'a Value {
        &self.addresses[kind][node]
    }

    pub(crate) fn http(&self, node: usize) -> &str {
        self.address("http", node).as_str().unwrap()
    }

    pub(crate) fn flashblocks(&self, node: usize) -> &str {
        self.address("flashblocks", node).as_str().unwrap()
    }

    /// The page that shows the whole network.
    /// Where the metrics of each node are: address and port.
    pub(crate) fn metrics(&self) -> Vec<String> {
        let addresses = self.addresses["metrics"].as_array().unwrap().iter();
        addresses.map(|address| address.as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn page(&self) -> &str {
        self.pages().expect("there is a page")
    }

    pub(crate) fn pages(&self) -> Option<&str> {
        self.addresses["page"].as_str()
    }

    pub(crate) fn gossip(&self, node: usize) -> &str {
        self.address("gossip", node)[0].as_str().unwrap()
    }

    /// `fragcast_subscribe` at a node. The subscription ends with the client.
    pub(crate) async fn subscribe(&self, node: usize) -> (WsClient, Subscription<Value>) {
        subscribe(&self.http(node).replace("http", "ws")).await
    }
}

/// `fragcast_subscribe` at a WebSocket address. The subscription ends with the client.
pub(crate) async fn subscribe(url: &str) -> (WsClient, Subscription<Value>) {
    let client = WsClientBuilder::default().build(url).await.unwrap();
    let subscription = client
        .subscribe("fragcast_subscribe", rpc_params![], "fragcast_unsubscribe")
        .await
        .unwrap();
    (client, subscription)
}

/// The next message of a subscription.
pub(crate) async fn next(subscription: &mut Subscription<Value>) -> Value {
    crate::common::guarded(subscription.next()).await.expect("it is open").unwrap()
}

/// The scripts of a module of this binary.
pub(crate) fn scripts(module: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(module)
}

/// A folder with the scripts of a module and the packages that they need; `None` if those
/// cannot be had, which counts as skipped.
///
/// It is below the target folder and stays: the packages are installed once for all tests of a
/// module, and again only when `package-lock.json` changes.
pub(crate) fn packages(module: &str) -> Option<PathBuf> {
    const INSTALLED: &str = "installed.json";
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("npm-{module}"));
    std::fs::create_dir_all(&dir).unwrap();
    // One at a time, of the tests of this process and of others; free when the file is closed.
    let lock = File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    for entry in std::fs::read_dir(scripts(module)).unwrap() {
        let entry = entry.unwrap();
        let (text, to) = (std::fs::read(entry.path()).unwrap(), dir.join(entry.file_name()));
        // A script that another test is about to run is not written again.
        if std::fs::read(&to).ok().as_ref() != Some(&text) {
            std::fs::write(to, text).unwrap();
        }
    }
    let wanted = std::fs::read(dir.join("package-lock.json")).unwrap();
    if std::fs::read(dir.join(INSTALLED)).ok().as_ref() != Some(&wanted) {
        if !testing::npm_install(&dir) {
            return None;
        }
        std::fs::write(dir.join(INSTALLED), wanted).unwrap();
    }
    Some(dir)
}
