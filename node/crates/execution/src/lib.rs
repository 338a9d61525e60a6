//! Execution of blocks that arrive as Env, frags and Seal, and the chain that they make.
//!
//! [`executor`] takes messages in order and publishes heads, events and verdicts; [`exec`] executes
//! one block; [`trie`] computes its state root; [`chain`] has the rules of the chain. State is read
//! through [`exec::StateSource`], which the database, a witness or an execution client implements.
//! [`follow`] has the steps along a followed client's chain. [`devnet`] makes a chain whose
//! transactions and blocks come from a seed; [`builder`] is a gateway's side of a block.
#![forbid(unsafe_code)]

pub mod builder;
pub mod chain;
pub mod devnet;
pub mod exec;
pub mod executor;
pub mod follow;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trie;
