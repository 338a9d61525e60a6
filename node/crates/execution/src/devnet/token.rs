//! EVM code of the devnet: a token, and what a contract creation deploys.
//!
//! The token has the part of ERC-20 that a workload needs, assembled by hand so that building
//! Fragcast needs no Solidity compiler:
//!
//! * `transfer(address,uint256)` reverts if the balance is too small, moves it, emits
//!   `Transfer(from, to, value)` and returns true
//! * `balanceOf(address)`
//!
//! Anything else, ether sent along, or a recipient above 160 bits reverts. The balance of an
//! account is the storage slot whose number is its address ([`balance_slot`]), not a hashed
//! mapping: the contract has one map, so nothing can collide. The sum of all balances is set by
//! genesis, so adding cannot overflow.

use alloy_primitives::{Address, B256, Bytes, U256, b256};

/// The token's address.
pub const ADDRESS: Address = Address::repeat_byte(0x70);

/// Selector of `transfer(address,uint256)`.
pub const TRANSFER: [u8; 4] = [0xa9, 0x05, 0x9c, 0xbb];

/// Selector of `balanceOf(address)`.
pub const BALANCE_OF: [u8; 4] = [0x70, 0xa0, 0x82, 0x31];

/// keccak256 of `Transfer(address,address,uint256)`: the first topic of the log.
pub const TRANSFER_EVENT: B256 =
    b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

/// The opcodes used here, named as in the Yellow Paper.
pub(super) mod op {
    pub(in super::super) const ADD: u8 = 0x01;
    pub(in super::super) const SUB: u8 = 0x03;
    pub(in super::super) const LT: u8 = 0x10;
    pub(in super::super) const EQ: u8 = 0x14;
    pub(in super::super) const SHR: u8 = 0x1c;
    pub(in super::super) const CALLER: u8 = 0x33;
    pub(in super::super) const CALLVALUE: u8 = 0x34;
    pub(in super::super) const CALLDATALOAD: u8 = 0x35;
    pub(in super::super) const CODECOPY: u8 = 0x39;
    pub(in super::super) const POP: u8 = 0x50;
    pub(in super::super) const MSTORE: u8 = 0x52;
    pub(in super::super) const SLOAD: u8 = 0x54;
    pub(in super::super) const SSTORE: u8 = 0x55;
    pub(in super::super) const JUMPI: u8 = 0x57;
    pub(in super::super) const JUMPDEST: u8 = 0x5b;
    /// EIP-3855, Shanghai.
    pub(in super::super) const PUSH0: u8 = 0x5f;
    pub(in super::super) const PUSH1: u8 = 0x60;
    pub(in super::super) const PUSH4: u8 = 0x63;
    pub(in super::super) const PUSH32: u8 = 0x7f;
    pub(in super::super) const DUP1: u8 = 0x80;
    pub(in super::super) const DUP2: u8 = 0x81;
    pub(in super::super) const DUP3: u8 = 0x82;
    pub(in super::super) const SWAP1: u8 = 0x90;
    pub(in super::super) const LOG3: u8 = 0xa3;
    pub(in super::super) const RETURN: u8 = 0xf3;
    pub(in super::super) const REVERT: u8 = 0xfd;
}

// The jump targets; the interpreter in the tests refuses one that is no JUMPDEST.
const AT_FAIL: u8 = 28;
const AT_TRANSFER: u8 = 32;
const AT_BALANCE_OF: u8 = 114;

/// The token's runtime code. Comments show the stack after the line, its top to the right.
pub fn code() -> Bytes {
    use op::*;
    let mut code = Vec::with_capacity(128);
    // No ether.
    code.extend([CALLVALUE, PUSH1, AT_FAIL, JUMPI]);
    // Dispatch on the selector, the first four bytes of the call data.
    code.extend([PUSH0, CALLDATALOAD, PUSH1, 0xe0, SHR, DUP1, PUSH4]); // selector selector
    code.extend(TRANSFER);
    code.extend([EQ, PUSH1, AT_TRANSFER, JUMPI, PUSH4]); // selector
    code.extend(BALANCE_OF);
    code.extend([EQ, PUSH1, AT_BALANCE_OF, JUMPI]); // -
    debug_assert_eq!(code.len(), usize::from(AT_FAIL));
    code.extend([JUMPDEST, PUSH0, PUSH0, REVERT]);

    debug_assert_eq!(code.len(), usize::from(AT_TRANSFER));
    code.extend([JUMPDEST, POP, PUSH1, 4, CALLDATALOAD]); // to
    code.extend([DUP1, PUSH1, 160, SHR, PUSH1, AT_FAIL, JUMPI]); // to
    code.extend([PUSH1, 36, CALLDATALOAD, CALLER, SLOAD]); // to value balance
    code.extend([DUP2, DUP2, LT, PUSH1, AT_FAIL, JUMPI]); // to value balance
    code.extend([DUP2, SWAP1, SUB, CALLER, SSTORE]); // to value
    // Only now the recipient's, so that a transfer to oneself changes nothing.
    code.extend([DUP2, SLOAD, DUP2, ADD, DUP3, SSTORE]); // to value
    code.extend([PUSH0, MSTORE, CALLER, PUSH32]); // to caller
    code.extend(TRANSFER_EVENT);
    code.extend([PUSH1, 32, PUSH0, LOG3]); // -
    code.extend([PUSH1, 1, PUSH0, MSTORE, PUSH1, 32, PUSH0, RETURN]);

    debug_assert_eq!(code.len(), usize::from(AT_BALANCE_OF));
    code.extend([JUMPDEST, PUSH1, 4, CALLDATALOAD, SLOAD]); // balance
    code.extend([PUSH0, MSTORE, PUSH1, 32, PUSH0, RETURN]);
    code.into()
}

/// The storage slot that holds the balance of `account`: the address as a uint256.
pub fn balance_slot(account: Address) -> B256 {
    account.into_word()
}

/// Call data of `transfer(to, value)`.
pub fn transfer_call(to: Address, value: U256) -> Bytes {
    [&TRANSFER[..], to.into_word().as_slice(), &value.to_be_bytes::<32>()].concat().into()
}

/// Call data of `balanceOf(account)`.
pub fn balance_of_call(account: Address) -> Bytes {
    [&BALANCE_OF[..], account.into_word().as_slice()].concat().into()
}

/// The runtime code that [`init_code`] deploys: it returns `salt`.
pub fn salted_code(salt: B256) -> Bytes {
    use op::*;
    let mut code = vec![PUSH32];
    code.extend(salt);
    code.extend([PUSH0, MSTORE, PUSH1, 32, PUSH0, RETURN]);
    code.into()
}

/// Init code of a contract creation: copies the [`salted_code`] behind it and returns it.
pub fn init_code(salt: B256) -> Bytes {
    use op::*;
    const LEN: u8 = 39;
    const PROLOGUE: [u8; 9] = [PUSH1, LEN, DUP1, PUSH1, 9, PUSH0, CODECOPY, PUSH0, RETURN];
    let runtime = salted_code(salt);
    debug_assert_eq!(runtime.len(), usize::from(LEN));
    [&PROLOGUE[..], &runtime].concat().into()
}

#[cfg(test)]
mod tests;
