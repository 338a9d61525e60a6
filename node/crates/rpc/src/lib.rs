//! What a node that executes offers to users: the Ethereum JSON-RPC and Flashblocks.
//!
//! [`eth`] reads the chain, [`calls`] executes on top of it, [`forward`] sends transactions to
//! whoever builds the block, [`flashblocks`] streams what is executed.
#![forbid(unsafe_code)]

pub mod calls;
pub mod eth;
pub mod flashblocks;
pub mod forward;
