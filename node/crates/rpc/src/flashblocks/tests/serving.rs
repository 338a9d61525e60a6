//! The server: what subscribers get, and which are dropped.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async, client_async_with_config};

use super::*;
use crate::flashblocks::hub::Hub;
use crate::flashblocks::ring::{Cursor, MOST, Missed, Position, Ring};
use crate::flashblocks::{Door, Server, Settings};

/// Guards against hanging.
pub(super) const GUARD: Duration = Duration::from_secs(60);

pub(super) type Client = WebSocketStream<TcpStream>;

/// The first flashblock of a block, and one of its later ones.
const FIRST: Position = Position { block: 1, index: 0 };
const LATER: Position = Position { block: 1, index: 1 };

pub(super) fn settings() -> Settings {
    // Nothing happens because time passes, unless a test says so.
    Settings {
        slow_after: GUARD,
        handshake: GUARD,
        closing: GUARD,
        idle: GUARD * 180,
        ..Settings::default()
    }
}

/// A server without a chain.
struct Fixture {
    hub: Arc<Hub>,
    address: SocketAddr,
    server: Server,
}

impl Fixture {
    async fn new(settings: Settings) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::open(listener, &settings).unwrap();
        Self { hub: Arc::clone(&server.hub), address: server.port.address(), server }
    }

    async fn client(&self) -> Client {
        connect(self.address, "").await.unwrap()
    }

    /// A client that is being served.
    async fn served(&self) -> Client {
        let before = self.subscribers();
        let client = self.client().await;
        until(|| self.subscribers() > before).await;
        client
    }

    fn subscribers(&self) -> u64 {
        self.hub.stats.subscribers.load(Ordering::Relaxed)
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.hub.stats.dropped().find(|(name, _)| *name == reason).unwrap().1
    }
}

pub(super) async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(GUARD, wait).await.expect("it did not happen");
}

pub(super) async fn connect(address: SocketAddr, path: &str) -> Result<Client, Error> {
    let stream = TcpStream::connect(address).await.unwrap();
    let url = format!("ws://{address}/{path}");
    Ok(client_async(url, stream).await?.0)
}

pub(super) async fn next(client: &mut Client) -> Message {
    let next = tokio::time::timeout(GUARD, client.next()).await.expect("nothing came");
    next.expect("open").unwrap()
}

pub(super) async fn payload(client: &mut Client) -> OpFlashblockPayload {
    match next(client).await {
        Message::Binary(bytes) => serde_json::from_slice(&bytes).unwrap(),
        other => panic!("{other:?} is not binary"),
    }
}

/// The close frame that comes next.
async fn farewell(client: &mut Client) -> (CloseCode, String) {
    match next(client).await {
        Message::Close(Some(frame)) => (frame.code, frame.reason.to_string()),
        other => panic!("{other:?} is no close frame with a reason"),
    }
}

pub(super) async fn open(chain: &TestChain) -> (Door, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (Door::open(listener, &chain.view, &settings()).unwrap(), address)
}

