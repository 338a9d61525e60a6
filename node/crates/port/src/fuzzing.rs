//! Bodies of the fuzz targets; see `fragcast_shredder::fuzzing`.
//!
//! A connection of a port over a pipe instead of a socket, in virtual time, so whatever waits for
//! time ends at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jsonrpsee::RpcModule;
use jsonrpsee::core::server::Methods;
use jsonrpsee::server::RandomIntegerIdProvider;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use crate::dispatch::Dispatch;
use crate::port::{Inner, connection};
use crate::seats::Seats;
use crate::{
    Asked, Feed, Frames, Guard, Memory, Notices, PortStats, Service, Settings, Shared, Subscriber,
    Subscription, WebSocket, deflate,
};

/// A named fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[("http", http), ("websocket", websocket)];

/// Notifications of a subscription, and messages of the feed.
const MESSAGES: usize = 3;

/// A handshake that is accepted.
const HANDSHAKE: &str = "GET /some/text HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: \
                         websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: \
                         dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn methods(memory: &Arc<Memory>) -> Methods {
    let mut module = RpcModule::new(Shared::<usize>::new(1 << 16, Arc::clone(memory)));
    let registered = module
        .register_method("echo", |params, _, _| params.parse::<Value>())
        .and(Ok(()))
        .and_then(|()| {
            let later = |params: jsonrpsee::types::Params<'static>, _: Arc<_>, _| async move {
                tokio::task::yield_now().await;
                params.parse::<Value>()
            };
            module.register_async_method("later", later).and(Ok(()))
        })
        .and_then(|()| {
            module
                .register_subscription(
                    "sub",
                    "news",
                    "unsub",
                    |_, pending, shared, extensions| async move {
                        let patience = Duration::from_secs(1);
                        let subscriber = Subscriber::accept(pending, &extensions, patience).await?;
                        for event in 0..MESSAGES {
                            let encode = move || {
                                Ok::<_, ErrorObjectOwned>(vec![format!("{event}").into_bytes()])
                            };
                            let news = shared.get(event, Arc::new(()), false, encode).await;
                            subscriber.send(&news.map_err(|error| error.to_string())?).await?;
                        }
                        subscriber.closed().await;
                        Ok(())
                    },
                )
                .and(Ok(()))
        });
    registered.expect("names of their own");
    module.into()
}

/// A feed of a few messages.
struct Few(Arc<Memory>);

struct Left {
    memory: Arc<Memory>,
    frames: Frames,
    left: usize,
    deflate: bool,
}

impl Feed for Few {
    fn subscribe(&self, asked: &Asked) -> Box<dyn Subscription> {
        let text = asked.uri.path().ends_with("text");
        let frames = if text { Frames::Text } else { Frames::Binary };
        let (memory, deflate) = (Arc::clone(&self.0), asked.deflate);
        Box::new(Left { memory, frames, left: MESSAGES, deflate })
    }
}

impl Subscription for Left {
    fn frames(&self) -> Frames {
        self.frames
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Arc<Notices>, String>> {
        match self.left {
            0 => std::future::pending().boxed(),
            left => {
                self.left = left - 1;
                let text = format!("\"{}\"", "x".repeat(left * 100)).into_bytes();
                let text = if self.deflate { deflate(&text) } else { text };
                std::future::ready(Ok(self.memory.share(vec![text]))).boxed()
            }
        }
    }

    fn sent(&mut self, bytes: usize) {
        assert!(bytes > 2);
    }
}

/// What a client is sent that sends `input` in pieces, and then hangs up or waits. `how`: which
/// service, the length of the pieces, and the end, in bits 0, 2 to 4, and 7.
fn exchange(how: u8, input: &[u8]) -> Vec<u8> {
    let (feed, piece, hangs_up) = (how % 2 == 1, 4 << (how / 4 % 8), how >= 128);
    let memory = Memory::new(1 << 20);
    let service = match feed {
        true => Service::Feed(Arc::new(Few(Arc::clone(&memory)))),
        false => Service::Rpc(methods(&memory)),
    };
    let hosts = ["node.example".to_owned()];
    let settings = Settings {
        max_request: 4_096,
        max_response: 1 << 16,
        max_batch: Some(4),
        concurrent: 2,
        unsent: 2_048,
        websocket: Some(WebSocket {
            subscriptions: 2,
            ids: Arc::new(RandomIntegerIdProvider),
            ping: Duration::from_secs(15),
        }),
        memory: Arc::clone(&memory),
        ..Settings::small("fuzz", Arc::new(Guard::new(&hosts, &[], None)))
    };
    let methods = match &service {
        Service::Rpc(methods) => methods.clone(),
        _ => Methods::new(),
    };
    let dispatch = Arc::new(Dispatch {
        methods,
        max_response: settings.max_response as usize,
        max_batch: settings.max_batch.map(|most| most as usize),
        memory: Arc::clone(&memory),
    });
    let stats = Arc::<PortStats>::default();
    let seats = Seats::new(1, 1, true, None, Arc::clone(&memory), Arc::clone(&stats));
    let (stop, stopped) = watch::channel(false);
    let port = Arc::new(Inner {
        settings,
        service,
        dispatch,
        at: None,
        stats: Arc::clone(&stats),
        stopped,
    });
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("it needs nothing");
    let (answer, highest) = runtime.block_on(async move {
        let (near, far) = tokio::io::duplex(1_024);
        let from = ([192, 0, 2, 1], 1).into();
        let seat = seats.take(std::net::IpAddr::from([192, 0, 2, 1])).expect("the first");
        let (mut read, mut write) = tokio::io::split(near);
        let sending = async {
            for piece in input.chunks(piece) {
                if write.write_all(piece).await.is_err() {
                    break;
                }
            }
            if hangs_up {
                // It may have been closed.
                let _ = write.shutdown().await;
            }
        };
        let mut answer = Vec::new();
        let reading = async {
            // What came before a failure counts.
            let _ = read.read_to_end(&mut answer).await;
        };
        tokio::join!(connection(far, from, seat, Arc::clone(&port)), sending, reading);
        assert_eq!(stats.connections.load(Ordering::Relaxed), 0, "its place is free");
        let highest = memory.highest();
        drop((port, stop));
        // Subscriptions notice that their connection is gone.
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
        assert_eq!(memory.used(), 0, "all is given back");
        (answer, highest)
    });
    // Requests, as many as are answered at a time and one more, answers of 64 KiB, what is encoded.
    assert!(highest < 512 << 10, "{highest} bytes were held");
    answer
}

/// The first byte says what is served and how large the pieces are, the rest is sent as it is: the
/// answer, if there is one, is HTTP, and nothing is held in the end.
pub fn http(data: &[u8]) {
    let Some((how, input)) = data.split_first() else { return };
    let answer = exchange(*how, input);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."));
}

/// The frames that a server has sent: opcode, and payload. The last may be cut short.
fn frames(mut sent: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, second, rest @ ..] = sent {
        // The second bit marks what is compressed.
        assert_eq!((first & 0xb0, second & 0x80), (0x80, 0), "whole messages, unmasked");
        let (length, rest) = match second {
            126 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => break,
            },
            127 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => break,
            },
            short => (u64::from(*short), rest),
        };
        let Some((payload, rest)) = rest.split_at_checked(length as usize) else { break };
        frames.push((first & 0xf, payload.to_vec()));
        sent = rest;
    }
    frames
}

