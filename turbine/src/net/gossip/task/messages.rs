//! Messages, out and in.

use bytes::Bytes;
use fragcast_shredder::Kind;
use libp2p::PeerId;
use libp2p::gossipsub::{self, MessageAcceptance, MessageId, PublishError, TopicHash};
use strum::{IntoStaticStr, VariantArray};
use tokio::time::Instant;

use super::super::known::Id;
use super::super::peers::Peer;
use super::Driver;
use crate::counts::labelled;
use crate::gossip::{GossipOutcome, Verdict, topic};
use crate::net::link::GossipInput;

/// Why a message was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Unpublished {
    /// Everybody who wants it has it.
    Duplicate,
    /// Nobody wants it.
    NoPeers,
    /// The queues of those who want it are full. It is in gossipsub's cache: they may ask for it.
    QueueFull,
    /// gossipsub takes no message of its size.
    TooLarge,
    /// Something else.
    Other,
}

labelled!(Unpublished);

impl Driver {
    /// Publishes a message, or sends it again to peers that have subscribed since.
    pub(super) fn publish(&mut self, kind: Kind, wire: &Bytes) {
        let name = self.topics.name(kind);
        let id = topic::message_id(name, wire);
        let hash = TopicHash::from_raw(name);
        let result = match self.known.served_at(&id) {
            Some(served) => match self.catch_up(kind, served, (hash, wire)) {
                Some(result) => result.map(|()| self.numbers.caught_up += 1),
                // Everybody who wants it has it.
                None => Err(PublishError::Duplicate),
            },
            None => {
                let gossipsub = &mut self.swarm.behaviour_mut().gossipsub;
                gossipsub.publish(hash, wire.to_vec()).map(|_| self.numbers.published += 1)
            }
        };
        // What only found full queues is in gossipsub's cache, and known there by its id.
        if matches!(result, Ok(()) | Err(PublishError::AllQueuesFull(_))) {
            self.known.serve(id);
        }
        let why = match &result {
            Ok(()) => return,
            Err(PublishError::Duplicate) => Unpublished::Duplicate,
            Err(PublishError::NoPeersSubscribedToTopic) => Unpublished::NoPeers,
            Err(PublishError::AllQueuesFull(_)) => Unpublished::QueueFull,
            Err(PublishError::MessageTooLarge) => Unpublished::TooLarge,
            Err(_) => Unpublished::Other,
        };
        self.not_published.count(why);
        let usual = matches!(why, Unpublished::Duplicate | Unpublished::NoPeers);
        if let (false, Err(error)) = (usual, result) {
            tracing::warn!(?kind, bytes = wire.len(), %error, "not published");
        }
    }

    /// Sends a message again to peers that have subscribed since; `None` if there are none.
    fn catch_up(
        &mut self,
        kind: Kind,
        served: u64,
        (topic, wire): (TopicHash, &Bytes),
    ) -> Option<Result<(), PublishError>> {
        let late = |peer: &Peer| peer.subscribed_at(kind).is_some_and(|at| at > served);
        if !self.peers.values().any(late) {
            return None;
        }
        let others: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| !late(peer)).map(|(id, _)| *id).collect();
        let own = *self.swarm.local_peer_id();
        let message = (topic, wire.to_vec());
        let salt = self.known.tick();
        let behaviour = self.swarm.behaviour_mut();
        Some(behaviour.publish_again(&self.hooks, salt, message, &others, &own))
    }

    /// Judges a message, hands it on, and gives gossipsub the verdict.
    pub(super) fn message(&mut self, from: PeerId, id: &MessageId, message: gossipsub::Message) {
        let now = Instant::now();
        let overrun = self.numbers.overrun;
        let foreign = self.foreign();
        let acceptance = match self.topics.kind(message.topic.as_str()) {
            // Of a peer that was barred while this was on its way here.
            _ if self.swarm.behaviour().doorman.is_barred(&from) => MessageAcceptance::Ignore,
            None => MessageAcceptance::Ignore,
            Some(kind) => self.judge(kind, message.data, id),
        };
        let foreign = self.foreign() > foreign;
        let gossipsub = &mut self.swarm.behaviour_mut().gossipsub;
        let limit = match (&acceptance, self.peers.get_mut(&from)) {
            // Not its fault.
            _ if self.numbers.overrun > overrun => Ok(()),
            (MessageAcceptance::Reject, Some(peer)) => peer.rejected(now, &self.rates),
            (_, Some(peer)) if foreign => peer.foreign(now, &self.rates),
            (MessageAcceptance::Ignore, Some(peer)) => peer.ignored(now, &self.rates),
            _ => Ok(()),
        };
        gossipsub.report_message_validation_result(id, &from, acceptance);
        if let Err(why) = limit {
            self.bar(from, why);
        }
    }

    /// Messages so far that may be right elsewhere.
    fn foreign(&self) -> u64 {
        let foreign = GossipOutcome::ALL.iter().filter(|outcome| outcome.is_foreign());
        foreign.map(|outcome| self.numbers.outcomes.get(*outcome)).sum()
    }

    fn judge(&mut self, kind: Kind, data: Vec<u8>, id: &MessageId) -> MessageAcceptance {
        // Room first: the gate lets a message pass once.
        let Ok(room) = self.inputs.try_reserve() else {
            self.numbers.overrun += 1;
            return MessageAcceptance::Ignore;
        };
        self.numbers.received += 1;
        self.numbers.received_bytes += data.len() as u64;
        let checked = self.gate.check(kind, &data.into());
        self.numbers.outcomes.count(checked.outcome);
        if let Some(message) = checked.message {
            let forwarded = checked.verdict == Verdict::Accept;
            room.send(GossipInput::Message { message: Box::new(message), forwarded });
        }
        match checked.verdict {
            Verdict::Accept => {
                if let Ok(id) = Id::try_from(id.0.as_slice()) {
                    self.known.serve(id);
                }
                MessageAcceptance::Accept
            }
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        }
    }
}
