//! Messages and chains for the tests of this crate.

pub(crate) mod chain;
pub(crate) mod client;

pub(crate) use fragcast_turbine::testing::{env, env_at, frag, frag_with, seal, sign};
