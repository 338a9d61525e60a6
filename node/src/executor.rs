//! The executor: turns the sequencer's outputs into snapshots, verdicts and retractions.
//!
//! One thread owns all open blocks; everybody else reads [`ChainView`], whose answers come from
//! immutable snapshots, and follows [`ChainEvent`]s.

pub mod view;

pub use view::{ChainEvent, ChainView, Heads, History};
