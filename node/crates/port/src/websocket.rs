//! A connection that has become a WebSocket: the handshake, its two halves, its end.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use jsonrpsee::Extensions;
use jsonrpsee::core::server::{ConnectionId, MethodSink};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use crate::client::{Client, Doing};
use crate::control::{Control, Half};
use crate::dispatch::Connection;
use crate::http::Http;
use crate::outbox::{Limit, Outbox};
use crate::port::{Inner, until};
use crate::reading::Reading;
use crate::stats::Dropped;
use crate::wire::Wire;
use crate::writing;

/// Answers to subscriptions that wait for the outbox. They are few and short.
const SINKS: usize = 16;
/// The buffer for reading, of each connection.
pub(crate) const READ_BUFFER: usize = 8 * 1024;
/// How long the last messages and the close frame may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client left.
    Left,
    /// The node is stopping.
    Stopped,
    /// A message was too long.
    TooLong,
    /// It was closed.
    Dropped(Dropped),
}

impl End {
    const fn dropped(self) -> Option<Dropped> {
        match self {
            Self::Left | Self::Stopped => None,
            Self::TooLong => Some(Dropped::Misbehaved),
            Self::Dropped(reason) => Some(reason),
        }
    }

    /// The close frame: its reason has at most 123 bytes (RFC 6455, 5.5.1).
    const fn farewell(self) -> Option<(CloseCode, &'static str)> {
        Some(match self {
            Self::Left => return None,
            Self::Stopped => (CloseCode::Away, "the node is stopping"),
            Self::TooLong => (CloseCode::Size, "a message is too long"),
            Self::Dropped(reason) => match reason {
                Dropped::Slow => (CloseCode::Policy, "too slow: read faster"),
                Dropped::HalfSent => (CloseCode::Policy, "too slow: half of a message is missing"),
                Dropped::Shed => (CloseCode::Again, "the node needs the memory: try again later"),
                Dropped::Idle => (CloseCode::Again, "the node needs the place: try again later"),
                Dropped::Silent => (CloseCode::Policy, "no answer to pings"),
                _ => (CloseCode::Protocol, "not a WebSocket frame"),
            },
        })
    }
}

/// Answers a request to upgrade; the connection's task finds the rest in `http.upgraded`.
pub(crate) fn upgrade(
    http: &Http,
    mut request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, tokio_tungstenite::tungstenite::Error> {
    let response = create_response_with_body(&request, Full::default)?;
    let upgrade = hyper::upgrade::on(&mut request);
    *http.upgraded.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
    Ok(response)
}

/// Serves a WebSocket to its end.
pub(crate) async fn serve(
    upgrade: OnUpgrade,
    client: &Arc<Client>,
    port: &Arc<Inner>,
    from: SocketAddr,
) {
    let Some(settings) = &port.settings.websocket else { return };
    let Ok(Ok(parts)) = upgrade.await.map(|upgraded| upgraded.downcast::<TokioIo<Wire>>()) else {
        return;
    };
    client.set(Doing::Waiting);
    let (read, mut write) = tokio::io::split(parts.io.into_inner());
    let (sink, sinks) = mpsc::channel(SINKS);
    let limits = &port.settings;
    let memory = &limits.memory;
    let limit = Limit { bytes: limits.unsent.max(1), messages: limits.messages.max(1) };
    let outbox = Arc::new(Outbox::new(Arc::clone(memory), Arc::clone(client), limit, sinks));
    let control = Arc::new(Control::default());
    let half = Half {
        read,
        control: Arc::clone(&control),
        partial: memory.charge(Some(client), 0),
        most: 2 * limits.max_request as usize + READ_BUFFER,
        since: None,
    };
    let most = limits.max_request as usize;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(most))
        .max_frame_size(Some(most));
    let early = parts.read_buf.to_vec();
    let socket =
        WebSocketStream::from_partially_read(half, early, Role::Server, Some(config)).await;
    let mut extensions = Extensions::new();
    let id = ConnectionId(usize::try_from(client.id).unwrap_or(usize::MAX));
    extensions.insert(id);
    extensions.insert(Arc::clone(&outbox));
    let connection = Connection {
        id,
        sink: MethodSink::new_with_limit(sink, limits.max_response),
        ids: Arc::clone(&settings.ids),
        subscriptions: Arc::new(Semaphore::new(settings.subscriptions as usize)),
        max_subscriptions: settings.subscriptions,
    };
    let reading = Reading {
        socket,
        client: Arc::clone(client),
        port: Arc::clone(port),
        outbox: Arc::clone(&outbox),
        control: Arc::clone(&control),
        connection: Arc::new(connection),
        extensions,
        ping: settings.ping,
    };
    tracing::debug!(port = limits.name, %from, "a WebSocket is open");
    let mut stopped = port.stopped.clone();
    let whole = AtomicBool::new(true);
    let end = {
        let writing = writing::write(&mut write, &outbox, &control, &whole);
        tokio::pin!(writing);
        let end = tokio::select! {
            end = reading.run() => end,
            end = writing.as_mut() => end,
            reason = client.ended() => End::Dropped(reason),
            () = until(&mut stopped) => End::Stopped,
        };
        if matches!(end, End::Stopped | End::TooLong) {
            // What is there may still go.
            outbox.finish();
            let _ = tokio::time::timeout(FAREWELL, writing).await;
        }
        end
    };
    outbox.close();
    if let Some(reason) = end.dropped() {
        port.stats.drop_for(reason);
    }
    tracing::debug!(port = limits.name, %from, ?end, "a WebSocket is closed");
    let Some((code, reason)) = end.farewell().filter(|_| whole.load(Ordering::Relaxed)) else {
        return;
    };
    let reason = Cow::Borrowed(reason);
    let mut frame = Vec::new();
    if Frame::close(Some(CloseFrame { code, reason: reason.as_ref().into() }))
        .format(&mut frame)
        .is_ok()
    {
        let told = async {
            write.write_all(&frame).await?;
            write.shutdown().await
        };
        let _ = tokio::time::timeout(FAREWELL, told).await;
    }
}
