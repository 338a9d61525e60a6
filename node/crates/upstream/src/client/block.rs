//! Requests for blocks, state and code. Every answer is checked against a hash.

use alloy_consensus::Header;
use alloy_consensus::proofs::{calculate_withdrawals_root, ordered_trie_root_encoded};
use alloy_eips::eip2718::Encodable2718;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rlp::Decodable;
use alloy_rpc_types_eth::{EIP1186AccountProofResponse, Header as RpcHeader};
use fragcast_execution::exec::tx::EthTx;
use fragcast_execution::follow::{ClientBlock, ClientHeads};
use op_alloy_consensus::OpTxEnvelope;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::rpc::{Answer, Client, ClientError};

/// The most transactions of a block: fewer fit into 2 Ggas.
const MAX_TXS: usize = 100_000;
/// The most withdrawals of a block; EIP-4895 allows 16.
const MAX_WITHDRAWALS: usize = 1024;

#[derive(Deserialize)]
struct JsonBlock<T> {
    transactions: Vec<T>,
    #[serde(default)]
    withdrawals: Option<Vec<Withdrawal>>,
}

/// A block as JSON: the header beside the body. Flattening one into the other would make serde
/// keep the whole of it in between.
struct Full<T> {
    header: Header,
    body: JsonBlock<T>,
}

fn corrupt(what: impl Into<String>) -> ClientError {
    ClientError::Corrupt(what.into())
}

fn same(what: &str, got: B256, must: B256) -> Result<(), ClientError> {
    if got == must {
        return Ok(());
    }
    Err(corrupt(format!("{what} {got} where {must} was asked for")))
}

/// The block parameter of EIP-1898.
fn at(block: B256) -> Value {
    json!({ "blockHash": block, "requireCanonical": false })
}

fn quantity(number: u64) -> String {
    format!("{number:#x}")
}

/// A header and its hash, which must be the one that the client says.
fn hashed(said: RpcHeader) -> Result<(Header, B256), ClientError> {
    let (header, hash) = (said.inner, said.hash);
    let has = header.hash_slow();
    if has == hash {
        return Ok((header, hash));
    }
    Err(corrupt(format!(
        "the header of block {} hashes to {has}, not to {hash}; if a new fork has come, update \
         fragcast",
        header.number
    )))
}

