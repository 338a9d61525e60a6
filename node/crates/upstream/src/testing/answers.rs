//! The client's answers and lies.

use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_rlp::Encodable;
use fragcast_execution::exec::{Envelope, SealedBlock};
use serde_json::{Value, json};

use super::{Lie, State};

type Failed = (i64, &'static str);
const UNKNOWN: Failed = (-32000, "header not found");

impl State {
    pub(super) fn answer(&mut self, call: &Value) -> Value {
        assert_eq!(call["jsonrpc"], "2.0");
        let (method, params) = (call["method"].as_str().unwrap(), &call["params"]);
        *self.asked.entry(method.to_owned()).or_default() += 1;
        let id = &call["id"];
        match self.result(method, params) {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err((code, message)) => {
                let error = json!({ "code": code, "message": message });
                json!({ "jsonrpc": "2.0", "id": id, "error": error })
            }
        }
    }

    fn result(&mut self, method: &str, params: &Value) -> Result<Value, Failed> {
        match method {
            "eth_chainId" => Ok(format!("{:#x}", self.chain_id).into()),
            "eth_blockNumber" => Ok(format!("{:#x}", self.chain.last().unwrap().number()).into()),
            "eth_getBlockByNumber" | "eth_getBlockByHash" => {
                let block = self.block(&params[0]);
                Ok(block.map_or(Value::Null, |block| {
                    self.json(&self.lied_about(block), params[1].as_bool().unwrap())
                }))
            }
            "debug_getRawBlock" if self.raw_blocks => {
                let block = self.block(&params[0]).ok_or(UNKNOWN)?;
                Ok(json!(self.rlp(&self.lied_about(block))))
            }
            "eth_getProof" => {
                let block = self.state_at(&params[2])?;
                let address: Address = serde_json::from_value(params[0].clone()).unwrap();
                let slots: Vec<B256> = serde_json::from_value(params[1].clone()).unwrap();
                self.proof(&block, address, &slots)
            }
            "eth_getCode" => {
                let block = self.state_at(&params[1])?;
                let address: Address = serde_json::from_value(params[0].clone()).unwrap();
                let mut code = block.snapshot.state.code_of(address).unwrap().to_vec();
                if self.lie == Some(Lie::Code) {
                    code.push(0);
                }
                Ok(json!(Bytes::from(code)))
            }
            "eth_sendRawTransaction" => {
                let raw: Bytes = serde_json::from_value(params[0].clone()).unwrap();
                let hash = keccak256(&raw);
                self.sent.push(raw);
                Ok(json!(hash))
            }
            other => self.more.get(other).cloned().ok_or((-32601, "the method does not exist")),
        }
    }

    fn numbered(&self, number: u64) -> Option<Arc<SealedBlock>> {
        let first = self.chain.first()?.number();
        self.chain.get(usize::try_from(number.checked_sub(first)?).unwrap()).cloned()
    }

    /// The block with a hash, number, tag, or EIP-1898 parameter.
    fn block(&self, id: &Value) -> Option<Arc<SealedBlock>> {
        if let Some(object) = id.as_object() {
            assert_eq!(object["requireCanonical"], false);
            return self.block(&object["blockHash"]);
        }
        match id.as_str().unwrap() {
            "latest" => self.chain.last().cloned(),
            "safe" => self.numbered(self.safe?),
            "finalized" => self.numbered(self.finalized?),
            hash if hash.len() == 66 => self.known.get(&hash.parse::<B256>().unwrap()).cloned(),
            number => self.numbered(u64::from_str_radix(&number[2..], 16).unwrap()),
        }
    }

    fn state_at(&self, id: &Value) -> Result<Arc<SealedBlock>, Failed> {
        let block = self.block(id).ok_or(UNKNOWN)?;
        let head = self.chain.last().unwrap().number();
        if self.proofs_back.is_some_and(|back| block.number() + back < head) {
            return Err((-32000, "missing trie node"));
        }
        Ok(block)
    }

    fn lied_about(&self, block: Arc<SealedBlock>) -> Arc<SealedBlock> {
        match self.lie {
            Some(Lie::OtherBlock) => Arc::clone(&self.chain[0]),
            _ => block,
        }
    }

    fn txs(&self, block: &SealedBlock) -> Vec<fragcast_execution::exec::Tx> {
        let mut txs: Vec<_> =
            block.snapshot.txs().map(|placed| placed.executed.tx.clone()).collect();
        match self.lie {
            Some(Lie::TxMissing) => drop(txs.pop()),
            Some(Lie::TxOther) if txs.len() > 1 => txs[0] = txs[1].clone(),
            _ => {}
        }
        txs
    }

    fn header(&self, block: &SealedBlock) -> alloy_consensus::Header {
        let mut header = block.snapshot.header.clone();
        if self.lie == Some(Lie::Header) {
            header.gas_used += 1;
        }
        header
    }

    fn json(&self, block: &SealedBlock, full: bool) -> Value {
        let mut header = alloy_rpc_types_eth::Header::new(self.header(block));
        header.hash = block.hash();
        let mut json = serde_json::to_value(header).unwrap();
        let txs = self.txs(block).into_iter().enumerate().map(|(index, tx)| {
            if !full {
                return json!(tx.hash);
            }
            let mut json = match &tx.envelope {
                Envelope::Eth(tx) => serde_json::to_value(tx).unwrap(),
                Envelope::Op(tx) => serde_json::to_value(tx).unwrap(),
            };
            json["blockHash"] = json!(block.hash());
            json["blockNumber"] = json!(format!("{:#x}", block.number()));
            json["transactionIndex"] = json!(format!("{index:#x}"));
            json["from"] = json!(tx.sender);
            json
        });
        json["transactions"] = txs.collect();
        json["uncles"] = json!([]);
        if let Some(withdrawals) = &block.snapshot.withdrawals {
            json["withdrawals"] = json!(**withdrawals);
        }
        json
    }

    fn rlp(&self, block: &SealedBlock) -> Bytes {
        let list = |items: &[u8]| {
            let mut out = Vec::new();
            alloy_rlp::Header { list: true, payload_length: items.len() }.encode(&mut out);
            out.extend(items);
            out
        };
        let mut txs = Vec::new();
        for tx in self.txs(block) {
            if tx.bytes[0] >= 0xc0 {
                txs.extend(tx.bytes);
            } else {
                tx.bytes.encode(&mut txs);
            }
        }
        let mut parts = alloy_rlp::encode(self.header(block));
        parts.extend(list(&txs));
        parts.extend(list(&[]));
        if let Some(withdrawals) = &block.snapshot.withdrawals {
            parts.extend(alloy_rlp::encode(&**withdrawals));
        }
        list(&parts).into()
    }

    fn proof(
        &self,
        block: &SealedBlock,
        address: Address,
        slots: &[B256],
    ) -> Result<Value, Failed> {
        let before = self.known.get(&block.snapshot.header.parent_hash);
        let block = match (self.lie, before) {
            (Some(Lie::ProofStale), Some(before)) => before,
            _ => block,
        };
        let proven = match self.lie {
            Some(Lie::ProofOther) => Address::repeat_byte(0x77),
            _ => address,
        };
        let (key, nodes) = (keccak256(proven), &*block.nodes);
        let Ok(trie) = &block.trie else { return Err((-32000, "missing trie node")) };
        let lied = |mut proof: Vec<Bytes>| {
            match self.lie {
                Some(Lie::ProofByte) => {
                    if let Some(last) = proof.pop() {
                        let mut last = last.to_vec();
                        let middle = last.len() / 2;
                        last[middle] ^= 1;
                        proof.push(last.into());
                    }
                }
                Some(Lie::ProofShort) => drop(proof.pop()),
                Some(Lie::ProofEmpty) => proof.clear(),
                Some(Lie::ProofHuge) => proof.extend(vec![Bytes::from(vec![0xc0; 2000]); 100]),
                _ => {}
            }
            proof
        };
        let account = block.snapshot.state.account(address).unwrap();
        let slot_proofs = slots.iter().map(|slot| {
            let proof = trie.proof(key, Some(keccak256(slot)), nodes).unwrap();
            let value = block.snapshot.state.storage(address, U256::from_be_bytes(slot.0));
            json!({ "key": slot, "value": value.unwrap(), "proof": lied(proof) })
        });
        Ok(json!({
            "address": address,
            "accountProof": lied(trie.proof(key, None, nodes).unwrap()),
            "balance": account.map_or(U256::ZERO, |a| a.balance),
            "nonce": format!("{:#x}", account.map_or(0, |a| a.nonce)),
            "codeHash": account.map_or(KECCAK256_EMPTY, |a| a.code_hash),
            "storageHash": trie.storage_root(key, nodes).unwrap()
                .unwrap_or(alloy_trie::EMPTY_ROOT_HASH),
            "storageProof": slot_proofs.collect::<Value>(),
        }))
    }
}
