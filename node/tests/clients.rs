//! Libraries that people use, unmodified, against a devnet node: viem and ethers where Node.js
//! and npm's registry are there, web3.py and websockets where they are installed. Each says so
//! where it is not.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// The well-known key of the devnet's first account for users.
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

fn skipped(what: &str) {
    let _ = writeln!(std::io::stdout(), "skipped: {what}");
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// A devnet that runs until it is dropped.
struct Devnet {
    process: Child,
    http: Vec<String>,
    flashblocks: Vec<String>,
}

impl Devnet {
    fn start(more: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_fragcast"))
            .args(["devnet", "--nodes", "3", "--blocks", "10000", "--txs", "10", "--addresses"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addresses: Value = serde_json::from_str(&line).unwrap();
        let urls = |of: &str| {
            let urls = addresses[of].as_array().unwrap();
            urls.iter().map(|url| url.as_str().unwrap().to_owned()).collect()
        };
        Self { process, http: urls("http"), flashblocks: urls("flashblocks") }
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(command: &mut Command, ok: &str) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains(ok), "{text}\n{errors}");
}

/// A folder with the scripts and their packages, `None` if they cannot be had.
fn packages() -> Option<tempfile::TempDir> {
    let works = |program: &str| {
        let status = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !works("node") || !works("npm") {
        skipped("viem and ethers need Node.js and npm");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    for name in ["package.json", "package-lock.json", "viem.mjs", "ethers.mjs"] {
        std::fs::copy(scripts().join(name), dir.path().join(name)).unwrap();
    }
    let installed = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        .current_dir(dir.path())
        .output();
    if !installed.is_ok_and(|output| output.status.success()) {
        skipped("npm cannot install viem and ethers here");
        return None;
    }
    Some(dir)
}

#[test]
fn viem_and_ethers_read_send_wait_and_watch() {
    let Some(dir) = packages() else { return };
    let node = |script: &str, url: &str, mode: &str| {
        let mut command = Command::new("node");
        command.current_dir(dir.path()).args([script, url, KEY, mode]);
        command
    };
    let devnet = Devnet::start(&[]);
    // Node 1 does not lead: it has everything from the network.
    run(&mut node("viem.mjs", &devnet.http[1], ""), "viem: ok");
    run(&mut node("ethers.mjs", &devnet.http[1], ""), "ethers: ok");
    drop(devnet);
    let devnet = Devnet::start(&["--preconf-as-latest"]);
    run(&mut node("viem.mjs", &devnet.http[1], "preconf"), "viem: ok");
    run(&mut node("ethers.mjs", &devnet.http[1], "preconf"), "ethers: ok");
}

#[test]
fn a_consumer_of_flashblocks_gets_every_block_as_it_is_sealed() {
    let import = ["-c", "import websockets.sync.client"];
    let found = Command::new("python3").args(import).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        skipped("Python's websockets is not installed");
        return;
    }
    let devnet = Devnet::start(&["--flashblocks.port", "0", "--frags", "5"]);
    assert_eq!(devnet.flashblocks.len(), devnet.http.len());
    let script = scripts().join("flashblocks.py");
    // Node 1 does not lead: it has everything from the network.
    let arguments = [&devnet.flashblocks[1], &devnet.http[1]];
    run(Command::new("python3").arg(script).args(arguments), "flashblocks: ok");
}

#[test]
fn web3_py_reads_sends_and_waits() {
    let found = Command::new("python3").args(["-c", "import web3"]).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        skipped("web3.py is not installed");
        return;
    }
    let devnet = Devnet::start(&[]);
    let script = scripts().join("web3_test.py");
    run(Command::new("python3").arg(script).args([&devnet.http[2], KEY]), "web3.py: ok");
}
