//! What comes out of the protocol beside transmits: events and counters.

use std::sync::Arc;

use alloy_primitives::Address;
use fragcast_shredder::{Kind, MessageKey};

use crate::control::{Difference, Evidence, SignedTableNotice};
use crate::delegation::SignedDelegation;
use crate::health::Change;
use crate::outcome::Outcome;
use crate::output::Delivered;
use crate::peer::{PeerId, PeerKey};
use crate::route::Route;
use crate::tables::Unfit;
use crate::time::Timestamp;

/// A message that came both ways: how much earlier one of them was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Race {
    /// Block and index; the attempt is the overlay's.
    pub key: MessageKey,
    /// Env, frag or Seal.
    pub kind: Kind,
    /// When the overlay had it whole and verified.
    pub overlay_at: Timestamp,
    /// When gossip had it verified.
    pub gossip_at: Timestamp,
}

/// An epoch came or went, and peers with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EpochChange {
    /// First block of the epoch that was taken.
    pub began: Option<u64>,
    /// First block of an epoch that was forgotten, the newest of them if there are several.
    pub ended: Option<u64>,
    /// Peers that no living epoch named before. Their records are in the view. Who was a guest or a
    /// contact is among them, under the key that it has, and stays connected.
    pub joined: Vec<(PeerKey, PeerId)>,
    /// Peers that no living epoch names any more, and that are guests from now on: stop dialling
    /// them. Their connections stay.
    pub stayed: Vec<(PeerKey, PeerId)>,
    /// Peers that no living epoch names any more: close their connections and stop dialling them.
    /// The protocol has forgotten them already and takes nothing more from their keys. This node
    /// itself is among them if it is no member any more.
    pub left: Vec<(PeerKey, PeerId)>,
}

/// How messages of a block leave this node, which leads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Led {
    /// The block.
    pub block: u64,
    /// Its attempt.
    pub attempt: u8,
    /// The route.
    pub route: Route,
    /// The id of the plan.
    pub plan: u64,
    /// Its version; 0 for the one that configuration gives, which was not planned.
    pub version: u64,
}

/// What has become of a table of members.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableNews {
    /// This node holds with it from a block on.
    Taken {
        /// Its first block.
        from_block: u64,
        /// Its members.
        members: usize,
        /// Whether this node has made and named it, as a leader.
        own: bool,
    },
    /// It was named, and this node keeps the one that it has.
    Refused {
        /// Its first block.
        from_block: u64,
        /// Why.
        reason: Unfit,
    },
    /// Nobody who was asked had it.
    Missing {
        /// Its first block.
        from_block: u64,
    },
    /// A leader named two tables for one block: neither counts. Both are signed.
    Twice {
        /// The gateway.
        gateway: Address,
        /// The two notices.
        notices: Box<[SignedTableNotice; 2]>,
    },
}

