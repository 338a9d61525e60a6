//! `fragcast devnet`: a whole network on this machine, with a built-in gateway.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use fragcast_shredder::{Dialect, Message};
use hdrhistogram::Histogram;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::local::{LocalNetwork, LocalOptions};
use crate::workload::{DevnetConfig, DevnetGateway, Genesis};

/// How long anything may take before it counts as missed.
const GUARD: Duration = Duration::from_secs(20);
const FRAG_INTERVAL: Duration = Duration::from_millis(200);

/// Which way messages may travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Mode {
    /// Whatever works.
    #[default]
    Auto,
    /// The overlay alone.
    Turbine,
}

/// Arguments of `fragcast devnet`.
#[derive(Debug, Clone, clap::Args)]
pub struct DevnetArgs {
    /// Nodes in all.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=200))]
    pub nodes: u16,
    /// Blocks to build.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub blocks: u64,
    /// Share of shreds that every sender throws away, 0 to 0.3.
    #[arg(long, default_value_t = 0.02, value_parser = crate::cli::loss)]
    pub loss: f64,
    /// Gateways that take turns; gateway g is run by node g.
    #[arg(long, default_value_t = 1)]
    pub gateways: u16,
    /// Blocks that a gateway leads at a time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    pub term: u64,
    /// Which way messages travel: the same for both until there is another way than the overlay.
    #[arg(long, value_enum, default_value_t)]
    pub mode: Mode,
    /// Route of the leader: auto, direct, turbine or rotor.
    #[arg(long, default_value = "turbine")]
    pub route: String,
    /// As fast as it can instead of a frag every 200 ms: the next message follows when every
    /// node has the one before.
    #[arg(long)]
    pub fast: bool,
    /// Frags of a block.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
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
    /// Keeps the nodes' directories here; without, they are thrown away.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// Runs it; the exit code.
///
/// # Errors
/// What could not be set up or written.
pub async fn run(args: DevnetArgs) -> anyhow::Result<i32> {
    let temporary = tempfile::tempdir()?;
    let dir = args.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let chain =
        DevnetConfig { seed: args.seed, timestamp: unix_seconds(), ..DevnetConfig::default() };
    let genesis = Genesis::devnet(&chain).to_json()?;
    std::fs::write(dir.join("genesis.json"), genesis).context("cannot write genesis.json")?;
    let options = LocalOptions {
        nodes: args.nodes.into(),
        gateways: args.gateways.into(),
        blocks_per_term: if args.gateways > 1 { args.term } else { 30 },
        chain_id: chain.chain_id,
        dialect: args.dialect,
        loss: args.loss,
        uplink_mbit: args.uplink_mbit,
        route: args.route.clone(),
        dir,
        seed: args.seed,
    };
    let mut network = LocalNetwork::start(&options).await?;
    let view = View::new(&args);
    let outcome = tokio::select! {
        outcome = build(&args, &chain, &mut network, &view) => Some(outcome),
        _ = tokio::signal::ctrl_c() => None,
    };
    view.update(&network);
    view.finish();
    let interrupted = outcome.is_none();
    let built = outcome.transpose();
    let summary = summary(&args, &network);
    print_table(&args, &network, &summary)?;
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

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Builds and posts all blocks.
async fn build(
    args: &DevnetArgs,
    chain: &DevnetConfig,
    network: &mut LocalNetwork,
    view: &View,
) -> anyhow::Result<()> {
    network.connected(GUARD * 3).await?;
    let mut gateway = DevnetGateway::new(chain, args.dialect);
    let frags = usize::from(args.frags);
    let start = Instant::now();
    for block in 0..args.blocks {
        let opened_at = start + FRAG_INTERVAL * u32::from(args.frags) * block as u32;
        if !args.fast {
            tokio::time::sleep_until(opened_at).await;
        }
        let env = gateway.open(unix_seconds());
        let number = env.number;
        send(args, network, Message::Env(env)).await?;
        for frag in 0..frags {
            // Signed while nothing waits for it, as a real gateway fills a frag as it goes.
            let message =
                tokio::task::block_in_place(|| gateway.frag(args.txs.into(), frag + 1 == frags));
            if !args.fast {
                tokio::time::sleep_until(opened_at + FRAG_INTERVAL * (frag as u32 + 1)).await;
            }
            send(args, network, Message::Frag(message)).await?;
            view.update(network);
        }
        send(args, network, Message::Seal(gateway.seal())).await?;
        view.update(network);
        if block + 1 == args.blocks {
            network.arrived(number, GUARD).await;
        }
    }
    Ok(())
}

async fn send(
    args: &DevnetArgs,
    network: &mut LocalNetwork,
    message: Message,
) -> anyhow::Result<()> {
    let block = message.block();
    network.post(message).await?;
    if args.fast {
        // A message that never arrives is reported at the end; the others go on.
        network.arrived(block, GUARD).await;
    }
    Ok(())
}

fn percentiles(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
    json!({ "p50": ms(0.5), "p99": ms(0.99) })
}

fn summary(args: &DevnetArgs, network: &LocalNetwork) -> Value {
    let n = network.nodes().len();
    let sealed: Vec<usize> = (0..n).map(|i| network.track(i, |t| t.sealed())).collect();
    let digest = network.sent_digest();
    let equal = (0..n).all(|i| network.track(i, |t| t.digest()) == digest);
    let complete = sealed.iter().all(|sealed| *sealed as u64 == args.blocks);
    let mut all = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
    let mut next = all.clone();
    let mut turbine = 0;
    for i in 0..n {
        network.track(i, |track| {
            turbine += track.latency.len();
            // Both have the same bounds.
            let _ = all.add(&track.latency);
            let _ = next.add(&track.as_next_leader);
        });
    }
    json!({
        "ok": complete && equal,
        "nodes": n,
        "blocks": args.blocks,
        "sealed": sealed,
        // Gossip and repair carry nothing yet: neither exists.
        "messages": { "turbine": turbine, "gossip": 0, "repair": 0 },
        "latency_ms": { "all": percentiles(&all), "next_leader": percentiles(&next) },
        "digest": digest,
        "digests_equal": equal,
    })
}

fn print_table(args: &DevnetArgs, network: &LocalNetwork, summary: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:>4}  {:<8}  {:>6}  {:>8}  {:>8}  {:>8}  {:>9}  {:>7}  {:>9}  digest",
        "node", "peer", "sealed", "messages", "p50 ms", "p99 ms", "forwarded", "owed", "recovered"
    )?;
    for (i, node) in network.nodes().iter().enumerate() {
        let net = node.shared().net.snapshot();
        let ms = |histogram: &Histogram<u64>, quantile| {
            if histogram.is_empty() {
                return "-".to_owned();
            }
            format!("{:.2}", histogram.value_at_quantile(quantile) as f64 / 1_000.0)
        };
        network.track(i, |track| {
            writeln!(
                out,
                "{i:>4}  {:<8?}  {:>6}  {:>8}  {:>8}  {:>8}  {:>9}  {:>7}  {:>9}  {:.8}…",
                node.shared().peer,
                track.sealed(),
                track.messages,
                ms(&track.latency, 0.5),
                ms(&track.latency, 0.99),
                net.counters.forwarded,
                net.counters.owed,
                net.counters.recovered,
                alloy_primitives::hex::encode(track.digest()),
            )
        })?;
    }
    let sealed = summary["sealed"]
        .as_array()
        .map_or(0, |all| all.iter().filter(|n| n.as_u64() == Some(args.blocks)).count());
    let mark = if summary["ok"] == true { "ok" } else { "FAILED" };
    writeln!(
        out,
        "{mark}: {sealed} of {} nodes sealed {} blocks; digests {}; latency {}, next leader {}",
        args.nodes,
        args.blocks,
        if summary["digests_equal"] == true { "equal the gateway's" } else { "DIFFER" },
        summary["latency_ms"]["all"],
        summary["latency_ms"]["next_leader"],
    )?;
    Ok(())
}

