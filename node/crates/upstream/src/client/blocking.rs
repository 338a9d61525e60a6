//! The client for threads that may block.

use std::future::Future;

use tokio::runtime::Handle;

use super::rpc::{Client, ClientError};

/// A client for threads outside the runtime: the executor's, and those of blocking reads.
///
/// Its calls block, so an asynchronous task must not make them: its worker thread would be blocked
/// meanwhile.
#[derive(Clone)]
pub struct BlockingClient {
    client: Client,
    runtime: Handle,
}

impl BlockingClient {
    /// A client whose requests run on `runtime`.
    pub const fn new(client: Client, runtime: Handle) -> Self {
        Self { client, runtime }
    }

    /// The client.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Runs a request on the runtime and waits for it.
    ///
    /// It does not use `Handle::block_on`, which panics while the runtime is shutting down.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Unavailable`] if the runtime has ended.
    pub fn wait<T, F>(&self, ask: impl FnOnce(Client) -> F) -> Result<T, ClientError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ClientError>> + Send + 'static,
    {
        let (give, take) = std::sync::mpsc::sync_channel(1);
        let asked = ask(self.client.clone());
        self.runtime.spawn(async move {
            // The asker waits for as long as the sender lives.
            let _ = give.send(asked.await);
        });
        take.recv()
            .unwrap_or_else(|_| Err(ClientError::Unavailable("this node is stopping".into())))
    }
}
