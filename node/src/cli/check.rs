//! `check-config` and `status`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use alloy_primitives::Address;
use anyhow::{Context, bail};
use fragcast_execution::chain::ChainSpec;
use fragcast_rpc::flashblocks::NEEDS_EXECUTION;
use fragcast_store::{Found, Store};
use fragcast_turbine::gossip::links;
use fragcast_turbine::net::gossip::libp2p::multiaddr::Protocol as Part;
use fragcast_turbine::{PeerId, PeerIndex, Policy};
use fragcast_upstream::engine::JwtSecret;
use fragcast_upstream::http::{HttpClient, check_url, shown};
use fragcast_upstream::jsonrpc::Request;
use serde_json::Value;

use super::{files, fork_times, setup};
use crate::config::{Config, StateFrom};
use crate::gateway::keys;
use crate::multiaddr::Multiaddr;
use crate::network::Network;
use crate::node::execution;
use crate::registry::votes;
use crate::serve::forks;

/// Arguments of `fragcast check-config`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The configuration.
    #[arg(long, env = "FRAGCAST_CONFIG", default_value = "node.toml")]
    config: PathBuf,
}

/// Arguments of `fragcast status`.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// The node's public JSON-RPC.
    #[arg(long, env = "FRAGCAST_RPC", default_value = "http://127.0.0.1:9320")]
    rpc: String,
    /// Prints JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Checks everything that `run` would read; prints what it found.
pub(super) fn check_config(args: &CheckArgs) -> anyhow::Result<i32> {
    let config = Config::load(&args.config)?;
    let network = config.network()?;
    let identity = keys::read_ed25519(&config.identity)?;
    let peer = PeerId(identity.verifying_key().to_bytes());
    let me = network.members.index(&peer);
    let live = config.follows_members(&network);
    let mut out = std::io::stdout().lock();
    writeln!(out, "chain        {} ({})", network.chain_id, network.dialect)?;
    writeln!(out, "{}", pace(&network, &config)?)?;
    match me {
        Some(me) => writeln!(out, "peer         {peer}, member {me} of {}", network.members.len())?,
        None if live => writeln!(out, "peer         {peer}, in no table of the network file")?,
        None => {
            writeln!(
                out,
                "peer         {peer}, no member: it runs as a guest of {} members; to be one of them, add \
                 the record that `fragcast init` printed to {}",
                network.members.len(),
                config.network.display()
            )?;
            return Ok(0);
        }
    }
    for member in network.members.members() {
        let addresses: Vec<String> = member.record.addresses().map(|a| a.to_string()).collect();
        let mine = if member.peer() == peer { " (this node)" } else { "" };
        writeln!(
            out,
            "  member     {} weight {} at {}{mine}",
            member.peer(),
            member.weight,
            addresses.join(", ")
        )?;
    }
    if network.schedule.substitutes() > 0 {
        writeln!(
            out,
            "substitutes  {}, each {} ms after the one before",
            network.schedule.substitutes(),
            config.leader.substitute_after_ms
        )?;
    }
    let listed = network.schedule.gateways().iter().filter(|_| network.has_gateways);
    for gateway in listed {
        let delegated: Vec<String> = network
            .delegations
            .iter()
            .filter(|d| d.gateway().is_ok_and(|g| g == *gateway))
            .map(|d| {
                format!("{} blocks {}–{}", d.delegation.peer, d.delegation.first, d.delegation.last)
            })
            .collect();
        let to = if delegated.is_empty() {
            "nobody: its blocks come by gossip alone".to_owned()
        } else {
            delegated.join("; ")
        };
        writeln!(out, "  gateway    {gateway} delegates to {to}")?;
    }
    let mut problems = check_network(&network, me, &config);
    if live {
        check_members(&config, &network, peer, &mut out, &mut problems)?;
    }
    check_registry(&config, &network, &mut out, &mut problems)?;
    if config.leader.key.exists() {
        let key = keys::read_ed25519(&config.leader.key)?.verifying_key().to_bytes();
        let mut delegations = network.delegations.iter().chain(&network.early);
        let delegated = delegations.any(|d| d.delegation.key == key && d.delegation.peer == peer);
        let what = if delegated { "a gateway delegates to it" } else { "no delegation names it" };
        writeln!(out, "leader key   {what}")?;
        if !config.leader.journal.exists() {
            writeln!(out, "journal      missing: the first eight blocks will be skipped")?;
        }
        problems.extend(files::unwritable("leader.journal", &config.leader.journal));
        check_signer(&config, &mut out, &mut problems)?;
    } else if network.delegations.iter().any(|d| d.delegation.peer == peer) {
        problems.push(format!(
            "leader.key: {} does not exist, but a gateway has delegated to this node: put the key \
             there, or let the gateway delegate to the node that has it",
            config.leader.key.display()
        ));
    }
    if !config.engine.url.is_empty() {
        check_url(&config.engine.url)?;
        JwtSecret::from_hex_file(&config.engine.jwt_secret)?;
        writeln!(out, "engine       {}", shown(&config.engine.url))?;
    }
    check_gossip(&config, &network, me, &mut out)?;
    check_execution(&config, &network, &mut out)?;
    if let Some(listen) = config.flashblocks_listen()? {
        if config.execution.chain.is_empty() {
            bail!("flashblocks.listen: {NEEDS_EXECUTION}");
        }
        writeln!(out, "flashblocks  ws://{listen}")?;
    }
    config.admin_token()?;
    if !config.execution.chain.is_empty() && config.execution.source == StateFrom::Genesis {
        problems.extend(files::unwritable("execution.db", &config.execution.db));
    }
    if !config.admin.listen.ip().is_loopback() {
        writeln!(out, "warning: admin.listen is not on loopback; keep it behind a firewall")?;
    }
    if !config.ingest.listen.ip().is_loopback() {
        writeln!(out, "warning: ingest.listen is not on loopback; keep it behind a firewall")?;
    }
    if problems.is_empty() {
        writeln!(out, "ok")?;
        return Ok(0);
    }
    for problem in &problems {
        writeln!(out, "problem: {problem}")?;
    }
    Ok(1)
}

