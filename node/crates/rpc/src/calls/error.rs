//! Why a call has no result, with geth's texts and codes, which libraries look for.

use std::time::Duration;

use alloy_primitives::{Bytes, U256};
use jsonrpsee::types::ErrorObjectOwned;
use revm::context_interface::result::{HaltReason, InvalidTransaction};

use fragcast_execution::state::SourceError;

/// An error without a code of its own.
pub(super) const SERVER_ERROR: i32 = -32000;
/// A limit of this server was reached.
pub(super) const LIMIT_EXCEEDED: i32 = -32005;
/// A fault of this server.
pub(super) const INTERNAL: i32 = -32603;
/// The parameters are not what the method takes.
pub(super) const INVALID_PARAMS: i32 = -32602;
/// The call reverted; the error's data is what it returned.
pub(super) const REVERTED: i32 = 3;

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The parameters are not what the method takes.
    #[error("invalid params: {0}")]
    Params(String),
    /// There is nobody to send transactions to.
    #[error("this node forwards no transactions: no gateway's address is configured")]
    NoForwarder,
    /// The transaction could not be included in any block.
    #[error("{0}")]
    Invalid(String),
    /// It reverted, returning these bytes.
    #[error("execution reverted{}", reason(.0).map(|r| format!(": {r}")).unwrap_or_default())]
    Reverted(Bytes),
    /// It used up its gas, or did something that is not allowed.
    #[error("{0}")]
    Halted(String),
    /// It took too long.
    #[error("execution aborted (timeout = {0:?})")]
    TimedOut(Duration),
    /// What was asked for is longer than may be kept.
    #[error("the trace is too long: trace less at a time, or with a tracer that keeps less")]
    TooLong,
    /// Too many calls wait already.
    #[error("too many calls; try again later")]
    Busy,
    /// State could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It failed for a reason that does not concern the caller.
    #[error("internal error")]
    Internal,
    /// An error with a code of the method's own.
    #[error("{1}")]
    Coded(i32, String),
}

impl From<CallError> for ErrorObjectOwned {
    fn from(error: CallError) -> Self {
        let message = error.to_string();
        match error {
            CallError::Reverted(data) => Self::owned(REVERTED, message, Some(data)),
            CallError::Params(_) => Self::owned::<()>(INVALID_PARAMS, message, None),
            CallError::Busy | CallError::TooLong => {
                Self::owned::<()>(LIMIT_EXCEEDED, message, None)
            }
            CallError::Coded(code, _) => Self::owned::<()>(code, message, None),
            _ => Self::owned::<()>(SERVER_ERROR, message, None),
        }
    }
}

/// The reason in a revert by Solidity's conventions: `Error(string)` or `Panic(uint256)`.
pub(super) fn reason(data: &[u8]) -> Option<String> {
    let (selector, body) = data.split_at_checked(4)?;
    match *selector {
        [0x08, 0xc3, 0x79, 0xa0] => {
            let word = |at: usize| {
                let word = U256::from_be_slice(body.get(at..at.checked_add(32)?)?);
                usize::try_from(word).ok()
            };
            let at = word(0)?;
            let from = at.checked_add(32)?;
            let text = body.get(from..from.checked_add(word(at)?)?)?;
            Some(String::from_utf8_lossy(text).into_owned())
        }
        [0x4e, 0x48, 0x7b, 0x71] => {
            let code = U256::from_be_slice(body.get(..32)?);
            let text = match u64::try_from(code).ok() {
                Some(0x00) => "generic panic",
                Some(0x01) => "assert(false)",
                Some(0x11) => "arithmetic underflow or overflow",
                Some(0x12) => "division or modulo by zero",
                Some(0x21) => "enum overflow",
                Some(0x22) => "invalid encoded storage byte array accessed",
                Some(0x31) => "out-of-bounds array access; popping on an empty array",
                Some(0x32) => "out-of-bounds access of an array or bytesN",
                Some(0x41) => "out of memory",
                Some(0x51) => "uninitialized function",
                _ => return Some(format!("unknown panic code: {code:#x}")),
            };
            Some(text.to_owned())
        }
        _ => None,
    }
}

/// geth's text for how an execution ended.
pub(super) fn halt(reason: &HaltReason) -> String {
    let text = match reason {
        HaltReason::OutOfGas(_) => "out of gas",
        HaltReason::OpcodeNotFound | HaltReason::InvalidFEOpcode | HaltReason::NotActivated => {
            "invalid opcode"
        }
        HaltReason::InvalidJump => "invalid jump destination",
        HaltReason::OutOfOffset => "return data out of bounds",
        HaltReason::CreateCollision => "contract address collision",
        HaltReason::NonceOverflow => "nonce uint64 overflow",
        HaltReason::CreateContractSizeLimit => "max code size exceeded",
        HaltReason::CreateContractStartingWithEF => "invalid code: must not begin with 0xef",
        HaltReason::CreateInitCodeSizeLimit => "max initcode size exceeded",
        HaltReason::StateChangeDuringStaticCall | HaltReason::CallNotAllowedInsideStatic => {
            "write protection"
        }
        HaltReason::OutOfFunds => "insufficient balance for transfer",
        HaltReason::CallTooDeep => "max call depth exceeded",
        other => return other.to_string(),
    };
    text.to_owned()
}

/// geth's text for why a transaction is invalid.
pub(super) fn invalid(error: &InvalidTransaction) -> String {
    use InvalidTransaction as T;
    match error {
        T::NonceTooLow { tx, state } => format!("nonce too low: next nonce {state}, tx nonce {tx}"),
        T::NonceTooHigh { tx, state } => {
            format!("nonce too high: next nonce {state}, tx nonce {tx}")
        }
        T::CallGasCostMoreThanGasLimit { initial_gas, gas_limit } => {
            format!("intrinsic gas too low: have {gas_limit}, want {initial_gas}")
        }
        T::GasFloorMoreThanGasLimit { gas_floor, gas_limit } => {
            format!("insufficient gas for floor data gas cost: have {gas_limit}, want {gas_floor}")
        }
        T::GasPriceLessThanBasefee => "max fee per gas less than block base fee".into(),
        T::PriorityFeeGreaterThanMaxFee => {
            "max priority fee per gas higher than max fee per gas".into()
        }
        T::RejectCallerWithCode => "sender not an eoa".into(),
        T::CreateInitCodeSizeLimit => "max initcode size exceeded".into(),
        T::InvalidChainId => "chainId does not match node's".into(),
        T::LackOfFundForMaxFee { fee, balance } => {
            format!("insufficient funds for gas * price + value: have {balance} want {fee}")
        }
        other => other.to_string(),
    }
}

/// The specification's code for why a simulated transaction is invalid.
pub(super) const fn number(error: &InvalidTransaction) -> i32 {
    use InvalidTransaction as T;
    match error {
        T::NonceTooLow { .. } => -38010,
        T::NonceTooHigh { .. } => -38011,
        T::GasPriceLessThanBasefee => -38012,
        T::CallGasCostMoreThanGasLimit { .. } => -38013,
        T::LackOfFundForMaxFee { .. } => -38014,
        T::RejectCallerWithCode => -38024,
        T::CreateInitCodeSizeLimit => -38025,
        T::PriorityFeeGreaterThanMaxFee => INVALID_PARAMS,
        _ => INTERNAL,
    }
}
