//! One transaction on one snapshot: environment, overrides, limits.
//!
//! Everything that a call sees comes from its snapshot and from overrides. As in geth, a call
//! without a gas price runs in a block whose base fee is 0, so that no invariant between the two is
//! broken. Nonces, and whether the sender has code, do not matter. The sender must own the value
//! that it sends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use alloy_consensus::Header;
use alloy_evm::eth::{EthEvmContext, EthEvmFactory};
use alloy_evm::overrides::apply_state_overrides;
use alloy_evm::precompiles::PrecompilesMap;
use alloy_evm::rpc::TryIntoTxEnv;
use alloy_evm::{Evm, EvmFactory};
use alloy_op_evm::{OpEvmContext, OpEvmFactory, OpTx};
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_rpc_types_eth::state::StateOverride;
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest};
use fragcast_execution::chain::{BlockEnv, ChainSpec};
use fragcast_execution::exec::overlay::OverlayDb;
use fragcast_execution::exec::{Snapshot, op};
use fragcast_execution::state::SourceError;
use op_revm::{OpHaltReason, OpTransaction};
use revm::bytecode::Bytecode;
use revm::context::TxEnv;
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::state::{AccountInfo, EvmState};
use revm::{Database, DatabaseCommit, Inspector};

use super::error::CallError;
use super::guard::Guard;
use super::outcome::{Failure, Outcome, outcome};

/// Limits of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Gas of one execution; `u64::MAX` if only the block's limit counts.
    pub(super) gas: u64,
    /// Bytes of EVM memory of all frames together.
    pub(super) memory: u64,
    /// How long the request may run.
    pub(super) time: Duration,
}

/// A snapshot's state with the changes of this request over it.
#[derive(Debug)]
pub(super) struct CallDb {
    inner: OverlayDb,
    /// Block hashes that the request overrides.
    pub(super) hashes: BTreeMap<u64, B256>,
}