/// The time between two blocks, and how far ahead of its head a node believes a block to be by it.
fn pace(network: &Network, config: &Config) -> anyhow::Result<String> {
    let millis = config.protocol_settings(network)?.block_time.as_millis();
    let told = match network.block_time {
        Some(_) => "",
        None => ", since the chain is not known: set block_time_ms in the network file",
    };
    Ok(format!("block time   {millis} ms{told}"))
}

/// Asks the signer of the gateway's delegation whether it is there and has the key.
fn check_signer(
    config: &Config,
    out: &mut impl std::io::Write,
    problems: &mut Vec<String>,
) -> anyhow::Result<()> {
    let Some(signer) = config.signer()? else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(signer.check()) {
        Ok(()) => writeln!(out, "signer       {}, for {}", signer.name(), signer.gateway())?,
        Err(error) => problems.push(format!("leader.signer: {}: {error}", signer.name())),
    }
    problems.extend(files::unwritable("leader.delegation", &config.leader.delegation));
    Ok(())
}

/// What is wrong with what the network file says, beyond what every reader of it checks.
fn check_network(network: &Network, me: Option<PeerIndex>, config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, signed) in (1..).zip(&network.delegations) {
        let peer = signed.delegation.peer;
        let live = config.follows_members(network);
        if network.members.index(&peer).is_none() && !live {
            let gateway = signed.gateway().map_or_else(|_| "a gateway".into(), |g| g.to_string());
            problems.push(format!(
                "delegation {number}: {gateway} delegates to {peer}, who is no member: nobody can \
                 send its blocks; add the member's record, or sign a delegation to a member"
            ));
        }
    }
    let listen = config.p2p.listen;
    for (index, member) in (0..).zip(network.members.members()) {
        for address in member.record.addresses() {
            if let Some(what) = setup::unusable(address) {
                problems.push(format!(
                    "member {}: its address {address} {what}: let it make its record anew",
                    member.peer()
                ));
            }
        }
        let family = |address: SocketAddr| address.is_ipv4() == listen.is_ipv4();
        let both = listen.is_ipv6() && listen.ip().is_unspecified();
        if Some(index) != me && !both && !member.record.addresses().any(family) {
            let (ours, theirs) = if listen.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
            problems.push(format!(
                "p2p.listen is {ours} and member {} has {theirs} addresses only: listen at [::] to \
                 speak both",
                member.peer()
            ));
        }
    }
    problems
}

