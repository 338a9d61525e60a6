//! How long the execution of one block may take.
//!
//! A gateway decides what its blocks execute, and gas alone does not bound time: on OP chains a
//! deposit needs no fee, and its gas is bounded by nothing but the block's gas limit. So a block has
//! an [`Allowance`] of time over all its frags. When it is used up, or when the node is ending,
//! execution stops in mid-transaction and the block is *unverified*: that a node is too slow for a
//! block proves nothing about the block.
//!
//! **What counts.** The time between two looks, but no more than [`LONGEST_LOOK`] of it: a process
//! that is stopped, or a machine that is suspended, executes nothing meanwhile.
//!
//! **Where the time is looked at.** Every loop passes a JUMPDEST and every recursion a call or a
//! creation, so the instructions of these names are replaced by ones that look at the [`Watch`]
//! first ([`install`]), every JUMPDEST counting as one of [`JUMPS_PER_LOOK`]. The clock is read
//! before each transaction and each read of the state too. What lies between two looks is one
//! precompile or straight-line code, and bounded by its gas. An inspector would look at every
//! instruction, at twice the time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// What counts of the time between two looks at most. Longer ones come of precompiles (their gas
/// bounds them all together), of a source that takes long to answer, or of a process that stood
/// still.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

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
            time: self.time,
            clock: Stopwatch::start(Instant::now()),
            ending: Arc::clone(&self.ending),
            why: OnceLock::new(),
        })
    }

    /// Takes off what was used.
    pub(super) fn spend(&mut self, watch: &Watch) {
        self.take(watch.clock.look(Instant::now()));
    }

    pub(crate) fn take(&mut self, spent: Duration) {
        if let Some((_, left)) = &mut self.time {
            *left = left.saturating_sub(spent);
        }
    }
}

/// Adds up the times between looks, each to [`LONGEST_LOOK`].
#[derive(Debug)]
struct Stopwatch {
    start: Instant,
    /// The last look, in nanoseconds since the start.
    last: AtomicU64,
    /// What counts so far, in nanoseconds.
    spent: AtomicU64,
}

impl Stopwatch {
    const fn start(start: Instant) -> Self {
        Self { start, last: AtomicU64::new(0), spent: AtomicU64::new(0) }
    }

    /// What counts by now.
    fn look(&self, now: Instant) -> Duration {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let at = nanos(now.saturating_duration_since(self.start));
        let since = at.saturating_sub(self.last.load(Ordering::Relaxed));
        let spent = self.spent.load(Ordering::Relaxed) + since.min(nanos(LONGEST_LOOK));
        // Only one thread executes, and looks.
        self.last.store(at, Ordering::Relaxed);
        self.spent.store(spent, Ordering::Relaxed);
        Duration::from_nanos(spent)
    }
}

/// The end of an allowance, while something is executed.
#[derive(Debug)]
pub struct Watch {
    /// The whole allowance, and what was left of it at the start.
    time: Option<(Duration, Duration)>,
    clock: Stopwatch,
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
        match self.time {
            Some((all, left)) if self.clock.look(Instant::now()) >= left => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_stands_still_uses_up_a_second_and_one_that_works_all_of_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let clock = Stopwatch::start(start);
        assert_eq!(clock.look(at(300)), Duration::from_millis(300));
        assert_eq!(clock.look(at(700)), Duration::from_millis(700));
        // Stopped for a minute.
        assert_eq!(clock.look(at(60_700)), Duration::from_millis(1_700));
        assert_eq!(clock.look(at(60_700)), Duration::from_millis(1_700));
        // At work for a minute.
        let worked = (1..=600).map(|look| clock.look(at(60_700 + look * 100)));
        assert_eq!(worked.last(), Some(Duration::from_millis(61_700)));
        // A clock that goes back counts nothing.
        assert_eq!(clock.look(at(100)), Duration::from_millis(61_700));
    }
}
