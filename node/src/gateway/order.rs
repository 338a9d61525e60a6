//! The order of a gateway's messages: what it may hand in next. Pure.
//!
//! A message is checked with [`Leading::check`] and, once it has been sent, committed with
//! [`Leading::commit`]; a message that could not be sent leaves no trace.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256};
use fragcast_shredder::{Message, MessageKey, VerifiedMessage};

/// Blocks that may be open or remembered at a time; about 70 kB each at a thousand frags.
const MAX_BLOCKS: usize = 72;

/// Why a gateway's message is out of order. The text is the answer to the gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// The block has no Env yet.
    #[error("block {0} is not open: send its Env first")]
    NotOpen(u64),
    /// Frags are missing.
    #[error("gap: block {block} expects frag {expected}, not {found}")]
    Gap {
        /// Block.
        block: u64,
        /// The next sequence number.
        expected: u64,
        /// The sequence number in the message.
        found: u64,
    },
    /// Another message was sent in this place.
    #[error(
        "frag {seq} of block {block} was sent with other content: send a new Env to rebuild the block"
    )]
    Conflict {
        /// Block.
        block: u64,
        /// Sequence number.
        seq: u64,
    },
    /// The last frag has been sent.
    #[error("block {0} had its last frag: only its Seal can follow")]
    AfterLast(u64),
    /// The Seal's number of frags is wrong.
    #[error("the Seal of block {block} counts {found} frags, {sent} were sent")]
    Count {
        /// Block.
        block: u64,
        /// The number in the Seal.
        found: u64,
        /// The number of frags that were sent.
        sent: u64,
    },
    /// The block is sealed.
    #[error("block {0} is sealed already: send a new Env to rebuild it")]
    Sealed(u64),
    /// More frags than a header can number.
    #[error("block {0} has more frags than can be numbered")]
    TooMany(u64),
    /// The block is too old.
    #[error("block {0} is too old")]
    TooOld(u64),
}

#[derive(Debug)]
struct Open {
    attempt: u8,
    env: B256,
    frags: Vec<B256>,
    last: bool,
    seal: Option<B256>,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The message was sent before: there is nothing to send.
    Again,
    /// The message opens the next attempt of its block; the journal numbers it.
    Open,
    /// The message goes out under this key.
    Send(MessageKey),
}

/// The blocks this node leads, each for one gateway: another one is its substitute.
#[derive(Debug, Default)]
pub struct Leading {
    blocks: BTreeMap<(u64, Address), Open>,
}

impl Leading {
    /// Decides what to do with a message.
    ///
    /// # Errors
    /// [`OrderError`].
    pub fn check(&self, message: &VerifiedMessage) -> Result<Step, OrderError> {
        let block = message.message().block();
        let root = message.root();
        if self.blocks.len() >= MAX_BLOCKS
            && self.blocks.keys().next().is_some_and(|(oldest, _)| block < *oldest)
        {
            return Err(OrderError::TooOld(block));
        }
        let open = self.blocks.get(&(block, message.gateway()));
        let Some(index) = message.message().index() else {
            return Err(OrderError::TooMany(block));
        };
        let key = |attempt| MessageKey { block, attempt, message: index };
        match (message.message(), open) {
            (Message::Env(_), Some(open)) if open.env == root => Ok(Step::Again),
            (Message::Env(_), _) => Ok(Step::Open),
            (_, None) => Err(OrderError::NotOpen(block)),
            (Message::Frag(frag), Some(open)) => {
                let expected = open.frags.len() as u64;
                if frag.seq < expected {
                    // In range: below the number of frags that there are.
                    return if open.frags[frag.seq as usize] == root {
                        Ok(Step::Again)
                    } else {
                        Err(OrderError::Conflict { block, seq: frag.seq })
                    };
                }
                if open.seal.is_some() {
                    return Err(OrderError::Sealed(block));
                }
                if open.last {
                    return Err(OrderError::AfterLast(block));
                }
                if frag.seq > expected {
                    return Err(OrderError::Gap { block, expected, found: frag.seq });
                }
                Ok(Step::Send(key(open.attempt)))
            }
            (Message::Seal(seal), Some(open)) => match open.seal {
                Some(sealed) if sealed == root => Ok(Step::Again),
                Some(_) => Err(OrderError::Sealed(block)),
                None if seal.total_frags != open.frags.len() as u64 => Err(OrderError::Count {
                    block,
                    found: seal.total_frags,
                    sent: open.frags.len() as u64,
                }),
                None => Ok(Step::Send(key(open.attempt))),
            },
        }
    }

    /// Commits a message that [`check`](Self::check) allowed and that was sent under `key`.
    pub fn commit(&mut self, key: MessageKey, message: &VerifiedMessage) {
        let root = message.root();
        let place = (key.block, message.gateway());
        match message.message() {
            Message::Env(_) => {
                let attempt = key.attempt;
                let open = Open { attempt, env: root, frags: Vec::new(), last: false, seal: None };
                self.blocks.insert(place, open);
                while self.blocks.len() > MAX_BLOCKS {
                    self.blocks.pop_first();
                }
            }
            Message::Frag(frag) => {
                if let Some(open) = self.blocks.get_mut(&place) {
                    open.frags.push(root);
                    open.last = frag.is_last;
                }
            }
            Message::Seal(_) => {
                if let Some(open) = self.blocks.get_mut(&place) {
                    open.seal = Some(root);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
