//! Bodies of the fuzz targets. `cargo fuzz` runs them on its corpus, the test below on bytes of a
//! seeded generator, so that they cannot rot.
//!
//! Each takes any bytes and panics if an invariant breaks.

use std::path::Path;

use super::fixtures::RecordedBlock;
use super::fixtures::ethereum_tests::Tests;

/// A named fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[("recorded", recorded), ("tests", tests_file)];

/// A recorded block of any shape is an error or a block with messages.
pub fn recorded(data: &[u8]) {
    if let Ok(block) = RecordedBlock::parse(Path::new("fuzz.json"), data) {
        let _ = (block.chain_spec(), block.witness(), block.env());
    }
}

/// Tests of any shape are an error or tests.
pub fn tests_file(data: &[u8]) {
    let _ = Tests::parse(Path::new("fuzz.json"), data);
}

#[cfg(test)]
mod tests {
    #[test]
    fn targets_hold_on_seeded_bytes() {
        // Every other one is JSON, of the wrong shape.
        let shape = |round: usize, data: &mut Vec<u8>| {
            if round % 2 == 1 {
                *data = br#"{"config":{"chainId":1},"alloc":{}}"#.to_vec();
            }
        };
        fragcast_shredder::fuzzing::run_on_seeded_bytes(super::TARGETS, "fuzz", (100, 700), shape);
    }
}
