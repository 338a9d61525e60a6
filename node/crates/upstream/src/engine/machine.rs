//! Decides what to send to the execution client next, without sockets, clock or task.
//!
//! The client keeps one unsealed block and throws it away on any repeat or wrong sequence, so:
//!
//! 1. A frag or Seal is sent only right after its predecessor was answered `VALID`.
//! 2. A message is sent again only if it surely was not received.
//! 3. After a refusal, an ambiguous failure or a gap the rest of the block is not sent.
//! 4. Env N is sent only if the client has block N − 1: Seal N − 1 was `VALID`, or it said so.
//! 5. (block, attempt) of the Envs sent only rises: a late Env of an older block would cost the
//!    client the newer one.
//!
//! A block that will not be sent any further has no entry, and messages without an entry are
//! skipped. So only an Env makes an entry, and memory is bounded by the queue.
//!
//! Contract: after any `handle_*`, call [`Machine::poll`]; after `Send` or `Ask` it waits until
//! the outcome is handed in. Times are durations since any fixed moment.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fragcast_shredder::{Kind, Message, MessageKey};

use fragcast_shredder::delivery::{Delivered, Output};

/// The longest pause between two attempts.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// What the task is to do next.
#[derive(Debug, Clone)]
pub(super) enum Action {
    /// Send this, then hand in its [`Outcome`].
    Send(Arc<Delivered>),
    /// Ask whether the client has this block, then hand in the [`Answer`].
    Ask(u64),
    /// Nothing until the next output, or that time if there is one.
    Wait(Option<Duration>),
}

/// The outcome of a message that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The client took it.
    Valid,
    /// The client received it and answered an error.
    Refused { code: i64, message: String },
    /// Certainly not received, or not looked at.
    NotReceived(String),
    /// It may have been received.
    Ambiguous(String),
}

/// Whether the client has a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Present,
    Absent,
    Unknown(String),
}

/// Bounds of the messages that wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Messages.
    pub(super) messages: usize,
    /// Bytes of their transactions and fixed parts.
    pub(super) bytes: usize,
}

/// A block that is being sent or waits for its turn.
#[derive(Debug)]
struct Block {
    attempt: u8,
    /// The index that its next message must have.
    next: u32,
    /// Its Env was sent, or sending it was tried.
    open: bool,
    queue: VecDeque<Arc<Delivered>>,
}

#[derive(Debug)]
enum InFlight {
    Message(Arc<Delivered>),
    Question(u64),
}

/// A pause that doubles.
#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Duration,
    next: Duration,
}

impl Pause {
    fn new(now: Duration, length: Duration) -> Self {
        Self { until: now + length, next: (length * 2).min(MAX_BACKOFF.max(length)) }
    }
}

/// The decisions; see the module.
#[derive(Debug)]
pub(super) struct Machine {
    limits: Limits,
    backoff: Duration,
    blocks: BTreeMap<u64, Block>,
    queued: usize,
    queued_bytes: usize,
    /// Block and attempt of the last Env that was sent, or that sending was tried of.
    opened: Option<(u64, u8)>,
    /// The highest block that the client is known to have.
    has: Option<u64>,
    in_flight: Option<InFlight>,
    /// The client could not be reached.
    unreachable: Option<Pause>,
    /// The block to ask for, and the time to ask.
    question: Option<(u64, Pause)>,
    skipped: u64,
}

impl Machine {
    pub(super) fn new(limits: Limits, backoff: Duration) -> Self {
        let messages = limits.messages.max(1);
        Self {
            limits: Limits { messages, ..limits },
            backoff,
            blocks: BTreeMap::new(),
            queued: 0,
            queued_bytes: 0,
            opened: None,
            has: None,
            in_flight: None,
            unreachable: None,
            question: None,
            skipped: 0,
        }
    }

    /// Messages that were handed in and not sent.
    pub(super) const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Takes the next output of the sequencer.
    pub(super) fn handle_output(&mut self, output: Output) {
        match output {
            Output::Message(message) => self.handle_message(message),
            Output::Retracted { block, attempt, .. } => {
                if self.blocks.get(&block).is_some_and(|entry| entry.attempt <= attempt) {
                    self.abandon(block);
                }
            }
        }
    }

    fn handle_message(&mut self, message: Arc<Delivered>) {
        let MessageKey { block, attempt, message: index } = message.key;
        if index == 0 {
            let late = self.opened.is_some_and(|opened| (block, attempt) <= opened);
            if late || self.blocks.get(&block).is_some_and(|entry| entry.attempt >= attempt) {
                self.skipped += 1;
                return;
            }
            self.abandon(block);
            let entry = Block { attempt, next: 1, open: false, queue: VecDeque::new() };
            self.blocks.insert(block, entry);
        } else {
            let Some(entry) = self.blocks.get_mut(&block) else {
                self.skipped += 1;
                return;
            };
            if (attempt, u32::from(index)) != (entry.attempt, entry.next) {
                self.skipped += 1;
                // Something was lost on the way here; a mere repeat or straggler loses nothing.
                if (attempt, u32::from(index)) > (entry.attempt, entry.next) {
                    self.abandon(block);
                }
                return;
            }
            entry.next += 1;
        }
        self.enqueue(message, VecDeque::push_back);
        while self.queued > self.limits.messages || self.queued_bytes > self.limits.bytes {
            let oldest = self.blocks.iter().find(|(_, entry)| !entry.queue.is_empty());
            let Some((&oldest, _)) = oldest else { break };
            self.abandon(oldest);
        }
    }

