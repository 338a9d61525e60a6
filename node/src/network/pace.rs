//! The time between two blocks of chains that are known.

use std::time::Duration;

use fragcast_execution::chain;

/// Chain ids and seconds of chains that have no preset: Gnosis, Chiado.
const OTHERS: [(u64, u64); 2] = [(100, 5), (10_200, 5)];

/// The time between two blocks of a chain, if it is known.
pub fn block_time(chain_id: u64) -> Option<Duration> {
    let other = || OTHERS.iter().find(|(id, _)| *id == chain_id).map(|(_, seconds)| *seconds);
    chain::block_time(chain_id).or_else(other).map(Duration::from_secs)
}
