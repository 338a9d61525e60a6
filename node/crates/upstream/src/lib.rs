//! Everything that asks an execution client.
//!
//! [`client`] reads its Ethereum JSON-RPC: state, blocks, and the canonical chain to follow.
//! [`engine`] forwards verified messages to its engine port. [`http`] is the HTTP client of both;
//! it distinguishes a request that was certainly not sent from one that may have arrived.
//! [`jsonrpc`] has the envelopes.
#![forbid(unsafe_code)]

pub mod client;
pub mod engine;
pub mod http;
pub mod jsonrpc;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
