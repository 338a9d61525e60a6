//! How long the execution of one block may take.
//!
//! A gateway decides what its blocks execute, and gas alone does not bound time: on OP chains a
//! deposit needs no fee, and its gas is bounded by nothing but the block's gas limit. So a block has
//! an [`Allowance`] of time over all its frags. When it is used up, or when the node is ending,
//! execution stops in mid-transaction and the block is *unverified*: that a node is too slow for a
//! block proves nothing about the block.
//!
//! **Where the time is looked at.** Every loop passes a JUMPDEST and every recursion a call or a
//! creation, so the instructions of these names are replaced by ones that look at the [`Watch`]
//! first ([`install`]), every JUMPDEST counting as one of [`JUMPS_PER_LOOK`]. The clock is read
//! before each transaction and each read of the state too. What lies between two looks is one
//! precompile or straight-line code, and bounded by its gas. An inspector would look at every
//! instruction, at twice the time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use alloy_evm::eth::EthEvmContext;
use alloy_op_evm::OpEvmContext;
use revm::bytecode::opcode;
use revm::context_interface::context::ContextError;
use revm::handler::instructions::EthInstructions;
use revm::interpreter::instructions::contract;
use revm::interpreter::interpreter::EthInterpreter;
use revm::interpreter::{Host, Instruction, InstructionContext, InstructionResult};

use super::overlay::OverlayDb;
use super::verdict::Unverified;

/// JUMPDESTs between two looks at the clock: some 30 ns a look.
pub(super) const JUMPS_PER_LOOK: u32 = 64;

/// The time that a block may still take. The default has no end.
#[derive(Debug, Clone, Default)]
pub struct Allowance {
    /// The whole time and what is left of it.
    time: Option<(Duration, Duration)>,
    /// Set when the node is ending.
    ending: Arc<AtomicBool>,
}

impl Allowance {
    /// `time` for all frags of a block together; `ending` ends it at once.
    pub fn new(time: Option<Duration>, ending: Arc<AtomicBool>) -> Self {
        Self { time: time.map(|time| (time, time)), ending }
    }

    /// Starts to measure.
    pub(super) fn start(&self) -> Arc<Watch> {
        Arc::new(Watch {
            until: self.time.map(|(all, left)| (all, Instant::now() + left)),
            ending: Arc::clone(&self.ending),
            why: OnceLock::new(),
        })
    }

    /// Takes off what was used.
    pub(crate) fn spend(&mut self, spent: Duration) {
        if let Some((_, left)) = &mut self.time {
            *left = left.saturating_sub(spent);
        }
    }
}

/// The end of an allowance, while something is executed.
#[derive(Debug)]
pub struct Watch {
    /// The whole allowance, and when it ends.
    until: Option<(Duration, Instant)>,
    ending: Arc<AtomicBool>,
    /// Why execution was given up.
    why: OnceLock<Unverified>,
}

impl Watch {
    /// Looks whether to give up; once it says so it always does.
    pub fn expired(&self) -> bool {
        if self.why.get().is_some() {
            return true;
        }
        if self.ending.load(Ordering::Relaxed) {
            let _ = self.why.set(Unverified::Ending);
            return true;
        }
        match self.until {
            Some((all, at)) if Instant::now() >= at => {
                let _ = self.why.set(Unverified::TimeLimit(all));
                true
            }
            _ => false,
        }
    }

    /// Why execution was given up, if it was.
    pub fn why(&self) -> Option<Unverified> {
        self.why.get().cloned()
    }
}

/// An EVM context whose database has a [`Watch`].
pub(super) trait Watched: Host {
    /// Its database.
    fn overlay(&mut self) -> &mut OverlayDb;
    /// Makes the transaction fail with an error that is none of its own.
    fn fail(&mut self);
}

macro_rules! watched {
    ($($context:ty),+) => {$(
        impl Watched for $context {
            fn overlay(&mut self) -> &mut OverlayDb {
                &mut self.journaled_state.database
            }

            fn fail(&mut self) {
                self.error = Err(ContextError::Custom("the time of the block is over".into()));
            }
        }
    )+};
}
watched!(EthEvmContext<OverlayDb>, OpEvmContext<OverlayDb>);

type In<'a, H> = InstructionContext<'a, H, EthInterpreter>;

/// Halts if the time is over; says whether to go on.
fn go_on<H: Watched>(context: &mut In<'_, H>, weight: u32) -> bool {
    if !context.host.overlay().ticked(weight) {
        return true;
    }
    context.host.fail();
    context.interpreter.halt(InstructionResult::FatalExternalError);
    false
}

fn jumpdest<H: Watched>(mut context: In<'_, H>) {
    go_on(&mut context, 1);
}

macro_rules! looking_first {
    ($($name:ident => $inner:expr),+ $(,)?) => {$(
        fn $name<H: Watched>(mut context: In<'_, H>) {
            if go_on(&mut context, JUMPS_PER_LOOK) {
                $inner(context);
            }
        }
    )+};
}
looking_first! {
    call => contract::call::<EthInterpreter, H>,
    call_code => contract::call_code::<EthInterpreter, H>,
    delegate_call => contract::delegate_call::<EthInterpreter, H>,
    static_call => contract::static_call::<EthInterpreter, H>,
    create => contract::create::<EthInterpreter, false, H>,
    create2 => contract::create::<EthInterpreter, true, H>,
}

/// Replaces the instructions without which nothing runs for long by such that look at the clock.
pub(super) fn install<H: Watched>(instructions: &mut EthInstructions<EthInterpreter, H>) {
    let mut replace = |opcode: u8, with: fn(In<'_, H>)| {
        let gas = instructions.instruction_table[opcode as usize].static_gas();
        instructions.insert_instruction(opcode, Instruction::new(with, gas));
    };
    replace(opcode::JUMPDEST, jumpdest::<H>);
    replace(opcode::CALL, call::<H>);
    replace(opcode::CALLCODE, call_code::<H>);
    replace(opcode::DELEGATECALL, delegate_call::<H>);
    replace(opcode::STATICCALL, static_call::<H>);
    replace(opcode::CREATE, create::<H>);
    replace(opcode::CREATE2, create2::<H>);
}