    /// Takes the outcome of the last [`Action::Send`].
    pub(super) fn handle_outcome(&mut self, now: Duration, outcome: &Outcome) {
        let Some(InFlight::Message(message)) = self.in_flight.take() else { return };
        let MessageKey { block, attempt, .. } = message.key;
        let current = self.blocks.get(&block).is_some_and(|entry| entry.attempt == attempt);
        let sealed = message.message.message().kind() == Kind::Seal;
        if let Outcome::NotReceived(_) = outcome {
            let length = self.unreachable.map_or(self.backoff, |pause| pause.next);
            self.unreachable = Some(Pause::new(now, length));
            if current {
                self.enqueue(message, VecDeque::push_front);
            } else {
                self.skipped += 1;
            }
            return;
        }
        self.unreachable = None;
        let valid = *outcome == Outcome::Valid;
        if valid && sealed {
            self.has = self.has.max(Some(block));
        }
        if current && (sealed || !valid) {
            self.abandon(block);
        }
    }

    /// Takes the answer to the last [`Action::Ask`].
    pub(super) fn handle_answer(&mut self, now: Duration, answer: &Answer) {
        let Some(InFlight::Question(block)) = self.in_flight.take() else { return };
        if *answer == Answer::Present {
            self.question = None;
            self.has = self.has.max(Some(block));
            self.abandon_below(block.saturating_add(1));
        } else if let Some((_, pause)) = &mut self.question {
            *pause = Pause::new(now, pause.next);
        }
    }

    /// The next thing to do.
    pub(super) fn poll(&mut self, now: Duration) -> Action {
        if self.in_flight.is_some() {
            return Action::Wait(None);
        }
        if let Some(pause) = self.unreachable
            && now < pause.until
        {
            return Action::Wait(Some(pause.until));
        }
        // The open block, if any, is the lowest; while it has nothing to send, the next one may
        // be released by the client itself.
        let ready = self.blocks.iter().find(|(_, entry)| !entry.queue.is_empty());
        let Some((&block, entry)) = ready else { return Action::Wait(None) };
        if !entry.open {
            let parent = block.checked_sub(1);
            if let Some(parent) = parent.filter(|_| self.has < parent) {
                return self.ask(now, parent);
            }
            self.opened = Some((block, entry.attempt));
            // The client's block of this number, if it has one, is about to be replaced.
            self.has = self.has.min(parent);
            self.abandon_below(block);
        }
        let Some(message) = self.dequeue(block) else { return Action::Wait(None) };
        self.in_flight = Some(InFlight::Message(Arc::clone(&message)));
        Action::Send(message)
    }

    fn ask(&mut self, now: Duration, block: u64) -> Action {
        let pause = match self.question {
            Some((asked, pause)) if asked == block => pause,
            _ => {
                // A block that is still being sent will most likely be sealed by us.
                let sending = self.blocks.contains_key(&block);
                let length = if sending { self.backoff } else { Duration::ZERO };
                let pause = Pause { until: now + length, next: self.backoff };
                self.question = Some((block, pause));
                pause
            }
        };
        if now < pause.until {
            return Action::Wait(Some(pause.until));
        }
        self.in_flight = Some(InFlight::Question(block));
        Action::Ask(block)
    }

    fn enqueue(
        &mut self,
        message: Arc<Delivered>,
        push: fn(&mut VecDeque<Arc<Delivered>>, Arc<Delivered>),
    ) {
        if let Some(entry) = self.blocks.get_mut(&message.key.block) {
            self.queued += 1;
            self.queued_bytes += weight(&message);
            push(&mut entry.queue, message);
        }
    }

    fn dequeue(&mut self, block: u64) -> Option<Arc<Delivered>> {
        let entry = self.blocks.get_mut(&block)?;
        entry.open = true;
        let message = entry.queue.pop_front()?;
        self.queued -= 1;
        self.queued_bytes -= weight(&message);
        Some(message)
    }

    /// Gives up `block` until its next Env.
    fn abandon(&mut self, block: u64) {
        if let Some(entry) = self.blocks.remove(&block) {
            self.skipped += entry.queue.len() as u64;
            self.queued -= entry.queue.len();
            self.queued_bytes -= entry.queue.iter().map(|message| weight(message)).sum::<usize>();
        }
    }

    fn abandon_below(&mut self, block: u64) {
        while let Some((&lowest, _)) = self.blocks.first_key_value()
            && lowest < block
        {
            self.abandon(lowest);
        }
    }
}

/// About how much memory a waiting message holds.
fn weight(message: &Delivered) -> usize {
    let txs = match message.message.message() {
        Message::Frag(frag) => frag.txs.iter().map(|tx| tx.len() + size_of_val(tx)).sum(),
        Message::Env(_) | Message::Seal(_) => 0,
    };
    size_of::<Delivered>() + txs
}

#[cfg(test)]
mod tests;
