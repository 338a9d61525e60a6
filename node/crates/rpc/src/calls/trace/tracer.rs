//! A tracer of revm-inspectors that may keep only so much.

use alloy_primitives::map::HashSet;
use alloy_primitives::{Address, Log, U256};
use alloy_rpc_types_trace::geth::{GethTrace, PreStateFrame};
use alloy_rpc_types_trace::parity::{TraceResults, TraceType};
use revm::bytecode::opcode;
use revm::context::TxEnv;
use revm::context_interface::ContextTr;
use revm::context_interface::result::{HaltReasonTr, ResultAndState};
use revm::inspector::JournalExt;
use revm::interpreter::interpreter_types::{Jumps, MemoryTr, ReturnData};
use revm::interpreter::{
    CallInputs, CallOutcome, CreateInputs, CreateOutcome, InstructionResult, Interpreter,
};
use revm::primitives::KECCAK_EMPTY;
use revm::{DatabaseRef, Inspector};
use revm_inspectors::tracing::{DebugInspector, TracingInspector, TransactionContext};

use super::super::error::CallError;
use super::super::evm::{CallDb, Watcher};

/// Bytes of one frame in an answer, beside its data.
const FRAME: usize = 500;
/// Bytes of one instruction in an answer, beside stack, memory and storage.
const STEP: usize = 160;
/// Bytes of a word on the stack in an answer.
const WORD: usize = 70;
/// Bytes of a slot in an answer.
const SLOT: usize = 140;
/// Bytes of an account in an answer, beside its code.
const ACCOUNT: usize = 200;

/// What a tracer keeps of every instruction.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Steps {
    pub(super) stack: bool,
    pub(super) memory: bool,
    pub(super) storage: bool,
    /// What the last call returned.
    pub(super) returned: bool,
}

/// The accounts that a tracer shows, with their code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accounts {
    /// None.
    None,
    /// Those that are touched; of the state before, those alone that were not empty.
    NotEmpty,
    /// All that are touched.
    All,
}

