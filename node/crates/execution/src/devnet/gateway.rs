//! The devnet's built-in gateway: block after block, in the order Env, frags, Seal.
//!
//! It executes what it builds on a state of its own in memory, with the same code as followers, and
//! the Seal has the results. Users' transactions come before the workload's, and those that cannot
//! be included are passed over.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, U256, address, keccak256};
use fragcast_shredder::{BlockBuilder, Dialect, Env, Frag, Message, Seal};

use super::genesis::{DevnetConfig, Genesis};
use super::transactions::{MAX_TX_GAS, Mark, Workload};
use crate::chain::ChainSpec;
use crate::exec::memory::{MemorySource, MemoryState};
use crate::exec::{BlockError, OnInvalid, OpenBlock, Parent, Snapshot, StateSource, Tx};

/// The fee recipient: the fee vault of OP Stack chains.
pub const BENEFICIARY: Address = address!("4200000000000000000000000000000000000011");

/// `extra_data` of every block.
pub const EXTRA_DATA: &[u8] = b"fragcast devnet";

/// Layers of state before the older ones are merged.
const MAX_LAYERS: usize = 32;

/// The block being built.
struct Open {
    block: OpenBlock,
    gas_left: u64,
    /// The position of its first transaction in the stream, in case the block is given up.
    mark: Mark,
}

/// The outcome of a user's transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// It is in the frag.
    Included,
    /// It cannot be included now, or ever.
    PassedOver(String),
}

/// Why the gateway cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The genesis is not valid.
    #[error(transparent)]
    Chain(#[from] crate::chain::ChainError),
    /// Its own block failed.
    #[error("the devnet's gateway cannot build its block: {0}")]
    Block(#[from] BlockError),
}

/// Builds blocks on the devnet's genesis.
///
/// For each block call [`open`](Self::open), [`frag`](Self::frag) until one is the last,
/// [`seal`](Self::seal). Calling `open` instead gives the block up: the next one has the same
/// number and starts with the same transactions. The messages are not signed.
///
/// ```
/// use fragcast_execution::devnet::{DevnetConfig, DevnetGateway};
/// use fragcast_shredder::Dialect;
///
/// let mut gateway = DevnetGateway::new(&DevnetConfig::default(), Dialect::V0)?;
/// let env = gateway.open(1_000)?;
/// let frag = gateway.frag(5, true)?;
/// let seal = gateway.seal()?;
/// assert_eq!((env.number, frag.txs.len(), seal.total_frags), (1, 5, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DevnetGateway {
    seed: u64,
    dialect: Dialect,
    workload: Workload,
    spec: Arc<ChainSpec>,
    source: Arc<dyn StateSource>,
    genesis_hash: B256,
    parent: Parent,
    open: Option<Open>,
}

impl DevnetGateway {
    /// Starts after block 0 of `config`'s genesis.
    ///
    /// # Errors
    /// None in practice: the genesis is ours.
    pub fn new(config: &DevnetConfig, dialect: Dialect) -> Result<Self, GatewayError> {
        let genesis = Genesis::devnet(config);
        let spec = genesis.chain_spec("dev")?;
        let state = spec.genesis.as_deref().map(MemoryState::of_genesis).unwrap_or_default();
        let source = MemorySource::new(genesis.header(), state).map_err(BlockError::from)?;
        let parent = Parent::from(source.anchor().clone());
        Ok(Self {
            seed: config.seed,
            dialect,
            workload: Workload::new(config),
            spec: Arc::new(spec),
            genesis_hash: parent.hash,
            parent,
            source: Arc::new(source),
            open: None,
        })
    }

    /// Hash of block 0.
    pub const fn genesis_hash(&self) -> B256 {
        self.genesis_hash
    }

    /// The chain it builds.
    pub const fn spec(&self) -> &Arc<ChainSpec> {
        &self.spec
    }

    /// The header of the last sealed block, or of block 0.
    pub const fn parent(&self) -> &Header {
        &self.parent.header
    }

    /// The block that is being built, as far as it is; `None`: no block is open.
    pub fn pending(&self) -> Option<Arc<Snapshot>> {
        self.open.as_ref().map(|open| open.block.snapshot())
    }

    fn derive(&self, what: &str, number: u64) -> B256 {
        keccak256([what.as_bytes(), &self.seed.to_be_bytes(), &number.to_be_bytes()].concat())
    }

