//! The client against an execution client in this process.

mod blocks;
mod follower;
mod forks;
mod node;
mod probe;
mod source;

use std::sync::Arc;
use std::time::Duration;

use fragcast_execution::devnet::DevnetConfig;
use fragcast_execution::exec::SealedBlock;
use fragcast_execution::testing::TestChain;

use super::{Client, ClientConfig};
use crate::testing::Server;

/// The longest wait for any condition; only a failing test reaches it.
const GUARD: Duration = Duration::from_secs(60);

fn config() -> DevnetConfig {
    DevnetConfig { accounts: 20.try_into().unwrap(), ..DevnetConfig::default() }
}

fn client(server: &Server) -> Client {
    client_with(server, |_| {})
}

fn client_with(server: &Server, change: impl FnOnce(&mut ClientConfig)) -> Client {
    let mut config = ClientConfig { url: server.url(), timeout: GUARD, ..ClientConfig::default() };
    change(&mut config);
    Client::new(config).unwrap()
}

/// Blocks 0 to `count`, with `txs` transactions each.
fn blocks(chain: &mut TestChain, count: usize, txs: usize) -> Vec<Arc<SealedBlock>> {
    let mut blocks = vec![Arc::clone(&chain.head)];
    blocks.extend((0..count).map(|_| chain.block(1, txs)));
    blocks
}
