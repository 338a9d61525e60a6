//! The nodes of an emulation. Each has a directory with its keys and configuration, and a `fragcast
//! run` process.
//!
//! Identities are those of the model (`membership::sample`). The table and the world are both
//! ordered by peer id, so node i has the same place, weight and position in every tree in both. The
//! keys are not secret: a process on this machine could connect as one of the nodes, which is
//! accepted for the minutes of a measurement.
//!
//! Nodes choose their own ports and log them, because another process could take a port chosen here
//! before the node binds it.
//!
//! Processes are killed when they are dropped, also by a panic or a signal.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use fragcast_shredder::GatewayKey;
use fragcast_turbine::membership::{self, RecordBody};
use fragcast_turbine::schedule::BLOCKS_PER_TERM;
use fragcast_turbine::{Delegation, MemberRecord, PeerId};
use serde_json::{Value, json};

use super::relay::Relay;
use super::{EmulateError, Emulation};
use crate::NodeId;

/// The chain of emulated networks.
const CHAIN_ID: u64 = 1;
/// Lines of a log that an error shows.
const LOG_LINES: usize = 15;
/// Pause between two readings of a log while its node starts.
const POLL: Duration = Duration::from_millis(20);

/// The addresses of a running node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Addresses {
    /// UDP address, behind the relay.
    pub(super) p2p: SocketAddr,
    /// Address to which the gateway posts.
    pub(super) ingest: SocketAddr,
    /// Address of the public JSON-RPC.
    pub(super) http: SocketAddr,
}

/// A child process.
#[derive(Debug)]
struct Process {
    child: Child,
    log: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Running nodes. Fields are dropped in this order: processes, relay, files.
#[derive(Debug)]
pub(super) struct Nodes {
    processes: Vec<Process>,
    pub(super) addresses: Vec<Addresses>,
    pub(super) relay: Relay,
    pub(super) gateway: GatewayKey,
    _dir: tempfile::TempDir,
}

impl Nodes {
    /// Writes all files, starts all processes, and waits until all of them listen.
    pub(super) async fn start(emulation: &Emulation, leader: NodeId) -> Result<Self, EmulateError> {
        let dir = tempfile::Builder::new()
            .prefix("netsim-emulate-")
            .tempdir()
            .map_err(EmulateError::io("make a temporary directory"))?;
        let relay = Relay::start(&emulation.world, emulation.links, emulation.seed)
            .map_err(EmulateError::io("start the link emulator"))?;
        let gateway = gateway(emulation.seed);
        let network = network_file(emulation, leader, &gateway, &relay);
        write(&dir.path().join("network.toml"), &network)?;
        let (_, identities) = membership::sample(CHAIN_ID, &emulation.world.weights());
        let mut nodes =
            Self { processes: Vec::new(), addresses: Vec::new(), relay, gateway, _dir: dir };
        for (node, identity) in identities.iter().enumerate() {
            let dir = nodes._dir.path().join(format!("node-{node}"));
            let leads = (node == leader as usize).then(|| leader_key(emulation.seed));
            prepare(&dir, emulation, identity, leads.as_ref())?;
            nodes.processes.push(spawn(&emulation.fragcast, &dir)?);
        }
        let start = Instant::now();
        for node in 0..identities.len() as NodeId {
            let addresses = nodes.listening(node, start + emulation.start_guard).await?;
            nodes.relay.attach(node, addresses.p2p);
            nodes.addresses.push(addresses);
        }
        Ok(nodes)
    }

