//! A registry of gateways in this process, for tests and devnets: JSON-RPC in all forms of rows that
//! are about, which can lose a method, go away and come back.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy_primitives::Address;
use anyhow::Context;
use jsonrpsee::RpcModule;
use jsonrpsee::server::{ServerBuilder, ServerHandle};
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::{Value, json};
use tokio::net::TcpSocket;

/// The secret in its rows, which is to be seen nowhere else.
pub const SECRET: &str = "0x688f5d737bad920bdfb2fc2f488d6b6209eebda1dae949a8de91398d932c517a";

/// What it knows, and how it tells it; all may be changed at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The gateways in order of rotation.
    pub gateways: Vec<Address>,
    /// The newest block.
    pub head: u64,
    /// Blocks of a term.
    pub term: u64,
    /// Whether rows end with a JWT.
    pub with_jwt: bool,
    /// Whether the rows of `registry_registeredGateways` begin with a block.
    pub with_block: bool,
    /// Whether it knows `registry_registeredGateways`; a portal may not.
    pub knows_list: bool,
    /// Requests so far.
    pub asked: u64,
    /// How long it takes to answer.
    pub delay: Duration,
    /// Requests for future gateways so far.
    pub walked: u64,
    /// How many of those it wants to have before it answers any of them.
    pub at_once: u64,
}

impl Registered {
    /// A registry as based-op's: rows of `[url, address, jwt]`, terms of 30 blocks, block 0.
    pub fn new(gateways: Vec<Address>) -> Self {
        Self {
            gateways,
            head: 0,
            term: 30,
            with_jwt: true,
            with_block: false,
            knows_list: true,
            asked: 0,
            delay: Duration::ZERO,
            walked: 0,
            at_once: 1,
        }
    }

    fn row(&self, block: Option<u64>, number: usize) -> Value {
        let mut row: Vec<Value> = block.into_iter().map(Value::from).collect();
        row.push(json!(format!("http://127.0.0.1:{}", 10_000 + number)));
        row.push(json!(self.gateways[number]));
        if self.with_jwt {
            row.push(json!(SECRET));
        }
        Value::from(row)
    }

    /// The rows of all gateways.
    pub fn rows(&self) -> Value {
        let block = self.with_block.then_some(self.head);
        (0..self.gateways.len()).map(|number| self.row(block, number)).collect()
    }

    fn at(&self, block: u64) -> Result<Value, ErrorObjectOwned> {
        let error = |text| ErrorObjectOwned::owned(-32000, text, None::<()>);
        let len = self.gateways.len() as u64;
        let number =
            (block / self.term).checked_rem(len).ok_or_else(|| error("nobody is there"))?;
        Ok(self.row(Some(block), number as usize))
    }
}

/// Counts a request, and takes its time.
async fn asked(registered: &Mutex<Registered>) {
    let delay = {
        let mut registered = lock(registered);
        registered.asked += 1;
        registered.delay
    };
    tokio::time::sleep(delay).await;
}

/// Waits until as many requests for future gateways are there as are answered at once.
async fn together(registered: &Mutex<Registered>) {
    let due = {
        let mut registered = lock(registered);
        registered.walked += 1;
        registered.walked.next_multiple_of(registered.at_once)
    };
    while lock(registered).walked < due {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The server.
pub struct TestRegistry {
    registered: Arc<Mutex<Registered>>,
    address: SocketAddr,
    /// Bound and never listening: keeps the port while the registry is away.
    _reservation: TcpSocket,
    running: Option<ServerHandle>,
}

/// A socket that shares its port with others of ours.
fn bound(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    #[cfg(unix)]
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn lock(registered: &Mutex<Registered>) -> MutexGuard<'_, Registered> {
    registered.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TestRegistry {
    /// Starts it at a port of the system's choice.
    ///
    /// # Errors
    /// There is none.
    pub async fn start(registered: Registered) -> anyhow::Result<Self> {
        let reservation = bound(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = reservation.local_addr()?;
        let registered = Arc::new(Mutex::new(registered));
        let mut registry = Self { registered, address, _reservation: reservation, running: None };
        registry.come_back().await?;
        Ok(registry)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it knows, to read or change.
    pub fn registered(&self) -> MutexGuard<'_, Registered> {
        lock(&self.registered)
    }

    /// Closes the port.
    pub async fn go_away(&mut self) {
        if let Some(running) = self.running.take() {
            // It may have ended by itself.
            let _ = running.stop();
            running.stopped().await;
        }
    }

    /// Opens the port again.
    ///
    /// # Errors
    /// It cannot be opened; nobody else has it.
    pub async fn come_back(&mut self) -> anyhow::Result<()> {
        let listener = bound(self.address).and_then(|socket| socket.listen(128));
        let listener = listener.context("the registry's port")?.into_std()?;
        let server = ServerBuilder::default().build_from_tcp(listener)?;
        let mut module = RpcModule::new(Arc::clone(&self.registered));
        module.register_async_method(
            "registry_registeredGateways",
            |_, registered, _| async move {
                asked(&registered).await;
                let registered = lock(&registered);
                let missing = ErrorObjectOwned::owned(-32601, "Method not found", None::<()>);
                if registered.knows_list { Ok(registered.rows()) } else { Err(missing) }
            },
        )?;
        module.register_async_method("registry_currentGateway", |_, registered, _| async move {
            asked(&registered).await;
            let registered = lock(&registered);
            registered.at(registered.head)
        })?;
        module.register_async_method(
            "registry_futureGateway",
            |params, registered, _| async move {
                let ahead: u64 = params.one()?;
                asked(&registered).await;
                together(&registered).await;
                let registered = lock(&registered);
                registered.at(registered.head.saturating_add(ahead))
            },
        )?;
        self.running = Some(server.start(module));
        Ok(())
    }
}
