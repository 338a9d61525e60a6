//! Parameters that are objects: transactions, overrides, simulations, filters.
//!
//! The fields of a transaction that are not known here are passed over, as geth does, since wallets
//! send more than a call needs. Of overrides nothing is passed over: whoever overrides something
//! wants another result. Names are found whatever their case, and null is the same as no field, both
//! as in geth.

use alloy_eips::eip4895::{Withdrawal, Withdrawals};
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_rpc_types_eth::state::{AccountOverride, StateOverride};
use alloy_rpc_types_eth::{BlockOverrides, Filter, FilterBlockOption, TransactionRequest};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::calls::CallError;

use super::{BlockTag, Kind, Wrong, block_number, field, quantity, short, text};

/// Topics of a log.
const MAX_TOPICS: usize = 4;

/// Checks a value, and gives it as it is to be read: objects in it with the names that they have here.
type Check = fn(Value) -> Result<Value, Wrong>;

/// What to do with a field that is not known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unknown {
    PassOver,
    Refuse,
}

/// Checks the fields of an object: each with the name that it has here, its other names, and its
/// kind. Gives the object with these names.
fn checked(
    value: Value,
    fields: &[(&str, &[&str], Check)],
    unknown: Unknown,
) -> Result<Map<String, Value>, Wrong> {
    let Value::Object(object) = value else {
        return Err(format!("an object is wanted, not {}", short(&value.to_string())));
    };
    let mut known = Map::new();
    for (name, value) in object {
        if value.is_null() {
            continue;
        }
        let is = |other: &&str| name.eq_ignore_ascii_case(other);
        let found = fields.iter().find(|(main, others, _)| is(main) || others.iter().any(is));
        let Some((main, _, check)) = found else {
            if unknown == Unknown::Refuse {
                let names: Vec<_> = fields.iter().map(|(main, ..)| *main).collect();
                return Err(format!(
                    "unknown field {}; there are {}",
                    short(&name),
                    names.join(", ")
                ));
            }
            continue;
        };
        let value = check(value).map_err(|why| format!("{name}: {why}"))?;
        if known.insert((*main).to_owned(), value).is_some() {
            return Err(format!("{main} is given twice"));
        }
    }
    Ok(known)
}

/// Reads what was checked; alloy's types are laxer than the checks, so this fails only on what the
/// checks do not cover.
fn read<T: DeserializeOwned>(object: Map<String, Value>) -> Result<T, Wrong> {
    serde_json::from_value(Value::Object(object)).map_err(|e| e.to_string())
}

fn any(value: Value) -> Result<Value, Wrong> {
    Ok(value)
}

fn is<T: Kind>(value: Value) -> Result<Value, Wrong> {
    T::read(value.clone()).map(|_| value)
}

/// A quantity of at most `BITS` bits.
fn has<const BITS: usize>(value: Value) -> Result<Value, Wrong> {
    quantity(text(&value)?, BITS).map(|_| value)
}

fn each(value: Value, check: Check) -> Result<Value, Wrong> {
    let Value::Array(values) = value else { return Err("an array is wanted".into()) };
    let read = |(at, value)| check(value).map_err(|why| format!("[{at}]: {why}"));
    values.into_iter().enumerate().map(read).collect()
}

/// All of these fields, of these kinds.
fn whole(value: Value, fields: &[(&str, &[&str], Check)]) -> Result<Value, Wrong> {
    let object = checked(value, fields, Unknown::PassOver)?;
    match fields.iter().find(|(name, ..)| !object.contains_key(*name)) {
        Some((name, ..)) => Err(format!("{name} is missing")),
        None => Ok(Value::Object(object)),
    }
}

fn is_access_list(value: Value) -> Result<Value, Wrong> {
    each(value, |item| {
        whole(
            item,
            &[("address", &[], is::<Address>), ("storageKeys", &[], |keys| each(keys, is::<B256>))],
        )
    })
}

/// An authorization. Libraries write `v` beside `yParity`, which geth does not read.
fn is_authorization(mut value: Value) -> Result<Value, Wrong> {
    if let Value::Object(item) = &mut value {
        let parity = |(name, value): (&String, &Value)| {
            name.eq_ignore_ascii_case("yParity") && !value.is_null()
        };
        if item.iter().any(parity) {
            item.retain(|name, _| !name.eq_ignore_ascii_case("v"));
        }
    }
    whole(
        value,
        &[
            ("chainId", &[], is::<U256>),
            ("address", &[], is::<Address>),
            ("nonce", &[], has::<64>),
            ("yParity", &["v"], has::<8>),
            ("r", &[], is::<U256>),
            ("s", &[], is::<U256>),
        ],
    )
}

