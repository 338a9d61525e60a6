//! The protocols that are compared. Each is an [`Overlay`](crate::engine::Overlay).
//!
//! [`fragcast`] is the code of `fragcast-turbine` that nodes run. The others are models of the
//! packets that their nodes send, and when. The time of their computations is part of the cost of a
//! hop.

pub mod fragcast;
pub mod gossip;
pub mod limit;
pub mod shreds;
