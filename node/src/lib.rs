//! The Fragcast daemon.
#![forbid(unsafe_code)]

pub mod engine;
pub mod output;
pub mod workload;
