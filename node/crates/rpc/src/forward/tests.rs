//! Forwarding to gateways that behave as the test says.

mod dropping;
mod gateway;
mod sending;
mod sync;
mod table;

use std::num::NonZeroU32;

use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Signature, TxKind, U256};
use fragcast_execution::devnet::DevnetConfig;
use fragcast_execution::devnet::genesis::account_key;
use fragcast_execution::testing::TestChain;
use fragcast_turbine::testing::epochs;
use fragcast_turbine::{Epoch, Membership, Schedule};
use serde_json::json;

use super::*;
pub(crate) use gateway::Gateway;

pub(crate) const GUARD: Duration = Duration::from_secs(60);

/// One account sends all, so nonces follow one another.
pub(crate) fn devnet() -> TestChain {
    TestChain::new(&DevnetConfig { accounts: NonZeroU32::MIN, ..DevnetConfig::default() })
}

pub(crate) fn sender() -> Address {
    account_key(0, 0).address()
}

/// A transfer that is valid as the first of account 0.
pub(crate) fn plain(chain: &TestChain) -> TxEip1559 {
    TxEip1559 {
        chain_id: chain.spec.chain_id,
        nonce: 0,
        gas_limit: 21_000,
        max_fee_per_gas: 100_000_000_000,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(Address::repeat_byte(0xcc)),
        value: U256::ONE,
        access_list: Default::default(),
        input: Bytes::new(),
    }
}

pub(crate) fn sign<T>(tx: T) -> Bytes
where
    T: SignableTransaction<Signature>,
    TxEnvelope: From<alloy_consensus::Signed<T>>,
{
    TxEnvelope::from(fragcast_execution::devnet::sign(&account_key(0, 0), tx)).encoded_2718().into()
}

pub(crate) fn first() -> Address {
    Address::with_last_byte(1)
}

pub(crate) fn second() -> Address {
    Address::with_last_byte(2)
}

/// A forwarder over two gateways that take turns every ten blocks, following the chain.
pub(crate) fn forwarder(chain: &TestChain, config: ForwardConfig) -> Arc<Forwarder> {
    let schedule = Schedule::new(vec![first(), second()], 10).unwrap();
    // What was published last stays readable without its sender.
    forwarder_in(chain, config, watch::channel(epochs(schedule)).1)
}

/// A forwarder in a network whose epochs are published as the test says.
pub(crate) fn forwarder_in(
    chain: &TestChain,
    config: ForwardConfig,
    epochs: watch::Receiver<Arc<EpochsView>>,
) -> Arc<Forwarder> {
    let receipt: MakeReceipt = Arc::new(|block, index| {
        let hash = block.tx(index).map(|placed| placed.executed.tx.hash);
        json!({ "transactionHash": hash, "blockHash": block.hash })
    });
    let (view, spec) = (Arc::clone(&chain.view), Arc::clone(&chain.spec));
    let forwarder = Arc::new(Forwarder::new(config, epochs, view, spec, receipt));
    tokio::spawn(Arc::clone(&forwarder).run());
    forwarder
}

/// A gateway that takes everything.
pub(crate) fn good_gateway() -> Gateway {
    Gateway::good()
}

pub(crate) fn to(gateways: &[(Address, &Gateway)]) -> ForwardConfig {
    ForwardConfig {
        gateways: gateways.iter().map(|(address, g)| (*address, g.url.clone())).collect(),
        // Nobody gives up, unless a test says so.
        timeout: GUARD,
        sync_timeout: GUARD,
        ..ForwardConfig::default()
    }
}

pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(GUARD, poll).await.is_ok(), "never {what}");
}
