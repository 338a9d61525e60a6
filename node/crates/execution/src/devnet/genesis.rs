//! The devnet's genesis: geth's genesis JSON, the state root and the hash of block 0.
//!
//! All forks through Cancun are active from block 0. The allocation holds the funded accounts,
//! the [`token`] with a balance for each of them, and the contract of EIP-4788, which a block's
//! first system call writes to. The hash is the one geth computes from the same file.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use alloy_consensus::Header;
use alloy_consensus::constants::{EMPTY_ROOT_HASH, KECCAK_EMPTY};
use alloy_consensus::proofs::{state_root_unhashed, storage_root_unhashed};
use alloy_eips::eip4788::{BEACON_ROOTS_ADDRESS, BEACON_ROOTS_CODE};
use alloy_primitives::{Address, B64, B256, Bytes, U64, U256, address, b256, keccak256};
use alloy_trie::TrieAccount;
use fragcast_shredder::GatewayKey;
use serde::{Deserialize, Serialize};

use super::token;

/// The devnet's chain id unless configured: 901, which OP Stack devnets use, twice.
pub const DEFAULT_CHAIN_ID: u64 = 901_901;

/// Funded accounts unless configured.
pub const DEFAULT_ACCOUNTS: NonZeroU32 = NonZeroU32::new(1_000).expect("not zero");

/// Gas limit of a block. 2,000 transactions of the largest gas limit that the workload gives,
/// [`MAX_TX_GAS`](super::transactions::MAX_TX_GAS), are 200 M, so ten frags of 200 always fit.
pub const BLOCK_GAS_LIMIT: u64 = 240_000_000;

/// Base fee of block 0, wei: geth's `InitialBaseFee`, 1 gwei (EIP-1559).
pub const INITIAL_BASE_FEE: u64 = 1_000_000_000;

/// Wei and token units that each account starts with: a million ether, a million tokens.
pub const INITIAL_BALANCE: u128 = 1_000_000 * 1_000_000_000_000_000_000;

const KEY_DOMAIN: &[u8] = b"fragcast devnet account";

/// Settings of a devnet: the same values give the same genesis and the same transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DevnetConfig {
    /// Chain id of every transaction (EIP-155).
    pub chain_id: u64,
    /// Seed of the keys, of the transactions and of each block's randomness.
    pub seed: u64,
    /// The number of funded accounts that send.
    pub accounts: NonZeroU32,
    /// Timestamp of block 0, Unix seconds.
    pub timestamp: u64,
}

impl Default for DevnetConfig {
    fn default() -> Self {
        Self { chain_id: DEFAULT_CHAIN_ID, seed: 0, accounts: DEFAULT_ACCOUNTS, timestamp: 0 }
    }
}

/// The key of the `index`th account of `seed`: keccak256(domain ‖ seed ‖ index), hashed again
/// until it is a key. Anybody can compute it: for devnets only.
pub fn account_key(seed: u64, index: u32) -> GatewayKey {
    let mut secret =
        keccak256([KEY_DOMAIN, &seed.to_be_bytes()[..], &index.to_be_bytes()[..]].concat());
    loop {
        match GatewayKey::from_bytes(secret.0) {
            Ok(key) => return key,
            Err(_) => secret = keccak256(secret),
        }
    }
}

/// Secret keys of the accounts that the devnet funds for its users: the first two of the
/// mnemonic that every Ethereum toolkit knows ("test test … junk"). Everybody knows them.
pub const USER_KEYS: [B256; 2] = [
    b256!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"),
    b256!("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"),
];

/// The addresses of [`USER_KEYS`].
pub const USERS: [Address; 2] = [
    address!("f39fd6e51aad88f6f4ce6ab8827279cfffb92266"),
    address!("70997970c51812dc3a010c7d01b50e0d17dc79c8"),
];

/// A genesis in the form that `geth init` takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Genesis {
    /// Chain id and forks.
    pub config: ChainConfig,
    /// Nonce of the header; zero since the merge.
    pub nonce: U64,
    /// Unix seconds.
    pub timestamp: U64,
    /// At most 32 bytes.
    pub extra_data: Bytes,
    /// Gas limit of block 0.
    pub gas_limit: U64,
    /// Zero since the merge.
    pub difficulty: U256,
    /// Randomness of block 0.
    pub mix_hash: B256,
    /// Fee recipient of block 0.
    pub coinbase: Address,
    /// Wei.
    pub base_fee_per_gas: U64,
    /// The state of block 0.
    pub alloc: BTreeMap<Address, GenesisAccount>,
}

/// Chain id and forks, as geth's `params.ChainConfig` has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is the fork of its name: a block or a Unix second")]
pub struct ChainConfig {
    pub chain_id: u64,
    pub homestead_block: u64,
    pub eip150_block: u64,
    pub eip155_block: u64,
    pub eip158_block: u64,
    pub byzantium_block: u64,
    pub constantinople_block: u64,
    pub petersburg_block: u64,
    pub istanbul_block: u64,
    pub berlin_block: u64,
    pub london_block: u64,
    pub merge_netsplit_block: u64,
    pub shanghai_time: u64,
    pub cancun_time: u64,
    pub terminal_total_difficulty: u64,
    pub terminal_total_difficulty_passed: bool,
    /// EIP-7840: geth asks for an entry per fork that has blobs.
    pub blob_schedule: BTreeMap<String, BlobSchedule>,
}