impl Client {
    /// The chain id (EIP-155).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn chain_id(&self) -> Result<u64, ClientError> {
        let id: Option<U256> = self.call("eth_chainId", [(); 0]).await?;
        let id = id.and_then(|id| u64::try_from(id).ok());
        id.ok_or_else(|| corrupt("no chain id"))
    }

    /// Its latest, safe and finalized blocks.
    ///
    /// # Errors
    /// [`ClientError`]. A missing safe or finalized block is no error.
    pub async fn heads(&self) -> Result<ClientHeads, ClientError> {
        let calls =
            ["latest", "safe", "finalized"].map(|tag| ("eth_getBlockByNumber", (tag, false)));
        let mut answers = self.batch(&calls, |_| 1).await?.into_iter();
        let mut next = || answers.next().unwrap_or(Ok(None));
        let place = |header| hashed(header).map(|(header, hash)| (header.number, hash));
        let latest = next()?.ok_or_else(|| corrupt("no latest block"))?;
        let latest = place(latest)?;
        // A client that has none says so in several ways.
        let mut other = || next().ok().flatten().map(place).transpose();
        Ok(ClientHeads { latest, safe: other()?, finalized: other()? })
    }

    /// The header with this hash.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn header(&self, hash: B256) -> Result<Option<Header>, ClientError> {
        let header = self.call("eth_getBlockByHash", (hash, false)).await?;
        let Some((header, got)) = header.map(hashed).transpose()? else { return Ok(None) };
        same("the header of block", got, hash)?;
        Ok(Some(header))
    }

    /// Headers by number with their hashes, from `from` downwards, at most `count`. The caller
    /// checks which chain they belong to.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(super) async fn headers_down(
        &self,
        from: u64,
        count: u64,
    ) -> Result<Vec<(Header, B256)>, ClientError> {
        let numbers = (from.saturating_sub(count.saturating_sub(1))..=from).rev();
        let calls: Vec<_> =
            numbers.map(|n| ("eth_getBlockByNumber", (quantity(n), false))).collect();
        let answers: Vec<Answer<RpcHeader>> = self.batch(&calls, |_| 1).await?;
        let mut headers = Vec::with_capacity(answers.len());
        for answer in answers {
            let Some(header) = answer? else { break };
            headers.push(hashed(header)?);
        }
        Ok(headers)
    }

    /// The block with this hash.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn block(&self, hash: B256) -> Result<Option<ClientBlock>, ClientError> {
        if let Some(block) = self.raw_block(&hash.to_string()).await? {
            same("block", block.hash, hash)?;
            return Ok(Some(block));
        }
        let Some(block) = self.json_block("eth_getBlockByHash", hash.to_string()).await? else {
            return Ok(None);
        };
        same("block", block.hash, hash)?;
        Ok(Some(block))
    }

    /// The canonical block with this number.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn block_by_number(&self, number: u64) -> Result<Option<ClientBlock>, ClientError> {
        let header = self.headers_down(number, 1).await?.pop();
        let Some((header, hash)) = header else { return Ok(None) };
        if header.number != number {
            return Err(corrupt(format!("block {} where {number} was asked for", header.number)));
        }
        self.block(hash).await
    }

    /// A block by `debug_getRawBlock`, which supports every type of transaction and is half as long
    /// as JSON. `None` also if the client does not offer the method.
    async fn raw_block(&self, id: &str) -> Result<Option<ClientBlock>, ClientError> {
        if !self.has_raw_blocks() {
            return Ok(None);
        }
        match self.call::<Bytes>("debug_getRawBlock", [id]).await {
            Ok(Some(raw)) => Ok(Some(self.decode_block(&raw)?)),
            Ok(None) => Ok(None),
            Err(error @ ClientError::Refused { .. }) => {
                if error.is_no_such_method() {
                    self.note_no_raw_blocks();
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn decode_block(&self, raw: &[u8]) -> Result<ClientBlock, ClientError> {
        let (header, txs, withdrawals) =
            decode_rlp(raw).map_err(|e| corrupt(format!("a block that does not decode: {e}")))?;
        self.checked(header, txs, withdrawals)
    }

    async fn json_block(
        &self,
        method: &str,
        id: String,
    ) -> Result<Option<ClientBlock>, ClientError> {
        if self.config().op {
            self.json_block_of::<OpTxEnvelope>(method, id).await
        } else {
            self.json_block_of::<EthTx>(method, id).await
        }
    }

    async fn json_block_of<T: DeserializeOwned + Encodable2718>(
        &self,
        method: &str,
        id: String,
    ) -> Result<Option<ClientBlock>, ClientError> {
        let Some(text) = self.call::<Box<serde_json::value::RawValue>>(method, (id, true)).await?
        else {
            return Ok(None);
        };
        let Full { header, body } = full::<T>(text.get())
            .map_err(|e| corrupt(format!("a block that does not decode: {e}")))?;
        drop(text);
        let txs = body.transactions.iter().map(|tx| tx.encoded_2718().into()).collect();
        self.checked(header, txs, body.withdrawals).map(Some)
    }

    fn checked(
        &self,
        header: Header,
        txs: Vec<Bytes>,
        withdrawals: Option<Vec<Withdrawal>>,
    ) -> Result<ClientBlock, ClientError> {
        let root = ordered_trie_root_encoded(&txs);
        same("transactions with the root", root, header.transactions_root)?;
        let withdrawals = if self.config().op {
            // From Isthmus the root in the header is that of a contract's storage.
            if withdrawals.is_some_and(|w| !w.is_empty()) {
                return Err(corrupt("withdrawals in a block of an OP chain"));
            }
            None
        } else {
            match header.withdrawals_root {
                None => None,
                Some(must) => {
                    let withdrawals = withdrawals.unwrap_or_default();
                    let root = calculate_withdrawals_root(&withdrawals);
                    same("withdrawals with the root", root, must)?;
                    Some(withdrawals)
                }
            }
        };
        let hash = header.hash_slow();
        Ok(ClientBlock { header, hash, txs, withdrawals })
    }

    /// Proofs of accounts and slots at a block, unchecked; one answer for each of `keys`.
    ///
    /// # Errors
    /// [`ClientError`] if a whole request failed.
    pub(super) async fn proofs(
        &self,
        keys: &[(Address, Vec<U256>)],
        block: B256,
    ) -> Result<Vec<Answer<EIP1186AccountProofResponse>>, ClientError> {
        let calls: Vec<_> = keys
            .iter()
            .map(|(address, slots)| {
                let slots: Vec<B256> = slots.iter().map(|slot| B256::from(*slot)).collect();
                ("eth_getProof", (*address, slots, at(block)))
            })
            .collect();
        self.batch(&calls, |(_, slots, _)| 1 + slots.len()).await
    }

    /// The proof of an account and of slots of its storage at a block, unchecked.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn proof(
        &self,
        address: Address,
        slots: Vec<U256>,
        block: B256,
    ) -> Result<EIP1186AccountProofResponse, ClientError> {
        let answer = self.proofs(&[(address, slots)], block).await?.pop();
        answer.unwrap_or(Ok(None))?.ok_or_else(|| corrupt("no proof"))
    }

    /// The code of an account at a block, which must have the hash `hash`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn code(
        &self,
        address: Address,
        block: B256,
        hash: B256,
    ) -> Result<Bytes, ClientError> {
        let code: Option<Bytes> = self.call("eth_getCode", (address, at(block))).await?;
        let code = code.ok_or_else(|| corrupt("no code"))?;
        same("code with the hash", keccak256(&code), hash)?;
        Ok(code)
    }
}

fn full<T: DeserializeOwned>(text: &str) -> serde_json::Result<Full<T>> {
    Ok(Full { header: serde_json::from_str(text)?, body: serde_json::from_str(text)? })
}

type Parts = (Header, Vec<Bytes>, Option<Vec<Withdrawal>>);

/// Takes a list's payload off the front.
fn list<'a>(from: &mut &'a [u8]) -> alloy_rlp::Result<&'a [u8]> {
    alloy_rlp::Header::decode_bytes(from, true)
}

