//! Who is let in: places, hosts, origins, tokens.

use std::net::IpAddr;

use hyper::Response;

use super::*;

fn connections(port: &Port) -> u64 {
    port.stats().connections.load(Ordering::Relaxed)
}

#[tokio::test]
async fn idle_sockets_keep_nobody_out() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let settings = Settings { connections: 20, per_address: None, ..settings(&memory) };
    let port = open(settings, fixture.methods(GUARD));
    // Some say nothing, some the beginning of a request, some are WebSockets that ask nothing.
    let mut idle = Vec::new();
    let mut sockets = Vec::new();
    for n in 0..200 {
        match n % 3 {
            0 => sockets.push(dial(&port).await),
            n => {
                let mut stream = TcpStream::connect(port.address()).await.unwrap();
                if n == 1 {
                    stream.write_all(b"POST / HTTP/1.1\r\nhost: loc").await.unwrap();
                }
                idle.push(stream);
            }
        }
        assert!(connections(&port) <= 40, "20, and those that are being closed");
    }
    // One in use is not closed for new ones.
    let mut used = dial(&port).await;
    say(&mut used, call(1, "subscribe", json!([]))).await;
    hear(&mut used).await.unwrap();
    for n in 0..100 {
        let answer =
            exchange(port.address(), &post("host: localhost\r\n", &call(n, "blob", json!([2]))))
                .await;
        assert_eq!(status(&answer), "200", "{answer}");
        idle.push(TcpStream::connect(port.address()).await.unwrap());
    }
    fixture.feed.send(1).unwrap();
    assert!(hear(&mut used).await.is_some());
    assert!(port.stats().dropped_for(Dropped::Idle) > 100);
    until("they are closed", || connections(&port) <= 20).await;
}

#[tokio::test]
async fn those_in_use_are_bounded_and_the_rest_refused() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    for (per_address, status_code, reason) in
        [(Some(3), "429", Dropped::Address), (None, "503", Dropped::Full)]
    {
        let settings = Settings { connections: 4, per_address, ..settings(&memory) };
        let port = open(settings, fixture.methods(GUARD));
        let most = per_address.unwrap_or(4);
        let mut used = Vec::new();
        for n in 0..most {
            let mut client = dial(&port).await;
            say(&mut client, call(n as u64, "subscribe", json!([]))).await;
            hear(&mut client).await.unwrap();
            used.push(client);
        }
        let request = post("host: localhost\r\n", &call(1, "blob", json!([2])));
        let answer = exchange(port.address(), &request).await;
        assert_eq!(status(&answer), status_code, "{answer}");
        assert_eq!(port.stats().dropped_for(reason), 1);
        used.pop();
        let free = async { while status(&exchange(port.address(), &request).await) != "200" {} };
        guarded(free).await;
    }
}

#[tokio::test(start_paused = true)]
async fn places_are_counted_by_network_and_given_to_who_comes() {
    let memory = Memory::new(1 << 20);
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let stats = Arc::new(PortStats::default());
    let seats = Seats::new(8, 2, false, None, Arc::clone(&memory), Arc::clone(&stats));
    let busy = |address: &str| {
        let seat = seats.take(ip(address)).unwrap();
        seat.client().set(crate::client::Doing::Something);
        seat
    };
    // A host with IPv6 has a whole /64.
    let _a = [busy("2001:db8::1"), busy("2001:db8::ffff:2")];
    assert_eq!(seats.take(ip("2001:db8::3")).unwrap_err(), Dropped::Address);
    let _b = [busy("192.0.2.1"), busy("::ffff:192.0.2.1")];
    assert_eq!(seats.take(ip("192.0.2.1")).unwrap_err(), Dropped::Address);
    // Loopback has as many as there are.
    let local: Vec<_> = (0..4).map(|_| busy("127.0.0.1")).collect();
    assert_eq!(seats.take(ip("192.0.2.9")).unwrap_err(), Dropped::Full);
    // One that is late gives its place away after a second, and only one.
    local[2].client().mark_not_taken(Some(tokio::time::Instant::now()));
    assert_eq!(seats.take(ip("192.0.2.9")).unwrap_err(), Dropped::Full);
    tokio::time::advance(Duration::from_secs(2)).await;
    let _c = seats.take(ip("192.0.2.9")).unwrap();
    assert!(local[2].client().is_ended());
    // The new one has said nothing yet, so it goes before those that are used.
    let _d = seats.take(ip("192.0.2.10")).unwrap();
    assert!(_c.client().is_ended());
    drop(local);
    assert_eq!(stats.connections.load(Ordering::Relaxed), 6);
}

