//! Checks of a transaction before it is sent, with geth's texts.

use std::time::Duration;

use alloy_consensus::{EthereumTxEnvelope, Transaction, TxEip4844Variant};
use alloy_eips::eip2718::{Decodable2718, Encodable2718};
use alloy_evm::FromRecoveredTx;
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{B256, Bytes, KECCAK256_EMPTY, U256};
use jsonrpsee::types::ErrorObjectOwned;
use op_alloy_consensus::OpTxEnvelope;
use revm::context::TxEnv;
use revm::context_interface::cfg::gas::calculate_initial_tx_gas_for_tx;
use revm::primitives::hardfork::SpecId;

use fragcast_execution::chain::{BlockEnv, ChainSpec};
use fragcast_execution::exec::tx::TxError;
use fragcast_execution::exec::{Envelope, Tx};
use fragcast_execution::executor::ChainView;
use fragcast_execution::state::SourceError;

/// The most gas of one transaction (EIP-7825).
const MAX_TX_GAS: u64 = 1 << 24;
/// The longest init code (EIP-3860).
const MAX_INIT_CODE: usize = 49_152;
const BLOB_TX: u8 = 3;

/// Why a transaction is not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It can never be valid on this chain, or is not now; geth's text.
    #[error("{0}")]
    Invalid(String),
    /// It was forwarded already.
    #[error("already known")]
    AlreadyKnown,
    /// Its sender has too many forwarded transactions.
    #[error("account limit exceeded: {0} transactions of this sender are on their way")]
    SenderFull(usize),
    /// A limit of this server was reached.
    #[error("too many requests; try again later")]
    Busy,
    /// No gateway could be reached.
    #[error("no gateway could be reached; try again later")]
    Nobody,
    /// No gateway is known by address.
    #[error(
        "no gateway's address is known here: add it to [gateway_urls] of the network file, or set \
         client.url"
    )]
    NoAddress,
    /// No chain is followed yet.
    #[error("this node knows no block yet; try again later")]
    NotReady,
    /// The sender's state could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A transaction before it is missing.
    #[error("nonce gap: next nonce {expected}, tx nonce {nonce}")]
    NonceGap {
        /// The next nonce.
        expected: u64,
        /// The transaction's.
        nonce: u64,
    },
    /// It was sent, but not executed in time.
    #[error("the transaction was forwarded but not executed within {timeout:?}")]
    TimedOut {
        /// Its hash.
        hash: B256,
        /// The time waited.
        timeout: Duration,
    },
}

impl From<SendError> for ErrorObjectOwned {
    fn from(error: SendError) -> Self {
        let message = error.to_string();
        match error {
            SendError::TimedOut { hash, .. } => Self::owned(4, message, Some(hash)),
            SendError::NotReady => Self::owned::<()>(5, message, None),
            SendError::NonceGap { expected, .. } => {
                Self::owned(6, message, Some(format!("{expected:#x}")))
            }
            SendError::Busy => Self::owned::<()>(-32005, message, None),
            _ => Self::owned::<()>(-32000, message, None),
        }
    }
}

/// A transaction that may be sent.
pub(super) struct Checked {
    pub(super) tx: Tx,
    /// The sender's nonce in the pending state.
    pub(super) state_nonce: u64,
}

fn invalid<R>(message: impl Into<String>) -> Result<R, SendError> {
    Err(SendError::Invalid(message.into()))
}

/// A transaction as blocks hold it. When it is sent, blobs come beside it; the gateway checks them.
pub(super) fn without_blobs(raw: &Bytes, spec: &ChainSpec) -> Result<Bytes, SendError> {
    if raw.first() != Some(&BLOB_TX) {
        return Ok(raw.clone());
    }
    if spec.is_op() {
        return invalid("transaction type not supported");
    }
    let sent = EthereumTxEnvelope::<TxEip4844Variant>::decode_2718_exact(raw)
        .map_err(|error| SendError::Invalid(TxError::Decode(error.to_string()).to_string()))?;
    let EthereumTxEnvelope::Eip4844(signed) = &sent else {
        return invalid("transaction type not supported");
    };
    if matches!(signed.tx(), TxEip4844Variant::TxEip4844(_)) {
        return invalid("missing sidecar in blob transaction");
    }
    let bare = signed.clone().map(|tx| match tx {
        TxEip4844Variant::TxEip4844(tx) => tx,
        TxEip4844Variant::TxEip4844WithSidecar(tx) => tx.tx,
    });
    Ok(bare.encoded_2718().into())
}

