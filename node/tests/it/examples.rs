//! The examples, run without arguments.

use clap::Parser;

use crate::common::guarded;
use crate::running::serving;

#[expect(dead_code, reason = "`main` is the program's")]
#[path = "../../examples/gateway.rs"]
mod gateway;
#[expect(dead_code, reason = "`main` is the program's")]
#[path = "../../examples/subscriber.rs"]
mod subscriber;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_posts_its_blocks() {
    let _serving = serving().await;
    let mut out = Vec::new();
    guarded(gateway::run(gateway::Args::parse_from(["gateway"]), &mut out)).await.unwrap();
    let out = String::from_utf8(out).unwrap();
    let ok = r#""result":"OK""#;
    assert_eq!(out.matches(ok).count(), 3 * 5, "{out}");
    assert_eq!(out.lines().count(), 3 * 6, "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_subscriber_prints_messages_and_verified_blocks() {
    let _serving = serving().await;
    let mut out = Vec::new();
    let args = subscriber::Args::parse_from(["subscriber", "--blocks", "2"]);
    guarded(subscriber::run(args, &mut out)).await.unwrap();
    let out = String::from_utf8(out).unwrap();
    for block in 1..=2 {
        for (index, kind) in ["env", "frag", "frag", "frag", "frag", "seal"].iter().enumerate() {
            let line = format!("block {block} attempt 0: {index} \"{kind}\" ");
            assert_eq!(out.matches(&line).count(), 1, "{line}\n{out}");
        }
        assert!(out.contains(&format!("block \"0x{block:x}\" verified: ")), "{out}");
    }
}
