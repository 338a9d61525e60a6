//! A listener and its connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use jsonrpsee::core::server::Methods;
use jsonrpsee::core::traits::IdProvider;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::accept::{Backoff, tune};
use crate::descriptors::Descriptors;
use crate::dispatch::Dispatch;
use crate::feed::Feed;
use crate::guard::Guard;
use crate::http::Http;
use crate::memory::Memory;
use crate::seats::{Seat, Seats};
use crate::stats::{Dropped, PortStats};
use crate::wire::Wire;

/// Refusals that are sent at a time; beyond, connections are closed without a word.
const REFUSALS: usize = 16;
/// For how many milliseconds a connection waits for others that are closing for it.
const CLOSING: usize = 50;
/// How long a refusal may take.
const REFUSING: Duration = Duration::from_secs(1);

/// Makes the answer to a `GET`, without waiting for anything.
pub type Page = Arc<dyn Fn(&Parts) -> Response<Vec<u8>> + Send + Sync>;

/// Makes the answer to a `GET` or `HEAD` of a JSON-RPC port, if there is one for this request, without
/// waiting for anything.
pub type Pages = Arc<dyn Fn(&Parts) -> Option<Response<Vec<u8>>> + Send + Sync>;

/// What a port serves.
pub enum Service {
    /// JSON-RPC.
    Rpc(Methods),
    /// Pages.
    Page(Page),
    /// A stream of messages over WebSockets.
    Feed(Arc<dyn Feed>),
}

/// Limits of WebSocket connections.
#[derive(Clone)]
pub struct WebSocket {
    /// Subscriptions of a connection; a feed has no such.
    pub subscriptions: u32,
    /// Names them.
    pub ids: Arc<dyn IdProvider>,
    /// Interval of pings; a connection of which nothing is heard for two and a half, of a feed for
    /// three, is closed.
    pub ping: Duration,
}

/// Limits of a port.
#[derive(Clone)]
pub struct Settings {
    /// Its name in the log and in metrics.
    pub name: &'static str,
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address; `None`: an eighth of all, and loopback is not counted.
    pub per_address: Option<usize>,
    /// Bytes of a request.
    pub max_request: u32,
    /// Bytes of an answer. A batch is not carried on with when its answers are longer.
    pub max_response: u32,
    /// Calls of a batch; `None`: no batches.
    pub max_batch: Option<u32>,
    /// `None`: HTTP alone.
    pub websocket: Option<WebSocket>,
    /// Requests of a WebSocket that are in process at a time.
    pub concurrent: usize,
    /// Bytes of unsent answers at which no more is read from a WebSocket, and at which
    /// notifications wait. One that is there is kept even if it is longer.
    pub unsent: usize,
    /// The same in messages.
    pub messages: usize,
    /// How long a connection may keep the node waiting.
    pub slow_after: Duration,
    /// How long a connection may wait between two requests over HTTP, and in sending a head.
    pub idle: Duration,
    /// What its connections may hold.
    pub memory: Arc<Memory>,
    /// Whom it answers.
    pub guard: Arc<Guard>,
    /// File descriptors for its connections; `None`: they are set aside.
    pub descriptors: Option<Descriptors>,
    /// Pages of a JSON-RPC port. A `GET` for which there is none is answered with a word, and 200:
    /// load balancers ask whether somebody is here.
    pub pages: Option<Pages>,
}

impl Settings {
    /// The limits of a small port of the operator: JSON-RPC over HTTP, no batches, 16 connections.
    pub fn small(name: &'static str, guard: Arc<Guard>) -> Self {
        Self {
            name,
            connections: 16,
            per_address: Some(16),
            max_request: 64 * 1024,
            max_response: 16 * 1024 * 1024,
            max_batch: None,
            websocket: None,
            concurrent: 16,
            unsent: 1024 * 1024,
            messages: 256,
            slow_after: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            memory: Memory::new(32 * 1024 * 1024),
            guard,
            descriptors: None,
            pages: None,
        }
    }
}

/// What the tasks of a port share.
pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) service: Service,
    pub(crate) dispatch: Arc<Dispatch>,
    /// The methods of one path, if it has its own.
    pub(crate) at: Option<(&'static str, Arc<Dispatch>)>,
    pub(crate) stats: Arc<PortStats>,
    pub(crate) stopped: watch::Receiver<bool>,
}

impl Inner {
    /// The methods that are served at a path.
    pub(crate) fn dispatch(&self, path: &str) -> &Arc<Dispatch> {
        let path = path.strip_suffix('/').unwrap_or(path);
        match &self.at {
            Some((at, dispatch)) if *at == path => dispatch,
            _ => &self.dispatch,
        }
    }
}

