//! A process with few file descriptors whose ports are flooded: with sockets that say nothing, and
//! with requests whose answers nobody reads.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::common::{guarded, request};
use crate::processes::{Network, Process};

/// The number behind a metric's name and label.
async fn metric(process: &Process, name: &str) -> u64 {
    let metrics = process.get("/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|number| number.trim().parse().ok());
    number.unwrap_or_else(|| panic!("`{name}` in {metrics}"))
}

async fn answers(process: &Process) {
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer = process.get(path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    for port in [process.http, process.admin] {
        let url = format!("http://127.0.0.1:{port}");
        let status = request(&url, "fragcast_status", json!([])).await;
        assert_eq!(status["result"]["ready"], true, "{url}: {status}\n{}", process.log());
    }
    // The gateway's port answers, if only that it has no such method.
    let answer = request(&process.ingest_url(), "nothing", json!([])).await;
    assert_eq!(answer["error"]["code"], -32601, "{answer}");
}

/// A single node that may have 1,024 open files, and waits for half a second.
async fn few_files() -> Network {
    fragcast_port::raise_limit();
    let mut net = Network::new(1);
    let process = &mut net.processes[0];
    process.edit("node.toml", "slow_subscriber_ms = 5000", "slow_subscriber_ms = 500");
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
    for _ in 0..5 {
        guarded(answers(process)).await;
    }
    let failed = |port| format!("fragcast_port_accept_failed_total{{port=\"{port}\"}}");
    for port in ["http", "ingest", "admin", "metrics"] {
        assert_eq!(metric(process, &failed(port)).await, 0, "{port}: it never ran out of files");
    }
    // Those that were told to go count until they have closed.
    guarded(async {
        while metric(process, "fragcast_port_connections{port=\"http\"}").await > 500 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(metric(process, "fragcast_http_dropped_total{reason=\"idle\"}").await > 600);
    assert!(metric(process, "fragcast_metrics_dropped_total{reason=\"idle\"}").await > 100);
    drop(silent);
    guarded(answers(process)).await;
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
    let closed = async {
        while metric(process, "fragcast_http_dropped_total{reason=\"slow\"}").await
            + metric(process, "fragcast_http_dropped_total{reason=\"shed\"}").await
            < 50
        {
            answers(process).await;
        }
    };
    guarded(closed).await;
    let most = metric(process, "fragcast_port_held_bytes_max{port=\"http\"}").await;
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
