//! The list of gateways from a registry.
//!
//! ```text
//! source ─▶ list ─┐
//! source ─▶ list ─┼─▶ votes ─▶ follow ─▶ the overlay's next epoch
//! source ─▶ list ─┘              │
//!                                └─▶ schedule.json, status
//! ```
//!
//! A *source* is a `gateways.json` or the JSON-RPC of a registry or a portal. Each is asked every
//! second, and less and less often while it fails. What most of them say is the list ([`votes`]).
//! When another list takes effect is the protocol's rule ([`fragcast_turbine::rotation`]), so that
//! all nodes change with the same block. While no source answers the last list holds.
//!
//! Rows hold a secret, the JWT of a gateway's engine port. Nothing here has a place for it: the
//! parser passes over it ([`list`]), and errors name rows and fields, never what stands in them.

pub mod follow;
pub mod list;
pub mod saved;
pub mod source;
pub mod status;
pub mod votes;

pub use follow::{Beginning, Follower, Settings};
pub use list::{Gateway, GatewayList, ListError};
pub use source::Source;
pub use status::RegistryStatus;
