//! The gateway's interface for users: `eth_sendRawTransaction`, and the transactions that wait.
//!
//! A transaction is taken if the block being built could include it, but for its nonce, which may be
//! ahead: the checks are the executor's ([`admit`]). So one that offers less than the base fee is
//! refused at once, and those that follow it in the order of nonces do not wait for it.
//!
//! Transactions are offered to every frag in order of sender and nonce until they are included, can
//! no longer be included, or are [`MAX_AGE`] old. At most [`CAPACITY`] wait, each up to 128 KiB as
//! in geth: 512 MiB in the worst case.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use alloy_primitives::{Address, Bytes};
use fragcast_port::{Guard, Port, Service, Settings};
use jsonrpsee::RpcModule;
use jsonrpsee::types::ErrorObjectOwned;

use fragcast_execution::chain::ChainSpec;
use fragcast_execution::devnet::{DevnetGateway, Offered};
use fragcast_execution::exec::admission::{Fees, NotAdmitted, Why, admit, replaces};
use fragcast_execution::exec::{Snapshot, Tx};

/// Transactions that may wait.
const CAPACITY: usize = 4_096;
/// How long a transaction waits to become includable.
const MAX_AGE: Duration = Duration::from_secs(60);
/// The longest transaction, as geth's pool has it.
const MAX_LEN: usize = 128 * 1024;

type Waiting = BTreeMap<(Address, u64), (Tx, Instant)>;

/// The chain's rules, and the block being built.
type Building = (Arc<ChainSpec>, Arc<Snapshot>);

/// Transactions that wait for a frag.
#[derive(Clone, Default)]
pub(super) struct Pool {
    waiting: Arc<Mutex<Waiting>>,
    /// `None` before the first block.
    building: Arc<Mutex<Option<Building>>>,
}

fn error(message: impl Into<String>) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(-32_000, message.into(), None::<()>)
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn building(&self) -> MutexGuard<'_, Option<Building>> {
        self.building.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Transactions are for the block that this gateway is building, as far as it is.
    pub(super) fn follow(&self, gateway: &DevnetGateway) {
        if let Some(pending) = gateway.pending() {
            *self.building() = Some((Arc::clone(gateway.spec()), pending));
        }
    }

    /// Whether the block being built could include a transaction.
    fn admit(&self, tx: &Tx) -> Result<(), NotAdmitted> {
        let building = self.building().clone();
        let Some((spec, snapshot)) = building else { return Ok(()) };
        admit(&spec, &snapshot, tx, Fees::OfBlock).map(drop)
    }

    fn add(&self, raw: &Bytes, chain_id: u64) -> Result<String, ErrorObjectOwned> {
        if raw.len() > MAX_LEN {
            return Err(error(format!("oversized data: more than {MAX_LEN} bytes")));
        }
        let tx = Tx::decode(raw, false).map_err(|e| error(format!("transaction: {e}")))?;
        match tx.envelope.chain_id() {
            Some(id) if id == chain_id => {}
            Some(_) => return Err(error(format!("invalid chain id: this chain is {chain_id}"))),
            None => return Err(error("only replay-protected (EIP-155) transactions are taken")),
        }
        self.admit(&tx).map_err(|refused| error(refused.to_string()))?;
        let mut waiting = self.lock();
        let key = (tx.sender, tx.envelope.nonce());
        if waiting.len() >= CAPACITY && !waiting.contains_key(&key) {
            return Err(error(format!("the pool is full: {CAPACITY} transactions wait")));
        }
        let hash = tx.hash;
        if let Some((old, _)) = waiting.get(&key) {
            if old.hash == hash {
                return Err(error("already known"));
            }
            replaces(&tx, old).map_err(|refused| error(refused.to_string()))?;
        }
        waiting.insert(key, (tx, Instant::now()));
        Ok(hash.to_string())
    }

    /// Waiting transactions, in order of sender and nonce.
    pub(super) fn waiting(&self) -> Vec<Tx> {
        self.lock().values().map(|(tx, _)| tx.clone()).collect()
    }

    /// Records what became of offered transactions. One that was passed over waits if it only has to
    /// wait: for others of its sender, for room, or for a lower base fee.
    pub(super) fn offered(&self, txs: &[Tx], outcomes: &[Offered]) {
        let mut waiting = self.lock();
        for (tx, outcome) in txs.iter().zip(outcomes) {
            let key = (tx.sender, tx.envelope.nonce());
            // Somebody may have replaced it meanwhile.
            let Some((now, since)) = waiting.get(&key) else { continue };
            if now.hash != tx.hash {
                continue;
            }
            let over = match outcome {
                Offered::Included => true,
                Offered::PassedOver(reason) => {
                    let never = matches!(
                        self.admit(tx),
                        Err(NotAdmitted::Invalid(why, _)) if why != Why::Fees
                    );
                    let hopeless = never || since.elapsed() > MAX_AGE;
                    if hopeless {
                        tracing::info!(hash = %tx.hash, reason, "dropped a transaction");
                    }
                    hopeless
                }
            };
            if over {
                waiting.remove(&key);
            }
        }
    }

    /// Serves the interface.
    pub(super) async fn serve(
        &self,
        chain_id: u64,
        port: u16,
    ) -> anyhow::Result<(SocketAddr, Port)> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
        let address = listener.local_addr()?;
        let mut module = RpcModule::new((self.clone(), chain_id));
        module.register_method("eth_sendRawTransaction", |params, (pool, chain_id), _| {
            let (raw,): (Bytes,) = params.parse()?;
            pool.add(&raw, *chain_id)
        })?;
        module.register_method("eth_chainId", |_, (_, chain_id), _| format!("{chain_id:#x}"))?;
        let settings = Settings {
            connections: 100,
            per_address: Some(100),
            max_request: 1024 * 1024,
            max_batch: Some(100),
            ..Settings::small("gateway", Arc::new(Guard::new(&[], &[], None)))
        };
        let service = Service::Rpc(module.into());
        let port = Port::open(listener, settings, service, &tokio::runtime::Handle::current())?;
        Ok((address, port))
    }
}

