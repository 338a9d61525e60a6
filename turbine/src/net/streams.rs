//! Frames on unidirectional streams.
//!
//! ```text
//! class u8 │ { length u32 LE │ frame }*
//! ```
//!
//! Class 0 carries control frames, class 1 shreds for a peer whose path takes no datagrams of
//! their size. A frame longer than its class allows ends the stream.

use std::sync::Arc;

use bytes::Bytes;
use fragcast_shredder::shred::MAX_SHRED_LEN;
use quinn::{Connection, RecvStream};
use tokio::sync::mpsc;

use super::connections::{Dropped, Received};
use super::inbox::{FrameRoom, GUEST_FRAME, Inbox};
use super::tally::Tally;
use crate::control::MAX_CONTROL_LEN;
use crate::peer::PeerKey;

/// Frames waiting for a stream; shreds of 1,152 bytes make that 590 kB a connection.
const QUEUE: usize = 512;

/// The contents of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Control = 0,
    Shreds = 1,
}

impl Class {
    const fn max_len(self) -> usize {
        match self {
            Self::Control => MAX_CONTROL_LEN,
            Self::Shreds => MAX_SHRED_LEN,
        }
    }
}

/// The sending end of one class of one connection. Frames that do not fit its queue are
/// dropped and counted.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Bytes>,
    drops: Arc<Tally<Dropped>>,
}

impl Writer {
    /// Starts the task that writes; it ends with the connection or with the last writer.
    pub(super) fn spawn(connection: Connection, class: Class, drops: Arc<Tally<Dropped>>) -> Self {
        let (queue, mut frames) = mpsc::channel::<Bytes>(QUEUE);
        tokio::spawn(async move {
            let mut stream = None;
            while let Some(frame) = frames.recv().await {
                let opened = match stream.take() {
                    Some(stream) => stream,
                    None => {
                        let Ok(mut opened) = connection.open_uni().await else { return };
                        // Control keeps its order and speed beside a queue of shreds.
                        let _ = opened.set_priority(1 - class as i32);
                        if opened.write_all(&[class as u8]).await.is_err() {
                            return;
                        }
                        opened
                    }
                };
                let mut opened = opened;
                let len = (frame.len() as u32).to_le_bytes();
                let mut chunks = [Bytes::copy_from_slice(&len), frame];
                if opened.write_all_chunks(&mut chunks).await.is_err() {
                    return;
                }
                stream = Some(opened);
            }
            if let Some(mut stream) = stream {
                let _ = stream.finish();
            }
        });
        Self { queue, drops }
    }

    pub(super) fn send(&self, frame: Bytes) {
        if self.queue.try_send(frame).is_err() {
            self.drops.count(Dropped::StreamQueue);
        }
    }
}

/// Reads the streams of a peer.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub(super) peer: PeerKey,
    pub(super) inbox: Inbox,
    /// What the peer's frames may take, those of all its streams together.
    pub(super) room: FrameRoom,
}

impl Reader {
    /// Reads all streams of a connection until it ends.
    pub(super) async fn read(self, connection: Connection) {
        while let Ok(stream) = connection.accept_uni().await {
            tokio::spawn(self.clone().read_stream(stream, connection.clone()));
        }
    }

    async fn read_stream(self, mut stream: RecvStream, connection: Connection) {
        let mut class = [0; 1];
        if stream.read_exact(&mut class).await.is_err() {
            return;
        }
        let class = match class[0] {
            0 => Class::Control,
            1 => Class::Shreds,
            // A class of a later version.
            _ => return drop(stream.stop(quinn::VarInt::from_u32(1))),
        };
        loop {
            let mut len = [0; 4];
            if stream.read_exact(&mut len).await.is_err() {
                return;
            }
            let len = u32::from_le_bytes(len) as usize;
            let guest = self.room.is_guest();
            if len > class.max_len() || (guest && (len > GUEST_FRAME || class == Class::Shreds)) {
                return drop(stream.stop(quinn::VarInt::from_u32(2)));
            }
            // Waiting here is backpressure on the stream's own flow control, and on nothing else;
            // before a byte of the frame is allocated.
            let room = tokio::select! {
                room = self.room.take(len) => room,
                // Nobody takes what waits any more: the room never comes.
                _ = connection.closed() => None,
            };
            let Some(room) = room else { return };
            let mut frame = vec![0; len];
            if stream.read_exact(&mut frame).await.is_err() {
                return;
            }
            let what = match class {
                Class::Control => Received::Control(frame.into()),
                Class::Shreds => Received::Shred(frame.into()),
            };
            self.inbox.push_frame(self.peer, guest, what, room);
        }
    }
}
