//! Parameters of requests: one strict reading of every kind of value, for all methods.
//!
//! A value is read as its kind is written by the specification (execution-apis) or not at all: a
//! quantity has no leading zeros, an address 20 bytes, data an even number of digits, and all of them
//! `0x` in front. A parameter that a method does not have is an error too: whoever sends one means
//! something by it. Words of errors are geth's where it has some, which clients look for.
//!
//! Not serde: the types' own readings take decimal numbers, digits without `0x` and short addresses,
//! each type others.

use std::cell::Cell;
use std::collections::BTreeMap;

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{Address, B256, Bytes, U64, U128, U256, hex};
use alloy_rpc_types_eth::Filter;
use alloy_serde::JsonStorageKey;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::Failure;
use crate::resolve::{BlockTag, StateId};

mod objects;

pub(crate) use objects::{BlockChanges, SimBlock, SimPayload};

/// Why a value is not of its kind.
pub(crate) type Wrong = String;

/// A kind of value.
pub(crate) trait Kind: Sized {
    /// Reads a value that is not null.
    fn read(value: Value) -> Result<Self, Wrong>;
}

/// The parameters of a request, by position.
pub(crate) struct Params<'a> {
    text: Option<&'a str>,
    /// How many the method has asked for.
    asked: Cell<usize>,
}

impl<'a> Params<'a> {
    /// The parameters as they came.
    pub(crate) fn new(params: &'a jsonrpsee::types::Params<'_>) -> Self {
        Self { text: params.as_str(), asked: Cell::new(0) }
    }

    /// The parameters from the first on.
    pub(crate) fn sequence(&self) -> ParamsSequence<'_> {
        ParamsSequence { params: self, values: None, at: 0 }
    }

    fn split(&self) -> Result<Vec<&'a RawValue>, Failure> {
        let Some(text) = self.text.map(str::trim).filter(|text| !matches!(*text, "" | "null"))
        else {
            return Ok(Vec::new());
        };
        if !text.starts_with('[') {
            return Err(Failure::params("non-array args: parameters are given by position"));
        }
        serde_json::from_str(text).map_err(|e| Failure::params(format!("bad JSON: {e}")))
    }

    /// Whether the request has parameters that the method did not ask for.
    ///
    /// # Errors
    /// It has.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        let most = self.asked.get();
        if self.split()?.len() > most {
            return Err(Failure::params(format!("too many arguments, want at most {most}")));
        }
        Ok(())
    }
}

/// Parameters that are read one after the other.
pub(crate) struct ParamsSequence<'a> {
    params: &'a Params<'a>,
    values: Option<std::vec::IntoIter<&'a RawValue>>,
    at: usize,
}

impl ParamsSequence<'_> {
    /// The next parameter, which may be missing or null.
    ///
    /// # Errors
    /// It is not of its kind.
    pub(crate) fn optional_next<T: Kind>(&mut self) -> Result<Option<T>, Failure> {
        let values = match &mut self.values {
            Some(values) => values,
            None => self.values.insert(self.params.split()?.into_iter()),
        };
        let at = self.at;
        self.at += 1;
        self.params.asked.set(self.params.asked.get().max(self.at));
        let Some(text) = values.next() else { return Ok(None) };
        let wrong = |why: Wrong| Failure::params(format!("invalid argument {at}: {why}"));
        let value: Value = serde_json::from_str(text.get()).map_err(|e| wrong(e.to_string()))?;
        if value.is_null() {
            return Ok(None);
        }
        T::read(value).map(Some).map_err(wrong)
    }

    /// The next parameter.
    ///
    /// # Errors
    /// It is missing or not of its kind.
    pub(crate) fn next<T: Kind>(&mut self) -> Result<T, Failure> {
        let at = self.at;
        self.optional_next()?
            .ok_or_else(|| Failure::params(format!("missing value for required argument {at}")))
    }
}

