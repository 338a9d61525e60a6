//! Checks of a transaction before it is sent, with geth's texts.

use std::time::Duration;

use alloy_consensus::{EthereumTxEnvelope, TxEip4844Variant};
use alloy_eips::eip2718::{Decodable2718, Encodable2718};
use alloy_eips::eip4844::kzg_to_versioned_hash;
use alloy_eips::eip7594::BlobTransactionSidecarVariant;
use alloy_primitives::{B256, Bytes};
use jsonrpsee::types::ErrorObjectOwned;

use fragcast_execution::chain::ChainSpec;
use fragcast_execution::exec::Tx;
use fragcast_execution::exec::admission::{Fees, NotAdmitted, admit, lowest_base_fee};
use fragcast_execution::exec::tx::TxError;
use fragcast_execution::executor::{ChainView, Heads};
use fragcast_execution::state::SourceError;

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
    /// A condition of it does not hold.
    #[error("transaction rejected: {0}")]
    Condition(String),
    /// Its conditions cannot be read.
    #[error("invalid params: {0}")]
    Params(String),
    /// It has more than may be.
    #[error("{0}")]
    Limit(String),
    /// It had been sent, and cannot be executed any more.
    #[error("the transaction was dropped: {0}")]
    Dropped(String),
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

impl From<NotAdmitted> for SendError {
    fn from(error: NotAdmitted) -> Self {
        match error {
            NotAdmitted::Invalid(_, text) => Self::Invalid(text),
            NotAdmitted::Source(error) => Self::Source(error),
        }
    }
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
            SendError::Busy | SendError::Limit(_) => Self::owned::<()>(-32005, message, None),
            SendError::Condition(_) => Self::owned::<()>(-32003, message, None),
            SendError::Params(_) => Self::owned::<()>(-32602, message, None),
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
    if let TxEip4844Variant::TxEip4844WithSidecar(tx) = signed.tx() {
        check_blobs(&tx.tx.blob_versioned_hashes, &tx.sidecar)?;
    }
    let bare = signed.clone().map(|tx| match tx {
        TxEip4844Variant::TxEip4844(tx) => tx,
        TxEip4844Variant::TxEip4844WithSidecar(tx) => tx.tx,
    });
    Ok(bare.encoded_2718().into())
}

/// Whether the blobs beside a transaction are those that it names. Their proofs are the gateway's to
/// verify, which takes milliseconds.
fn check_blobs(hashes: &[B256], sidecar: &BlobTransactionSidecarVariant) -> Result<(), SendError> {
    let (blobs, commitments) = match sidecar {
        BlobTransactionSidecarVariant::Eip4844(sidecar) => {
            if sidecar.proofs.len() != sidecar.blobs.len() {
                return invalid("invalid number of blob proofs: one for each blob is needed");
            }
            (sidecar.blobs.len(), &sidecar.commitments)
        }
        BlobTransactionSidecarVariant::Eip7594(sidecar) => {
            (sidecar.blobs.len(), &sidecar.commitments)
        }
    };
    if blobs != hashes.len() || commitments.len() != hashes.len() {
        return invalid(format!(
            "invalid number of {blobs} blobs and {} blob commitments compared to {} blob hashes",
            commitments.len(),
            hashes.len()
        ));
    }
    for (index, (hash, commitment)) in hashes.iter().zip(commitments).enumerate() {
        let computed = kzg_to_versioned_hash(commitment.as_slice());
        if computed != *hash {
            return invalid(format!(
                "blob {index}: computed hash {computed} mismatches transaction one {hash}"
            ));
        }
    }
    Ok(())
}

/// What a transaction's fees must reach: the lowest base fee that a block can have as long as the
/// transaction is remembered. Blocks follow one another as the pending one follows the latest.
pub(super) fn lowest(spec: &ChainSpec, heads: &Heads, remembered: Duration) -> Fees {
    let (pending, latest) = (&heads.pending().header, &heads.latest.snapshot.header);
    let interval = pending.timestamp.saturating_sub(latest.timestamp);
    Fees::Lowest(lowest_base_fee(spec, pending, remembered.as_secs(), interval))
}

/// Whether there are transactions of this type (EIP-2718) that can be sent. Deposits cannot: they come
/// from L1.
fn known_type(bytes: &[u8], spec: &ChainSpec) -> Result<(), SendError> {
    match bytes {
        // A list: without a type.
        [0x80..=0xff, ..] => Ok(()),
        [] | [_] => invalid("typed transaction too short"),
        [1 | 2 | 4, ..] => Ok(()),
        [BLOB_TX, ..] if !spec.is_op() => Ok(()),
        _ => invalid("transaction type not supported"),
    }
}

/// Limits of a transaction.
#[derive(Clone, Copy)]
pub(super) struct TxLimits {
    /// Its bytes.
    pub(super) bytes: usize,
    /// With its blobs.
    pub(super) with_blobs: usize,
    /// How long it is remembered.
    pub(super) remembered: Duration,
}

/// Checks a transaction by itself and against the pending state, as the executor of a gateway does.
pub(super) fn check(
    raw: &Bytes,
    spec: &ChainSpec,
    view: &ChainView,
    limits: TxLimits,
) -> Result<Checked, SendError> {
    let blobs = raw.first() == Some(&BLOB_TX) && !spec.is_op();
    let too_long = |length: usize, most: usize| {
        invalid(format!("oversized data: transaction size {length}, limit {most}"))
    };
    let most = if blobs { limits.with_blobs } else { limits.bytes };
    if raw.len() > most {
        return too_long(raw.len(), most);
    }
    let bytes = without_blobs(raw, spec)?;
    if bytes.len() > limits.bytes {
        return too_long(bytes.len(), limits.bytes);
    }
    known_type(&bytes, spec)?;
    let tx = Tx::decode(&bytes, spec.is_op()).map_err(|e| SendError::Invalid(e.to_string()))?;
    match tx.envelope.chain_id() {
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
    let fees = lowest(spec, &heads, limits.remembered);
    let state_nonce = admit(spec, heads.pending(), &tx, fees)?;
    Ok(Checked { tx, state_nonce })
}
