//! Turns the overlay's events into outputs in order, for all consumers.

use std::sync::{Arc, PoisonError};
use std::time::{Instant, SystemTime};

use alloy_primitives::hex;
use fragcast_turbine::health::{Change, Reason, State};
use fragcast_turbine::output::{Delivered, Output};
use fragcast_turbine::sequencer::{Fate, Sequencer};
use fragcast_turbine::{Event, TableNews};
use fragcast_upstream::engine::EngineHandle;
use tokio::sync::{broadcast, mpsc};

use super::Tap;
use super::feed::Feed;
use crate::log::{Limiter, Pace};
use crate::serve::state::{EventKind, NodeState};

/// Turns events into outputs. It never waits for a consumer, because the driver waits for it.
pub(super) struct Pump {
    pub(super) state: Arc<NodeState>,
    pub(super) sequencer: Sequencer,
    pub(super) outputs: broadcast::Sender<Output>,
    pub(super) engine: Option<EngineHandle>,
    pub(super) feed: Option<Feed>,
    pub(super) tap: Option<Tap>,
    /// Which lines of the log are due.
    pub(super) lines: Limiter<Line>,
}

/// A line of the log that may come again and again.
pub(super) type Line = (&'static str, String);

impl Pump {
    pub(super) async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut own: mpsc::Receiver<Arc<Delivered>>,
    ) {
        loop {
            let outputs = tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.event(event),
                    None => break,
                },
                Some(delivered) = own.recv() => self.message(delivered),
            };
            self.hand_on(outputs);
        }
        if let Some(engine) = self.engine {
            engine.shutdown().await;
        }
    }

    /// Whether a line of this kind is due; if so, how many were left out.
    fn due(&mut self, kind: &'static str, of: String, pace: Pace) -> Option<u64> {
        self.lines.pass((kind, of), pace, Instant::now())
    }

    fn message(&mut self, delivered: Arc<Delivered>) -> Vec<Output> {
        let mut outputs = Vec::new();
        let via = delivered.via;
        if delivered.rank == 0 && delivered.key.message == 0 {
            // Nothing is handed on again if it is what a substitute has sent before.
            self.state.note_opened(delivered.key.block, 0, delivered.message.gateway());
        }
        let fate = self.sequencer.push(delivered, &mut outputs);
        let first = matches!(fate, Fate::Passed | Fate::Waiting);
        self.state.update(|p| {
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
            Event::Message { delivered, .. } => {
                if let Some(took) = delivered.times.latency() {
                    let kind = delivered.message.message().kind();
                    self.state.note_latency(kind, delivered.via, took);
                }
                return self.message(delivered);
            }
            Event::Again(delivered) => {
                // Past the order of messages, and to the executor alone: all others have it.
                if let (Some(feed), Some(output)) = (&self.feed, self.sequencer.again(delivered)) {
                    feed.push(&output);
                }
                return outputs;
            }
            Event::BadParity(key) => {
                if let Some(left_out) = self.due("parity", String::new(), Pace::MINUTE) {
                    tracing::warn!(?key, left_out, "the leader's parity is inconsistent");
                }
                self.sequencer.bad_parity(key.block, key.attempt, &mut outputs);
                EventKind::BadParity
            }
            Event::BadMessage { key, reason } => {
                if let Some(left_out) = self.due("message", String::new(), Pace::MINUTE) {
                    tracing::warn!(?key, reason, left_out, "a leader sent a message that is none");
                }
                EventKind::BadMessage
            }
            Event::Equivocation { gateway, evidence } => {
                let proof = alloy_primitives::hex::encode(evidence.proof.to_bytes());
                if Some(evidence.proof.key) == self.state.leader_key {
                    tracing::error!(
                        "somebody else leads with this node's leader key, or its journal was lost: \
                         a key must never run in two places"
                    );
                }
                if let Some(left_out) = self.due("equivocation", gateway.to_string(), Pace::MINUTE)
                {
                    tracing::error!(%gateway, proof, left_out, "a gateway equivocated");
                }
                EventKind::Equivocation
            }
            Event::DelegatedTwice { gateway, delegations } => {
                let [counts, other] = *delegations;
                if let Some(left_out) = self.due("delegated", gateway.to_string(), Pace::MINUTE) {
                    tracing::error!(
                        %gateway, %counts, %other, left_out,
                        "a gateway signed two delegations with one sequence: each needs a higher \
                         one than the last; of these the first counts everywhere"
                    );
                }
                EventKind::DelegatedTwice
            }
            Event::Bar { peer, outcome } => {
                let peer = self.state.net.epochs().peers().peer(peer);
                let reason = outcome.label();
                if let Some(left_out) = self.due("barred", format!("{peer:?}"), Pace::MINUTE) {
                    tracing::warn!(?peer, reason, left_out, "barred a peer");
                }
                EventKind::Barred
            }
            Event::Health(change) => {
                let (from, to) = (change.from.name(), change.to.name());
                let (reason, mut why) = (change.reason.name(), change.reason.describe().to_owned());
                if change.reason == Reason::NoRelay {
                    why = format!("{why}: {}", self.state.hint());
                }
                let Change { block, dwell, .. } = change;
                // A network without blocks probes gossip again and again; that is told ever more
                // seldom. That the way itself changes is always told.
                let probe = change.to == State::Probing || change.from == State::Probing;
                let probe = probe && change.to != State::Gossip;
                let kind = format!("{to} {reason}");
                match probe.then(|| self.due("probe", kind, Pace::BACK_OFF)) {
                    None => tracing::warn!(from, to, reason, block, dwell, "{why}"),
                    Some(Some(left_out)) => {
                        tracing::warn!(from, to, reason, block, dwell, left_out, "{why}");
                    }
                    Some(None) => tracing::debug!(from, to, reason, block, dwell, "{why}"),
                }
                self.state.note_change(change);
                EventKind::Fallback
            }
            Event::Race(race) => {
                self.state.note_race(&race);
                return outputs;
            }
            Event::Led(led) => {
                self.state.note_led(led);
                return outputs;
            }
            Event::Terms { peer, differences } => {
                let Some(peer) = self.state.net.epochs().peers().peer(peer) else { return outputs };
                let differs = !differences.is_empty();
                for difference in &differences {
                    let kind = format!("{peer} {}", difference.name());
                    if let Some(left_out) = self.due("terms", kind, Pace::MINUTE) {
                        tracing::warn!(%peer, left_out, "a peer differs: {difference}");
                    }
                }
                let mut agreement =
                    self.state.agreement.lock().unwrap_or_else(PoisonError::into_inner);
                agreement.note(peer, differences);
                drop(agreement);
                if !differs {
                    return outputs;
                }
                EventKind::Mismatch
            }
            Event::Moved { low, high } => {
                tracing::info!(low, high, "the window of blocks that are taken was moved");
                self.sequencer.move_to(high, &mut outputs);
                EventKind::Moved
            }
            Event::Gap(Some((first, last))) => {
                let way_out = self.state.way_over_a_gap();
                tracing::warn!(first, last, "no peer keeps these blocks any more: {way_out}");
                EventKind::Gap
            }
            Event::Gap(None) => {
                tracing::info!("the blocks that no peer kept are not missing any more");
                return outputs;
            }
            // What becomes of its peers is the driver's business.
            Event::Epoch(change) => {
                tracing::info!(began = change.began, ended = change.ended, "another epoch");
                EventKind::Epoch
            }
            Event::Table(news) => table(news),
            _ => return outputs,
        };
        self.state.update(|p| *p.events.entry(kind).or_default() += 1);
        outputs
    }

    fn hand_on(&mut self, outputs: Vec<Output>) {
        let retracted = outputs.iter().filter(|o| matches!(o, Output::Retracted { .. })).count();
        let (opened, sealed) = (self.sequencer.opened(), self.sequencer.sealed());
        let waiting = self.sequencer.waiting();
        let has_message = outputs.iter().any(|o| matches!(o, Output::Message(_)));
        self.state.update(|p| {
            (p.opened, p.sealed, p.waiting) = (opened, sealed, waiting);
            if has_message {
                p.last_message = Some(SystemTime::now());
            }
            *p.events.entry(EventKind::Retracted).or_default() += retracted as u64;
        });
        for output in outputs {
            if let Output::Retracted { block, attempt, reason } = &output {
                tracing::info!(block, attempt, reason = reason.name(), "retracted");
            }
            if let Output::Message(delivered) = &output
                && delivered.key.message == 0
            {
                let (block, rank) = (delivered.key.block, delivered.rank);
                let gateway = delivered.message.gateway();
                self.state.note_opened(block, rank, gateway);
                if rank > 0
                    && let Some(left_out) =
                        self.due("substitute", gateway.to_string(), Pace::MINUTE)
                {
                    tracing::warn!(
                        block, rank, %gateway, left_out,
                        "a substitute leads: no Env of the scheduled gateway came in time"
                    );
                }
            }
            if let Some(tap) = &mut self.tap {
                tap(&output);
            }
            if let Some(engine) = &self.engine {
                engine.try_forward(output.clone());
            }
            if let Some(feed) = &self.feed {
                feed.push(&output);
            }
            // Nobody may be listening.
            let _ = self.outputs.send(output);
        }
    }
}

/// Tells the log what has become of a table of members.
fn table(news: TableNews) -> EventKind {
    match news {
        TableNews::Taken { from_block, members, own } => {
            tracing::info!(from_block, members, own, "another table of members");
            EventKind::TableTaken
        }
        TableNews::Refused { from_block, reason } => {
            tracing::warn!(from_block, "a leader's table of members is not taken: {reason}");
            EventKind::TableRefused
        }
        TableNews::Missing { from_block } => {
            tracing::warn!(from_block, "nobody who was asked has the table of members");
            EventKind::TableRefused
        }
        TableNews::Twice { gateway, notices } => {
            let [one, other] = notices.map(|signed| hex::encode(signed.notice.table));
            tracing::error!(%gateway, one, other, "a leader named two tables for one block");
            EventKind::TableTwice
        }
        _ => EventKind::TableRefused,
    }
}
