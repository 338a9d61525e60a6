//! Compressed bodies: gzip, for clients that say they take it.
//!
//! JSON-RPC over HTTP is mostly hexadecimal digits, of which gzip leaves a half or less. Short bodies
//! stay as they are, since a packet more or less is all that they could gain. Long ones are
//! compressed on a thread that may block, so no connection waits for another's.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};

/// Bodies from this length on are compressed.
pub(crate) const LEAST: usize = 1024;
/// From this length on, on a thread that may block: some milliseconds.
const LONG: usize = 128 * 1024;

/// Whether a client takes gzip (RFC 9110, 12.5.3).
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let named = |name: &str| {
        let codings = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
        let mut codings = codings.flat_map(|line| line.split(','));
        codings.find_map(|coding| {
            let (coding, weight) = coding.split_once(';').unwrap_or((coding, ""));
            coding.trim().eq_ignore_ascii_case(name).then(|| is_positive(weight))
        })
    };
    named("gzip").or_else(|| named("x-gzip")).or_else(|| named("*")).unwrap_or(false)
}

/// Whether a weight, such as `q=0.5`, is not zero. None is 1.
fn is_positive(weight: &str) -> bool {
    let weight = weight.trim();
    let value = weight.strip_prefix("q=").or_else(|| weight.strip_prefix("Q="));
    value.is_none_or(|value| value.trim().parse::<f32>().is_ok_and(|value| value > 0.0))
}

/// A body as gzip; as it was, if that has made it no shorter.
pub(crate) async fn gzip(body: Vec<u8>) -> Result<Vec<u8>, Vec<u8>> {
    if body.len() < LONG {
        return compress(body);
    }
    match tokio::task::spawn_blocking(move || compress(body)).await {
        Ok(done) => done,
        // It panicked, or the runtime ends: then nobody reads what is missing.
        Err(_) => Err(Vec::new()),
    }
}

fn compress(body: Vec<u8>) -> Result<Vec<u8>, Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    match encoder.write_all(&body).and_then(|()| encoder.finish()) {
        Ok(short) if short.len() < body.len() => Ok(short),
        _ => Err(body),
    }
}

/// The value of `Content-Encoding`.
pub(crate) const GZIP: HeaderValue = HeaderValue::from_static("gzip");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_for_those_who_take_it() {
        for (lines, takes) in [
            (&[][..], false),
            (&["gzip"], true),
            (&["GZIP"], true),
            (&["deflate, gzip;q=1.0, *;q=0.5"], true),
            (&["deflate", "br, gzip"], true),
            (&["gzip;q=0"], false),
            (&["gzip; q=0.000, *"], false),
            (&["*"], true),
            (&["*;q=0"], false),
            (&["identity"], false),
            (&["br;q=1, x-gzip"], true),
            (&["gzip;q=nonsense"], false),
        ] {
            let headers: HeaderMap = lines
                .iter()
                .map(|line| (ACCEPT_ENCODING, HeaderValue::from_static(line)))
                .collect();
            assert_eq!(takes_gzip(&headers), takes, "{lines:?}");
        }
    }
}
