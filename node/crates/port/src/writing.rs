//! The writing half of a WebSocket: one message after the other, without a copy of shared parts.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::control::Control;
use crate::outbox::{Item, Outbox};
use crate::stats::Dropped;
use crate::websocket::End;

/// What is written next.
enum Next {
    Frames(Vec<u8>),
    Message(Item),
    Nothing,
}

/// Writes until nothing more comes or the client takes nothing more. `whole` is false while half a
/// frame is written.
pub(crate) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    outbox: &Outbox,
    control: &Control,
    whole: &AtomicBool,
) -> End {
    loop {
        let next = poll_fn(|cx| {
            if let Some(frames) = control.poll_take(cx) {
                return Poll::Ready(Next::Frames(frames));
            }
            outbox.poll_next(cx).map(|item| item.map_or(Next::Nothing, Next::Message))
        });
        let next = next.await;
        whole.store(false, Ordering::Relaxed);
        let written = match next {
            Next::Nothing => {
                whole.store(true, Ordering::Relaxed);
                return End::Stopped;
            }
            Next::Frames(frames) => to.write_all(&frames).await,
            Next::Message(item) => {
                let length = item.len();
                let written = message(to, item).await;
                outbox.written(length);
                written
            }
        };
        let flushed = match written {
            Ok(()) => to.flush().await,
            error => error,
        };
        match flushed {
            Ok(()) => whole.store(true, Ordering::Relaxed),
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                return End::Dropped(Dropped::Slow);
            }
            Err(_) => return End::Left,
        }
    }
}

/// The header of a frame with `length` bytes, of a compressed message (RFC 7692, 6) or another.
pub(crate) fn frame(opcode: OpCode, length: usize, compressed: bool) -> std::io::Result<Vec<u8>> {
    let header = FrameHeader { opcode, rsv1: compressed, ..FrameHeader::default() };
    let mut head = Vec::with_capacity(10);
    header.format(length as u64, &mut head).map_err(std::io::Error::other)?;
    Ok(head)
}

async fn message(to: &mut (impl AsyncWrite + Unpin), item: Item) -> std::io::Result<()> {
    let head = frame(OpCode::Data(Data::Text), item.len(), false)?;
    let Item { head: front, body, tail, .. } = item;
    let mut parts = Bytes::from(head).chain(front).chain(body).chain(tail);
    to.write_all_buf(&mut parts).await
}
