//! The application of a node: takes messages as the daemon's executor does, and may lose some.

use std::collections::BTreeMap;

use alloy_primitives::B256;
use fragcast_shredder::{Kind, MessageKey};
use fragcast_turbine::Delivered;

/// Blocks that are remembered.
const REMEMBERED: usize = 256;

/// The blocks that an application has in part.
#[derive(Debug, Default)]
pub(super) struct App {
    /// Attempt, and the messages in a row from the Env on.
    open: BTreeMap<u64, (u8, Vec<B256>)>,
    /// The attempt of which it had everything last.
    whole: BTreeMap<u64, u8>,
}

impl App {
    /// Takes a message: returns the roots of its block if that is whole by it. One that it has, or
    /// before which one lacks, does nothing.
    pub(super) fn take(&mut self, delivered: &Delivered) -> Option<Vec<B256>> {
        let MessageKey { block, attempt, message } = delivered.key;
        if self.whole.get(&block) == Some(&attempt) {
            return None;
        }
        let known = self.open.get(&block).is_some_and(|(of, _)| *of == attempt);
        if message == 0 && !known {
            self.open.insert(block, (attempt, Vec::new()));
        }
        let (of, roots) = self.open.get_mut(&block)?;
        if *of != attempt || roots.len() != usize::from(message) {
            return None;
        }
        roots.push(delivered.message.root());
        if delivered.message.message().kind() != Kind::Seal {
            return None;
        }
        self.whole.insert(block, attempt);
        let (_, roots) = self.open.remove(&block)?;
        while self.open.len() > REMEMBERED {
            self.open.pop_first();
        }
        while self.whole.len() > REMEMBERED {
            self.whole.pop_first();
        }
        Some(roots)
    }

    /// An attempt is void.
    pub(super) fn retract(&mut self, block: u64, attempt: u8) {
        if self.open.get(&block).is_some_and(|(of, _)| *of == attempt) {
            self.open.remove(&block);
        }
    }
}