    /// Opens the next block. `timestamp` is in Unix seconds; if it is not after the parent's,
    /// the block's is one second after that.
    ///
    /// # Errors
    /// None in practice: the Env follows from the parent.
    pub fn open(&mut self, timestamp: u64) -> Result<Env, GatewayError> {
        if let Some(abandoned) = self.open.take() {
            self.workload.rewind(abandoned.mark);
        }
        let parent = &self.parent.header;
        let number = parent.number + 1;
        let timestamp = timestamp.max(parent.timestamp.saturating_add(1));
        let basefee = self.spec.next_base_fee(parent, timestamp);
        let env = Env {
            number,
            parent_hash: self.parent.hash,
            beneficiary: BENEFICIARY,
            timestamp,
            gas_limit: parent.gas_limit,
            basefee: basefee.map_err(|e| BlockError::Invalid(e.into()))?,
            difficulty: U256::ZERO,
            prevrandao: self.derive("fragcast devnet prevrandao", number),
            extra_data: Bytes::from_static(EXTRA_DATA),
            parent_beacon_block_root: self.derive("fragcast devnet beacon root", number),
        };
        let (parent, source) = (self.parent.clone(), &self.source);
        let block = OpenBlock::open(&self.spec, &env, 0, parent, source, None)?;
        self.open = Some(Open { gas_left: env.gas_limit, block, mark: self.workload.mark() });
        Ok(env)
    }

    /// The next frag with `txs` transactions, or fewer where the block's gas limit is reached.
    ///
    /// # Errors
    /// See [`frag_with`](Self::frag_with).
    ///
    /// # Panics
    /// No block is open, or its last frag has been returned.
    pub fn frag(&mut self, txs: usize, is_last: bool) -> Result<Frag, GatewayError> {
        self.frag_with(&[], txs, is_last).map(|(frag, _)| frag)
    }

    /// Like [`frag`](Self::frag), with users' transactions first; also returns the outcome of each
    /// of them.
    ///
    /// # Errors
    /// The state could not be read.
    ///
    /// # Panics
    /// No block is open, or its last frag has been returned.
    pub fn frag_with(
        &mut self,
        users: &[Tx],
        txs: usize,
        is_last: bool,
    ) -> Result<(Frag, Vec<Offered>), GatewayError> {
        let open = self.open.as_mut().expect("open a block before its frags");
        assert!(!open.block.is_complete(), "seal the block after its last frag");
        let mut all: Vec<Tx> = users.to_vec();
        // A transaction of the workload that found no room would leave a gap in its sender's
        // nonces.
        let theirs =
            users.iter().fold(0, |sum: u64, tx| sum.saturating_add(tx.envelope.gas_limit()));
        let reserved = theirs.min(open.gas_left);
        open.gas_left -= reserved;
        for _ in 0..txs {
            if open.gas_left < MAX_TX_GAS {
                break;
            }
            let tx = self.workload.next_tx();
            open.gas_left -= tx.gas_limit;
            all.push(tx.tx);
        }
        let seq = open.block.frags();
        let all = all.into_iter().map(Ok).collect();
        let passed_over = open.block.execute(all, is_last, OnInvalid::PassOver)?;
        let mut offered = vec![Offered::Included; users.len()];
        for (index, reason) in passed_over {
            if let Some(offered) = offered.get_mut(index) {
                *offered = Offered::PassedOver(reason);
            }
        }
        let snapshot = open.block.snapshot();
        let txs: Option<Vec<Bytes>> =
            snapshot.frags.last().map(|f| f.txs.iter().map(|e| e.tx.bytes.clone()).collect());
        // What users did not spend is free again.
        let left = open.block.env().gas_limit - open.block.gas_used();
        open.gas_left = (open.gas_left + reserved).min(left);
        let builder = BlockBuilder::from_env(open.block.env().clone()).with_dialect(self.dialect);
        let frag = Frag { is_last, ..builder.frag_at(seq, txs.unwrap_or_default()) };
        Ok((frag, offered))
    }

    /// Ends the block, which becomes the next one's parent.
    ///
    /// # Errors
    /// The state could not be read.
    ///
    /// # Panics
    /// No block is open, or its last frag is still to come.
    pub fn seal(&mut self) -> Result<Seal, GatewayError> {
        let mut open = self.open.take().expect("open a block before sealing it");
        assert!(open.block.is_complete(), "hand out the last frag before sealing");
        let seal = open.block.make_seal(self.dialect == Dialect::V0Blob)?;
        if let Some(sealed) = open.block.sealed() {
            self.parent = sealed.as_parent();
            if self.parent.state.depth() > MAX_LAYERS {
                self.parent.state = self.parent.state.compact(1);
            }
        }
        Ok(seal)
    }

    /// A whole block of `frags` frags (at least one) with `txs_per_frag` transactions each.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn block(
        &mut self,
        timestamp: u64,
        frags: usize,
        txs_per_frag: usize,
    ) -> Result<Vec<Message>, GatewayError> {
        let frags = frags.max(1);
        let mut messages = Vec::with_capacity(frags + 2);
        messages.push(Message::Env(self.open(timestamp)?));
        for seq in 1..=frags {
            messages.push(Message::Frag(self.frag(txs_per_frag, seq == frags)?));
        }
        messages.push(Message::Seal(self.seal()?));
        Ok(messages)
    }
}
