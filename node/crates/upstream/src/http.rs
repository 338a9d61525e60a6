//! One HTTP request over a connection of its own. Failures are of two kinds, by one question: can the
//! server have received the request?
//!
//! Invariant: [`HttpError::NotSent`] is returned only while no byte of the request was written. A
//! pooled or self-retrying client cannot promise that: a pooled connection may be dead when it is
//! picked, and a caller that repeats the request does not know what arrived. So every request opens
//! a connection. On the loopback interface, where an execution client usually is, that costs well
//! under a millisecond. Connecting and answering have a time-out each, because only the second one
//! leaves doubt.

mod shown;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use shown::{Shown, shown};

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Certainly not received: the same request may be sent again.
    #[error("not sent: {0}")]
    NotSent(String),
    /// Perhaps received, perhaps processed.
    #[error("sent, but without a usable answer: {0}")]
    Ambiguous(String),
}

/// Posts JSON within fixed bounds.
#[derive(Debug, Clone, Copy)]
pub struct HttpClient {
    /// Time-out of connecting, and again of the answer.
    pub timeout: Duration,
    /// The longest answer that is read, in bytes.
    pub max_response: usize,
}

impl Default for HttpClient {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(5), max_response: 1024 * 1024 }
    }
}

impl HttpClient {
    /// See [`post_json`].
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn post_json(
        &self,
        url: &str,
        bearer: Option<&str>,
        body: Vec<u8>,
    ) -> Result<(u16, Bytes), HttpError> {
        post_json(url, bearer, body, self.timeout, self.max_response).await
    }
}

/// Posts `body` as JSON to `url` (`http://` only), with `Authorization: Bearer …` if `bearer`
/// is given, and returns the status and the body of a complete answer, whatever the status.
///
/// # Errors
/// [`HttpError::NotSent`] until a connection stands, [`HttpError::Ambiguous`] from then on.
pub async fn post_json(
    url: &str,
    bearer: Option<&str>,
    body: Vec<u8>,
    limit: Duration,
    max_response: usize,
) -> Result<(u16, Bytes), HttpError> {
    let target = Target::parse(url).map_err(|error| HttpError::NotSent(error.to_string()))?;
    let request = target.request(bearer, body)?;
    send(&target, request, limit, max_response).await
}

/// Gets what is at `url` (`http://` only): the status and the body of a complete answer, whatever
/// the status.
///
/// # Errors
/// As [`post_json`].
pub async fn get_json(
    url: &str,
    limit: Duration,
    max_response: usize,
) -> Result<(u16, Bytes), HttpError> {
    let target = Target::parse(url).map_err(|error| HttpError::NotSent(error.to_string()))?;
    let request = target.get()?;
    send(&target, request, limit, max_response).await
}

async fn send(
    target: &Target,
    request: Request<Full<Bytes>>,
    limit: Duration,
    max_response: usize,
) -> Result<(u16, Bytes), HttpError> {
    let stream = match timeout(limit, TcpStream::connect((target.host.as_str(), target.port))).await
    {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(HttpError::NotSent(format!("cannot connect: {error}"))),
        Err(_) => return Err(HttpError::NotSent(format!("no connection within {limit:?}"))),
    };
    // Small requests must not wait for the acknowledgement of earlier segments.
    if let Err(error) = stream.set_nodelay(true) {
        return Err(HttpError::NotSent(format!("cannot set TCP_NODELAY: {error}")));
    }
    match timeout(limit, exchange(stream, request, max_response)).await {
        Ok(result) => result,
        Err(_) => Err(HttpError::Ambiguous(format!("no answer within {limit:?}"))),
    }
}

/// Why an address cannot be asked. It is quoted as [`shown`] shows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It is of another form.
    #[error("`{0}` is no usable address: write it as http://host:port")]
    Form(String),
    /// It holds a name or a password, which would not be sent.
    #[error("`{0}`: write no name or password into a URL")]
    Login(String),
}

