//! Bodies of the fuzz targets; see `fragcast_shredder::fuzzing`.
//!
//! Each takes any bytes and panics if an invariant breaks.

use std::path::Path;

use crate::latency::RttMatrix;
use crate::measurement::Measurement;
use crate::scenario::Scenario;
use crate::topology;

/// A named fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] =
    &[("scenario", scenario), ("csv", csv), ("latency", latency), ("measurement", measurement)];

/// A scenario of any shape is a list of mistakes or a scenario that tells its settings.
pub fn scenario(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Scenario::parse(text, "fuzz.toml", Path::new("/nowhere")) {
        Ok(scenario) => assert!(!scenario.settings().is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A list of nodes of any shape is an error, or nodes each at one of the places.
pub fn csv(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok((nodes, places)) = topology::nodes_of_csv(text, "fuzz.csv") {
        assert!((topology::MIN_NODES..=topology::MAX_NODES).contains(&nodes.len()));
        assert!(nodes.iter().all(|node| usize::from(node.place) < places.len()));
        let total = nodes.iter().try_fold(0u64, |sum, node| sum.checked_add(node.weight));
        assert!(total.is_some(), "the sum of all weights fits");
    }
}

/// A matrix of round trips of any shape is an error or a matrix.
pub fn latency(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(matrix) = RttMatrix::parse(text, "fuzz.json") {
        assert_eq!(matrix.file(), "fuzz.json");
    }
}

/// A saved measurement of any shape is an error, or is what its own text says again.
pub fn measurement(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(measured) = Measurement::parse(text) {
        let again = Measurement::parse(&measured.to_string());
        assert!(again.is_ok_and(|again| again == measured));
    }
}

#[cfg(test)]
mod tests {
    /// Bytes, or a text that is right but for a few of them.
    #[test]
    fn targets_hold_on_seeded_bytes() {
        let texts = [
            include_str!("../scenarios/default.toml"),
            "id,weight,latitude,longitude\na,1,50.0,8.0\nb,0,-3.5,120\n",
            r#"{"data":{"a":{"a":1.5,"b":90.0},"b":{"a":91,"b":0.4}}}"#,
            "fragcast round trips v1 of 2 nodes\n00a7\n9900\n",
        ];
        fragcast_shredder::fuzzing::run_on_seeded_bytes(
            super::TARGETS,
            "fuzz netsim",
            (300, 700),
            |round, data| {
                let Some(text) = texts.get(round % 5) else { return };
                let mut changed = text.as_bytes().to_vec();
                for change in data.chunks_exact(3).take(round / 5 % 5) {
                    let at = usize::from(change[0]) * 256 + usize::from(change[1]);
                    let at = at % changed.len();
                    changed[at] = change[2] % 128;
                }
                *data = changed;
            },
        );
    }
}
