//! The live picture of a node: what the page in a browser and `fragcast top` show.
//!
//! `fragcast_live` gives one, `fragcast_subscribeLive` one ten times a second, as far as it changes
//! (`live/hub.rs`). What came of the last blocks is noted in a book (`live/book.rs`), on the threads
//! that serve: nothing that carries messages waits for a reader. Everything else is read off the
//! state when a picture is made (`live/picture.rs`), which nobody does while nobody looks.

mod book;
pub mod hub;
mod picture;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};
use std::time::Duration;

use fragcast_execution::executor::{BlockReport, ChainEvent};
use fragcast_port::Memory;
use fragcast_shredder::MessageKey;
use fragcast_turbine::net::Spread;
use fragcast_turbine::output::Output;
use fragcast_turbine::protocol::Race;
use serde_json::{Map, Value};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::state::NodeState;
use book::Book;
use hub::{Hub, Names, Sections};

/// The names of a node's own hub.
pub const NAMES: Names = Names {
    get: "fragcast_live",
    subscribe: "fragcast_subscribeLive",
    notification: "fragcast_livePicture",
    unsubscribe: "fragcast_unsubscribeLive",
};

/// What of a node's picture is noted as it happens.
#[derive(Debug, Default)]
pub struct Live {
    book: Mutex<Book>,
    /// The tree that was drawn last.
    tree: Mutex<Option<(MessageKey, Value)>>,
    /// Who makes its pictures: it has the node's state, and so is not kept alive from here.
    hub: OnceLock<Weak<Hub>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    /// The executor has a verdict.
    pub(crate) fn verdict(&self, report: &BlockReport) {
        lock(&self.book).verdict(report);
    }

    /// A message came both ways. Whoever calls carries messages and waits for nobody who draws: a lead
    /// that finds the book in use is left out of the picture, and counted elsewhere all the same.
    pub(crate) fn race(&self, race: &Race) {
        match self.book.try_lock() {
            Ok(mut book) => book.race(race),
            Err(TryLockError::Poisoned(book)) => book.into_inner().race(race),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// How many read its pictures, and how many were dropped for being slow.
    pub(crate) fn readers(&self) -> (usize, u64) {
        let hub = self.hub.get().and_then(Weak::upgrade);
        hub.map_or((0, 0), |hub| (hub.readers(), hub.slow()))
    }

    /// The tree of a message, drawn once for all who ask while it is the newest.
    pub(crate) fn tree(&self, state: &NodeState, spread: &Spread) -> Value {
        let mut drawn = lock(&self.tree);
        match &*drawn {
            Some((key, tree)) if *key == spread.key => tree.clone(),
            _ => {
                let tree = picture::tree(state, spread);
                *drawn = Some((spread.key, tree.clone()));
                tree
            }
        }
    }

    /// The sections of the picture, at this moment.
    pub fn sections(&self, state: &NodeState) -> Sections {
        let net = state.net.snapshot();
        let (last, open, blocks, noted) = {
            let book = lock(&self.book);
            (book.last(), book.open(), book.blocks(), book.latency())
        };
        vec![
            ("node", picture::node(state, &net)),
            ("chain", picture::chain(state, last)),
            ("way", picture::way(state, &net)),
            ("open", open),
            ("blocks", blocks),
            ("counts", picture::counts(state, &net)),
            ("latency", picture::latency(state, &net, noted)),
            ("peers", picture::peers(state, &net)),
            ("linked", picture::linked(&net)),
            ("tree", net.spread.as_ref().map_or(Value::Null, |spread| self.tree(state, spread))),
        ]
    }

    /// The picture as one value.
    pub fn picture(&self, state: &NodeState) -> Value {
        let sections = self.sections(state).into_iter();
        Value::Object(sections.map(|(name, of)| (name.to_owned(), of)).collect::<Map<_, _>>())
    }
}

/// The hub of a node's pictures.
pub fn hub(state: &Arc<NodeState>, patience: Duration, memory: Arc<Memory>) -> Arc<Hub> {
    let painted = Arc::clone(state);
    let hub = Hub::new(Box::new(move || painted.live.sections(&painted)), patience, memory);
    // A node has one hub: the first, whose readers are counted.
    let _ = state.live.hub.set(Arc::downgrade(&hub));
    hub
}

/// Notes what is handed on and what is executed, until the node ends or the task is aborted.
pub async fn follow(
    state: Arc<NodeState>,
    mut outputs: broadcast::Receiver<Output>,
    mut chain: Option<broadcast::Receiver<ChainEvent>>,
) {
    loop {
        let event = async {
            match &mut chain {
                Some(events) => events.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // A message is noted before what its execution gave.
            biased;
            output = outputs.recv() => match output {
                Ok(output) => lock(&state.live.book).note(&output),
                // What was missed here is missing in the picture, and nowhere else.
                Err(RecvError::Lagged(missed)) => {
                    tracing::debug!(missed, "the live picture lacks messages");
                }
                Err(RecvError::Closed) => return,
            },
            event = event => match event {
                Ok(ChainEvent::Frag(snapshot)) => {
                    let gas = snapshot.frags.last().map_or(0, |frag| {
                        frag.txs.iter().map(|executed| executed.gas_used).sum()
                    });
                    let at = state.net.clock().now();
                    let (block, count) = (snapshot.header.number, snapshot.frags.len());
                    lock(&state.live.book).executed(block, snapshot.attempt, count, gas, at);
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => chain = None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use fragcast_shredder::Kind;
    use fragcast_turbine::Timestamp;

    use super::*;

    #[test]
    fn a_lead_waits_for_nobody_who_draws() {
        let (live, at) = (Live::default(), Timestamp::from_micros(1));
        let key = MessageKey { block: 1, attempt: 0, message: 0 };
        let race = Race { key, kind: Kind::Env, overlay_at: at, gossip_at: at };
        let drawing = lock(&live.book);
        live.race(&race);
        drop(drawing);
        live.race(&race);
    }

    #[test]
    fn readers_are_counted_while_there_is_a_hub() {
        let live = Live::default();
        assert_eq!(live.readers(), (0, 0));
        let paint = Box::new(|| vec![("still", Value::Null)]);
        let hub = Hub::new(paint, Duration::from_secs(1), Memory::new(1024 * 1024));
        live.hub.set(Arc::downgrade(&hub)).unwrap();
        let reader = hub.read();
        assert_eq!(live.readers(), (1, 0));
        drop(reader);
        assert_eq!(live.readers(), (0, 0));
    }
}
