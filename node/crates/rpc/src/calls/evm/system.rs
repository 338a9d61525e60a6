//! What a block does beside its transactions: system calls, and the requests that it ends with.

use alloy_consensus::Header;
use alloy_eips::eip7685::Requests;
use alloy_evm::EvmFactory;
use alloy_evm::block::{BlockExecutionError, SystemCaller};
use alloy_evm::eth::{EthEvmFactory, eip6110};
use alloy_op_evm::{OpEvmFactory, OpTx};
use fragcast_execution::chain::{BlockEnv, ChainSpec};
use fragcast_execution::exec::Receipt;

use super::Ground;
use crate::calls::error::CallError;

impl Ground {
    /// The system calls at the beginning of a block (EIP-2935, EIP-4788).
    pub(in crate::calls) fn open_block(
        &mut self,
        spec: &ChainSpec,
        header: &Header,
    ) -> Result<(), CallError> {
        let db = &mut self.db;
        let mut caller = SystemCaller::new(spec);
        let ran = match self.env.clone() {
            BlockEnv::Eth(env) => {
                let mut evm = EthEvmFactory::default().create_evm(db, env);
                caller.apply_pre_execution_changes(header, &mut evm)
            }
            BlockEnv::Op(env) => {
                let mut evm = OpEvmFactory::<OpTx>::default().create_evm(db, env);
                caller.apply_pre_execution_changes(header, &mut evm)
            }
        };
        ran.map_err(|error| self.system_error(&error))
    }

    /// The requests at the end of a block (EIP-7685): deposits of these receipts, withdrawals,
    /// consolidations.
    pub(in crate::calls) fn requests(
        &mut self,
        spec: &ChainSpec,
        receipts: &[Receipt],
    ) -> Result<Requests, CallError> {
        let BlockEnv::Eth(env) = self.env.clone() else { return Ok(Requests::default()) };
        let mut requests = Requests::default();
        let ran = eip6110::parse_deposits_from_receipts(spec, receipts);
        let deposits = ran.map_err(|error| CallError::Invalid(error.to_string()))?;
        if !deposits.is_empty() {
            requests.push_request_with_type(eip6110::DEPOSIT_REQUEST_TYPE, deposits);
        }
        let mut evm = EthEvmFactory::default().create_evm(&mut self.db, env);
        let ran = SystemCaller::new(spec).append_post_execution_changes(&mut evm, &mut requests);
        drop(evm);
        ran.map_err(|error| self.system_error(&error))?;
        Ok(requests)
    }

    fn system_error(&self, error: &BlockExecutionError) -> CallError {
        match self.db.inner.fault.get() {
            Some(fault) => fault.clone().into(),
            None => CallError::Invalid(error.to_string()),
        }
    }
}
