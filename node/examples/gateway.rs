//! A gateway: signs Env, Frags and Seal of its blocks and posts them to the leader's node, as
//! `GATEWAY.md` describes. It executes nothing: transactions and results are placeholders.
//!
//! ```sh
//! cargo run --release -p fragcast --example gateway    # starts a network of two nodes to post to
//! cargo run --release -p fragcast --example gateway -- --url http://127.0.0.1:9310 --key gateway.key
//! ```

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use alloy_primitives::{hex, keccak256};
use anyhow::{Context, bail};
use clap::Parser;
use fragcast::gateway::keys;
use fragcast::lab::local::{LocalNetwork, LocalOptions};
use fragcast_shredder::messages::json::MessageJson;
use fragcast_shredder::{BlockBuilder, GatewayKey, Message, Seal};
use fragcast_upstream::http::HttpClient;
use serde_json::{Value, json};

/// Builds blocks and posts them to a Fragcast node.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// `ingest.listen` of the node, such as http://127.0.0.1:9310. Default: a network of two
    /// nodes in this process.
    #[arg(long, requires = "key")]
    url: Option<String>,
    /// File with the gateway's secret key, made by `fragcast keygen --kind gateway`.
    #[arg(long, requires = "url")]
    key: Option<PathBuf>,
    /// Number of the first block.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Blocks to build.
    #[arg(long, default_value_t = 3)]
    blocks: u64,
}

struct Gateway {
    url: String,
    key: GatewayKey,
    /// Requests of the open block, kept until its Seal is answered.
    block: Vec<Value>,
}

impl Gateway {
    /// Signs and posts the next message of the open block. If an answer is lost, or the node
    /// does not know the block since it was restarted, posts the block again from its Env on.
    async fn send(
        &mut self,
        message: impl Into<Message>,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let signed = self.key.sign_verified(message);
        let method = match signed.message() {
            Message::Env(_) => "based_env",
            Message::Frag(_) => "based_newFrag",
            Message::Seal(_) => "based_sealFrag",
        };
        let signature = hex::encode_prefixed(signed.signature().as_bytes());
        let param =
            json!({ "signature": signature, "message": MessageJson::from(signed.message()) });
        let id = self.block.len() + 1;
        self.block.push(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": [param] }));
        if self.post(id - 1, out).await? {
            return Ok(());
        }
        for _ in 0..10 {
            if self.post(0, out).await? {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        bail!("the node does not take the block, again from its Env on either")
    }

    /// Posts the open block from `first` on, one message after the other; `false` if it is to be
    /// posted again.
    async fn post(&self, first: usize, out: &mut impl Write) -> anyhow::Result<bool> {
        // A time-out counts as a lost answer.
        let http = HttpClient::default();
        for request in &self.block[first..] {
            let method = &request["method"];
            let answer = match http.post_json(&self.url, None, serde_json::to_vec(request)?).await {
                Ok((_, answer)) => serde_json::from_slice::<Value>(&answer)?,
                Err(error) => {
                    writeln!(out, "{method}: {error}")?;
                    return Ok(false);
                }
            };
            writeln!(out, "{method}: {answer}")?;
            match answer["error"]["code"].as_i64() {
                None => {}
                Some(-32002) => return Ok(false),
                Some(_) => bail!("{method} was refused: {}", answer["error"]["message"]),
            }
        }
        Ok(true)
    }

    /// Builds and posts a block of three frags.
    async fn build(&mut self, number: u64, out: &mut impl Write) -> anyhow::Result<()> {
        self.block.clear();
        // A real gateway has the Env from the parent block: `BlockBuilder::from_env(env)`.
        let mut block = BlockBuilder::new(number);
        self.send(block.env(), out).await?;
        let tx = |index: u64| keccak256((number << 8 | index).to_be_bytes()).to_vec();
        self.send(block.frag([tx(0), tx(1)]), out).await?;
        self.send(block.frag([tx(2)]), out).await?;
        self.send(block.last_frag([tx(3), tx(4)]), out).await?;
        // A real gateway has these from executing the block.
        let (gas_used, block_hash) = (5 * 21_000, keccak256(number.to_be_bytes()));
        self.send(Seal { gas_used, block_hash, ..block.seal() }, out).await
    }
}

pub(crate) async fn run(args: Args, out: &mut impl Write) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (url, key, network) = match (args.url, args.key) {
        (Some(url), Some(key)) => (url, keys::read_gateway(&key)?, None),
        _ => {
            // Node 0 leads for the gateway whose key is beside it; node 1 receives.
            let network = LocalNetwork::start(&LocalOptions::new(dir.path()), None).await?;
            network.connected(Duration::from_secs(60)).await?;
            let url = format!("http://{}", network.nodes()[0].addresses().ingest);
            (url, keys::read_gateway(&dir.path().join("gateway-0.key"))?, Some(network))
        }
    };
    let mut gateway = Gateway { url, key, block: Vec::new() };
    for number in args.first..args.first + args.blocks {
        writeln!(out, "block {number}")?;
        gateway.build(number, out).await.with_context(|| format!("block {number}"))?;
    }
    if let Some(network) = network {
        network.stop().await;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(Args::parse(), &mut std::io::stdout()).await
}
