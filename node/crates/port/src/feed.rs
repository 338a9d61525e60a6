//! A feed: a stream of messages to everybody who opens a WebSocket. What clients send is not used.
//!
//! A connection takes the next message of the feed when it has written the last, so what waits is the
//! feed's to bound. The message that is being written is shared by all connections, and not copied.

use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use hyper::Uri;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::client::{Client, Doing};
use crate::control::{Control, Half};
use crate::notices::{Hold, Notices};
use crate::reading::{CHATTER, is_gone};
use crate::stats::Dropped;
use crate::websocket::End;
use crate::writing::frame;

/// The kind of frames that messages are sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frames {
    /// Binary frames.
    Binary,
    /// Text frames.
    Text,
}

/// What a connection asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The path and the query.
    pub uri: Uri,
    /// Whether messages are sent compressed, as [`deflate`](crate::deflate()) does it.
    pub deflate: bool,
}

/// What a port streams.
pub trait Feed: Send + Sync {
    /// Looks at what a connection asks for, before it is opened.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    fn check(&self, _uri: &Uri) -> Result<(), String> {
        Ok(())
    }

    /// A subscription for a new connection, by what it asked for.
    fn subscribe(&self, asked: &Asked) -> Box<dyn Subscription>;
}

/// What one connection is sent.
pub trait Subscription: Send {
    /// The kind of frames.
    fn frames(&self) -> Frames;

    /// The next message, the first of the texts, compressed if that was asked for. To drop the future loses none.
    ///
    /// # Errors
    /// It has missed some, and the reason for people, of at most 123 bytes.
    fn next(&mut self) -> BoxFuture<'_, Result<Arc<Notices>, String>>;

    /// A message was handed to the socket, whole.
    fn sent(&mut self, bytes: usize);
}

/// What is written next.
enum Next {
    Frames(Vec<u8>),
    Message(Result<Arc<Notices>, String>),
}

/// One connection's side of a feed.
pub(crate) struct Stream<'a> {
    pub(crate) client: &'a Arc<Client>,
    pub(crate) control: &'a Control,
    /// False while half a frame is written.
    pub(crate) whole: &'a AtomicBool,
    /// A message must be taken within this.
    pub(crate) slow_after: Duration,
    pub(crate) ping: Duration,
    /// Whether messages are compressed.
    pub(crate) deflate: bool,
}

impl Stream<'_> {
    /// Serves until the client goes, does not keep up, or misbehaves.
    pub(crate) async fn run(
        &self,
        socket: &mut WebSocketStream<Half<impl AsyncRead + Unpin>>,
        to: &mut (impl AsyncWrite + Unpin),
        subscription: &mut dyn Subscription,
    ) -> End {
        self.client.set(Doing::Something);
        tokio::select! {
            end = self.listen(socket) => end,
            end = self.write(to, subscription) => end,
        }
    }

    /// Hears what the client sends, and pings it.
    async fn listen(&self, socket: &mut WebSocketStream<Half<impl AsyncRead + Unpin>>) -> End {
        let mut tick = interval_at(Instant::now() + self.ping, self.ping);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut chatter) = (Instant::now(), 0);
        loop {
            tokio::select! {
                // Before reading: timers need a part of the turn of this task.
                biased;
                _ = tick.tick() => {
                    if heard.elapsed() >= self.ping * 3 {
                        return End::Dropped(Dropped::Silent);
                    }
                    chatter = 0;
                    let mut frame = Vec::new();
                    if Frame::ping(Bytes::new()).format(&mut frame).is_ok() {
                        self.control.push(&frame);
                    }
                }
                message = socket.next() => {
                    match message {
                        Some(Ok(Message::Close(_))) | None => return End::Left,
                        Some(Ok(_)) => {}
                        Some(Err(error)) if is_gone(&error) => return End::Left,
                        Some(Err(Error::Capacity(_))) => return End::TooLong,
                        Some(Err(_)) => return End::Dropped(Dropped::Misbehaved),
                    }
                    drop(socket.get_mut().partial.split());
                    heard = Instant::now();
                    chatter += 1;
                    if chatter > CHATTER {
                        return End::Dropped(Dropped::Misbehaved);
                    }
                    tokio::task::consume_budget().await;
                }
            }
        }
    }

    /// Writes what the feed has, and control frames between two messages.
    async fn write(
        &self,
        to: &mut (impl AsyncWrite + Unpin),
        subscription: &mut dyn Subscription,
    ) -> End {
        let opcode = OpCode::Data(match subscription.frames() {
            Frames::Binary => Data::Binary,
            Frames::Text => Data::Text,
        });
        loop {
            let control = poll_fn(|cx| match self.control.poll_take(cx) {
                Some(frames) => Poll::Ready(frames),
                None => Poll::Pending,
            });
            let next = tokio::select! {
                biased;
                frames = control => Next::Frames(frames),
                message = subscription.next() => Next::Message(message),
            };
            let (parts, length) = match next {
                Next::Frames(frames) => ((Bytes::from(frames), Bytes::new()), 0),
                Next::Message(Err(reason)) => return End::Lagged(Cow::Owned(reason)),
                Next::Message(Ok(notices)) => {
                    let body = Hold::new(&notices, self.client).text(0);
                    let Ok(head) = frame(opcode, body.len(), self.deflate) else { continue };
                    let length = body.len();
                    ((Bytes::from(head), body), length)
                }
            };
            self.whole.store(false, Ordering::Relaxed);
            let written = async {
                to.write_all_buf(&mut bytes::Buf::chain(parts.0, parts.1)).await?;
                to.flush().await
            };
            match tokio::time::timeout(self.slow_after, written).await {
                Ok(Ok(())) => self.whole.store(true, Ordering::Relaxed),
                Ok(Err(error)) if error.kind() != std::io::ErrorKind::TimedOut => return End::Left,
                _ => return End::Dropped(Dropped::Slow),
            }
            if length > 0 {
                subscription.sent(length);
            }
        }
    }
}
