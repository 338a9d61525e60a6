//! `init`, `keygen`, `delegate`: the commands that are run once, before a node runs.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use alloy_primitives::{Address, hex};
use anyhow::{Context, bail};
use ed25519_dalek::SigningKey;
use fragcast_shredder::Dialect;
use fragcast_turbine::delegation::Form;
use fragcast_turbine::membership::RecordBody;
use fragcast_turbine::{Delegation, PeerId, SignedDelegation};

use crate::config::{Config, SignerApi};
use crate::gateway::journal::Journal;
use crate::gateway::keys;
use crate::members::Bootstrap;
use crate::network::{MemberEntry, NetworkFile};

/// Port of the overlay, unless said otherwise.
const LISTEN_PORT: u16 = 9300;

/// Arguments of `fragcast init`.
#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    /// The directory to write to.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Chain id.
    #[arg(long)]
    chain_id: u64,
    /// UDP address to listen on; by default port 9300 of all addresses of the family of
    /// `--advertise`.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// UDP address under which other nodes reach this one.
    #[arg(long)]
    advertise: SocketAddr,
    /// TCP port to listen on for gossip, at the same IP addresses.
    #[arg(long, default_value_t = 9222)]
    gossip_port: u16,
    /// `v0` or `v0-blob`.
    #[arg(long, default_value_t)]
    dialect: Dialect,
    /// A member of the network to call first, as `<peer id>@host:port`; may be given several times.
    /// The members come from there, and this node needs no entry in anybody's network file.
    #[arg(long)]
    bootstrap: Vec<Bootstrap>,
    /// Where the list of gateways comes from, such as the URL of a registry; may be given several
    /// times.
    #[arg(long)]
    registry: Vec<String>,
}

/// Arguments of `fragcast keygen`.
#[derive(Debug, clap::Args)]
pub(super) struct KeygenArgs {
    /// What the key is for.
    #[arg(long, value_enum)]
    kind: KeyKind,
    /// The file to write; it must not exist.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum KeyKind {
    /// A node's identity (ed25519).
    Identity,
    /// The key that a gateway delegates to (ed25519), with its journal.
    Leader,
    /// A gateway's own key (secp256k1).
    Gateway,
}

/// Arguments of `fragcast delegate`.
#[derive(Debug, clap::Args)]
pub(super) struct DelegateArgs {
    /// The gateway's key file. Without it, and without `--signer` and `--signature`, the text is
    /// printed that a wallet is to sign.
    #[arg(long)]
    gateway_key: Option<PathBuf>,
    /// A signer that has the gateway's key, such as http://127.0.0.1:9000.
    #[arg(long, conflicts_with = "gateway_key", requires = "gateway")]
    signer: Option<String>,
    /// How it is asked: web3signer, clef or eth_sign.
    #[arg(long, default_value_t = SignerApi::Web3signer, requires = "signer")]
    signer_api: SignerApi,
    /// The signature that a wallet has made of the text, 65 bytes as hex.
    #[arg(long, conflicts_with_all = ["gateway_key", "signer"], requires = "gateway")]
    signature: Option<String>,
    /// The gateway's address.
    #[arg(long, conflicts_with = "gateway_key")]
    gateway: Option<Address>,
    /// Chain id.
    #[arg(long)]
    chain_id: u64,
    /// First block.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Last block, included.
    #[arg(long, default_value_t = u64::MAX)]
    last: u64,
    /// The highest sequence wins. A node with a remote signer takes the time in milliseconds since
    /// 1970.
    #[arg(long, default_value_t = 1)]
    sequence: u64,
    /// The node's peer id.
    #[arg(long)]
    peer: PeerId,
    /// The node's leader key (public), as `init` and `keygen` print it.
    #[arg(long)]
    leader: PeerId,
}

/// Makes a leader key and the journal that belongs to it.
fn create_leader(key: &Path, journal: &Path) -> anyhow::Result<SigningKey> {
    if key.exists() {
        bail!("{} exists already: choose another file, or move it away", key.display());
    }
    // The journal first: a key without one would make the node skip blocks. And an old key
    // must never get a new journal.
    Journal::create(journal)?;
    keys::create_ed25519(key).map_err(|error| {
        let _ = std::fs::remove_file(journal);
        error.into()
    })
}

fn tcp_multiaddr(ip: IpAddr, port: u16) -> String {
    let family = if ip.is_ipv4() { "ip4" } else { "ip6" };
    format!("/{family}/{ip}/tcp/{port}")
}

/// Why nobody can reach a node at an address, if so.
pub(super) fn unusable(address: SocketAddr) -> Option<&'static str> {
    if address.ip().is_unspecified() {
        return Some("names no node, since all of its addresses are meant");
    }
    if address.ip().is_multicast() {
        return Some("is a multicast address");
    }
    (address.port() == 0).then_some("has port 0, which names no port")
}

