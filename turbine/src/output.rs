//! What the sequencer hands on: to subscribers, to an execution client, to an executor.
//!
//! The records are the shredder's, so that an executor can do without the protocol.

pub use fragcast_shredder::delivery::{Delivered, Output, RetractReason, Times, Via};

use crate::counts::labelled;

labelled!(Via);