/// Checks a transaction by itself and against the pending state.
pub(super) fn check(
    raw: &Bytes,
    spec: &ChainSpec,
    view: &ChainView,
    (max_bytes, max_blob_bytes): (usize, usize),
) -> Result<Checked, SendError> {
    let blobs = raw.first() == Some(&BLOB_TX) && !spec.is_op();
    if raw.len() > if blobs { max_blob_bytes } else { max_bytes } {
        return invalid(format!("oversized data: transaction size {}", raw.len()));
    }
    let bytes = without_blobs(raw, spec)?;
    if bytes.len() > max_bytes {
        return invalid(format!("oversized data: transaction size {}", bytes.len()));
    }
    let tx = Tx::decode(&bytes, spec.is_op()).map_err(|e| SendError::Invalid(e.to_string()))?;
    let (chain_id, fields) = match &tx.envelope {
        Envelope::Op(OpTxEnvelope::Deposit(_) | OpTxEnvelope::PostExec(_)) => {
            return invalid("transaction type not supported");
        }
        Envelope::Eth(e) => (e.chain_id(), Fields::of(e)),
        Envelope::Op(e) => (e.chain_id(), Fields::of(e)),
    };
    match chain_id {
        None => return invalid("only replay-protected (EIP-155) transactions allowed over RPC"),
        Some(id) if id != spec.chain_id => {
            return invalid(format!(
                "invalid chain id for signer: have {id} want {}",
                spec.chain_id
            ));
        }
        Some(_) => {}
    }
    let heads = view.heads().ok_or(SendError::NotReady)?;
    let pending = heads.pending();
    let header = &pending.header;
    if fields.tip > fields.max_fee {
        return invalid("max priority fee per gas higher than max fee per gas");
    }
    if fields.gas > header.gas_limit {
        return invalid("exceeds block gas limit");
    }
    if !spec.is_op()
        && spec.is_osaka_active_at_timestamp(header.timestamp)
        && fields.gas > MAX_TX_GAS
    {
        return invalid(format!(
            "transaction gas limit too high (cap: {MAX_TX_GAS}, tx: {})",
            fields.gas
        ));
    }
    if tx.envelope.kind().is_create() && tx.envelope.input().len() > MAX_INIT_CODE {
        return invalid("max initcode size exceeded");
    }
    intrinsic_gas(&tx, spec, pending)?;

    let account = pending.state.account(tx.sender)?;
    let (state_nonce, balance) = account.map_or((0, U256::ZERO), |a| (a.nonce, a.balance));
    if let Some(account) = account
        && account.code_hash != KECCAK256_EMPTY
        && !pending.state.code(account.code_hash)?.is_eip7702()
    {
        return invalid("sender not an eoa");
    }
    let nonce = tx.envelope.nonce();
    if nonce < state_nonce {
        return invalid(format!("nonce too low: next nonce {state_nonce}, tx nonce {nonce}"));
    }
    let cost = fields.cost(tx.envelope.value());
    if balance < cost {
        return invalid(format!(
            "insufficient funds for gas * price + value: balance {balance}, tx cost {cost}, \
             overshot {}",
            cost - balance
        ));
    }
    Ok(Checked { tx, state_nonce })
}

/// The fee fields of a transaction.
struct Fields {
    gas: u64,
    max_fee: u128,
    tip: u128,
    blob_gas: u64,
    max_blob_fee: u128,
}

impl Fields {
    fn of(tx: &impl Transaction) -> Self {
        Self {
            gas: tx.gas_limit(),
            max_fee: tx.max_fee_per_gas(),
            tip: tx.max_priority_fee_per_gas().unwrap_or(0),
            blob_gas: tx.blob_gas_used().unwrap_or(0),
            max_blob_fee: tx.max_fee_per_blob_gas().unwrap_or(0),
        }
    }

    fn cost(&self, value: U256) -> U256 {
        // 64 by 128 bits do not overflow.
        let fee = U256::from(self.gas) * U256::from(self.max_fee);
        let blobs = U256::from(self.blob_gas) * U256::from(self.max_blob_fee);
        fee.saturating_add(blobs).saturating_add(value)
    }
}

fn intrinsic_gas(
    tx: &Tx,
    spec: &ChainSpec,
    pending: &fragcast_execution::exec::Snapshot,
) -> Result<(), SendError> {
    let fork: SpecId = match spec.block_env(&pending.header) {
        BlockEnv::Eth(env) => env.cfg_env.spec,
        BlockEnv::Op(env) => env.cfg_env.spec.into_eth_spec(),
    };
    let env = match &tx.envelope {
        Envelope::Eth(envelope) => TxEnv::from_recovered_tx(envelope, tx.sender),
        Envelope::Op(envelope) => alloy_op_evm::OpTx::from_recovered_tx(envelope, tx.sender).0.base,
    };
    let (have, gas) = (tx.envelope.gas_limit(), calculate_initial_tx_gas_for_tx(&env, fork));
    if have < gas.initial_total_gas {
        let want = gas.initial_total_gas;
        return invalid(format!("intrinsic gas too low: gas {have}, minimum needed {want}"));
    }
    if fork.is_enabled_in(SpecId::PRAGUE) && have < gas.floor_gas {
        let want = gas.floor_gas;
        return invalid(format!(
            "insufficient gas for floor data gas cost: gas {have}, minimum needed {want}"
        ));
    }
    Ok(())
}
