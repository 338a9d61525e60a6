//! The protocols that are compared. Each is an [`Overlay`](crate::engine::Overlay).

pub mod gossip;
