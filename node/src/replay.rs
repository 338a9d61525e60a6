//! `fragcast replay`: recorded blocks, cut into frags, through real nodes.
//!
//! Until nodes execute, the best verdict is `delivered`: every node handed on the very messages
//! that the gateway signed, in order, every signature verified. It counts as passed, and
//! `computed_hash` is null.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use alloy_primitives::B256;
use anyhow::{Context, bail};
use fragcast_shredder::{
    CodeRate, Dialect, GatewayKey, HashedShred, LossTarget, Message, MessageKey, MessageParams,
    Push, Reassembler, Shred, Shredder, SignedMessage, Validator,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::local::{LocalNetwork, LocalOptions, digest};
use crate::workload::RecordedBlock;

/// How long a message may take before its block has failed.
const GUARD: Duration = Duration::from_secs(20);

/// Arguments of `fragcast replay`.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplayArgs {
    /// Recorded blocks, `.json` or `.json.gz`.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Nodes in all.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=200))]
    pub nodes: u16,
    /// Share of shreds that every sender throws away, 0 to 0.3.
    #[arg(long, default_value_t = 0.0, value_parser = crate::cli::loss)]
    pub loss: f64,
    /// Transactions of a frag.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub txs_per_frag: u16,
    /// `v0` or `v0-blob`.
    #[arg(long, default_value_t)]
    pub dialect: Dialect,
    /// Route of the leader: auto, direct, turbine or rotor.
    #[arg(long, default_value = "turbine")]
    pub route: String,
    /// Without a network: shred, lose, reassemble and verify only.
    #[arg(long)]
    pub offline: bool,
    /// Seed of the losses.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Writes a JSON report.
    #[arg(long)]
    pub report: Option<PathBuf>,
}

struct Outcome {
    source: String,
    number: u64,
    expected: B256,
    verdict: &'static str,
    reason: Option<String>,
}

impl Outcome {
    fn to_json(&self) -> Value {
        json!({
            "source": self.source,
            "number": self.number,
            "expected_hash": self.expected,
            "computed_hash": null,
            "verdict": self.verdict,
            "reason": self.reason,
        })
    }
}

