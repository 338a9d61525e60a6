//! Rows of a registry, and the list that they make.
//!
//! ```text
//! row    [block?, url, address, jwt?]      block: number or 0x-quantity; address: 20 bytes of hex
//! list   [row, …]                          1 to 1,024 rows
//! ```
//!
//! One version of the registry has the block in front, one leaves the JWT out; a file has no block.
//! Hence two to four fields, told apart by the type of the first. The JWT is passed over while the
//! text is read and is never in a value of ours; for the same reason no error shows what it found.
//!
//! A list is refused as a whole: half of a rotation is another rotation.

use std::collections::BTreeMap;
use std::fmt;

use alloy_primitives::Address;
use fragcast_upstream::http::Shown;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Rows of a list, at most: a schedule of 20 kB.
pub const MAX_ROWS: usize = 1_024;
/// Bytes of a file or an answer, at most.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Bytes of a gateway's URL, at most.
const MAX_URL: usize = 512;
/// Characters of a block as a 0x-quantity, at most.
const MAX_QUANTITY: usize = 18;

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// It is no list of fields.
    #[error("it is not a list such as [\"http://host:port\", \"0xaddress\", \"0xjwt\"]")]
    NotARow,
    /// It has too few fields, or too many.
    #[error("it has not 2 to 4 fields: [block, url, address, jwt], without block or jwt or both")]
    Fields,
    /// The first field.
    #[error("its first field is neither a block nor a URL")]
    First,
    /// The URL.
    #[error("its url is no text of 1 to 512 bytes")]
    Url,
    /// The address.
    #[error("its address is not 0x and 40 hex digits")]
    Address,
    /// The JWT.
    #[error("its jwt is no text")]
    Jwt,
    /// It should say of which block it speaks.
    #[error("it does not name its block: this answer needs [block, url, address]")]
    NoBlock,
}

/// Why there is no list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// It does not parse.
    #[error("not JSON: see line {line}, column {column}")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// It is something else.
    #[error("not a list of rows")]
    NotAList,
    /// A row.
    #[error("row {number}: {reason}")]
    Row {
        /// Its number, from 1.
        number: usize,
        /// What is wrong.
        reason: RowError,
    },
    /// There is none.
    #[error("the list is empty: a schedule needs at least one gateway")]
    Empty,
    /// There are too many.
    #[error("more than {MAX_ROWS} rows")]
    TooMany,
    /// A gateway is the zero address.
    #[error("row {number}: the zero address can sign nothing")]
    Zero {
        /// The row's number, from 1.
        number: usize,
    },
    /// A gateway is there twice.
    #[error("rows {first} and {second} have the same address {address}")]
    Duplicate {
        /// The first row's number, from 1.
        first: usize,
        /// The second's.
        second: usize,
        /// The address.
        address: Address,
    },
}

impl From<serde_json::Error> for ListError {
    /// Without the parser's text, which may quote what it found.
    fn from(error: serde_json::Error) -> Self {
        Self::Json { line: error.line(), column: error.column() }
    }
}

/// A registered gateway.
#[derive(Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The address of its JSON-RPC, as it was registered: not checked. Whoever registered may have put
    /// the JWT in its place.
    pub url: String,
    /// Its address.
    pub address: Address,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, address } = self;
        f.debug_struct("Gateway").field("url", &Shown(url)).field("address", address).finish()
    }
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The block of which it speaks.
    pub block: Option<u64>,
    /// The gateway.
    pub gateway: Gateway,
}

/// A list of gateways that can be a rotation: neither empty nor too long, no zero, nobody twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayList(Vec<Gateway>);

impl GatewayList {
    /// The list that rows make.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn new(rows: impl IntoIterator<Item = Gateway>) -> Result<Self, ListError> {
        let mut places = BTreeMap::new();
        let mut all = Vec::new();
        for (number, gateway) in (1..).zip(rows) {
            if number > MAX_ROWS {
                return Err(ListError::TooMany);
            }
            let address = gateway.address;
            if address == Address::ZERO {
                return Err(ListError::Zero { number });
            }
            if let Some(first) = places.insert(address, number) {
                return Err(ListError::Duplicate { first, second: number, address });
            }
            all.push(gateway);
        }
        if all.is_empty() { Err(ListError::Empty) } else { Ok(Self(all)) }
    }

    /// Reads a `gateways.json`.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn parse(json: &[u8]) -> Result<Self, ListError> {
        serde_json::from_slice::<Rows>(json)?.into_list()
    }

    /// The gateways in order of rotation.
    pub fn gateways(&self) -> &[Gateway] {
        &self.0
    }

    /// Their addresses, in order of rotation.
    pub fn addresses(&self) -> Vec<Address> {
        self.0.iter().map(|gateway| gateway.address).collect()
    }

    /// The same rotation that begins with another of its gateways.
    pub(super) fn begin_at(mut self, first: usize) -> Self {
        let len = self.0.len();
        self.0.rotate_left(first % len);
        self
    }
}

/// Rows as a registry answers them, right or wrong: reading them fails only if the text is no
/// JSON.
#[derive(Debug)]
pub struct Rows(Result<Vec<Row>, ListError>);