/// Checks that `url` is one that [`post_json`] can use.
///
/// # Errors
/// [`UrlError`].
///
/// ```
/// use fragcast_upstream::http::check_url;
///
/// assert!(check_url("http://127.0.0.1:8545").is_ok());
/// assert!(check_url("127.0.0.1:8545").is_err());
/// ```
pub fn check_url(url: &str) -> Result<(), UrlError> {
    Target::parse(url).map(drop)
}

struct Target {
    host: String,
    port: u16,
    path: String,
}

impl Target {
    fn parse(url: &str) -> Result<Self, UrlError> {
        let bad = || UrlError::Form(shown(url));
        let uri: Uri = url.parse().map_err(|_| bad())?;
        if uri.scheme_str() != Some("http") {
            return Err(bad());
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(UrlError::Login(shown(url)));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            // An IPv6 address stands in brackets in a URL, but not when it is resolved.
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(80),
            path: path.to_owned(),
        })
    }

    fn host_header(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn get(&self) -> Result<Request<Full<Bytes>>, HttpError> {
        Request::get(&self.path)
            .header(HOST, self.host_header())
            .body(Full::new(Bytes::new()))
            .map_err(|error| HttpError::NotSent(error.to_string()))
    }

    fn request(
        &self,
        bearer: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Request<Full<Bytes>>, HttpError> {
        let mut request = Request::post(&self.path)
            .header(HOST, self.host_header())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| HttpError::NotSent(error.to_string()))?;
        if let Some(token) = bearer {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| HttpError::NotSent("the bearer token is not printable".into()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }
}

async fn exchange(
    stream: TcpStream,
    request: Request<Full<Bytes>>,
    max_response: usize,
) -> Result<(u16, Bytes), HttpError> {
    let doubt = |error: &dyn std::fmt::Display| HttpError::Ambiguous(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| doubt(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| doubt(&error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), max_response);
        let body = body.collect().await.map_err(|error| doubt(&error))?;
        Ok((status, body.to_bytes()))
    };
    // The connection is driven here and not in a task of its own, so that it ends with the
    // request. When it ends first, `answer` holds the reason.
    let drive = async {
        let _ = connection.await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        result = answer => result,
        never = drive => match never {},
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const GUARD: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn unusable_addresses_are_never_sent_to() {
        for url in ["", "host:1", "https://127.0.0.1:1", "http://", "ws://127.0.0.1:1", "http:// /"]
        {
            let error = post_json(url, None, Vec::new(), GUARD, 10).await;
            assert!(matches!(error, Err(HttpError::NotSent(_))), "{url}: {error:?}");
            assert!(check_url(url).is_err());
        }
        assert_eq!(check_url("http://[::1]:8551/path?query"), Ok(()));
        let login = check_url("http://user:SECRET@127.0.0.1:1/").unwrap_err();
        assert_eq!(login, UrlError::Login("http://127.0.0.1:1".into()));
    }

    /// Answers one request with `answer` and returns the client's result.
    async fn answered(answer: &'static [u8], max: usize) -> Result<(u16, Bytes), HttpError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"{}") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            stream.write_all(answer).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        let client = HttpClient { timeout: GUARD, max_response: max };
        let result = client.post_json(&url, Some("token"), b"{}".to_vec()).await;
        let request = server.await.unwrap().to_lowercase();
        assert!(request.contains("authorization: bearer token"), "{request}");
        assert!(request.contains("content-type: application/json"), "{request}");
        result
    }

    #[tokio::test]
    async fn a_complete_answer_of_any_status_is_returned() {
        let answer = answered(b"HTTP/1.1 401 No\r\ncontent-length: 3\r\n\r\nwhy", 10).await;
        assert_eq!(answer, Ok((401, Bytes::from_static(b"why"))));
    }

    #[tokio::test]
    async fn incomplete_long_and_garbled_answers_are_ambiguous() {
        for answer in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhy",
            b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n12345678901",
            b"nonsense\r\n\r\n",
        ] {
            let result = answered(answer, 10).await;
            assert!(matches!(result, Err(HttpError::Ambiguous(_))), "{result:?}");
        }
    }
}
