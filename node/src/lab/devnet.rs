//! `fragcast devnet`: a whole network on this machine, with a built-in gateway.
//!
//! Every node executes every block on a database of its own and checks the Seal. The gateway
//! accepts users' transactions over JSON-RPC (`pool.rs`), so a wallet or a library can be tried
//! against any node.

mod breaks;
mod building;
mod buttons;
mod churn;
mod pool;
mod report;
mod scene;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use fragcast_execution::chain::ChainSpec;
use fragcast_execution::devnet::genesis::{USER_KEYS, USERS};
use fragcast_execution::devnet::{DevnetConfig, Genesis};
use fragcast_execution::executor::ReportTap;
use fragcast_shredder::Dialect;
use fragcast_store::{Store, StoreConfig};
use fragcast_turbine::{Mode, Policy};
use serde_json::json;

use crate::config::RouteName;
use crate::lab::local::{LocalNetwork, LocalOptions};
use crate::node::Execution;

use building::Building;
use buttons::Buttons;
use churn::Churn;
use pool::Pool;
use report::{View, print_table, summary};

/// Arguments of `fragcast devnet`.
#[derive(Debug, Clone, clap::Args)]
pub struct DevnetArgs {
    /// Nodes in all.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=200))]
    pub nodes: u16,
    /// Blocks to build.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(default_value_if("churn", "true", "100"))]
    pub blocks: u64,
    /// Share of shreds that every sender throws away, 0 to 0.3.
    #[arg(long, default_value_t = 0.02, value_parser = super::loss)]
    pub loss: f64,
    /// Gateways that take turns; gateway g is run by node g.
    #[arg(long, default_value_t = 1, default_value_if("churn", "true", "4"))]
    pub gateways: u16,
    /// Blocks that a gateway leads at a time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(default_value_if("churn", "true", "4"))]
    pub term: u64,
    /// Lets nodes join and leave, a gateway register and another change its node while blocks flow;
    /// with 4 gateways and 100 blocks of 5 frags, if nothing else is said.
    #[arg(long, conflicts_with_all = ["fast", "fail_turbine_at", "heal_at"])]
    pub churn: bool,
    /// How messages travel: auto, turbine (the overlay alone) or gossip.
    #[arg(long, default_value_t)]
    pub mode: Mode,
    /// How much nodes use gossip: off, standby or always. Without the flag: standby, or off for
    /// more than 64 nodes, whose connections exceed the usual limit of open files.
    #[arg(long)]
    pub policy: Option<Policy>,
    /// Blocks all UDP before this block, so that the overlay fails for everybody.
    #[arg(long, value_name = "BLOCK")]
    pub fail_turbine_at: Option<u64>,
    /// Lets UDP pass again before this block.
    #[arg(long, value_name = "BLOCK", requires = "fail_turbine_at")]
    pub heal_at: Option<u64>,
    /// Route of the leader: auto, direct, turbine or rotor.
    #[arg(long, default_value_t = RouteName::Turbine)]
    pub route: RouteName,
    /// Sends the next message as soon as every node has the one before, instead of a frag every 200
    /// ms.
    #[arg(long)]
    pub fast: bool,
    /// Frags of a block.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    #[arg(default_value_if("churn", "true", "5"))]
    pub frags: u16,
    /// Transactions of a frag.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(0..=5000))]
    pub txs: u16,
    /// Pacing of every node, Mbit/s.
    #[arg(long, default_value_t = 200)]
    pub uplink_mbit: u64,
    /// `v0` or `v0-blob`.
    #[arg(long, default_value_t)]
    pub dialect: Dialect,
    /// Seed of the transactions and losses.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Writes a JSON report.
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// TCP port of node 0's public JSON-RPC; 0: chosen by the system.
    #[arg(long = "http.port", default_value_t = 0)]
    pub http_port: u16,
    /// TCP port of node 0's gossip; 0: chosen by the system.
    #[arg(long = "gossip.port", default_value_t = 0)]
    pub gossip_port: u16,
    /// TCP port at which the gateway accepts transactions; 0: chosen by the system.
    #[arg(long = "gateway.port", default_value_t = 0)]
    pub gateway_port: u16,
    /// Gives every node a Flashblocks WebSocket; node 0's is at this TCP port, 0: chosen by the
    /// system.
    #[arg(long = "flashblocks.port")]
    pub flashblocks_port: Option<u16>,
    /// Opens no page that shows the network live.
    #[arg(long, conflicts_with = "page_port")]
    pub no_page: bool,
    /// TCP port of the page that shows the network live; 0: chosen by the system.
    #[arg(long = "page.port", default_value_t = 0)]
    pub page_port: u16,
    /// Prints where everything listens, as JSON, before the first block.
    #[arg(long)]
    pub addresses: bool,
    /// The path / shows the preconfirmed view, as /preconf always does.
    #[arg(long)]
    pub preconf_as_latest: bool,
    /// Origins of web pages that may read answers and open WebSockets; `*`: all.
    #[arg(long = "http.cors", value_delimiter = ',')]
    pub cors: Vec<String>,
    /// Keeps the nodes' directories here; otherwise they are deleted.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// The largest network that uses gossip by default.
const GOSSIP_NODES: u16 = 64;

impl DevnetArgs {
    fn policy(&self) -> Policy {
        let small = self.nodes <= GOSSIP_NODES;
        self.policy.unwrap_or(if small || self.mode == Mode::Gossip {
            Policy::Standby
        } else {
            Policy::Off
        })
    }

