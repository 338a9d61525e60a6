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
        call(13, "blob", json!([5_000])),
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
    (status(answer).to_owned(), kind.unwrap_or_default().to_owned(), likewise(body))
}

/// An answer without the words of its errors: ours say more. To notifications alone jsonrpsee
/// answers `null`, which is no answer.
fn likewise(body: &str) -> String {
    let Ok(mut answer) = serde_json::from_str::<Value>(body) else { return body.to_owned() };
    let plain = |answer: &mut Value| {
        if let Some(error) = answer.get_mut("error").and_then(Value::as_object_mut) {
            error.remove("message");
        }
    };
    match &mut answer {
        Value::Null => return String::new(),
        Value::Array(batch) => batch.iter_mut().for_each(plain),
        one => plain(one),
    }
    answer.to_string()
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
            let (ours, theirs) = (hear(&mut ours).await.unwrap(), hear(&mut theirs).await.unwrap());
            assert_eq!(likewise(&ours), likewise(&theirs), "{message}");
        }
    }
}

/// What a port answers to a body.
async fn answer(port: &Port, body: &str) -> Value {
    let answer = exchange(port.address(), &post("host: localhost\r\n", body)).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() }
}

#[tokio::test]
async fn ids_of_every_kind_come_back() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let port = open(settings(&memory), fixture.methods(GUARD));
    let mut client = dial(&port).await;
    let ids = ["-1", "1.5", "18446744073709551616", "1e400", "\"\\u0000x\"", "null", "7", "\"\""];
    for id in ids {
        for (method, params, result) in [
            ("blob", "[2]", "\"xx\""),
            ("later", "[1]", "[1]"),
            ("blob", "[\"two\"]", "-32602"),
            ("nothing", "[]", "-32601"),
        ] {
            let ask =
                format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
            let begin = format!(r#"{{"jsonrpc":"2.0","id":{id},"#);
            let over_http = exchange(port.address(), &post("host: localhost\r\n", &ask)).await;
            let body = over_http.split_once("\r\n\r\n").unwrap().1.to_owned();
            let batch = format!("[{ask},{ask}]");
            let batch = exchange(port.address(), &post("host: localhost\r\n", &batch)).await;
            assert_eq!(batch.matches(&begin).count(), 2, "{batch}");
            say(&mut client, ask).await;
            let over_websocket = hear(&mut client).await.unwrap();
            assert_eq!(body, over_websocket);
            assert!(body.starts_with(&begin) && body.contains(result), "{body}");
        }
    }
    // A subscription is answered on another way.
    for id in ["-1", "1.5", "\"\\u0000x\""] {
        let ask = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"subscribe","params":[]}}"#);
        say(&mut client, ask).await;
        let answer = hear(&mut client).await.unwrap();
        assert!(answer.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"#)));
    }
}

