//! Conditions of a transaction (`eth_sendRawTransactionConditional`, EIP-7796): it is to be included
//! only if blocks, times and accounts are as its sender knows them.
//!
//! They are checked here against the pending state, and sent along, since only the gateway can hold to
//! them.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U64, U256};
use alloy_trie::EMPTY_ROOT_HASH;
use fragcast_execution::executor::ChainView;
use serde_json::Value;

use super::SendError;
use crate::params::{Kind, Wrong};

/// Accounts and slots that may be named, as in op-geth and Erigon.
const MOST: usize = 1_000;

/// The conditions.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    known_accounts: BTreeMap<Address, Known>,
    block_number_min: Option<U64>,
    block_number_max: Option<U64>,
    timestamp_min: Option<U64>,
    timestamp_max: Option<U64>,
}

/// What is known of an account.
#[derive(Debug)]
enum Known {
    /// The root of its storage.
    Root(B256),
    /// Values of slots.
    Slots(BTreeMap<B256, B256>),
}

/// The members of an object that are not null: null is no condition.
fn members(value: &Value) -> Result<impl Iterator<Item = (&String, &Value)>, Wrong> {
    let members = value.as_object().ok_or_else(|| "an object is wanted".to_owned())?;
    Ok(members.iter().filter(|(_, value)| !value.is_null()))
}

/// A name that is a value: an address, or a slot.
fn named<T: Kind>(name: &str) -> Result<T, Wrong> {
    T::read(Value::String(name.to_owned()))
}

impl Known {
    fn parse(value: &Value) -> Result<Self, Wrong> {
        if value.is_string() {
            return B256::read(value.clone()).map(Self::Root);
        }
        let slots = members(value)?
            .map(|(slot, value)| Ok::<_, Wrong>((named(slot)?, B256::read(value.clone())?)));
        slots.collect::<Result<_, _>>().map(Self::Slots)
    }
}

impl Conditions {
    fn parse(value: &Value) -> Result<Self, Wrong> {
        let mut conditions = Self::default();
        for (name, value) in members(value)? {
            let number = || U64::read(value.clone()).map_err(|why| format!("{name}: {why}"));
            match name.as_str() {
                "knownAccounts" => {
                    let accounts = members(value)?.map(|(address, known)| {
                        let known = Known::parse(known).map_err(|why| format!("{address}: {why}"));
                        Ok::<_, Wrong>((named(address)?, known?))
                    });
                    conditions.known_accounts = accounts.collect::<Result<_, _>>()?;
                }
                "blockNumberMin" => conditions.block_number_min = Some(number()?),
                "blockNumberMax" => conditions.block_number_max = Some(number()?),
                "timestampMin" => conditions.timestamp_min = Some(number()?),
                "timestampMax" => conditions.timestamp_max = Some(number()?),
                other => return Err(format!("there is no condition {other:?}")),
            }
        }
        Ok(conditions)
    }

    /// Reads them.
    pub(super) fn read(value: &Value) -> Result<Self, SendError> {
        let conditions = Self::parse(value)
            .map_err(|why| SendError::Params(format!("the conditions: {why}")))?;
        let named: usize = conditions
            .known_accounts
            .values()
            .map(|known| match known {
                Known::Root(_) => 1,
                Known::Slots(slots) => slots.len().max(1),
            })
            .sum();
        if named > MOST {
            return Err(SendError::Limit(format!(
                "knownAccounts names {named} accounts and slots; at most {MOST} may be"
            )));
        }
        Ok(conditions)
    }

    /// Checks them against the pending block.
    pub(super) fn check(&self, view: &ChainView) -> Result<(), SendError> {
        let heads = view.heads().ok_or(SendError::NotReady)?;
        let pending = heads.pending();
        let header = &pending.header;
        let no = |what: String| Err(SendError::Condition(what));
        for (name, value, least, most) in [
            ("block number", header.number, self.block_number_min, self.block_number_max),
            ("timestamp", header.timestamp, self.timestamp_min, self.timestamp_max),
        ] {
            if least.is_some_and(|least| value < least.to::<u64>()) {
                return no(format!("the {name} is {value}, below the minimum"));
            }
            if most.is_some_and(|most| value > most.to::<u64>()) {
                return no(format!("the {name} is {value}, above the maximum"));
            }
        }
        for (address, known) in &self.known_accounts {
            match known {
                Known::Slots(slots) => {
                    for (slot, expected) in slots {
                        let value = pending.state.storage(*address, U256::from_be_bytes(slot.0))?;
                        if B256::from(value) != *expected {
                            let value = B256::from(value);
                            return no(format!("slot {slot} of {address} is {value}"));
                        }
                    }
                }
                // Which slots there are is not known from here, so only an account without code,
                // whose storage is empty, can be answered for; of others the gateway knows.
                Known::Root(root) => {
                    let account = pending.state.account(*address)?;
                    let plain = account.is_none_or(|a| a.code_hash == KECCAK256_EMPTY);
                    if plain && *root != EMPTY_ROOT_HASH {
                        return no(format!("the storage of {address} is empty"));
                    }
                }
            }
        }
        Ok(())
    }
}
