//! Recorded blocks through a whole network of real nodes, which hand messages on.
//!
//! Nodes do not execute here: the best verdict is `delivered`, every node handed on the very
//! messages that the gateway signed, in order, every signature verified. It counts as passed, and
//! `computed_hash` is null.

use std::time::Duration;

use alloy_primitives::B256;
use anyhow::bail;
use indicatif::ProgressBar;
use serde_json::json;

use super::ReplayArgs;
use super::content::{Content, open};
use super::report::{Outcome, Report, Row};
use crate::local::{LocalNetwork, LocalOptions};
use crate::workload::RecordedBlock;
use crate::workload::input;

/// How long a message may take before its block has failed.
const GUARD: Duration = Duration::from_secs(20);

/// The recorded blocks of all paths, by number, all of one chain.
fn blocks(args: &ReplayArgs) -> anyhow::Result<Vec<(String, RecordedBlock)>> {
    let mut blocks = Vec::new();
    let mut other = None;
    for path in &args.files {
        let mut failed = None;
        input::read(path, &mut |document| {
            let source = document.source.clone();
            match open(document) {
                Ok(Content::Block(block)) => blocks.push((source, *block)),
                Ok(Content::Tests(_)) => other = Some(source),
                Ok(Content::Damaged(row)) => {
                    failed = Some(anyhow::anyhow!(row.reason.unwrap_or(source)));
                }
                Ok(Content::Other(_)) => {}
                Err(error) => failed = Some(error),
            }
            failed.is_none() && other.is_none()
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    if let Some(source) = other {
        bail!("{source} holds ethereum/tests, which nodes do not execute: add --offline");
    }
    blocks.sort_by_key(|(_, block)| block.number);
    let Some((_, first)) = blocks.first() else {
        bail!("no recorded blocks were given");
    };
    let chain_id = first.chain_id;
    if let Some((name, other)) = blocks.iter().find(|(_, block)| block.chain_id != chain_id) {
        bail!("{name} is of chain {}, others are of {chain_id}: replay them apart", other.chain_id);
    }
    if let Some(pair) = blocks.windows(2).find(|pair| pair[0].1.number == pair[1].1.number) {
        bail!("{} and {} are the same block: replay them apart", pair[0].0, pair[1].0);
    }
    Ok(blocks)
}

/// Replays through a network.
///
/// # Errors
/// What could not be read or set up.
pub async fn run(args: &ReplayArgs, bar: &ProgressBar) -> anyhow::Result<Report> {
    let blocks = blocks(args)?;
    let chain_id = blocks[0].1.chain_id;
    bar.set_length(blocks.len() as u64);
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
    let mut rows = Vec::new();
    let mut head = None;
    for (source, block) in &blocks {
        bar.set_message(block.number.to_string());
        if head.is_none_or(|head| head + 1 != block.number) {
            // As an execution client would say it, where blocks are not consecutive.
            network.set_head(block.number.saturating_sub(1)).await;
        }
        head = Some(block.number);
        let mut row = Row::new(source, &format!("chain {chain_id}"));
        row.number = Some(block.number);
        row.expected_hash = Some(block.expected_block_hash);
        (row.verdict, row.outcome) = ("delivered", Outcome::Passed);
        for message in block.messages(args.txs_per_frag.into(), args.dialect) {
            let kind = message.kind().name();
            network.post(message).await?;
            if !network.arrived(block.number, GUARD).await {
                let sent = network.sent(block.number);
                let missing: Vec<String> = (0..network.nodes().len())
                    .filter(|i| !network.track(*i, |t| t.has(block.number, sent)))
                    .map(|i| i.to_string())
                    .collect();
                (row.verdict, row.outcome) = ("missing", Outcome::Failed);
                let at = sent.len() - 1;
                let nodes = missing.join(", ");
                row.reason = Some(format!("{kind}, message {at}, is missing on node {nodes}"));
                break;
            }
        }
        rows.push(row);
        bar.inc(1);
    }
    let gateway = network.sent_digest();
    let nodes: Vec<B256> =
        (0..network.nodes().len()).map(|i| network.track(i, |t| t.digest())).collect();
    let equal = nodes.iter().all(|node| *node == gateway);
    network.stop().await;
    let digests = json!({ "gateway": gateway, "nodes": nodes, "equal": equal });
    Ok(Report { rows, digests, ..Report::default() })
}
