//! Chains and executors for tests, of this crate and of those that build on it.

mod chain;
mod executor;
mod op;

pub use chain::{GivenChain, NoSource, TestChain};
pub use executor::{Bench, GUARD, Told, block, config, gateway, memory_source, output};
pub use op::OpGround;
