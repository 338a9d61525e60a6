//! The *rpc* source: an execution client's state, anchored on a block hash.
//!
//! Invariant: every value comes from walking the trie down from the state root of a header that
//! hashes to the anchor. Nodes are kept by their hash across blocks, so a new anchor finds
//! unchanged nodes without asking. For nodes that a walk lacks the client is asked with
//! `eth_getProof` (EIP-1898); the proof's nodes go into the table by their own hash, and the walk
//! is repeated. So a proof is never trusted: after a wrong one the walk still lacks the node, which
//! is [`SourceError::Corrupt`]. Values are not kept: walking through nodes in memory takes
//! microseconds, and an open block keeps what it has read.
//!
//! A node that no proof holds (the sibling onto which a deletion collapses a branch) is
//! [`SourceError::Missing`]: the block is `unverified` until the client has it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy_consensus::Header;
use alloy_primitives::map::HashSet;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rpc_types_eth::EIP1186AccountProofResponse;
use alloy_trie::Nibbles;
use fragcast_execution::exec::{Anchor, SealedBlock, StateSource, StateView};
use fragcast_execution::state::{Account, SourceError};
use fragcast_execution::trie::{StateTrie, TrieId, TrieNodes};
use tokio::runtime::Handle;

use super::blocking::BlockingClient;
use super::cache::Cache;
use super::rpc::Client;

/// The largest trie node: a branch takes 532 bytes, a leaf with an account 150.
const MAX_NODE: usize = 1024;
/// The most nodes of one proof: a path has 64 nibbles.
const MAX_DEPTH: usize = 65;
/// The most accounts and slots that one `prefetch` asks for; the rest is asked for when it is read.
const MAX_PREFETCH: usize = 4096;
/// The most slots of one call of `eth_getProof`.
const MAX_SLOTS: usize = 64;
/// Reads of one view after which its trie drops its decoded nodes, which stay in the table. At one
/// or two nodes a read that no other read shares, that is about 100 MB.
const MAX_READS: usize = 1 << 16;
/// Headers asked for at once when headers are walked back, which BLOCKHASH does up to 256 times.
const WALK: u64 = 32;
/// A header in memory, bytes.
const HEADER: usize = 800;
/// Bytes of an entry in the table from code to an account that has it.
const OWNER: usize = 20;

/// Bounds of what a source keeps, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLimits {
    /// Trie nodes.
    pub nodes: usize,
    /// Code.
    pub codes: usize,
    /// Headers, about 900 bytes each.
    pub headers: usize,
    /// The table from code to account, about 120 bytes an entry.
    pub owners: usize,
}

impl Default for SourceLimits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self { nodes: 256 * MIB, codes: 64 * MIB, headers: 2 * MIB, owners: 16 * MIB }
    }
}

/// What is kept across blocks, by hash.
struct SourceCache {
    client: BlockingClient,
    nodes: Mutex<Cache<Bytes>>,
    codes: Mutex<Cache<Bytes>>,
    headers: Mutex<Cache<Arc<Header>>>,
    /// Accounts by the hash of their code, because the client gives code by account.
    owners: Mutex<Cache<Address>>,
    /// Number and parent's hash of the last header that was handed out.
    walk: Mutex<(u64, B256)>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TrieNodes for SourceCache {
    fn node(&self, _: TrieId, path: &Nibbles, hash: B256) -> Result<Bytes, SourceError> {
        let missing = || SourceError::Missing(format!("the trie node {hash} at {path:?}"));
        locked(&self.nodes).get(&hash).ok_or_else(missing)
    }
}

impl SourceCache {
    /// Keeps the nodes of a proof by their own hashes.
    fn keep(&self, proof: &EIP1186AccountProofResponse) -> Result<(), SourceError> {
        let slots = proof.storage_proof.iter().map(|slot| &slot.proof);
        for path in std::iter::once(&proof.account_proof).chain(slots) {
            if path.len() > MAX_DEPTH || path.iter().any(|node| node.len() > MAX_NODE) {
                return Err(SourceError::Corrupt("a proof that is too long".into()));
            }
            let hashed: Vec<_> = path.iter().map(|node| (keccak256(node), node)).collect();
            let mut nodes = locked(&self.nodes);
            for (hash, node) in hashed {
                if !nodes.contains(&hash) {
                    // A copy: the proof may share one allocation with the whole answer.
                    nodes.insert(hash, Bytes::copy_from_slice(node), node.len());
                }
            }
        }
        Ok(())
    }

