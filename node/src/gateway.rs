//! The gateway's side of a node: takes the gateway's messages, checks their order, and keeps the
//! journal and the keys of the leader.

pub mod ingest;
pub mod journal;
pub mod keys;
pub mod order;
pub mod publish;
pub mod reach;
