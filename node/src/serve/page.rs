//! The live page: one HTML document that loads nothing and is fed by the WebSocket it came from.
//!
//! The parts are files in `page/`, put together here. A node serves one at `/` of its public
//! JSON-RPC, which shows that node; a devnet serves one for all its nodes, with buttons. The document's
//! policy lets it run what came with it and connect to where it came from, and nothing else; no other
//! page may frame it.

use std::sync::{Arc, LazyLock};

use alloy_primitives::hex;
use fragcast_port::Pages;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Response};

/// What a page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// The node that serves it.
    Node,
    /// All nodes of a network on this machine, whose WebSockets it opens as well.
    Network,
}

/// Stands where each answer has a number of its own.
const NONCE: &str = "{{nonce}}";

/// Stands where the page has its key.
const KEY: &str = "{{key}}";

const SCRIPTS: [&str; 6] = [
    include_str!("page/feed.js"),
    include_str!("page/draw.js"),
    include_str!("page/view.js"),
    include_str!("page/lookup.js"),
    include_str!("page/network.js"),
    include_str!("page/main.js"),
];

fn document(mode: &str) -> String {
    let script = format!("'use strict';\n{}", SCRIPTS.concat());
    include_str!("page/page.html")
        .replace("{{mode}}", mode)
        .replace("{{style}}", include_str!("page/page.css"))
        .replace("{{script}}", &script)
}

static NODE: LazyLock<String> = LazyLock::new(|| document("node"));
static NETWORK: LazyLock<String> = LazyLock::new(|| document("network"));

impl Shows {
    fn document(self) -> &'static str {
        match self {
            Self::Node => &NODE,
            Self::Network => &NETWORK,
        }
    }

    fn policy(self, nonce: &str) -> String {
        let to = match self {
            Self::Node => "'self'",
            Self::Network => "'self' ws://127.0.0.1:*",
        };
        format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src \
             {to}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    }
}

/// Whether a client takes HTML: all do that do not say otherwise.
fn takes_html(headers: &HeaderMap) -> bool {
    let Some(accepted) = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()) else {
        return true;
    };
    accepted
        .split(',')
        .filter_map(|kind| kind.split(';').next())
        .any(|kind| matches!(kind.trim(), "text/html" | "text/*" | "*/*"))
}

fn answer(shows: Shows, key: &str, request: &Parts) -> Option<Response<Vec<u8>>> {
    if request.uri.path() != "/" || !takes_html(&request.headers) {
        return None;
    }
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).ok()?;
    let nonce = hex::encode(nonce);
    let policy = HeaderValue::try_from(shows.policy(&nonce)).ok()?;
    let mut response =
        Response::new(shows.document().replace(NONCE, &nonce).replace(KEY, key).into_bytes());
    for (name, value) in [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ] {
        response.headers_mut().insert(name, value);
    }
    Some(response)
}

/// The pages of a port. `key` is what the page shows when it asks for something that a page of
/// another origin, which cannot read this one, must not do; visible ASCII.
pub fn pages(shows: Shows, key: String) -> Pages {
    Arc::new(move |request| answer(shows, &key, request))
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn get(path: &str, accept: Option<&str>) -> Option<Response<Vec<u8>>> {
        let mut request = Request::get(path);
        if let Some(accept) = accept {
            request = request.header(ACCEPT, accept);
        }
        answer(Shows::Node, "the key", &request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn the_page_is_one_document_that_loads_nothing() {
        for shows in [Shows::Node, Shows::Network] {
            let text = shows.document();
            let places = text.matches(NONCE).count() + text.matches(KEY).count();
            assert_eq!((text.matches("{{").count(), places), (3, 3));
            for loads in ["<link", "src=", "@import", "url(", "http:", "import("] {
                assert!(!text.contains(loads), "{loads}");
            }
        }
        assert!(NETWORK.contains("data-mode=\"network\"") && NODE.contains("data-mode=\"node\""));
    }

    #[test]
    fn every_answer_has_a_nonce_of_its_own_that_its_policy_names() {
        let [one, other] = [get("/", None), get("/?from=here", None)].map(Option::unwrap);
        let policy = one.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
        assert_eq!(nonce.len(), 32);
        let text = String::from_utf8(one.into_body()).unwrap();
        assert_eq!(text.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
        assert!(!String::from_utf8(other.into_body()).unwrap().contains(nonce));
    }

    #[test]
    fn who_wants_no_html_or_another_path_gets_none() {
        let browser = "text/html,application/xhtml+xml,*/*;q=0.8";
        for (path, accept, is_page) in [
            ("/", Some(browser), true),
            ("/", Some("*/*"), true),
            ("/", None, true),
            ("/", Some("application/json"), false),
            ("/favicon.ico", Some(browser), false),
        ] {
            assert_eq!(get(path, accept).is_some(), is_page, "{path} {accept:?}");
        }
    }
}
