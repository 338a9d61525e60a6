//! One subscriber: what it is sent, and what ends it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::hub::{Hub, until};
use super::ring::Missed;
use super::stats::{Dropped, FlashblocksStats};

/// The longest message that a subscriber may send, bytes. None is used; pings have up to 125.
pub(super) const MAX_INCOMING: usize = 4096;
/// Messages that a subscriber may send from one of our pings to the next. Base's node pings twice
/// a second: 30 in that time.
const CHATTER: u32 = 1024;

pub(super) type Socket = WebSocketStream<TcpStream>;

/// The kind of WebSocket frames that flashblocks are sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frames {
    /// Binary frames, for nodes.
    Binary,
    /// Text frames, for proxies and browsers.
    Text,
}

impl Frames {
    /// The frames that a path asks for.
    pub(super) fn of(path: &str) -> Self {
        if path.trim_end_matches('/').ends_with("/text") { Self::Text } else { Self::Binary }
    }

    fn message(self, text: Utf8Bytes) -> Message {
        match self {
            Self::Binary => Message::Binary(text.into()),
            Self::Text => Message::Text(text),
        }
    }
}

/// How a subscription ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The subscriber left.
    Left,
    /// It missed this many flashblocks.
    Lagged(u64),
    /// It did not take a flashblock in time.
    Slow,
    /// It sent nothing, not even answers to pings.
    Silent,
    /// It sent too many messages.
    Chatty,
    /// It sent too long a message.
    TooLong,
    /// It sent something that is not WebSocket.
    Malformed,
    /// The node is stopping.
    Stopped,
}

impl End {
    const fn dropped(&self) -> Option<Dropped> {
        match self {
            Self::Left | Self::Stopped => None,
            Self::Lagged(_) => Some(Dropped::Lagged),
            Self::Slow => Some(Dropped::Slow),
            Self::Silent => Some(Dropped::Silent),
            Self::Chatty | Self::TooLong | Self::Malformed => Some(Dropped::Misbehaved),
        }
    }

    /// The close frame: its reason has at most 123 bytes (RFC 6455, 5.5.1).
    fn farewell(&self, slow_after: Duration) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Left => return None,
            Self::Lagged(missed) => (
                CloseCode::Policy,
                format!("too slow: {missed} flashblocks missed; subscribe again and read faster"),
            ),
            Self::Slow => (
                CloseCode::Policy,
                format!(
                    "too slow: a flashblock was not taken in {} ms; subscribe again and read \
                     faster",
                    slow_after.as_millis()
                ),
            ),
            Self::Silent => (CloseCode::Policy, "no answer to three pings".to_owned()),
            Self::Chatty => (CloseCode::Policy, "too many messages: none is needed".to_owned()),
            Self::TooLong => {
                (CloseCode::Size, format!("a message is longer than {MAX_INCOMING} bytes"))
            }
            Self::Malformed => (CloseCode::Protocol, "not a WebSocket frame".to_owned()),
            Self::Stopped => (CloseCode::Away, "the node is stopping".to_owned()),
        };
        Some(CloseFrame { code, reason: reason.into() })
    }
}

/// Counts a subscriber while it lives.
struct Counted<'a>(&'a FlashblocksStats);

impl<'a> Counted<'a> {
    fn new(stats: &'a FlashblocksStats) -> Self {
        stats.subscribers.fetch_add(1, Ordering::Relaxed);
        Self(stats)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.subscribers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a subscriber has sent.
struct Heard {
    last: Instant,
    /// Messages since our last ping.
    messages: u32,
}

impl Heard {
    /// Takes a message; returns an end if it is one. tungstenite answers pings.
    fn take(&mut self, message: Option<&Result<Message, Error>>) -> Result<(), End> {
        match message {
            None
            | Some(
                Ok(Message::Close(_))
                | Err(Error::Io(_) | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)),
            ) => Err(End::Left),
            Some(Ok(_)) => {
                self.last = Instant::now();
                self.messages += 1;
                if self.messages > CHATTER { Err(End::Chatty) } else { Ok(()) }
            }
            Some(Err(Error::Capacity(_))) => Err(End::TooLong),
            Some(Err(_)) => Err(End::Malformed),
        }
    }
}

/// Serves a subscriber to its end.
pub(super) async fn serve(mut socket: Socket, frames: Frames, hub: &Hub) -> End {
    let counted = Counted::new(&hub.stats);
    let Err(end) = stream(&mut socket, frames, hub).await;
    drop(counted);
    if let Some(reason) = end.dropped() {
        hub.stats.drop_for(reason);
    }
    if let Some(frame) = end.farewell(hub.settings.slow_after) {
        let told = async {
            // It may be gone, or not take this either.
            let _ = socket.close(Some(frame)).await;
            // Closing while something of it is unread would take the frame back.
            while socket.next().await.is_some_and(|message| message.is_ok()) {}
        };
        let _ = tokio::time::timeout(hub.settings.closing, told).await;
    }
    end
}

async fn stream(socket: &mut Socket, frames: Frames, hub: &Hub) -> Result<Never, End> {
    let settings = &hub.settings;
    let mut cursor = hub.ring.subscribe();
    let mut stopped = hub.stopped.clone();
    let mut ping = tokio::time::interval_at(Instant::now() + settings.ping, settings.ping);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Heard { last: Instant::now(), messages: 0 };
    loop {
        while let Some(text) = hub.ring.take(&mut cursor).map_err(|Missed(n)| End::Lagged(n))? {
            let bytes = text.len() as u64;
            send(socket, frames.message(text), settings.slow_after).await?;
            FlashblocksStats::count(&hub.stats.sent);
            hub.stats.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
            // Base's node waits half a second for an answer to its pings, also while there is
            // much to send.
            while let Some(message) = socket.next().now_or_never() {
                heard.take(message.as_ref())?;
            }
        }
        tokio::select! {
            // The ring outlives its subscribers.
            _ = cursor.news.changed() => {}
            message = socket.next() => heard.take(message.as_ref())?,
            _ = ping.tick() => {
                if heard.last.elapsed() >= settings.ping * 3 {
                    return Err(End::Silent);
                }
                heard.messages = 0;
                send(socket, Message::Ping(Default::default()), settings.slow_after).await?;
            }
            () = until(&mut stopped) => return Err(End::Stopped),
        }
    }
}

/// What [`stream`] never returns.
enum Never {}

async fn send(socket: &mut Socket, message: Message, limit: Duration) -> Result<(), End> {
    match tokio::time::timeout(limit, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Left),
        Err(_) => Err(End::Slow),
    }
}
