//! What stands around the parameters and the result of a call: version, id, method.
//!
//! **Ids.** JSON-RPC lets an id be any number, and clients use −1, fractions and numbers above 2^64.
//! jsonrpsee has room for a `u64` and for strings. So another id goes through it as a string that
//! begins with a mark, and [`echo`] puts it back as it was given. A client's own string that begins
//! with the mark goes the same way, so none is taken for another.

use std::borrow::Cow;

use jsonrpsee::types::{ErrorCode, Id};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Marks an id that jsonrpsee has no room for.
const MARK: char = '\u{0}';
/// How an answer begins that has such an id.
const MARKED: &str = r#"{"jsonrpc":"2.0","id":"\u0000"#;
/// How an answer begins that is told elsewhere.
const ELSEWHERE: &str = r#"{"jsonrpc":"2.0","id":"\u0000\u0000"#;
/// How every answer begins.
const BEGIN: &str = r#"{"jsonrpc":"2.0","id":"#;

/// A request, or a notification: that has no id.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// A string, a number or null, as it was given.
    pub(crate) id: Option<&'a RawValue>,
    pub(crate) method: Cow<'a, str>,
    pub(crate) params: Option<&'a RawValue>,
}

/// What is no request, and why.
#[derive(Debug)]
pub(crate) struct Broken<'a> {
    /// The id, as far as it could be read.
    pub(crate) id: Option<&'a RawValue>,
    pub(crate) code: ErrorCode,
    pub(crate) reason: String,
}

impl Broken<'_> {
    /// It is no JSON.
    pub(crate) fn unreadable(error: &serde_json::Error) -> Self {
        Self { id: None, code: ErrorCode::ParseError, reason: format!("parse error: {error}") }
    }

    /// It is no object: other JSON, or none.
    pub(crate) fn no_object(message: &[u8]) -> Self {
        match serde_json::from_slice::<IgnoredAny>(message) {
            Ok(_) => {
                let reason =
                    "invalid request: a request is an object, a batch an array of objects".into();
                Self { id: None, code: ErrorCode::InvalidRequest, reason }
            }
            Err(error) => Self::unreadable(&error),
        }
    }
}

/// The first byte that is not white space.
pub(crate) fn first(message: &[u8]) -> Option<u8> {
    message.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

/// The members of a request. Null is something else than nothing.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default, deserialize_with = "given")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "given")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "given")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "given")]
    params: Option<&'a RawValue>,
}

fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Request<'a> {
    /// Reads a message.
    pub(crate) fn read(message: &'a [u8]) -> Result<Self, Broken<'a>> {
        let invalid = |id, reason: &str| {
            let reason = format!("invalid request: {reason}");
            Err(Broken { id, code: ErrorCode::InvalidRequest, reason })
        };
        // serde would take the members from an array too, by their order.
        if first(message) != Some(b'{') {
            return Err(Broken::no_object(message));
        }
        let Members { jsonrpc, id, method, params } = match serde_json::from_slice(message) {
            Ok(members) => members,
            Err(error) if error.is_data() => return invalid(None, &error.to_string()),
            Err(error) => return Err(Broken::unreadable(&error)),
        };
        let scalar = |id: &RawValue| !id.get().starts_with(['{', '[', 't', 'f']);
        if !id.is_none_or(scalar) {
            return invalid(None, "`id` must be a string, a number or null");
        }
        let version = jsonrpc.map(|version| serde_json::from_str::<Cow<'_, str>>(version.get()));
        if !matches!(version, Some(Ok(version)) if version == "2.0") {
            return invalid(id, "`jsonrpc` must be \"2.0\"");
        }
        let Some(method) = method else { return invalid(id, "`method` is missing") };
        let Ok(method) = serde_json::from_str::<Text<'_>>(method.get()) else {
            return invalid(id, "`method` must be a string");
        };
        Ok(Self { id, method: method.0, params })
    }
}

/// A string, borrowed if nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// An id for jsonrpsee; nothing becomes null.
pub(crate) fn id_of(id: Option<&RawValue>) -> Id<'_> {
    let Some(raw) = id.map(RawValue::get) else { return Id::Null };
    if raw == "null" {
        return Id::Null;
    }
    // Only what is written again as it was: not `-0`, not `1e3`.
    if let Ok(number) = raw.parse::<u64>()
        && (raw == "0" || !raw.starts_with(['0', '+']))
    {
        return Id::Number(number);
    }
    match serde_json::from_str::<Text<'_>>(raw) {
        Ok(Text(text)) if !text.starts_with(MARK) => Id::Str(text),
        _ => Id::Str(Cow::Owned(format!("{MARK}{raw}"))),
    }
}

/// An id for a subscription whose answer is told elsewhere than through its sink: two marks, which no
/// other id begins with.
pub(crate) fn elsewhere(id: Option<&RawValue>) -> Id<'static> {
    Id::Str(Cow::Owned(format!("{MARK}{MARK}{}", id.map_or("null", RawValue::get))))
}

/// Whether an answer has such an id.
pub(crate) fn is_elsewhere(answer: &RawValue) -> bool {
    answer.get().starts_with(ELSEWHERE)
}