#[tokio::test]
async fn descriptors_are_shared_and_given_back() {
    let memory = Memory::new(1 << 20);
    let descriptors = Descriptors::new(3);
    let seats = |stats: &Arc<PortStats>| {
        let (memory, stats) = (Arc::clone(&memory), Arc::clone(stats));
        Seats::new(100, 100, true, Some(descriptors.clone()), memory, stats)
    };
    let stats = Arc::new(PortStats::default());
    let (one, other) = (seats(&stats), seats(&stats));
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let taken =
        [one.take(address).unwrap(), other.take(address).unwrap(), one.take(address).unwrap()];
    assert_eq!(one.take(address).unwrap_err(), Dropped::Full);
    assert!(taken[0].client().is_ended(), "the most idle one makes room for those that come");
    drop(taken);
    assert_eq!(descriptors.left(), 3);
    assert!(other.take(address).is_ok());
}

#[test]
fn a_failing_accept_is_tried_less_and_less_often() {
    let mut backoff = Backoff::default();
    let pauses: Vec<_> = (0..9).map(|_| backoff.pause().as_millis()).collect();
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000]);
}

#[tokio::test]
async fn only_hosts_that_are_served_are_answered() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let hosts = ["Node.Example".to_owned()];
    let guard = Arc::new(Guard::new(&hosts, &[], None));
    let port = open(Settings { guard, ..settings(&memory) }, fixture.methods(GUARD));
    let body = call(1, "blob", json!([2]));
    for (headers, served) in [
        ("host: localhost\r\n", true),
        ("host: LOCALHOST:9320\r\n", true),
        ("host: localhost.\r\n", true),
        ("host: 127.0.0.1:9320\r\n", true),
        ("host: 192.0.2.7\r\n", true),
        ("host: [::1]:9320\r\n", true),
        ("host: [2001:db8::1]\r\n", true),
        ("host: node.example:1\r\n", true),
        ("host: \r\n", true),
        ("host: evil.example\r\n", false),
        ("host: evil.example:9320\r\n", false),
        ("host: localhost.evil.example\r\n", false),
        ("host: 127.0.0.1.evil.example\r\n", false),
        ("host: evilnode.example\r\n", false),
        ("host: localhost\r\nhost: evil.example\r\n", false),
        ("host: evil.example\r\nhost: localhost\r\n", false),
        ("host: localhost, evil.example\r\n", false),
    ] {
        let answer = exchange(port.address(), &post(headers, &body)).await;
        let expected = if served { "200" } else { "403" };
        assert_eq!(status(&answer), expected, "{headers}: {answer}");
    }
    let absolute =
        post("host: localhost\r\n", &body).replace("POST /", "POST http://evil.example/");
    assert_eq!(status(&exchange(port.address(), &absolute).await), "403");
    // A WebSocket is refused as well, with its handshake.
    let upgrade = "GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: upgrade\r\nupgrade: \
                   websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: \
                   dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let closing = upgrade.replace("connection: upgrade", "connection: upgrade, close");
    assert_eq!(status(&exchange(port.address(), &closing).await), "403");
    assert_eq!(fixture.calls.load(Ordering::Relaxed), 9);
    assert_eq!(port.stats().dropped_for(Dropped::Host), 10);
    let all = Guard::new(&["*".to_owned()], &[], None);
    let headers = [("host", "evil.example")]
        .map(|(k, v)| (k.parse::<hyper::header::HeaderName>().unwrap(), v.parse().unwrap()));
    assert!(all.check(&"/".parse().unwrap(), &headers.into_iter().collect()).is_ok());
}