    fn check(&self) -> anyhow::Result<()> {
        let Some(fail) = self.fail_turbine_at else { return Ok(()) };
        if fail >= self.blocks {
            bail!("--fail-turbine-at {fail}: the last block is {}", self.blocks - 1);
        }
        if self.heal_at.is_some_and(|heal| heal <= fail || heal >= self.blocks) {
            bail!("--heal-at must be a block after {fail} and before {}", self.blocks);
        }
        if self.policy() == Policy::Off || self.mode == Mode::Turbine {
            bail!(
                "--fail-turbine-at: without gossip nothing would arrive; leave out --mode turbine, \
                 and set --policy standby"
            );
        }
        Ok(())
    }
}

/// Runs the command and returns the exit code.
///
/// # Errors
/// Something could not be set up or written.
pub async fn run(args: DevnetArgs) -> anyhow::Result<i32> {
    args.check()?;
    let temporary = tempfile::tempdir()?;
    let dir = args.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let chain =
        DevnetConfig { seed: args.seed, timestamp: unix_seconds(), ..DevnetConfig::default() };
    let genesis = Genesis::devnet(&chain).to_json()?;
    std::fs::write(dir.join("genesis.json"), genesis).context("cannot write genesis.json")?;
    let pool = Pool::default();
    let (gateway, _door) = pool.serve(chain.chain_id, args.gateway_port).await?;
    let mut churn = match args.churn {
        true => Some(Churn::new(&args).await?),
        false => None,
    };
    let gateways = usize::from(args.gateways);
    let options = LocalOptions {
        nodes: args.nodes.into(),
        // One more registers later.
        gateways: gateways + usize::from(args.churn),
        blocks_per_term: if args.gateways > 1 { args.term } else { 30 },
        substitutes: 0,
        chain_id: chain.chain_id,
        dialect: args.dialect,
        loss: args.loss,
        uplink_mbit: args.uplink_mbit,
        route: args.route,
        dir,
        seed: args.seed,
        gateway_url: Some(format!("http://{gateway}")),
        http_port: args.http_port,
        preconf_as_latest: args.preconf_as_latest,
        cors: args.cors.clone(),
        policy: args.policy(),
        mode: args.mode,
        gossip_port: args.gossip_port,
        flashblocks_port: args.flashblocks_port,
        registered: gateways,
        registry: churn.iter().map(|churn| vec![churn.registry()]).collect(),
        hand_over_ms: 0,
        guests: 0,
        live: args.churn,
    };
    let genesis = Genesis::devnet(&chain);
    let spec = Arc::new(genesis.chain_spec("dev")?);
    let factory = move |_: usize, dir: &Path, tap: ReportTap| execution(&spec, dir, tap);
    let mut network = LocalNetwork::start(&options, Some(&factory)).await?;
    if let Some(churn) = &churn {
        churn.begin(&network);
    }
    let (buttons, mut desk) = match args.no_page {
        true => (None, None),
        false => Some(Buttons::open(args.page_port)?).unzip(),
    };
    announce(&args, &network, gateway, buttons.as_ref())?;
    let view = View::new(&args);
    let building = Building {
        args: &args,
        network: &mut network,
        pool: &pool,
        view: &view,
        churn: churn.as_mut(),
        execution: &factory,
        desk: desk.as_mut(),
    };
    let outcome = tokio::select! {
        outcome = building.run(&chain) => Some(outcome),
        _ = tokio::signal::ctrl_c() => None,
    };
    view.update(&network);
    view.finish();
    let interrupted = outcome.is_none();
    let built = outcome.transpose();
    let mut summary = summary(&args, &network);
    print_table(&args, &network, &summary)?;
    if let Some(churn) = &churn {
        let told = churn.summary(&network);
        Churn::print(&told)?;
        summary["ok"] = json!(summary["ok"] == true && told["ok"] == true);
        summary["epochs"] = told;
    }
    if let Some(buttons) = buttons {
        buttons.close().await;
    }
    network.stop().await;
    if let Some(path) = &args.report {
        let text = serde_json::to_string_pretty(&summary)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    built?;
    if interrupted {
        writeln!(std::io::stdout(), "interrupted")?;
        return Ok(130);
    }
    Ok(i32::from(summary["ok"] != true))
}

/// Prints the addresses for wallets and scripts.
fn announce(
    args: &DevnetArgs,
    network: &LocalNetwork,
    gateway: SocketAddr,
    page: Option<&Buttons>,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let http: Vec<String> =
        network.nodes().iter().map(|node| format!("http://{}", node.addresses().http)).collect();
    if args.addresses {
        let gossip: Vec<Vec<String>> = network
            .nodes()
            .iter()
            .map(|node| node.addresses().gossip.iter().map(ToString::to_string).collect())
            .collect();
        let doors = network.nodes().into_iter().filter_map(|node| node.addresses().flashblocks);
        let doors: Vec<String> = doors.map(|door| format!("ws://{door}")).collect();
        let metrics = network.nodes().into_iter().map(|node| node.addresses().metrics.to_string());
        let metrics: Vec<String> = metrics.collect();
        let gateway = format!("http://{gateway}");
        let all = json!({
            "http": http,
            "gateway": gateway,
            "gossip": gossip,
            "flashblocks": doors,
            "metrics": metrics,
            "page": page.map(Buttons::url),
        });
        writeln!(out, "{all}")?;
    } else if let Some(first) = http.first() {
        writeln!(
            out,
            "JSON-RPC of node 0 at {first} (HTTP and WebSocket); a funded account: {} with the \
             well-known key {}",
            USERS[0], USER_KEYS[0],
        )?;
        if let Some(page) = page {
            writeln!(out, "the network live, with buttons to break it: {}", page.url())?;
        }
    }
    out.flush()?;
    Ok(())
}

/// A database of its own for each node.
fn execution(spec: &Arc<ChainSpec>, dir: &Path, tap: ReportTap) -> anyhow::Result<Execution> {
    // 8 nodes with the default cache would be a gigabyte.
    let config = StoreConfig { cache_mib: 16, ..StoreConfig::default() };
    let store = Store::open(&dir.join("chain.redb"), spec, config)?;
    Ok(Execution { tap: Some(tap), ..Execution::on_store(Arc::clone(spec), store) })
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