/// An event for the application.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A message is whole and its gateway's signature verified.
    Message {
        /// The message, as the sequencer takes it. Of what came without shreds the attempt is a
        /// guess: gossip's frags name no Env.
        delivered: Arc<Delivered>,
        /// The peer whose shred or answer completed it; `None` for what came by gossip.
        from: Option<PeerKey>,
    },
    /// A message that was here before, of a block that the application lacks all the same: it is to
    /// be handed past the order of messages ([`Sequencer::again`](crate::sequencer::Sequencer::again))
    /// to what executes blocks, and to nobody else. Of a block all come in order from the Env on;
    /// those that are known already do nothing.
    Again(Arc<Delivered>),
    /// A message that was delivered is void: its leader's parity is inconsistent, and other
    /// nodes may not have been able to recover it.
    BadParity(MessageKey),
    /// A message was whole but contradicts its shreds or the schedule. It is the leader's fault.
    BadMessage {
        /// Block, attempt and index that its shreds claim.
        key: MessageKey,
        /// What is wrong with it, for the log.
        reason: String,
    },
    /// A gateway equivocated; the evidence convinces anybody.
    Equivocation {
        /// The gateway.
        gateway: Address,
        /// The evidence.
        evidence: Box<Evidence>,
    },
    /// A gateway signed two delegations with one sequence. Both signatures are good, so the two
    /// convince anybody. The first is the one that counts, as at everybody who knows both.
    DelegatedTwice {
        /// The gateway.
        gateway: Address,
        /// The two.
        delegations: Box<[SignedDelegation; 2]>,
    },
    /// The peer sent what only a broken or lying peer sends: close the connection.
    Bar {
        /// The peer to disconnect.
        peer: PeerKey,
        /// What it sent.
        outcome: Outcome,
    },
    /// This node counts on another way from now on.
    Health(Change),
    /// A message came both ways.
    Race(Race),
    /// A peer goes by other terms than this node, or by the same again.
    Terms {
        /// The peer.
        peer: PeerKey,
        /// In what it differs from this node; empty: in nothing any more.
        differences: Vec<Difference>,
    },
    /// The window was moved elsewhere, not by the progress of its own blocks: what is known of
    /// blocks outside these bounds is of no more use, and what is above them was a lie.
    Moved {
        /// The lowest block that is taken.
        low: u64,
        /// The highest.
        high: u64,
    },
    /// This node leads a block, or goes on with it in another way: messages of another length may
    /// have another route.
    Led(Led),
    /// The next leader has a message of this node's, which has asked it to say so
    /// ([`Config::hand_over`](super::Config::hand_over)).
    Held(MessageKey),
    /// No peer that was asked keeps these blocks, first and last, any more, which the application
    /// lacks; `None`: that is over.
    Gap(Option<(u64, u64)>),
    /// Another table of members is named, taken, or not taken.
    Table(TableNews),
    /// An epoch came or went. Publish [`Protocol::epochs`](super::Protocol::epochs) anew, dial who
    /// joined and disconnect who left.
    Epoch(Box<EpochChange>),
}

/// Numbers beside the outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Shreds this node sent on as a relay.
    pub forwarded: u64,
    /// Shreds it made itself out of a recovered set, because it owed them.
    pub owed: u64,
    /// Copies of shreds that it sent to guests.
    pub to_guests: u64,
    /// Shreds of its own that it sent as a leader.
    pub originated: u64,
    /// Validated shreds that it could not relay because it does not know the plan or route.
    pub unknown_plan: u64,
    /// Requests for plans that shreds name and it does not know.
    pub plans_asked: u64,
    /// Plans with which it answered such requests.
    pub plans_answered: u64,
    /// Plans of its own that it made from measured delays.
    pub plans_made: u64,
    /// Shreds sent to the children of a peer that is not connected.
    pub stepped_over: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Blocks that a substitute has opened.
    pub substituted: u64,
    /// Sets that were complete only after recovery.
    pub recovered: u64,
    /// Delivered messages of which shreds came by repair.
    pub repaired: u64,
    /// Frames of tips that it sent.
    pub tips: u64,
    /// Sets, or whole messages, that it asked a peer for.
    pub repair_requested: u64,
    /// Shreds that it got by asking and that were new.
    pub repair_useful: u64,
    /// Messages for which it stopped asking, because nobody answered.
    pub repair_given_up: u64,
    /// Shreds with which it answered requests.
    pub repair_answered_shreds: u64,
    /// Bytes with which it answered requests.
    pub repair_answered_bytes: u64,
    /// Messages without shreds with which it answered, to their end.
    pub repair_answered_messages: u64,
    /// Messages without shreds that it got as answers.
    pub repair_messages: u64,
    /// Requests for whole blocks that it sent, to catch up.
    pub blocks_requested: u64,
    /// Messages that it got in answer to them.
    pub blocks_messages: u64,
    /// Bytes with which it answered such requests.
    pub blocks_answered_bytes: u64,
    /// Messages that were handed to the application again, since it had lost them.
    pub handed_again: u64,
    /// Times that the window was moved elsewhere.
    pub window_moved: u64,
    /// Messages that came by gossip, new to it.
    pub gossip: u64,
    /// Those of them that gossip had first.
    pub gossip_first: u64,
    /// Messages that were handed to gossip, as their leader or for listeners.
    pub published: u64,
    /// Messages for gossip that were dropped because its driver did not take them.
    pub publish_dropped: u64,
    /// Peers that were asked for records of members.
    pub records_pulled: u64,
    /// Records of members that were new, of those that came.
    pub records_learnt: u64,
    /// Parts of tables that this node asked for.
    pub table_parts_asked: u64,
    /// Parts of tables with which it answered.
    pub table_parts_answered: u64,
}
