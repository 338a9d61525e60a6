//! `eth_callMany`: bundles of calls, each call on the state that the one before has left, as Erigon
//! and reth have it. The first bundle runs in the block that the state is of, each further one in the
//! next.

use alloy_primitives::{Bytes, U64};
use alloy_rpc_types_eth::TransactionRequest;
use alloy_rpc_types_eth::state::StateOverride;
use revm::DatabaseCommit;
use revm::inspector::NoOpInspector;
use serde::Serialize;
use serde_json::{Map, Value};

use super::CallSite;
use super::error::CallError;
use super::evm::{Ground, Rules};
use super::outcome::Failure;
use super::trace::Replayed;
use crate::params::{BlockChanges, Kind, Wrong, field, short};
use crate::resolve::StateId;

/// Seconds from one block to the next.
const BLOCK_TIME: u64 = 12;
/// Bytes of all results.
const MAX_OUTPUT: usize = 16 * 1024 * 1024;

/// Calls of one block.
#[derive(Debug, Clone, Default)]
pub(super) struct Bundle {
    calls: Vec<TransactionRequest>,
    block: BlockChanges,
}

impl Kind for Bundle {
    fn read(value: Value) -> Result<Self, Wrong> {
        let mut object = object(value)?;
        let mut take = |name: &str| object.remove(name).filter(|value| !value.is_null());
        let calls = take("transactions").ok_or("transactions are missing")?;
        let block = take("blockOverride").or_else(|| take("blockOverrides"));
        only(&object)?;
        Ok(Self {
            calls: field("transactions", calls)?,
            block: block
                .map(|value| field("blockOverride", value))
                .transpose()?
                .unwrap_or_default(),
        })
    }
}

/// Where the first bundle begins.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) block: StateId,
    /// The transaction of the block before which it is; none: after the block.
    pub(super) index: Option<u64>,
}

impl Kind for Place {
    fn read(value: Value) -> Result<Self, Wrong> {
        let mut object = object(value)?;
        let mut take = |name: &str| object.remove(name).filter(|value| !value.is_null());
        let block = take("blockNumber").map(|value| field("blockNumber", value)).transpose()?;
        let index = match take("transactionIndex") {
            None => None,
            Some(value) if value.as_i64() == Some(-1) => None,
            Some(value) => match value.as_u64() {
                Some(index) => Some(index),
                None => Some(field::<U64>("transactionIndex", value)?.to()),
            },
        };
        only(&object)?;
        Ok(Self { block: block.unwrap_or_default(), index })
    }
}

fn object(value: Value) -> Result<Map<String, Value>, Wrong> {
    match value {
        Value::Object(object) => Ok(object),
        _ => Err("an object is wanted".into()),
    }
}

fn only(object: &Map<String, Value>) -> Result<(), Wrong> {
    object.keys().next().map_or(Ok(()), |name| Err(format!("unknown field {}", short(name))))
}

/// The result of one call.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Called {
    /// What it returned.
    Value(Bytes),
    /// Why it failed.
    Error(String),
}

/// Runs the bundles.
pub(super) fn call(
    site: &CallSite,
    at: Option<(&Replayed, usize)>,
    bundles: Vec<Bundle>,
    state: Option<StateOverride>,
) -> Result<Vec<Vec<Called>>, CallError> {
    let mut ground = match at {
        None => site.ground(None, None)?,
        Some((replayed, index)) => replayed.before(site, index)?,
    };
    let mut header = site.snapshot.header.clone();
    let mut left = MAX_OUTPUT;
    let mut results = Vec::with_capacity(bundles.len());
    let mut state = state.unwrap_or_default();
    for Bundle { calls, block } in bundles {
        ground.enter(&site.spec, header.clone(), block.for_call()?, Rules::Call)?;
        ground.override_state(std::mem::take(&mut state))?;
        let mut called = Vec::with_capacity(calls.len());
        for request in calls {
            let one = one(&mut ground, request)?;
            let bytes = match &one {
                Called::Value(bytes) => bytes.len(),
                Called::Error(message) => message.len(),
            };
            left = left.checked_sub(bytes).ok_or(CallError::TooLong)?;
            called.push(one);
        }
        results.push(called);
        header.number = header.number.saturating_add(1);
        header.timestamp = header.timestamp.saturating_add(BLOCK_TIME);
    }
    Ok(results)
}

fn one(ground: &mut Ground, request: TransactionRequest) -> Result<Called, CallError> {
    let asked = ground.tx(request)?;
    match ground.transact(&asked, &mut NoOpInspector) {
        Ok(mut outcome) => {
            ground.db.commit(std::mem::take(&mut outcome.state));
            Ok(match outcome.into_output() {
                Ok(output) => Called::Value(output),
                Err(error) => Called::Error(error.to_string()),
            })
        }
        Err(Failure::Invalid(invalid)) => Ok(Called::Error(invalid.told())),
        Err(Failure::Other(error)) => Err(error),
    }
}
