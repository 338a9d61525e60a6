//! The gateway's interface for users: `eth_sendRawTransaction`, and the transactions that wait.
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

use fragcast_execution::devnet::Offered;
use fragcast_execution::exec::Tx;

/// Transactions that may wait.
const CAPACITY: usize = 4_096;
/// How long a transaction waits to become includable.
const MAX_AGE: Duration = Duration::from_secs(60);
/// The longest transaction, as geth's pool has it.
const MAX_LEN: usize = 128 * 1024;

type Waiting = BTreeMap<(Address, u64), (Tx, Instant)>;

/// Transactions that wait for a frag.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Waiting>>);

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, raw: &Bytes, chain_id: u64) -> Result<String, ErrorObjectOwned> {
        let error = |message: String| ErrorObjectOwned::owned(-32_000, message, None::<()>);
        if raw.len() > MAX_LEN {
            return Err(error(format!("oversized data: more than {MAX_LEN} bytes")));
        }
        let tx = Tx::decode(raw, false).map_err(|e| error(format!("transaction: {e}")))?;
        if let fragcast_execution::exec::Envelope::Eth(envelope) = &tx.envelope
            && alloy_consensus::Transaction::chain_id(envelope).is_some_and(|id| id != chain_id)
        {
            return Err(error(format!("invalid chain id: this chain is {chain_id}")));
        }
        let mut waiting = self.lock();
        let key = (tx.sender, tx.envelope.nonce());
        if waiting.len() >= CAPACITY && !waiting.contains_key(&key) {
            return Err(error(format!("the pool is full: {CAPACITY} transactions wait")));
        }
        let hash = tx.hash;
        if waiting.get(&key).is_some_and(|(old, _)| old.hash == hash) {
            return Err(error("already known".into()));
        }
        waiting.insert(key, (tx, Instant::now()));
        Ok(hash.to_string())
    }

    /// Waiting transactions, in order of sender and nonce.
    pub(super) fn waiting(&self) -> Vec<Tx> {
        self.lock().values().map(|(tx, _)| tx.clone()).collect()
    }

    /// Records what became of offered transactions.
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
                    let hopeless = reason.contains("too low") || since.elapsed() > MAX_AGE;
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
