//! The live page: what feeds it, its buttons, and the page itself in Debian's Chromium, driven by
//! Playwright, where both are there.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use fragcast_execution::devnet::genesis::USERS;
use fragcast_shredder::testing::{has, skip};

use jsonrpsee::core::client::SubscriptionClientT;
use jsonrpsee::rpc_params;
use jsonrpsee::ws_client::WsClientBuilder;
use serde_json::{Value, json};

use crate::common::{GUARD, request, run};
use crate::running::{Devnet, next, packages};

/// The answer to a `GET` of `/`, head and body.
fn get(url: &str) -> String {
    let host = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// Asks for something by the devnet's page; what it answers, or the error.
async fn control(page: &str, key: &str, mut action: Value) -> Result<String, String> {
    action["key"] = key.into();
    let answer = request(page, "devnet_control", json!([action])).await;
    match answer["result"].as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(answer["error"]["message"].as_str().unwrap_or_default().to_owned()),
    }
}

/// The devnet's picture, once it is as `fine` says.
async fn picture(page: &str, fine: impl Fn(&Value) -> bool) -> Value {
    let since = std::time::Instant::now();
    loop {
        let picture = request(page, "devnet_live", json!([])).await["result"].clone();
        if fine(&picture) {
            return picture;
        }
        assert!(since.elapsed() < GUARD, "{picture:#}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_gives_a_whole_picture_and_then_what_changes() {
    let devnet = Devnet::start(&["--frags", "3", "--no-page"]);
    let client = WsClientBuilder::default().build(devnet.http(1).replace("http", "ws")).await;
    let client = client.unwrap();
    let mut pictures = client
        .subscribe::<Value, _>("fragcast_subscribeLive", rpc_params![], "fragcast_unsubscribeLive")
        .await
        .unwrap();
    let mut whole = next(&mut pictures).await;
    assert_eq!(whole["whole"], true);
    let is_done = |picture: &Value| {
        let blocks = picture["blocks"].as_array().into_iter().flatten();
        let done = blocks.filter(|block| block["verdict"] == "verified" && block["txs"] == 30);
        done.count() >= 2 && picture["latency"]["recent"]["n"].as_u64() > Some(5)
    };
    let mut partial = 0;
    while !is_done(&whole) {
        let news = next(&mut pictures).await;
        if news["whole"] == true {
            // A busy machine let pictures be missed.
            whole = news;
            continue;
        }
        assert_eq!(news["seq"].as_u64(), whole["seq"].as_u64().map(|seq| seq + 1));
        partial += u64::from(news["whole"] == false && news.get("node").is_none());
        for (name, section) in news.as_object().unwrap() {
            whole[name] = section.clone();
        }
    }
    assert!(partial > 0, "sections that stay are not sent again");
    let open = &whole["open"]["messages"];
    assert!(open.as_array().unwrap().iter().all(|message| message["via"] != "own"), "{open:#}");
    assert_eq!(whole["peers"]["list"].as_array().unwrap().len(), 2);
    assert_eq!(whole["linked"].as_array().unwrap().len(), 2, "{}", whole["linked"]);
    assert_eq!(whole["tree"]["parents"].as_array().unwrap().len(), 3, "{}", whole["tree"]);
    // The same in one answer.
    let once = request(devnet.http(1), "fragcast_live", json!([])).await;
    assert_eq!(once["result"]["node"]["peer"], whole["node"]["peer"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_devnet_is_broken_and_mended_by_who_has_the_key() {
    let devnet = Devnet::start(&["--frags", "3"]);
    let page = devnet.page().to_owned();
    let text = get(&page);
    assert!(
        text.starts_with("HTTP/1.1 200 OK") && text.contains("content-security-policy"),
        "{text}"
    );
    let key = text.split("data-key=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let verified = |node: usize, more: u64| {
        move |picture: &Value| picture["nodes"][node]["verified"].as_u64() >= Some(more)
    };
    picture(&page, verified(2, 1)).await;
    let refused = control(&page, "another", json!({ "action": "pause" })).await.unwrap_err();
    assert!(refused.contains("the key is not the one"), "{refused}");
    let refused = control(&page, &key, json!({ "action": "loss", "share": 0.9 })).await;
    assert!(refused.unwrap_err().contains("between 0 and 0.3"));
    // A follower that was away catches up.
    control(&page, &key, json!({ "action": "stop", "node": 2 })).await.unwrap();
    picture(&page, |picture| picture["nodes"][2]["state"] != "up").await;
    let twice = control(&page, &key, json!({ "action": "stop", "node": 2 })).await;
    assert!(twice.unwrap_err().contains("does not run"));
    let at = picture(&page, |_| true).await["nodes"][1]["verified"].as_u64().unwrap();
    picture(&page, verified(1, at + 2)).await;
    control(&page, &key, json!({ "action": "start", "node": 2 })).await.unwrap();
    picture(&page, verified(2, at + 3)).await;
    // The dead leader's block is built anew, and others follow.
    control(&page, &key, json!({ "action": "kill-leader" })).await.unwrap();
    let dead = picture(&page, |picture| picture["nodes"][0]["state"] == "stopped").await;
    let at = dead["nodes"][1]["verified"].as_u64().unwrap();
    control(&page, &key, json!({ "action": "start", "node": 0 })).await.unwrap();
    picture(&page, verified(1, at + 3)).await;
    picture(&page, verified(0, at + 3)).await;
    // The same while the gateway pauses inside a block: what the leader had of it is gone.
    control(&page, &key, json!({ "action": "pause" })).await.unwrap();
    control(&page, &key, json!({ "action": "kill-leader" })).await.unwrap();
    picture(&page, |picture| picture["nodes"][0]["state"] == "stopped").await;
    control(&page, &key, json!({ "action": "start", "node": 0 })).await.unwrap();
    let at = picture(&page, |_| true).await["nodes"][1]["verified"].as_u64().unwrap();
    control(&page, &key, json!({ "action": "resume" })).await.unwrap();
    picture(&page, verified(1, at + 3)).await;
    picture(&page, verified(0, at + 3)).await;
    // A wrong Seal is rejected everywhere, and the block verified in its next attempt.
    control(&page, &key, json!({ "action": "bad-seal" })).await.unwrap();
    let rejected = |picture: &Value| {
        let told = picture["net"]["happened"].as_array().into_iter().flatten();
        told.filter_map(|one| one["text"].as_str()).any(|text| text.contains("is built again"))
    };
    picture(&page, rejected).await;
    let at = picture(&page, |_| true).await["nodes"][1]["verified"].as_u64().unwrap();
    picture(&page, verified(1, at + 2)).await;
    let status = request(devnet.http(1), "fragcast_status", json!([])).await;
    assert_eq!(status["result"]["execution"]["rejected"], 1, "{status:#}");
}

/// A script with the page's packages; `None` if something is missing.
fn script(name: &str) -> Option<Command> {
    if !has("chromium", &["--version"]) {
        skip("Chromium is not installed (Debian's package chromium)");
        return None;
    }
    let dir = packages("page")?;
    let mut command = Command::new("node");
    // Where the screenshots of the README go, if they are asked for: a folder of the workspace.
    if let Ok(folder) = std::env::var("FRAGCAST_SCREENSHOTS") {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        command.env("FRAGCAST_SCREENSHOTS", folder);
    }
    command.current_dir(dir).arg(name);
    Some(command)
}

fn ok(mut command: Command, ok: &str) {
    let ended = run(&mut command).ok();
    assert!(ended.stdout.contains(ok), "{}\n{}", ended.stdout, ended.stderr);
    println!("{}", ended.stdout);
}

#[test]
fn the_devnets_page_shows_blocks_faults_and_their_ends() {
    let Some(mut command) = script("network.mjs") else { return };
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    // Pictures for the README show the devnet that users see.
    let (nodes, txs) = match std::env::var_os("FRAGCAST_SCREENSHOTS") {
        Some(_) => (8, "40"),
        None => (3, "10"),
    };
    let devnet = Devnet::of(nodes, &["--frags", "5", "--loss", "0", "--txs", txs]);
    let (started, account) = (started.to_string(), USERS[0].to_string());
    command.args([devnet.page(), &started, &account, &nodes.to_string()]);
    ok(command, "network: ok");
}

#[test]
fn a_nodes_page_shows_it_and_four_hundred_members() {
    let Some(mut command) = script("node.mjs") else { return };
    let devnet = Devnet::start(&["--frags", "5"]);
    command.args([devnet.http(1), "60"]);
    ok(command, "node: ok");
}

/// Prints the frames a second for whoever asks: what they are is the machine's affair.
#[test]
#[ignore = "a measurement: it needs a machine with nothing else to do"]
fn frames_a_second() {
    let Some(mut eight) = script("frames.mjs") else { return };
    let devnet = Devnet::of(8, &["--fast"]);
    eight.args([devnet.page(), "600"]);
    ok(eight, "frames a second");
    drop(devnet);
    let Some(mut many) = script("node.mjs") else { return };
    let devnet = Devnet::start(&["--frags", "5"]);
    many.args([devnet.http(1), "600"]);
    ok(many, "node: ok");
}

#[test]
fn no_page_leaves_it_out() {
    let devnet = Devnet::start(&["--no-page"]);
    assert_eq!(devnet.pages(), None);
}
