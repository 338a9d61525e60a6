//! Settings that are one of a few names.

use fragcast_shredder::UnknownName;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantArray};

/// Which route a leader uses for its messages (DESIGN.md "Routes"); Turbine's fanout is a setting
/// of its own.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[strum(parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<RouteName>)]
pub enum RouteName {
    /// The leader chooses for each message.
    Auto,
    /// The leader sends every shred to every member.
    Direct,
    /// A tree with the configured fanout.
    Turbine,
    /// One relay for each shred.
    Rotor,
    /// By regions, wherever there is a plan that was made from the delays which members measured;
    /// without one it is `Auto`.
    Regional,
}

/// What bandwidth is worth to a leader.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[strum(parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<ProfileName>)]
pub enum ProfileName {
    /// At most 2.3 bytes sent for each byte of a message and node.
    Lean,
    /// At most 3 bytes, for latency.
    Fast,
}

/// How a remote signer is asked for a gateway's delegation.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[strum(parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<SignerApi>)]
pub enum SignerApi {
    /// Web3Signer's `POST /api/v1/eth1/sign/{public key}`, which hashes with keccak256 and signs.
    Web3signer,
    /// clef's JSON-RPC `account_signData`, of a text that people can read and approve.
    Clef,
    /// JSON-RPC `eth_sign` of the same text: Web3Signer's, a client's that has the account, …
    EthSign,
}

/// Where the state comes from that blocks are executed on.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[strum(parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<StateFrom>)]
pub enum StateFrom {
    /// A database that starts from the chain's genesis.
    Genesis,
    /// The execution client.
    Client,
}

/// Whether a node follows members who come and go.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[strum(parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<Live>)]
pub enum Live {
    /// If the network file has `bootstrap`.
    Auto,
    /// It does.
    On,
    /// It stays with the members of the network file.
    Off,
}

/// How the log is written.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[strum(parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<LogFormat>)]
pub enum LogFormat {
    /// A line of text for each event.
    Text,
    /// A JSON object for each event.
    Json,
}
