use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::engine::tests::fixture::{bad_parity, block, env, frag, seal, superseded};

const LIMITS: Limits = Limits { messages: 100, bytes: 1 << 20 };
const BACKOFF: Duration = Duration::from_millis(100);

/// Block, attempt, index.
type Id = (u64, u8, u16);

fn id(message: &Delivered) -> Id {
    (message.key.block, message.key.attempt, message.key.message)
}

fn not_received() -> Outcome {
    Outcome::NotReceived(String::new())
}

fn ambiguous() -> Outcome {
    Outcome::Ambiguous(String::new())
}

fn refused() -> Outcome {
    Outcome::Refused { code: -32000, message: String::new() }
}

/// A machine with a clock that the test moves.
struct Bench {
    machine: Machine,
    now: Duration,
}

impl Bench {
    fn new(messages: usize) -> Self {
        let machine = Machine::new(Limits { messages, ..LIMITS }, BACKOFF);
        Self { machine, now: Duration::ZERO }
    }

    fn give(&mut self, outputs: impl IntoIterator<Item = Output>) {
        outputs.into_iter().for_each(|output| self.machine.handle_output(output));
    }

    #[track_caller]
    fn sends(&mut self, expected: Id, outcome: &Outcome) {
        match self.machine.poll(self.now) {
            Action::Send(message) => assert_eq!(id(&message), expected),
            other => panic!("{other:?} instead of {expected:?}"),
        }
        self.machine.handle_outcome(self.now, outcome);
    }

    #[track_caller]
    fn asks(&mut self, expected: u64, answer: &Answer) {
        match self.machine.poll(self.now) {
            Action::Ask(block) => assert_eq!(block, expected),
            other => panic!("{other:?} instead of asking for {expected}"),
        }
        self.machine.handle_answer(self.now, answer);
    }

    /// Waits as long as the machine wants to.
    #[track_caller]
    fn pauses(&mut self, expected: Duration) {
        match self.machine.poll(self.now) {
            Action::Wait(Some(until)) => assert_eq!(until - self.now, expected),
            other => panic!("{other:?} instead of a pause"),
        }
        self.now += expected;
    }

    #[track_caller]
    fn rests(&mut self) {
        let action = self.machine.poll(self.now);
        assert!(matches!(action, Action::Wait(None)), "{action:?}");
    }
}

#[test]
fn backoff_doubles_up_to_its_limit_and_starts_over() {
    let mut bench = Bench::new(100);
    bench.give([env(0, 0), frag(0, 0, 0)]);
    for pause in [100, 200, 400, 800, 1600, 2000, 2000] {
        bench.sends((0, 0, 0), &not_received());
        bench.pauses(Duration::from_millis(pause));
    }
    bench.sends((0, 0, 0), &Outcome::Valid);
    bench.sends((0, 0, 1), &not_received());
    bench.pauses(BACKOFF);
    bench.sends((0, 0, 1), &Outcome::Valid);
    bench.rests();
}

#[test]
fn questions_back_off_without_holding_up_an_open_block() {
    let mut bench = Bench::new(100);
    bench.give(block(8, 0, 0));
    bench.asks(7, &Answer::Absent);
    bench.pauses(BACKOFF);
    bench.asks(7, &Answer::Unknown(String::new()));
    bench.pauses(2 * BACKOFF);
    bench.asks(7, &Answer::Present);
    bench.sends((8, 0, 0), &Outcome::Valid);
    bench.sends((8, 0, 1), &Outcome::Valid);
    bench.give([env(9, 0), env(10, 0)]);
    bench.sends((9, 0, 0), &Outcome::Valid);
    // Block 9 is open, so it is not asked for at once, and its next message goes first.
    bench.pauses(BACKOFF);
    bench.asks(9, &Answer::Absent);
    bench.give([frag(9, 0, 0)]);
    bench.sends((9, 0, 1), &Outcome::Valid);
    bench.give([seal(9, 0, 1)]);
    bench.sends((9, 0, 2), &Outcome::Valid);
    bench.sends((10, 0, 0), &Outcome::Valid);
}

#[test]
fn an_abandoned_block_is_left_to_its_next_attempt_or_the_next_block() {
    for outcome in [refused(), ambiguous()] {
        let mut bench = Bench::new(100);
        bench.give([env(0, 0), frag(0, 0, 0), frag(0, 0, 1)]);
        bench.sends((0, 0, 0), &Outcome::Valid);
        bench.sends((0, 0, 1), &outcome);
        bench.give([frag(0, 0, 2), env(0, 0)]);
        bench.rests();
        assert_eq!(bench.machine.skipped(), 3);
        bench.give([env(0, 1)]);
        bench.sends((0, 1, 0), &outcome);
        bench.give([env(1, 0)]);
        bench.asks(0, &Answer::Present);
        bench.sends((1, 0, 0), &Outcome::Valid);
    }
}

