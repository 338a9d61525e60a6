//! Reads a file of nodes: `id,weight,latitude,longitude`, one per line, in degrees north and east.
//!
//! It is read strictly and without quoting: ids are names of validators, and a file that was
//! truncated in transfer must not pass for a smaller network. Nodes keep their order. Nodes with
//! equal coordinates are at one place. Coordinates are compared without rounding, so the file
//! decides which precision means the same city.

use std::collections::{BTreeMap, BTreeSet};

use super::{MAX_NODES, MAX_PLACES, WorldError, check_nodes, cities};
use crate::geo::distance_km;
use crate::world::{Location, Node};

/// The first line.
pub const HEADER: &str = "id,weight,latitude,longitude";
/// The most bytes of an id.
const MAX_ID: usize = 64;
/// A place within this distance of a built-in city is named after it.
const NAMED_KM: f64 = 40.0;

/// An error in a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The first line is not the header.
    #[error("the first line must be `{HEADER}`")]
    Header,
    /// The last line has no line break.
    #[error("the last line does not end; the file may have been cut. End it with a line break")]
    Cut,
    /// The line has too few or too many fields.
    #[error("{fields} fields; there are four: {HEADER}")]
    Fields {
        /// Number of its fields.
        fields: usize,
    },
    /// The id is empty or too long.
    #[error("the id must be 1 to {MAX_ID} bytes of printable text")]
    Id,
    /// An earlier line has the same id.
    #[error("`{id}` is the id of line {first} already; ids must differ")]
    Duplicate {
        /// The id.
        id: String,
        /// The earlier line.
        first: usize,
    },
    /// The weight is not a whole number.
    #[error("the weight must be a whole number from 0 to 2^64 − 1")]
    Weight,
    /// The sum of all weights is too large.
    #[error("the weights up to here add up to 2^64 or more; use a larger unit")]
    TotalWeight,
    /// The coordinate is not a number in its range.
    #[error("the latitude must be a number of degrees from -90 to 90")]
    Latitude,
    /// The coordinate is not a number in its range.
    #[error("the longitude must be a number of degrees from -180 to 180")]
    Longitude,
    /// There are too many nodes.
    #[error("more than {MAX_NODES} nodes; leave some out")]
    TooMany,
}

/// Reads nodes and their places in the order of the text. `file` is its name in errors.
pub(super) fn parse(text: &str, file: &str) -> Result<(Vec<Node>, Vec<Location>), WorldError> {
    let at = |line: usize, error: LineError| WorldError::Line { file: file.into(), line, error };
    let mut lines = text.split_inclusive('\n').zip(1..);
    if lines.next().map(|(header, _)| header.trim_end()) != Some(HEADER) {
        return Err(at(1, LineError::Header));
    }
    let mut ids = BTreeMap::new();
    let mut nodes = Vec::new();
    let mut total = 0u64;
    let mut positions = Vec::new();
    let mut known = BTreeMap::new();
    for (text, line) in lines {
        let text = text.strip_suffix('\n').ok_or_else(|| at(line, LineError::Cut))?;
        let row = row(text.trim_end_matches('\r')).map_err(|error| at(line, error))?;
        if nodes.len() == MAX_NODES {
            return Err(at(line, LineError::TooMany));
        }
        if let Some(first) = ids.insert(row.id, line) {
            return Err(at(line, LineError::Duplicate { id: row.id.into(), first }));
        }
        total = total.checked_add(row.weight).ok_or_else(|| at(line, LineError::TotalWeight))?;
        let key = (row.position.0.to_bits(), row.position.1.to_bits());
        let place = *known.entry(key).or_insert_with(|| {
            positions.push(row.position);
            positions.len() - 1
        });
        nodes.push(Node { id: row.id.into(), weight: row.weight, place: place as u16 });
    }
    check_nodes(nodes.len() as u64)?;
    if positions.len() > MAX_PLACES {
        return Err(WorldError::Places { file: file.into(), places: positions.len() });
    }
    Ok((nodes, places(&positions)))
}

/// A line.
struct Row<'a> {
    id: &'a str,
    weight: u64,
    position: (f64, f64),
}

fn row(text: &str) -> Result<Row<'_>, LineError> {
    let fields: Vec<&str> = text.split(',').map(str::trim).collect();
    let [id, weight, latitude, longitude] = fields[..] else {
        return Err(LineError::Fields { fields: fields.len() });
    };
    if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
        return Err(LineError::Id);
    }
    let weight = weight.parse().map_err(|_| LineError::Weight)?;
    let degrees = |text: &str, limit: f64| -> Option<f64> {
        // Adding zero turns −0 into 0, so that both are the same place.
        let degrees = text.parse::<f64>().ok()? + 0.0;
        (degrees.abs() <= limit).then_some(degrees)
    };
    let north = degrees(latitude, 90.0).ok_or(LineError::Latitude)?;
    let east = degrees(longitude, 180.0).ok_or(LineError::Longitude)?;
    Ok(Row { id, weight, position: (north, east) })
}

/// Places, named after the nearest built-in city and their coordinates.
fn places(positions: &[(f64, f64)]) -> Vec<Location> {
    let mut names = BTreeSet::new();
    let named = |position: &(f64, f64)| {
        let near = cities::CITIES
            .iter()
            .map(|city| (distance_km(*position, city.position), city.name))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(km, _)| *km <= NAMED_KM);
        let (north, east) = position;
        let coordinates = format!("{north} {east}");
        let name = match near {
            // The first place of a city gets the city's name alone.
            Some((_, city)) if names.insert(city) => city.to_owned(),
            Some((_, city)) => format!("{city} {coordinates}"),
            None => coordinates,
        };
        Location { name, position: Some(*position) }
    };
    positions.iter().map(named).collect()
}

#[cfg(test)]
mod tests;