/// The text of a value.
pub(crate) fn text(value: &Value) -> Result<&str, Wrong> {
    value.as_str().ok_or_else(|| {
        let kind = match value {
            Value::Number(_) => "a number",
            Value::Bool(_) => "a boolean",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
            Value::Null | Value::String(_) => "null",
        };
        format!("cannot unmarshal non-string: a hex string is wanted, not {kind}")
    })
}

/// The digits of a hex string.
fn digits(text: &str) -> Result<&str, Wrong> {
    if text.is_empty() {
        return Err("empty hex string".into());
    }
    text.strip_prefix("0x").ok_or_else(|| "hex string without 0x prefix".into())
}

/// A quantity of at most `bits` bits.
pub(crate) fn quantity(text: &str, bits: usize) -> Result<U256, Wrong> {
    let digits = digits(text)?;
    if digits.is_empty() {
        return Err("hex string \"0x\": a quantity has a digit, \"0x0\" is zero".into());
    }
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err("invalid hex string".into());
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return Err("hex number with leading zero digits".into());
    }
    let number = U256::from_str_radix(digits, 16).ok().filter(|number| number.bit_len() <= bits);
    number.ok_or_else(|| format!("hex number > {bits} bits"))
}

/// Exactly `N` bytes.
pub(crate) fn fixed<const N: usize>(text: &str, kind: &str) -> Result<[u8; N], Wrong> {
    let digits = digits(text)?;
    if digits.len() != 2 * N {
        let (have, want) = (digits.len(), 2 * N);
        return Err(format!("hex string has length {have}, want {want} for {kind}"));
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| "invalid hex string")?;
    Ok(bytes)
}

/// Bytes of any number.
fn data(text: &str) -> Result<Bytes, Wrong> {
    let digits = digits(text)?;
    if digits.len() % 2 == 1 {
        return Err("hex string of odd length".into());
    }
    hex::decode(digits).map(Bytes::from).map_err(|_| "invalid hex string".into())
}

/// A slot: at most 32 bytes, zeros in front or not.
fn storage_key(text: &str) -> Result<U256, Wrong> {
    let digits = digits(text)?;
    if digits.is_empty() {
        return Err("storage key without digits".into());
    }
    if digits.len() > 64 {
        return Err("storage key too long (want at most 32 bytes)".into());
    }
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err("invalid hex in storage key".into());
    }
    U256::from_str_radix(digits, 16).map_err(|_| "invalid hex in storage key".into())
}

impl Kind for Address {
    fn read(value: Value) -> Result<Self, Wrong> {
        fixed(text(&value)?, "an address").map(Self::from)
    }
}

impl Kind for B256 {
    fn read(value: Value) -> Result<Self, Wrong> {
        fixed(text(&value)?, "a hash").map(Self::from)
    }
}

impl Kind for Bytes {
    fn read(value: Value) -> Result<Self, Wrong> {
        data(text(&value)?)
    }
}

impl Kind for U64 {
    fn read(value: Value) -> Result<Self, Wrong> {
        quantity(text(&value)?, 64).map(|number| Self::from(number.to::<u64>()))
    }
}

impl Kind for U128 {
    fn read(value: Value) -> Result<Self, Wrong> {
        quantity(text(&value)?, 128).map(|number| Self::from(number.to::<u128>()))
    }
}

impl Kind for U256 {
    fn read(value: Value) -> Result<Self, Wrong> {
        quantity(text(&value)?, 256)
    }
}

impl Kind for JsonStorageKey {
    fn read(value: Value) -> Result<Self, Wrong> {
        let key = text(&value)?;
        let slot = storage_key(key)?;
        // It is shown as it was asked for: a whole word, or a number.
        let whole = key.len() == 66;
        Ok(if whole { Self::Hash(B256::from(slot)) } else { Self::Number(slot) })
    }
}

/// Slots by account.
pub(crate) struct Slots(pub(crate) BTreeMap<Address, Vec<U256>>);

