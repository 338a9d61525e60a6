//! A port over real sockets. Time limits only catch what hangs.

mod asking;
mod batches;
mod letting_in;
mod shedding;
mod unread;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use jsonrpsee::RpcModule;
use jsonrpsee::core::server::Methods;
use jsonrpsee::server::RandomIntegerIdProvider;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::*;

/// How long something may take that hangs otherwise.
const GUARD: Duration = Duration::from_secs(60);

async fn guarded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, future).await.expect("it hangs")
}

/// Waits until `done`.
async fn until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(GUARD, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// What the test module counts and sends.
struct Fixture {
    calls: AtomicU64,
    feed: broadcast::Sender<u64>,
    shared: Shared<u64>,
    slow: AtomicU64,
    subscribers: AtomicU64,
    /// The length of a notification.
    length: usize,
}

impl Fixture {
    fn new(memory: &Arc<Memory>, length: usize) -> Arc<Self> {
        Arc::new(Self {
            calls: AtomicU64::new(0),
            feed: broadcast::channel(64).0,
            shared: Shared::new(16 << 20, Arc::clone(memory)),
            slow: AtomicU64::new(0),
            subscribers: AtomicU64::new(0),
            length,
        })
    }

    fn methods(self: &Arc<Self>, patience: Duration) -> Methods {
        let mut module = RpcModule::from_arc(Arc::clone(self));
        module
            .register_method("blob", |params, me, _| {
                me.calls.fetch_add(1, Ordering::Relaxed);
                let (length,): (usize,) = params.parse()?;
                Ok::<_, ErrorObjectOwned>("x".repeat(length))
            })
            .unwrap();
        module
            .register_async_method("later", |params, me, _| async move {
                me.calls.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                params.parse::<Value>()
            })
            .unwrap();
        module
            .register_async_method("never", |_, _, _| async {
                std::future::pending::<Result<(), ErrorObjectOwned>>().await
            })
            .unwrap();
        module
            .register_subscription(
                "subscribe",
                "news",
                "unsubscribe",
                move |_, pending, me, ext| async move {
                    let mut feed = me.feed.subscribe();
                    let subscriber = Subscriber::accept(pending, &ext, patience).await?;
                    me.subscribers.fetch_add(1, Ordering::Relaxed);
                    let end = loop {
                        let event = tokio::select! {
                            () = subscriber.closed() => break Unsent::Gone,
                            event = feed.recv() => event,
                        };
                        let Ok(event) = event else { break Unsent::Slow };
                        let length = me.length;
                        let encode = move || {
                            let text = format!("\"{event}{}\"", "y".repeat(length));
                            Ok::<_, ErrorObjectOwned>(vec![text.into_bytes()])
                        };
                        let texts = me.shared.get(event, Arc::new(()), false, encode).await;
                        if let Err(unsent) = subscriber.send(&texts.unwrap()).await {
                            break unsent;
                        }
                    };
                    me.subscribers.fetch_sub(1, Ordering::Relaxed);
                    if end == Unsent::Slow {
                        me.slow.fetch_add(1, Ordering::Relaxed);
                        return Err("too slow".into());
                    }
                    Ok(())
                },
            )
            .unwrap();
        module.into()
    }
}

fn settings(memory: &Arc<Memory>) -> Settings {
    Settings {
        connections: 64,
        per_address: Some(64),
        max_batch: Some(3),
        websocket: Some(WebSocket {
            subscriptions: 4,
            ids: Arc::new(RandomIntegerIdProvider),
            ping: Duration::from_secs(30),
        }),
        memory: Arc::clone(memory),
        ..Settings::small("test", Arc::new(Guard::default()))
    }
}

fn open(settings: Settings, methods: Methods) -> Port {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    Port::open(listener, settings, Service::Rpc(methods), &tokio::runtime::Handle::current())
        .unwrap()
}

type Client = WebSocketStream<TcpStream>;

async fn dial(port: &Port) -> Client {
    websocket(port.address()).await
}

async fn websocket(address: std::net::SocketAddr) -> Client {
    let stream = TcpStream::connect(address).await.unwrap();
    let dialled = tokio_tungstenite::client_async(format!("ws://{address}/"), stream);
    guarded(dialled).await.unwrap().0
}

fn call(id: u64, method: &str, params: Value) -> String {
    let mut request = json!({ "jsonrpc": "2.0", "id": id, "method": method });
    request["params"] = params;
    request.to_string()
}

async fn say(client: &mut Client, text: impl Into<String>) {
    guarded(client.send(Message::text(text.into()))).await.unwrap();
}

/// The next text, `None` when the connection is closed.
async fn hear(client: &mut Client) -> Option<String> {
    loop {
        match guarded(client.next()).await {
            Some(Ok(Message::Text(text))) => return Some(text.to_string()),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}

/// Sends bytes; all that comes back until the other side closes.
async fn exchange(address: std::net::SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let exchanged = async {
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // It may be reset after the answer.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    guarded(exchanged).await
}

fn post(headers: &str, body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}
