//! Whether a transaction can be included: what a block's executor checks before it runs one, asked by
//! those who pass transactions on.
//!
//! The checks *are* the executor's: the first steps of revm's (or op-revm's) handler, on the same
//! database and in the same block environment, up to the point where something would run. So what is
//! refused here no gateway with these rules could include, and what is taken is not refused there for
//! a reason that could be known here. There are two differences, because a transaction is for a block
//! that is still to come. A nonce may be ahead of the account's. And fees need to reach only the lowest
//! that the chain may ask within some time ([`lowest_base_fee`]), if [`Fees::Lowest`] says so.

use alloy_consensus::Header;
use alloy_evm::eth::EthEvmFactory;
use alloy_evm::{EvmFactory, FromRecoveredTx, FromTxWithEncoded};
use alloy_op_evm::{OpEvmFactory, OpTx};
use alloy_primitives::{Address, U256};
use op_revm::OpTransactionError;
use op_revm::handler::OpHandler;
use revm::context::{ContextSetters, TxEnv};
use revm::context_interface::result::{EVMError, InvalidTransaction};
use revm::handler::{EthFrame, Handler, MainnetHandler};

use super::overlay::OverlayDb;
use super::snapshot::Snapshot;
use super::tx::{Envelope, Tx};
use crate::chain::{BlockEnv, ChainSpec};
use crate::state::SourceError;

/// The lowest price of blob gas (EIP-4844).
const MIN_BLOB_PRICE: u128 = 1;
/// Blocks after which a base fee is not followed further down.
const MOST_BLOCKS: u64 = 128;

/// What a transaction's fees must reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fees {
    /// What the block asks.
    OfBlock,
    /// This base fee, and the lowest price of blob gas.
    Lowest(u64),
}

/// The kind of a reason; the label in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::VariantArray, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// Its nonce has passed, or can never come.
    Nonce,
    /// Its fees are too low.
    Fees,
    /// Its sender cannot pay for it.
    Funds,
    /// Its gas limit is below what it needs, or above what it may be.
    Gas,
    /// Its type is not of this chain, or not yet.
    Type,
    /// Anything else about it.
    Form,
}

/// Why a transaction cannot be included.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// Never, or not before something else happens; geth's text.
    #[error("{1}")]
    Invalid(Why, String),
    /// The state could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Checks a transaction for the block of `snapshot`, or, if that is sealed, for the next one. Returns
/// the nonce of its sender there, which the transaction's may be above.
///
/// # Errors
/// [`NotAdmitted`].
pub fn admit(
    spec: &ChainSpec,
    snapshot: &Snapshot,
    tx: &Tx,
    fees: Fees,
) -> Result<u64, NotAdmitted> {
    let header = building(spec, snapshot);
    let db = || OverlayDb::new(snapshot.state.clone(), snapshot.hashes.clone());
    let lowest = |price: &mut Option<revm::context_interface::block::BlobExcessGasAndPrice>| {
        if let Some(price) = price {
            price.blob_gasprice = MIN_BLOB_PRICE;
        }
    };
    let nonce = tx.envelope.nonce();
    let state_nonce = snapshot.state.account(tx.sender)?.map_or(0, |account| account.nonce);
    if nonce < state_nonce {
        let error = InvalidTransaction::NonceTooLow { tx: nonce, state: state_nonce };
        return Err(refused(&error, tx, &header));
    }
    let checked = match (spec.block_env(&header), &tx.envelope) {
        (BlockEnv::Eth(mut env), Envelope::Eth(envelope)) => {
            env.cfg_env.disable_nonce_check = true;
            if let Fees::Lowest(fee) = fees {
                env.block_env.basefee = fee;
                lowest(&mut env.block_env.blob_excess_gas_and_price);
            }
            let mut evm = EthEvmFactory::default().create_evm(db(), env).into_inner();
            evm.ctx.set_tx(TxEnv::from_recovered_tx(envelope, tx.sender));
            let handler = MainnetHandler::<_, EVMError<SourceError>, EthFrame<_>>::default();
            let checked = handler.validate(&mut evm).and_then(|mut gas| {
                handler.validate_against_state_and_deduct_caller(&mut evm, &mut gas)
            });
            checked.map_err(|error| match error {
                EVMError::Transaction(error) => refused(&error, tx, &header),
                other => failed(other, form),
            })
        }
        (BlockEnv::Op(mut env), Envelope::Op(envelope)) if !tx.envelope.is_deposit() => {
            env.cfg_env.disable_nonce_check = true;
            if let Fees::Lowest(fee) = fees {
                env.block_env.basefee = fee;
            }
            let factory = OpEvmFactory::<OpTx>::default();
            let mut evm = factory.create_evm(db(), env).into_inner();
            let encoded = OpTx::from_encoded_tx(envelope, tx.sender, tx.bytes.clone());
            evm.0.ctx.set_tx(encoded);
            type Error = EVMError<SourceError, OpTransactionError>;
            let handler = OpHandler::<_, Error, EthFrame<_>>::new();
            let checked = handler.validate(&mut evm).and_then(|mut gas| {
                handler.validate_against_state_and_deduct_caller(&mut evm, &mut gas)
            });
            checked.map_err(|error| match error {
                EVMError::Transaction(OpTransactionError::Base(error)) => {
                    refused(&error, tx, &header)
                }
                other => failed(other, form),
            })
        }
        _ => return Err(NotAdmitted::Invalid(Why::Type, "transaction type not supported".into())),
    };
    checked.map(|()| state_nonce)
}