#[tokio::test]
async fn a_notification_is_carried_out_and_not_answered() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let port = open(settings(&memory), fixture.methods(GUARD));
    let note = r#"{"jsonrpc":"2.0","method":"blob","params":[2]}"#;
    let unknown = r#"{"jsonrpc":"2.0","method":"nothing"}"#;
    let subscribe = r#"{"jsonrpc":"2.0","method":"subscribe","params":[]}"#;
    for body in [note, unknown, subscribe, &format!("[{note},{unknown}]")] {
        let answer = exchange(port.address(), &post("host: localhost\r\n", body)).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-length: 0") && body.is_empty(), "{answer}");
        assert_eq!(status(&answer), "200");
    }
    assert_eq!(fixture.calls.load(Ordering::Relaxed), 2);
    let mixed = answer(&port, &format!("[{note},{}]", call(1, "blob", json!([1])))).await;
    assert_eq!(mixed, json!([{ "jsonrpc": "2.0", "id": 1, "result": "x" }]));
    let mut client = dial(&port).await;
    for note in [note, unknown, subscribe] {
        say(&mut client, note).await;
    }
    say(&mut client, call(2, "blob", json!([1]))).await;
    assert!(hear(&mut client).await.unwrap().contains("\"id\":2"));
    assert_eq!(fixture.calls.load(Ordering::Relaxed), 6);
    assert_eq!(fixture.subscribers.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn errors_have_their_reason_in_the_message() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let settings = Settings { max_response: 1_000, ..settings(&memory) };
    let port = open(settings, fixture.methods(GUARD));
    for (body, code, text) in [
        (call(1, "blob", json!(["three"])), -32_602, "invalid params: invalid type: string"),
        (
            call(1, "blob", json!([2_000])),
            -32_008,
            "response is too big: Exceeded max limit of 1000",
        ),
        (call(1, "nothing", json!([])), -32_601, "the method nothing does not exist/is not"),
        (call(1, &"n".repeat(500), json!([])), -32_601, "nnn… does not exist"),
        (call(1, "subscribe", json!([])), -32_601, "notifications not supported"),
        (call(1, "unsubscribe", json!([1])), -32_601, "notifications not supported"),
        ("[]".into(), -32_600, "empty batch"),
        ("{]".into(), -32_700, "parse error: key must be a string at line 1"),
        ("1".into(), -32_600, "invalid request: a request is an object"),
        (r#"{"jsonrpc":"2.0","id":6}"#.into(), -32_600, "`method` is missing"),
    ] {
        let answer = answer(&port, &body).await;
        assert_eq!(answer["error"]["code"], code, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(text), "{answer}");
    }
}

/// Sends a request without a body; the head and the body of its answer.
async fn ask(port: &Port, line: &str, headers: &str) -> (String, String) {
    let request =
        format!("{line} HTTP/1.1\r\nhost: localhost\r\n{headers}connection: close\r\n\r\n");
    let answer = exchange(port.address(), &request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn whoever_asks_whether_somebody_is_here_is_told_so() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let port = open(settings(&memory), fixture.methods(GUARD));
    let (head, body) = ask(&port, "GET /", "").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && body.contains("POST"), "{head}");
    let (head, body) = ask(&port, "HEAD /", "").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty(), "{head}");
    let (head, body) = ask(&port, "OPTIONS /", "").await;
    assert!(head.starts_with("HTTP/1.1 204 ") && body.is_empty(), "{head}");
    assert!(head.contains("allow: GET, HEAD, POST, OPTIONS"), "{head}");
    let (head, _) = ask(&port, "DELETE /", "").await;
    assert!(head.starts_with("HTTP/1.1 405 ") && head.contains("allow: GET"), "{head}");
    // Pages come before that.
    let pages: Pages = Arc::new(|request| {
        let asked = request.headers.get("accept").is_some_and(|kind| kind == "text/html");
        (asked && request.uri.path() == "/").then(|| {
            let mut page = hyper::Response::new("<p>".repeat(1_000).into_bytes());
            page.headers_mut().insert("content-type", "text/html".parse().unwrap());
            page
        })
    });
    let settings = Settings { pages: Some(pages), ..settings(&memory) };
    let port = open(settings, fixture.methods(GUARD));
    let (head, body) = ask(&port, "GET /", "accept: text/html\r\n").await;
    assert!(head.contains("content-type: text/html") && body.len() == 3_000, "{head}");
    assert!(!head.contains("content-encoding") && head.contains("vary: accept-encoding"), "{head}");
    let (head, body) = ask(&port, "HEAD /", "accept: text/html\r\n").await;
    assert!(head.contains("content-length: 3000") && body.is_empty(), "{head}");
    let (head, _) = ask(&port, "GET /", "accept: text/html\r\naccept-encoding: gzip\r\n").await;
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let (head, body) = ask(&port, "GET /other", "accept: text/html\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && body.contains("POST"), "{head}");
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_take_it() {
    use std::io::Read as _;

    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let port = open(settings(&memory), fixture.methods(GUARD));
    let takes = "host: localhost\r\naccept-encoding: gzip, deflate\r\n";
    // On the spot, and on a thread of its own.
    for length in [5_000, 1_000_000] {
        let request = post(takes, &call(1, "blob", json!([length])));
        let mut stream = TcpStream::connect(port.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = guarded(stream.read_to_end(&mut answer)).await;
        let end = answer.windows(4).position(|at| at == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        assert!(head.contains("content-encoding: gzip"), "{head}");
        assert!(head.contains(&format!("content-length: {}", answer.len() - end)), "{head}");
        assert!(answer.len() - end < length / 10);
        let mut text = String::new();
        flate2::read::GzDecoder::new(&answer[end..]).read_to_string(&mut text).unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["result"].as_str().unwrap().len(), length);
    }
    let short = exchange(port.address(), &post(takes, &call(1, "blob", json!([5])))).await;
    assert!(!short.contains("content-encoding") && short.ends_with("xxxxx\"}"), "{short}");
    let plain = post("host: localhost\r\n", &call(1, "blob", json!([5_000])));
    let plain = exchange(port.address(), &plain).await;
    assert!(!plain.contains("content-encoding") && plain.contains("vary: accept-encoding"));
    // What is sent is not compressed.
    let coded = "host: localhost\r\ncontent-encoding: gzip\r\n";
    let refused = exchange(port.address(), &post(coded, &call(1, "blob", json!([5])))).await;
    assert_eq!(status(&refused), "415");
    until("what was compressed is still held", || memory.used() == 0).await;
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

#[tokio::test]
async fn a_content_type_is_json_whatever_its_parameters() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let port = open(settings(&memory), fixture.methods(GUARD));
    for (kind, expected) in [
        ("application/json", "200"),
        ("application/json;", "200"),
        ("Application/JSON ; charset=UTF-8", "200"),
        ("application/json; charset=\"utf-8\"", "200"),
        ("application/json;charset=utf8", "200"),
        ("application/json; profile=\"https://a.example/b;c\"; charset=utf-8", "200"),
        ("application/json-rpc; charset=latin1", "200"),
        ("application/jsonrequest", "200"),
        // What browsers send without asking before.
        ("text/plain", "415"),
        ("text/plain; application/json", "415"),
        ("text/plain, application/json", "415"),
        ("application/x-www-form-urlencoded", "415"),
        ("multipart/form-data; boundary=application/json", "415"),
        ("application/json, text/plain", "415"),
        ("application/jsonp", "415"),
        ("", "415"),
    ] {
        let request = post("host: localhost\r\n", &call(1, "blob", json!([1])));
        let request = request.replacen("application/json", kind, 1);
        let answer = exchange(port.address(), &request).await;
        assert_eq!(status(&answer), expected, "{kind}: {answer}");
    }
}

#[tokio::test]
async fn json_that_is_no_request_is_told_from_what_is_no_json() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let port = open(settings(&memory), fixture.methods(GUARD));
    let mut client = dial(&port).await;
    let spaces = " ".repeat(200);
    for (message, code) in [
        ("1", -32_600),
        ("\"x\"", -32_600),
        ("true", -32_600),
        (" null\n", -32_600),
        ("-0.5e3", -32_600),
        ("{}", -32_600),
        ("nonsense", -32_700),
        ("1 2", -32_700),
        ("\"x", -32_700),
        ("tru", -32_700),
        (" ", -32_700),
        ("{} {}", -32_700),
        ("{", -32_700),
        // However much white space there is in front.
        (&*format!("{spaces}1"), -32_600),
        (&*format!("{spaces}{{}}"), -32_600),
        (&*spaces, -32_700),
    ] {
        let whole = exchange(port.address(), &post("host: localhost\r\n", message)).await;
        let over_http = whole.split_once("\r\n\r\n").unwrap().1;
        say(&mut client, message).await;
        assert_eq!(over_http, hear(&mut client).await.unwrap());
        let answer: Value = serde_json::from_str(over_http).unwrap();
        assert_eq!(answer["error"]["code"], code, "{message}: {answer}");
        assert!(answer["id"].is_null(), "{message}: {answer}");
    }
    let ask = format!("{spaces}{}", call(1, "blob", json!([2])));
    assert_eq!(answer(&port, &ask).await["result"], "xx");
    let batch = format!("{spaces}[{}]", call(1, "blob", json!([2])));
    assert_eq!(answer(&port, &batch).await[0]["result"], "xx");
}

#[tokio::test]
async fn an_array_within_a_batch_is_no_request() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let port = open(settings(&memory), fixture.methods(GUARD));
    let answered = answer(&port, r#"[["2.0",7,"blob",[2]], "x", [[]]]"#).await;
    for one in answered.as_array().unwrap() {
        assert_eq!(one["error"]["code"], -32_600, "{answered}");
        assert!(one["error"]["message"].as_str().unwrap().contains("an object"), "{answered}");
        assert!(one["id"].is_null(), "{answered}");
    }
    assert_eq!(fixture.calls.load(Ordering::Relaxed), 0);
}
