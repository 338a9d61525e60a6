//! The interfaces of a node that executes: the Ethereum JSON-RPC and Flashblocks.
//!
//! [`eth`] reads the chain, [`calls`] executes on top of it, [`forward`] sends transactions to
//! whoever builds the block, [`flashblocks`] streams what is executed. [`resolve`] says which block
//! and which state a caller means, [`upstream`] passes on what is not kept here, [`error`] has the
//! codes and [`stats`] the counters: the same for reading and calling. [`about`] is what wallets and
//! tools ask a client about itself.
#![forbid(unsafe_code)]

pub mod about;
pub mod calls;
pub mod error;
pub mod eth;
pub mod flashblocks;
pub mod forward;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod params;
pub mod resolve;
#[cfg(test)]
mod schemas;
pub mod stats;
#[cfg(test)]
mod suite;
pub mod upstream;