/// The header of the block that a transaction would be in.
fn building(spec: &ChainSpec, snapshot: &Snapshot) -> Header {
    let mut header = snapshot.header.clone();
    if snapshot.is_sealed() {
        let time = header.timestamp.saturating_add(1);
        header.base_fee_per_gas =
            spec.next_base_fee(&header, time).ok().or(header.base_fee_per_gas);
        header.excess_blob_gas = spec.next_excess_blob_gas(&header, time);
        (header.number, header.timestamp) = (header.number.saturating_add(1), time);
    }
    header
}

/// The lowest base fee that a block within the next `seconds` can have: that after as many empty
/// blocks as there can be, one every `interval` seconds.
pub fn lowest_base_fee(spec: &ChainSpec, header: &Header, seconds: u64, interval: u64) -> u64 {
    let mut header = header.clone();
    let interval = interval.max(1);
    let mut lowest = header.base_fee_per_gas.unwrap_or(0);
    header.gas_used = 0;
    header.blob_gas_used = header.blob_gas_used.map(|_| 0);
    for _ in 0..(seconds / interval).min(MOST_BLOCKS) {
        let time = header.timestamp.saturating_add(interval);
        let Ok(next) = spec.next_base_fee(&header, time) else { break };
        if next >= lowest {
            break;
        }
        lowest = next;
        (header.base_fee_per_gas, header.timestamp) = (Some(next), time);
    }
    lowest
}

/// By how much a transaction must offer more than one with the same nonce that it replaces, in
/// percent, as in geth; one with blobs, or instead of one with blobs, twice as much.
const BUMP: u128 = 10;
const BLOB_BUMP: u128 = 100;

/// Checks whether `new` may replace `old`, which has the same sender and nonce: all its fees must be
/// higher by a tenth.
///
/// # Errors
/// What it would have to offer.
pub fn replaces(new: &Tx, old: &Tx) -> Result<(), NotAdmitted> {
    let blobs = old.envelope.ty() == BLOB_TX || new.envelope.ty() == BLOB_TX;
    let bump = 100 + if blobs { BLOB_BUMP } else { BUMP };
    // As geth computes it: rounded down, but more than the old one.
    let least = |fee: u128| match fee {
        0 => 0,
        fee => (fee.saturating_mul(bump) / 100).max(fee.saturating_add(1)),
    };
    let fees = |tx: &Tx| (tx.envelope.max_fee(), tx.envelope.max_tip(), tx.envelope.max_blob_fee());
    let ((fee, tip, blob), (old_fee, old_tip, old_blob)) = (fees(new), fees(old));
    if fee >= least(old_fee) && tip >= least(old_tip) && blob >= least(old_blob) {
        return Ok(());
    }
    let text = format!(
        "replacement transaction underpriced: {} is on its way with this nonce; offer at least \
         maxFeePerGas {} and maxPriorityFeePerGas {}",
        old.hash,
        least(old_fee),
        least(old_tip),
    );
    Err(NotAdmitted::Invalid(Why::Fees, text))
}

const BLOB_TX: u8 = 3;

fn failed<T>(error: EVMError<SourceError, T>, other: impl Fn(String) -> NotAdmitted) -> NotAdmitted
where
    EVMError<SourceError, T>: std::fmt::Display,
{
    match error {
        EVMError::Database(error) => NotAdmitted::Source(error),
        error => other(error.to_string()),
    }
}

fn form(text: String) -> NotAdmitted {
    NotAdmitted::Invalid(Why::Form, text)
}

