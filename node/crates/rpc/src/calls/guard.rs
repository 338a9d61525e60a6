//! Stops executions that take too long.

use std::time::Instant;

use revm::Inspector;
use revm::bytecode::opcode;
use revm::interpreter::interpreter::EthInterpreter;
use revm::interpreter::interpreter_types::Jumps;
use revm::interpreter::{
    CallInputs, CallOutcome, CreateInputs, CreateOutcome, InstructionResult, Interpreter,
};

/// How many instructions run between two looks at the clock.
const STEPS: u32 = 1024;

/// Stops an execution at its deadline. From then on every frame ends at its first instruction.
#[derive(Debug)]
pub(super) struct Guard {
    deadline: Instant,
    steps: u32,
    /// The deadline has passed.
    pub(super) expired: bool,
}

impl Guard {
    /// A guard from now on.
    pub(super) fn new(deadline: Instant) -> Self {
        Self { deadline, steps: 0, expired: Instant::now() >= deadline }
    }

    fn look(&mut self) {
        self.expired = self.expired || Instant::now() >= self.deadline;
    }
}

/// Whether an instruction may wait for a state source.
const fn reads_state(op: u8) -> bool {
    use opcode::{BALANCE, BLOCKHASH, EXTCODECOPY, EXTCODEHASH, EXTCODESIZE, SLOAD, SSTORE};
    matches!(op, SLOAD | SSTORE | BALANCE | EXTCODESIZE | EXTCODECOPY | EXTCODEHASH | BLOCKHASH)
}

impl<CTX> Inspector<CTX, EthInterpreter> for Guard {
    fn step(&mut self, interpreter: &mut Interpreter<EthInterpreter>, _: &mut CTX) {
        self.steps = self.steps.wrapping_add(1);
        if self.steps.is_multiple_of(STEPS) || reads_state(interpreter.bytecode.opcode()) {
            self.look();
        }
        if self.expired {
            interpreter.halt(InstructionResult::OutOfGas);
        }
    }

    // Precompiles take long and have no steps.
    fn call(&mut self, _: &mut CTX, _: &mut CallInputs) -> Option<CallOutcome> {
        self.look();
        None
    }

    fn create(&mut self, _: &mut CTX, _: &mut CreateInputs) -> Option<CreateOutcome> {
        self.look();
        None
    }
}
