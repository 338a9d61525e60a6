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
