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
    /// Runs every target on bytes of a fixed generator, some of them close to valid input.
    #[test]
    fn targets_hold_on_seeded_bytes() {
        let mut stream = blake3::Hasher::new().update(b"fuzz").finalize_xof();
        for (name, target) in super::TARGETS {
            for round in 0..100 {
                let mut data = vec![0; (round * 7) % 700];
                stream.fill(&mut data);
                match round % 4 {
                    1 if data.len() > 4 => data[..2].copy_from_slice(&[0x02, 0xf8]),
                    2 if data.len() > 4 => data[..3].copy_from_slice(&[0xf9, 0x02, 0x11]),
                    3 => data = br#"{"config":{"chainId":1},"alloc":{}}"#.to_vec(),
                    _ => {}
                }
                let result = std::panic::catch_unwind(|| target(&data));
                assert!(result.is_ok(), "{name} panicked in round {round}");
            }
        }
    }
}
