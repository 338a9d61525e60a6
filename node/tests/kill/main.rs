//! Tests that kill processes: nodes of a network, and the writer of a store.

#[path = "../it/common.rs"]
mod common;
mod daemon;
mod founding;
mod joining;
mod namespaces;
mod ports;
mod processes;
mod restarts;
mod sides;
mod signer;
mod store_kill;
mod substitutes;
mod wires;
