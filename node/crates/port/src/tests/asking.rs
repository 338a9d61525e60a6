//! What is asked over HTTP and WebSocket, compared with jsonrpsee's own server.

use jsonrpsee::server::{BatchRequestConfig, Server, ServerConfig};

use super::*;

/// Requests of each kind, right and wrong.
fn messages() -> Vec<String> {
    vec![
        call(1, "blob", json!([3])),
        call(2, "blob", json!(["three"])),
        call(3, "later", json!({ "a": [1, null] })),
        call(4, "nothing", json!([])),
        r#"  {"jsonrpc":"2.0","id":"five","method":"blob","params":[1]}"#.into(),
        r#"{"jsonrpc":"2.0","id":null,"method":"blob","params":[1]}"#.into(),
        r#"{"jsonrpc":"2.0","id":6}"#.into(),
        r#"{"jsonrpc":"1.0","id":7,"method":"blob"}"#.into(),
        r#"{"jsonrpc":"2.0","id":8,"#.into(),
        "[]".into(),
        "[1]".into(),
        "[".into(),
        format!("[{},{}]", call(9, "blob", json!([2])), call(10, "nothing", json!([]))),
        format!("[{}]", r#"{"jsonrpc":"2.0","method":"blob","params":[2]}"#),
        format!("[{0},{0},{0},{0}]", call(11, "blob", json!([1]))),
        format!("[{0},{0},{0}]", call(12, "blob", json!([700]))),
        call(13, "blob", json!([5_000])),
        call(14, "unsubscribe", json!([17])),
        "nonsense".into(),
        String::new(),
    ]
}

const MAX_RESPONSE: u32 = 2_000;

async fn both(batches: bool) -> (Port, std::net::SocketAddr, jsonrpsee::server::ServerHandle) {
    let memory = Memory::new(64 << 20);
    let settings = Settings {
        max_response: MAX_RESPONSE,
        max_request: 10_000,
        max_batch: batches.then_some(3),
        ..settings(&memory)
    };
    let methods = Fixture::new(&memory, 10).methods(GUARD);
    let port = open(settings, methods.clone());
    let batch = if batches { BatchRequestConfig::Limit(3) } else { BatchRequestConfig::Disabled };
    let config = ServerConfig::builder()
        .max_response_body_size(MAX_RESPONSE)
        .max_request_body_size(10_000)
        .set_batch_request_config(batch)
        .build();
    let server = Server::builder().set_config(config).build("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    (port, address, server.start(methods))
}

/// An HTTP answer: its status, its content type, its body.
fn parts(answer: &str) -> (String, String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: "));
    (status(answer).to_owned(), kind.unwrap_or_default().to_owned(), body.to_owned())
}

#[tokio::test]
async fn http_is_answered_as_jsonrpsee_answers() {
    for batches in [true, false] {
        let (port, theirs, _server) = both(batches).await;
        let mut requests: Vec<String> =
            messages().iter().map(|body| post("host: localhost\r\n", body)).collect();
        requests.push(post("host: localhost\r\n", &" ".repeat(20_000)));
        requests.push(post("host: localhost\r\n", "{}").replace("/json", "/text"));
        requests.push(
            post("host: localhost\r\n", &call(1, "blob", json!([1])))
                .replace("/json", "/json; charset=utf-8"),
        );
        requests.push("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".into());
        requests.push(post("host: localhost\r\n", &call(1, "subscribe", json!([]))));
        for request in requests {
            let ours = exchange(port.address(), &request).await;
            let expected = exchange(theirs, &request).await;
            assert_eq!(parts(&ours), parts(&expected), "{request}");
        }
    }
}

#[tokio::test]
async fn websockets_are_answered_as_jsonrpsee_answers() {
    for batches in [true, false] {
        let (port, theirs, _server) = both(batches).await;
        let (mut ours, mut theirs) = (dial(&port).await, websocket(theirs).await);
        for message in messages() {
            // A notification has no answer; what follows it does.
            let end = call(99, "blob", json!([1]));
            for client in [&mut ours, &mut theirs] {
                say(client, message.clone()).await;
                if message.contains(r#"[{"jsonrpc":"2.0","method""#) {
                    say(client, end.clone()).await;
                }
            }
            assert_eq!(hear(&mut ours).await, hear(&mut theirs).await, "{message}");
        }
    }
}

#[tokio::test]
async fn subscriptions_have_their_answer_first_and_end_when_asked() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let port = open(settings(&memory), fixture.methods(GUARD));
    let mut client = dial(&port).await;
    let mut ids = Vec::new();
    for n in 0..4 {
        say(&mut client, call(n, "subscribe", json!([]))).await;
        let answer: Value = serde_json::from_str(&hear(&mut client).await.unwrap()).unwrap();
        assert_eq!(answer["id"], n);
        ids.push(answer["result"].clone());
    }
    say(&mut client, call(5, "subscribe", json!([]))).await;
    assert!(hear(&mut client).await.unwrap().contains("-32006"), "four is the limit");
    fixture.feed.send(77).unwrap();
    let mut told = Vec::new();
    for _ in 0..4 {
        let news: Value = serde_json::from_str(&hear(&mut client).await.unwrap()).unwrap();
        assert_eq!(
            (&news["jsonrpc"], &news["method"], &news["params"]["result"]),
            (&json!("2.0"), &json!("news"), &json!("77yyyyyyyyyy"))
        );
        told.push(news["params"]["subscription"].clone());
    }
    assert!(ids.iter().all(|id| told.contains(id)));
    assert_eq!(fixture.shared.made(), 1, "it was encoded once for all four");
    say(&mut client, call(6, "unsubscribe", json!([ids[0]]))).await;
    assert!(hear(&mut client).await.unwrap().contains("true"));
    until("it has not ended", || fixture.subscribers.load(Ordering::Relaxed) == 3).await;
    drop(client);
    until("they have not ended", || fixture.subscribers.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test]
async fn too_long_a_message_is_answered_and_the_connection_closed() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let settings = Settings { max_request: 1_000, ..settings(&memory) };
    let port = open(settings, fixture.methods(GUARD));
    let mut client = dial(&port).await;
    say(&mut client, "x".repeat(2_000)).await;
    assert!(hear(&mut client).await.unwrap().contains("-32007"));
    assert_eq!(hear(&mut client).await, None);
    assert_eq!(port.stats().dropped_for(Dropped::Misbehaved), 1);
}

#[tokio::test]
async fn a_port_that_stops_says_so_and_leaves_nothing() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let port = open(settings(&memory), fixture.methods(GUARD));
    let address = port.address();
    let mut client = dial(&port).await;
    say(&mut client, call(1, "subscribe", json!([]))).await;
    hear(&mut client).await.unwrap();
    let _idle = TcpStream::connect(address).await.unwrap();
    until("both are in", || port.stats().connections.load(Ordering::Relaxed) == 2).await;
    guarded(port.stop(GUARD)).await;
    let end = guarded(client.next()).await.unwrap().unwrap();
    assert!(matches!(end, Message::Close(Some(frame)) if u16::from(frame.code) == 1001));
    assert!(TcpStream::connect(address).await.is_err());
    until("it has not ended", || fixture.subscribers.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test]
async fn one_path_may_have_methods_of_its_own() {
    let memory = Memory::new(1 << 20);
    let named = |name: &'static str| {
        let mut module = jsonrpsee::RpcModule::new(());
        module.register_method("name", move |_, (), _| name).unwrap();
        Methods::from(module)
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (service, other) = (Service::Rpc(named("elsewhere")), Some(("/other", named("other"))));
    let runtime = tokio::runtime::Handle::current();
    let port = Port::open_with(listener, settings(&memory), service, other, &runtime).unwrap();
    let question = call(1, "name", json!([]));
    for (path, expected) in [
        ("/", "elsewhere"),
        ("/other", "other"),
        ("/other/", "other"),
        ("/other?key=1", "other"),
        ("/others", "elsewhere"),
        ("/other/more", "elsewhere"),
        ("/v1", "elsewhere"),
    ] {
        let request = post("", &question).replacen("POST / ", &format!("POST {path} "), 1);
        let answer = exchange(port.address(), &request).await;
        let expected = format!(r#""result":"{expected}""#);
        assert!(answer.contains(&expected), "{path}: {answer}");
        let stream = TcpStream::connect(port.address()).await.unwrap();
        let dialled =
            tokio_tungstenite::client_async(format!("ws://{}{path}", port.address()), stream);
        let mut client = guarded(dialled).await.unwrap().0;
        say(&mut client, question.clone()).await;
        let answer = hear(&mut client).await.unwrap();
        assert!(answer.contains(&expected), "{path}: {answer}");
    }
}
