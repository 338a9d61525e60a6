//! What the operator decides about gossip.

use fragcast_shredder::UnknownName;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantArray};

use crate::counts::labelled;

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
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[strum(parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<Policy>)]
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
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[strum(parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<Mode>)]
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
