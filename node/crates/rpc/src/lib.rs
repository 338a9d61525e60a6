//! The interfaces of a node that executes: the Ethereum JSON-RPC and Flashblocks.
//!
//! [`eth`] reads the chain, [`calls`] executes on top of it, [`forward`] sends transactions to the
//! gateway that builds the block, [`flashblocks`] streams executed frags.
#![forbid(unsafe_code)]

pub mod calls;
pub mod eth;
pub mod flashblocks;
pub mod forward;