/// The address to listen on, by which others reach `advertise`.
fn listen_address(listen: Option<SocketAddr>, advertise: SocketAddr) -> anyhow::Result<SocketAddr> {
    if let Some(what) = unusable(advertise) {
        bail!(
            "--advertise {advertise} {what}: give the address under which others reach this node"
        );
    }
    let any: IpAddr = match advertise {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let listen = listen.unwrap_or(SocketAddr::new(any, LISTEN_PORT));
    if listen.port() == 0 {
        bail!("--listen {listen} has port 0: others could not know the port");
    }
    let both = listen.is_ipv6() && listen.ip().is_unspecified();
    if listen.is_ipv4() != advertise.is_ipv4() && !both {
        bail!("--listen {listen} and --advertise {advertise} are of different families");
    }
    Ok(listen)
}

pub(super) fn init(args: &InitArgs) -> anyhow::Result<()> {
    let dir = &args.dir;
    let listen = listen_address(args.listen, args.advertise)?;
    if args.gossip_port == 0 {
        bail!("--gossip-port 0: others could not know the port");
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut config = Config::default();
    config.p2p.listen = listen;
    config.gossip.listen = tcp_multiaddr(listen.ip(), args.gossip_port);
    config.registry.sources.clone_from(&args.registry);
    if !args.bootstrap.is_empty() {
        config.members.advertise = vec![args.advertise];
    }
    config.check()?;
    let in_dir = |path: &Path| dir.join(path);
    let node = dir.join("node.toml");
    let network = in_dir(&config.network);
    let files = [&config.identity, &config.leader.key, &config.leader.journal];
    for path in files.into_iter().map(|p| in_dir(p)).chain([node.clone()]) {
        if path.exists() {
            bail!("{} exists already: choose another --dir, or move it away", path.display());
        }
    }
    let identity = keys::create_ed25519(&in_dir(&config.identity))?;
    let leader = create_leader(&in_dir(&config.leader.key), &in_dir(&config.leader.journal))?;
    keys::write_private(&node, config.example().as_bytes())?;

    let peer = PeerId(identity.verifying_key().to_bytes());
    let body = RecordBody {
        chain_id: args.chain_id,
        peer,
        sequence: 1,
        uplink_kbps: u32::try_from(config.p2p.uplink_mbit * 1_000).unwrap_or(u32::MAX),
        coordinates: [0; 4],
        addresses: vec![args.advertise.into()],
    };
    let member = MemberEntry {
        record: body.sign(&identity).to_string(),
        weight: 1,
        gossip: vec![tcp_multiaddr(args.advertise.ip(), args.gossip_port)],
    };
    let live = !args.bootstrap.is_empty();
    let mut out = std::io::stdout().lock();
    if network.exists() {
        writeln!(out, "{} exists and was left as it is.", network.display())?;
    } else {
        let file = NetworkFile {
            gateway_urls: Default::default(),
            chain_id: args.chain_id,
            dialect: args.dialect,
            blocks_per_term: fragcast_turbine::schedule::BLOCKS_PER_TERM,
            substitutes: 0,
            block_time_ms: None,
            gateways: Vec::new(),
            bootstrap: args.bootstrap.clone(),
            delegations: Vec::new(),
            members: if live { Vec::new() } else { vec![member.clone()] },
        };
        let comment = match live {
            true => "# bootstrap: members to call first; the others come from there.\n",
            false => "",
        };
        let text = format!(
            "# What all nodes of the network agree on: the same file on every node.\n\
             # gateways: addresses in order of rotation. delegations: from `fragcast delegate`.\n\
             {comment}{}",
            toml::to_string(&file)?
        );
        std::fs::write(&network, text)
            .with_context(|| format!("cannot write {}", network.display()))?;
        writeln!(out, "wrote {}", network.display())?;
    }
    writeln!(out, "wrote {} and keys beside it", node.display())?;
    writeln!(out, "\npeer id     {peer}")?;
    writeln!(out, "leader key  {}", hex::encode(leader.verifying_key().to_bytes()))?;
    if live {
        writeln!(out, "\nthe node becomes a member by itself, once a leader has called it back")?;
        writeln!(out, "at {}; others may call it first as\n", args.advertise)?;
        writeln!(out, "bootstrap = [\"{peer}@{}\"]", args.advertise)?;
    } else {
        writeln!(out, "\nadd this to the network file of every node:\n")?;
        writeln!(out, "[[members]]\n{}", toml::to_string(&member)?)?;
    }
    writeln!(
        out,
        "\nif a gateway is to lead through this node, let it sign:\n\n\
         fragcast delegate --gateway-key GATEWAY.key --chain-id {} --peer {peer} --leader {}",
        args.chain_id,
        hex::encode(leader.verifying_key().to_bytes()),
    )?;
    Ok(())
}

pub(super) fn keygen(args: &KeygenArgs) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match args.kind {
        KeyKind::Identity => {
            let key = keys::create_ed25519(&args.out)?;
            writeln!(out, "peer id {}", hex::encode(key.verifying_key().to_bytes()))?;
        }
        KeyKind::Leader => {
            let key = create_leader(&args.out, &args.out.with_extension("journal"))?;
            writeln!(out, "leader key {}", hex::encode(key.verifying_key().to_bytes()))?;
        }
        KeyKind::Gateway => {
            let key = keys::create_gateway(&args.out)?;
            writeln!(out, "gateway {}", key.address())?;
        }
    }
    Ok(())
}

pub(super) fn delegate(args: &DelegateArgs) -> anyhow::Result<()> {
    if args.first > args.last {
        bail!("--first {} is after --last {}", args.first, args.last);
    }
    if args.sequence == u64::MAX {
        bail!(
            "--sequence {} is the highest that there is: no later delegation could replace this one; \
             give a lower one",
            args.sequence
        );
    }
    let delegation = Delegation {
        chain_id: args.chain_id,
        first: args.first,
        last: args.last,
        sequence: args.sequence,
        peer: args.peer,
        key: args.leader.0,
    };
    let mut out = std::io::stdout().lock();
    let Some(signed) = sign(args, delegation)? else {
        writeln!(
            out,
            "let the gateway's wallet sign this text (personal_sign), and give the result"
        )?;
        writeln!(out, "with --signature and --gateway to the same command:\n")?;
        writeln!(out, "{}", delegation.text())?;
        return Ok(());
    };
    let gateway = signed.gateway()?;
    writeln!(out, "add this to the network file of every node:\n")?;
    writeln!(out, "gateways = [\"{gateway}\"]")?;
    writeln!(out, "delegations = [\"{signed}\"]")?;
    Ok(())
}

/// Lets the key, the signer or the wallet sign that the arguments name; `None` if they name none.
fn sign(args: &DelegateArgs, delegation: Delegation) -> anyhow::Result<Option<SignedDelegation>> {
    if let Some(path) = &args.gateway_key {
        return Ok(Some(delegation.sign(&keys::read_gateway(path)?)));
    }
    let Some(gateway) = args.gateway else { return Ok(None) };
    if let Some(signer) = &args.signer {
        let mut config = Config::default();
        config.leader.signer.clone_from(signer);
        config.leader.signer_api = args.signer_api;
        config.leader.gateway = gateway.to_string();
        let signer = config.signer()?.context("--signer is empty")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let signed = runtime.block_on(signer.sign(delegation));
        return Ok(Some(signed.with_context(|| signer.name())?));
    }
    let Some(signature) = &args.signature else { return Ok(None) };
    let Ok(signature) = hex::decode_to_array(signature) else {
        bail!("--signature must be 65 bytes as hex, r, s and v");
    };
    let signed = delegation.signed(Form::Text, signature).context("--signature")?;
    let found = signed.gateway().context("--signature")?;
    if found != gateway {
        bail!(
            "--signature is of {found} and not of {gateway}, if it is of this text: compare the \
             text that was signed with what this command prints without --signature"
        );
    }
    Ok(Some(signed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_reach_nobody_are_not_signed() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (listen, advertise, expected) in [
            (None, "192.0.2.1:9300", Ok("0.0.0.0:9300")),
            (None, "[2001:db8::1]:9400", Ok("[::]:9300")),
            (Some("10.0.0.1:5"), "192.0.2.1:9300", Ok("10.0.0.1:5")),
            (Some("[::]:5"), "192.0.2.1:9300", Ok("[::]:5")),
            (None, "0.0.0.0:9300", Err("all of its addresses")),
            (None, "[::]:9300", Err("all of its addresses")),
            (None, "192.0.2.1:0", Err("port 0")),
            (None, "224.0.0.1:9300", Err("multicast")),
            (Some("10.0.0.1:0"), "192.0.2.1:9300", Err("port 0")),
            (Some("0.0.0.0:5"), "[2001:db8::1]:9400", Err("different families")),
            (Some("[::1]:5"), "192.0.2.1:9300", Err("different families")),
        ] {
            let listen = listen_address(listen.map(at), at(advertise));
            match (listen, expected) {
                (Ok(listen), Ok(expected)) => assert_eq!(listen, at(expected)),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, expected) => panic!("{advertise}: {got:?}, not {expected:?}"),
            }
        }
    }
}
