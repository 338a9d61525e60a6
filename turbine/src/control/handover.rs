//! Acknowledgements of a leader's messages by the next leader.

use fragcast_shredder::MessageKey;

/// The sender leads these blocks, and asks the leader of the term after them to acknowledge each
/// message of theirs as soon as it is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct AckRequest {
    /// The first block.
    pub first: u64,
    /// The last block.
    pub last: u64,
}

/// The sender has a message of the receiver's whole and verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct MessageAck {
    /// Block number.
    pub block: u64,
    /// Attempt.
    pub attempt: u8,
    /// Message index.
    pub message: u16,
}

impl MessageAck {
    /// Of a message.
    pub const fn of(key: MessageKey) -> Self {
        Self { block: key.block, attempt: key.attempt, message: key.message }
    }

    /// The message.
    pub const fn key(self) -> MessageKey {
        MessageKey { block: self.block, attempt: self.attempt, message: self.message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Control;

    #[test]
    fn acknowledgements_are_pinned_and_bounded() {
        let request = Control::AckRequest(AckRequest { first: 30, last: 59 });
        let ack = Control::MessageAck(MessageAck { block: 31, attempt: 2, message: 7 });
        let pinned = ["191e000000000000003b00000000000000", "1a1f00000000000000020700"];
        for (frame, pinned) in [request, ack].into_iter().zip(pinned) {
            let bytes = frame.to_bytes();
            assert_eq!(alloy_primitives::hex::encode(&bytes), pinned);
            assert_eq!(Control::from_bytes(&bytes), Ok(frame));
            assert!(Control::from_bytes(&bytes[..bytes.len() - 1]).is_err());
            assert!(Control::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        }
    }
}
