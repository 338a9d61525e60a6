//! A subscriber: prints the verified messages of a node as they come and, where the node
//! executes, the headers of blocks whose Seal it has verified.
//!
//! ```sh
//! cargo run --release -p fragcast --example subscriber    # starts a devnet of three nodes
//! cargo run --release -p fragcast --example subscriber -- --url ws://127.0.0.1:8545
//! ```

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use fragcast::lab::local::{LocalNetwork, LocalOptions};
use fragcast::node::Execution;
use fragcast_execution::devnet::{DevnetConfig, DevnetGateway, Genesis};
use fragcast_execution::executor::ReportTap;
use fragcast_shredder::Dialect;
use fragcast_store::{Store, StoreConfig};
use jsonrpsee::core::client::{Error, Subscription, SubscriptionClientT};
use jsonrpsee::rpc_params;
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};
use serde_json::Value;

/// Prints what a Fragcast node hands on.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// `http.listen` of the node, such as ws://127.0.0.1:8545. Default: a devnet in this
    /// process.
    #[arg(long)]
    url: Option<String>,
    /// Ends after this many blocks.
    #[arg(long, default_value_t = 3)]
    blocks: u64,
}

/// Three nodes, each of which executes on a database of its own.
async fn devnet(config: &DevnetConfig, dir: &Path) -> anyhow::Result<LocalNetwork> {
    let spec = Arc::new(Genesis::devnet(config).chain_spec("dev")?);
    let execution = move |_: usize, dir: &Path, tap: ReportTap| {
        let store = Store::open(&dir.join("chain.redb"), &spec, StoreConfig::default())?;
        Ok(Execution { tap: Some(tap), ..Execution::on_store(Arc::clone(&spec), store) })
    };
    let options = LocalOptions { nodes: 3, chain_id: config.chain_id, ..LocalOptions::new(dir) };
    let network = LocalNetwork::start(&options, Some(&execution)).await?;
    network.connected(Duration::from_secs(60)).await?;
    Ok(network)
}

/// A gateway that posts blocks of four frags with ten transactions each to the node that leads.
async fn build(
    config: &DevnetConfig,
    network: &mut LocalNetwork,
    blocks: u64,
) -> anyhow::Result<()> {
    let mut gateway = DevnetGateway::new(config, Dialect::V0)?;
    for number in 1..=blocks {
        for message in gateway.block(config.timestamp + number, 4, 10)? {
            network.post(message).await?;
        }
    }
    Ok(())
}

/// What is subscribed to at a node; ends with the client.
struct Subscriptions {
    messages: Subscription<Value>,
    /// `None`: the node does not execute.
    heads: Option<Subscription<Value>>,
    _client: WsClient,
}

async fn subscribe(url: &str) -> anyhow::Result<Subscriptions> {
    let client = WsClientBuilder::default().build(url).await?;
    let messages =
        client.subscribe("fragcast_subscribe", rpc_params![], "fragcast_unsubscribe").await?;
    let heads = client.subscribe("eth_subscribe", rpc_params!["newHeads"], "eth_unsubscribe").await;
    let heads = match heads {
        Ok(heads) => Some(heads),
        Err(Error::Call(_)) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Subscriptions { messages, heads, _client: client })
}

/// Prints until `blocks` blocks are sealed and, where the node executes, as many verified.
async fn print(node: Subscriptions, blocks: u64, out: &mut impl Write) -> anyhow::Result<()> {
    let Subscriptions { mut messages, mut heads, _client } = node;
    let (mut sealed, mut verified) = (0, 0);
    while sealed < blocks || (heads.is_some() && verified < blocks) {
        let head = async {
            match &mut heads {
                Some(heads) => heads.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = messages.next() => {
                let message: Value = message.context("the node has closed the subscription")??;
                let (block, attempt) = (&message["block"], &message["attempt"]);
                if message["type"] == "retracted" {
                    let reason = &message["reason"];
                    writeln!(out, "block {block} attempt {attempt}: void, {reason}")?;
                    continue;
                }
                // The Env has index 0. A signature and the whole message are there, too.
                let (index, kind, root) = (&message["index"], &message["kind"], &message["root"]);
                writeln!(out, "block {block} attempt {attempt}: {index} {kind} {root}")?;
                sealed += u64::from(kind == "seal");
            }
            head = head => {
                let head = head.context("the node has closed the subscription")??;
                writeln!(out, "block {} verified: {}", head["number"], head["hash"])?;
                verified += 1;
            }
        }
    }
    Ok(())
}

pub(crate) async fn run(args: Args, out: &mut impl Write) -> anyhow::Result<()> {
    if let Some(url) = args.url {
        return print(subscribe(&url).await?, args.blocks, out).await;
    }
    let dir = tempfile::tempdir()?;
    let config = DevnetConfig::default();
    let mut network = devnet(&config, dir.path()).await?;
    // Node 0 leads; this one has everything from the network.
    let url = format!("ws://{}", network.nodes()[2].addresses().http);
    let subscriptions = subscribe(&url).await?;
    let built = build(&config, &mut network, args.blocks);
    tokio::try_join!(print(subscriptions, args.blocks, out), built)?;
    network.stop().await;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(Args::parse(), &mut std::io::stdout()).await
}
