//! The fork times that a client goes by, and how they differ from a chain's here.
//!
//! Clients tell them in different ways: geth's `eth_config` (EIP-7910) has the times of at most
//! three forks and no names; a rollup node's `optimism_rollupConfig`, op-geth's
//! `debug_chainConfig` and `admin_nodeInfo` have all, by the names of the configuration file.
//! Whatever has names is asked first.

use std::collections::{BTreeMap, BTreeSet};

use fragcast_execution::chain::{Activation, ChainSpec};
use serde_json::{Map, Value};

use super::rpc::{Client, ClientError};

/// Names of one answer that are looked at: more than any chain has, in case the client is not one.
const MAX_NAMES: usize = 100;

/// Names that say nothing about execution, or say of an OP chain what another name says as well.
const PASSED_OVER: [&str; 4] = ["delta", "pectrablobschedule", "regolith", "genesis"];
const OF_ETHEREUM: [&str; 9] =
    ["shanghai", "cancun", "prague", "osaka", "bpo1", "bpo2", "bpo3", "bpo4", "bpo5"];

/// Fork times, as a client tells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientForks {
    /// By name, in lower case without underscores; the method that told them.
    Named(&'static str, BTreeMap<String, u64>),
    /// `eth_config`: when the fork that is active became so, and when the next one will.
    Times {
        /// The active fork; 0 if it was active from the beginning.
        current: u64,
        /// The next fork, if one is known.
        next: Option<u64>,
        /// Target, most and update fraction of blobs now.
        blobs: Option<(u64, u64, u64)>,
    },
    /// No method told any.
    Unknown,
}

/// How fork times differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Differences {
    /// Forks whose rules one side goes by already and the other does not.
    pub now: Vec<String>,
    /// Forks that are still to come.
    pub later: Vec<String>,
}

/// Times in a configuration object by name: those whose key ends in `suffix`.
fn times(config: &Map<String, Value>, suffix: &str) -> BTreeMap<String, u64> {
    let named = config.iter().filter_map(|(key, value)| {
        let name = key.strip_suffix(suffix)?.replace('_', "").to_lowercase();
        Some((name, value.as_u64()?))
    });
    named.filter(|(name, _)| !PASSED_OVER.contains(&name.as_str())).take(MAX_NAMES).collect()
}

fn hex_or_number(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => u64::from_str_radix(text.strip_prefix("0x")?, 16).ok(),
        other => other.as_u64(),
    }
}

fn eth_config(answer: &Value) -> Option<ClientForks> {
    let time = |of: &Value| hex_or_number(&of["activationTime"]);
    let current = time(&answer["current"])?;
    let blobs = &answer["current"]["blobSchedule"];
    let blob = |key: &str| hex_or_number(&blobs[key]);
    let blobs = match (blob("target"), blob("max"), blob("baseFeeUpdateFraction")) {
        (Some(target), Some(max), Some(fraction)) => Some((target, max, fraction)),
        _ => None,
    };
    Some(ClientForks::Times { current, next: time(&answer["next"]), blobs })
}

/// Asks a client for its fork times. Methods that it lacks or refuses tell nothing.
///
/// # Errors
/// It cannot be reached.
pub async fn forks(client: &Client) -> Result<ClientForks, ClientError> {
    for (method, path, suffix) in [
        ("optimism_rollupConfig", &[][..], "_time"),
        ("debug_chainConfig", &[], "Time"),
        ("admin_nodeInfo", &["protocols", "eth", "config"], "Time"),
    ] {
        let Some(answer) = told(client, method).await? else { continue };
        let config = path.iter().fold(&answer, |value, key| &value[*key]);
        if let Some(config) = config.as_object()
            && config.keys().any(|key| key.ends_with(suffix))
        {
            return Ok(ClientForks::Named(method, times(config, suffix)));
        }
    }
    let answer = told(client, "eth_config").await?;
    Ok(answer.as_ref().and_then(eth_config).unwrap_or(ClientForks::Unknown))
}

async fn told(client: &Client, method: &'static str) -> Result<Option<Value>, ClientError> {
    match client.call::<Value>(method, [(); 0]).await {
        Ok(answer) => Ok(answer),
        Err(ClientError::Refused { .. } | ClientError::Corrupt(_)) => Ok(None),
        Err(error @ ClientError::Unavailable(_)) => Err(error),
    }
}

/// Fork times of a chain here, by name, those that this build lacks included.
fn here(spec: &ChainSpec) -> BTreeMap<String, u64> {
    let known = spec.forks().into_iter().filter_map(|(name, at)| match at {
        Activation::Time(time) => Some((name.to_lowercase(), time)),
        Activation::Block(_) => None,
    });
    let lacking = spec.lacking().iter().map(|(time, name)| (name.to_lowercase(), *time));
    let mut all: BTreeMap<String, u64> = known.chain(lacking).collect();
    all.retain(|name, _| !PASSED_OVER.contains(&name.as_str()));
    all
}

/// How a client's fork times differ from those of `spec`, at the time `now`.
pub fn differences(spec: &ChainSpec, client: &ClientForks, now: u64) -> Differences {
    let mut found = Differences::default();
    let mut add = |time: u64, text: String| {
        if time <= now { &mut found.now } else { &mut found.later }.push(text);
    };
    match client {
        ClientForks::Unknown => {}
        ClientForks::Named(_, theirs) => {
            let here = here(spec);
            let names: BTreeSet<&String> = here.keys().chain(theirs.keys()).collect();
            for name in names {
                if spec.is_op() && OF_ETHEREUM.contains(&name.as_str()) {
                    continue;
                }
                match (here.get(name), theirs.get(name)) {
                    (Some(ours), Some(its)) if ours != its => {
                        add(*ours.min(its), format!("{name}: {ours} here, {its} at the client"));
                    }
                    (Some(ours), None) => {
                        add(*ours, format!("{name}: {ours} here, none at the client"));
                    }
                    (None, Some(its)) => {
                        add(*its, format!("{name}: none here, {its} at the client"));
                    }
                    _ => {}
                }
            }
        }
        ClientForks::Times { current, next, blobs } => {
            let here = here(spec);
            let active = here.values().filter(|time| **time <= now).max().copied().unwrap_or(0);
            if active != *current {
                let text = format!("the active fork: since {active} here, {current} at the client");
                add(now, text);
            }
            let coming = here.values().filter(|time| **time > now).min().copied();
            if coming != *next {
                let text = |time: Option<u64>| time.map_or("none".into(), |time| time.to_string());
                let (ours, its) = (text(coming), text(*next));
                add(u64::MAX, format!("the next fork: {ours} here, {its} at the client"));
            }
            let ours = spec.blob_params(now).map(|params| {
                let fraction = u64::try_from(params.update_fraction).unwrap_or(u64::MAX);
                (params.target_blob_count, params.max_blob_count, fraction)
            });
            if let (Some(ours), Some(its)) = (ours, blobs)
                && ours != *its
            {
                let text = format!(
                    "blobs (target, most, update fraction): {ours:?} here, {its:?} at the client"
                );
                add(now, text);
            }
        }
    }
    found
}
