//! The protocols that are compared. Each is an [`Overlay`](crate::engine::Overlay).
//!
//! [`fragcast`] is the real one: the code of `fragcast-turbine` that nodes run. Its peers are
//! models of what they put on the wire and when; what they compute is in the cost of a hop.

pub mod fragcast;
pub mod gossip;
pub mod limit;
pub mod shreds;