/// The fields of a transaction. Prices have 128 bits here: more than all ether for one gas.
const TRANSACTION: &[(&str, &[&str], Check)] = &[
    ("from", &[], is::<Address>),
    ("to", &[], is::<Address>),
    ("gas", &[], has::<64>),
    ("gasPrice", &[], has::<128>),
    ("maxFeePerGas", &[], has::<128>),
    ("maxPriorityFeePerGas", &[], has::<128>),
    ("maxFeePerBlobGas", &[], has::<128>),
    ("value", &[], is::<U256>),
    ("data", &[], is::<Bytes>),
    ("input", &[], is::<Bytes>),
    ("nonce", &[], has::<64>),
    ("chainId", &[], has::<64>),
    // What it is does not matter: the fields say which one it is.
    ("type", &[], has::<8>),
    ("accessList", &[], is_access_list),
    ("blobVersionedHashes", &[], |value| each(value, is::<B256>)),
    ("authorizationList", &[], |value| each(value, is_authorization)),
];

impl Kind for TransactionRequest {
    fn read(value: Value) -> Result<Self, Wrong> {
        read(checked(value, TRANSACTION, Unknown::PassOver)?)
    }
}

fn is_slots(value: Value) -> Result<Value, Wrong> {
    let Value::Object(slots) = &value else { return Err("an object is wanted".into()) };
    for (slot, value) in slots {
        field::<B256>("slot", Value::String(slot.clone()))?;
        field::<B256>(slot, value.clone())?;
    }
    Ok(value)
}

const ACCOUNT: &[(&str, &[&str], Check)] = &[
    ("balance", &[], is::<U256>),
    ("nonce", &[], has::<64>),
    ("code", &[], is::<Bytes>),
    ("state", &[], is_slots),
    ("stateDiff", &[], is_slots),
    ("movePrecompileToAddress", &[], is::<Address>),
];

impl Kind for StateOverride {
    fn read(value: Value) -> Result<Self, Wrong> {
        let Value::Object(accounts) = value else {
            return Err(format!("an object is wanted, not {}", short(&value.to_string())));
        };
        let mut state = Self::default();
        for (address, account) in accounts {
            let key: Address = field("state overrides", Value::String(address.clone()))?;
            let account = if account.is_null() { Value::Object(Map::new()) } else { account };
            let wrong = |why| format!("{address}: {why}");
            let object = checked(account, ACCOUNT, Unknown::Refuse).map_err(wrong)?;
            let account: AccountOverride = read(object).map_err(wrong)?;
            if account.state.is_some() && account.state_diff.is_some() {
                return Err(format!("account {key} has both 'state' and 'stateDiff'"));
            }
            if state.insert(key, account).is_some() {
                return Err(format!("account {key} is given twice"));
            }
        }
        Ok(state)
    }
}

/// Overrides of a block.
#[derive(Debug, Clone, Default)]
pub(crate) struct BlockChanges {
    /// What a call can have.
    pub(crate) overrides: BlockOverrides,
    /// Withdrawals, which only a simulated block can have.
    pub(crate) withdrawals: Option<Vec<Withdrawal>>,
}

impl BlockChanges {
    /// The overrides, if a call can have them.
    pub(crate) fn for_call(self) -> Result<BlockOverrides, CallError> {
        let (beacon, withdrawals) = (self.overrides.beacon_root, &self.withdrawals);
        for (name, given) in
            [("beaconRoot", beacon.is_some()), ("withdrawals", withdrawals.is_some())]
        {
            if given {
                let what = format!("block override {name:?} is not supported for this RPC method");
                return Err(CallError::Invalid(what));
            }
        }
        Ok(self.overrides)
    }
}

fn is_withdrawals(value: Value) -> Result<Value, Wrong> {
    each(value, |item| {
        whole(
            item,
            &[
                ("index", &[], has::<64>),
                ("validatorIndex", &[], has::<64>),
                ("address", &[], is::<Address>),
                ("amount", &[], has::<64>),
            ],
        )
    })
}

fn is_hashes(value: Value) -> Result<Value, Wrong> {
    let Value::Object(hashes) = &value else { return Err("an object is wanted".into()) };
    for (number, hash) in hashes {
        if number.parse::<u64>().is_err() {
            return Err(format!("a block number in decimal is wanted, not {number}"));
        }
        field::<B256>(number, hash.clone())?;
    }
    Ok(value)
}

const BLOCK: &[(&str, &[&str], Check)] = &[
    ("number", &["blockNumber"], is::<U256>),
    ("difficulty", &[], is::<U256>),
    ("time", &["timestamp"], has::<64>),
    ("gasLimit", &[], has::<64>),
    ("feeRecipient", &["coinbase"], is::<Address>),
    ("prevRandao", &["random"], is::<B256>),
    ("baseFeePerGas", &["baseFee"], is::<U256>),
    ("blobBaseFee", &[], is::<U256>),
    ("beaconRoot", &["parentBeaconBlockRoot"], is::<B256>),
    ("blockHash", &[], is_hashes),
    ("withdrawals", &[], is_withdrawals),
];

