//! The TCP ports of a node: who is let in, what is read, what is answered, and how much memory all
//! that may take.
//!
//! A [`Port`] is a listener. It serves JSON-RPC over HTTP and WebSocket from the methods of
//! jsonrpsee, a stream of messages over WebSockets ([`Feed`]), or pages that are made on the spot
//! ([`Service`]). jsonrpsee's own server spawns a
//! task for every message, and a client that does not read makes it hold every answer; so the
//! server here is another, over the same methods.
//!
//! # Who is let in
//! [`Seats`] bounds connections, in all and by address. When there is no place, the connection
//! that has waited longest without a complete request is closed for the new one, so idle sockets
//! keep nobody out. [`Descriptors`] keeps file descriptors for the ports of the operator. When
//! `accept` fails for want of descriptors, an idle connection is closed and the next try waits up
//! to a second. [`Guard`] checks the `Host` and the `Origin` of a request, and a token.
//!
//! # What is held
//! [`Memory`] counts the bytes of requests that are not answered and of answers that are not sent,
//! for one or several ports. On a WebSocket at most [`Settings::concurrent`] requests are in
//! process, and nothing is read while answers of more than [`Settings::unsent`] bytes are unsent.
//! While the total is exceeded, no request is begun, caches of notifications keep only what connections
//! hold, and those that have kept the node waiting for longest are closed. What several connections
//! hold counts once, for the one of them that would be closed last. What is beyond the total is what was begun before: an answer for each
//! thread that makes answers.
//!
//! A client that keeps the node waiting for [`Settings::slow_after`], in taking an answer or in
//! sending a request, is closed; those that go on slowly must keep up a rate of 128 kB/s.
//!
//! Notifications to many subscribers are encoded once ([`Shared`]) and not copied: a
//! [`Subscriber`] queues the same bytes on every connection ([`Notices`]).
#![forbid(unsafe_code)]

mod accept;
mod client;
mod control;
mod deflate;
mod descriptors;
mod dispatch;
mod encoding;
mod envelope;
mod feed;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod guard;
mod http;
mod memory;
mod notices;
mod outbox;
mod port;
mod reading;
mod seats;
mod shared;
mod stats;
mod subscriber;
mod websocket;
mod wire;
mod writing;

pub use accept::{Backoff, tune};
pub use client::Client;
pub use deflate::deflate;
pub use descriptors::{Descriptor, Descriptors, raise_limit};
pub use feed::{Asked, Feed, Frames, Subscription};
pub use guard::{Guard, Refusal, Token, TokenError};
pub use hyper::Uri;
pub use memory::{Charge, Memory};
pub use notices::Notices;
pub use port::{Page, Pages, Port, Service, Settings, WebSocket};
pub use seats::{Seat, Seats, network};
pub use shared::Shared;
pub use stats::{Dropped, PortStats};
pub use subscriber::{Subscriber, Unsent};

#[cfg(test)]
mod tests;
