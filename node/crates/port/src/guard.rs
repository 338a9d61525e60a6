//! Whom a port answers: by the `Host`, the `Origin` and the token of a request.
//!
//! A page of another site can have a browser ask a port on the loopback interface. By DNS rebinding
//! it is even of the same origin, because its own name then points to 127.0.0.1. What it cannot
//! change is the `Host` that the browser sends, which is its name. So, as in geth, only
//! `localhost`, IP addresses and configured names are answered. A request without `Host` is not
//! from a browser.
//!
//! WebSockets are not subject to the same-origin policy, but browsers send the `Origin`. It must be
//! the port's own, of this machine, or configured.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::{StatusCode, Uri};
use zeroize::Zeroizing;

use crate::stats::Dropped;

/// The shortest token, bytes.
const SHORTEST: usize = 16;
/// The longest.
const LONGEST: usize = 1024;

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// It is no token.
    #[error("{0}: a token has 16 to 1,024 visible ASCII characters")]
    Form(PathBuf),
    /// Others can read the file.
    #[error("others can read {0}: `chmod 600 {0}`")]
    Open(PathBuf),
}

/// A secret that requests must show as `Authorization: Bearer …`.
pub struct Token(Zeroizing<Vec<u8>>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// A token; `None` if it is too short, too long, or not visible ASCII.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let good = (SHORTEST..=LONGEST).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        good.then(|| Self(Zeroizing::new(text.as_bytes().to_vec())))
    }

    /// Reads the token in a file.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let io = |source| TokenError::Io { path: path.to_owned(), source };
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(path).map_err(io)?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(TokenError::Open(path.to_owned()));
            }
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(io)?);
        Self::new(&text).ok_or_else(|| TokenError::Form(path.to_owned()))
    }

    /// Whether `shown` is it, in a time that does not depend on where they differ.
    fn is(&self, shown: &[u8]) -> bool {
        let differ = self.0.iter().zip(shown).fold(0, |differ, (a, b)| differ | (a ^ b));
        differ == 0 && self.0.len() == shown.len()
    }
}

/// What keeps a request from being answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What it is counted as.
    pub reason: Dropped,
    /// The HTTP status.
    pub status: StatusCode,
    /// For people.
    pub text: &'static str,
}

const HOST_REFUSED: Refusal = Refusal {
    reason: Dropped::Host,
    status: StatusCode::FORBIDDEN,
    text: "invalid host specified: the operator can add it to http.vhosts\n",
};
const ORIGIN_REFUSED: Refusal = Refusal {
    reason: Dropped::Origin,
    status: StatusCode::FORBIDDEN,
    text: "origin not allowed: the operator can add it to http.cors\n",
};
const TOKEN_REFUSED: Refusal = Refusal {
    reason: Dropped::Token,
    status: StatusCode::UNAUTHORIZED,
    text: "the operator's token is needed: Authorization: Bearer <token>\n",
};

/// Whom a port answers.
#[derive(Debug, Default)]
pub struct Guard {
    /// Names in lower case; `None`: all.
    hosts: Option<BTreeSet<String>>,
    /// Origins in lower case; `None`: all.
    origins: Option<BTreeSet<String>>,
    token: Option<Token>,
}

fn set(names: &[String]) -> Option<BTreeSet<String>> {
    let all = names.iter().any(|name| name.trim() == "*");
    (!all).then(|| names.iter().map(|name| name.trim().to_ascii_lowercase()).collect())
}

/// The host of `host[:port]`, in lower case, without brackets and final dot.
fn name(authority: &str) -> String {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(ip, _)| ip),
        None => match authority.rsplit_once(':') {
            // More than one colon: an IPv6 address without brackets.
            Some((host, _)) if !host.contains(':') => host,
            _ => authority,
        },
    };
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Whether `pattern`, with one `*` in it, stands for `origin`, as in geth:
/// `https://*.app.example`. What the star stands for is a part of a host's name.
fn covers(pattern: &str, origin: &str) -> bool {
    let Some((front, back)) = pattern.split_once('*') else { return false };
    let middle = origin.strip_prefix(front).and_then(|rest| rest.strip_suffix(back));
    middle.is_some_and(|middle| {
        !middle.is_empty()
            && middle
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
    })
}

impl Guard {
    /// Answers `localhost`, IP addresses and `hosts`, lets pages of `origins` read answers and open
    /// WebSockets, and wants `token` if there is one. `*` among the names stands for all; in an origin
    /// it stands for a part of the host, as in `https://*.app.example`.
    pub fn new(hosts: &[String], origins: &[String], token: Option<Token>) -> Self {
        Self { hosts: set(hosts), origins: set(origins), token }
    }

    /// Checks the host of a request and its token.
    ///
    /// # Errors
    /// What it may not.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        if !self.host_served(uri, headers) {
            return Err(HOST_REFUSED);
        }
        let Some(token) = &self.token else { return Ok(()) };
        let shown = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let bearer = shown.split_at_checked(7).filter(|(scheme, _)| {
            // The scheme has any case (RFC 9110, 11.1).
            scheme.eq_ignore_ascii_case(b"bearer ")
        });
        match bearer {
            Some((_, shown)) if token.is(shown.trim_ascii()) => Ok(()),
            _ => Err(TOKEN_REFUSED),
        }
    }

    fn host_served(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        let served = |authority: &str| {
            let name = name(authority);
            name.is_empty()
                || name == "localhost"
                || name.parse::<IpAddr>().is_ok()
                || hosts.contains(&name)
        };
        // A request to a proxy names the host twice; both must do, and so must all of several.
        uri.host().is_none_or(served)
            && headers.get_all(HOST).iter().all(|host| host.to_str().is_ok_and(served))
    }

    /// Checks the origin of a WebSocket.
    ///
    /// # Errors
    /// It may not.
    pub fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
        let own = || {
            let origin = origin.to_str().ok()?.to_ascii_lowercase();
            let (_, authority) = origin.split_once("://")?;
            let name = name(authority);
            let here = name == "localhost"
                || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            Some(here || host.is_some_and(|host| host.eq_ignore_ascii_case(authority)))
        };
        match self.allowed(origin).is_some() || own() == Some(true) {
            true => Ok(()),
            false => Err(ORIGIN_REFUSED),
        }
    }

    /// The `Access-Control-Allow-Origin` for pages of `origin`, if they may read answers.
    pub fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match &self.origins {
            None => Some(HeaderValue::from_static("*")),
            Some(origins) => {
                let asked = origin.to_str().ok()?.to_ascii_lowercase();
                let may = origins.contains(&asked) || origins.iter().any(|o| covers(o, &asked));
                may.then(|| origin.clone())
            }
        }
    }
}