impl Kind for BlockChanges {
    fn read(value: Value) -> Result<Self, Wrong> {
        let mut object = checked(value, BLOCK, Unknown::Refuse)?;
        let withdrawals = object.remove("withdrawals");
        let withdrawals = withdrawals.map(serde_json::from_value::<Withdrawals>).transpose();
        let withdrawals = withdrawals.map_err(|e| format!("withdrawals: {e}"))?;
        Ok(Self { overrides: read(object)?, withdrawals: withdrawals.map(Withdrawals::into_inner) })
    }
}

/// A block of a simulation.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimBlock {
    /// Overrides of its header.
    pub(crate) block: BlockChanges,
    /// Overrides of the state before it.
    pub(crate) state: StateOverride,
    /// Its transactions.
    pub(crate) calls: Vec<TransactionRequest>,
}

impl Kind for SimBlock {
    fn read(value: Value) -> Result<Self, Wrong> {
        const FIELDS: &[(&str, &[&str], Check)] =
            &[("blockOverrides", &[], any), ("stateOverrides", &[], any), ("calls", &[], any)];
        let mut object = checked(value, FIELDS, Unknown::Refuse)?;
        Ok(Self {
            block: take(&mut object, "blockOverrides")?,
            state: take(&mut object, "stateOverrides")?,
            calls: take(&mut object, "calls")?,
        })
    }
}

/// What `eth_simulateV1` is to do.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimPayload {
    /// The blocks.
    pub(crate) blocks: Vec<SimBlock>,
    /// Whether moved ether has logs.
    pub(crate) trace_transfers: bool,
    /// Whether nonces and fees are checked.
    pub(crate) validation: bool,
    /// Whether blocks show whole transactions.
    pub(crate) full: bool,
}

impl Kind for SimPayload {
    fn read(value: Value) -> Result<Self, Wrong> {
        const FIELDS: &[(&str, &[&str], Check)] = &[
            ("blockStateCalls", &[], any),
            ("traceTransfers", &[], any),
            ("validation", &[], any),
            ("returnFullTransactions", &[], any),
        ];
        let mut object = checked(value, FIELDS, Unknown::Refuse)?;
        Ok(Self {
            blocks: take(&mut object, "blockStateCalls")?,
            trace_transfers: take(&mut object, "traceTransfers")?,
            validation: take(&mut object, "validation")?,
            full: take(&mut object, "returnFullTransactions")?,
        })
    }
}

fn take<T: Kind + Default>(object: &mut Map<String, Value>, name: &str) -> Result<T, Wrong> {
    object.remove(name).map_or_else(|| Ok(T::default()), |value| field(name, value))
}

/// A filter of logs.
pub(super) fn filter(value: Value) -> Result<Filter, Wrong> {
    const FIELDS: &[(&str, &[&str], Check)] = &[
        ("fromBlock", &[], is::<BlockTag>),
        ("toBlock", &[], is::<BlockTag>),
        ("blockHash", &[], is::<B256>),
        ("address", &[], any),
        ("topics", &[], any),
    ];
    let mut object = checked(value, FIELDS, Unknown::PassOver)?;
    let mut filter = Filter::default();
    let edge = |value: Option<&Value>| value.map(|value| block_number(text(value)?)).transpose();
    let (from_block, to_block) = (edge(object.get("fromBlock"))?, edge(object.get("toBlock"))?);
    let hash = object.remove("blockHash").map(B256::read).transpose()?;
    filter.block_option = match hash {
        Some(_) if from_block.is_some() || to_block.is_some() => {
            return Err(
                "cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other"
                    .into(),
            );
        }
        Some(hash) => FilterBlockOption::AtBlockHash(hash),
        None => FilterBlockOption::Range { from_block, to_block },
    };
    if let Some(address) = object.remove("address") {
        let addresses = match address {
            Value::Array(_) => field("address", address)?,
            one => vec![field::<Address>("address", one)?],
        };
        filter.address = addresses.into();
    }
    let Some(topics) = object.remove("topics") else { return Ok(filter) };
    let Value::Array(topics) = topics else { return Err("topics: an array is wanted".into()) };
    if topics.len() > MAX_TOPICS {
        return Err(format!("topics: exceed max topics: {} of {MAX_TOPICS}", topics.len()));
    }
    for (at, topic) in topics.into_iter().enumerate() {
        let name = format!("topics[{at}]");
        let values = match topic {
            Value::Null => continue,
            // Null among others is any.
            Value::Array(values) if values.iter().any(Value::is_null) => continue,
            Value::Array(_) => field::<Vec<B256>>(&name, topic)?,
            one => vec![field(&name, one)?],
        };
        filter.topics[at] = values.into();
    }
    Ok(filter)
}

#[cfg(test)]
mod tests;