    /// Asks the client for a header. While headers are being walked back, the same request also
    /// asks for those before it by number; they are kept by their own hashes.
    fn ask_header(&self, hash: B256) -> Result<Option<Header>, SourceError> {
        let (number, parent) = *locked(&self.walk);
        if let Some(number) = number.checked_sub(1).filter(|_| parent == hash) {
            let walked = self
                .client
                .wait(move |client| async move { client.headers_down(number, WALK).await })?;
            for (header, hash) in &walked {
                self.keep_header(*hash, header);
            }
            // On another branch than the client's there is only the way by hash.
            if let Some((header, _)) = walked.into_iter().find(|(_, got)| *got == hash) {
                return Ok(Some(header));
            }
        }
        let header = self.client.wait(move |client| async move { client.header(hash).await })?;
        if let Some(header) = &header {
            self.keep_header(hash, header);
        }
        Ok(header)
    }

    fn keep_header(&self, hash: B256, header: &Header) {
        locked(&self.headers).insert(hash, Arc::new(header.clone()), HEADER);
    }
}

/// A source of state: an execution client.
pub struct RpcSource(Arc<SourceCache>);

impl RpcSource {
    /// A source whose requests run on `runtime`. It blocks: [`BlockingClient`].
    pub fn new(client: Client, runtime: Handle, limits: SourceLimits) -> Self {
        Self(Arc::new(SourceCache {
            client: BlockingClient::new(client, runtime),
            nodes: Mutex::new(Cache::new(limits.nodes)),
            codes: Mutex::new(Cache::new(limits.codes)),
            headers: Mutex::new(Cache::new(limits.headers)),
            owners: Mutex::new(Cache::new(limits.owners)),
            walk: Mutex::default(),
        }))
    }

    /// The client.
    pub fn client(&self) -> &Client {
        self.0.client.client()
    }
}

impl StateSource for RpcSource {
    fn at(&self, block: B256) -> Result<Option<Anchor>, SourceError> {
        // Not from the table: a header that came otherwise says nothing about the state.
        let header = self.0.client.wait(|client| async move { client.header(block).await })?;
        let Some(header) = header else { return Ok(None) };
        self.0.keep_header(block, &header);
        let trie = StateTrie::from_root(header.state_root);
        let shared = Arc::clone(&self.0);
        let view = RpcView { shared, block, trie: Mutex::new((trie.clone(), 0)) };
        let nodes: Arc<dyn TrieNodes> = Arc::clone(&self.0) as _;
        Ok(Some(Anchor { header, hash: block, view: Arc::new(view), trie, nodes }))
    }

    fn head(&self) -> Result<Option<B256>, SourceError> {
        let heads = self.0.client.wait(|client| async move { client.heads().await })?;
        Ok(Some(heads.latest.1))
    }

    fn header(&self, hash: B256) -> Result<Option<Header>, SourceError> {
        let known = locked(&self.0.headers).get(&hash);
        let header = match known {
            Some(header) => Some((*header).clone()),
            None => self.0.ask_header(hash)?,
        };
        if let Some(header) = &header {
            *locked(&self.0.walk) = (header.number, header.parent_hash);
        }
        Ok(header)
    }

    fn keeps_nodes(&self) -> bool {
        true
    }

    /// Nothing is durable here. Nodes and code that the block has changed are kept, so that an
    /// anchor on it finds them without asking.
    fn persist(&self, block: &Arc<SealedBlock>) {
        self.0.keep_header(block.hash(), &block.snapshot.header);
        {
            let mut codes = locked(&self.0.codes);
            for (hash, code) in &block.layer.codes {
                let code = code.original_bytes();
                let size = code.len();
                codes.insert(*hash, code, size);
            }
        }
        let (Some(before), Ok(after)) = (&block.parent_trie, &block.trie) else { return };
        let changes = StateTrie::diff(before, after).changes;
        let mut nodes = locked(&self.0.nodes);
        for node in changes.into_iter().filter_map(|change| change.after) {
            let size = node.len();
            nodes.insert(keccak256(&node), node, size);
        }
    }
}

/// The client's state after one block.
struct RpcView {
    shared: Arc<SourceCache>,
    block: B256,
    /// The trie, from the root in the block's header, resolved through the kept nodes; and how
    /// often it was read.
    trie: Mutex<(StateTrie, usize)>,
}

impl RpcView {
    /// The trie; a clone is a pointer.
    fn trie(&self) -> StateTrie {
        let mut guard = locked(&self.trie);
        let (trie, reads) = &mut *guard;
        *reads += 1;
        if *reads >= MAX_READS {
            (*trie, *reads) = (trie.forget(), 0);
        }
        trie.clone()
    }