/// Decodes `[header, transactions, ommers, withdrawals?]`. Transactions are kept as bytes, so one
/// of a type that this build does not know is no obstacle.
fn decode_rlp(mut raw: &[u8]) -> alloy_rlp::Result<Parts> {
    let mut block = list(&mut raw)?;
    if !raw.is_empty() {
        return Err(alloy_rlp::Error::UnexpectedLength);
    }
    let header = Header::decode(&mut block)?;
    let mut items = list(&mut block)?;
    let mut txs = Vec::new();
    while let Some(first) = items.first() {
        let whole = items;
        let payload = if *first >= 0xc0 {
            list(&mut items)?;
            &whole[..whole.len() - items.len()]
        } else {
            alloy_rlp::Header::decode_bytes(&mut items, false)?
        };
        if txs.len() == MAX_TXS {
            return Err(alloy_rlp::Error::Custom("too many transactions"));
        }
        txs.push(Bytes::copy_from_slice(payload));
    }
    list(&mut block)?;
    if block.is_empty() {
        return Ok((header, txs, None));
    }
    let mut items = list(&mut block)?;
    let mut withdrawals = Vec::new();
    while !items.is_empty() {
        if withdrawals.len() == MAX_WITHDRAWALS {
            return Err(alloy_rlp::Error::Custom("too many withdrawals"));
        }
        withdrawals.push(Withdrawal::decode(&mut items)?);
    }
    Ok((header, txs, Some(withdrawals)))
}

#[cfg(test)]
mod tests;