/// An answer with its id as it was given.
pub(crate) fn echo(answer: Box<RawValue>) -> Box<RawValue> {
    if !answer.get().starts_with(MARKED) {
        return answer;
    }
    let mut text = String::from(Box::<str>::from(answer));
    let mut values = serde_json::Deserializer::from_str(&text[BEGIN.len()..]).into_iter::<String>();
    if let Some(Ok(id)) = values.next() {
        let end = BEGIN.len() + values.byte_offset();
        // As long as the answer is, it stays where it is.
        text.replace_range(BEGIN.len()..end, id.trim_start_matches(MARK));
    }
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The members of an error's answer.
#[derive(Deserialize)]
struct Failed<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    error: Error<'a>,
}

#[derive(Deserialize)]
struct Error<'a> {
    code: i32,
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// The error of an answer, `code`, with its reason in `message`, if jsonrpsee has left it in `data`.
pub(crate) fn explain(answer: Box<RawValue>, code: Option<i32>) -> Box<RawValue> {
    // Those of jsonrpsee: invalid requests and parameters, internal errors, its own limits.
    if !matches!(code, Some(-32_600 | -32_602 | -32_603 | -32_011..=-32_006)) {
        return answer;
    }
    let told = || {
        let failed: Failed<'_> = serde_json::from_str(answer.get()).ok()?;
        let Error { code, message, data } = failed.error;
        let data = data?;
        let reason: String = serde_json::from_str(data.get()).ok()?;
        if reason.is_empty() || message.contains(&reason) {
            return None;
        }
        let message = serde_json::to_string(&format!("{}: {reason}", lower(&message))).ok()?;
        let (id, data) = (failed.id.get(), data.get());
        let text =
            format!(r#"{BEGIN}{id},"error":{{"code":{code},"message":{message},"data":{data}}}}}"#);
        RawValue::from_string(text).ok()
    };
    told().unwrap_or(answer)
}

/// Begins in lower case, as all our errors do.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use jsonrpsee::core::server::MethodResponse;
    use jsonrpsee::types::ErrorObject;

    use super::*;

    #[test]
    fn an_id_comes_back_as_it_was_given() {
        for id in [
            "0",
            "7",
            "18446744073709551615",
            "18446744073709551616",
            "-1",
            "1.5",
            "-0",
            "1e3",
            "1E+3",
            "00000000000000000000000000000000000000001e1",
            "null",
            r#""a""#,
            r#""""#,
            r#""\u0000""#,
            r#""\u0000-1""#,
            r#""é\"\\""#,
        ] {
            let message = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#);
            // A number may not begin with zeros.
            let Ok(request) = Request::read(message.as_bytes()) else {
                assert!(id.starts_with("00"), "{id}");
                continue;
            };
            let error = ErrorObject::from(ErrorCode::InternalError);
            let answer = echo(MethodResponse::error(id_of(request.id), error).into_json());
            let read: Failed<'_> = serde_json::from_str(answer.get()).unwrap();
            // A string may be escaped in another way.
            let same = |a: &str, b: &str| {
                a == b
                    || serde_json::from_str::<String>(a)
                        .ok()
                        .is_some_and(|a| serde_json::from_str::<String>(b).ok() == Some(a))
            };
            assert!(same(read.id.get(), id), "{id}: {answer}");
        }
    }

    #[test]
    fn what_is_no_request_is_told_why() {
        for (message, id, code, reason) in [
            (r#"{"jsonrpc":"2.0","id":8,"#, None, -32_700, "EOF"),
            ("1", None, -32_600, "a request is an object"),
            (r#"["2.0",7,"m",[]]"#, None, -32_600, "a request is an object"),
            ("one", None, -32_700, "expected value"),
            (r#"{"jsonrpc":"2.0","id":{},"method":"m"}"#, None, -32_600, "`id` must be"),
            (r#"{"jsonrpc":"2.0","id":[1],"method":"m"}"#, None, -32_600, "`id` must be"),
            (r#"{"jsonrpc":"2.0","id":true,"method":"m"}"#, None, -32_600, "`id` must be"),
            (r#"{"jsonrpc":"2.0","id":-6}"#, Some("-6"), -32_600, "`method` is missing"),
            (r#"{"jsonrpc":"2.0","id":6,"method":7}"#, Some("6"), -32_600, "must be a string"),
            (r#"{"jsonrpc":"1.0","id":7,"method":"m"}"#, Some("7"), -32_600, "\"2.0\""),
            (r#"{"id":7,"method":"m"}"#, Some("7"), -32_600, "\"2.0\""),
            (r#"{"jsonrpc":2.0,"id":"x","method":"m"}"#, Some(r#""x""#), -32_600, "\"2.0\""),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}"#, None, -32_600, "duplicate"),
        ] {
            let broken = Request::read(message.as_bytes()).unwrap_err();
            assert_eq!(broken.id.map(RawValue::get), id, "{message}");
            assert_eq!(broken.code.code(), code, "{message}: {}", broken.reason);
            assert!(broken.reason.contains(reason), "{message}: {}", broken.reason);
        }
        let note = Request::read(br#"{"jsonrpc":"2.0","method":"\u006d","params":null}"#).unwrap();
        assert_eq!((note.id.is_none(), &*note.method), (true, "m"));
    }
}
