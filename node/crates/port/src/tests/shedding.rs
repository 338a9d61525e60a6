//! What goes first when memory is short.

use tokio::sync::mpsc;

use super::*;
use crate::client::Client;
use crate::notices::Hold;
use crate::outbox::{Item, Limit, Outbox};

/// A connection that holds nothing yet.
fn client(memory: &Arc<Memory>) -> Arc<Client> {
    let client = Arc::new(Client::new(memory.next_id(), "192.0.2.1".parse().unwrap()));
    memory.register(&client);
    client
}

/// Asks for room, once: whether there is any.
async fn room(memory: &Memory) -> bool {
    tokio::time::timeout(Duration::from_millis(1), memory.room()).await.is_ok()
}

fn notices(memory: &Arc<Memory>, holders: &[&Arc<Client>]) -> Vec<Arc<Hold>> {
    let notices = memory.share(vec![vec![0; 1_000], vec![0; 3_000]]);
    holders.iter().map(|client| Hold::new(&notices, client)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_several_hold_is_free_when_the_last_of_them_has_gone() {
    let memory = Memory::new(10_000);
    let [first, second, third, reader] = [(); 4].map(|()| client(&memory));
    let held = [
        notices(&memory, &[&first, &second]),
        // One of its holders keeps up, so closing the other frees nothing.
        notices(&memory, &[&first, &reader]),
        notices(&memory, &[&third]),
    ];
    assert_eq!(memory.used(), 12_000);
    for late in [&first, &second, &third] {
        late.mark_not_taken(Some(tokio::time::Instant::now()));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(!room(&memory).await);
    let ended = [&first, &second, &third, &reader].map(|client| client.is_ended());
    assert_eq!(ended, [true, true, false, false], "who has kept it longest, as many as it takes");
    // While they close, nobody else has to go.
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!room(&memory).await && !third.is_ended());
    let [mut both, half, _third] = held;
    both.pop();
    assert_eq!(memory.used(), 12_000, "one of two has let go");
    both.pop();
    assert_eq!(memory.used(), 8_000);
    assert!(room(&memory).await);
    drop(half);
    assert!(!first.holds() && !reader.holds() && third.holds());
    assert_eq!(memory.used(), 4_000);
}

#[tokio::test(start_paused = true)]
async fn a_text_is_held_until_it_is_written() {
    let memory = Memory::new(1_000);
    let (client, notices) = (client(&memory), memory.share(vec![b"one".to_vec(), b"two".to_vec()]));
    let hold = Hold::new(&notices, &client);
    let text = hold.text(1);
    drop((hold, notices));
    assert_eq!((&text[..], memory.used(), client.holds()), (&b"two"[..], 6, true));
    drop(text);
    assert_eq!((memory.used(), client.holds()), (0, false));
}

#[tokio::test(start_paused = true)]
async fn who_takes_a_little_again_and_again_goes_with_all_that_waits() {
    let memory = Memory::new(5_000);
    let client = client(&memory);
    let (_sink, sinks) = mpsc::channel(1);
    let limit = Limit { bytes: 1 << 20, messages: 256 };
    let outbox = Outbox::new(Arc::clone(&memory), Arc::clone(&client), limit, sinks);
    let shared = memory.share(vec![vec![0; 3_000]]);
    for _ in 0..4 {
        let body = Hold::new(&shared, &client).text(0);
        let since = tokio::time::Instant::now();
        outbox.push(Item { head: Bytes::new(), body, tail: b"", since }).unwrap();
        let text = serde_json::value::to_raw_value(&"x".repeat(2_000)).unwrap();
        outbox.answer(text);
    }
    assert!(memory.used() > 11_000, "{}", memory.used());
    // It takes a message in 100 ms, so no write waits for long.
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut taken = 0;
    while !client.is_ended() {
        let std::task::Poll::Ready(Some(item)) = outbox.poll_next(&mut context) else {
            panic!("it took all of it");
        };
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(client.late(), Duration::ZERO);
        room(&memory).await;
        outbox.written(item.len());
        taken += 1;
    }
    assert_eq!(taken, 3, "after 250 ms");
    drop(shared);
    outbox.close();
    assert_eq!((memory.used(), client.holds()), (0, false));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_holds_goes_before_anybody() {
    const EACH: usize = 1_000;
    let memory = Memory::new(6 * EACH);
    let shared = Shared::new(100 * EACH, Arc::clone(&memory));
    let client = client(&memory);
    let get = |key: usize| {
        let encode = || Ok::<_, ()>(vec![vec![0; EACH]]);
        shared.get(key, Arc::new(()), false, encode)
    };
    let mut held = Vec::new();
    for key in 0..8 {
        let notices = get(key).await.unwrap();
        if key == 2 {
            held.push(Hold::new(&notices, &client));
            client.mark_not_taken(Some(tokio::time::Instant::now()));
        }
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert!(room(&memory).await, "{} are used", memory.used());
    assert!(!client.is_ended());
    assert!(memory.highest() <= 7 * EACH, "{}", memory.highest());
    // What is held is there still, and what went is made again.
    let made = shared.made();
    get(2).await.unwrap();
    assert_eq!(shared.made(), made);
    get(0).await.unwrap();
    assert_eq!(shared.made(), made + 1);
}

#[tokio::test]
async fn stalled_subscribers_at_different_events_keep_nobody_from_asking() {
    let memory = Memory::new(8 << 20);
    let fixture = Fixture::new(&memory, 1 << 20);
    // Nobody is closed for being slow.
    let settings = Settings { slow_after: GUARD * 10, unsent: 2 << 20, ..settings(&memory) };
    let port = open(settings, fixture.methods(GUARD * 10));
    let mut stalled = Vec::new();
    for n in 0..10 {
        let mut client = dial(&port).await;
        say(&mut client, call(1, "subscribe", json!([]))).await;
        hear(&mut client).await.unwrap();
        stalled.push(client);
        for event in 0..2 {
            fixture.feed.send(n * 2 + event).unwrap();
            until("it is not encoded", || fixture.shared.made() > n * 2 + event).await;
        }
    }
    let request = post("host: localhost\r\n", &call(1, "blob", json!([2])));
    let answer = exchange(port.address(), &request).await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(port.stats().dropped_for(Dropped::Shed) > 0);
    until("it is not given back", || memory.used() < 8 << 20).await;
}

#[tokio::test]
async fn a_request_for_which_there_is_no_room_is_refused_in_time() {
    let memory = Memory::new(1 << 20);
    let fixture = Fixture::new(&memory, 0);
    let short = Settings { slow_after: Duration::from_millis(500), ..settings(&memory) };
    let port = open(short, fixture.methods(GUARD));
    // By somebody who cannot be closed.
    let taken = memory.charge(None, 2 << 20);
    let request = post("host: localhost\r\n", &call(1, "blob", json!([2])));
    let chunked = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                   transfer-encoding: chunked\r\n\r\n4\r\n    \r\n";
    for request in [&*request, chunked] {
        let answer = exchange(port.address(), request).await;
        assert_eq!(status(&answer), "503", "{answer}");
        assert!(answer.contains("-32005") && answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(port.stats().dropped_for(Dropped::NoRoom), 2);
    assert_eq!(fixture.calls.load(Ordering::Relaxed), 0);
    drop(taken);
    // There is room. The port is as patient as by default, so that a slow machine has time for the
    // request.
    let port = open(settings(&memory), fixture.methods(GUARD));
    let answer = exchange(port.address(), &request).await;
    assert_eq!(status(&answer), "200", "{answer}");
}
