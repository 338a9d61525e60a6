//! A process with few file descriptors whose ports are flooded: with sockets that say nothing, and
//! with requests whose answers nobody reads.

#![expect(clippy::print_stderr, reason = "what was measured")]

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{GUARD, guarded, request};
use crate::processes::{Network, Process};

/// The number behind a metric's name and label. The port of a flooded node may refuse to tell it.
async fn metric(process: &Process, name: &str) -> u64 {
    let start = Instant::now();
    loop {
        let answer = process.try_get("/metrics").await;
        if let Some(metrics) = answer.as_ref().ok().filter(|text| text.starts_with("HTTP/1.1 200"))
        {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|number| number.trim().parse().ok());
            return number.unwrap_or_else(|| panic!("`{name}` in {metrics}"));
        }
        assert!(start.elapsed() < GUARD, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a metric's number is `fine`.
async fn until_metric(process: &Process, name: &str, fine: impl Fn(u64) -> bool) {
    let start = Instant::now();
    loop {
        let number = metric(process, name).await;
        if fine(number) {
            return;
        }
        assert!(start.elapsed() < GUARD, "`{name}` is {number}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Asks a question until its answer is `fine`; how often it was not. A port that is flooded may
/// refuse a question, or lose the place of one that a slow machine is late in sending.
async fn until_fine<F: Future<Output = Result<(), String>>>(ask: impl Fn() -> F) -> u64 {
    let start = Instant::now();
    let mut refusals = 0;
    while let Err(why) = ask().await {
        assert!(start.elapsed() < GUARD, "{why}, after {refusals} refusals");
        refusals += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    refusals
}

/// Every port answers; how often a question had to be asked again.
async fn answers(process: &Process) -> u64 {
    let mut refusals = 0;
    for path in ["/healthz", "/readyz", "/metrics"] {
        refusals += until_fine(|| async move {
            match process.try_get(path).await {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") => Ok(()),
                other => Err(format!("{path}: {other:?}")),
            }
        })
        .await;
    }
    for port in [process.http, process.admin] {
        refusals += until_fine(|| async move {
            let url = format!("http://127.0.0.1:{port}");
            let status = request(&url, "fragcast_status", json!([])).await;
            match status["result"]["ready"] == true {
                true => Ok(()),
                false => Err(format!("{url}: {status}\n{}", process.log())),
            }
        })
        .await;
    }
    // The gateway's port answers, if only that it has no such method.
    refusals += until_fine(|| async move {
        let answer = request(&process.ingest_url(), "nothing", json!([])).await;
        match answer["error"]["code"] == -32601 {
            true => Ok(()),
            false => Err(format!("ingest: {answer}")),
        }
    })
    .await;
    refusals
}

/// A single node that may have 1,024 open files, and waits for two seconds.
async fn few_files() -> Network {
    fragcast_port::raise_limit();
    let mut net = Network::new(1);
    let process = &mut net.processes[0];
    process.edit("node.toml", "slow_subscriber_ms = 5000", "slow_subscriber_ms = 2000");
    process.start_as(|command| {
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 1024 && exec \"$0\" \"$@\""]);
        limited.arg(command.get_program()).args(command.get_args());
        limited
    });
    net.all_connected().await;
    net
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_sockets_and_few_files_leave_room_for_health_and_requests() {
    let net = few_files().await;
    let process = &net.processes[0];
    let mut silent = Vec::new();
    for (port, sockets) in
        [(process.http, 1_130), (process.metrics, 200), (process.admin, 100), (process.ingest, 100)]
    {
        for _ in 0..sockets {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            silent.push(TcpStream::connect_timeout(&address, Duration::from_secs(60)).unwrap());
        }
    }
    let mut refusals = 0;
    for _ in 0..5 {
        refusals += answers(process).await;
    }
    let failed = |port| format!("fragcast_port_accept_failed_total{{port=\"{port}\"}}");
    for port in ["http", "ingest", "admin", "metrics"] {
        assert_eq!(metric(process, &failed(port)).await, 0, "{port}: it never ran out of files");
    }
    // Those that were told to go count until they have closed.
    until_metric(process, "fragcast_port_connections{port=\"http\"}", |n| n <= 500).await;
    until_metric(process, "fragcast_http_dropped_total{reason=\"idle\"}", |n| n > 600).await;
    until_metric(process, "fragcast_metrics_dropped_total{reason=\"idle\"}", |n| n > 100).await;
    drop(silent);
    refusals += answers(process).await;
    eprintln!("{refusals} questions were asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_answers_take_no_memory_and_slow_nothing() {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;

    let mut net = few_files().await;
    let process = &net.processes[0];
    let address = SocketAddr::from(([127, 0, 0, 1], process.http));
    static DONE: AtomicBool = AtomicBool::new(false);
    let flood = tokio::spawn(async move {
        let mut ends = Vec::new();
        for _ in 0..50 {
            ends.push(tokio::spawn(async move {
                let stream = tokio::net::TcpStream::connect(address).await.unwrap();
                let url = format!("ws://{address}/");
                let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
                let (mut send, receive) = socket.split();
                let request = r#"{"jsonrpc":"2.0","id":1,"method":"fragcast_status","params":[]}"#;
                for _ in 0..50_000 {
                    if send.feed(Message::text(request)).await.is_err() {
                        break;
                    }
                }
                let _ = send.flush().await;
                // Nothing is read until the test is over.
                while !DONE.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                drop(receive);
            }));
        }
        for end in ends {
            end.await.unwrap();
        }
    });
    // All 50 are closed, and meanwhile others are answered.
    let start = Instant::now();
    let mut refusals = 0;
    loop {
        let closed = metric(process, "fragcast_http_dropped_total{reason=\"slow\"}").await
            + metric(process, "fragcast_http_dropped_total{reason=\"shed\"}").await;
        if closed >= 50 {
            break;
        }
        assert!(start.elapsed() < 5 * GUARD, "{closed} of 50 are closed");
        refusals += answers(process).await;
    }
    eprintln!("{refusals} questions were asked again");
    let most = metric(process, "fragcast_port_held_max_bytes{port=\"http\"}").await;
    assert!(most < 128 << 20, "{most} bytes were held");
    DONE.store(true, Ordering::Relaxed);
    guarded(flood).await.unwrap();
    // It ends when it is asked to.
    let mut running = net.processes[0].running.take().unwrap();
    let pid = running.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || running.0.wait().unwrap());
    assert!(guarded(ended).await.unwrap().success());
}
