//! Members who come and go: whom a node calls first, where it is itself, and what weight others have.
//!
//! ```text
//! network file: bootstrap ─▶ contacts, called ─▶ table, terms, records
//! file, URL or contract   ─▶ weights          ─▶ which tables are taken, and, of a leader, made
//! ```
//!
//! The rules are the protocol's ([`fragcast_turbine::tables`]); here is what it cannot do itself.

pub mod bootstrap;
pub mod weights;

pub use bootstrap::{Bootstrap, BootstrapError};
pub use weights::{WeightsSource, WeightsStatus};