#[cfg(test)]
mod tests {
    use alloy_consensus::{SignableTransaction, TxEip1559, TxLegacy};
    use alloy_eips::eip2718::Encodable2718;
    use alloy_primitives::{Signature, TxKind, U256};
    use fragcast_execution::devnet::genesis::account_key;
    use fragcast_execution::devnet::{DevnetConfig, sign};
    use fragcast_shredder::Dialect;

    use super::*;

    fn raw<T: SignableTransaction<Signature>>(tx: T) -> Bytes
    where
        alloy_consensus::Signed<T>: Encodable2718,
    {
        sign(&account_key(0, 0), tx).encoded_2718().into()
    }

    fn transfer(chain_id: u64, nonce: u64, max_fee_per_gas: u128) -> TxEip1559 {
        TxEip1559 {
            chain_id,
            nonce,
            gas_limit: 21_000,
            max_fee_per_gas,
            max_priority_fee_per_gas: max_fee_per_gas.min(1),
            to: TxKind::Call(Address::repeat_byte(0xcc)),
            value: U256::ONE,
            ..Default::default()
        }
    }

    #[test]
    fn one_that_pays_too_little_takes_no_later_one_along() {
        let config = DevnetConfig::default();
        let chain = config.chain_id;
        let mut gateway = DevnetGateway::new(&config, Dialect::V0).unwrap();
        let pool = Pool::default();
        gateway.open(1_000).unwrap();
        pool.follow(&gateway);
        let gwei: u128 = 1_000_000_000;
        let free = TxLegacy {
            chain_id: Some(chain),
            gas_price: 0,
            gas_limit: 21_000,
            to: TxKind::Call(Address::ZERO),
            ..Default::default()
        };
        for (refused, text) in [
            (raw(free.clone()), "max fee per gas less than block base fee: "),
            (raw(transfer(chain, 0, 800_000_000)), "max fee per gas less than block base fee: "),
            (raw(TxLegacy { chain_id: None, gas_price: gwei, ..free }), "only replay-protected"),
            (raw(transfer(chain + 1, 0, gwei)), "invalid chain id"),
            (raw(TxEip1559 { gas_limit: 20_000, ..transfer(chain, 0, gwei) }), "intrinsic gas too"),
            (raw(TxEip1559 { nonce: u64::MAX, ..transfer(chain, 0, gwei) }), "nonce has max value"),
            (raw(TxEip1559 { value: U256::MAX, ..transfer(chain, 0, gwei) }), "insufficient funds"),
        ] {
            let error = pool.add(&refused, chain).unwrap_err();
            assert!(error.message().starts_with(text), "{error}");
        }
        assert!(pool.waiting().is_empty());
        // The sender goes on with the nonce that was refused, and one after it.
        for nonce in [0, 1] {
            pool.add(&raw(transfer(chain, nonce, gwei)), chain).unwrap();
        }
        let again = pool.add(&raw(transfer(chain, 1, gwei)), chain).unwrap_err();
        assert_eq!(again.message(), "already known");
        let cheap = pool.add(&raw(transfer(chain, 1, gwei + 1)), chain).unwrap_err();
        assert!(cheap.message().starts_with("replacement transaction underpriced"), "{cheap}");
        let better = TxEip1559 { max_priority_fee_per_gas: 2, ..transfer(chain, 1, 2 * gwei) };
        pool.add(&raw(better), chain).unwrap();
        let users = pool.waiting();
        let (_, outcomes) = gateway.frag_with(&users, 0, false).unwrap();
        pool.follow(&gateway);
        pool.offered(&users, &outcomes);
        assert_eq!(outcomes, [Offered::Included, Offered::Included]);
        assert!(pool.waiting().is_empty());
        let late = pool.add(&raw(transfer(chain, 0, gwei)), chain).unwrap_err();
        assert!(late.message().starts_with("nonce too low: next nonce 2"), "{late}");
        // One whose sender has spent what it had meanwhile is not kept; one that is early is.
        let most = U256::from(900_000 * gwei * gwei);
        let whole = TxEip1559 { value: most, ..transfer(chain, 2, gwei) };
        pool.add(&raw(whole.clone()), chain).unwrap();
        pool.add(&raw(TxEip1559 { nonce: 3, ..whole }), chain).unwrap();
        pool.add(&raw(transfer(chain, 5, gwei)), chain).unwrap();
        let users = pool.waiting();
        let (_, outcomes) = gateway.frag_with(&users, 0, true).unwrap();
        pool.follow(&gateway);
        pool.offered(&users, &outcomes);
        let left: Vec<u64> = pool.waiting().iter().map(|tx| tx.envelope.nonce()).collect();
        assert_eq!(left, [5]);
    }
}
