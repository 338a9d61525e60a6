//! Debian's Prometheus in a process of its own.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fragcast_upstream::http::get_json;
use serde_json::Value;

use crate::common::{GUARD, Running};

/// What is at a URL.
pub(super) async fn get(url: &str) -> String {
    let (status, body) = get_json(url, GUARD, 16 * 1024 * 1024).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!(status, 200, "{url}: {text}");
    text
}

/// A server that scrapes once a second.
pub(super) struct Prometheus {
    url: String,
    log: std::path::PathBuf,
    _process: Running,
}

impl Prometheus {
    /// Starts it in `dir`, on `targets`, with rules.
    pub(super) async fn start(dir: &Path, targets: &[String], rules: &str) -> Self {
        let mut config = String::from(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  evaluation_interval: 500ms\n\
             rule_files:\n  - rules.yml\nscrape_configs:\n",
        );
        // Prometheus cannot tell which port the system chose for it.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Prometheus itself, and somebody who is not there, are scraped too, as they are elsewhere. The nodes'
        // job has not the name of the example.
        let (itself, nobody) = ([format!("127.0.0.1:{port}")], ["127.0.0.1:1".to_owned()]);
        let jobs = [("l2-nodes", targets), ("prometheus", &itself), ("others", &nobody)];
        for (job, targets) in jobs {
            let targets = targets.join("', '");
            writeln!(
                config,
                "  - job_name: {job}\n    static_configs:\n      - targets: ['{targets}']"
            )
            .unwrap();
        }
        std::fs::write(dir.join("rules.yml"), rules).unwrap();
        let path = dir.join("prometheus.yml");
        std::fs::write(&path, config).unwrap();
        let log = dir.join("log");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let server =
            Self { url: format!("http://127.0.0.1:{port}"), log, _process: Running(process) };
        let ready = async {
            let url = format!("{}/-/ready", server.url);
            while !get_json(&url, GUARD, 1024).await.is_ok_and(|(status, _)| status == 200) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ready = tokio::time::timeout(GUARD, ready).await;
        assert!(ready.is_ok(), "{}", server.told());
        server
    }

    fn told(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// All jobs and all instances of nodes, as a dashboard that is told to show all asks for them.
    pub(super) async fn all(&self) -> (String, String) {
        let build = self.query("fragcast_build_info").await;
        let values = |label: &str| {
            let series = build["data"]["result"].as_array().unwrap().iter();
            let values = series.map(|one| one["metric"][label].as_str().unwrap().to_owned());
            let values: BTreeSet<String> = values.collect();
            format!("({})", values.into_iter().collect::<Vec<_>>().join("|"))
        };
        (values("job"), values("instance"))
    }

    /// The first value of an expression's result.
    pub(super) async fn value(&self, expr: &str) -> Option<f64> {
        self.query(expr).await["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }

    async fn query(&self, expr: &str) -> Value {
        let mut escaped = String::new();
        for byte in expr.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' => escaped.push(byte.into()),
                other => write!(escaped, "%{other:02X}").unwrap(),
            }
        }
        let url = format!("{}/api/v1/query?query={escaped}", self.url);
        let (_, body) = get_json(&url, GUARD, 16 * 1024 * 1024).await.unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["status"], "success", "{expr}: {answer}");
        answer
    }

    /// Waits until the first value of an expression is as it should be.
    pub(super) async fn until(&self, expr: &str, is_good: impl Fn(Option<f64>) -> bool) {
        let wait = async {
            while !is_good(self.value(expr).await) {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        if tokio::time::timeout(GUARD * 2, wait).await.is_err() {
            let firing = self.value("count(ALERTS{alertstate=\"firing\"})").await;
            panic!(
                "{expr} does not come; {firing:?} alerts fire; Prometheus says: {}",
                self.told()
            );
        }
    }
}
