//! The devnet's transactions: an endless, seeded stream from many funded accounts.
//!
//! 60 % move ether (a sixth of them legacy transactions with EIP-155, the others EIP-1559), 35 %
//! move the [`token`], 5 % create a contract. Nonces are consecutive per account in the order of
//! the stream, so a block may take any prefix of it. A block that is given up returns its
//! transactions with [`Workload::mark`] and [`Workload::rewind`].

use alloy_consensus::{SignableTransaction, Signed, TxEip1559, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use fragcast_shredder::GatewayKey;

use super::genesis::{DevnetConfig, account_key};
use super::token;
use crate::exec::tx::{Envelope, EthTx, Tx};

/// Gas limit of a plain transfer: exactly its cost.
pub const TRANSFER_GAS: u64 = 21_000;

/// Gas limit of a token transfer. It costs about 52,000 if the recipient had none.
pub const TOKEN_GAS: u64 = 70_000;

/// Gas limit of a contract creation. It costs about 62,000.
pub const CREATE_GAS: u64 = 100_000;

/// The largest gas limit of any transaction here.
pub const MAX_TX_GAS: u64 = CREATE_GAS;

/// The most that a transaction pays per gas: 100 gwei, in wei, a hundred times the first base fee.
/// A block of this mix uses less than half of its gas limit, so the base fee only falls.
pub const MAX_FEE_PER_GAS: u128 = 100_000_000_000;

const GWEI: u64 = 1_000_000_000;

/// SplitMix64 (Steele, Lea, Flood 2014): tiny and seeded; nothing secret depends on it.
#[derive(Debug, Clone, Copy)]
struct SplitMix64(u64);

impl SplitMix64 {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`; the bias of a bound below 2^32 is under 2^-32.
    const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A signed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadTx {
    /// EIP-2718 bytes.
    pub bytes: Bytes,
    /// Its gas limit.
    pub gas_limit: u64,
    /// The sender.
    pub sender: Address,
    /// The same, ready to be executed.
    pub tx: Tx,
}

/// A position in the stream, to return to.
#[derive(Debug, Clone)]
pub struct Mark {
    random: SplitMix64,
    nonces: Vec<u64>,
}

/// The stream of transactions.
#[derive(Debug)]
pub struct Workload {
    chain_id: u64,
    keys: Vec<GatewayKey>,
    addresses: Vec<Address>,
    at: Mark,
}

impl Workload {
    /// The stream of a devnet, from its beginning.
    pub fn new(config: &DevnetConfig) -> Self {
        let keys: Vec<_> =
            (0..config.accounts.get()).map(|index| account_key(config.seed, index)).collect();
        let addresses = keys.iter().map(GatewayKey::address).collect();
        let at = Mark { random: SplitMix64(config.seed), nonces: vec![0; keys.len()] };
        Self { chain_id: config.chain_id, keys, addresses, at }
    }

    /// The position in the stream; costs 8 bytes per account.
    pub fn mark(&self) -> Mark {
        self.at.clone()
    }

    /// Returns to a position of the same stream: the transactions from there on are the same again.
    pub fn rewind(&mut self, mark: Mark) {
        self.at = mark;
    }

    /// The funded accounts.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    fn pick(&mut self) -> usize {
        // There is at least one account, and there are fewer than 2^32.
        self.at.random.below(self.addresses.len() as u64) as usize
    }

    /// The next transaction, signed; it costs about 30 µs.
    pub fn next_tx(&mut self) -> WorkloadTx {
        let sender = self.pick();
        let recipient = self.pick();
        let recipient = self.addresses[recipient];
        let nonce = self.at.nonces[sender];
        self.at.nonces[sender] += 1;
        let amount = U256::from(1 + self.at.random.below(GWEI));
        match self.at.random.below(100) {
            0..10 => {
                let tx = TxLegacy {
                    chain_id: Some(self.chain_id),
                    nonce,
                    gas_price: MAX_FEE_PER_GAS,
                    gas_limit: TRANSFER_GAS,
                    to: TxKind::Call(recipient),
                    value: amount,
                    input: Bytes::new(),
                };
                self.sign(sender, TRANSFER_GAS, tx)
            }
            10..60 => {
                self.dynamic(sender, nonce, TRANSFER_GAS, recipient.into(), amount, Bytes::new())
            }
            60..95 => {
                let call = token::transfer_call(recipient, amount);
                self.dynamic(sender, nonce, TOKEN_GAS, token::ADDRESS.into(), U256::ZERO, call)
            }
            _ => {
                let mut salt = B256::ZERO;
                salt[..20].copy_from_slice(self.addresses[sender].as_slice());
                salt[24..].copy_from_slice(&nonce.to_be_bytes());
                let code = token::init_code(salt);
                self.dynamic(sender, nonce, CREATE_GAS, TxKind::Create, U256::ZERO, code)
            }
        }
    }

    /// An EIP-1559 transaction with a tip of 1 to 2 gwei.
    fn dynamic(
        &mut self,
        sender: usize,
        nonce: u64,
        gas_limit: u64,
        to: TxKind,
        value: U256,
        input: Bytes,
    ) -> WorkloadTx {
        let tx = TxEip1559 {
            chain_id: self.chain_id,
            nonce,
            gas_limit,
            max_fee_per_gas: MAX_FEE_PER_GAS,
            max_priority_fee_per_gas: (GWEI + self.at.random.below(GWEI)).into(),
            to,
            value,
            access_list: Default::default(),
            input,
        };
        self.sign(sender, gas_limit, tx)
    }

    fn sign<T>(&self, sender: usize, gas_limit: u64, tx: T) -> WorkloadTx
    where
        T: SignableTransaction<Signature>,
        EthTx: From<Signed<T>>,
    {
        let envelope = EthTx::from(sign(&self.keys[sender], tx));
        let bytes: Bytes = envelope.encoded_2718().into();
        let sender = self.addresses[sender];
        let (hash, envelope) = (*envelope.tx_hash(), Envelope::Eth(envelope));
        let tx = Tx { envelope, bytes: bytes.clone(), hash, sender };
        WorkloadTx { bytes, gas_limit, sender, tx }
    }
}

/// Signs a transaction.
pub fn sign<T: SignableTransaction<Signature>>(key: &GatewayKey, tx: T) -> Signed<T> {
    let signature = key.sign_digest(&tx.signature_hash());
    let bytes = signature.as_bytes();
    let (r, s) = (U256::from_be_slice(&bytes[..32]), U256::from_be_slice(&bytes[32..64]));
    tx.into_signed(Signature::new(r, s, bytes[64] == 1))
}