impl Database for CallDb {
    type Error = SourceError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, SourceError> {
        self.inner.basic(address)
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode, SourceError> {
        self.inner.code_by_hash(hash)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, SourceError> {
        self.inner.storage(address, slot)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, SourceError> {
        match self.hashes.get(&number) {
            Some(hash) => Ok(*hash),
            None => self.inner.block_hash(number),
        }
    }
}

impl DatabaseCommit for CallDb {
    fn commit(&mut self, changes: EvmState) {
        self.inner.commit(changes);
    }
}

macro_rules! each_env {
    ($env:expr, $inner:ident => $do:expr) => {
        match $env {
            BlockEnv::Eth($inner) => $do,
            BlockEnv::Op($inner) => $do,
        }
    };
}

/// The EVM environment in which the transactions of one request run.
pub(super) struct Ground {
    /// The block's environment.
    env: BlockEnv,
    /// The state.
    pub(super) db: CallDb,
    /// Precompiles that were moved.
    moved: Vec<(Address, Address)>,
    limits: Limits,
    deadline: Instant,
}

impl Ground {
    /// An environment on `snapshot`, in its own block.
    pub(super) fn new(
        spec: &ChainSpec,
        snapshot: &Snapshot,
        block: Option<BlockOverrides>,
        state: Option<StateOverride>,
        limits: Limits,
    ) -> Result<Self, CallError> {
        let inner = OverlayDb::new(snapshot.state.clone(), snapshot.hashes.clone());
        let db = CallDb { inner, hashes: BTreeMap::new() };
        let header = &snapshot.header;
        let deadline = Instant::now() + limits.time;
        let env = spec.block_env(header);
        let mut ground = Self { env, db, moved: Vec::new(), limits, deadline };
        ground.enter(spec, header.clone(), block.unwrap_or_default(), true)?;
        ground.override_state(state.unwrap_or_default())?;
        Ok(ground)
    }

    /// Enters a block: that of `header` with `overrides`. With `lenient`, checks that only
    /// consensus needs are left out.
    pub(super) fn enter(
        &mut self,
        spec: &ChainSpec,
        mut header: Header,
        overrides: BlockOverrides,
        lenient: bool,
    ) -> Result<(), CallError> {
        override_header(&mut header, &overrides)?;
        if let Some(fork) = spec.lacks(header.timestamp) {
            return Err(CallError::Invalid(format!("the fork {fork} is not supported")));
        }
        self.env = spec.block_env(&header);
        self.db.hashes.extend(overrides.block_hash.unwrap_or_default());
        let memory = self.limits.memory;
        each_env!(&mut self.env, env => {
            env.cfg_env.memory_limit = memory;
            env.cfg_env.disable_nonce_check = lenient;
            env.cfg_env.disable_eip3607 = lenient;
            env.cfg_env.disable_block_gas_limit = true;
            if lenient {
                env.cfg_env.tx_gas_limit_cap = Some(u64::MAX);
            }
            if let Some(price) = overrides.blob_base_fee {
                let excess_blob_gas = header.excess_blob_gas.unwrap_or(0);
                let blob_gasprice = price.saturating_to();
                env.block_env.blob_excess_gas_and_price =
                    Some(BlobExcessGasAndPrice { excess_blob_gas, blob_gasprice });
            }
        });
        Ok(())
    }

    /// Changes state before anything runs.
    pub(super) fn override_state(&mut self, state: StateOverride) -> Result<(), CallError> {
        for (address, account) in &state {
            if let Some(to) = account.move_precompile_to {
                if to == *address {
                    return Err(CallError::Coded(
                        -38022,
                        format!("account {address} moves its precompile to itself"),
                    ));
                }
                if self.moved.iter().any(|(_, taken)| *taken == to) {
                    return Err(CallError::Coded(
                        -38023,
                        format!("two precompiles move to account {to}"),
                    ));
                }
                self.moved.push((*address, to));
            }
        }
        apply_state_overrides(state, &mut self.db).map_err(|error| match error {
            alloy_evm::overrides::StateOverrideError::Database(error) => error.into(),
            other => CallError::Params(other.to_string()),
        })
    }

    /// The block that it is in.
    pub(super) fn block(&self) -> &revm::context::BlockEnv {
        each_env!(&self.env, env => &env.block_env)
    }

    /// The most gas that an execution may have.
    pub(super) fn gas_cap(&self) -> u64 {
        self.limits.gas
    }

    /// The balance of `address`.
    pub(super) fn balance(&mut self, address: Address) -> Result<U256, CallError> {
        Ok(self.db.basic(address)?.map(|account| account.balance).unwrap_or_default())
    }

    /// A transaction from a request; its gas is the request's, or all that is left.
    pub(super) fn tx(&mut self, mut request: TransactionRequest) -> Result<TxEnv, CallError> {
        let given = request.gas.is_some();
        let cap =
            if self.limits.gas == u64::MAX { self.block().gas_limit } else { self.limits.gas };
        request.gas = Some(request.gas.unwrap_or(cap).min(cap));
        let tx: Result<TxEnv, _> = each_env!(&self.env, env => request.try_into_tx_env(env));
        let mut tx = tx.map_err(|error| CallError::Invalid(error.to_string()))?;
        if tx.gas_price == 0 {
            each_env!(&mut self.env, env => env.block_env.basefee = 0);
        } else if !given {
            let spendable = self.balance(tx.caller)?.saturating_sub(tx.value);
            let allowance = spendable / U256::from(tx.gas_price);
            tx.gas_limit = tx.gas_limit.min(allowance.saturating_to());
        }
        if !tx.blob_hashes.is_empty() && tx.max_fee_per_blob_gas == 0 {
            each_env!(&mut self.env, env => {
                if let Some(price) = &mut env.block_env.blob_excess_gas_and_price {
                    price.blob_gasprice = 0;
                }
            });
        }
        Ok(tx)
    }

    /// geth's check of the sender's balance.
    pub(super) fn check_funds(&mut self, tx: &TxEnv) -> Result<(), CallError> {
        let want = (U256::from(tx.gas_limit) * U256::from(tx.gas_price)).saturating_add(tx.value);
        let have = self.balance(tx.caller)?;
        if have < want {
            return Err(CallError::Invalid(format!(
                "insufficient funds for gas * price + value: address {} have {have} want {want}",
                tx.caller
            )));
        }
        Ok(())
    }

    /// Runs a transaction; its changes are in the outcome and not in the state.
    pub(super) fn transact<I>(&mut self, tx: TxEnv, inspector: &mut I) -> Result<Outcome, Failure>
    where
        I: for<'a> Inspector<EthEvmContext<&'a mut CallDb>>
            + for<'a> Inspector<OpEvmContext<&'a mut CallDb>>,
    {
        let mut guard = Guard::new(self.deadline);
        let (db, moved) = (&mut self.db, &self.moved);
        let outcome = if guard.expired {
            Err(Failure::Other(CallError::Internal))
        } else {
            let inspectors = (&mut guard, inspector);
            match &self.env {
                BlockEnv::Eth(env) => {
                    let factory = EthEvmFactory::default();
                    let mut evm = factory.create_evm_with_inspector(db, env.clone(), inspectors);
                    move_precompiles(evm.precompiles_mut(), moved)?;
                    outcome(evm.transact_raw(tx), |reason| Some(reason))
                }
                BlockEnv::Op(env) => {
                    let mut env = env.clone();
                    // A call pays neither for data on L1 nor the operator: `enveloped_tx` is what
                    // both are computed from, and the type of a deposit makes them zero.
                    // The operator's refund is not computed from it, so fees are off
                    // altogether where there are none.
                    env.cfg_env.disable_fee_charge = tx.gas_price == 0;
                    let tx = OpTx(OpTransaction {
                        base: tx,
                        enveloped_tx: Some(Bytes::from_static(&[0x7e])),
                        deposit: Default::default(),
                    });
                    let fork = env.cfg_env.spec;
                    let factory = OpEvmFactory::<OpTx>::default();
                    let mut evm = factory.create_evm_with_inspector(db, env, inspectors);
                    op::mend_precompiles(evm.precompiles_mut(), fork);
                    move_precompiles(evm.precompiles_mut(), moved)?;
                    outcome(evm.transact_raw(tx), |reason| match reason {
                        OpHaltReason::Base(reason) => Some(reason),
                        OpHaltReason::FailedDeposit => None,
                    })
                }
            }
        };
        if guard.expired {
            return Err(Failure::Other(CallError::TimedOut(self.limits.time)));
        }
        outcome
    }
}

fn override_header(header: &mut Header, overrides: &BlockOverrides) -> Result<(), CallError> {
    let number = |name: &str, value: U256| {
        u64::try_from(value)
            .map_err(|_| CallError::Params(format!("{name} is more than 64 bits: {value}")))
    };
    if let Some(value) = overrides.number {
        header.number = number("number", value)?;
    }
    if let Some(fee) = overrides.base_fee {
        header.base_fee_per_gas = Some(number("baseFeePerGas", fee)?);
    }
    header.timestamp = overrides.time.unwrap_or(header.timestamp);
    header.gas_limit = overrides.gas_limit.unwrap_or(header.gas_limit);
    header.beneficiary = overrides.coinbase.unwrap_or(header.beneficiary);
    header.mix_hash = overrides.random.unwrap_or(header.mix_hash);
    header.difficulty = overrides.difficulty.unwrap_or(header.difficulty);
    Ok(())
}

fn move_precompiles(
    precompiles: &mut PrecompilesMap,
    moved: &[(Address, Address)],
) -> Result<(), Failure> {
    let moves = moved.iter().copied();
    precompiles
        .move_precompiles(moves)
        .map_err(|error| Failure::Other(CallError::Params(error.to_string())))
}
