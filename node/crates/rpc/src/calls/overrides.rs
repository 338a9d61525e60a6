//! What a request changes of the state and of the precompiles before it runs, as geth does it.
//!
//! A precompile whose account is overridden in whatever field is none any more; one that is moved
//! answers at its new address instead. Either way what is warm stays as the fork has it: the old
//! addresses are, the new ones are not. So revm's table of precompiles cannot be changed for it, which
//! warms what it holds; [`Table`] stands before it.

use alloy_evm::precompiles::PrecompilesMap;
use alloy_primitives::map::{AddressMap, AddressSet};
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256, keccak256};
use alloy_rpc_types_eth::state::{AccountOverride, StateOverride};
use fragcast_execution::exec::overlay::StorageChange;
use fragcast_execution::state::Account;
use revm::bytecode::Bytecode;
use revm::context_interface::{Block, Cfg, Transaction};
use revm::handler::PrecompileProvider;
use revm::interpreter::{CallInputs, InterpreterResult};
use revm::{Context, Database, Journal};

use super::error::CallError;
use super::evm::CallDb;

/// Which precompiles are not where the fork has them.
#[derive(Debug, Clone, Default)]
pub(super) struct Changed {
    /// The new addresses, with the old ones.
    moved: AddressMap<Address>,
    /// Addresses at which there is no precompile any more.
    gone: AddressSet,
}

impl Changed {
    /// Takes what an override of the state says of precompiles.
    fn take(
        &mut self,
        state: &StateOverride,
        is_precompile: impl Fn(&Address) -> bool,
    ) -> Result<(), CallError> {
        let mut addresses: Vec<&Address> = state.keys().collect();
        // Two that move to one place: the last one is there.
        addresses.sort();
        for address in addresses {
            let precompile = is_precompile(address) && !self.gone.contains(address);
            if let Some(to) = state[address].move_precompile_to {
                if !precompile {
                    let what = format!("account {address} is not a precompile");
                    return Err(CallError::Invalid(what));
                }
                if state.contains_key(&to) {
                    return Err(CallError::Invalid(format!("account {to} is already overridden")));
                }
                self.moved.insert(to, *address);
            }
            if precompile {
                self.gone.insert(*address);
            }
        }
        Ok(())
    }

    /// The address where the fork has the precompile that is at `address`; `None`: there is none.
    fn original(&self, address: &Address) -> Option<Address> {
        match self.moved.get(address) {
            Some(from) => Some(*from),
            None if self.gone.contains(address) => None,
            None => Some(*address),
        }
    }
}

/// A fork's precompiles, some of them elsewhere.
pub(super) struct Table<'a> {
    pub(super) fork: PrecompilesMap,
    pub(super) changed: &'a Changed,
}

impl<B, T, C, DB, Chain> PrecompileProvider<Context<B, T, C, DB, Journal<DB>, Chain>> for Table<'_>
where
    B: Block,
    T: Transaction,
    C: Cfg,
    DB: alloy_evm::Database,
{
    type Output = InterpreterResult;

    fn set_spec(&mut self, _: C::Spec) -> bool {
        false
    }

    fn run(
        &mut self,
        context: &mut Context<B, T, C, DB, Journal<DB>, Chain>,
        inputs: &CallInputs,
    ) -> Result<Option<InterpreterResult>, String> {
        match self.changed.original(&inputs.bytecode_address) {
            None => Ok(None),
            Some(same) if same == inputs.bytecode_address => self.fork.run(context, inputs),
            Some(bytecode_address) => {
                let target_address = match inputs.target_address == inputs.bytecode_address {
                    true => bytecode_address,
                    false => inputs.target_address,
                };
                let inputs = CallInputs { bytecode_address, target_address, ..inputs.clone() };
                self.fork.run(context, &inputs)
            }
        }
    }

    fn warm_addresses(&self) -> Box<impl Iterator<Item = Address>> {
        Box::new(self.fork.addresses().copied())
    }

    fn contains(&self, address: &Address) -> bool {
        self.changed.original(address).is_some_and(|original| self.fork.get(&original).is_some())
    }
}

/// Applies an override of the state, before anything runs.
pub(super) fn apply(
    db: &mut CallDb,
    changed: &mut Changed,
    state: StateOverride,
    is_precompile: impl Fn(&Address) -> bool,
) -> Result<(), CallError> {
    changed.take(&state, is_precompile)?;
    state.into_iter().try_for_each(|(address, account)| set(db, address, account))
}

/// Overrides one account. It exists from then on, even if it is empty, until a transaction touches
/// it; not if nothing of it is changed.
fn set(db: &mut CallDb, address: Address, change: AccountOverride) -> Result<(), CallError> {
    let AccountOverride { balance, nonce, code, state, state_diff, .. } = &change;
    let slots = state_diff.as_ref().is_some_and(|slots| !slots.is_empty());
    if balance.is_none() && nonce.is_none() && code.is_none() && state.is_none() && !slots {
        return Ok(());
    }
    let before = db.basic(address)?;
    let mut account = before.map_or_else(
        || Account { nonce: 0, balance: Default::default(), code_hash: KECCAK256_EMPTY },
        |info| Account { nonce: info.nonce, balance: info.balance, code_hash: info.code_hash },
    );
    let layer = db.layer();
    account.nonce = change.nonce.unwrap_or(account.nonce);
    account.balance = change.balance.unwrap_or(account.balance);
    if let Some(code) = change.code {
        account.code_hash = keccak256(&code);
        let code = Bytecode::new_raw_checked(code)
            .map_err(|error| CallError::Params(format!("code of {address}: {error}")))?;
        layer.codes.insert(account.code_hash, code);
    }
    layer.accounts.insert(address, Some(account));
    if let Some(slots) = change.state {
        let slots = slots.into_iter().map(|(slot, value)| (slot.into(), value.into())).collect();
        layer.storage.insert(address, StorageChange { wiped: true, slots });
    }
    if let Some(slots) = change.state_diff {
        let words = |(slot, value): (B256, B256)| {
            (U256::from_be_bytes(slot.0), U256::from_be_bytes(value.0))
        };
        let slots = slots.into_iter().map(words);
        layer.storage.entry(address).or_default().slots.extend(slots);
    }
    Ok(())
}
