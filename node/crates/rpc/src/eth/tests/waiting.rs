//! State that must be waited for: an execution client's.

use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, U256};
use fragcast_execution::exec::{SealedBlock, Snapshot, State, StateView};
use fragcast_execution::executor::Heads;
use fragcast_execution::state::{Account, SourceError};

use super::*;

/// A guard against hanging, longer than anything here takes.
const GUARD: Duration = Duration::from_secs(30);

/// A view that waits for a task of the runtime, like one that asks over the network.
struct Asking(tokio::runtime::Handle);

impl StateView for Asking {
    fn account(&self, _: Address) -> Result<Option<Account>, SourceError> {
        let (tell, told) = std::sync::mpsc::channel();
        self.0.spawn(async move { tell.send(()) });
        let late = |_| SourceError::Unavailable("nobody ran the task".into());
        told.recv_timeout(GUARD).map_err(late)?;
        Ok(None)
    }
    fn storage(&self, _: Address, _: U256) -> Result<U256, SourceError> {
        Ok(U256::ZERO)
    }
    fn code(&self, _: B256) -> Result<Bytes, SourceError> {
        Ok(Bytes::new())
    }
}

/// The runtime's only worker must not wait for a task that it would have to run itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_state_that_is_waited_for_is_not_read_on_a_worker_of_the_runtime() {
    let chain = TestChain::new(&DevnetConfig::default());
    let state = State::new(Arc::new(Asking(tokio::runtime::Handle::current())));
    let snapshot = Snapshot { state, ..(*chain.head.snapshot).clone() };
    let head = SealedBlock { snapshot: Arc::new(snapshot), ..(*chain.head).clone() };
    let heads = chain.view.heads().unwrap();
    chain.view.set_heads(Heads { latest: Arc::new(head), ..(*heads).clone() });
    let (spec, view) = (Arc::clone(&chain.spec), Arc::clone(&chain.view));
    let mut ctx = EthContext::new(spec, view, EthConfig::default(), None, Arc::new(NoForwarded));
    ctx.state_waits = true;
    let module = module(Arc::new(ctx));
    let call = tokio::spawn(async move {
        module.call::<_, U256>("eth_getBalance", (Address::ZERO, "latest")).await
    });
    let balance = tokio::time::timeout(GUARD, call).await.unwrap().unwrap().unwrap();
    assert_eq!(balance, U256::ZERO);
}
