//! What the executor is handed: outputs of the sequencer, and messages that it had lost.

use std::sync::Arc;

use fragcast_execution::executor::Executor;
use fragcast_turbine::output::Output;

/// Hands outputs to the executor.
pub(super) struct Feed {
    executor: Arc<Executor>,
    /// Blocks above its head of which it is handed anything; `None`: all, since what it is not
    /// handed now could not be handed to it later.
    ahead: Option<u64>,
}

impl Feed {
    /// `ahead` as the protocol has it.
    pub(super) const fn new(executor: Arc<Executor>, ahead: Option<u64>) -> Self {
        Self { executor, ahead }
    }

    /// Hands an output in, unless it is a message of a block too far ahead: that waits with the
    /// protocol, which hands it on again as the head moves, and leaves the room to what is next.
    pub(super) fn push(&self, output: &Output) {
        let last = self.ahead.zip(head(&self.executor)).map(|(ahead, head)| head + ahead);
        match output {
            Output::Message(delivered) if last.is_some_and(|last| delivered.key.block > last) => {
                self.executor.stats().note_held_back();
            }
            // What there is no room for is counted, and handed in again later.
            _ => {
                let _ = self.executor.try_push(output);
            }
        }
    }
}

/// The block that the next one stands on, if blocks follow one another.
fn head(executor: &Executor) -> Option<u64> {
    let heads = executor.view().heads().filter(|_| executor.has_chain())?;
    Some(heads.latest.number())
}

#[cfg(test)]
mod tests {
    use fragcast_execution::testing::{Bench, block, gateway, output};

    use super::*;

    #[test]
    fn what_is_too_far_ahead_leaves_its_room_to_what_is_next() {
        let Bench { executor, .. } = Bench::new();
        let executor = Arc::new(executor);
        let ready = std::time::Instant::now();
        while head(&executor).is_none() {
            assert!(ready.elapsed() < fragcast_execution::testing::GUARD);
            std::thread::yield_now();
        }
        let mut gateway = gateway();
        let blocks: Vec<_> = (1..=5).map(|n| block(&mut gateway, 1_000 + 2 * n)).collect();
        let stats = || executor.stats().snapshot();
        for (ahead, held_back) in [(Some(3), 8), (None, 8)] {
            let feed = Feed::new(Arc::clone(&executor), ahead);
            for message in blocks[1..].iter().flatten() {
                feed.push(&output(0, message));
            }
            assert_eq!((stats().held_back, stats().overrun), (held_back, 0));
        }
    }
}
