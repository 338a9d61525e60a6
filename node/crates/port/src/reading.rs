//! The reading half of a WebSocket: requests, as many at a time as may be.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use jsonrpsee::Extensions;
use jsonrpsee::types::error::reject_too_big_request;
use tokio::io::AsyncRead;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::client::{Client, Doing};
use crate::control::{Control, Half};
use crate::dispatch::{Answer, Connection, Dispatch, error};
use crate::memory::Charge;
use crate::outbox::Outbox;
use crate::port::Inner;
use crate::stats::Dropped;
use crate::websocket::End;
use crate::wire::deadline;

/// The header of a client's control frame: two bytes, and the mask.
const CONTROL_HEADER: usize = 2 + 4;

/// Pings and the like that a client may send from one of our pings to the next.
pub(crate) const CHATTER: u32 = 1024;

/// The reading half of a WebSocket.
pub(crate) struct Reading<R> {
    pub(crate) socket: WebSocketStream<Half<R>>,
    pub(crate) client: Arc<Client>,
    pub(crate) port: Arc<Inner>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) control: Arc<Control>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) extensions: Extensions,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) ping: Duration,
}

impl<R: AsyncRead + Unpin> Reading<R> {
    /// Reads and answers until the connection is to end.
    pub(crate) async fn run(mut self) -> End {
        let settings = &self.port.settings;
        let (memory, slow_after) = (Arc::clone(&settings.memory), settings.slow_after);
        let concurrent = settings.concurrent.max(1);
        let mut calls: FuturesUnordered<BoxFuture<'static, Answer>> = FuturesUnordered::new();
        let period = (slow_after / 4).max(Duration::from_millis(10));
        let mut tick = interval_at(Instant::now() + period, period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut pinged) = (Instant::now(), Instant::now());
        let mut chatter = 0;
        // For how long the current message was not read on.
        let mut unjudged = Duration::ZERO;
        loop {
            let busy = !calls.is_empty()
                || !self.outbox.is_empty()
                || self.connection.subscriptions.available_permits()
                    < self.connection.max_subscriptions as usize;
            self.client.set(if busy { Doing::Something } else { Doing::Waiting });
            let (unsent, full) = (!self.outbox.has_room(), !memory.has_room());
            let reads = calls.len() < concurrent && !unsent && !full;
            tokio::select! {
                biased;
                Some(answer) = calls.next() => self.answered(answer),
                // It is written to, and heard of in the end.
                room = self.outbox.room(), if unsent => if room.is_err() {
                    return End::Left;
                },
                () = memory.room(), if full && !unsent => {}
                // Before reading: who always has something to read would use up the turn of this task, which
                // timers need a part of.
                _ = tick.tick() => {
                    let half = self.socket.get_ref();
                    self.client.mark_not_sent(half.since);
                    if !reads {
                        // What does not arrive may be there, unread.
                        heard = Instant::now();
                        unjudged += period;
                        continue;
                    }
                    // Frames of no bytes go on for ever, and nothing of them is held.
                    let longest = self.port.settings.max_request as usize;
                    if half.partial.bytes() >= half.most {
                        return End::Dropped(Dropped::Misbehaved);
                    }
                    let sent = half.partial.bytes().min(longest) as u64;
                    let late = |since| {
                        deadline(since, slow_after + unjudged, sent) <= Instant::now()
                    };
                    if half.since.is_some_and(late) {
                        return End::Dropped(Dropped::HalfSent);
                    }
                    if heard.elapsed() > self.ping * 5 / 2 {
                        return End::Dropped(Dropped::Silent);
                    }
                    if pinged.elapsed() >= self.ping {
                        pinged = Instant::now();
                        chatter = 0;
                        let mut frame = Vec::new();
                        if Frame::ping(Bytes::new()).format(&mut frame).is_ok() {
                            self.control.push(&frame);
                        }
                    }
                }
                message = self.socket.next(), if reads => {
                    heard = Instant::now();
                    let message = match message {
                        Some(Ok(Message::Text(text))) => Bytes::from(text),
                        Some(Ok(Message::Binary(bytes))) => bytes,
                        Some(Ok(Message::Close(_))) | None => return End::Left,
                        Some(Ok(control)) => {
                            chatter += 1;
                            if chatter > CHATTER {
                                return End::Dropped(Dropped::Misbehaved);
                            }
                            // It may stand between fragments of a message, which are held still.
                            let half = self.socket.get_mut();
                            half.partial.shrink(CONTROL_HEADER + control.len());
                            if half.partial.bytes() == 0 {
                                half.since = None;
                                unjudged = Duration::ZERO;
                                self.client.mark_not_sent(None);
                            }
                            continue;
                        }
                        Some(Err(error)) => return self.failed(&error),
                    };
                    let half = self.socket.get_mut();
                    half.since = None;
                    unjudged = Duration::ZERO;
                    let charge = half.partial.split();
                    self.client.mark_not_sent(None);
                    if let Some(call) = self.begin(message, charge) {
                        calls.push(call);
                    }
                    // Others of this thread have their turn, however fast the answers are there.
                    tokio::task::consume_budget().await;
                }
            }
        }
    }

    fn answered(&self, answer: Answer) {
        let Answer { text, held } = answer;
        if let Some(text) = text {
            self.outbox.answer(text);
        }
        // Now, and not before, may those go on who wait for it.
        drop(held);
    }

    /// Begins to answer a message. What is answered at once is queued at once.
    fn begin(&self, message: Bytes, charge: Charge) -> Option<BoxFuture<'static, Answer>> {
        let dispatch = Arc::clone(&self.dispatch);
        let connection = Arc::clone(&self.connection);
        let extensions = self.extensions.clone();
        let mut charge = charge;
        let mut call = async move {
            dispatch.answer(&message, &extensions, Some(&connection), &mut charge).await
        }
        .boxed();
        match (&mut call).now_or_never() {
            Some(answer) => {
                self.answered(answer);
                None
            }
            None => Some(call),
        }
    }

    fn failed(&self, failure: &Error) -> End {
        match failure {
            failure if is_gone(failure) => End::Left,
            Error::Capacity(_) => {
                let problem = reject_too_big_request(self.port.settings.max_request);
                self.answered(Some(error(None, problem)).into());
                End::TooLong
            }
            _ => End::Dropped(Dropped::Misbehaved),
        }
    }
}

/// Whether a client has gone, with or without a word.
pub(crate) const fn is_gone(error: &Error) -> bool {
    matches!(
        error,
        Error::Io(_)
            | Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
    )
}