/// A reason with geth's text, which libraries look for.
fn refused(error: &InvalidTransaction, tx: &Tx, header: &Header) -> NotAdmitted {
    use InvalidTransaction as T;
    let (sender, envelope): (Address, _) = (tx.sender, &tx.envelope);
    let early = |ty: u8, fork: &str| {
        let text = format!(
            "transaction type not supported: type {ty} rejected, the fork {fork} is not active yet"
        );
        (Why::Type, text)
    };
    let base_fee = header.base_fee_per_gas.unwrap_or(0);
    let (why, text) = match error {
        T::NonceTooLow { tx, state } => {
            (Why::Nonce, format!("nonce too low: next nonce {state}, tx nonce {tx}"))
        }
        T::NonceOverflowInTransaction => {
            (Why::Nonce, format!("nonce has max value: address {sender}, nonce: {}", u64::MAX))
        }
        T::GasPriceLessThanBasefee => {
            let text = format!(
                "max fee per gas less than block base fee: address {sender}, maxFeePerGas: {}, \
                 baseFee: {base_fee}",
                envelope.max_fee(),
            );
            (Why::Fees, text)
        }
        T::PriorityFeeGreaterThanMaxFee => {
            let text = format!(
                "max priority fee per gas higher than max fee per gas: address {sender}, \
                 maxPriorityFeePerGas: {}, maxFeePerGas: {}",
                envelope.max_tip(),
                envelope.max_fee(),
            );
            (Why::Fees, text)
        }
        T::BlobGasPriceGreaterThanMax { block_blob_gas_price, tx_max_fee_per_blob_gas } => {
            let text = format!(
                "max fee per blob gas less than block blob gas fee: address {sender} \
                 blobGasFeeCap: {tx_max_fee_per_blob_gas}, blobBaseFee: {block_blob_gas_price}"
            );
            (Why::Fees, text)
        }
        T::LackOfFundForMaxFee { fee, balance } => {
            let text = format!(
                "insufficient funds for gas * price + value: balance {balance}, tx cost {fee}, \
                 overshot {}",
                fee.saturating_sub(**balance),
            );
            (Why::Funds, text)
        }
        T::OverflowPaymentInTransaction => {
            let text = "insufficient funds for gas * price + value: the cost is above 2^256";
            (Why::Funds, text.to_owned())
        }
        T::CallGasCostMoreThanGasLimit { initial_gas, gas_limit } => {
            let text =
                format!("intrinsic gas too low: gas {gas_limit}, minimum needed {initial_gas}");
            (Why::Gas, text)
        }
        T::GasFloorMoreThanGasLimit { gas_floor, gas_limit } => {
            let text = format!(
                "insufficient gas for floor data gas cost: gas {gas_limit}, minimum needed \
                 {gas_floor}"
            );
            (Why::Gas, text)
        }
        T::CallerGasLimitMoreThanBlock => {
            let text = format!(
                "exceeds block gas limit: tx gas limit {}, block gas limit {}",
                envelope.gas_limit(),
                header.gas_limit,
            );
            (Why::Gas, text)
        }
        T::TxGasLimitGreaterThanCap { gas_limit, cap } => {
            (Why::Gas, format!("transaction gas limit too high (cap: {cap}, tx: {gas_limit})"))
        }
        T::Eip2930NotSupported => early(1, "Berlin"),
        T::Eip1559NotSupported => early(2, "London"),
        T::Eip4844NotSupported => early(3, "Cancun"),
        T::Eip7702NotSupported => early(4, "Prague"),
        T::RejectCallerWithCode => (Why::Form, format!("sender not an eoa: address {sender}")),
        T::CreateInitCodeSizeLimit => {
            (Why::Form, format!("max initcode size exceeded: code size {}", envelope.input().len()))
        }
        T::InvalidChainId => (Why::Form, "invalid chain id for signer".to_owned()),
        T::EmptyAuthorizationList => {
            let text = "set code tx must have at least one authorization tuple";
            (Why::Form, text.to_owned())
        }
        T::EmptyBlobs => (Why::Form, "blobless blob transaction".to_owned()),
        T::TooManyBlobs { max, have } => {
            (Why::Form, format!("too many blobs in transaction: have {have}, permitted {max}"))
        }
        T::BlobVersionNotSupported => {
            (Why::Form, "a blob has an invalid hash version: it must be 0x01".to_owned())
        }
        other => (Why::Form, other.to_string()),
    };
    NotAdmitted::Invalid(why, text)
}

/// The most that a transaction may cost its sender, wei, without what OP chains take for L1.
pub fn cost(tx: &Tx) -> U256 {
    // 64 by 128 bits do not overflow.
    let gas = U256::from(tx.envelope.gas_limit()) * U256::from(tx.envelope.max_fee());
    let blobs = U256::from(tx.envelope.blob_gas_used()) * U256::from(tx.envelope.max_blob_fee());
    gas.saturating_add(blobs).saturating_add(tx.envelope.value())
}

#[cfg(test)]
mod tests;
