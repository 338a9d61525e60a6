//! The side of a node that a gateway uses: it takes the gateway's messages, checks their order,
//! signs what it sends as the leader and remembers it.

pub mod ingest;
pub mod journal;
pub mod keys;
pub mod order;
