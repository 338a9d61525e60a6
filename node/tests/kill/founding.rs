//! Sets a network up as a user would: `keygen`, `init`, `delegate`, one network file.

use std::path::{Path, PathBuf};

use fragcast_shredder::GatewayKey;

use crate::common::{Ended, fragcast};

/// A network of which nodes are being made.
pub(crate) struct Founding {
    chain: String,
    gateway_key: PathBuf,
    /// The lines of the network file on its members.
    members: String,
    /// What the gateway has delegated to the first node.
    delegation: Option<Ended>,
}

/// The value behind `name` in what a command printed.
fn field(ended: &Ended, name: &str) -> String {
    let text = &ended.stdout;
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("`{name}` in {text}"));
    value.trim().trim_matches(['=', ' ', '"', '[', ']']).to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Founding {
    /// Makes the gateway's key in `dir`.
    pub(crate) fn new(dir: &Path, chain_id: u64) -> Self {
        let gateway_key = dir.join("gateway.key");
        fragcast(&["keygen", "--kind", "gateway", "--out", text(&gateway_key)]).ok();
        Self { chain: chain_id.to_string(), gateway_key, members: String::new(), delegation: None }
    }

    /// Makes a node in `dir` that is reached at `address`; the first one leads.
    pub(crate) fn init(&mut self, dir: &Path, address: &str, gossip: u16) {
        let gossip = gossip.to_string();
        let places = ["--listen", address, "--advertise", address, "--gossip-port", &gossip];
        let made = [&["init", "--dir", text(dir), "--chain-id", &self.chain][..], &places];
        let made = fragcast(&made.concat()).ok();
        let (record, gossip) = (field(&made, "record"), field(&made, "gossip"));
        self.members += &format!("\n[[members]]\nrecord = \"{record}\"\ngossip = [\"{gossip}\"]\n");
        if self.delegation.is_none() {
            let (peer, leader) = (field(&made, "peer id"), field(&made, "leader key"));
            let key = text(&self.gateway_key);
            let args = ["delegate", "--gateway-key", key, "--chain-id", &self.chain];
            let whom = ["--peer", &peer, "--leader", &leader];
            self.delegation = Some(fragcast(&[&args[..], &whom].concat()).ok());
        }
    }

    /// Writes the network file into the nodes' folders. Returns the gateway's key.
    pub(crate) fn finish<'a>(self, nodes: impl Iterator<Item = &'a Path>) -> GatewayKey {
        let delegation = self.delegation.expect("a node was made");
        let file = format!(
            "chain_id = {}\ngateways = [\"{}\"]\ndelegations = [\"{}\"]\n{}",
            self.chain,
            field(&delegation, "gateways"),
            field(&delegation, "delegations"),
            self.members,
        );
        nodes.for_each(|dir| std::fs::write(dir.join("network.toml"), &file).unwrap());
        fragcast::gateway::keys::read_gateway(&self.gateway_key).unwrap()
    }
}
