//! One transaction on one snapshot: environment, overrides, limits.
//!
//! Everything that a call sees comes from its snapshot and from overrides. As in geth, a call
//! without a gas price runs in a block whose base fee is 0, so that no invariant between the two is
//! broken; nonces, and whether the sender has code, do not matter, but the sender must own what it
//! sends and what it offers for gas. A simulated block keeps its base fee. What a block has executed
//! is replayed by the rules of the block.

mod system;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use alloy_consensus::Header;
use alloy_evm::eth::{EthEvm, EthEvmContext, EthEvmFactory};
use alloy_evm::precompiles::PrecompilesMap;
use alloy_evm::{Evm, EvmFactory, FromRecoveredTx, FromTxWithEncoded};
use alloy_op_evm::{OpEvm, OpEvmContext, OpEvmFactory, OpTx};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use alloy_rpc_types_eth::state::StateOverride;
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest};
use fragcast_execution::chain::{BlockEnv, ChainSpec};
use fragcast_execution::exec::overlay::OverlayDb;
use fragcast_execution::exec::{Envelope, Layer, Snapshot, Tx, op};
use fragcast_execution::state::SourceError;
use op_revm::{OpHaltReason, OpTransaction};
use revm::bytecode::Bytecode;
use revm::context::TxEnv;
use revm::context_interface::Cfg;
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::context_interface::either::Either;
use revm::context_interface::result::{HaltReason, HaltReasonTr, ResultAndState};
use revm::handler::EthPrecompiles;
use revm::inspector::NoOpInspector;
use revm::primitives::hardfork::SpecId;
use revm::state::{AccountInfo, EvmState};
use revm::{Database, DatabaseCommit, DatabaseRef, Inspector};

use super::check;
use super::error::{CallError, halt};
use super::guard::Guard;
use super::outcome::{Failure, Outcome, Status, outcome};
use super::overrides::{self, Changed, Table};
use crate::params::BlockChanges;

/// Gas of the cheapest transaction.
const LEAST_GAS: u64 = 21_000;

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

/// By which rules transactions run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// A call: neither nonces nor fees matter that are not given.
    Call,
    /// A block that is made up; with validation its nonces and fees are checked.
    Simulate { validation: bool },
    /// What was executed before: those of consensus.
    Replay,
}

/// A snapshot's state with the changes of this request over it.
#[derive(Debug)]
pub(super) struct CallDb {
    inner: OverlayDb,
    /// Block hashes that the request overrides.
    pub(super) hashes: BTreeMap<u64, B256>,
}

