//! What of a URL may be told: its scheme, host and port.
//!
//! A name and a password, a path and a query may each be a secret: providers put a key into any of
//! them. So no error, log line, status and `Debug` output has more of a URL than this. What does not
//! read as a host is not shown at all, since it may be a secret in the wrong place.

use std::fmt;

/// Scheme, host and port of a URL, and `/…` if there is more; `…` where that cannot be told apart.
///
/// ```
/// use fragcast_upstream::http::shown;
///
/// assert_eq!(shown("http://127.0.0.1:8545"), "http://127.0.0.1:8545");
/// assert_eq!(shown("https://user:secret@host/v3/secret?jwt=secret"), "https://host/…");
/// assert_eq!(shown("secret"), "…");
/// ```
pub fn shown(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, url),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, more) = rest.split_at(end);
    let host = match authority.rsplit_once('@') {
        Some((_, host)) => host,
        None => authority,
    };
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let scheme = match scheme {
        Some(scheme) if scheme.len() <= 8 && scheme.chars().all(is_scheme) => {
            format!("{scheme}://")
        }
        Some(_) => return "…".into(),
        // Without one only what has a port is an address.
        None if authority == host && port(host).is_some() => String::new(),
        None => return "…".into(),
    };
    // A password may have a slash: then what comes before it is no host.
    if more.contains('@') || !is_host(host) {
        return format!("{scheme}…");
    }
    let more = if matches!(more, "" | "/") { "" } else { "/…" };
    format!("{scheme}{host}{more}")
}

/// The host and the port of `host:port`.
fn port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some((host, port))
}

fn is_host(text: &str) -> bool {
    let host = match text.ends_with(']') {
        true => text,
        false => port(text).map_or(text, |(host, _)| host),
    };
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let is_part = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            (1..=253).contains(&host.len()) && host.chars().all(is_part)
        }
    }
}

/// A URL that is written, also as `Debug`, as [`shown`] shows it.
#[derive(Clone, Copy)]
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.0))
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&shown(self.0), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::check_url;

    #[test]
    fn of_a_url_only_scheme_host_and_port_are_told() {
        for (url, expected) in [
            ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
            ("http://[::1]:8551/", "http://[::1]:8551"),
            ("http://[::1]", "http://[::1]"),
            ("http://node.example/v3/SECRET", "http://node.example/…"),
            ("https://x/?jwt=SECRET", "https://x/…"),
            ("https://x?jwt=SECRET", "https://x/…"),
            ("https://x#SECRET", "https://x/…"),
            ("https://user:SECRET@portal", "https://portal"),
            ("https://SECRET@portal:1", "https://portal:1"),
            ("https://user:SEC@RET@portal", "https://portal"),
            ("https://user:SECRET/SECRET@portal", "https://…"),
            ("https://user:1/SECRET@portal", "https://…"),
            ("https://SECRET/@portal", "https://…"),
            ("http://user:SECRET", "http://…"),
            ("http://a b:SECRET", "http://…"),
            ("http://", "http://…"),
            ("SECRET://host", "SECRET://host"),
            ("user:SECRET@portal:1", "…"),
            ("127.0.0.1:8545", "127.0.0.1:8545"),
            ("SECRET.SECRET.SECRET", "…"),
            ("", "…"),
        ] {
            assert_eq!(shown(url), expected, "{url}");
            assert_eq!(format!("{:?}", Shown(url)), format!("{expected:?}"));
            if let (Err(error), false) = (check_url(url), url.starts_with("SECRET:")) {
                let text = format!("{error} {error:?}");
                assert!(!text.contains("SECRET") && text.contains(expected), "{text}");
            }
        }
    }
}