#[test]
fn void_messages_are_not_sent() {
    let mut bench = Bench::new(100);
    bench.give([env(0, 0), frag(0, 0, 0)]);
    assert!(matches!(bench.machine.poll(bench.now), Action::Send(_)));
    // Superseded while its Env is under way and then not received: not tried again.
    bench.give([superseded(0, 0), env(0, 1), frag(0, 1, 0)]);
    bench.machine.handle_outcome(bench.now, &not_received());
    bench.pauses(BACKOFF);
    bench.sends((0, 1, 0), &Outcome::Valid);
    bench.give([bad_parity(0, 1), frag(0, 1, 1)]);
    bench.rests();
    assert_eq!(bench.machine.skipped(), 4);
    // A retraction of an attempt that was replaced already changes nothing.
    bench.give([env(0, 2), superseded(0, 1)]);
    bench.sends((0, 2, 0), &Outcome::Valid);
}

#[test]
fn a_gap_ends_the_block_and_a_late_env_does_not_ruin_the_newer_block() {
    let mut bench = Bench::new(100);
    bench.give([env(0, 0), frag(0, 0, 1), frag(0, 0, 0), seal(0, 0, 2)]);
    bench.rests();
    bench.give([frag(5, 0, 0), env(1, 0)]);
    bench.asks(0, &Answer::Present);
    bench.sends((1, 0, 0), &Outcome::Valid);
    bench.give([env(0, 1), env(1, 0)]);
    bench.rests();
    // Of an attempt whose Env was lost.
    bench.give([frag(1, 1, 0), frag(1, 0, 0)]);
    bench.rests();
}

#[test]
fn a_rebuilt_block_makes_its_child_wait_again() {
    let mut bench = Bench::new(100);
    bench.give(block(0, 0, 0));
    bench.sends((0, 0, 0), &Outcome::Valid);
    bench.sends((0, 0, 1), &Outcome::Valid);
    bench.give([superseded(0, 0), env(0, 1), env(1, 0)]);
    bench.sends((0, 1, 0), &Outcome::Valid);
    bench.pauses(BACKOFF);
    bench.give([seal(0, 1, 0)]);
    bench.sends((0, 1, 1), &Outcome::Valid);
    bench.sends((1, 0, 0), &Outcome::Valid);
}

#[test]
fn over_its_bound_the_queue_gives_up_the_oldest_block() {
    let mut bench = Bench::new(4);
    bench.give([env(3, 0), frag(3, 0, 0), env(4, 0), frag(4, 0, 0), env(5, 0)]);
    assert_eq!(bench.machine.skipped(), 2);
    bench.give([frag(3, 0, 1)]);
    bench.asks(3, &Answer::Present);
    bench.sends((4, 0, 0), &Outcome::Valid);
    bench.sends((4, 0, 1), &Outcome::Valid);
    // A block that alone exceeds the bound.
    bench.give((0..4).map(|seq| frag(5, 0, seq)));
    bench.rests();
    assert_eq!(bench.machine.queued, 0);
    assert_eq!(bench.machine.queued_bytes, 0);
}

/// A model of based-op-geth, and of what must never happen to it.
#[derive(Default)]
struct Client {
    has: BTreeSet<u64>,
    unsealed: Option<Id>,
    /// The last Env that it may have received.
    opened: Option<(u64, u8)>,
    /// The last message, if it was answered `VALID`.
    last_valid: Option<Id>,
}

impl Client {
    /// Checks the rules at every attempt to send, then lets `fate` decide its outcome.
    fn receive(&mut self, message: &Delivered, fate: u8) -> Outcome {
        let (block, attempt, index) = id(message);
        let sealed = message.message.message().kind() == Kind::Seal;
        if index == 0 {
            assert!(self.opened < Some((block, attempt)), "env {block}/{attempt} goes back");
            assert!(block == 0 || self.has.contains(&(block - 1)), "env {block} before its parent");
        } else {
            let before = Some((block, attempt, index - 1));
            assert_eq!(self.last_valid, before, "a repeat or a gap at {:?}", id(message));
        }
        if fate < 40 {
            return not_received();
        }
        self.last_valid = None;
        if index == 0 {
            self.opened = Some((block, attempt));
        }
        let lost = fate < 50;
        let in_order = index == 0 || self.unsealed == Some((block, attempt, index - 1));
        if lost || fate < 55 || !in_order {
            self.unsealed = self.unsealed.filter(|_| lost);
            return if lost { ambiguous() } else { refused() };
        }
        self.unsealed = (!sealed).then(|| id(message));
        if sealed {
            self.has.insert(block);
        }
        if fate < 65 {
            return ambiguous();
        }
        self.last_valid = Some(id(message));
        Outcome::Valid
    }
}

