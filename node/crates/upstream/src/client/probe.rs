//! The questions of `check-config` to a client: is it on this chain, and does it give state?

use std::fmt;

use alloy_primitives::{Address, B256};
use fragcast_execution::follow::ClientHeads;
use serde::de::IgnoredAny;

use super::rpc::{Client, ClientError};

/// How many blocks back proofs are tried.
const MAX_BACK: u64 = 8192;

/// How far back a client gives proofs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proofs {
    /// Not even of its head; the reason.
    None(String),
    /// This many blocks behind its head, found by doubling; at most 8192 were tried.
    Back(u64),
}

/// Capabilities of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// Its address.
    pub url: String,
    /// Its chain id.
    pub chain_id: u64,
    /// Its heads.
    pub heads: ClientHeads,
    /// Proofs of state.
    pub proofs: Proofs,
    /// Whether it gives blocks as RLP (`debug_getRawBlock`).
    pub raw_blocks: bool,
    /// Whether it traces (`debug_traceTransaction`).
    pub traces: bool,
    /// Whether its head could be read as a block, checked against its hash.
    pub block: Result<usize, ClientError>,
}

impl ProbeReport {
    /// What makes the client unusable for a node on the chain `chain_id`; `state`: whether its
    /// state is to be used.
    pub fn problem(&self, chain_id: u64, state: bool) -> Option<String> {
        if self.chain_id != chain_id {
            let has = self.chain_id;
            return Some(format!("its chain id is {has}, this node's is {chain_id}"));
        }
        if let Err(why) = &self.block {
            return Some(format!("its head cannot be read: {why}"));
        }
        match &self.proofs {
            Proofs::None(why) if state => Some(format!("it gives no eth_getProof: {why}")),
            _ => None,
        }
    }
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |yes| if yes { "yes" } else { "no" };
        let place = |place: Option<(u64, B256)>| match place {
            Some((number, hash)) => format!("{number} {hash}"),
            None => "none".into(),
        };
        writeln!(f, "execution client  {}", self.url)?;
        writeln!(f, "chain id          {}", self.chain_id)?;
        writeln!(f, "latest            {}", place(Some(self.heads.latest)))?;
        writeln!(f, "safe              {}", place(self.heads.safe))?;
        writeln!(f, "finalized         {}", place(self.heads.finalized))?;
        match &self.block {
            Ok(txs) => writeln!(f, "head readable     yes, {txs} transactions")?,
            Err(why) => writeln!(f, "head readable     no: {why}")?,
        }
        match &self.proofs {
            Proofs::None(why) => writeln!(f, "proofs            no: {why}")?,
            Proofs::Back(MAX_BACK..) => {
                writeln!(f, "proofs            {MAX_BACK} blocks back or more")?;
            }
            Proofs::Back(back) => writeln!(f, "proofs            {back} blocks back")?,
        }
        writeln!(f, "debug_getRawBlock {}", yes(self.raw_blocks))?;
        write!(f, "debug traces      {}", yes(self.traces))
    }
}

/// Asks a client what it can do.
///
/// # Errors
/// [`ClientError`] if it does not answer at all or has no head.
pub async fn probe(client: &Client) -> Result<ProbeReport, ClientError> {
    let chain_id = client.chain_id().await?;
    let heads = client.heads().await?;
    let block = match client.block(heads.latest.1).await {
        Ok(Some(block)) => Ok(block.txs.len()),
        Ok(None) => Err(ClientError::Corrupt("it does not give its own head by hash".into())),
        Err(error) => Err(error),
    };
    let head = heads.latest.1.to_string();
    let raw_blocks = offers(client, "debug_getRawBlock", [head]).await;
    let traces = offers(client, "debug_traceTransaction", [B256::ZERO]).await;
    let proofs = proofs(client, heads).await;
    let url = crate::http::shown(&client.config().url);
    Ok(ProbeReport { url, chain_id, heads, proofs, raw_blocks, traces, block })
}

/// Whether a method exists: every answer but "no such method" says so.
async fn offers(client: &Client, method: &str, params: impl serde::Serialize) -> bool {
    match client.call::<IgnoredAny>(method, params).await {
        Ok(_) => true,
        Err(error @ ClientError::Refused { .. }) => !error.is_no_such_method(),
        Err(_) => false,
    }
}

async fn proofs(client: &Client, heads: ClientHeads) -> Proofs {
    let head = heads.latest.0;
    if let Err(error) = proven(client, head).await {
        return Proofs::None(error.to_string());
    }
    // The distance that works and the one that does not, first by doubling, then between.
    let (mut works, mut fails) = (0, None);
    let mut next = 1;
    while next <= MAX_BACK.min(head) {
        if proven(client, head - next).await.is_err() {
            fails = Some(next);
            break;
        }
        works = next;
        next *= 2;
    }
    let mut fails = fails.unwrap_or_else(|| if next > MAX_BACK { works } else { head + 1 });
    while works + 1 < fails {
        let middle = works + (fails - works) / 2;
        if proven(client, head - middle).await.is_ok() {
            works = middle;
        } else {
            fails = middle;
        }
    }
    Proofs::Back(works)
}

/// Asks for the proof of the zero address at a block and checks where it starts.
async fn proven(client: &Client, number: u64) -> Result<(), ClientError> {
    let corrupt = |what: &str| ClientError::Corrupt(format!("block {number}: {what}"));
    let header = client.headers_down(number, 1).await?.pop();
    let (header, hash) = header.ok_or_else(|| corrupt("it does not exist"))?;
    let proof = client.proof(Address::ZERO, Vec::new(), hash).await?;
    let empty = header.state_root == alloy_trie::EMPTY_ROOT_HASH;
    match proof.account_proof.first() {
        Some(root) if alloy_primitives::keccak256(root) == header.state_root => Ok(()),
        None if empty => Ok(()),
        _ => Err(corrupt("the proof does not start at the state root")),
    }
}
