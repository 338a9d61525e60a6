//! The time between two blocks of chains that are known.

use std::time::Duration;

/// Chain ids and milliseconds, as the chains' specifications have them.
const CHAINS: [(u64, u64); 12] = [
    // Ethereum, Sepolia, Holesky, Hoodi.
    (1, 12_000),
    (11_155_111, 12_000),
    (17_000, 12_000),
    (560_048, 12_000),
    // Gnosis, Chiado.
    (100, 5_000),
    (10_200, 5_000),
    // OP Mainnet, OP Sepolia, Base, Base Sepolia.
    (10, 2_000),
    (11_155_420, 2_000),
    (8_453, 2_000),
    (84_532, 2_000),
    // Unichain, Unichain Sepolia.
    (130, 1_000),
    (1_301, 1_000),
];

/// The time between two blocks of a chain, if it is known.
pub fn block_time(chain_id: u64) -> Option<Duration> {
    let known = CHAINS.iter().find(|(id, _)| *id == chain_id);
    known.map(|(_, millis)| Duration::from_millis(*millis))
}
