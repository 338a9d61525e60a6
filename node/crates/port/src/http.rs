//! HTTP: requests, their checks, their bodies.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ALLOW,
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN,
    UPGRADE, VARY,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use jsonrpsee::Extensions;
use jsonrpsee::types::error::reject_too_big_request;
use jsonrpsee::types::{ErrorCode, ErrorObject, ErrorObjectOwned};
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::client::{Client, Doing};
use crate::dispatch::{LIMIT, broken, error};
use crate::encoding;
use crate::envelope::{Broken, first};
use crate::guard::Refusal;
use crate::memory::Charge;
use crate::port::{Inner, Service};
use crate::stats::Dropped;
use crate::websocket::{self, Upgraded};
use crate::wire::deadline;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");

/// One connection's side of the service.
pub(crate) struct Http {
    pub(crate) port: Arc<Inner>,
    pub(crate) client: Arc<Client>,
    pub(crate) from: SocketAddr,
    /// Where the connection's task finds what has become a WebSocket.
    pub(crate) upgraded: Arc<Mutex<Option<Upgraded>>>,
}

/// Marks the connection as waiting when the answer is written.
struct Answering {
    client: Arc<Client>,
    text: Vec<u8>,
    _charge: Charge,
}

impl AsRef<[u8]> for Answering {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.client.set(Doing::Waiting);
    }
}

/// Why a body was not read.
enum Unread {
    TooLong,
    TooLate,
    Broken,
    NoRoom,
}