    /// Waits until a node has logged its addresses.
    async fn listening(
        &mut self,
        node: NodeId,
        deadline: Instant,
    ) -> Result<Addresses, EmulateError> {
        loop {
            if let Some(addresses) = addresses(&self.log(node)) {
                return Ok(addresses);
            }
            self.alive()?;
            if Instant::now() > deadline {
                return Err(self.error(node, "did not say where it listens"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Checks that no process has ended.
    pub(super) fn alive(&mut self) -> Result<(), EmulateError> {
        for node in 0..self.processes.len() {
            let ended = self.processes[node].child.try_wait();
            if let Some(status) = ended.map_err(EmulateError::io("look after a node"))? {
                return Err(self.error(node as NodeId, format!("ended: {status}")));
            }
        }
        Ok(())
    }

    /// An error with the end of the node's log.
    pub(super) fn error(&self, node: NodeId, problem: impl Into<String>) -> EmulateError {
        let log = self.log(node);
        let lines: Vec<&str> = log.lines().collect();
        let log = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        EmulateError::Node { node, problem: problem.into(), log }
    }

    /// Process ids.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(|process| process.child.id()).collect()
    }

    fn log(&self, node: NodeId) -> String {
        let bytes = fs::read(&self.processes[node as usize].log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The addresses in the line that a node logs when it runs.
fn addresses(log: &str) -> Option<Addresses> {
    let running = log.lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let fields = line.get("fields")?;
        (fields.get("message")? == "running").then(|| fields.clone())
    })?;
    let address = |name: &str| running.get(name)?.as_str()?.parse().ok();
    Some(Addresses { p2p: address("p2p")?, ingest: address("ingest")?, http: address("http")? })
}

fn secret(purpose: &str, seed: u64) -> [u8; 32] {
    let context = format!("fragcast 2026 netsim emulate {purpose} v1");
    blake3::derive_key(&context, &seed.to_le_bytes())
}

fn leader_key(seed: u64) -> SigningKey {
    SigningKey::from_bytes(&secret("leader", seed))
}

fn gateway(seed: u64) -> GatewayKey {
    // All but 2^-127 of all strings are keys.
    GatewayKey::from_bytes(secret("gateway", seed)).expect("a hash is a key")
}

fn write(path: &Path, text: &str) -> Result<(), EmulateError> {
    fs::write(path, text).map_err(EmulateError::io(format!("write {}", path.display())))
}

/// Writes a key file with the permissions that nodes require: only the owner may read it.
fn write_key(path: &Path, key: &SigningKey) -> Result<(), EmulateError> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let text = alloy_primitives::hex::encode(key.to_bytes());
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(EmulateError::io(format!("write {}", path.display())))
}

fn network_file(
    emulation: &Emulation,
    leader: NodeId,
    gateway: &GatewayKey,
    relay: &Relay,
) -> String {
    let weights = emulation.world.weights();
    let (_, identities) = membership::sample(CHAIN_ID, &weights);
    let records = identities.iter().enumerate().map(|(node, identity)| -> MemberRecord {
        let body = RecordBody {
            chain_id: CHAIN_ID,
            peer: PeerId(identity.verifying_key().to_bytes()),
            sequence: 1,
            uplink_kbps: u32::try_from(emulation.links.uplink_bps / 1_000).unwrap_or(u32::MAX),
            coordinates: [0; 4],
            addresses: vec![relay.advertised(node as NodeId).into()],
        };
        body.sign(identity)
    });
    let delegation = Delegation {
        chain_id: CHAIN_ID,
        first: 0,
        last: u64::MAX,
        sequence: 1,
        peer: PeerId(identities[leader as usize].verifying_key().to_bytes()),
        key: leader_key(emulation.seed).verifying_key().to_bytes(),
    };
    let members: Vec<Value> = records
        .zip(&weights)
        .map(|(record, weight)| json!({ "record": record.to_string(), "weight": weight }))
        .collect();
    let file = json!({
        "chain_id": CHAIN_ID,
        "blocks_per_term": BLOCKS_PER_TERM,
        "gateways": [gateway.address()],
        "delegations": [delegation.sign(gateway).to_string()],
        "members": members,
    });
    toml::to_string(&file).expect("numbers, strings and lists of them")
}

/// Makes a node's directory: keys, the leader's journal, and a configuration in which the system
/// chooses the ports. The limits of connections are raised, since all nodes have the same address
/// here and call each other at once.
fn prepare(
    dir: &Path,
    emulation: &Emulation,
    identity: &SigningKey,
    leads: Option<&SigningKey>,
) -> Result<(), EmulateError> {
    fs::create_dir(dir).map_err(EmulateError::io(format!("make {}", dir.display())))?;
    write_key(&dir.join("identity.key"), identity)?;
    if let Some(key) = leads {
        write_key(&dir.join("leader.key"), key)?;
        // An empty journal is that of a key that has never led. Without one the first blocks are
        // refused.
        write(&dir.join("leader.journal"), "")?;
    }
    let any = json!({ "listen": "127.0.0.1:0" });
    let config = json!({
        "network": "../network.toml",
        "identity": "identity.key",
        // The overlay is what is measured. With gossip all nodes would listen on one TCP port.
        "gossip": { "policy": "off" },
        "p2p": {
            "listen": "127.0.0.1:0",
            "uplink_mbit": (emulation.links.uplink_bps / 1_000_000).max(1),
            "max_connections_per_address": 4 * super::MAX_NODES,
            "max_handshakes": 8 * super::MAX_NODES,
        },
        "leader": {
            "key": "leader.key",
            "journal": "leader.journal",
            "route": emulation.route,
            "loss_per_hop": emulation.coded_loss,
        },
        "ingest": any, "admin": any, "http": any, "metrics": any,
        "log": { "format": "json", "filter": "info" },
    });
    let text = toml::to_string(&config).expect("numbers, strings and tables of them");
    write(&dir.join("node.toml"), &text)
}

fn spawn(fragcast: &Path, dir: &Path) -> Result<Process, EmulateError> {
    let log = dir.join("log");
    let file =
        fs::File::create(&log).map_err(EmulateError::io(format!("write {}", log.display())))?;
    let mut command = Command::new(fragcast);
    command.arg("run").arg("--config").arg(dir.join("node.toml"));
    // The caller's environment may configure another node, and must not affect these.
    for (name, _) in std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with("FRAGCAST_")))
    {
        command.env_remove(name);
    }
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .spawn()
        .map_err(EmulateError::io(format!("start {}", fragcast.display())))?;
    Ok(Process { child, log })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stand_in_the_line_of_a_running_node() {
        let line = |message: &str| {
            json!({ "level": "INFO", "fields": {
                "message": message, "peer": "ab", "p2p": "127.0.0.1:5",
                "ingest": "127.0.0.1:6", "http": "127.0.0.1:7", "metrics": "127.0.0.1:8",
            } })
            .to_string()
        };
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let log = format!("not json\n{}\n{}\n", line("starting"), line("running"));
        assert_eq!(addresses(&log), Some(Addresses { p2p: at(5), ingest: at(6), http: at(7) }));
        assert_eq!(addresses(&line("starting")), None);
        let half = line("running");
        assert_eq!(addresses(&half[..half.len() / 2]), None, "a line that is still being written");
    }
}
