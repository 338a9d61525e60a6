//! Which addresses of a record count: those at which a handshake with the member's key succeeded.
//!
//! A record is its member's word. Everybody dials what a table says, again and again while nobody
//! answers, so an address is in a table only if its member was reached there: one that answers vouches
//! for no other.

use std::net::SocketAddr;

use super::{MAX_ADDRESSES, MemberRecord};

/// See the module: a bit for each address, in the record's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached(u8);

impl Reached {
    /// No address.
    pub const NONE: Self = Self(0);

    /// All addresses of a record.
    pub fn all_of(record: &MemberRecord) -> Self {
        Self::at(record, |_| true)
    }

    /// The addresses of a record for which `is` holds.
    pub fn at(record: &MemberRecord, is: impl Fn(SocketAddr) -> bool) -> Self {
        let addresses = record.addresses().take(MAX_ADDRESSES).enumerate();
        Self(addresses.filter(|(_, address)| is(*address)).fold(0, |bits, (n, _)| bits | 1 << n))
    }

    /// As it is sent: the first address in the lowest bit.
    pub const fn to_byte(self) -> u8 {
        self.0
    }

    /// What was sent; see [`fits`](Self::fits).
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// These and others of the same record.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether there are none.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether these are all addresses of a record.
    pub fn is_all_of(self, record: &MemberRecord) -> bool {
        self == Self::all_of(record)
    }

    /// Whether a record has all of these, and there are some.
    pub fn fits(self, record: &MemberRecord) -> bool {
        !self.is_none() && self.and(Self::all_of(record)).is_all_of(record)
    }

    /// These addresses of a record.
    pub fn addresses(self, record: &MemberRecord) -> impl Iterator<Item = SocketAddr> + '_ {
        let addresses = record.addresses().take(MAX_ADDRESSES).enumerate();
        addresses.filter(move |(n, _)| self.0 >> n & 1 == 1).map(|(_, address)| address)
    }

    /// Those addresses of another record of the same member that are among these of `record`.
    #[must_use]
    pub fn carried(self, record: &MemberRecord, to: &MemberRecord) -> Self {
        Self::at(to, |address| self.addresses(record).any(|of| of == address))
    }
}
