//! The envelopes of JSON-RPC 2.0: a request, and what comes back.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A request.
#[derive(Debug, Clone, Serialize)]
pub struct Request<'a, P> {
    jsonrpc: &'static str,
    id: usize,
    method: &'a str,
    params: P,
}

impl<'a, P: Serialize> Request<'a, P> {
    /// The only request on its connection, whose id has nothing to tell apart.
    pub const fn new(method: &'a str, params: P) -> Self {
        Self::numbered(1, method, params)
    }

    /// One of a batch.
    pub const fn numbered(id: usize, method: &'a str, params: P) -> Self {
        Self { jsonrpc: "2.0", id, method, params }
    }

    /// The body to post.
    ///
    /// # Errors
    /// Parameters that are no JSON.
    pub fn to_vec(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }
}

/// What a server answered. Of `result` and `error` it should have one.
#[derive(Debug, Clone, Deserialize)]
pub struct Reply<T> {
    /// The id of the request.
    #[serde(default = "Option::default")]
    pub id: Option<usize>,
    /// The result; `None` also for `null`.
    #[serde(default = "Option::default")]
    pub result: Option<T>,
    /// The error.
    #[serde(default)]
    pub error: Option<ReplyError>,
}

impl<T> Reply<T> {
    /// The result, `None` for `null`.
    ///
    /// # Errors
    /// The server's error.
    pub fn into_result(self) -> Result<Option<T>, ReplyError> {
        self.error.map_or(Ok(self.result), Err)
    }
}

/// An error as a server answers it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ReplyError {
    /// JSON-RPC's code; 0 if there is none.
    #[serde(default)]
    pub code: i64,
    /// What it says.
    #[serde(default)]
    pub message: String,
    /// What else it says.
    #[serde(default)]
    pub data: Option<Value>,
}

impl ReplyError {
    /// The message, cut off after `chars` characters.
    pub fn cut(&self, chars: usize) -> String {
        self.message.chars().take(chars).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_and_replies_have_the_form_of_the_specification() {
        let request = Request::new("eth_chainId", [(); 0]).to_vec().unwrap();
        let request: Value = serde_json::from_slice(&request).unwrap();
        let expected = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": [] });
        assert_eq!(request, expected);
        let reply = |value: Value| serde_json::from_value::<Reply<u64>>(value).unwrap();
        let answered = reply(json!({ "jsonrpc": "2.0", "id": 3, "result": 7 }));
        assert_eq!((answered.id, answered.into_result()), (Some(3), Ok(Some(7))));
        assert_eq!(reply(json!({ "id": 3, "result": null })).into_result(), Ok(None));
        let error = json!({ "code": -32000, "message": "header not found", "data": "0x" });
        let refused = reply(json!({ "id": null, "error": error })).into_result().unwrap_err();
        assert_eq!((refused.code, refused.cut(6).as_str()), (-32000, "header"));
        assert_eq!(refused.data, Some("0x".into()));
    }
}