/// Leaves out the accounts that were empty before the transaction, whose state `db` is.
fn leave_out_empty(trace: &mut GethTrace, db: &CallDb) -> Result<(), CallError> {
    match trace {
        GethTrace::PreStateTracer(PreStateFrame::Default(accounts)) => {
            let mut empty = Vec::new();
            for address in accounts.0.keys() {
                if db.basic_ref(*address)?.is_none_or(|account| account.is_empty()) {
                    empty.push(*address);
                }
            }
            for address in empty {
                accounts.0.remove(&address);
            }
        }
        GethTrace::MuxTracer(traces) => {
            for trace in traces.0.values_mut() {
                leave_out_empty(trace, db)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// What looks on.
#[derive(Debug)]
pub(super) enum Inner {
    /// One of geth's tracers.
    Geth(Box<DebugInspector>),
    /// Parity's.
    Parity(Box<TracingInspector>, HashSet<TraceType>),
}

/// A tracer of one transaction.
#[derive(Debug)]
pub(in super::super) struct Tracer {
    inner: Inner,
    context: TransactionContext,
    /// What it keeps of instructions, if it keeps any.
    steps: Option<Steps>,
    /// The accounts that it keeps.
    accounts: Accounts,
    /// Bytes that it may still keep.
    left: usize,
    full: bool,
    /// Instructions so far that show the storage: each shows all slots of those before it.
    slots: usize,
    pub(super) geth: Option<GethTrace>,
    pub(super) parity: Option<TraceResults>,
}

impl Tracer {
    pub(super) const fn new(
        inner: Inner,
        context: TransactionContext,
        steps: Option<Steps>,
        accounts: Accounts,
        left: usize,
    ) -> Self {
        let (full, slots) = (false, 0);
        Self { inner, context, steps, accounts, left, full, slots, geth: None, parity: None }
    }

    /// Bytes that may still be kept.
    pub(super) const fn left(&self) -> usize {
        self.left
    }

    fn take(&mut self, bytes: usize) {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => self.full = true,
        }
    }

    fn take_step(&mut self, interpreter: &Interpreter) {
        let Some(steps) = self.steps else { return };
        let mut bytes = STEP;
        if steps.stack {
            bytes += WORD * interpreter.stack.len();
        }
        if steps.memory {
            bytes += 2 * interpreter.memory.size();
        }
        if steps.returned {
            bytes += 2 * interpreter.return_data.buffer().len();
        }
        if steps.storage && matches!(interpreter.bytecode.opcode(), opcode::SLOAD | opcode::SSTORE)
        {
            self.slots += 1;
            bytes += SLOT * self.slots;
        }
        self.take(bytes);
    }

    /// Accounts with their code, as they are shown, before and after.
    fn take_accounts<H>(
        &mut self,
        result: &ResultAndState<H>,
        db: &CallDb,
    ) -> Result<(), CallError> {
        for account in result.state.values() {
            let hash = account.info.code_hash;
            let code = if hash == KECCAK_EMPTY { 0 } else { db.code_by_hash_ref(hash)?.len() };
            self.take(2 * (ACCOUNT + 2 * code + SLOT * account.storage.len()));
            if self.full {
                break;
            }
        }
        Ok(())
    }
}

impl Watcher for Tracer {
    fn done<H: HaltReasonTr>(
        &mut self,
        result: &ResultAndState<H>,
        tx: &TxEnv,
        block: &revm::context::BlockEnv,
        db: &mut CallDb,
    ) -> Result<(), CallError> {
        if self.accounts != Accounts::None {
            self.take_accounts(result, db)?;
        }
        if self.full {
            return Err(CallError::TooLong);
        }
        match &mut self.inner {
            Inner::Geth(inspector) => {
                let context = Some(self.context);
                let trace = inspector.get_result(context, tx, block, result, db);
                let mut trace = trace.map_err(|error| CallError::Invalid(error.to_string()))?;
                if self.accounts == Accounts::NotEmpty {
                    leave_out_empty(&mut trace, db)?;
                }
                self.geth = Some(trace);
            }
            Inner::Parity(inspector, kinds) => {
                inspector.set_transaction_gas_limit(tx.gas_limit);
                inspector.set_transaction_caller(tx.caller);
                let builder = inspector.clone().into_parity_builder();
                self.parity = Some(builder.into_trace_results_with_state(result, kinds, &*db)?);
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.full
    }
}

macro_rules! inner {
    ($self:expr, $one:ident => $do:expr) => {
        match &mut $self.inner {
            Inner::Geth($one) => $do,
            Inner::Parity($one, _) => $do,
        }
    };
}

impl<CTX: ContextTr<Journal: JournalExt, Db: DatabaseRef>> Inspector<CTX> for Tracer {
    fn initialize_interp(&mut self, interpreter: &mut Interpreter, context: &mut CTX) {
        inner!(self, one => one.initialize_interp(interpreter, context));
    }

    fn step(&mut self, interpreter: &mut Interpreter, context: &mut CTX) {
        self.take_step(interpreter);
        if self.full {
            interpreter.halt(InstructionResult::OutOfGas);
            return;
        }
        inner!(self, one => one.step(interpreter, context));
    }

    fn step_end(&mut self, interpreter: &mut Interpreter, context: &mut CTX) {
        if !self.full {
            inner!(self, one => one.step_end(interpreter, context));
        }
    }

    fn log_full(&mut self, interpreter: &mut Interpreter, context: &mut CTX, log: Log) {
        self.take(FRAME + 2 * log.data.data.len());
        inner!(self, one => one.log_full(interpreter, context, log));
    }

    fn log(&mut self, context: &mut CTX, log: Log) {
        self.take(FRAME + 2 * log.data.data.len());
        inner!(self, one => Inspector::<CTX>::log(&mut **one, context, log));
    }

    fn call(&mut self, context: &mut CTX, inputs: &mut CallInputs) -> Option<CallOutcome> {
        self.take(FRAME + 2 * inputs.input.len());
        inner!(self, one => one.call(context, inputs))
    }

    fn call_end(&mut self, context: &mut CTX, inputs: &CallInputs, outcome: &mut CallOutcome) {
        self.take(2 * outcome.result.output.len());
        inner!(self, one => one.call_end(context, inputs, outcome));
    }

    fn create(&mut self, context: &mut CTX, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        self.take(FRAME + 2 * inputs.init_code().len());
        inner!(self, one => one.create(context, inputs))
    }

    fn create_end(
        &mut self,
        context: &mut CTX,
        inputs: &CreateInputs,
        outcome: &mut CreateOutcome,
    ) {
        self.take(2 * outcome.result.output.len());
        inner!(self, one => one.create_end(context, inputs, outcome));
    }

    fn selfdestruct(&mut self, contract: Address, target: Address, value: U256) {
        self.take(FRAME);
        inner!(self, one => Inspector::<CTX>::selfdestruct(&mut **one, contract, target, value));
    }
}
