//! A connection that has become a WebSocket: the handshake, its two halves, its end.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, SEC_WEBSOCKET_EXTENSIONS};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use jsonrpsee::Extensions;
use jsonrpsee::core::server::{ConnectionId, MethodSink};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use crate::client::{Client, Doing};
use crate::control::{Control, Half};
use crate::deflate::{Plain, TAKEN, is_offered};
use crate::dispatch::{Connection, Dispatch};
use crate::feed::{Asked, Stream};
use crate::http::Http;
use crate::outbox::{Limit, Outbox};
use crate::port::{Inner, Service, until};
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The client left.
    Left,
    /// The node is stopping.
    Stopped,
    /// A message was too long.
    TooLong,
    /// It missed messages of a feed, for this reason.
    Lagged(Cow<'static, str>),
    /// It was closed.
    Dropped(Dropped),
}

impl End {
    const fn dropped(&self) -> Option<Dropped> {
        match self {
            Self::Left | Self::Stopped => None,
            Self::TooLong => Some(Dropped::Misbehaved),
            Self::Lagged(_) => Some(Dropped::Lagged),
            Self::Dropped(reason) => Some(*reason),
        }
    }

    /// The close frame: its reason has at most 123 bytes (RFC 6455, 5.5.1).
    fn farewell(&self) -> Option<(CloseCode, &str)> {
        Some(match self {
            Self::Left => return None,
            Self::Stopped => (CloseCode::Away, "the node is stopping"),
            Self::TooLong => (CloseCode::Size, "a message is too long"),
            Self::Lagged(reason) => (CloseCode::Policy, reason),
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

/// A request to upgrade that was answered.
pub(crate) struct Upgraded {
    upgrade: OnUpgrade,
    asked: Asked,
}

/// Answers a request to upgrade; the connection's task finds the rest in `http.upgraded`.
pub(crate) fn upgrade(
    http: &Http,
    mut request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, tokio_tungstenite::tungstenite::Error> {
    let mut response = create_response_with_body(&request, Full::default)?;
    let offers = request.headers().get_all(SEC_WEBSOCKET_EXTENSIONS).iter();
    let deflate = matches!(http.port.service, Service::Feed(_))
        && is_offered(offers.filter_map(|line| line.to_str().ok()));
    if deflate {
        let taken = HeaderValue::from_static(TAKEN);
        response.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, taken);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let upgraded = Upgraded { upgrade, asked: Asked { uri: request.uri().clone(), deflate } };
    *http.upgraded.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgraded);
    Ok(response)
}

/// Serves a WebSocket to its end.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    upgraded: Upgraded,
    client: &Arc<Client>,
    port: &Arc<Inner>,
    from: SocketAddr,
) {
    let Some(settings) = &port.settings.websocket else { return };
    let Upgraded { upgrade, asked } = upgraded;
    let Ok(Ok(parts)) = upgrade.await.map(|upgraded| upgraded.downcast::<TokioIo<Wire<S>>>())
    else {
        return;
    };
    client.set(Doing::Waiting);
    let (read, mut write) = tokio::io::split(parts.io.into_inner());
    let limits = &port.settings;
    let control = Arc::new(Control::default());
    let mut half = Half {
        read,
        control: Arc::clone(&control),
        partial: limits.memory.charge(Some(client), 0),
        most: 2 * limits.max_request as usize + READ_BUFFER,
        since: None,
        plain: asked.deflate.then(Plain::default),
    };
    let most = limits.max_request as usize;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(most))
        .max_frame_size(Some(most));
    let mut early = parts.read_buf.to_vec();
    if let Some(plain) = &mut half.plain {
        plain.pass(&mut early);
    }
    let mut socket =
        WebSocketStream::from_partially_read(half, early, Role::Server, Some(config)).await;
    tracing::debug!(port = limits.name, %from, "a WebSocket is open");
    let whole = AtomicBool::new(true);
    let (end, unread) = match &port.service {
        Service::Feed(feed) => {
            let mut subscription = feed.subscribe(&asked);
            let (slow_after, ping) = (limits.slow_after, settings.ping);
            let deflate = asked.deflate;
            let stream =
                Stream { client, control: &control, whole: &whole, slow_after, ping, deflate };
            let mut stopped = port.stopped.clone();
            let end = tokio::select! {
                end = stream.run(&mut socket, &mut write, &mut *subscription) => end,
                reason = client.ended() => End::Dropped(reason),
                () = until(&mut stopped) => End::Stopped,
            };
            (end, Some(socket))
        }
        _ => {
            let dispatch = Arc::clone(port.dispatch(asked.uri.path()));
            let end = rpc(socket, &mut write, &control, &whole, client, port, dispatch);
            (end.await, None)
        }
    };
    if let Some(reason) = end.dropped() {
        port.stats.drop_for(reason);
    }
    tracing::debug!(port = limits.name, %from, ?end, "a WebSocket is closed");
    let Some((code, reason)) = end.farewell().filter(|_| whole.load(Ordering::Relaxed)) else {
        return;
    };
    let mut frame = Vec::new();
    if Frame::close(Some(CloseFrame { code, reason: reason.into() })).format(&mut frame).is_ok() {
        let told = async {
            write.write_all(&frame).await?;
            write.shutdown().await?;
            // Closing while something of it is unread would take the frame back.
            if let Some(mut unread) = unread {
                while unread.next().await.is_some_and(|message| message.is_ok()) {}
            }
            std::io::Result::Ok(())
        };
        let _ = tokio::time::timeout(FAREWELL, told).await;
    }
}

/// Serves JSON-RPC.
async fn rpc<R: AsyncRead + Unpin>(
    socket: WebSocketStream<Half<R>>,
    write: &mut (impl AsyncWrite + Unpin),
    control: &Arc<Control>,
    whole: &AtomicBool,
    client: &Arc<Client>,
    port: &Arc<Inner>,
    dispatch: Arc<Dispatch>,
) -> End {
    let limits = &port.settings;
    let Some(settings) = &limits.websocket else { return End::Left };
    let (sink, sinks) = mpsc::channel(SINKS);
    let memory = Arc::clone(&limits.memory);
    let limit = Limit { bytes: limits.unsent.max(1), messages: limits.messages.max(1) };
    let outbox = Arc::new(Outbox::new(memory, Arc::clone(client), limit, sinks));
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
        control: Arc::clone(control),
        connection: Arc::new(connection),
        extensions,
        dispatch,
        ping: settings.ping,
    };
    let mut stopped = port.stopped.clone();
    let end = {
        let writing = writing::write(write, &outbox, control, whole);
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
    end
}
