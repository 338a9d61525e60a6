//! Where a node listens.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use crate::config::Config;
use crate::multiaddr::Multiaddr;

/// Bound sockets, so that ports are known before a node starts.
#[derive(Debug)]
pub struct Sockets {
    /// The overlay's UDP socket.
    pub p2p: UdpSocket,
    /// The gateway's interface.
    pub ingest: TcpListener,
    /// The public JSON-RPC.
    pub http: TcpListener,
    /// The operator's JSON-RPC.
    pub admin: TcpListener,
    /// Metrics and health.
    pub metrics: TcpListener,
    /// The Flashblocks WebSocket, if there is one.
    pub flashblocks: Option<TcpListener>,
}

impl Sockets {
    /// Binds the addresses of `config`.
    ///
    /// # Errors
    /// An address could not be bound, and why.
    pub fn bind(config: &Config) -> anyhow::Result<Self> {
        let tcp = |name: &str, address: SocketAddr| {
            let listener = TcpListener::bind(address)
                .map_err(|e| anyhow::anyhow!("cannot listen on {address} ({name}): {e}"))?;
            listener.set_nonblocking(true)?;
            anyhow::Ok(listener)
        };
        Ok(Self {
            p2p: fragcast_turbine::net::bind(config.p2p.listen)?,
            ingest: tcp("ingest.listen", config.ingest.listen)?,
            http: tcp("http.listen", config.http.listen)?,
            admin: tcp("admin.listen", config.admin.listen)?,
            metrics: tcp("metrics.listen", config.metrics.listen)?,
            flashblocks: (config.flashblocks_listen()?)
                .map(|address| tcp("flashblocks.listen", address))
                .transpose()?,
        })
    }
}

/// Where a running node listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// UDP.
    pub p2p: SocketAddr,
    /// Gossip, with `/p2p/` and the peer id.
    pub gossip: Vec<Multiaddr>,
    /// The gateway's interface.
    pub ingest: SocketAddr,
    /// The public JSON-RPC.
    pub http: SocketAddr,
    /// The operator's JSON-RPC.
    pub admin: SocketAddr,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// The Flashblocks WebSocket, if there is one.
    pub flashblocks: Option<SocketAddr>,
}
