//! From what happens on the overlay to outputs in order, for everybody who takes them.

use std::sync::Arc;
use std::time::Duration;

use fragcast_turbine::health::Change;
use fragcast_turbine::{Delivered, Event};
use tokio::sync::{broadcast, mpsc};

use super::{Shared, Tap};

use fragcast_turbine::output::{Ordered, Output, Times};
use fragcast_turbine::sequencer::{Fate, Sequencer};
use fragcast_upstream::engine::EngineHandle;

/// Turns what happens into outputs. It never waits for anybody, since the driver waits for it.
pub(super) struct Pump {
    pub(super) shared: Arc<Shared>,
    pub(super) sequencer: Sequencer,
    pub(super) outputs: broadcast::Sender<Output>,
    pub(super) engine: Option<EngineHandle>,
    pub(super) tap: Option<Tap>,
}

impl Pump {
    pub(super) async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut own: mpsc::Receiver<Ordered>,
    ) {
        loop {
            let outputs = tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.event(event),
                    None => break,
                },
                Some(ordered) = own.recv() => self.message(ordered),
            };
            self.hand_on(outputs);
        }
        if let Some(engine) = self.engine {
            engine.shutdown().await;
        }
    }

    fn message(&mut self, ordered: Ordered) -> Vec<Output> {
        let mut outputs = Vec::new();
        let via = ordered.via;
        let fate = self.sequencer.push(ordered, &mut outputs);
        let first = matches!(fate, Fate::Passed | Fate::Waiting);
        self.shared.update(|p| {
            *p.fates.entry(fate.label()).or_default() += 1;
            if first {
                *p.first.entry(via.name()).or_default() += 1;
            }
        });
        outputs
    }

    fn event(&mut self, event: Event) -> Vec<Output> {
        let mut outputs = Vec::new();
        let kind = match event {
            Event::Message(delivered) => {
                let ordered = ordered(*delivered);
                let times = ordered.times;
                let took = times.complete_at.saturating_sub(times.sent_at);
                let kind = ordered.message.message().kind().name();
                // Only shreds say when a message was sent.
                if ordered.via.proves_attempt() {
                    self.shared.metrics.latency(kind, Duration::from_nanos(took));
                }
                return self.message(ordered);
            }
            Event::BadParity(key) => {
                tracing::warn!(?key, "the leader's parity is inconsistent");
                self.sequencer.bad_parity(key.block, key.attempt, &mut outputs);
                "bad_parity"
            }
            Event::BadMessage { key, reason } => {
                tracing::warn!(?key, reason, "a leader sent a message that is none");
                "bad_message"
            }
            Event::Equivocation { gateway, evidence } => {
                let proof = alloy_primitives::hex::encode(evidence.proof.to_bytes());
                tracing::error!(%gateway, proof, "a gateway equivocated");
                "equivocation"
            }
            Event::Bar { peer, outcome } => {
                let peer = self.shared.network.members.get(peer.number()).map(|m| m.peer());
                tracing::warn!(?peer, reason = outcome.label(), "barred a peer");
                "barred"
            }
            Event::Health(change) => {
                let (from, to) = (change.from.name(), change.to.name());
                let (reason, why) = (change.reason.name(), change.reason.describe());
                let Change { block, dwell, .. } = change;
                tracing::warn!(from, to, reason, block, dwell, "{why}");
                self.shared.note_change(change);
                "fallback"
            }
            Event::Race(race) => {
                self.shared.note_race(&race);
                return outputs;
            }
            Event::Mismatch { peer, what } => {
                let peer = self.shared.network.members.get(peer.number()).map(|m| m.peer());
                tracing::warn!(?peer, "a peer's {what} differs: compare the network files");
                "mismatch"
            }
            // What becomes of its peers is the driver's business.
            Event::Epoch(change) => {
                tracing::info!(began = change.began, ended = change.ended, "another epoch");
                "epoch"
            }
            _ => return outputs,
        };
        self.shared.update(|p| *p.events.entry(kind).or_default() += 1);
        outputs
    }

    fn hand_on(&mut self, outputs: Vec<Output>) {
        let retracted = outputs.iter().filter(|o| matches!(o, Output::Retracted { .. })).count();
        let (opened, sealed) = (self.sequencer.opened(), self.sequencer.sealed());
        let waiting = self.sequencer.waiting();
        self.shared.update(|p| {
            (p.opened, p.sealed, p.waiting) = (opened, sealed, waiting);
            *p.events.entry("retracted").or_default() += retracted as u64;
        });
        for output in outputs {
            if let Output::Retracted { block, attempt, reason } = &output {
                tracing::info!(block, attempt, reason = reason.name(), "retracted");
            }
            if let Some(tap) = &mut self.tap {
                tap(&output);
            }
            if let Some(engine) = &self.engine {
                engine.try_forward(output.clone());
            }
            if let Some(executor) = &self.shared.executor {
                executor.try_push(&output);
            }
            // Nobody may be listening.
            let _ = self.outputs.send(output);
        }
    }
}

fn ordered(delivered: Delivered) -> Ordered {
    let Delivered { key, message, sent_at, first_shred_at, complete_at, via, .. } = delivered;
    Ordered {
        block: key.block,
        attempt: key.attempt,
        index: key.message,
        message,
        times: Times {
            sent_at: sent_at.as_nanos(),
            first_shred_at: first_shred_at.as_nanos(),
            complete_at: complete_at.as_nanos(),
        },
        via,
    }
}