/// One line a node while it runs; nothing where standard error is no terminal.
struct View {
    bars: Vec<ProgressBar>,
}

impl View {
    fn new(args: &DevnetArgs) -> Self {
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template(
            "node {prefix:>3} [{bar:24.cyan}] {pos:>4}/{len} sealed  {msg}",
        )
        .expect("a valid template")
        .progress_chars("=> ");
        let bars = (0..args.nodes)
            .map(|i| {
                let bar = ProgressBar::new(args.blocks).with_style(style.clone());
                all.add(bar).with_prefix(i.to_string())
            })
            .collect();
        Self { bars }
    }

    fn update(&self, network: &LocalNetwork) {
        for (i, bar) in self.bars.iter().enumerate() {
            if bar.is_hidden() {
                return;
            }
            let net = network.nodes()[i].shared().net.snapshot();
            network.track(i, |track| {
                bar.set_position(track.sealed() as u64);
                bar.set_message(format!(
                    "{} messages, p50 {:.1} ms, {} forwarded, {} peers",
                    track.messages,
                    track.latency.value_at_quantile(0.5) as f64 / 1_000.0,
                    net.counters.forwarded,
                    net.connected,
                ));
            });
        }
    }

    fn finish(&self) {
        self.bars.iter().for_each(ProgressBar::finish_and_clear);
    }
}
