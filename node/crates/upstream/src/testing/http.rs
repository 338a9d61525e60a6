//! An HTTP server in this process that can go down and come up at the same address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::task::{JoinHandle, JoinSet};

/// How long the server may take to end; no test takes it unless it fails.
const GUARD: Duration = Duration::from_secs(60);

/// A request.
pub struct Asked {
    /// The token of `Authorization: Bearer`.
    pub bearer: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// Status and body of an answer; `None` closes the connection without one.
pub type Answered = Option<(u16, Bytes)>;

type Handler = dyn Fn(Asked) -> BoxFuture<'static, Answered> + Send + Sync;

/// The server. Its connections end with it.
pub struct HttpServer {
    handler: Arc<Handler>,
    address: SocketAddr,
    /// Bound and never listening: keeps the port while the server is down.
    _reservation: TcpSocket,
    running: Option<JoinHandle<()>>,
}

fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

impl HttpServer {
    /// A server that is down. Within a runtime.
    pub fn down<F: Future<Output = Answered> + Send + 'static>(
        handler: impl Fn(Asked) -> F + Send + Sync + 'static,
    ) -> Self {
        let reservation = socket(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = reservation.local_addr().unwrap();
        let handler: Arc<Handler> = Arc::new(move |asked| Box::pin(handler(asked)));
        Self { handler, address, _reservation: reservation, running: None }
    }

    /// A server that is up. Within a runtime.
    pub fn up<F: Future<Output = Answered> + Send + 'static>(
        handler: impl Fn(Asked) -> F + Send + Sync + 'static,
    ) -> Self {
        let mut server = Self::down(handler);
        server.start();
        server
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Opens the port. Within a runtime.
    pub fn start(&mut self) {
        let listener = socket(self.address).listen(64).unwrap();
        let handler = Arc::clone(&self.handler);
        self.running = Some(tokio::spawn(async move {
            // Dropped with the task, and all connections with it.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let handler = Arc::clone(&handler);
                connections.spawn(async move {
                    let service = service_fn(|request| serve(&*handler, request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        }));
    }

    /// Closes the port; connections break.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
    }

    /// Closes the port, from a thread that may wait.
    pub fn stop_blocking(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let asked = Instant::now();
            while !running.is_finished() {
                assert!(asked.elapsed() < GUARD, "the server does not end");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

async fn serve(
    handler: &Handler,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let bearer = request
        .headers()
        .get(hyper::header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .map(str::to_owned);
    let Ok(body) = request.into_body().collect().await else {
        return Err(std::io::Error::other("the request broke off"));
    };
    match handler(Asked { bearer, body: body.to_bytes() }).await {
        Some((status, body)) => {
            Ok(Response::builder().status(status).body(Full::new(body)).unwrap())
        }
        None => Err(std::io::Error::other("closed on demand")),
    }
}