#[tokio::test]
async fn subscribers_get_every_block_from_its_first_flashblock() {
    let mut chain = chain();
    let (door, address) = open(&chain).await;
    let mut early = connect(address, "ws").await.unwrap();
    let mut texts = connect(address, "some/text").await.unwrap();
    until(|| door.stats().subscribers.load(Ordering::Relaxed) == 2).await;
    let mut block = opened(&mut chain);
    let more = txs(&mut chain, 3);
    chain.frag(&mut block, &more, false);
    until(|| door.stats().published.load(Ordering::Relaxed) == 2).await;
    // In mid-block: it has the block from the start nevertheless.
    let mut late = connect(address, "").await.unwrap();
    assert_eq!(payload(&mut late).await.index, 0);
    chain.frag(&mut block, &[], true);
    let sealed = chain.seal(block);
    until(|| door.stats().published.load(Ordering::Relaxed) == 4).await;
    // Between two blocks: it waits for the next one.
    let mut last = connect(address, "").await.unwrap();
    until(|| door.stats().subscribers.load(Ordering::Relaxed) == 4).await;
    chain.block(1, 1);

    let mut from_start = Vec::new();
    for _ in 0..6 {
        from_start.push(payload(&mut early).await);
    }
    let indices: Vec<u64> = from_start.iter().map(|payload| payload.index).collect();
    assert_eq!(indices, [0, 1, 2, 3, 0, 1]);
    assert_eq!(from_start[3].diff.block_hash, sealed.hash());
    for expected in &from_start {
        let Message::Text(text) = next(&mut texts).await else { panic!("not text") };
        assert_eq!(&serde_json::from_str::<OpFlashblockPayload>(&text).unwrap(), expected);
    }
    for expected in &from_start[1..] {
        assert_eq!(&payload(&mut late).await, expected);
    }
    for expected in &from_start[4..] {
        assert_eq!(&payload(&mut last).await, expected);
    }
    let status = door.stats().status();
    assert_eq!((&status["published"], &status["sent"]), (&6.into(), &20.into()));
    assert_eq!((&status["subscribers"], &status["dropped"]), (&4.into(), &0.into()));

    let closing = tokio::spawn(door.close());
    assert_eq!(farewell(&mut early).await, (CloseCode::Away, "the node is stopping".into()));
    drop((early, texts, late, last));
    closing.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn one_that_misses_flashblocks_is_told_how_many_and_dropped() {
    // Room for one flashblock.
    let f = Fixture::new(Settings { buffer: 1, ..settings() }).await;
    let (mut slow, mut fresh) = (f.served().await, f.served().await);
    f.hub.ring.push("first".into(), FIRST);
    assert_eq!(next(&mut slow).await, Message::Binary("first".into()));
    assert_eq!(next(&mut fresh).await, Message::Binary("first".into()));
    // Nobody else runs in between.
    for text in ["second", "third", "fourth"] {
        f.hub.ring.push(text.into(), LATER);
    }
    let (code, reason) = farewell(&mut slow).await;
    assert_eq!(code, CloseCode::Policy);
    assert!(reason.contains("2 flashblocks missed"), "{reason}");
    farewell(&mut fresh).await;
    until(|| f.dropped("lagged") == 2).await;
    assert_eq!(f.subscribers(), 0);
    // The open block's first is gone: a new one waits for the next block.
    let mut late = f.served().await;
    f.hub.ring.push("fifth".into(), LATER);
    f.hub.ring.push("next".into(), FIRST);
    assert_eq!(next(&mut late).await, Message::Binary("next".into()));
}

#[tokio::test]
async fn one_that_takes_nothing_is_dropped() {
    let f = Fixture::new(Settings { slow_after: Duration::from_millis(50), ..settings() }).await;
    let stream = TcpStream::connect(f.address).await.unwrap();
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let url = format!("ws://{}/", f.address);
    let (mut stuck, _) = client_async_with_config(url, stream, Some(config)).await.unwrap();
    // More than sockets hold.
    f.hub.ring.push("x".repeat(32 << 20), FIRST);
    until(|| f.dropped("slow") == 1).await;
    until(|| f.subscribers() == 0).await;
    // It ends in the middle of a flashblock, so nothing can be told.
    let end = tokio::time::timeout(GUARD, stuck.next()).await.expect("it is closed");
    assert!(end.is_none_or(|end| end.is_err()));
}

#[tokio::test]
async fn unread_flashblocks_are_held_once() {
    let f = Fixture::new(Settings { slow_after: Duration::from_secs(2), ..settings() }).await;
    let mut stuck = Vec::new();
    for _ in 0..16 {
        stuck.push(f.served().await);
    }
    f.hub.ring.push("x".repeat(16 << 20), FIRST);
    until(|| f.dropped("slow") + f.dropped("shed") == 16).await;
    // One copy for all of them; one each would be 256 MiB.
    let highest = f.server.port.memory().highest();
    assert!((16 << 20..17 << 20).contains(&highest), "{highest}");
}

#[tokio::test]
async fn who_opens_no_websocket_or_does_not_read_gives_its_place_away() {
    for settings in
        [Settings { per_address: 4, ..settings() }, Settings { subscribers: 4, ..settings() }]
    {
        let f = Fixture::new(settings).await;
        let mut silent = Vec::new();
        for n in 0..40 {
            let mut stream = TcpStream::connect(f.address).await.unwrap();
            if n % 2 == 0 {
                stream.write_all(b"GET / HTTP/1.1\r\nhost: loc").await.unwrap();
            }
            silent.push(stream);
        }
        let mut used = vec![f.served().await, f.served().await, f.served().await];
        f.hub.ring.push("x".repeat(8 << 20), FIRST);
        // All of it is taken before anybody else comes: on a slow machine one of these would have taken
        // nothing for a second, too, and would lose its place.
        for client in &mut used {
            assert_eq!(next(client).await.len(), 8 << 20);
        }
        let stuck = f.served().await;
        assert!(f.dropped("idle") > 30, "{}", f.dropped("idle"));
        // It has taken nothing for a second.
        let late = async {
            loop {
                match connect(f.address, "").await {
                    Ok(client) => return client,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        used.push(tokio::time::timeout(GUARD, late).await.expect("it is let in"));
        until(|| f.dropped("slow") == 1).await;
        f.hub.ring.push("more".into(), FIRST);
        for client in &mut used {
            let text = loop {
                match next(client).await {
                    Message::Binary(text) if text.len() < 8 << 20 => break text,
                    _ => {}
                }
            };
            assert_eq!(text, "more");
        }
        drop(stuck);
    }
}

#[tokio::test]
async fn seats_are_limited_in_all_and_by_address() {
    for (settings, status, reason) in [
        (Settings { per_address: 2, ..settings() }, StatusCode::TOO_MANY_REQUESTS, "address"),
        (Settings { subscribers: 2, ..settings() }, StatusCode::SERVICE_UNAVAILABLE, "full"),
    ] {
        let f = Fixture::new(settings).await;
        let (_one, two) = (f.served().await, f.served().await);
        let Err(Error::Http(response)) = connect(f.address, "").await else { panic!("let in") };
        assert_eq!(response.status(), status);
        assert_eq!(f.dropped(reason), 1);
        // A seat that is given up can be taken again.
        drop(two);
        let wait = async {
            while connect(f.address, "").await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(GUARD, wait).await.unwrap();
    }
}

#[tokio::test]
async fn a_handshake_that_is_none_or_takes_too_long_gives_its_seat_back() {
    // The limit for who says nothing; who is to have an answer has all the time that it needs.
    let short = Settings { handshake: Duration::from_millis(50), subscribers: 1, ..settings() };
    let impatient = Fixture::new(short).await;
    let patient = Fixture::new(Settings { subscribers: 1, ..settings() }).await;
    let upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nupgrade: websocket\r\nconnection: close\r\n\r\n";
    for (f, bytes, status) in [
        (&impatient, &b""[..], ""),
        (&impatient, b"GET / HTTP/1.1\r\n", ""),
        // Kept open for another request, which does not come.
        (&impatient, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "any"),
        (&patient, b"GET / HTTP/1.1\r\nHost: x\r\nconnection: close\r\n\r\n", "426"),
        (&patient, b"POST / HTTP/1.1\r\nHost: x\r\nconnection: close\r\n\r\n", "426"),
        (&patient, upgrade, "400"),
        (&patient, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400"),
        // What is refused before it is read may take the answer back.
        (&patient, &[b'x'; 70_000], "any"),
    ] {
        let mut stream = TcpStream::connect(f.address).await.unwrap();
        // It may be closed before all is written.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(GUARD, stream.read_to_end(&mut answer)).await;
        let _ = closed.expect("it stays open");
        let answer = String::from_utf8_lossy(&answer);
        let answered = answer.split(' ').nth(1).unwrap_or_default();
        assert!(status == "any" || answered == status, "{answer}");
    }
    for f in [impatient, patient] {
        assert_eq!(f.subscribers(), 0);
        until(|| f.server.port.stats().connections.load(Ordering::Relaxed) == 0).await;
        assert_eq!(f.dropped("full"), 0);
    }
}

#[tokio::test]
async fn one_of_whom_nothing_comes_is_dropped() {
    let f = Fixture::new(Settings { idle: Duration::from_millis(30), ..settings() }).await;
    // It reads nothing, and so answers no ping. It may be dropped before it is seen to be served, or
    // even before it has read the answer to its handshake.
    let silent = connect(f.address, "").await;
    until(|| f.dropped("silent") == 1).await;
    let Ok(mut silent) = silent else { return };
    // The node waits for a second for its answer to the close frame; a pong that comes later is told
    // by a reset, which may take the frame back.
    let end = loop {
        match tokio::time::timeout(GUARD, silent.next()).await.expect("it is closed") {
            Some(Ok(Message::Ping(_))) => {}
            end => break end,
        }
    };
    let Some(Ok(Message::Close(Some(frame)))) = end else {
        assert!(end.as_ref().is_none_or(Result::is_err), "{end:?}");
        return;
    };
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Policy, "no answer to pings"));
}

#[tokio::test]
async fn what_subscribers_send_is_bounded() {
    let f = Fixture::new(settings()).await;
    let mut polite = f.served().await;
    polite.send(Message::Text("hello".into())).await.unwrap();
    polite.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(next(&mut polite).await, Message::Pong("are you there".into()));

    let mut long = f.served().await;
    long.send(Message::Text("x".repeat(4097).into())).await.unwrap();
    assert_eq!(farewell(&mut long).await.0, CloseCode::Size);

    let mut chatty = f.served().await;
    for _ in 0..1025 {
        chatty.feed(Message::Text("x".into())).await.unwrap();
    }
    chatty.flush().await.unwrap();
    assert_eq!(farewell(&mut chatty).await.0, CloseCode::Protocol);

    let mut raw = f.served().await.into_inner();
    // A frame of a client must be masked.
    raw.write_all(&[0x81, 0x01, b'x']).await.unwrap();
    let mut answer = [0; 64];
    let read = tokio::time::timeout(GUARD, raw.read(&mut answer)).await.unwrap().unwrap();
    // A close frame with code 1002.
    assert_eq!((answer[0], &answer[2..4]), (0x88, &1002_u16.to_be_bytes()[..]), "{read}");
    until(|| f.dropped("misbehaved") == 3).await;

    // One that goes without a word was not dropped, and the others are served.
    drop(f.served().await);
    f.hub.ring.push("first".into(), FIRST);
    assert_eq!(next(&mut polite).await, Message::Binary("first".into()));
    // Else the server would wait for them to close in their turn.
    drop((raw, long, chatty));
    until(|| f.subscribers() == 1).await;
    assert_eq!(f.dropped("misbehaved"), 3);
    let stopping = tokio::spawn(f.server.port.stop(GUARD));
    assert_eq!(farewell(&mut polite).await.0, CloseCode::Away);
    drop(polite);
    stopping.await.unwrap();
}

/// What a subscriber takes next.
fn take(ring: &Ring, cursor: &mut Cursor) -> Result<Option<String>, Missed> {
    let taken = ring.take(cursor)?;
    Ok(taken.map(|item| String::from_utf8(item.plain().texts()[0].clone()).unwrap()))
}

#[test]
fn the_ring_is_bounded_in_bytes_and_in_number() {
    let memory = fragcast_port::Memory::new(1 << 20);
    let some = |text: &str| Ok(Some(text.to_owned()));
    let ring = Ring::new(10, Arc::clone(&memory));
    let mut started = ring.subscribe(None);
    let mut waiting = ring.subscribe(None);
    ring.push("0123".into(), FIRST);
    assert_eq!(take(&ring, &mut started), some("0123"));
    assert_eq!(take(&ring, &mut started), Ok(None));
    ring.push("4567".into(), LATER);
    ring.push("89".into(), LATER);
    // Ten bytes: all are there still.
    assert_eq!(memory.used(), 10);
    let mut late = ring.subscribe(None);
    assert_eq!(take(&ring, &mut late), some("0123"));
    ring.push("longer than the ring".into(), LATER);
    assert_eq!(take(&ring, &mut started), Err(Missed(2)));
    // The one that had not started lost nothing that was of use to it.
    assert_eq!(take(&ring, &mut waiting), Ok(None));
    ring.push("x".into(), FIRST);
    assert_eq!(take(&ring, &mut waiting), some("x"));
    assert_eq!(memory.used(), 1);
    ring.end();
    assert_eq!(take(&ring, &mut ring.subscribe(None)), Ok(None));

    let ring = Ring::new(usize::MAX, memory);
    let mut cursor = ring.subscribe(None);
    for i in 0..MOST + 1 {
        ring.push("x".into(), Position { block: 1, index: i as u64 });
    }
    // Its first is gone, so the rest of the block is of no use.
    assert_eq!(take(&ring, &mut cursor), Ok(None));
    ring.push("y".into(), FIRST);
    assert_eq!(take(&ring, &mut cursor), some("y"));
}

#[test]
fn a_flashblock_is_not_lost_when_nobody_waits_for_its_compression() {
    use fragcast_port::{Asked, Feed, deflate};
    use futures_util::FutureExt;

    let memory = fragcast_port::Memory::new(1 << 20);
    let hub = Hub::new(1 << 20, memory, Arc::default());
    hub.ring.push("the first".into(), FIRST);
    hub.ring.push("a later one".into(), LATER);
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        // Nothing is compressed until the only thread for that is free.
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || wait.recv());
        let asked = Asked { uri: "/".parse().unwrap(), deflate: true };
        let mut subscriber = hub.subscribe(&asked);
        assert!(subscriber.next().now_or_never().is_none());
        go.send(()).unwrap();
        busy.await.unwrap().unwrap();
        for text in ["the first", "a later one"] {
            let notices = subscriber.next().await.unwrap();
            assert_eq!(notices.texts(), [deflate(text.as_bytes())]);
        }
    });
}

/// Everything that a subscriber gets who goes on after a flashblock.
fn after(ring: &Ring, block: u64, index: u64) -> String {
    let mut cursor = ring.subscribe(Some(Position { block, index }));
    let mut all = Vec::new();
    while let Some(text) = take(ring, &mut cursor).unwrap() {
        all.push(text);
    }
    all.join(" ")
}

#[test]
fn one_that_comes_back_goes_on_where_it_was() {
    let memory = fragcast_port::Memory::new(1 << 20);
    let ring = Ring::new(36, memory);
    let push = |block, index| {
        // As many bytes as it has.
        let text = format!("{block}:{index}").into_boxed_str().into_string();
        ring.push(text, Position { block, index });
    };
    for (block, index) in [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)] {
        push(block, index);
    }
    assert_eq!(after(&ring, 1, 1), "1:2 2:0 2:1");
    assert_eq!(after(&ring, 1, 2), "2:0 2:1");
    assert_eq!(after(&ring, 2, 1), "");
    assert_eq!(after(&ring, 0, 9), "1:0 1:1 1:2 2:0 2:1");
    assert_eq!(after(&ring, u64::MAX, u64::MAX), "");
    // It has had more of a whole block than there was: the next one is next.
    assert_eq!(after(&ring, 1, 7), "2:0 2:1");
    // It is ahead in the open block: what it has is not sent again.
    let mut ahead = ring.subscribe(Some(Position { block: 2, index: 3 }));
    for index in 2..5 {
        push(2, index);
    }
    assert_eq!(take(&ring, &mut ahead), Ok(Some("2:4".into())));
    // The oldest are gone; what is left of their block continues what it had, or is of no use.
    for index in 0..5 {
        push(3, index);
    }
    assert!(after(&ring, 1, 1).starts_with("1:2 2:0 2:1"), "{}", after(&ring, 1, 1));
    push(3, 5);
    assert!(after(&ring, 1, 1).starts_with("1:2 2:0 2:1"), "{}", after(&ring, 1, 1));
    assert!(after(&ring, 1, 0).starts_with("2:0 2:1"), "{}", after(&ring, 1, 0));
    // A block that was begun again is sent from its newest beginning.
    push(3, 0);
    push(3, 1);
    assert_eq!(after(&ring, 3, 0), "3:0 3:1");
    assert_eq!(after(&ring, 3, 4), "3:0 3:1");
    // One that is ahead learns of a new beginning too.
    let mut ahead = ring.subscribe(Some(Position { block: 3, index: 9 }));
    assert_eq!(take(&ring, &mut ahead), Ok(Some("3:0".into())));
}

/// The status of the answer to a handshake with this host and origin.
async fn shake(address: SocketAddr, host: &str, origin: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nhost: {host}\r\n{origin}connection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(GUARD, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[9..]).into_owned()
}

#[tokio::test]
async fn a_stranger_s_page_gets_no_flashblocks() {
    let hosts = ["node.example".to_owned()];
    let origins = ["https://app.example".to_owned()];
    let guard = Arc::new(fragcast_port::Guard::new(&hosts, &origins, None));
    let f = Fixture::new(Settings { guard, ..settings() }).await;
    for (host, origin, status) in [
        ("localhost:9350", "", "101"),
        ("192.0.2.1", "", "101"),
        ("node.example", "origin: https://app.example\r\n", "101"),
        ("node.example", "origin: http://localhost:3000\r\n", "101"),
        ("evil.example", "", "403"),
        ("evil.example", "origin: http://evil.example\r\n", "403"),
        ("localhost", "origin: https://evil.example\r\n", "403"),
    ] {
        assert_eq!(shake(f.address, host, origin).await, status, "{host} {origin}");
    }
    assert_eq!((f.dropped("host"), f.dropped("origin")), (2, 1));
}
