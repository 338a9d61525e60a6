//! The outcome of an execution, on either kind of chain.

use alloy_evm::InvalidTxError;
use alloy_primitives::{Bytes, Log};
use fragcast_execution::state::SourceError;
use revm::context_interface::result::{EVMError, ExecutionResult, HaltReason, ResultAndState};
use revm::state::EvmState;

use super::error::{CallError, SERVER_ERROR, halt, invalid, number};

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Status {
    Success,
    Reverted,
    /// geth's text, and whether more gas might have helped.
    Halted(String, bool),
}

/// The outcome of an execution.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) status: Status,
    pub(super) output: Bytes,
    pub(super) gas_used: u64,
    /// The most gas that was used at a time, before refunds: the least gas limit that would have
    /// done.
    pub(super) gas_spent: u64,
    pub(super) logs: Vec<Log>,
    pub(super) state: EvmState,
}

impl Outcome {
    /// The returned bytes.
    pub(super) fn into_output(self) -> Result<Bytes, CallError> {
        match self.status {
            Status::Success => Ok(self.output),
            Status::Reverted => Err(CallError::Reverted(self.output)),
            Status::Halted(message, _) => Err(CallError::Halted(message)),
        }
    }
}

/// A transaction that no block could have.
#[derive(Debug, Clone)]
pub(super) struct Invalid {
    /// The specification's code in a simulation.
    pub(super) code: i32,
    /// geth's text.
    pub(super) text: String,
    /// The gas that it had.
    pub(super) gas: u64,
    /// A higher gas limit might have helped.
    pub(super) gas_too_low: bool,
}

impl Invalid {
    /// The text with the gas, as geth has it for calls.
    pub(super) fn told(&self) -> String {
        format!("err: {} (supplied gas {})", self.text, self.gas)
    }
}

/// Why there was no execution.
#[derive(Debug)]
pub(super) enum Failure {
    /// The transaction is invalid.
    Invalid(Invalid),
    /// Anything else.
    Other(CallError),
}

impl Failure {
    /// Whether a higher gas limit might have helped.
    pub(super) const fn is_gas_too_low(&self) -> bool {
        matches!(self, Self::Invalid(Invalid { gas_too_low: true, .. }))
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Invalid(invalid) => Self::Invalid(invalid.told()),
            Failure::Other(error) => error,
        }
    }
}

/// Makes an outcome from the EVM's result; `base` gives Ethereum's reason for a halt.
pub(super) fn outcome<H, T: InvalidTxError>(
    result: Result<ResultAndState<H>, EVMError<SourceError, T>>,
    gas: u64,
    base: impl Fn(&H) -> Option<&HaltReason>,
) -> Result<Outcome, Failure> {
    let ResultAndState { result, state } = match result {
        Ok(done) => done,
        Err(EVMError::Transaction(error)) => {
            let known = error.as_invalid_tx_err();
            let text = known.map_or_else(|| error.to_string(), invalid);
            let gas_too_low = known.is_some_and(InvalidTxError::is_gas_limit_too_low);
            let code = known.map_or(SERVER_ERROR, number);
            return Err(Failure::Invalid(Invalid { code, text, gas, gas_too_low }));
        }
        Err(EVMError::Database(error)) => return Err(Failure::Other(error.into())),
        Err(error) => {
            let message = match error {
                EVMError::Header(error) => error.to_string(),
                EVMError::Custom(error) => error,
                _ => "the EVM failed".to_owned(),
            };
            return Err(Failure::Other(CallError::Invalid(message)));
        }
    };
    let (status, gas, logs, output) = match result {
        ExecutionResult::Success { gas, logs, output, .. } => {
            (Status::Success, gas, logs, output.into_data())
        }
        ExecutionResult::Revert { gas, logs, output } => (Status::Reverted, gas, logs, output),
        ExecutionResult::Halt { reason, gas, logs } => {
            let reason = base(&reason);
            let more_gas = matches!(reason, Some(HaltReason::OutOfGas(_)));
            let message = reason.map_or_else(|| "failed deposit".to_owned(), halt);
            (Status::Halted(message, more_gas), gas, logs, Bytes::new())
        }
    };
    Ok(Outcome {
        status,
        output,
        gas_used: gas.tx_gas_used(),
        // The floor (EIP-7623) counts as used.
        gas_spent: gas.total_gas_spent().max(gas.tx_gas_used()),
        logs,
        state,
    })
}