fn upgrade(origin: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nhost: 192.0.2.1:9320\r\norigin: {origin}\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// The first line of the answer to a handshake.
async fn shake(port: &Port, request: &str) -> String {
    let mut stream = TcpStream::connect(port.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    guarded(stream.read_exact(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer[9..]).into_owned()
}

#[tokio::test]
async fn pages_of_other_sites_neither_read_nor_open_websockets() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let origins = ["https://app.example", "https://*.wide.example"].map(str::to_owned);
    let guard = Arc::new(Guard::new(&[], &origins, None));
    let port = open(Settings { guard, ..settings(&memory) }, fixture.methods(GUARD));
    for (origin, opened) in [
        ("https://app.example", true),
        ("https://a.wide.example", true),
        ("https://a.b-c.WIDE.example", true),
        ("https://wide.example", false),
        ("http://a.wide.example", false),
        ("https://a.wide.example:8443", false),
        ("https://evil.example/.wide.example", false),
        ("https://evil.example:1.wide.example", false),
        ("http://localhost:3000", true),
        ("http://127.0.0.1", true),
        ("http://192.0.2.1:9320", true),
        ("http://192.0.2.1", false),
        ("https://evil.example", false),
        ("https://app.example.evil.example", false),
        ("null", false),
    ] {
        let expected = if opened { "101" } else { "403" };
        assert_eq!(shake(&port, &upgrade(origin)).await, expected, "{origin}");
    }
    let preflight = |origin: &str| {
        format!(
            "OPTIONS / HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\n\
             access-control-request-method: POST\r\nconnection: close\r\n\r\n"
        )
    };
    let allowed = exchange(port.address(), &preflight("https://app.example")).await;
    assert_eq!(status(&allowed), "204");
    assert!(allowed.contains("access-control-allow-origin: https://app.example\r\n"), "{allowed}");
    assert!(allowed.contains("access-control-allow-methods: GET, POST\r\n"), "{allowed}");
    let asks = preflight("https://app.example").replace(
        "connection: close",
        "access-control-request-headers: content-type,x-key\r\nconnection: close",
    );
    let allowed = exchange(port.address(), &asks).await;
    assert!(allowed.contains("access-control-allow-headers: content-type,x-key\r\n"), "{allowed}");
    let refused = exchange(port.address(), &preflight("https://evil.example")).await;
    assert_eq!(status(&refused), "204");
    assert!(!refused.contains("access-control"), "{refused}");
    let body = call(1, "blob", json!([2]));
    let headers = "host: localhost\r\norigin: https://app.example\r\n";
    let read = exchange(port.address(), &post(headers, &body)).await;
    assert!(read.contains("access-control-allow-origin: https://app.example\r\n"), "{read}");
    // Only requests of a kind that browsers send after asking are answered.
    let plain = post("host: localhost\r\norigin: https://evil.example\r\n", &body)
        .replace("application/json", "text/plain");
    assert_eq!(status(&exchange(port.address(), &plain).await), "415");
}

#[tokio::test]
async fn a_token_is_asked_for_where_there_is_one() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let token = Token::new("0123456789abcdef\n").unwrap();
    let guard = Arc::new(Guard::new(&[], &[], Some(token)));
    let port = open(Settings { guard, ..settings(&memory) }, fixture.methods(GUARD));
    let body = call(1, "blob", json!([2]));
    for (header, expected) in [
        ("", "401"),
        ("authorization: Bearer 0123456789abcdeF\r\n", "401"),
        ("authorization: Bearer 0123456789abcde\r\n", "401"),
        ("authorization: Bearer 0123456789abcdef0\r\n", "401"),
        ("authorization: Bearer \r\n", "401"),
        ("authorization: Basic 0123456789abcdef\r\n", "401"),
        ("authorization: Bearer 0123456789abcdef\r\n", "200"),
        ("authorization: bearer 0123456789abcdef\r\n", "200"),
    ] {
        let headers = format!("host: localhost\r\n{header}");
        let answer = exchange(port.address(), &post(&headers, &body)).await;
        assert_eq!(status(&answer), expected, "{header}: {answer}");
    }
    assert_eq!(port.stats().dropped_for(Dropped::Token), 6);
    assert!(Token::new("short").is_none() && Token::new(&"é".repeat(20)).is_none());
}

#[tokio::test]
async fn pages_are_served_on_the_same_terms() {
    let memory = Memory::new(64 << 20);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let page: Page = Arc::new(|parts| {
        let mut response = Response::new(parts.uri.path().as_bytes().to_vec());
        *response.status_mut() = hyper::StatusCode::IM_A_TEAPOT;
        response
    });
    let settings = Settings { connections: 4, per_address: None, ..settings(&memory) };
    let runtime = tokio::runtime::Handle::current();
    let port = Port::open(listener, settings, Service::Page(page), &runtime).unwrap();
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(TcpStream::connect(port.address()).await.unwrap());
    }
    let get = "GET /here HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = exchange(port.address(), get).await;
    assert!(status(&answer) == "418" && answer.ends_with("/here"), "{answer}");
    let guard = exchange(port.address(), &get.replace("localhost", "evil.example")).await;
    assert_eq!(status(&guard), "418", "the default guard answers all");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_kernel_holds_little_that_nobody_takes() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    tune(&stream);
    assert!(stream.nodelay().unwrap());
    let socket = socket2::SockRef::from(&stream);
    assert_eq!(socket.tcp_notsent_lowat().unwrap(), 256 * 1024);
}
