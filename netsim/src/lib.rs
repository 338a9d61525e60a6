//! Will drive the protocol of `fragcast-turbine` in virtual time over real-world latencies.
//!
//! The crate holds its place in the workspace. What it will drive is there: the protocol is
//! pure, and its tests step networks of fifty nodes in virtual time already.
#![forbid(unsafe_code)]
