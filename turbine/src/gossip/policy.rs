//! What the operator decides about gossip.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr, VariantArray};

use crate::counts::{Labelled, labelled};

/// How much a node uses gossip.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    Serialize,
    Deserialize,
    Display,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Policy {
    /// Nothing: no connection is made or taken.
    Off,
    /// Connected, and in no mesh while the overlay is well; holders publish for listeners.
    #[default]
    Standby,
    /// In the meshes all the time; a leader publishes everything.
    Always,
}

/// How messages travel.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    Serialize,
    Deserialize,
    Display,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Mode {
    /// The overlay, and gossip where [`Health`](crate::health::Health) says so.
    #[default]
    Auto,
    /// The overlay alone; this node never listens to gossip, but still publishes for others.
    Turbine,
    /// Gossip alone: no shred is sent, forwarded or taken.
    Gossip,
}

labelled!(pub Policy, name);
labelled!(pub Mode, name);

/// A text that names no variant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is none of {}", names.join(", "))]
pub struct UnknownName {
    /// The text.
    pub text: String,
    /// The names that there are.
    pub names: Vec<&'static str>,
}

fn parse<E: Labelled>(text: &str) -> Result<E, UnknownName> {
    let names: Vec<&'static str> = E::VARIANTS.iter().map(|one| (*one).into()).collect();
    match names.iter().position(|name| *name == text) {
        Some(found) => Ok(E::VARIANTS[found]),
        None => Err(UnknownName { text: text.to_owned(), names }),
    }
}

impl FromStr for Policy {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        parse(text)
    }
}

impl FromStr for Mode {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for policy in Policy::ALL {
            assert_eq!(policy.to_string().parse(), Ok(*policy));
        }
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(*mode));
        }
        let error = "on".parse::<Policy>().unwrap_err();
        assert_eq!(error.to_string(), "`on` is none of off, standby, always");
    }
}