/// Three blocks in production at a time, as the sequencer would give them.
#[derive(Default)]
struct Leader {
    base: u64,
    /// Attempt and next index of the blocks from `base` on; `None` before the Env.
    open: [Option<(u8, u16)>; 3],
}

impl Leader {
    fn step(&mut self, choice: u8) -> Vec<Output> {
        let slot = usize::from(choice % 3);
        let number = self.base + slot as u64;
        let Some((attempt, next)) = self.open[slot] else {
            self.open[slot] = Some((0, 1));
            return vec![env(number, 0)];
        };
        match choice / 3 {
            0..=3 if attempt < 7 => {
                self.open[slot] = Some((attempt + 1, 1));
                vec![superseded(number, attempt), env(number, attempt + 1)]
            }
            4 => vec![bad_parity(number, attempt)],
            5..=25 => {
                let done = seal(number, attempt, u64::from(next) - 1);
                // Blocks that are left behind unfinished get nothing more.
                self.base = number + 1;
                self.open.rotate_left(slot + 1);
                self.open[2 - slot..].fill(None);
                vec![done]
            }
            _ => {
                self.open[slot] = Some((attempt, next + 1));
                vec![frag(number, attempt, u64::from(next) - 1)]
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_client_never_sees_a_repeat_or_a_gap(
        script in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 1..300),
        messages in 1_usize..40,
    ) {
        let mut bench = Bench::new(messages);
        let (mut leader, mut client) = (Leader::default(), Client::default());
        let (mut given, mut ended) = (0, 0);
        for (choice, event, fate) in script {
            if event < 128 {
                for output in leader.step(choice) {
                    // Now and then the channel is full.
                    if event > 5 {
                        given += u64::from(matches!(output, Output::Message(_)));
                        bench.give([output]);
                    }
                }
            } else if event < 140 {
                client.has.extend(0..leader.base);
            } else if event < 145 {
                // A restart loses the unsealed block.
                client.unsealed = None;
            }
            match bench.machine.poll(bench.now) {
                Action::Send(message) => {
                    let outcome = client.receive(&message, fate);
                    if event % 4 == 0 {
                        for output in leader.step(choice ^ fate) {
                            given += u64::from(matches!(output, Output::Message(_)));
                            bench.give([output]);
                        }
                    }
                    ended += u64::from(!matches!(outcome, Outcome::NotReceived(_)));
                    bench.machine.handle_outcome(bench.now, &outcome);
                }
                Action::Ask(block) => {
                    let answer = match client.has.contains(&block) {
                        _ if fate < 30 => Answer::Unknown(String::new()),
                        true => Answer::Present,
                        false => Answer::Absent,
                    };
                    bench.machine.handle_answer(bench.now, &answer);
                }
                Action::Wait(Some(until)) => bench.now = until,
                Action::Wait(None) => {}
            }
            prop_assert!(bench.machine.queued <= messages + 1);
        }
        prop_assert_eq!(given, ended + bench.machine.skipped() + bench.machine.queued as u64);
        // Whatever happened, a client in order gets a new block.
        let number = leader.base + 10;
        client.has.insert(number - 1);
        let mut fresh = block(number, 0, 0);
        bench.give(fresh.drain(..1));
        for _ in 0..1000 {
            match bench.machine.poll(bench.now) {
                Action::Send(message) => {
                    let outcome = client.receive(&message, 255);
                    bench.machine.handle_outcome(bench.now, &outcome);
                    if id(&message) == (number, 0, 0) {
                        bench.give(fresh.drain(..));
                    }
                }
                Action::Ask(block) => {
                    client.has.extend(0..=block);
                    bench.machine.handle_answer(bench.now, &Answer::Present);
                }
                Action::Wait(Some(until)) => bench.now = until,
                Action::Wait(None) => break,
            }
        }
        prop_assert!(client.has.contains(&number));
    }
}
