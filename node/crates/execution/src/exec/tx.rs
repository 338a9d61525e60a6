//! Transactions: EIP-2718 bytes, decoded, with their sender.

use alloy_consensus::transaction::SignerRecoverable;
use alloy_consensus::{EthereumTxEnvelope, Transaction, TxEip4844, Typed2718};
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use op_alloy_consensus::OpTxEnvelope;

/// A transaction of an Ethereum chain as blocks hold it: a blob transaction has no sidecar.
pub type EthTx = EthereumTxEnvelope<TxEip4844>;

/// A transaction of either kind of chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Envelope {
    /// Of an Ethereum chain.
    Eth(EthTx),
    /// Of an OP chain.
    Op(OpTxEnvelope),
}

macro_rules! each {
    ($self:expr, $tx:ident => $do:expr) => {
        match $self {
            Envelope::Eth($tx) => $do,
            Envelope::Op($tx) => $do,
        }
    };
}

impl Envelope {
    fn decode(bytes: &Bytes, op: bool) -> Result<Self, TxError> {
        let decode = |e: alloy_eips::eip2718::Eip2718Error| TxError::Decode(e.to_string());
        Ok(if op {
            let tx = OpTxEnvelope::decode_2718_exact(bytes).map_err(decode)?;
            if matches!(tx, OpTxEnvelope::PostExec(_)) {
                // The crate knows it; no fork that is executed here does.
                return Err(TxError::Decode("unexpected type flag 125".into()));
            }
            Self::Op(tx)
        } else {
            Self::Eth(EthTx::decode_2718_exact(bytes).map_err(decode)?)
        })
    }

    /// The EIP-2718 type.
    pub fn ty(&self) -> u8 {
        each!(self, tx => tx.ty())
    }

    /// The nonce; 0 for a deposit.
    pub fn nonce(&self) -> u64 {
        each!(self, tx => tx.nonce())
    }

    /// The gas limit.
    pub fn gas_limit(&self) -> u64 {
        each!(self, tx => tx.gas_limit())
    }

    /// The address that it calls.
    pub fn kind(&self) -> TxKind {
        each!(self, tx => tx.kind())
    }

    /// The value, wei.
    pub fn value(&self) -> U256 {
        each!(self, tx => tx.value())
    }

    /// Call data or init code.
    pub fn input(&self) -> &Bytes {
        each!(self, tx => tx.input())
    }

    /// Price of a unit of gas at this base fee, wei.
    pub fn effective_gas_price(&self, base_fee: u64) -> u128 {
        each!(self, tx => tx.effective_gas_price(Some(base_fee)))
    }

    /// The most that it pays for a unit of gas, wei.
    pub fn max_fee(&self) -> u128 {
        each!(self, tx => tx.max_fee_per_gas())
    }

    /// The most of that which goes to the block's beneficiary; of old types all of it.
    pub fn max_tip(&self) -> u128 {
        each!(self, tx => tx.max_priority_fee_per_gas().unwrap_or_else(|| tx.max_fee_per_gas()))
    }

    /// The most that it pays for a unit of blob gas, wei; 0 without blobs.
    pub fn max_blob_fee(&self) -> u128 {
        each!(self, tx => tx.max_fee_per_blob_gas()).unwrap_or_default()
    }

    /// The chain that its signature is for; `None` before EIP-155, and for deposits.
    pub fn chain_id(&self) -> Option<u64> {
        each!(self, tx => tx.chain_id())
    }

    /// Blob gas it uses (EIP-4844).
    pub fn blob_gas_used(&self) -> u64 {
        each!(self, tx => tx.blob_gas_used()).unwrap_or_default()
    }

    /// Addresses and slots of its access list (EIP-2930).
    pub fn access_list(&self) -> Option<&alloy_eips::eip2930::AccessList> {
        each!(self, tx => tx.access_list())
    }

    /// Whether it is an OP deposit (type 0x7e).
    pub fn is_deposit(&self) -> bool {
        matches!(self, Self::Op(OpTxEnvelope::Deposit(_)))
    }
}

/// A transaction, decoded, with its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tx {
    /// The decoded transaction.
    pub envelope: Envelope,
    /// Its EIP-2718 bytes.
    pub bytes: Bytes,
    /// keccak256 of the bytes.
    pub hash: B256,
    /// The sender.
    pub sender: Address,
}

/// Why bytes are not a transaction of the chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// They do not decode: an unknown type, bad RLP, trailing bytes.
    #[error("it does not decode: {0}")]
    Decode(String),
    /// No sender follows from the signature.
    #[error("its signature is invalid")]
    Signature,
}

impl Tx {
    /// Decodes EIP-2718 bytes and recovers the sender, which costs about 45 µs.
    ///
    /// # Errors
    /// [`TxError`].
    pub fn decode(bytes: &Bytes, op: bool) -> Result<Self, TxError> {
        let envelope = Envelope::decode(bytes, op)?;
        let sender = each!(&envelope, tx => tx.recover_signer()).map_err(|_| TxError::Signature)?;
        Ok(Self { envelope, bytes: bytes.clone(), hash: keccak256(bytes), sender })
    }

    /// Decodes EIP-2718 bytes of a transaction that was executed before, whose sender is known.
    ///
    /// # Errors
    /// [`TxError::Decode`].
    pub fn from_parts(bytes: Bytes, sender: Address, op: bool) -> Result<Self, TxError> {
        let envelope = Envelope::decode(&bytes, op)?;
        let hash = keccak256(&bytes);
        Ok(Self { envelope, bytes, hash, sender })
    }

    /// The contract it creates, if it creates one; `nonce` is the sender's before it.
    pub fn created(&self, nonce: u64) -> Option<Address> {
        self.envelope.kind().is_create().then(|| self.sender.create(nonce))
    }
}
