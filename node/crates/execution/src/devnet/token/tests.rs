//! The bytecode run by an interpreter of its opcodes. Gas is not counted; only the results are
//! checked.

use std::collections::BTreeMap;

use alloy_primitives::{I256, keccak256};

use super::*;

/// A log: topics and data.
type Log = (Vec<U256>, Vec<u8>);

#[derive(Debug, PartialEq, Eq)]
enum Halt {
    Return(Vec<u8>),
    Revert,
}

#[derive(Default)]
struct Machine {
    storage: BTreeMap<U256, U256>,
    logs: Vec<Log>,
}

fn to_usize(word: U256) -> usize {
    usize::try_from(word).expect("an offset")
}

/// Grows memory as the EVM does and gives the range.
fn range(memory: &mut Vec<u8>, offset: U256, len: usize) -> &mut [u8] {
    let start = to_usize(offset);
    if memory.len() < start + len {
        memory.resize(start + len, 0);
    }
    &mut memory[start..start + len]
}

/// A position is a jump target only if it is not inside a push.
fn is_target(code: &[u8], to: usize) -> bool {
    let mut at = 0;
    while at < to {
        at += 1 + usize::from(code[at].checked_sub(op::PUSH0).filter(|n| *n <= 32).unwrap_or(0));
    }
    at == to && code[at] == op::JUMPDEST
}

impl Machine {
    fn call(&mut self, code: &[u8], caller: Address, value: u64, data: &[u8]) -> Halt {
        let before = (self.storage.clone(), self.logs.len());
        let halt = self.run(code, caller, value, data);
        if halt == Halt::Revert {
            self.storage = before.0;
            self.logs.truncate(before.1);
        }
        halt
    }

    fn run(&mut self, code: &[u8], caller: Address, value: u64, data: &[u8]) -> Halt {
        let mut memory = Vec::new();
        let mut stack: Vec<U256> = Vec::new();
        let mut at = 0;
        macro_rules! pop {
            () => {
                stack.pop().expect("the stack is not empty")
            };
        }
        loop {
            let opcode = code[at];
            at += 1;
            match opcode {
                op::ADD => {
                    let sum = pop!().wrapping_add(pop!());
                    stack.push(sum);
                }
                op::SUB => {
                    let difference = pop!().wrapping_sub(pop!());
                    stack.push(difference);
                }
                op::LT => {
                    let less = pop!() < pop!();
                    stack.push(U256::from(less));
                }
                op::EQ => {
                    let equal = pop!() == pop!();
                    stack.push(U256::from(equal));
                }
                op::SHR => {
                    let shift = to_usize(pop!());
                    let shifted = pop!() >> shift;
                    stack.push(shifted);
                }
                op::CALLER => stack.push(caller.into_word().into()),
                op::CALLVALUE => stack.push(U256::from(value)),
                op::CALLDATALOAD => {
                    let offset = to_usize(pop!());
                    let mut word = [0; 32];
                    for (to, from) in word.iter_mut().zip(data.iter().skip(offset)) {
                        *to = *from;
                    }
                    stack.push(U256::from_be_bytes(word));
                }
                op::CODECOPY => {
                    let (to, from, len) = (pop!(), to_usize(pop!()), to_usize(pop!()));
                    range(&mut memory, to, len).copy_from_slice(&code[from..from + len]);
                }
                op::POP => drop(pop!()),
                op::MSTORE => {
                    let (offset, word) = (pop!(), pop!());
                    range(&mut memory, offset, 32).copy_from_slice(&word.to_be_bytes::<32>());
                }
                op::SLOAD => {
                    let slot = pop!();
                    stack.push(self.storage.get(&slot).copied().unwrap_or_default());
                }
                op::SSTORE => {
                    let (slot, word) = (pop!(), pop!());
                    self.storage.insert(slot, word);
                }
                op::JUMPI => {
                    let (to, condition) = (to_usize(pop!()), pop!());
                    if !condition.is_zero() {
                        assert!(is_target(code, to), "jump to {to}, which is no jump target");
                        at = to;
                    }
                }
                op::JUMPDEST => {}
                op::PUSH0..=op::PUSH32 => {
                    let len = usize::from(opcode - op::PUSH0);
                    stack.push(U256::from_be_slice(&code[at..at + len]));
                    at += len;
                }
                op::DUP1..op::SWAP1 => {
                    let depth = usize::from(opcode - op::DUP1) + 1;
                    stack.push(stack[stack.len() - depth]);
                }
                op::SWAP1 => {
                    let top = stack.len() - 1;
                    stack.swap(top, top - 1);
                }
                op::LOG3 => {
                    let (offset, len) = (pop!(), to_usize(pop!()));
                    let topics = vec![pop!(), pop!(), pop!()];
                    self.logs.push((topics, range(&mut memory, offset, len).to_vec()));
                }
                op::RETURN => {
                    let (offset, len) = (pop!(), to_usize(pop!()));
                    return Halt::Return(range(&mut memory, offset, len).to_vec());
                }
                op::REVERT => return Halt::Revert,
                other => panic!("opcode {other:#x} at {} is not used", at - 1),
            }
        }
    }
}

