//! Validation of gossip messages: they are decoded, and their gateway's signature is checked,
//! before they go anywhere.
//!
//! It is pure, and separate from the protocol: recovering a signature takes 42 µs, and a peer that
//! floods gossip must not delay shreds. The driver checks in the task that talks to libp2p, and
//! hands on verified messages.
//!
//! # Guarantees
//! * What is forwarded or handed on was signed by the gateway that the schedule of its block's
//!   epoch names, or by one of its substitutes. Every message is handed on at most once as long as its block is remembered.
//! * The cheapest question comes first: length, layout, window, form of the signature; only
//!   then the tree hash, and last of all one recovery, never a second.
//! * A message that fails leaves nothing behind. Those that pass are remembered within the
//!   bounds of [`seen`], 7 MB at most, which only gateways can fill.
//! * libp2p holds a rejection against the sender, so *reject* is for what no node could have
//!   forwarded, whatever its gateways, its window or its memory; everything else is *ignored*.
//!   Operators change the list of gateways one node at a time, so a signer that is none of ours
//!   proves nothing. It costs a recovery, and has a low rate of its own in the driver.
//!
//! # Other forms of a signature
//! The signed root says nothing of the signature's form, so anybody can turn a valid message
//! into another byte string with another v. To based-op's nodes that is a new message id under
//! a valid signature, and the frag that comes a second time makes based-op-geth throw its whole
//! unsealed block away. Hence:
//!
//! * v of 27 or 28 is handed on, since its content is as good as any, but not forwarded. Nor may
//!   anybody publish it in canonical form because of it: that would be the second message id
//!   that does the harm, made by ourselves.
//! * The canonical form that comes after it *is* forwarded ([`GossipOutcome::Canonical`]).
//!   Otherwise whoever is faster with another v could keep the original from everybody that
//!   hears it through us.
//! * High s is not taken, and thrown away before anything is hashed: a gateway whose signer makes
//!   it must lower it before it publishes, as our leaders do. But whoever sends it is not to
//!   blame, for anybody can make the high form of a good signature, and based-op's nodes forward
//!   it: were it held against them, one attacker could have all of them barred.

pub mod seen;

use std::sync::Arc;

use alloy_primitives::Bytes;
use fragcast_shredder::signature::SIGNATURE_LEN;
use fragcast_shredder::{
    Dialect, Kind, MAX_MESSAGE_LEN, Message, Signature, SignatureError, SignedMessage,
    VerifiedMessage,
};

use super::outcome::GossipOutcome;
use crate::epoch::EpochsView;
use seen::{Known, MAX_BLOCKS, Seen};

/// Transactions of a frag that may have any length.
const CROWD: usize = 1_024;

/// Bytes of a transaction, on average, where there are more than [`CROWD`].
const MIN_TX_LEN: usize = 52;

/// The verdict for libp2p.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Forward it.
    Accept,
    /// Forget it; nobody is to blame.
    Ignore,
    /// Forget it, and hold it against the sender.
    Reject,
}

/// The outcome of a message.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The verdict for libp2p: [`GossipOutcome::verdict`].
    pub verdict: Verdict,
    /// The reason, to be counted.
    pub outcome: GossipOutcome,
    /// The message for the protocol, each once.
    pub message: Option<VerifiedMessage>,
}

/// The gate of one node.
#[derive(Debug, Clone)]
pub struct Gate {
    dialect: Dialect,
    epochs: Arc<EpochsView>,
    /// Our epochs may not be all there are.
    behind: bool,
    window: (u64, u64),
    seen: Seen,
}

impl Gate {
    /// A gate that accepts every block until a window is set.
    pub const fn new(dialect: Dialect, epochs: Arc<EpochsView>) -> Self {
        Self { dialect, epochs, behind: false, window: (0, u64::MAX), seen: Seen::new() }
    }

    /// Whose signatures count from now on; `behind` if there may be epochs that we do not know.
    /// What has passed already stays known.
    pub fn set_epochs(&mut self, epochs: Arc<EpochsView>, behind: bool) {
        (self.epochs, self.behind) = (epochs, behind);
    }

    /// Blocks below `low` and above `high` are ignored from now on, and their entries are dropped.
    /// A window wider than [`MAX_BLOCKS`] is cut from below, because its memory would not suffice
    /// and gossip brings new blocks. `u64::MAX` says that the head is unknown.
    pub fn set_window(&mut self, low: u64, high: u64) {
        let low = match high {
            u64::MAX => low,
            _ => low.max(high.saturating_sub(MAX_BLOCKS as u64 - 1)),
        };
        self.window = (low, high);
        self.seen.keep(low, high);
    }

    /// The number of messages that are remembered.
    pub fn remembered(&self) -> usize {
        self.seen.len()
    }