impl ChainConfig {
    /// All forks through Cancun from block 0 on.
    pub fn cancun(chain_id: u64) -> Self {
        let cancun = BlobSchedule { target: 3, max: 6, base_fee_update_fraction: 3_338_477 };
        Self {
            chain_id,
            homestead_block: 0,
            eip150_block: 0,
            eip155_block: 0,
            eip158_block: 0,
            byzantium_block: 0,
            constantinople_block: 0,
            petersburg_block: 0,
            istanbul_block: 0,
            berlin_block: 0,
            london_block: 0,
            merge_netsplit_block: 0,
            shanghai_time: 0,
            cancun_time: 0,
            terminal_total_difficulty: 0,
            terminal_total_difficulty_passed: true,
            blob_schedule: [("cancun".to_owned(), cancun)].into(),
        }
    }
}

/// Blobs per block (EIP-4844, EIP-7840).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlobSchedule {
    /// Blobs a block aims at.
    pub target: u64,
    /// Most blobs of a block.
    pub max: u64,
    /// The blob base fee's update fraction.
    pub base_fee_update_fraction: u64,
}

/// An account of block 0.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GenesisAccount {
    /// Wei.
    pub balance: U256,
    /// Transactions sent; 1 for a contract (EIP-161).
    #[serde(default)]
    pub nonce: U64,
    /// Runtime code.
    #[serde(default, skip_serializing_if = "no_bytes")]
    pub code: Bytes,
    /// Slot to value; both are 32 bytes, because geth takes no odd number of digits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub storage: BTreeMap<B256, B256>,
}

fn no_bytes(bytes: &Bytes) -> bool {
    bytes.is_empty()
}

impl GenesisAccount {
    /// The account as the state trie holds it. Slots of value zero do not exist.
    pub fn trie_account(&self) -> TrieAccount {
        let slots = self.storage.iter().filter(|(_, value)| !value.is_zero());
        let storage_root =
            storage_root_unhashed(slots.map(|(slot, value)| (*slot, U256::from_be_bytes(value.0))));
        let code_hash =
            if self.code.is_empty() { KECCAK_EMPTY } else { keccak256(self.code.as_ref()) };
        TrieAccount::new(self.nonce.to(), self.balance, storage_root, code_hash)
    }
}

impl Genesis {
    /// The genesis of a devnet.
    pub fn devnet(config: &DevnetConfig) -> Self {
        let senders: Vec<Address> = (0..config.accounts.get())
            .map(|index| account_key(config.seed, index).address())
            .collect();
        let balance = U256::from(INITIAL_BALANCE);
        let mut alloc: BTreeMap<_, _> = senders
            .iter()
            .chain(&USERS)
            .map(|address| (*address, GenesisAccount { balance, ..GenesisAccount::default() }))
            .collect();
        let contract = |code, storage| GenesisAccount {
            nonce: U64::from(1),
            code,
            storage,
            ..GenesisAccount::default()
        };
        let balances =
            senders.iter().map(|address| (token::balance_slot(*address), balance.into())).collect();
        alloc.insert(token::ADDRESS, contract(token::code(), balances));
        alloc.insert(BEACON_ROOTS_ADDRESS, contract(BEACON_ROOTS_CODE.clone(), BTreeMap::new()));
        Self {
            config: ChainConfig::cancun(config.chain_id),
            nonce: U64::ZERO,
            timestamp: U64::from(config.timestamp),
            extra_data: Bytes::new(),
            gas_limit: U64::from(BLOCK_GAS_LIMIT),
            difficulty: U256::ZERO,
            mix_hash: B256::ZERO,
            coinbase: Address::ZERO,
            base_fee_per_gas: U64::from(INITIAL_BASE_FEE),
            alloc,
        }
    }

    /// The file that `geth init` takes.
    ///
    /// # Errors
    /// None in practice: every key is a string. The type is what serde_json gives.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// The chain that starts with this genesis.
    ///
    /// # Errors
    /// None in practice: the forks are ours.
    pub fn chain_spec(
        &self,
        name: &str,
    ) -> Result<crate::chain::ChainSpec, crate::chain::ChainError> {
        let json = |reason| crate::chain::ChainError::Json { path: name.into(), reason };
        let text = self.to_json().map_err(json)?;
        crate::chain::ChainSpec::from_genesis(name, serde_json::from_str(&text).map_err(json)?)
    }

    /// Root of the state trie.
    pub fn state_root(&self) -> B256 {
        state_root_unhashed(
            self.alloc.iter().map(|(address, account)| (*address, account.trie_account())),
        )
    }

    /// The header of block 0. As geth's `Genesis.ToBlock` for Shanghai and Cancun: no
    /// withdrawals (EIP-4895), no blobs (EIP-4844), beacon root zero (EIP-4788).
    pub fn header(&self) -> Header {
        Header {
            state_root: self.state_root(),
            transactions_root: EMPTY_ROOT_HASH,
            receipts_root: EMPTY_ROOT_HASH,
            beneficiary: self.coinbase,
            difficulty: self.difficulty,
            gas_limit: self.gas_limit.to(),
            timestamp: self.timestamp.to(),
            extra_data: self.extra_data.clone(),
            mix_hash: self.mix_hash,
            nonce: B64::from(self.nonce.to_be_bytes()),
            base_fee_per_gas: Some(self.base_fee_per_gas.to()),
            withdrawals_root: Some(EMPTY_ROOT_HASH),
            blob_gas_used: Some(0),
            excess_blob_gas: Some(0),
            parent_beacon_block_root: Some(B256::ZERO),
            ..Header::default()
        }
    }

    /// Hash of block 0; computes the state root.
    pub fn hash(&self) -> B256 {
        self.header().hash_slow()
    }
}

#[cfg(test)]
mod tests;