/// A running port.
pub struct Port {
    name: &'static str,
    address: SocketAddr,
    stats: Arc<PortStats>,
    memory: Arc<Memory>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Resolves when the port is stopped.
pub(crate) async fn until(stopped: &mut watch::Receiver<bool>) {
    // An error: whoever could have stopped it is gone.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

impl Port {
    /// Starts to serve, on the threads of `runtime`.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub fn open(
        listener: std::net::TcpListener,
        settings: Settings,
        service: Service,
        runtime: &Handle,
    ) -> std::io::Result<Self> {
        Self::open_with(listener, settings, service, None, runtime)
    }

    /// Likewise; what is served over JSON-RPC at one path, given without a slash at its end, is
    /// something else, over HTTP and WebSocket.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub fn open_with(
        listener: std::net::TcpListener,
        settings: Settings,
        service: Service,
        at: Option<(&'static str, Methods)>,
        runtime: &Handle,
    ) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let _entered = runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        let (stop, stopped) = watch::channel(false);
        let stats = Arc::new(PortStats::default());
        let methods = match &service {
            Service::Rpc(methods) => methods.clone(),
            Service::Page(_) | Service::Feed(_) => Methods::new(),
        };
        let dispatch = |methods| {
            Arc::new(Dispatch {
                methods,
                max_response: settings.max_response as usize,
                max_batch: settings.max_batch.map(|most| most as usize),
                memory: Arc::clone(&settings.memory),
            })
        };
        let at = at.map(|(path, methods)| (path, dispatch(methods)));
        let dispatch = dispatch(methods);
        let (name, memory) = (settings.name, Arc::clone(&settings.memory));
        let inner =
            Arc::new(Inner { settings, service, dispatch, at, stats: Arc::clone(&stats), stopped });
        let task = runtime.spawn(serve(listener, inner));
        Ok(Self { name, address, stats, memory, stop, task })
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its counters.
    pub const fn stats(&self) -> &Arc<PortStats> {
        &self.stats
    }

    /// What its connections hold.
    pub const fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Stops it: connections that have nothing in process are closed at once, all within `limit`.
    pub async fn stop(self, limit: Duration) {
        let Self { stop, mut task, .. } = self;
        let _ = stop.send(true);
        if tokio::time::timeout(limit, &mut task).await.is_err() {
            task.abort();
        }
    }
}

async fn serve(listener: TcpListener, port: Arc<Inner>) {
    let settings = &port.settings;
    let most = settings.connections.max(1);
    let seats = Seats::new(
        most,
        settings.per_address.unwrap_or_else(|| most.div_ceil(8)),
        settings.per_address.is_some(),
        settings.descriptors.clone(),
        Arc::clone(&settings.memory),
        Arc::clone(&port.stats),
    );
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let mut stopped = port.stopped.clone();
    let mut backoff = Backoff::default();
    // Connections end with this task.
    let mut connections = JoinSet::new();
    loop {
        let (stream, from) = tokio::select! {
            accepted = backoff.accept(&listener, Some(&seats), &port.stats) => accepted,
            Some(_) = connections.join_next() => continue,
            () = until(&mut stopped) => break,
        };
        match place(&seats, from).await {
            Ok(seat) => {
                tune(&stream);
                connections.spawn(connection(stream, from, seat, Arc::clone(&port)));
            }
            Err(reason) => {
                port.stats.drop_for(reason);
                if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                    connections.spawn(async move {
                        // Whether it was heard is no matter.
                        let _ = tokio::time::timeout(REFUSING, refuse(stream, reason)).await;
                        drop(permit);
                    });
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// A place for a connection. It waits for a moment for those that are closing for it.
async fn place(seats: &Arc<Seats>, from: SocketAddr) -> Result<Seat, Dropped> {
    for _ in 0..CLOSING {
        match seats.take(from.ip()) {
            Err(Dropped::Full) if seats.is_leaving() => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            taken => return taken,
        }
    }
    seats.take(from.ip())
}

/// Tells a client that there is no place for it.
async fn refuse(mut stream: TcpStream, reason: Dropped) -> std::io::Result<()> {
    let (status, text) = match reason {
        Dropped::Address => (
            "429 Too Many Requests",
            "your address has as many connections as one may have: close one first\n",
        ),
        _ => ("503 Service Unavailable", "Too many connections. Please try again later.\n"),
    };
    // What is not read would take the answer back.
    let mut head = [0; 1024];
    let _ = stream.read(&mut head).await?;
    let length = text.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: \
         close\r\n\r\n{text}"
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Serves a connection to its end.
pub(crate) async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    from: SocketAddr,
    seat: Seat,
    port: Arc<Inner>,
) {
    let client = Arc::clone(seat.client());
    let settings = &port.settings;
    let wire = Wire::new(stream, Arc::clone(&client), settings.slow_after);
    // The seat goes along if the connection becomes a WebSocket.
    let taken = Arc::new(std::sync::Mutex::new(None));
    let http = Arc::new(Http {
        port: Arc::clone(&port),
        client: Arc::clone(&client),
        from,
        upgraded: Arc::clone(&taken),
    });
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let http = Arc::clone(&http);
        async move { Ok::<_, Infallible>(http.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.idle)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    tokio::pin!(served);
    let mut stopped = port.stopped.clone();
    let mut stopping = false;
    let end = loop {
        tokio::select! {
            result = served.as_mut() => break match result {
                Ok(()) => None,
                Err(error) if slow(&error) => Some(Dropped::Slow),
                Err(error) if error.is_timeout() && client.held() > 0 => Some(Dropped::HalfSent),
                Err(_) => None,
            },
            reason = client.ended() => break Some(reason),
            () = until(&mut stopped), if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
        }
    };
    let upgraded = taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let (None, Some(websocket)) = (end, upgraded) {
        crate::websocket::serve::<S>(websocket, &client, &port, from).await;
    } else if let Some(reason) = end {
        port.stats.drop_for(reason);
        tracing::debug!(port = settings.name, %from, reason = reason.label(), "closed a connection");
    }
    drop(seat);
}

/// Whether a connection ended because it did not take an answer.
fn slow(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::TimedOut;
        }
        source = cause.source();
    }
    false
}
