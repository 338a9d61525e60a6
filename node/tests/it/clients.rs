//! Libraries that people use, unmodified, against a devnet node: viem and ethers where Node.js
//! and npm's registry are there, web3.py and websockets where they are installed.

use std::process::Command;

use fragcast_shredder::testing::{has, skip};

use crate::common::run;
use crate::running::{Devnet, packages, scripts};

/// The well-known key of the devnet's first account for users.
pub(crate) const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// Runs a script that prints `ok` at its end.
pub(crate) fn script(command: &mut Command, ok: &str) {
    let ended = run(command).ok();
    assert!(ended.stdout.contains(ok), "{}\n{}", ended.stdout, ended.stderr);
}

pub(crate) fn python(name: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg(scripts("clients").join(name));
    command
}

#[test]
fn viem_and_ethers_read_send_wait_and_watch() {
    let Some(dir) = packages("clients") else { return };
    let node = |script: &str, url: &str, mode: &str| {
        let mut command = Command::new("node");
        command.current_dir(&dir).args([script, url, KEY, mode]);
        command
    };
    let devnet = Devnet::start(&[]);
    // Node 1 does not lead: it has everything from the network.
    script(&mut node("viem.mjs", devnet.http(1), ""), "viem: ok");
    script(&mut node("ethers.mjs", devnet.http(1), ""), "ethers: ok");
    let preconf = format!("{}/preconf", devnet.http(1));
    script(&mut node("viem.mjs", &preconf, "preconf"), "viem: ok");
    script(&mut node("ethers.mjs", &preconf, "preconf"), "ethers: ok");
}

#[test]
fn a_consumer_of_flashblocks_gets_every_block_as_it_is_sealed() {
    if !has("python3", &["-c", "import websockets.sync.client"]) {
        return skip("Python's websockets is not installed");
    }
    let devnet = Devnet::start(&["--flashblocks.port", "0", "--frags", "5"]);
    assert_eq!(devnet.doors("flashblocks"), devnet.doors("http"));
    // Node 1 does not lead: it has everything from the network.
    let addresses = [devnet.flashblocks(1), devnet.http(1)];
    script(python("flashblocks.py").args(addresses), "flashblocks: ok");
}

#[test]
fn web3_py_reads_sends_and_waits() {
    if !has("python3", &["-c", "import web3"]) {
        return skip("web3.py is not installed");
    }
    let devnet = Devnet::start(&[]);
    script(python("web3_test.py").args([devnet.http(2), KEY]), "web3.py: ok");
}
