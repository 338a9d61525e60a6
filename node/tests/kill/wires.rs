//! Network namespaces: a host for each node, all on one bridge, with links that can be cut.
//!
//! ```text
//! this process ── root ─┐
//! node 0 ── eth0 ═ v0 ──┤ bridge, in a namespace of its own
//! node 1 ── eth0 ═ v1 ──┘
//! ```

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

/// The namespaces of a test; they are removed when this is dropped.
pub(crate) struct Wires {
    prefix: String,
    nodes: usize,
    subnet: [u8; 2],
}

/// Runs `ip`; what it complained of.
fn ip(args: &[&str]) -> Result<(), String> {
    let ran = Command::new("ip").args(args).stdin(Stdio::null()).output();
    match ran {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let error = String::from_utf8_lossy(&output.stderr);
            Err(format!("ip {}: {}", args.join(" "), error.trim()))
        }
        Err(error) => Err(format!("ip: {error}")),
    }
}

impl Wires {
    /// Makes the namespaces of so many nodes, with a bridge between them.
    ///
    /// # Errors
    /// What the system has against it: no right to, or no program `ip`. What was made is removed.
    pub(crate) fn new(nodes: usize) -> Result<Self, String> {
        let id = std::process::id();
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|error| error.to_string())?;
        // A private range that is rarely used. By chance, so that two runs rarely share one.
        let subnet = [201 + random[0] % 50, random[1] % 250];
        // Names of interfaces have 15 bytes: this has 12, as another process's id may be the same in
        // another container on this host.
        let prefix = format!("fc{:06x}{:02x}{:02x}", id & 0xff_ffff, random[2], random[3]);
        // Dropped, and so removed, if only a part can be made.
        let wires = Self { prefix, nodes, subnet };
        wires.make()?;
        Ok(wires)
    }

    fn make(&self) -> Result<(), String> {
        let (hub, root) = (self.hub(), format!("{}r", self.prefix));
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        ip(&["link", "add", &root, "type", "veth", "peer", "name", "root", "netns", &hub])?;
        ip(&["-n", &hub, "link", "set", "root", "master", "bridge", "up"])?;
        ip(&["addr", "add", &format!("{}/24", self.at(254)), "dev", &root])?;
        ip(&["link", "set", &root, "up"])?;
        for node in 0..self.nodes {
            let (space, wire) = (self.space(node), format!("v{node}"));
            ip(&["netns", "add", &space])?;
            ip(&[
                "-n", &hub, "link", "add", &wire, "type", "veth", "peer", "name", "eth0", "netns",
                &space,
            ])?;
            ip(&["-n", &hub, "link", "set", &wire, "master", "bridge", "up"])?;
            let address = format!("{}/24", self.address(node));
            ip(&["-n", &space, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn hub(&self) -> String {
        format!("{}hub", self.prefix)
    }

    fn space(&self, node: usize) -> String {
        format!("{}n{node}", self.prefix)
    }

    const fn at(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.subnet[0], self.subnet[1], host)
    }

    /// The address of a node.
    pub(crate) const fn address(&self, node: usize) -> Ipv4Addr {
        self.at(node as u8 + 1)
    }

    /// A program in a node's namespace. It keeps its process id.
    pub(crate) fn command(&self, node: usize, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(node)]).arg(program);
        command
    }

    /// Cuts a node's link, or mends it.
    pub(crate) fn set_link(&self, node: usize, up: bool) {
        let state = if up { "up" } else { "down" };
        let link = format!("v{node}");
        ip(&["-n", &self.hub(), "link", "set", &link, state]).expect("the link is there");
    }

    /// Loses this share of what a node is sent, in percent; 0: nothing. Says whether the system
    /// can.
    pub(crate) fn set_loss(&self, node: usize, percent: u32) -> bool {
        let (hub, device) = (self.hub(), format!("v{node}"));
        let loss = format!("{percent}%");
        let mut tc = Command::new("tc");
        tc.args(["-n", &hub, "qdisc"]).stdin(Stdio::null()).stderr(Stdio::null());
        match percent {
            0 => tc.args(["del", "dev", &device, "root"]),
            _ => tc.args(["replace", "dev", &device, "root", "netem", "loss", &loss]),
        };
        tc.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        for node in 0..self.nodes {
            let _ = ip(&["netns", "del", &self.space(node)]);
        }
        // Takes the other ends of all links with it.
        let _ = ip(&["netns", "del", &self.hub()]);
        let _ = ip(&["link", "del", &format!("{}r", self.prefix)]);
    }
}
