//! Receipts of both kinds of chain in one form.

use alloy_consensus::{Eip658Value, TxReceipt};
use alloy_primitives::{Bloom, Bytes, Log};
use alloy_rlp::{BufMut, Encodable, Header as RlpHeader};

/// Fields that only a deposit's receipt has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DepositFields {
    /// The depositor's nonce before it (Regolith).
    pub nonce: Option<u64>,
    /// 1 from Canyon on.
    pub version: Option<u64>,
}

/// A receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// EIP-2718 type of its transaction.
    pub ty: u8,
    /// Whether the transaction succeeded (EIP-658).
    pub success: bool,
    /// Gas used by the block up to and with this transaction.
    pub cumulative_gas_used: u64,
    /// Its logs.
    pub logs: Vec<Log>,
    /// Bloom filter over the logs.
    pub bloom: Bloom,
    /// A deposit's fields.
    pub deposit: Option<DepositFields>,
}

impl Receipt {
    /// A receipt; computes the bloom.
    pub fn new(ty: u8, success: bool, cumulative_gas_used: u64, logs: Vec<Log>) -> Self {
        let bloom = alloy_primitives::logs_bloom(&logs);
        Self { ty, success, cumulative_gas_used, logs, bloom, deposit: None }
    }

    /// A deposit's fields as they are hashed into the receipts root: before Canyon, which added the
    /// version, the nonce is left out (op-geth).
    fn hashed(&self) -> DepositFields {
        self.deposit.filter(|deposit| deposit.version.is_some()).unwrap_or_default()
    }

    fn fields_len(&self) -> usize {
        let optional = |field: Option<u64>| field.map_or(0, |value| value.length());
        let deposit = self.hashed();
        self.success.length()
            + self.cumulative_gas_used.length()
            + self.bloom.length()
            + self.logs.length()
            + optional(deposit.nonce)
            + optional(deposit.version)
    }

    /// The bytes of the receipts trie: RLP behind the type (EIP-2718).
    pub fn encoded_2718(&self) -> Bytes {
        let payload_length = self.fields_len();
        let mut out = Vec::with_capacity(payload_length + 8);
        if self.ty != 0 {
            out.put_u8(self.ty);
        }
        RlpHeader { list: true, payload_length }.encode(&mut out);
        self.success.encode(&mut out);
        self.cumulative_gas_used.encode(&mut out);
        self.bloom.encode(&mut out);
        self.logs.encode(&mut out);
        let deposit = self.hashed();
        for field in [deposit.nonce, deposit.version].into_iter().flatten() {
            field.encode(&mut out);
        }
        out.into()
    }
}

impl TxReceipt for Receipt {
    type Log = Log;

    fn status_or_post_state(&self) -> Eip658Value {
        Eip658Value::Eip658(self.success)
    }

    fn status(&self) -> bool {
        self.success
    }

    fn bloom(&self) -> Bloom {
        self.bloom
    }

    fn cumulative_gas_used(&self) -> u64 {
        self.cumulative_gas_used
    }

    fn logs(&self) -> &[Log] {
        &self.logs
    }

    fn into_logs(self) -> Vec<Log> {
        self.logs
    }
}