impl Kind for Slots {
    fn read(value: Value) -> Result<Self, Wrong> {
        let Value::Object(accounts) = value else {
            return Err(format!("an object is wanted, not {}", short(&value.to_string())));
        };
        let mut slots = BTreeMap::new();
        for (account, keys) in accounts {
            let address = field("account", Value::String(account.clone()))?;
            let Value::Array(keys) = keys else {
                return Err(format!("{}: an array of slots is wanted", short(&account)));
            };
            let keys = keys.iter().enumerate().map(|(at, key)| {
                let key = text(key).and_then(storage_key);
                key.map_err(|why| format!("{}[{at}]: {why}", short(&account)))
            });
            if slots.insert(address, keys.collect::<Result<_, _>>()?).is_some() {
                return Err(format!("{} is given twice", short(&account)));
            }
        }
        Ok(Self(slots))
    }
}

impl Kind for bool {
    fn read(value: Value) -> Result<Self, Wrong> {
        value
            .as_bool()
            .ok_or_else(|| format!("true or false is wanted, not {}", short(&value.to_string())))
    }
}

impl Kind for String {
    fn read(value: Value) -> Result<Self, Wrong> {
        match value {
            Value::String(text) => Ok(text),
            other => Err(format!("a string is wanted, not {}", short(&other.to_string()))),
        }
    }
}

impl Kind for f64 {
    fn read(value: Value) -> Result<Self, Wrong> {
        value
            .as_f64()
            .ok_or_else(|| format!("a number is wanted, not {}", short(&value.to_string())))
    }
}

impl Kind for Value {
    fn read(value: Value) -> Result<Self, Wrong> {
        Ok(value)
    }
}

impl<T: Kind> Kind for Vec<T> {
    fn read(value: Value) -> Result<Self, Wrong> {
        let Value::Array(values) = value else { return Err("an array is wanted".into()) };
        let read = |(at, value)| T::read(value).map_err(|why| format!("[{at}]: {why}"));
        values.into_iter().enumerate().map(read).collect()
    }
}

/// A count that is written as a quantity or as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u64);

impl Kind for Count {
    fn read(value: Value) -> Result<Self, Wrong> {
        match value.as_u64() {
            Some(count) => Ok(Self(count)),
            None => U64::read(value).map(|count| Self(count.to())),
        }
    }
}

fn tag(text: &str) -> Option<BlockNumberOrTag> {
    Some(match text {
        "latest" => BlockNumberOrTag::Latest,
        "pending" => BlockNumberOrTag::Pending,
        "earliest" => BlockNumberOrTag::Earliest,
        "safe" => BlockNumberOrTag::Safe,
        "finalized" => BlockNumberOrTag::Finalized,
        _ => return None,
    })
}

/// A block by number or tag.
pub(crate) fn block_number(text: &str) -> Result<BlockNumberOrTag, Wrong> {
    if let Some(tag) = tag(text) {
        return Ok(tag);
    }
    if !text.starts_with("0x") {
        let tags = "latest, pending, earliest, safe, finalized";
        return Err(format!("hex string without 0x prefix, and none of {tags}"));
    }
    quantity(text, 64).map(|number| BlockNumberOrTag::Number(number.to()))
}

impl Kind for BlockTag {
    fn read(value: Value) -> Result<Self, Wrong> {
        block_number(text(&value)?).map(Self)
    }
}

impl Kind for StateId {
    fn read(value: Value) -> Result<Self, Wrong> {
        Self::try_from(&value)
    }
}

/// For methods that read blocks.
impl Kind for BlockId {
    fn read(value: Value) -> Result<Self, Wrong> {
        match StateId::read(value)? {
            StateId { block, frag: None } => Ok(block),
            _ => Err("fragIndex names a state, and this method reads a block".into()),
        }
    }
}

/// The beginning of what came, for errors: it may be as long as a request.
pub(crate) fn short(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Reads a field of an object.
pub(crate) fn field<T: Kind>(name: &str, value: Value) -> Result<T, Wrong> {
    T::read(value).map_err(|why| format!("{name}: {why}"))
}

impl Kind for Filter {
    fn read(value: Value) -> Result<Self, Wrong> {
        objects::filter(value)
    }
}

#[cfg(test)]
mod tests;
