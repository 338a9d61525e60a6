//! Starts the gossip task of a node.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::Context;
use ed25519_dalek::SigningKey;
use fragcast_turbine::PeerIndex;
use fragcast_turbine::net::GossipLink;
use fragcast_turbine::net::gossip::libp2p::multiaddr::Protocol;
use fragcast_turbine::net::gossip::{GossipHandle, spawn};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::multiaddr::Multiaddr;
use crate::network::Network;

/// The addresses of a node as others write them, with its peer id.
pub(super) fn addresses(handle: &GossipHandle) -> Vec<Multiaddr> {
    let id = Protocol::P2p(handle.local_peer_id());
    handle.listen_addrs().into_iter().map(|address| address.with(id.clone())).collect()
}

/// How long gossip's port is tried again that another process took in the moment between our giving
/// it up and libp2p's binding it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts the gossip task, unless the policy is off. `port` has kept its port so far.
///
/// # Errors
/// A part could not be set up.
pub(super) async fn start(
    config: &Config,
    network: &Network,
    identity: &SigningKey,
    link: GossipLink,
    port: Option<TcpListener>,
) -> anyhow::Result<Option<(GossipHandle, JoinHandle<()>)>> {
    let Some(mut settings) = config.gossip_settings(network.chain_id)? else { return Ok(None) };
    let member = |index: &PeerIndex| network.members.get(*index).map(|member| member.peer());
    let listed = network.gossip.iter();
    let addresses = listed.filter_map(|(index, at)| Some((member(index)?, at.clone()))).collect();
    if let Some(port) = port {
        settings.listen_patience = PATIENCE;
        drop(port);
    }
    let started = spawn(settings, identity, network.dialect, addresses, link).await;
    Ok(Some(started.context("gossip")?))
}
