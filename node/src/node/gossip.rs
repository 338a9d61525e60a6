//! Starts the gossip task of a node.

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

/// Starts the gossip task, unless the policy is off.
///
/// # Errors
/// A part could not be set up.
pub(super) async fn start(
    config: &Config,
    network: &Network,
    identity: &SigningKey,
    link: GossipLink,
) -> anyhow::Result<Option<(GossipHandle, JoinHandle<()>)>> {
    let Some(settings) = config.gossip_settings(network.chain_id)? else { return Ok(None) };
    let member = |index: &PeerIndex| network.members.get(*index).map(|member| member.peer());
    let listed = network.gossip.iter();
    let addresses = listed.filter_map(|(index, at)| Some((member(index)?, at.clone()))).collect();
    let started = spawn(settings, identity, network.dialect, addresses, link).await;
    Ok(Some(started.context("gossip")?))
}