impl Http {
    /// Answers a request.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let origin = request.headers().get(ORIGIN).cloned();
        let mut response = match self.port.settings.guard.check(request.uri(), request.headers()) {
            // A preflight shows no token: it asks whether it may.
            Err(refusal) if refusal.reason != Dropped::Token || !preflight(&request) => {
                self.refuse(refusal)
            }
            _ => self.admitted(request).await,
        };
        if let Some(origin) = origin {
            let headers = response.headers_mut();
            headers.append(VARY, HeaderValue::from_static("origin"));
            if let Some(allowed) = self.port.settings.guard.allowed(&origin) {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            }
        }
        response
    }

    fn refuse(&self, refusal: Refusal) -> Response<Full<Bytes>> {
        self.port.stats.drop_for(refusal.reason);
        tracing::debug!(
            port = self.port.settings.name,
            from = %self.from,
            reason = refusal.reason.label(),
            "refused a request"
        );
        self.text(refusal.status, refusal.text)
    }

    async fn admitted(self: &Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if preflight(&request) {
            return self.preflight(request.headers());
        }
        match &self.port.service {
            Service::Page(page) => {
                let (parts, _) = request.into_parts();
                self.page(&parts, page(&parts)).await
            }
            Service::Rpc(_) | Service::Feed(_) if upgrade(request.headers()) => {
                self.upgrade(request)
            }
            Service::Rpc(_) => match *request.method() {
                Method::POST => self.call(request).await,
                Method::GET | Method::HEAD => {
                    let (parts, _) = request.into_parts();
                    let page = self.port.settings.pages.as_ref().and_then(|pages| pages(&parts));
                    match page {
                        Some(page) => self.page(&parts, page).await,
                        None => self.text(StatusCode::OK, HERE),
                    }
                }
                Method::OPTIONS => self.methods(StatusCode::NO_CONTENT, ""),
                _ => self.methods(StatusCode::METHOD_NOT_ALLOWED, NOT_POST),
            },
            Service::Feed(_) => self.text(StatusCode::UPGRADE_REQUIRED, NOT_WEBSOCKET),
        }
    }

    /// A page, compressed if the client takes that.
    async fn page(&self, request: &Parts, page: Response<Vec<u8>>) -> Response<Full<Bytes>> {
        self.client.set(Doing::Something);
        let (mut parts, body) = page.into_parts();
        let gzip = encoding::takes_gzip(&request.headers);
        let body = self.encode(gzip, &mut parts.headers, body).await;
        Response::from_parts(parts, Full::new(self.body(body)))
    }

    /// Compresses a body if that is worth it and the client takes it.
    async fn encode(&self, gzip: bool, headers: &mut HeaderMap, body: Vec<u8>) -> Vec<u8> {
        if body.len() < encoding::LEAST || headers.contains_key(CONTENT_ENCODING) {
            return body;
        }
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
        if !gzip {
            return body;
        }
        // Both are there for a moment.
        let _held = self.port.settings.memory.charge(Some(&self.client), body.capacity());
        match encoding::gzip(body).await {
            Ok(short) => {
                headers.remove(CONTENT_LENGTH);
                headers.insert(CONTENT_ENCODING, encoding::GZIP);
                short
            }
            Err(body) => body,
        }
    }

    /// Tells which methods there are.
    fn methods(&self, status: StatusCode, text: &str) -> Response<Full<Bytes>> {
        let mut response = self.text(status, text);
        let methods = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");
        response.headers_mut().insert(ALLOW, methods);
        if text.is_empty() {
            response.headers_mut().remove(CONTENT_TYPE);
        }
        response
    }

    fn preflight(&self, asked: &HeaderMap) -> Response<Full<Bytes>> {
        let allowed = asked.get(ORIGIN).and_then(|origin| self.port.settings.guard.allowed(origin));
        let mut response = self.methods(StatusCode::NO_CONTENT, "");
        if allowed.is_none() {
            return response;
        }
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        // Whatever a page wants to send: which pages may is said by their origin.
        let names = asked.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        let names = names.unwrap_or(HeaderValue::from_static("content-type, authorization"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
        headers.append(VARY, HeaderValue::from_static("access-control-request-headers"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        response
    }

    fn upgrade(self: &Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if self.port.settings.websocket.is_none() {
            return self.text(StatusCode::METHOD_NOT_ALLOWED, "WebSocket is not served here\n");
        }
        if let Err(refusal) = self.port.settings.guard.check_origin(request.headers()) {
            return self.refuse(refusal);
        }
        if let Service::Feed(feed) = &self.port.service
            && let Err(problem) = feed.check(request.uri())
        {
            return self.text(StatusCode::BAD_REQUEST, &format!("{problem}\n"));
        }
        match websocket::upgrade(self, request) {
            Ok(response) => response,
            Err(problem) => self.text(StatusCode::BAD_REQUEST, &format!("{problem}\n")),
        }
    }

    async fn call(self: &Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if !is_json(request.headers().get(CONTENT_TYPE)) {
            let wanted = "Supplied content type is not allowed. Content-Type: application/json is \
                          required\n";
            return self.text(StatusCode::UNSUPPORTED_MEDIA_TYPE, wanted);
        }
        if encoded(request.headers()) {
            let wanted = "a request with a Content-Encoding is not read: send it as it is\n";
            return self.text(StatusCode::UNSUPPORTED_MEDIA_TYPE, wanted);
        }
        let gzip = encoding::takes_gzip(request.headers());
        let settings = &self.port.settings;
        let dispatch = Arc::clone(self.port.dispatch(request.uri().path()));
        let read = self.read(request).await;
        self.client.mark_not_sent(None);
        let (body, mut charge) = match read {
            Ok(read) => read,
            Err(Unread::TooLong) => {
                let error = reject_too_big_request(settings.max_request);
                return self.failed(StatusCode::PAYLOAD_TOO_LARGE, error);
            }
            Err(Unread::NoRoom) => {
                self.port.stats.drop_for(Dropped::NoRoom);
                let text = "as much memory as may be is taken: try again later";
                let error = ErrorObject::borrowed(LIMIT, text, None);
                let mut response = self.failed(StatusCode::SERVICE_UNAVAILABLE, error);
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                return response;
            }
            Err(unread) => {
                let status = match unread {
                    Unread::TooLate => {
                        self.port.stats.drop_for(Dropped::HalfSent);
                        StatusCode::REQUEST_TIMEOUT
                    }
                    _ => StatusCode::BAD_REQUEST,
                };
                let mut response = self.text(status, "the request did not arrive whole\n");
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                return response;
            }
        };
        self.client.set(Doing::Something);
        if !matches!(first(&body), Some(b'{' | b'[')) {
            let problem = Broken::no_object(&body);
            // As for requests that are read and refused.
            let status = match problem.code {
                ErrorCode::InvalidRequest => StatusCode::OK,
                _ => StatusCode::BAD_REQUEST,
            };
            return self.told(status, broken(&problem));
        }
        let extensions = Extensions::new();
        let answer = dispatch.answer(&body, &extensions, None, &mut charge).await;
        // There were notifications alone.
        let Some(answer) = answer.text else {
            return self.response(StatusCode::OK, JSON, Vec::new());
        };
        let mut headers = HeaderMap::new();
        let body = String::from(Box::<str>::from(answer)).into_bytes();
        let body = self.encode(gzip, &mut headers, body).await;
        let mut response = self.response(StatusCode::OK, JSON, body);
        response.headers_mut().extend(headers);
        response
    }

    /// Reads a body, chunk by chunk, as far as it may be and as fast as it must be.
    async fn read(&self, request: Request<Incoming>) -> Result<(Vec<u8>, Charge), Unread> {
        let settings = &self.port.settings;
        let most = settings.max_request as usize;
        let told = request.headers().get(CONTENT_LENGTH);
        let told = told.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if told.is_some_and(|told| told > most as u64) {
            return Err(Unread::TooLong);
        }
        // What is told to come has its room before it is read, so that requests wait for one another
        // and not half of each for the other halves.
        let mut patience = settings.slow_after;
        self.room(&mut patience).await?;
        let mut charge = settings.memory.charge(Some(&self.client), 0);
        let mut body = Vec::new();
        if let Some(told) = told.and_then(|told| usize::try_from(told).ok()) {
            charge.grow(told);
            body.reserve_exact(told);
        }
        let since = Instant::now();
        self.client.mark_not_sent(Some(since));
        let mut incoming = request.into_body();
        let mut waited = Duration::ZERO;
        loop {
            let until = deadline(since + waited, settings.slow_after, body.len() as u64);
            let frame = match tokio::time::timeout_at(until, incoming.frame()).await {
                Err(_) => return Err(Unread::TooLate),
                Ok(None) => return Ok((body, charge)),
                Ok(Some(Err(_))) => return Err(Unread::Broken),
                Ok(Some(Ok(frame))) => frame,
            };
            let Some(data) = frame.data_ref() else { continue };
            if body.len() + data.len() > most {
                return Err(Unread::TooLong);
            }
            body.extend_from_slice(data);
            if body.capacity() > charge.bytes() {
                charge.grow(body.capacity() - charge.bytes());
                // Who has all of its request waits for nobody; who still sends may have to go.
                let before = patience;
                self.room(&mut patience).await?;
                waited += before - patience;
            }
        }
    }

    /// Waits for room, for `patience` at most, which becomes shorter by that. A request that would wait
    /// for longer is refused: whoever sent it has most likely given up, and its socket is free.
    async fn room(&self, patience: &mut Duration) -> Result<(), Unread> {
        let begin = Instant::now();
        let room = tokio::time::timeout(*patience, self.port.settings.memory.room()).await;
        *patience = patience.saturating_sub(begin.elapsed());
        room.map_err(|_| Unread::NoRoom)
    }

    fn failed(&self, status: StatusCode, problem: ErrorObjectOwned) -> Response<Full<Bytes>> {
        self.told(status, error(None, problem))
    }

    fn told(&self, status: StatusCode, answer: Box<RawValue>) -> Response<Full<Bytes>> {
        self.response(status, JSON, String::from(Box::<str>::from(answer)).into_bytes())
    }

    fn text(&self, status: StatusCode, text: &str) -> Response<Full<Bytes>> {
        self.response(status, TEXT, text.as_bytes().to_vec())
    }

    fn response(
        &self,
        status: StatusCode,
        kind: HeaderValue,
        body: Vec<u8>,
    ) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body(body)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }

    /// A body that counts until it is written.
    fn body(&self, text: Vec<u8>) -> Bytes {
        let charge = self.port.settings.memory.charge(Some(&self.client), text.capacity());
        Bytes::from_owner(Answering { client: Arc::clone(&self.client), text, _charge: charge })
    }
}

const NOT_WEBSOCKET: &str = "a WebSocket is served here\n";
/// For load balancers, and people.
const HERE: &str = "JSON-RPC is served here: POST it, or open a WebSocket\n";
const NOT_POST: &str = "Used HTTP Method is not allowed. POST is required\n";

fn preflight(request: &Request<Incoming>) -> bool {
    *request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn upgrade(headers: &HeaderMap) -> bool {
    let asked = headers.get(UPGRADE).map(HeaderValue::as_bytes).unwrap_or_default();
    asked.eq_ignore_ascii_case(b"websocket")
}

/// Whether a body is not what is meant but a coding of it.
fn encoded(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(CONTENT_ENCODING).iter();
    codings.map(HeaderValue::as_bytes).any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}

/// The content types that geth takes, whatever their parameters. All of them make browsers ask before
/// they send.
fn is_json(kind: Option<&HeaderValue>) -> bool {
    let Some(kind) = kind.and_then(|kind| kind.to_str().ok()) else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
        || kind.eq_ignore_ascii_case("application/json-rpc")
        || kind.eq_ignore_ascii_case("application/jsonrequest")
}