/// Runs it; the exit code.
///
/// # Errors
/// What could not be read, set up or written.
pub async fn run(args: ReplayArgs) -> anyhow::Result<i32> {
    let mut blocks = Vec::new();
    for path in &args.files {
        let block = RecordedBlock::load(path)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        blocks.push((name, block));
    }
    blocks.sort_by_key(|(_, block)| block.number);
    let chain_id = blocks[0].1.chain_id;
    if let Some((name, other)) = blocks.iter().find(|(_, block)| block.chain_id != chain_id) {
        bail!("{name} is of chain {}, others are of {chain_id}: replay them apart", other.chain_id);
    }
    if let Some(pair) = blocks.windows(2).find(|pair| pair[0].1.number == pair[1].1.number) {
        bail!("{} and {} are the same block: replay them apart", pair[0].0, pair[1].0);
    }
    let bar = ProgressBar::new(blocks.len() as u64).with_style(
        ProgressStyle::with_template("[{bar:30.cyan}] {pos}/{len} blocks  {msg}")
            .expect("a valid template"),
    );
    let (outcomes, digests) = if args.offline {
        offline(&args, &blocks, &bar)?
    } else {
        online(&args, chain_id, &blocks, &bar).await?
    };
    bar.finish_and_clear();

    let passed = outcomes.iter().filter(|o| o.verdict == "delivered").count();
    let failed = outcomes.len() - passed;
    print_table(&outcomes, &digests)?;
    let report = json!({
        "passed": passed,
        "failed": failed,
        "skipped": 0,
        "blocks": outcomes.iter().map(Outcome::to_json).collect::<Vec<_>>(),
        "digests": digests,
    });
    if let Some(path) = &args.report {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let equal = digests["equal"] == true;
    Ok(i32::from(failed > 0 || !equal))
}

fn print_table(outcomes: &[Outcome], digests: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for o in outcomes {
        let reason = o.reason.as_deref().unwrap_or("");
        writeln!(out, "{:>12}  {:<10}  {}  {reason}", o.number, o.verdict, o.source)?;
    }
    let equal = if digests["equal"] == true { "equal" } else { "NOT EQUAL" };
    let passed = outcomes.iter().filter(|o| o.verdict == "delivered").count();
    writeln!(
        out,
        "{passed} of {} delivered; digest {} on every node: {equal}",
        outcomes.len(),
        digests["gateway"].as_str().unwrap_or("-"),
    )?;
    Ok(())
}

async fn online(
    args: &ReplayArgs,
    chain_id: u64,
    blocks: &[(String, RecordedBlock)],
    bar: &ProgressBar,
) -> anyhow::Result<(Vec<Outcome>, Value)> {
    let dir = tempfile::tempdir()?;
    let options = LocalOptions {
        nodes: args.nodes.into(),
        gateways: 1,
        blocks_per_term: 30,
        chain_id,
        dialect: args.dialect,
        loss: args.loss,
        uplink_mbit: 200,
        route: args.route.clone(),
        dir: dir.path().to_owned(),
        seed: args.seed,
    };
    let mut network = LocalNetwork::start(&options, None).await?;
    network.connected(GUARD * 3).await?;
    let mut outcomes = Vec::new();
    let mut head = None;
    for (source, block) in blocks {
        bar.set_message(block.number.to_string());
        if head.is_none_or(|head| head + 1 != block.number) {
            // As an execution client would say it, where blocks are not consecutive.
            network.set_head(block.number.saturating_sub(1)).await;
        }
        head = Some(block.number);
        let mut outcome = Outcome {
            source: source.clone(),
            number: block.number,
            expected: block.expected_block_hash,
            verdict: "delivered",
            reason: None,
        };
        for message in block.messages(args.txs_per_frag.into(), args.dialect) {
            let kind = message.kind().name();
            network.post(message).await?;
            if !network.arrived(block.number, GUARD).await {
                let sent = network.sent(block.number);
                let missing: Vec<String> = (0..network.nodes().len())
                    .filter(|i| !network.track(*i, |t| t.has(block.number, sent)))
                    .map(|i| i.to_string())
                    .collect();
                outcome.verdict = "missing";
                let at = sent.len() - 1;
                let nodes = missing.join(", ");
                outcome.reason = Some(format!("{kind}, message {at}, is missing on node {nodes}"));
                break;
            }
        }
        outcomes.push(outcome);
        bar.inc(1);
    }
    let gateway = network.sent_digest();
    let nodes: Vec<B256> =
        (0..network.nodes().len()).map(|i| network.track(i, |t| t.digest())).collect();
    let equal = nodes.iter().all(|node| *node == gateway);
    network.stop().await;
    Ok((outcomes, json!({ "gateway": gateway, "nodes": nodes, "equal": equal })))
}

/// Shreds, loses, reassembles and verifies without a network.
fn offline(
    args: &ReplayArgs,
    blocks: &[(String, RecordedBlock)],
    bar: &ProgressBar,
) -> anyhow::Result<(Vec<Outcome>, Value)> {
    let gateway = GatewayKey::from_bytes(*crate::keys::random_secret())?;
    let leader = ed25519_dalek::SigningKey::from_bytes(&crate::keys::random_secret());
    let chain_id = blocks[0].1.chain_id;
    let mut pipe = Pipe {
        shredder: Shredder::new(chain_id, leader.clone()),
        key: leader.verifying_key(),
        validator: Validator::new(chain_id, Validator::DEFAULT_CAPACITY),
        reassembler: Reassembler::new(fragcast_shredder::Limits::default()),
        stream: blake3::Hasher::new().update(&args.seed.to_le_bytes()).finalize_xof(),
        loss: args.loss,
    };
    let (mut outcomes, mut sent, mut received) = (Vec::new(), Vec::new(), Vec::new());
    for (source, block) in blocks {
        let mut outcome = Outcome {
            source: source.clone(),
            number: block.number,
            expected: block.expected_block_hash,
            verdict: "delivered",
            reason: None,
        };
        for message in block.messages(args.txs_per_frag.into(), args.dialect) {
            let signed = gateway.sign(message);
            sent.push(signed.root());
            match pipe.pass(&signed, args.dialect) {
                Ok(message) => {
                    let root = message.verify(gateway.address())?.root();
                    received.push(root);
                }
                Err(reason) => {
                    outcome.verdict = "missing";
                    outcome.reason = Some(reason.to_string());
                }
            }
        }
        outcomes.push(outcome);
        bar.inc(1);
    }
    let (gateway, node) = (digest(sent.iter()), digest(received.iter()));
    Ok((outcomes, json!({ "gateway": gateway, "nodes": [node], "equal": gateway == node })))
}

struct Pipe {
    shredder: Shredder,
    key: ed25519_dalek::VerifyingKey,
    validator: Validator,
    reassembler: Reassembler,
    stream: blake3::OutputReader,
    loss: f64,
}

impl Pipe {
    fn lost(&mut self) -> bool {
        let mut bytes = [0; 4];
        self.stream.fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) < self.loss * f64::from(u32::MAX)
    }

    fn pass(&mut self, signed: &SignedMessage, dialect: Dialect) -> anyhow::Result<SignedMessage> {
        let message: &Message = &signed.message;
        let kind = message.kind();
        let index = message.index().context("more frags than can be numbered")?;
        let params = MessageParams {
            key: MessageKey { block: message.block(), attempt: 0, message: index },
            kind,
            plan: 0,
            route: 0,
            route_param: 0,
            sent_at: 0,
        };
        let wire = signed.to_wire();
        let target = LossTarget::over_hops(self.loss.max(0.02), 1, 0.0);
        let cut = self.shredder.shred(&wire, &params, CodeRate::new(wire.len(), target))?;
        let mut whole = None;
        for (set, index) in cut.in_sending_order() {
            if self.lost() {
                continue;
            }
            let shred = Shred::parse(set.shreds[usize::from(index)].clone())?;
            let valid = self.validator.validate(HashedShred::new(shred), &self.key)?;
            if let Push::Complete { message: Some(message), .. } = self.reassembler.push(&valid)? {
                whole = Some(message);
            }
        }
        while let Some(check) = self.reassembler.check_next() {
            check.map_err(|key| anyhow::anyhow!("inconsistent parity in {key:?}"))?;
        }
        let whole = whole.context("too many shreds were lost")?;
        Ok(SignedMessage::from_wire(kind, dialect, &whole.wire.into())?)
    }
}