/// Prints how members are found, and tries the bootstrap addresses and the source of weights.
fn check_members(
    config: &Config,
    network: &Network,
    me: PeerId,
    out: &mut impl std::io::Write,
    problems: &mut Vec<String>,
) -> anyhow::Result<()> {
    match config.own_record(network, &me) {
        Some(own) => {
            let addresses: Vec<String> = own.addresses.iter().map(ToString::to_string).collect();
            writeln!(out, "members      follows them, and is one at {}", addresses.join(", "))?;
        }
        None => writeln!(
            out,
            "members      follows them, and is none itself: members.advertise is empty"
        )?,
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for bootstrap in &network.bootstrap {
        match runtime.block_on(bootstrap.resolve()) {
            Ok(addresses) => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                writeln!(out, "  bootstrap  {bootstrap}, at {}", addresses.join(", "))?;
            }
            Err(error) => problems.push(format!("bootstrap: {bootstrap}: {error}")),
        }
    }
    if let Some(source) = config.weights_source()? {
        let timeout = std::time::Duration::from_millis(config.client.timeout_ms);
        match runtime.block_on(source.read(timeout)) {
            Ok((weights, block)) => {
                let at = if block > 0 { format!(" at block {block}") } else { String::new() };
                writeln!(out, "weights      {}: {} members{at}", source.name(), weights.len())?;
            }
            Err(error) => problems.push(format!("members.weights: {}: {error}", source.name())),
        }
    }
    Ok(())
}

/// Asks every source of the list of gateways once, and prints what it has.
fn check_registry(
    config: &Config,
    network: &Network,
    out: &mut impl std::io::Write,
    problems: &mut Vec<String>,
) -> anyhow::Result<()> {
    let sources = config.registry_sources(network.schedule.blocks_per_term())?;
    if sources.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = futures_util::future::join_all(sources.iter().map(|source| source.ask()));
    let mut lists = Vec::new();
    for (source, answer) in sources.iter().zip(runtime.block_on(asked)) {
        let name = source.name();
        match answer {
            Ok(answer) => {
                let count = answer.list.gateways().len();
                writeln!(out, "registry     {name}: {count} gateways")?;
                if let Some(block) = answer.contradicts_at {
                    problems.push(format!(
                        "registry.sources: {name} names another gateway for block {block} than its \
                         own list does: compare blocks_per_term in the network file"
                    ));
                }
                lists.push(Some(answer.list.addresses()));
            }
            Err(error) => {
                problems.push(format!("registry.sources: {name}: {error}"));
                lists.push(None);
            }
        }
    }
    let lists = lists.iter().map(Option::as_deref);
    if let Some(vote) = votes::count(lists, network.schedule.gateways()) {
        if !vote.agree {
            writeln!(out, "warning: sources of gateways differ; the list in use stays")?;
        }
        for gateway in vote.list.iter().filter(|g| !network.schedule.gateways().contains(g)) {
            writeln!(out, "  registered {gateway}, who is not in the network file")?;
        }
    }
    for signed in &network.early {
        if let Ok(gateway) = signed.gateway() {
            writeln!(out, "  early      {gateway} delegates to {}", signed.delegation.peer)?;
        }
    }
    problems.extend(files::unwritable("registry.saved", &config.registry.saved));
    Ok(())
}

/// Prints how gossip is reached, and whether anything is missing for it.
fn check_gossip(
    config: &Config,
    network: &Network,
    me: Option<PeerIndex>,
    out: &mut impl std::io::Write,
) -> anyhow::Result<()> {
    let gossip = &config.gossip;
    if gossip.policy == Policy::Off {
        writeln!(out, "gossip       off")?;
        let ours = |gateway: &Address| {
            let mut delegations = network.delegations.iter();
            delegations.any(|d| d.gateway().is_ok_and(|g| g == *gateway))
        };
        if !network.schedule.gateways().iter().all(ours) {
            writeln!(
                out,
                "warning: some gateways have no delegation and are heard on gossip alone: set \
                 gossip.policy = \"standby\""
            )?;
        }
        return Ok(());
    }
    let peers: Vec<PeerId> = network.members.members().iter().map(|m| m.peer()).collect();
    let linked = me.map_or_else(Default::default, |me| links::links(me, &peers));
    let members = linked.iter().filter(|index| network.gossip.contains_key(index)).count();
    let listen = if gossip.listen.is_empty() { "no address" } else { &gossip.listen };
    writeln!(
        out,
        "gossip       {}, mode {}, at {listen}; {members} members and {} other peers to connect to",
        gossip.policy,
        gossip.mode,
        gossip.peers.len(),
    )?;
    let port = |address: &Multiaddr| {
        address.iter().find_map(|part| match part {
            Part::Tcp(port) => Some(port),
            _ => None,
        })
    };
    let listens = config.gossip_listen().ok().flatten().as_ref().and_then(port);
    let told = me.and_then(|me| network.gossip.get(&me)).into_iter().flatten().find_map(port);
    if told.is_some() && told != listens {
        writeln!(
            out,
            "note: gossip.listen has another port than this node's entry in the network file, by \
             which members connect to it; that is right only if something in between maps it"
        )?;
    }
    if gossip.max_connections < members + gossip.peers.len() {
        writeln!(
            out,
            "warning: gossip.max_connections is {}, and there are more to connect to",
            gossip.max_connections
        )?;
    }
    if members == 0 && gossip.peers.is_empty() && me.is_some() {
        writeln!(
            out,
            "warning: no member has a gossip address in the network file, and gossip.peers is \
             empty: there is nobody to fall back to"
        )?;
    }
    Ok(())
}