impl CallDb {
    /// The changes.
    pub(super) const fn layer(&mut self) -> &mut Layer {
        &mut self.inner.layer
    }
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

/// For tracers, which look at the state beside the execution.
impl DatabaseRef for CallDb {
    type Error = SourceError;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, SourceError> {
        let account = match self.inner.layer.accounts.get(&address) {
            Some(account) => *account,
            None => self.inner.state.account(address)?,
        };
        Ok(account.map(|account| {
            let (nonce, balance) = (account.nonce, account.balance);
            let info = AccountInfo { nonce, balance, ..AccountInfo::default() };
            AccountInfo { code_hash: account.code_hash, ..info.without_code() }
        }))
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, SourceError> {
        match self.inner.layer.codes.get(&hash) {
            Some(code) => Ok(code.clone()),
            None => self.inner.state.code(hash),
        }
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, SourceError> {
        if let Some(change) = self.inner.layer.storage.get(&address) {
            if let Some(value) = change.slots.get(&slot) {
                return Ok(*value);
            }
            if change.wiped {
                return Ok(U256::ZERO);
            }
        }
        self.inner.state.storage(address, slot)
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, SourceError> {
        match self.hashes.get(&number) {
            Some(hash) => Ok(*hash),
            None => self.inner.hashes.get(number),
        }
    }
}

impl DatabaseCommit for CallDb {
    fn commit(&mut self, changes: EvmState) {
        self.inner.commit(changes);
    }
}

/// Looks on while a transaction runs.
pub(super) trait Watcher:
    for<'a> Inspector<EthEvmContext<&'a mut CallDb>> + for<'a> Inspector<OpEvmContext<&'a mut CallDb>>
{
    /// The transaction has run; its changes are not in the state yet.
    ///
    /// # Errors
    /// What it has seen cannot be told.
    fn done<H: HaltReasonTr>(
        &mut self,
        _result: &ResultAndState<H>,
        _tx: &TxEnv,
        _block: &revm::context::BlockEnv,
        _db: &mut CallDb,
    ) -> Result<(), CallError> {
        Ok(())
    }

    /// Whether it has seen more than it may keep.
    fn is_full(&self) -> bool {
        false
    }
}

impl Watcher for NoOpInspector {}
impl Watcher for revm_inspectors::access_list::AccessListInspector {}

macro_rules! each_env {
    ($env:expr, $inner:ident => $do:expr) => {
        match $env {
            BlockEnv::Eth($inner) => $do,
            BlockEnv::Op($inner) => $do,
        }
    };
}

/// A transaction as a request asks for it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// The transaction. Its `gas_price` is the most that it pays.
    pub(super) tx: TxEnv,
    /// It carries blobs, or says what it pays for them.
    pub(super) blobs: bool,
    /// Its gas is not what it was to have: the sender cannot pay for more.
    pub(super) poor: bool,
}

/// The EVM environment in which the transactions of one request run.
pub(super) struct Ground {
    /// The block's environment.
    env: BlockEnv,
    /// The state.
    pub(super) db: CallDb,
    /// Precompiles that are elsewhere.
    changed: Changed,
    rules: Rules,
    /// The most gas that the fork lets a transaction have (EIP-7825).
    fork_gas: u64,
    limits: Limits,
    deadline: Instant,
}

impl Ground {
    /// An environment on `snapshot`, in its own block.
    pub(super) fn new(
        spec: &ChainSpec,
        snapshot: &Snapshot,
        block: Option<BlockChanges>,
        state: Option<StateOverride>,
        limits: Limits,
    ) -> Result<Self, CallError> {
        let overrides = block.unwrap_or_default().for_call()?;
        let inner = OverlayDb::new(snapshot.state.clone(), snapshot.hashes.clone());
        let db = CallDb { inner, hashes: BTreeMap::new() };
        let header = &snapshot.header;
        let deadline = Instant::now() + limits.time;
        let (env, changed) = (spec.block_env(header), Changed::default());
        let (rules, fork_gas) = (Rules::Call, u64::MAX);
        let mut ground = Self { env, db, changed, rules, fork_gas, limits, deadline };
        ground.enter(spec, header.clone(), overrides, Rules::Call)?;
        ground.override_state(state.unwrap_or_default())?;
        Ok(ground)
    }

    /// Enters a block: that of `header` with `overrides`, its precompiles in their places.
    pub(super) fn enter(
        &mut self,
        spec: &ChainSpec,
        mut header: Header,
        overrides: BlockOverrides,
        rules: Rules,
    ) -> Result<(), CallError> {
        // Blocks without transactions take time, too.
        if Instant::now() >= self.deadline {
            return Err(CallError::TimedOut(self.limits.time));
        }
        override_header(&mut header, &overrides)?;
        if let Some(fork) = spec.lacks(header.timestamp) {
            return Err(CallError::Invalid(format!("the fork {fork} is not supported")));
        }
        self.env = spec.block_env(&header);
        self.rules = rules;
        self.fork_gas = each_env!(&self.env, env => env.cfg_env.tx_gas_limit_cap());
        self.changed = Changed::default();
        self.db.hashes.extend(overrides.block_hash.unwrap_or_default());
        if rules == Rules::Replay {
            return Ok(());
        }
        let memory = self.limits.memory;
        each_env!(&mut self.env, env => {
            env.cfg_env.memory_limit = memory;
            env.cfg_env.disable_nonce_check = rules != Rules::Simulate { validation: true };
            env.cfg_env.disable_eip3607 = true;
            env.cfg_env.disable_block_gas_limit = true;
            // A call is no transaction: the cap of a transaction's gas (EIP-7825) only bounds estimates.
            env.cfg_env.tx_gas_limit_cap = Some(u64::MAX);
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
        let fork = precompiles(&self.env);
        let is_precompile = |address: &Address| fork.get(address).is_some();
        overrides::apply(&mut self.db, &mut self.changed, state, is_precompile)
    }

    /// The block that it is in.
    pub(super) fn block(&self) -> &revm::context::BlockEnv {
        each_env!(&self.env, env => &env.block_env)
    }

    /// By which rules it runs.
    pub(super) const fn rules(&self) -> Rules {
        self.rules
    }

    /// The chain's id.
    pub(super) fn chain_id(&self) -> u64 {
        each_env!(&self.env, env => env.cfg_env.chain_id)
    }

    /// The most gas that the fork lets a transaction have.
    pub(super) const fn fork_gas(&self) -> u64 {
        self.fork_gas
    }

    /// Whether the block has a fork's rules.
    pub(super) fn has_fork(&self, fork: SpecId) -> bool {
        let spec = match &self.env {
            BlockEnv::Eth(env) => env.cfg_env.spec,
            BlockEnv::Op(env) => env.cfg_env.spec.into_eth_spec(),
        };
        spec.is_enabled_in(fork)
    }

    /// The most gas that an execution may have.
    pub(super) fn gas_cap(&self) -> u64 {
        self.limits.gas
    }

    /// The balance of `address`.
    pub(super) fn balance(&mut self, address: Address) -> Result<U256, CallError> {
        Ok(self.db.basic(address)?.map(|account| account.balance).unwrap_or_default())
    }

    /// A transaction from a request; its gas is the request's, or all that may be had and that the
    /// sender can pay.
    pub(super) fn tx(&mut self, request: TransactionRequest) -> Result<Asked, CallError> {
        let (price, tip) = check::fees(&request)?;
        let chain_id = check::chain_id(&request, self.chain_id())?;
        let cap =
            if self.limits.gas == u64::MAX { self.block().gas_limit } else { self.limits.gas };
        let given = request.gas;
        let ty = match &request {
            TransactionRequest { authorization_list: Some(_), .. } => 4,
            TransactionRequest { blob_versioned_hashes: Some(_), .. } => 3,
            TransactionRequest { gas_price: None, .. } => 2,
            TransactionRequest { access_list: Some(_), .. } => 1,
            _ => 0,
        };
        let blobs = ty == 3 || request.max_fee_per_blob_gas.is_some();
        let input = request.input.try_into_unique_input();
        let authorizations = request.authorization_list.unwrap_or_default();
        let mut tx = TxEnv {
            tx_type: ty,
            caller: request.from.unwrap_or_default(),
            gas_limit: given.unwrap_or(cap).min(cap),
            gas_price: price,
            gas_priority_fee: (ty > 1).then_some(tip),
            kind: request.to.unwrap_or(TxKind::Create),
            value: request.value.unwrap_or_default(),
            data: input.map_err(|e| CallError::Invalid(e.to_string()))?.unwrap_or_default(),
            nonce: request.nonce.unwrap_or_default(),
            chain_id: Some(chain_id),
            access_list: request.access_list.unwrap_or_default(),
            blob_hashes: request.blob_versioned_hashes.unwrap_or_default(),
            max_fee_per_blob_gas: request.max_fee_per_blob_gas.unwrap_or_default(),
            authorization_list: authorizations.into_iter().map(Either::Left).collect(),
        };
        let mut poor = false;
        if price > 0 && given.is_none() && self.rules == Rules::Call {
            let spendable = self.balance(tx.caller)?.saturating_sub(tx.value);
            let allowance = (spendable / U256::from(price)).saturating_to::<u64>();
            // What does not even pay for a transfer is a lack of funds, not of gas.
            poor = (LEAST_GAS..tx.gas_limit).contains(&allowance);
            if poor {
                tx.gas_limit = allowance;
            }
        }
        Ok(Asked { tx, blobs, poor })
    }

    /// Runs a transaction after the checks that geth makes before; its changes are in the outcome and
    /// not in the state.
    pub(super) fn transact<I: Watcher>(
        &mut self,
        asked: &Asked,
        inspector: &mut I,
    ) -> Result<Outcome, Failure> {
        check::before(self, asked)?;
        let mut tx = asked.tx.clone();
        let (caller, kind) = (tx.caller, tx.kind);
        let mut last = false;
        if self.rules != (Rules::Simulate { validation: true }) {
            // Where nonces are not checked the last one of a call is followed by 0, as in geth. revm
            // refuses a transaction that has it, and leaves an account that has it as it is.
            tx.nonce = tx.nonce.checked_add(1).map_or(0, |_| tx.nonce);
            let account = self.db.basic(caller).map_err(|e| Failure::Other(e.into()))?;
            last = account.is_some_and(|account| account.nonce == u64::MAX);
        }
        let mut ran = self.run(tx, inspector);
        if last && let Ok(outcome) = &mut ran {
            if kind.is_create() {
                outcome.status = Status::Halted(halt(&HaltReason::NonceOverflow), false);
                outcome.output = Bytes::new();
            } else if let Some(account) = outcome.state.get_mut(&caller) {
                account.info.nonce = 0;
            }
        }
        match ran {
            Err(failure) if asked.poor && failure.is_gas_too_low() => {
                Err(check::poor(self, &asked.tx, &failure))
            }
            ran => ran,
        }
    }

    fn run<I: Watcher>(&mut self, tx: TxEnv, inspector: &mut I) -> Result<Outcome, Failure> {
        let mut env = self.env.clone();
        let free = tx.gas_price == 0 && tx.gas_priority_fee.unwrap_or(0) == 0;
        let rules = self.rules;
        each_env!(&mut env, env => {
            match rules {
                Rules::Call if free => env.block_env.basefee = 0,
                Rules::Simulate { validation: false } => env.cfg_env.disable_base_fee = free,
                _ => {}
            }
            let lenient = rules != Rules::Simulate { validation: true };
            if lenient && !tx.blob_hashes.is_empty() && tx.max_fee_per_blob_gas == 0
                && let Some(price) = &mut env.block_env.blob_excess_gas_and_price
            {
                price.blob_gasprice = 0;
            }
        });
        match env {
            BlockEnv::Eth(env) => self.eth(env, tx, inspector),
            BlockEnv::Op(mut env) => {
                // A call pays neither for data on L1 nor the operator: `enveloped_tx` is what both are
                // computed from, and the type of a deposit makes them zero. The operator's refund is
                // not computed from it, so fees are off altogether where there are none.
                env.cfg_env.disable_fee_charge = free;
                let tx = OpTx(OpTransaction {
                    base: tx,
                    enveloped_tx: Some(Bytes::from_static(&[0x7e])),
                    deposit: Default::default(),
                });
                self.op(env, tx, inspector)
            }
        }
    }

    /// Runs a transaction of a block as the block did; its changes are in the outcome and not in the
    /// state.
    pub(super) fn replay<I: Watcher>(
        &mut self,
        tx: &Tx,
        inspector: &mut I,
    ) -> Result<Outcome, Failure> {
        match (self.env.clone(), &tx.envelope) {
            (BlockEnv::Eth(env), Envelope::Eth(envelope)) => {
                self.eth(env, TxEnv::from_recovered_tx(envelope, tx.sender), inspector)
            }
            (BlockEnv::Op(mut env), Envelope::Op(envelope)) => {
                env.cfg_env.tx_gas_limit_cap = op::gas_cap(tx.envelope.is_deposit());
                let tx = OpTx::from_encoded_tx(envelope, tx.sender, tx.bytes.clone());
                self.op(env, tx, inspector)
            }
            _ => Err(Failure::Other(CallError::Internal)),
        }
    }

    fn eth<I: Watcher>(
        &mut self,
        env: alloy_evm::EvmEnv<SpecId>,
        tx: TxEnv,
        inspector: &mut I,
    ) -> Result<Outcome, Failure> {
        let mut guard = self.guard()?;
        let (block, kept) = (env.block_env.clone(), tx.clone());
        let fork = precompiles(&BlockEnv::Eth(env.clone()));
        let result = {
            let table = Table { fork, changed: &self.changed };
            let inspectors = (&mut guard, &mut *inspector);
            let factory = EthEvmFactory::default();
            let evm = factory.create_evm_with_inspector(&mut self.db, env, inspectors);
            EthEvm::new(evm.into_inner().with_precompiles(table), true).transact_raw(tx)
        };
        self.ended(&guard, inspector)?;
        if let Ok(result) = &result {
            inspector.done(result, &kept, &block, &mut self.db).map_err(Failure::Other)?;
        }
        outcome(result, kept.gas_limit, |reason| Some(reason))
    }

    fn op<I: Watcher>(
        &mut self,
        env: alloy_evm::EvmEnv<op_revm::OpSpecId>,
        tx: OpTx,
        inspector: &mut I,
    ) -> Result<Outcome, Failure> {
        let mut guard = self.guard()?;
        let (block, kept) = (env.block_env.clone(), tx.0.base.clone());
        let fork = precompiles(&BlockEnv::Op(env.clone()));
        let result = {
            let table = Table { fork, changed: &self.changed };
            let inspectors = (&mut guard, &mut *inspector);
            let factory = OpEvmFactory::<OpTx>::default();
            let evm = factory.create_evm_with_inspector(&mut self.db, env, inspectors);
            let evm = evm.into_inner().with_precompiles(table);
            OpEvm::<_, _, _, OpTx>::new(evm, true).transact_raw(tx)
        };
        self.ended(&guard, inspector)?;
        if let Ok(result) = &result {
            inspector.done(result, &kept, &block, &mut self.db).map_err(Failure::Other)?;
        }
        outcome(result, kept.gas_limit, |reason| match reason {
            OpHaltReason::Base(reason) => Some(reason),
            OpHaltReason::FailedDeposit => None,
        })
    }

    fn guard(&self) -> Result<Guard, Failure> {
        let guard = Guard::new(self.deadline);
        if guard.expired { Err(self.too_late()) } else { Ok(guard) }
    }

    fn ended(&self, guard: &Guard, inspector: &impl Watcher) -> Result<(), Failure> {
        if inspector.is_full() {
            return Err(Failure::Other(CallError::TooLong));
        }
        if guard.expired { Err(self.too_late()) } else { Ok(()) }
    }

    fn too_late(&self) -> Failure {
        Failure::Other(CallError::TimedOut(self.limits.time))
    }
}

/// The precompiles of a block's fork.
fn precompiles(env: &BlockEnv) -> PrecompilesMap {
    match env {
        BlockEnv::Eth(env) => PrecompilesMap::from(EthPrecompiles::new(env.cfg_env.spec)),
        BlockEnv::Op(env) => {
            let fork = env.cfg_env.spec;
            let all = op_revm::precompiles::OpPrecompiles::new_with_spec(fork).precompiles();
            let mut all = PrecompilesMap::from_static(all);
            op::mend_precompiles(&mut all, fork);
            all
        }
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