impl Rows {
    /// The list that they make.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn into_list(self) -> Result<GatewayList, ListError> {
        GatewayList::new(self.0?.into_iter().map(|row| row.gateway))
    }
}

/// One row as a registry answers it, right or wrong.
#[derive(Debug)]
pub struct OneRow(Result<Row, RowError>);

impl OneRow {
    /// The row, with its block.
    ///
    /// # Errors
    /// [`RowError`].
    pub fn into_row(self) -> Result<(u64, Gateway), RowError> {
        let row = self.0?;
        Ok((row.block.ok_or(RowError::NoBlock)?, row.gateway))
    }
}

/// A field: what a row may have, and everything else.
enum Field {
    Number(u64),
    Text(String),
    Other,
}

impl Field {
    fn url(self) -> Result<String, RowError> {
        match self {
            // One that reads as a number could be the block of a row of another form.
            Self::Text(url) if (1..=MAX_URL).contains(&url.len()) && quantity(&url).is_none() => {
                Ok(url)
            }
            _ => Err(RowError::Url),
        }
    }

    fn address(self) -> Result<Address, RowError> {
        match self {
            // Without a prefix, or in another length, it is something else.
            Self::Text(text) if text.len() == 42 && text.starts_with("0x") => {
                text.parse().map_err(|_| RowError::Address)
            }
            _ => Err(RowError::Address),
        }
    }
}

/// Something that a visitor makes of any JSON.
trait Any: Sized {
    const OTHER: Self;

    fn number(_: u64) -> Self {
        Self::OTHER
    }

    fn text(_: &str) -> Self {
        Self::OTHER
    }

    fn seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::OTHER)
    }
}

/// Takes whatever comes.
struct Take<T>(std::marker::PhantomData<T>);

impl<T> Take<T> {
    const fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<'de, T: Any> Visitor<'de> for Take<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::OTHER)
    }

    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok(T::OTHER)
    }

    fn visit_u64<E>(self, number: u64) -> Result<T, E> {
        Ok(T::number(number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::OTHER)
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(T::text(text))
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::OTHER)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<T, A::Error> {
        T::seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(T::OTHER)
    }
}

macro_rules! takes_anything {
    ($($type:ty),*) => {
        $(impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Take::<Self>::new())
            }
        })*
    };
}

takes_anything!(Field, Secret, OneRow, Rows);

impl Any for Field {
    const OTHER: Self = Self::Other;

    fn number(number: u64) -> Self {
        Self::Number(number)
    }

    fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Whether a text stood where a secret stands. The text is not kept.
struct Secret(bool);

impl Any for Secret {
    const OTHER: Self = Self(false);

    fn text(_: &str) -> Self {
        Self(true)
    }
}

impl Any for OneRow {
    const OTHER: Self = Self(Err(RowError::NotARow));

    fn seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Self, A::Error> {
        let row = row(&mut seq)?;
        // To the end, whatever there is: the next row may be looked at.
        let mut more = false;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            more = true;
        }
        Ok(Self(row.and_then(|row| if more { Err(RowError::Fields) } else { Ok(row) })))
    }
}

/// A number as JSON-RPC writes it.
fn quantity(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").filter(|_| text.len() <= MAX_QUANTITY)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Reads the fields of a row up to the last that it may have.
fn row<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<Result<Row, RowError>, A::Error> {
    let Some(first) = seq.next_element::<Field>()? else { return Ok(Err(RowError::Fields)) };
    let (block, url) = match first {
        Field::Number(block) => (Some(block), None),
        Field::Text(text) => match quantity(&text) {
            Some(block) => (Some(block), None),
            None => (None, Some(Field::Text(text))),
        },
        Field::Other => return Ok(Err(RowError::First)),
    };
    let url = match url {
        Some(url) => Some(url),
        None => seq.next_element::<Field>()?,
    };
    let address = seq.next_element::<Field>()?;
    let jwt = seq.next_element::<Secret>()?;
    let (Some(url), Some(address)) = (url, address) else { return Ok(Err(RowError::Fields)) };
    if jwt.is_some_and(|jwt| !jwt.0) {
        return Ok(Err(RowError::Jwt));
    }
    let gateway = url.url().and_then(|url| Ok(Gateway { url, address: address.address()? }));
    Ok(gateway.map(|gateway| Row { block, gateway }))
}

impl Any for Rows {
    const OTHER: Self = Self(Err(ListError::NotAList));

    fn seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Self, A::Error> {
        let mut rows = Vec::new();
        let mut wrong = None;
        while let Some(OneRow(row)) = seq.next_element()? {
            match row {
                Ok(_) if rows.len() >= MAX_ROWS => wrong = Some(ListError::TooMany),
                Ok(row) => rows.push(row),
                Err(reason) => {
                    wrong = Some(ListError::Row { number: rows.len() + 1, reason });
                }
            }
            if wrong.is_some() {
                break;
            }
        }
        if wrong.is_some() {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(Self(wrong.map_or(Ok(rows), Err)))
    }
}

#[cfg(test)]
mod tests;
