//! Batches, answered as geth answers them.

use super::*;

/// What a port answers to a batch over HTTP.
async fn batch(port: &Port, requests: &[String]) -> Vec<Value> {
    let body = format!("[{}]", requests.join(","));
    let answer = exchange(port.address(), &post("host: localhost\r\n", &body)).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|_| panic!("no batch: {answer}"))
}

#[tokio::test]
async fn a_batch_of_too_many_is_answered_under_the_first_calls_id() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let port = open(settings(&memory), fixture.methods(GUARD));
    let note = r#"{"jsonrpc":"2.0","method":"blob","params":[2]}"#.to_owned();
    let call = |id| call(id, "blob", json!([1]));
    for (requests, id) in [
        (vec![call(11), call(12), call(13), call(14)], json!(11)),
        (vec![note.clone(), "7".into(), call(12), call(13)], json!(12)),
        (vec![r#"{"id":5}"#.into(), note.clone(), note.clone(), call(8)], json!(8)),
        (vec![call(1).replace(":1,", ":-1.50,"), note.clone(), call(2), note.clone()], json!(-1.5)),
        (vec![note.clone(), note.clone(), note.clone(), note.clone()], json!(null)),
    ] {
        let answers = batch(&port, &requests).await;
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(answers[0]["id"], id, "{answers:?}");
        assert_eq!(answers[0]["error"]["code"], -32_600);
        let message = answers[0]["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("batch too large"), "{message}");
    }
    assert_eq!(fixture.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_a_batch_has_been_answered_stays_when_the_rest_would_be_too_long() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let settings = Settings { max_response: 1_000, max_batch: Some(8), ..settings(&memory) };
    let port = open(settings, fixture.methods(GUARD));
    let note = r#"{"jsonrpc":"2.0","method":"blob","params":[2]}"#.to_owned();
    let requests = [
        call(1, "blob", json!([600])),
        call(2, "blob", json!([700])),
        call(3, "blob", json!([1])),
        note,
        r#"{"id":4}"#.into(),
        call(5, "nothing", json!([])),
    ];
    let answers = batch(&port, &requests).await;
    let ids: Vec<_> = answers.iter().map(|answer| answer["id"].clone()).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5].map(Value::from));
    assert_eq!(answers[0]["result"].as_str().map(str::len), Some(600));
    assert_eq!(answers[1]["result"].as_str().map(str::len), Some(700), "it was carried out");
    for answer in &answers[2..] {
        let error = json!({ "code": -32_003, "message": "response too large" });
        assert_eq!(answer["error"], error, "{answer}");
    }
    assert_eq!(fixture.calls.load(Ordering::Relaxed), 2, "the rest was not carried out");
}

#[tokio::test]
async fn a_batch_for_which_there_is_no_room_keeps_what_it_was_answered() {
    let memory = Memory::new(100_000);
    let fixture = Fixture::new(&memory, 10);
    let settings = Settings { max_batch: Some(8), ..settings(&memory) };
    let port = open(settings, fixture.methods(GUARD));
    let requests = [1, 2, 3, 4].map(|id| call(id, "blob", json!([60_000])));
    let answers = batch(&port, &requests).await;
    assert_eq!(answers.len(), 4);
    for answer in &answers[..2] {
        assert_eq!(answer["result"].as_str().map(str::len), Some(60_000));
    }
    for answer in &answers[2..] {
        assert_eq!(answer["error"]["code"], -32_005, "{answer}");
    }
    assert_eq!(fixture.calls.load(Ordering::Relaxed), 2);
}

async fn hear_json(client: &mut Client) -> Value {
    serde_json::from_str(&hear(client).await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_subscription_within_a_batch_is_answered_in_it() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let settings = Settings { max_batch: Some(8), ..settings(&memory) };
    let port = open(settings, fixture.methods(GUARD));
    let mut client = dial(&port).await;
    let marked = r#"{"jsonrpc":"2.0","id":"\u0000\u0000","method":"subscribe","params":[]}"#;
    let requests = [
        call(1, "blob", json!([1])),
        call(2, "subscribe", json!([])),
        call(3, "later", json!([3])),
        marked.into(),
        call(5, "subscribe", json!([])).replace(":5,", ":-5,"),
        call(6, "subscribe", json!([])),
        call(7, "subscribe", json!([])),
    ];
    say(&mut client, format!("[{}]", requests.join(","))).await;
    let answers = hear_json(&mut client).await;
    let answers = answers.as_array().unwrap_or_else(|| panic!("not in the batch: {answers}"));
    let ids: Vec<_> = answers.iter().map(|answer| answer["id"].clone()).collect();
    let expected = json!([1, 2, 3, "\u{0}\u{0}", -5, 6, 7]);
    assert_eq!(Value::from(ids), expected);
    assert_eq!(answers[6]["error"]["code"], -32_006, "four is the limit");
    let mut made: Vec<_> = [1, 3, 4, 5].map(|at| answers[at]["result"].to_string()).into();
    made.sort_unstable();
    fixture.feed.send(77).unwrap();
    let mut told = Vec::new();
    for _ in 0..4 {
        let news = hear_json(&mut client).await;
        assert_eq!(news["method"], "news", "{news}");
        told.push(news["params"]["subscription"].to_string());
    }
    told.sort_unstable();
    assert_eq!(told, made);
    // Outside of a batch it is as before.
    let end = call(8, "unsubscribe", json!([answers[1]["result"]]));
    say(&mut client, format!("[{end}]")).await;
    assert_eq!(hear_json(&mut client).await[0]["result"], true);
    until("it has not ended", || fixture.subscribers.load(Ordering::Relaxed) == 3).await;
    say(&mut client, call(9, "subscribe", json!([]))).await;
    assert_eq!(hear_json(&mut client).await["id"], 9);
}

#[tokio::test]
async fn notifications_come_after_the_batch_that_asked_for_them() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let mut methods = fixture.methods(GUARD);
    // A call that sends news while its batch is being answered, and sees to it that they could have been
    // written.
    let mut module = RpcModule::from_arc(Arc::clone(&fixture));
    module
        .register_async_method("tell", |_, me, _| async move {
            for event in 0..3 {
                let _ = me.feed.send(event);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok::<_, ErrorObjectOwned>(())
        })
        .unwrap();
    // It ends at once, and says so.
    module
        .register_subscription("short", "end", "unshort", |_, pending, _, ext| async move {
            let _ended = Subscriber::accept(pending, &ext, GUARD).await?;
            Err("over".into())
        })
        .unwrap();
    methods.merge(module).unwrap();
    let port = open(settings(&memory), methods);
    let mut client = dial(&port).await;
    let requests =
        [call(1, "subscribe", json!([])), call(2, "short", json!([])), call(3, "tell", json!([]))];
    say(&mut client, format!("[{}]", requests.join(","))).await;
    let answers = hear_json(&mut client).await;
    let answers = answers.as_array().unwrap_or_else(|| panic!("the batch comes first: {answers}"));
    assert_eq!(answers.len(), 3);
    let (mut news, mut ends) = (Vec::new(), 0);
    while news.len() < 3 || ends < 1 {
        let next = hear_json(&mut client).await;
        match next["method"].as_str() {
            Some("news") => news.push(next["params"]["result"].clone()),
            Some("end") => ends += 1,
            _ => panic!("{next}"),
        }
    }
    assert_eq!(news, [0, 1, 2].map(|event| json!(format!("{event}yyyyyyyyyy"))));
}

#[tokio::test]
async fn a_batch_that_is_never_answered_leaves_no_subscription() {
    let memory = Memory::new(64 << 20);
    let fixture = Fixture::new(&memory, 10);
    let port = open(settings(&memory), fixture.methods(GUARD));
    let mut client = dial(&port).await;
    let requests = [call(1, "subscribe", json!([])), call(2, "never", json!([]))];
    say(&mut client, format!("[{}]", requests.join(","))).await;
    until("it is not asked", || fixture.feed.receiver_count() == 1).await;
    drop(client);
    until("it has not ended", || fixture.feed.receiver_count() == 0).await;
    until("it is held", || memory.used() == 0).await;
}
