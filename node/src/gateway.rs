//! The gateway's side of a node: takes the gateway's messages, checks their order, and keeps the
//! journal, the keys and the delegation of the leader.

pub mod delegating;
pub mod ingest;
pub mod journal;
pub mod keys;
pub mod order;
pub mod publish;
pub mod reach;
pub mod signer;
