//! A node beside Foundry's anvil: the same libraries and the same questions on both, and a node that
//! follows one. anvil, cast and forge come from npm, as programs without their wrappers in JavaScript: a
//! wrapper that is killed leaves its program behind.

#![expect(clippy::print_stderr, reason = "what was measured")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fragcast_shredder::testing::{has, skip};
use serde_json::{Value, json};

use crate::clients::{KEY, python, script};
use crate::common::{Running, guarded, request, run};
use crate::running::{Devnet, packages};
use crate::single::{Setup, told};

/// An anvil, which is killed when this is dropped.
struct Anvil {
    url: String,
    _process: Running,
}

impl Anvil {
    /// `dir` has the packages; `None` if there is none for this machine, which counts as skipped.
    fn start(dir: &Path, more: &[&str]) -> Option<Self> {
        let Some(program) = foundry(dir, "anvil") else {
            skip("npm has no anvil for this machine");
            return None;
        };
        let mut process = Command::new(program)
            .args(["--port", "0", "--block-time", "1"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map(Running)
            .unwrap();
        let output = process.0.stdout.take().unwrap();
        let url =
            told(output, |line| Some(format!("http://{}", line.strip_prefix("Listening on ")?)));
        Some(Self { url, _process: process })
    }
}

impl Anvil {
    /// Waits until it has mined this block.
    fn reaches(&self, block: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(guarded(async {
            loop {
                let answer = request(&self.url, "eth_blockNumber", json!([])).await;
                let number = answer["result"].as_str().and_then(|text| text.strip_prefix("0x"));
                if number.and_then(|n| u64::from_str_radix(n, 16).ok()) >= Some(block) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }));
    }
}

/// A program of Foundry for this machine.
fn foundry(dir: &Path, name: &str) -> Option<PathBuf> {
    let system = if cfg!(target_os = "macos") { "darwin" } else { std::env::consts::OS };
    let machine = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let program =
        dir.join(format!("node_modules/@foundry-rs/{name}-{system}-{machine}/bin/{name}"));
    program.exists().then_some(program)
}

/// The rows that a script of the table printed: what was done, and `ok`, the complaint, or nothing
/// where the library has no such thing.
fn rows(client: &str, dir: &Path, url: &str) -> Vec<(String, Option<String>)> {
    let mut command = if client == "web3.py" {
        python("table.py")
    } else {
        let mut command = Command::new("node");
        let library = if client == "web3.js" { "web3" } else { client };
        command.args(["table.mjs", library]);
        command
    };
    let ended = run(command.current_dir(dir).args([url, KEY])).ok();
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        (row["row"].as_str().unwrap().to_owned(), row["said"].as_str().map(str::to_owned))
    };
    ended.stdout.lines().map(row).collect()
}

#[test]
fn libraries_pass_on_a_node_what_they_pass_on_anvil() {
    let Some(dir) = packages("clients") else { return };
    if !has("python3", &["-c", "import web3, websockets"]) {
        return skip("web3.py is not installed");
    }
    let clients = ["viem", "ethers", "web3.js", "web3.py", "cast", "forge"];
    let Some(anvil) = Anvil::start(&dir, &[]) else { return };
    // Blocks of a second, as anvil's. Node 1 does not lead.
    let devnet = Devnet::start(&["--frags", "5"]);
    let both = [anvil.url.as_str(), devnet.http(1)];
    let results = std::thread::scope(|scope| {
        let peers = both.map(|url| {
            let dir = &dir;
            scope.spawn(move || clients.map(|client| rows(client, dir, url)))
        });
        peers.map(|peer| peer.join().unwrap())
    });
    let [on_anvil, on_node] = &results;
    let mut table = String::from("| |");
    for client in clients {
        let _ = write!(table, " {client}: anvil | node |");
    }
    let mut complaints = Vec::new();
    let mut passes = [0, 0];
    for (at, (row, _)) in on_anvil[0].iter().enumerate() {
        let _ = write!(table, "\n| {row} |");
        for (client, name) in clients.iter().enumerate() {
            for (peer, results) in results.iter().enumerate() {
                let said = &results[client][at];
                assert_eq!(said.0, *row);
                let mark = match said.1.as_deref() {
                    None => "–",
                    Some("ok") => "ok",
                    Some(_) => "fails",
                };
                passes[peer] += usize::from(mark == "ok");
                let _ = write!(table, " {mark} |");
            }
            if let Some(why) = on_node[client][at].1.as_deref().filter(|said| *said != "ok") {
                let there = on_anvil[client][at].1.as_deref().unwrap_or_default();
                complaints.push(format!("{name}, {row}: {why} (anvil: {there})"));
            }
        }
    }
    eprintln!("{table}\npasses: {} on anvil, {} on a node", passes[0], passes[1]);
    assert!(complaints.is_empty(), "{table}\n{}", complaints.join("\n"));
    assert!(passes[1] >= passes[0], "{table}");
}

#[test]
fn answers_have_the_shapes_of_anvils() {
    let Some(dir) = packages("clients") else { return };
    let Some(anvil) = Anvil::start(&dir, &["--hardfork", "cancun"]) else { return };
    let devnet = Devnet::start(&["--frags", "5"]);
    let mut command = Command::new("node");
    command.current_dir(&dir).args(["shapes.mjs", &anvil.url, devnet.http(1), KEY]);
    script(&mut command, "shapes: ok");
}

#[test]
fn a_page_in_a_browser_talks_to_a_node_that_lets_it() {
    let Some(dir) = packages("clients") else { return };
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let Some(browser) = names.into_iter().find(|name| has(name, &["--version"])) else {
        return skip("Chromium is not installed");
    };
    // The page is of another port, and so of another origin than the node.
    let page = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = page.local_addr().unwrap().port();
    let origin = format!("http://127.0.0.1:{port}");
    let devnet = Devnet::start(&["--frags", "5", "--http.cors", &origin]);
    drop(page);
    let profile = tempfile::tempdir().unwrap();
    let open = |port: &str| {
        let mut command = Command::new("node");
        command.current_dir(&dir).args(["browser.mjs", devnet.http(1), KEY, browser, port]);
        command.arg(profile.path().join(port));
        command
    };
    script(&mut open(&port.to_string()), "browser: ok");
    // The same page from an origin that is not in the list may not.
    let other = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = run(&mut open(&other.to_string()));
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    assert!(refused.stdout.contains("Failed to fetch"), "{}", refused.stdout);
}

#[test]
fn a_node_follows_an_anvil_and_reads_its_state_by_proofs() {
    let Some(packages) = packages("clients") else { return };
    let mut printed = BTreeMap::new();
    for (hardfork, forks) in [
        ("cancun", &["shanghai", "cancun"][..]),
        ("osaka", &["shanghai", "cancun", "prague", "osaka"]),
    ] {
        let Some(anvil) = Anvil::start(&packages, &["--hardfork", hardfork]) else { return };
        // Its block 1 has the base fee of block 0, which EIP-1559 rules out: the node starts later.
        anvil.reaches(2);
        let dir = tempfile::tempdir().unwrap();
        let forks: Vec<(&str, u64)> = forks.iter().map(|fork| (*fork, 0)).collect();
        let mut setup = Setup::new(dir.path(), 31_337, &forks);
        setup.env.push(("FRAGCAST_EXECUTION_SOURCE", "client".into()));
        setup.env.push(("FRAGCAST_CLIENT_URL", anvil.url.clone()));
        let node = setup.start();
        let mut command = Command::new("node");
        command.current_dir(&packages).args(["follow.mjs", &anvil.url, &node.url]);
        let ended = run(&mut command).ok();
        assert!(ended.stdout.contains("follow: ok"), "{}\n{}", ended.stdout, ended.stderr);
        printed.insert(hardfork, ended.stdout);
    }
    eprintln!("{printed:?}");
}
