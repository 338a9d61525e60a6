//! Ether that moves, as logs (`traceTransfers`): in the place among the other logs where it moved,
//! gone with the frame that is undone. Only the answer has them; receipts and blooms do not.

use alloy_primitives::{Address, B256, Log, LogData, U256};
use revm::Inspector;
use revm::context_interface::{ContextTr, JournalTr};
use revm::interpreter::{CallInputs, CallOutcome, CallScheme, CreateInputs, CreateOutcome};
use revm_inspectors::transfer::{TRANSFER_EVENT_TOPIC, TRANSFER_LOG_EMITTER};

use super::super::evm::Watcher;

/// Collects the logs of a transaction and those of its transfers.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    /// Of each open frame, the outermost first, and of the transaction.
    frames: Vec<Vec<Log>>,
    done: Vec<Log>,
}

impl Transfers {
    /// The logs; none if the transaction failed.
    pub(super) fn into_logs(self) -> Vec<Log> {
        self.done
    }

    fn enter(&mut self, moved: Option<(Address, Address, U256)>) {
        self.frames.push(Vec::new());
        if let Some((from, to, value)) = moved {
            self.moved(from, to, value);
        }
    }

    fn moved(&mut self, from: Address, to: Address, value: U256) {
        if value.is_zero() {
            return;
        }
        let topics = vec![TRANSFER_EVENT_TOPIC, from.into_word(), to.into_word()];
        let data = LogData::new_unchecked(topics, B256::from(value).into());
        self.take(Log { address: TRANSFER_LOG_EMITTER, data });
    }

    fn take(&mut self, log: Log) {
        if let Some(frame) = self.frames.last_mut() {
            frame.push(log);
        }
    }

    fn leave(&mut self, kept: bool) {
        let Some(logs) = self.frames.pop().filter(|_| kept) else { return };
        match self.frames.last_mut() {
            Some(frame) => frame.extend(logs),
            None => self.done.extend(logs),
        }
    }
}

impl Watcher for Transfers {}

impl<CTX: ContextTr> Inspector<CTX> for Transfers {
    fn log(&mut self, _: &mut CTX, log: Log) {
        self.take(log);
    }

    fn call(&mut self, _: &mut CTX, inputs: &mut CallInputs) -> Option<CallOutcome> {
        let moves = inputs.scheme == CallScheme::Call;
        let value = inputs.transfer_value().filter(|_| moves);
        self.enter(value.map(|value| (inputs.transfer_from(), inputs.transfer_to(), value)));
        None
    }

    fn call_end(&mut self, _: &mut CTX, _: &CallInputs, outcome: &mut CallOutcome) {
        self.leave(outcome.result.is_ok());
    }

    fn create(&mut self, context: &mut CTX, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        let nonce = context.journal_mut().load_account(inputs.caller());
        let to = nonce.map(|account| inputs.created_address(account.data.info.nonce)).ok();
        self.enter(to.map(|to| (inputs.caller(), to, inputs.value())));
        None
    }

    fn create_end(&mut self, _: &mut CTX, _: &CreateInputs, outcome: &mut CreateOutcome) {
        self.leave(outcome.result.is_ok());
    }

    fn selfdestruct(&mut self, contract: Address, target: Address, value: U256) {
        self.moved(contract, target, value);
    }
}