/// Prints what is in the database, which is not changed. One that could not be opened is an error.
fn check_database(
    config: &Config,
    spec: &Arc<ChainSpec>,
    out: &mut impl std::io::Write,
) -> anyhow::Result<()> {
    let path = &config.execution.db;
    let found = Store::check(path, spec).context("execution.db")?;
    let what = match found {
        Found::Nothing => "which will be made from the genesis".to_owned(),
        Found::NotClosed => "which was not closed: it will be repaired when it is opened".into(),
        Found::Head(number, hash) => format!("block {number} ({hash})"),
    };
    writeln!(out, "state        {}, {what}", path.display())?;
    Ok(())
}

/// Prints what would be executed, on which state, and what the execution client can do.
fn check_execution(
    config: &Config,
    network: &Network,
    out: &mut impl std::io::Write,
) -> anyhow::Result<()> {
    let spec = execution::chain(config, network)?;
    let op = spec.as_ref().is_some_and(|spec| spec.is_op());
    match &spec {
        None => writeln!(out, "execution    none: messages are carried and nothing is executed")?,
        Some(spec) => {
            let kind = if op { "OP" } else { "Ethereum" };
            writeln!(out, "execution    {} ({kind}), chain {}", spec.name, spec.chain_id)?;
            fork_times::warn(spec, forks::now(), out)?;
            let mut silent = network.schedule.gateways().iter();
            if silent.any(|gateway| !network.gateway_urls.contains_key(gateway)) {
                writeln!(
                    out,
                    "note: not every gateway has an address in [gateway_urls] of the network file: \
                     users' transactions cannot be sent to those that have none"
                )?;
            }
            if config.execution.source == StateFrom::Genesis {
                if spec.genesis.is_none() {
                    bail!(
                        "execution.source: the genesis of {} is not built in; give its genesis \
                         file as execution.chain, or set execution.source = \"client\"",
                        spec.name
                    );
                }
                check_database(config, spec, out)?;
            } else {
                writeln!(out, "state        read from the execution client")?;
            }
        }
    }
    let Some(client) = execution::client(config, op)? else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report =
        runtime.block_on(fragcast_upstream::client::probe(&client)).with_context(|| {
            let url = shown(&config.client.url);
            format!("client.url: no usable answer from {url}: is it running?")
        })?;
    writeln!(out, "{report}")?;
    let state = spec.is_some() && config.execution.source == StateFrom::Client;
    if let Some(problem) = report.problem(network.chain_id, state) {
        bail!("client.url: {problem}");
    }
    let Some(spec) = &spec else { return Ok(()) };
    let told = runtime.block_on(fragcast_upstream::client::forks(&client)).context("client.url")?;
    fork_times::compare(spec, &told, forks::now(), out)
}

/// Asks a node for its status; the exit code is 0 if it is ready, 2 if not.
pub(super) async fn status(args: StatusArgs) -> anyhow::Result<i32> {
    let body = Request::new("fragcast_status", [(); 0]).to_vec()?;
    let url = shown(&args.rpc);
    let (code, answer) = HttpClient::default()
        .post_json(&args.rpc, None, body)
        .await
        .with_context(|| format!("no node answers at {url}: is it running? --rpc names another"))?;
    let answer: Value = serde_json::from_slice(&answer)
        .with_context(|| format!("{url} answered {code}, and no JSON: is that a node?"))?;
    let Some(status) = answer.get("result") else {
        bail!("{url} answered: {answer}");
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(status)?)?;
    } else {
        let plain = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        for (name, value) in status.as_object().into_iter().flatten() {
            match value {
                Value::Array(items) if name == "peers" => {
                    for item in items {
                        let rtt = item["rttMs"].as_f64().unwrap_or(0.0);
                        writeln!(out, "{:<12} {} {rtt:.2} ms", "  peer", plain(&item["peer"]))?;
                    }
                }
                Value::Object(inner) => {
                    for (name, value) in inner {
                        writeln!(out, "  {name:<20} {}", plain(value))?;
                    }
                }
                value => writeln!(out, "{name:<12} {}", plain(value))?,
            }
        }
    }
    Ok(if status["ready"] == true { 0 } else { 2 })
}
