//! Who waits for the next leader to have a message.

use std::collections::{BTreeMap, VecDeque};

use fragcast_shredder::MessageKey;
use tokio::sync::oneshot;

/// Messages that are waited for, at most; who asks for another is not kept waiting.
const MAX_WAITING: usize = 256;
/// Messages that are remembered to be held: an acknowledgement may come before anybody asks.
const MAX_HELD: usize = 256;

/// What is waited for, and what came: 12 kB.
#[derive(Debug, Default)]
pub(super) struct Held {
    waiting: BTreeMap<MessageKey, oneshot::Sender<bool>>,
    held: VecDeque<MessageKey>,
}

impl Held {
    /// Answers `true` once the next leader has a message; `false` at once if nobody is `asked`.
    pub(super) fn wait(&mut self, key: MessageKey, asked: bool, reply: oneshot::Sender<bool>) {
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        let known = self.held.contains(&key);
        if known || !asked || self.waiting.len() >= MAX_WAITING {
            // Who asked may have given up.
            let _ = reply.send(known);
            return;
        }
        self.waiting.insert(key, reply);
    }

    /// The next leader has a message.
    pub(super) fn note(&mut self, key: MessageKey) {
        if let Some(waiting) = self.waiting.remove(&key) {
            let _ = waiting.send(true);
        }
        if self.held.len() >= MAX_HELD {
            self.held.pop_front();
        }
        self.held.push_back(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(block: u64) -> MessageKey {
        MessageKey { block, attempt: 0, message: 1 }
    }

    fn wait(held: &mut Held, block: u64, asked: bool) -> oneshot::Receiver<bool> {
        let (reply, answer) = oneshot::channel();
        held.wait(key(block), asked, reply);
        answer
    }

    #[test]
    fn who_waits_is_told_and_nobody_waits_for_nothing() {
        let mut held = Held::default();
        let mut early = wait(&mut held, 1, true);
        assert!(early.try_recv().is_err(), "it waits");
        held.note(key(1));
        assert_eq!(early.try_recv(), Ok(true));
        assert_eq!(wait(&mut held, 1, true).try_recv(), Ok(true), "it came before");
        assert_eq!(wait(&mut held, 2, false).try_recv(), Ok(false), "nobody is asked");
    }

    #[test]
    fn tables_are_bounded_and_who_gives_up_makes_room() {
        let mut held = Held::default();
        let mut kept: Vec<_> =
            (0..MAX_WAITING as u64).map(|block| wait(&mut held, block, true)).collect();
        assert_eq!(wait(&mut held, 1_000, true).try_recv(), Ok(false), "full");
        kept.pop();
        assert!(wait(&mut held, 1_000, true).try_recv().is_err());
        (0..10_000).for_each(|block| held.note(key(block)));
        assert_eq!(held.held.len(), MAX_HELD);
    }
}