const ALICE: Address = Address::repeat_byte(0xa1);
const BOB: Address = Address::repeat_byte(0xb0);

fn word(value: u64) -> Vec<u8> {
    U256::from(value).to_be_bytes::<32>().to_vec()
}

/// Alice has 100.
fn machine() -> Machine {
    let mut machine = Machine::default();
    machine.storage.insert(balance_slot(ALICE).into(), U256::from(100));
    machine
}

fn balance(machine: &mut Machine, of: Address) -> Halt {
    machine.call(&code(), BOB, 0, &balance_of_call(of))
}

#[test]
fn transfer_moves_the_balance_and_logs_it() {
    let mut machine = machine();
    let call = transfer_call(BOB, U256::from(30));
    assert_eq!(machine.call(&code(), ALICE, 0, &call), Halt::Return(word(1)));
    assert_eq!(balance(&mut machine, ALICE), Halt::Return(word(70)));
    assert_eq!(balance(&mut machine, BOB), Halt::Return(word(30)));
    let topics = [TRANSFER_EVENT, ALICE.into_word(), BOB.into_word()].map(Into::into);
    assert_eq!(machine.logs, [(topics.to_vec(), word(30))]);
    // Everything, then a unit more than nothing.
    let call = transfer_call(BOB, U256::from(70));
    assert_eq!(machine.call(&code(), ALICE, 0, &call), Halt::Return(word(1)));
    assert_eq!(balance(&mut machine, BOB), Halt::Return(word(100)));
    let call = transfer_call(BOB, U256::from(1));
    assert_eq!(machine.call(&code(), ALICE, 0, &call), Halt::Revert);
}

#[test]
fn transfer_beyond_the_balance_reverts() {
    for value in [U256::from(101), U256::MAX, I256::MIN.into_raw()] {
        let mut machine = machine();
        let before = machine.storage.clone();
        assert_eq!(machine.call(&code(), ALICE, 0, &transfer_call(BOB, value)), Halt::Revert);
        assert_eq!(machine.storage, before);
        assert!(machine.logs.is_empty());
    }
}

#[test]
fn transfer_to_oneself_changes_nothing() {
    let mut machine = machine();
    let call = transfer_call(ALICE, U256::from(40));
    assert_eq!(machine.call(&code(), ALICE, 0, &call), Halt::Return(word(1)));
    assert_eq!(balance(&mut machine, ALICE), Halt::Return(word(100)));
}

#[test]
fn what_the_token_does_not_know_reverts() {
    let mut machine = machine();
    let call = transfer_call(BOB, U256::from(1));
    let mut wide = call.to_vec();
    wide[4 + 11] = 1;
    let unknown = keccak256("approve(address,uint256)");
    for (value, data) in [(1, &call[..]), (0, &wide), (0, &unknown[..4]), (0, &[])] {
        assert_eq!(machine.call(&code(), ALICE, value, data), Halt::Revert);
    }
}

#[test]
fn selectors_and_event_are_the_hashes_of_their_signatures() {
    assert_eq!(TRANSFER, keccak256("transfer(address,uint256)")[..4]);
    assert_eq!(BALANCE_OF, keccak256("balanceOf(address)")[..4]);
    assert_eq!(TRANSFER_EVENT, keccak256("Transfer(address,address,uint256)"));
}

#[test]
fn init_code_deploys_code_that_returns_its_salt() {
    let deployed = |salt| match Machine::default().call(&init_code(salt), ALICE, 0, &[]) {
        Halt::Return(code) => code,
        Halt::Revert => panic!("the creation reverted"),
    };
    let (one, two) = (B256::repeat_byte(0x5b), B256::repeat_byte(2));
    assert_eq!(deployed(one), salted_code(one));
    assert_ne!(deployed(one), deployed(two));
    let returned = Machine::default().call(&deployed(one), ALICE, 0, &[]);
    assert_eq!(returned, Halt::Return(one.to_vec()));
}
