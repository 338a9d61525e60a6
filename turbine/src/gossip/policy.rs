//! What the operator decides about gossip.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How much a node has to do with gossip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Nothing: no connection is made or taken.
    Off,
    /// Connected, and in no mesh while the overlay is well; holders publish for listeners.
    #[default]
    Standby,
    /// In the meshes all the time; a leader publishes everything.
    Always,
}

/// Which way messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The overlay, and gossip where [`Health`](crate::health::Health) says so.
    #[default]
    Auto,
    /// The overlay alone; this node never listens to gossip, but still publishes for others.
    Turbine,
    /// Gossip alone: no shred is sent, forwarded or taken.
    Gossip,
}

macro_rules! names {
    ($type:ident: $($variant:ident = $name:literal),*) => {
        impl $type {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name used in configuration, on the command line and in metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let found = Self::ALL.iter().find(|one| one.name() == text);
                found.copied().ok_or_else(|| {
                    let names: Vec<_> = Self::ALL.iter().map(|one| one.name()).collect();
                    format!("`{text}` is none of {}", names.join(", "))
                })
            }
        }
    };
}

names!(Policy: Off = "off", Standby = "standby", Always = "always");
names!(Mode: Auto = "auto", Turbine = "turbine", Gossip = "gossip");

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
        assert_eq!("on".parse::<Policy>(), Err("`on` is none of off, standby, always".into()));
    }
}
