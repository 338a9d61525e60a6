//! Binding the listeners.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use libp2p::core::transport::TransportError;
use libp2p::futures::StreamExt;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm};
use tokio::time::Instant;

use super::behaviour::Behaviour;
use super::{GossipNetConfig, GossipNetError};

/// How long a listener may take to report its addresses.
const LISTEN: Duration = Duration::from_secs(20);
/// How long after a port was in use it is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// Whether a port is free. libp2p lets several processes listen on one port (SO_REUSEPORT), of
/// which each would get some of the connections, and neither an error.
fn probe(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::from(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::from(ip),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => {
            TcpListener::bind(SocketAddr::from((ip, port))).map(drop)
        }
        _ => Ok(()),
    }
}

/// Waits until a port is free, for `patience` at most.
async fn free(address: &Multiaddr, patience: Duration) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match probe(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < patience =>
            {
                tokio::time::sleep(AGAIN).await;
            }
            probed => return probed,
        }
    }
}

/// Binds the listeners and waits until they have said where they are.
pub(super) async fn listen(
    swarm: &mut Swarm<Behaviour>,
    config: &GossipNetConfig,
) -> Result<Vec<Multiaddr>, GossipNetError> {
    let mut waiting = Vec::new();
    for address in &config.listen {
        free(address, config.listen_patience)
            .await
            .map_err(|source| GossipNetError::Listen { address: address.clone(), source })?;
        let id = swarm.listen_on(address.clone()).map_err(|error| match error {
            TransportError::MultiaddrNotSupported(address) => GossipNetError::Unsupported(address),
            TransportError::Other(source) => {
                GossipNetError::Listen { address: address.clone(), source }
            }
        })?;
        waiting.push((id, address.clone()));
    }
    let mut found = Vec::new();
    let wait = async {
        while !waiting.is_empty() {
            match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { listener_id, address } => {
                    waiting.retain(|(id, _)| *id != listener_id);
                    found.push(address);
                }
                SwarmEvent::ListenerClosed { listener_id, reason: Err(source), .. } => {
                    if let Some(at) = waiting.iter().position(|(id, _)| *id == listener_id) {
                        let (_, address) = waiting.swap_remove(at);
                        return Err(GossipNetError::Listen { address, source });
                    }
                }
                _ => {}
            }
        }
        Ok(())
    };
    tokio::time::timeout(LISTEN, wait).await.map_err(|_| GossipNetError::NoAddress(LISTEN))??;
    Ok(found)
}
