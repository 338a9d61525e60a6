//! A saved measurement: the round trips of a network as its nodes measured them, joined by a leader.
//!
//! ```text
//! fragcast round trips v1 of 959 nodes
//! 00a1b2…      one line a node, two hex digits a node: the code of their round trip, 00 if unknown
//! ```

use std::path::Path;

use fragcast_turbine::{DelayMatrix, RttCode};

use crate::NodeId;
use crate::input::{ReadError, read_text};

/// The longest file: of 10,000 nodes.
const MAX_FILE: u64 = 210_000_000;

/// Round trips between all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measurement {
    nodes: usize,
    /// Row by row.
    codes: Vec<RttCode>,
}

/// Why a measurement could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasurementError {
    /// The file.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The first line is another one.
    #[error("the first line is not `fragcast round trips v1 of N nodes`")]
    Header,
    /// A row has another form.
    #[error("line {0}: two hex digits for each of {1} nodes are expected")]
    Row(usize, usize),
    /// There are more or fewer rows than nodes.
    #[error("{found} lines for {nodes} nodes")]
    Rows {
        /// Lines of the file after the first.
        found: usize,
        /// What the first line says.
        nodes: usize,
    },
}

impl Measurement {
    /// What a leader knows.
    pub fn of(matrix: &DelayMatrix) -> Self {
        let nodes = matrix.members();
        let all = (0..nodes as NodeId).flat_map(|a| (0..nodes as NodeId).map(move |b| (a, b)));
        let codes = all.map(|(a, b)| match a == b {
            true => RttCode::UNKNOWN,
            false => matrix.measured(a, b),
        });
        Self { nodes, codes: codes.collect() }
    }

    /// Number of nodes.
    pub const fn nodes(&self) -> usize {
        self.nodes
    }

    /// The round trip from one node to another in µs; `None` if nobody measured it.
    pub fn micros(&self, a: NodeId, b: NodeId) -> Option<u32> {
        self.codes.get(a as usize * self.nodes + b as usize)?.micros()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`MeasurementError`].
    pub fn read(path: &Path) -> Result<Self, MeasurementError> {
        Self::parse(&read_text(path, MAX_FILE)?)
    }

    /// Parses the text of a file.
    ///
    /// # Errors
    /// [`MeasurementError`].
    pub fn parse(text: &str) -> Result<Self, MeasurementError> {
        let mut lines = text.lines();
        let header = lines.next().and_then(|line| line.strip_prefix("fragcast round trips v1 of "));
        let nodes = header.and_then(|rest| rest.strip_suffix(" nodes")?.parse::<usize>().ok());
        let nodes = nodes.filter(|nodes| *nodes <= 10_000).ok_or(MeasurementError::Header)?;
        let mut codes = Vec::new();
        let mut found = 0;
        for line in lines {
            found += 1;
            let row = alloy_primitives::hex::decode(line).ok().filter(|row| row.len() == nodes);
            let row = row.ok_or(MeasurementError::Row(found + 1, nodes))?;
            codes.extend(row.into_iter().map(RttCode::from_byte));
        }
        match found == nodes {
            true => Ok(Self { nodes, codes }),
            false => Err(MeasurementError::Rows { found, nodes }),
        }
    }
}

impl std::fmt::Display for Measurement {
    /// The text of its file.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "fragcast round trips v1 of {} nodes", self.nodes)?;
        for row in self.codes.chunks(self.nodes.max(1)) {
            row.iter().try_for_each(|code| write!(f, "{:02x}", code.to_byte()))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_survives_its_file() {
        let mut matrix = DelayMatrix::unknown(3);
        matrix.set(0, 1, RttCode::from_byte(0x9a));
        matrix.set(1, 2, RttCode::from_byte(7));
        let saved = Measurement::of(&matrix);
        let text = saved.to_string();
        assert_eq!(text, "fragcast round trips v1 of 3 nodes\n009a00\n9a0007\n000700\n");
        assert_eq!(Measurement::parse(&text).unwrap(), saved);
        assert_eq!(
            (saved.micros(0, 2), saved.micros(2, 1)),
            (None, RttCode::from_byte(7).micros())
        );
    }

    #[test]
    fn another_file_is_refused_with_what_is_wrong() {
        let told = |text: &str| Measurement::parse(text).unwrap_err().to_string();
        let header = "fragcast round trips v1 of 2 nodes";
        assert!(told("id,weight\n").contains("first line"));
        assert!(told("fragcast round trips v1 of 20000 nodes\n").contains("first line"));
        assert_eq!(
            told(&format!("{header}\n0000\n00\n")),
            "line 3: two hex digits for each of 2 nodes are expected"
        );
        assert_eq!(told(&format!("{header}\n0000\n")), "1 lines for 2 nodes");
        assert_eq!(told(&format!("{header}\n0000\n0000\n0000\n")), "3 lines for 2 nodes");
        assert!(told(&format!("{header}\nxx00\n0000\n")).starts_with("line 2"));
    }
}