/// After a handshake: frames of any kind, made of the rest or the rest itself. What comes back is
/// frames, those with text are JSON, and answers are JSON-RPC.
pub fn websocket(data: &[u8]) {
    let Some((how, mut rest)) = data.split_first() else { return };
    let feed = how % 2 == 1;
    // Compression is offered in bit 5, and taken by a feed.
    let offer = "\r\nsec-websocket-extensions: permessage-deflate\r\n\r\n";
    let mut input = match how & 32 {
        0 => HANDSHAKE.to_owned(),
        _ => HANDSHAKE.replace("\r\n\r\n", offer),
    }
    .into_bytes();
    if how & 2 == 0 {
        input.extend_from_slice(rest);
    } else {
        while let [first, length, tail @ ..] = rest {
            let length = usize::from(length % 126).min(tail.len());
            let (payload, tail) = tail.split_at(length);
            // The mask is zero.
            input.extend_from_slice(&[*first, 0x80 | length as u8, 0, 0, 0, 0]);
            input.extend_from_slice(payload);
            rest = tail;
        }
    }
    let answer = exchange(*how, &input);
    let Some(end) = answer.windows(4).position(|end| end == b"\r\n\r\n") else {
        // Who hangs up may be answered nothing.
        assert!(*how >= 128, "there is no answer");
        return;
    };
    let (head, sent) = answer.split_at(end + 4);
    let head = String::from_utf8_lossy(head);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let compressed = head.contains("permessage-deflate");
    for (opcode, payload) in frames(sent) {
        match opcode {
            1 if compressed => {}
            1 => {
                let answer: Value = serde_json::from_slice(&payload).expect("JSON");
                let one = |answer: &Value| {
                    let has = |what| answer.get(what).is_some();
                    assert_eq!(answer["jsonrpc"], "2.0", "{answer}");
                    assert!(has("method") || has("result") != has("error"), "{answer}");
                };
                match &answer {
                    Value::Array(batch) => batch.iter().for_each(one),
                    _ if feed => assert!(answer.is_string()),
                    answer => one(answer),
                }
            }
            8 => assert!(payload.len() <= 125 && payload.len() != 1),
            9 | 10 => assert!(payload.len() <= 125),
            other => panic!("no frame of kind {other} is sent"),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn targets_hold_on_seeded_bytes() {
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"later","params":[1]}"#;
        let texts = [
            format!(
                "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n{call}",
                call.len()
            ),
            super::HANDSHAKE.to_owned(),
            format!("\u{1}{}{call}", call.len() as u8 as char),
            "\u{1}\u{2a}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"sub\"}\u{9}\u{2}hi".to_owned(),
        ];
        fragcast_shredder::fuzzing::run_on_seeded_bytes(
            super::TARGETS,
            "fuzz port",
            (400, 300),
            |round, data| {
                let Some(text) = texts.get(round % 6) else { return };
                let how = data.first().copied().unwrap_or(round as u8);
                let mut changed = text.as_bytes().to_vec();
                for change in data.chunks_exact(2).take(round / 6 % 4) {
                    let at = usize::from(change[0]) % changed.len();
                    changed[at] = change[1];
                }
                *data = [&[how], &changed[..]].concat();
                // Frames begin with the bit that says that they are whole.
                if round % 6 > 1 && data.len() > 1 {
                    data[1] |= 0x80;
                }
            },
        );
    }
}