    /// Judges data that came on the topic of `kind`.
    pub fn check(&mut self, kind: Kind, data: &Bytes) -> Checked {
        let (outcome, message) = match self.judge(kind, data) {
            Ok(judged) => judged,
            Err(outcome) => (outcome, None),
        };
        Checked { verdict: outcome.verdict(), outcome, message }
    }

    fn judge(
        &mut self,
        kind: Kind,
        data: &Bytes,
    ) -> Result<(GossipOutcome, Option<VerifiedMessage>), GossipOutcome> {
        if data.len() > MAX_MESSAGE_LEN {
            return Err(GossipOutcome::TooLong);
        }
        let (signature, body) =
            data.split_first_chunk::<SIGNATURE_LEN>().ok_or(GossipOutcome::Truncated)?;
        let message = Message::decode_body(kind, self.dialect, &data.slice_ref(body))?;
        let (block, index) = (message.block(), message.index());
        if block < self.window.0 {
            return Err(GossipOutcome::Past);
        }
        if block > self.window.1 {
            return Err(GossipOutcome::Future);
        }
        // Of a block before the oldest epoch nobody knows who should have signed it.
        let epoch = self.epochs.at(block).ok_or(GossipOutcome::Past)?;
        let (signature, is_canonical) = form(signature)?;
        if is_crowded(&message) {
            return Err(GossipOutcome::Crowded);
        }
        // Here the tree is hashed, which of a long message takes longer than all the rest.
        let signed = SignedMessage::new(message, signature);
        let (index_or_0, root) = (index.unwrap_or(0), signed.root());
        let known = Known { kind, rank: 0, index: index_or_0, root, signature };
        // The same signature over the same root needs no second recovery. Any other one does:
        // were a known root ignored whatever stands before it, junk would cost a peer nothing,
        // and the recovery that it saves is not more than any other junk costs.
        if let Some(first) = self.seen.get(block, &known) {
            if first.signature != signature {
                // The mirrored point: it is another key's signature, never the gateway's.
                return Err(GossipOutcome::WrongSigner);
            }
            return Err(self.seen.note(block, first, is_canonical));
        }
        let gateways = epoch.schedule().ranked(block).map(|(_, gateway)| gateway);
        let message = match signed.verify_among(gateways) {
            Ok(message) => message,
            Err(SignatureError::WrongSigner { found, .. }) if self.epochs.is_gateway(&found) => {
                // Our schedule may be behind: a miss is ignored, not punished.
                return Err(GossipOutcome::NotScheduled);
            }
            Err(SignatureError::WrongSigner { .. }) if self.behind => {
                return Err(GossipOutcome::OtherTable);
            }
            Err(error) => return Err((&error).into()),
        };
        if index.is_none() {
            // To based-op's nodes, whose numbers are u64s, this is a valid message. So it is the
            // gateway's doing, and not to be held against an honest node that forwards it;
            // without the gateway's signature nobody gets here.
            return Err(GossipOutcome::Index);
        }
        let rank = epoch.lead(block, &message.gateway()).map_or(0, |lead| lead.rank);
        let outcome = self.seen.note(block, Known { rank, ..known }, is_canonical);
        let is_new = matches!(outcome, GossipOutcome::Accepted | GossipOutcome::OtherV);
        Ok((outcome, is_new.then_some(message)))
    }
}

/// Whether a frag has more transactions than its bytes can hold. The tree hash takes 26 hashes
/// for each, however short, so that 10 MiB of empty ones would keep the gate busy for many
/// seconds, and nobody could be blamed before. Nothing that can be executed is lost: a signature
/// has 64 bytes, a deposit's source hash and sender have 52. Ignored and not rejected, since
/// a gateway may have signed it.
pub(crate) fn is_crowded(message: &Message) -> bool {
    let Message::Frag(frag) = message else { return false };
    let bytes: usize = frag.txs.iter().map(|tx| tx.len()).sum();
    frag.txs.len() > CROWD && bytes < frag.txs.len() * MIN_TX_LEN
}

/// The signature with v of 0 or 1, and whether it came so.
fn form(bytes: &[u8; SIGNATURE_LEN]) -> Result<(Signature, bool), GossipOutcome> {
    let mut bytes = *bytes;
    let is_canonical = !matches!(bytes[SIGNATURE_LEN - 1], 27 | 28);
    if !is_canonical {
        bytes[SIGNATURE_LEN - 1] -= 27;
    }
    let signature = Signature::from_bytes(bytes);
    if signature.is_canonical() {
        return Ok((signature, is_canonical));
    }
    // v and the range of r and s are right, or nobody made it.
    let made = bytes[SIGNATURE_LEN - 1] <= 1 && signature.normalise().is_ok();
    Err(if made { GossipOutcome::HighS } else { GossipOutcome::BadSignature })
}

#[cfg(test)]
mod tests;