    fn known_account(&self, address: Address) -> Result<Option<Account>, SourceError> {
        self.trie().account(keccak256(address), &*self.shared)
    }

    fn known_slot(&self, address: Address, slot: U256) -> Result<U256, SourceError> {
        let key = keccak256(slot.to_be_bytes::<32>());
        self.trie().slot(keccak256(address), key, &*self.shared)
    }

    /// Walks the trie; if a node is missing, asks for the proof and walks again.
    fn read<T>(
        &self,
        address: Address,
        slot: Option<U256>,
        walk: impl Fn() -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        match walk() {
            Err(SourceError::Missing(_)) => {}
            known => return known,
        }
        let (block, slots) = (self.block, slot.into_iter().collect());
        let proof = self
            .shared
            .client
            .wait(move |client| async move { client.proof(address, slots, block).await })?;
        self.shared.keep(&proof)?;
        walk().map_err(|error| match error {
            SourceError::Missing(what) => SourceError::Corrupt(format!(
                "its proof of {address} at block {block} does not hold {what}"
            )),
            other => other,
        })
    }

    /// Those of `keys` that cannot be read from the kept nodes.
    fn lacking(&self, keys: &[(Address, Vec<U256>)]) -> Vec<(Address, Vec<U256>)> {
        let mut seen = HashSet::<(Address, Option<U256>)>::default();
        let mut asked: Vec<(Address, Vec<U256>)> = Vec::new();
        for (address, slots) in keys {
            let mut lacking = Vec::new();
            for slot in slots {
                if seen.len() >= MAX_PREFETCH {
                    return asked;
                }
                if seen.insert((*address, Some(*slot))) && self.known_slot(*address, *slot).is_err()
                {
                    lacking.push(*slot);
                }
            }
            let first = seen.insert((*address, None));
            if lacking.is_empty() {
                if first && self.known_account(*address).is_err() {
                    asked.push((*address, Vec::new()));
                }
            } else {
                asked.extend(lacking.chunks(MAX_SLOTS).map(|some| (*address, some.to_vec())));
            }
        }
        asked
    }
}

impl StateView for RpcView {
    fn account(&self, address: Address) -> Result<Option<Account>, SourceError> {
        let account = self.read(address, None, || self.known_account(address))?;
        if let Some(account) = &account
            && account.code_hash != alloy_primitives::KECCAK256_EMPTY
        {
            locked(&self.shared.owners).insert(account.code_hash, address, OWNER);
        }
        Ok(account)
    }

    fn storage(&self, address: Address, slot: U256) -> Result<U256, SourceError> {
        self.read(address, Some(slot), || self.known_slot(address, slot))
    }

    fn code(&self, hash: B256) -> Result<Bytes, SourceError> {
        if let Some(code) = locked(&self.shared.codes).get(&hash) {
            return Ok(code);
        }
        let owner = locked(&self.shared.owners).get(&hash);
        let missing = || SourceError::Missing(format!("an account with the code {hash}"));
        let (address, block) = (owner.ok_or_else(missing)?, self.block);
        // The account may have had this code at another block only.
        if self.account(address)?.is_none_or(|account| account.code_hash != hash) {
            return Err(missing());
        }
        let code = self
            .shared
            .client
            .wait(move |client| async move { client.code(address, block, hash).await })?;
        locked(&self.shared.codes).insert(hash, code.clone(), code.len());
        Ok(code)
    }

    fn prefetch(&self, keys: &[(Address, Vec<U256>)]) {
        let asked = self.lacking(keys);
        if asked.is_empty() {
            return;
        }
        let block = self.block;
        let answers = self
            .shared
            .client
            .wait(move |client| async move { client.proofs(&asked, block).await });
        match answers {
            Ok(answers) => {
                for proof in answers.into_iter().flatten().flatten() {
                    // One that is no good is asked for again when it is read, and told then.
                    let _ = self.shared.keep(&proof);
                }
            }
            Err(error) => tracing::debug!(%error, "prefetching failed"),
        }
    }
}
