//! Gossip in the node: addresses, the start of its task, and which way was earlier by how much.

use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use ed25519_dalek::SigningKey;
use fragcast_turbine::gossip::links::LINKS;
use fragcast_turbine::net::GossipLink;
use fragcast_turbine::net::gossip::libp2p::multiaddr::Protocol;
use fragcast_turbine::net::gossip::{GossipLimits, GossipNetConfig, spawn};
use fragcast_turbine::protocol::Race;
use fragcast_turbine::{PeerIndex, Policy};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::network::Network;

pub use fragcast_turbine::net::gossip::GossipHandle;
pub use fragcast_turbine::net::gossip::libp2p::Multiaddr;

fn parse(text: &str) -> Result<Multiaddr, String> {
    let example = "/ip4/192.0.2.1/tcp/9222";
    let address: Multiaddr =
        text.parse().map_err(|e| format!("`{text}` is no multiaddr such as {example}: {e}"))?;
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    let is_host = |part: &Protocol<'_>| {
        use Protocol::{Dns, Dns4, Dns6, Ip4, Ip6};
        matches!(part, Ip4(_) | Ip6(_) | Dns(_) | Dns4(_) | Dns6(_))
    };
    let spoken = match parts.as_slice() {
        [host, Protocol::Tcp(_)] | [host, Protocol::Tcp(_), Protocol::P2p(_)] => is_host(host),
        _ => false,
    };
    if !spoken {
        return Err(format!("`{text}` is no host and TCP port, as {example} is"));
    }
    Ok(address)
}

fn names_a_peer(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::P2p(_)))
}

/// Parses an address to listen on.
///
/// # Errors
/// The address is not usable.
pub fn listen_address(text: &str) -> Result<Multiaddr, String> {
    let address = parse(text)?;
    if names_a_peer(&address) {
        return Err(format!("`{text}`: leave out /p2p/, it is this node's own"));
    }
    if !matches!(address.iter().next(), Some(Protocol::Ip4(_) | Protocol::Ip6(_))) {
        return Err(format!("`{text}`: to listen takes an IP address, such as /ip4/0.0.0.0/…"));
    }
    Ok(address)
}

/// Parses a member's address; its peer id is known from its record.
///
/// # Errors
/// The address is not usable.
pub fn member_address(text: &str) -> Result<Multiaddr, String> {
    let address = parse(text)?;
    if names_a_peer(&address) {
        return Err(format!("`{text}`: leave out /p2p/, it follows from the member's record"));
    }
    Ok(address)
}

/// Parses the address of a peer that is no member.
///
/// # Errors
/// The address is not usable.
pub fn peer_address(text: &str) -> Result<Multiaddr, String> {
    let address = parse(text)?;
    match address.iter().last() {
        Some(Protocol::P2p(_)) => Ok(address),
        _ => Err(format!("`{text}` must end in /p2p/ and the peer's id, so that it is known")),
    }
}

/// The addresses of a node as others write them, with its peer id.
pub(crate) fn addresses(handle: &GossipHandle) -> Vec<Multiaddr> {
    let id = Protocol::P2p(handle.local_peer_id());
    handle.listen_addrs().into_iter().map(|address| address.with(id.clone())).collect()
}

/// Starts the gossip task, unless the policy is off.
///
/// # Errors
/// A part could not be set up.
pub(crate) async fn start(
    config: &Config,
    network: &Network,
    identity: &SigningKey,
    link: GossipLink,
) -> anyhow::Result<Option<(GossipHandle, JoinHandle<()>)>> {
    if config.gossip.policy == Policy::Off {
        return Ok(None);
    }
    let total = config.gossip.max_connections;
    let settings = GossipNetConfig {
        listen: config.gossip_listen().map_err(anyhow::Error::msg)?.into_iter().collect(),
        bootstrap: config.gossip_peers().map_err(anyhow::Error::msg)?,
        limits: GossipLimits {
            total,
            // Room is kept for those that this node is to be connected to.
            incoming: total.saturating_sub(LINKS + config.gossip.peers.len()).max(total / 4),
            per_address: config.gossip.max_connections_per_address,
            ..GossipLimits::default()
        },
        ..GossipNetConfig::new(network.chain_id)
    };
    let member = |index: &PeerIndex| network.members.get(*index).map(|member| member.peer());
    let listed = network.gossip.iter();
    let addresses = listed.filter_map(|(index, at)| Some((member(index)?, at.clone()))).collect();
    let started = spawn(settings, identity, network.dialect, addresses, link).await;
    Ok(Some(started.context("gossip")?))
}

/// For messages that came both ways: which was first and by how much.
#[derive(Debug)]
pub struct Races(Mutex<Leads>);

#[derive(Debug)]
struct Leads {
    /// Leads of the overlay where it was first, µs; and of gossip.
    turbine: Histogram<u64>,
    gossip: Histogram<u64>,
}

impl Default for Races {
    fn default() -> Self {
        // One µs to one minute at two digits: 20 kB each.
        let histogram = || Histogram::new_with_bounds(1, 60_000_000, 2).expect("valid bounds");
        Self(Mutex::new(Leads { turbine: histogram(), gossip: histogram() }))
    }
}

impl Races {
    /// Records a message that came both ways.
    pub fn record(&self, race: &Race) {
        let mut leads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (turbine, gossip) = (race.overlay_at.as_micros(), race.gossip_at.as_micros());
        if turbine <= gossip {
            leads.turbine.saturating_record((gossip - turbine).max(1));
        } else {
            leads.gossip.saturating_record(turbine - gossip);
        }
    }

    /// Counts, and percentiles of the leads in milliseconds.
    pub fn status(&self) -> Value {
        let leads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |histogram: &Histogram<u64>| {
            let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
            match histogram.is_empty() {
                true => json!({ "first": 0 }),
                false => json!({
                    "first": histogram.len(),
                    "leadMs": { "p50": ms(0.5), "p90": ms(0.9), "p99": ms(0.99) },
                }),
            }
        };
        json!({ "turbine": of(&leads.turbine), "gossip": of(&leads.gossip) })
    }
}

#[cfg(test)]
mod tests {
    use fragcast_shredder::{Kind, MessageKey};
    use fragcast_turbine::Timestamp;

    use super::*;

    #[test]
    fn addresses_are_checked_and_errors_say_what_is_expected() {
        let id = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        assert!(listen_address("/ip4/0.0.0.0/tcp/9222").is_ok());
        assert!(member_address("/dns4/node.example/tcp/9222").is_ok());
        assert!(peer_address(&format!("/ip6/::1/tcp/1/p2p/{id}")).is_ok());
        for (error, part) in [
            (listen_address("127.0.0.1:9222"), "/ip4/192.0.2.1/tcp/9222"),
            (listen_address("/ip4/127.0.0.1/udp/9222/quic-v1"), "TCP"),
            (listen_address(&format!("/ip4/127.0.0.1/tcp/1/p2p/{id}")), "this node's own"),
            (listen_address("/dns4/node.example/tcp/1"), "IP address"),
            (member_address("/ip4/127.0.0.1/tcp/1/wss"), "TCP port"),
            (member_address(&format!("/ip4/127.0.0.1/tcp/1/p2p/{id}")), "record"),
            (peer_address("/ip4/127.0.0.1/tcp/1"), "/p2p/"),
            (peer_address("/ip4/127.0.0.1/tcp/1/p2p/nobody"), "no multiaddr"),
        ] {
            let error = error.unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn leads_are_told_by_way() {
        let races = Races::default();
        let at = |ms: u64| Timestamp::from_nanos(ms * 1_000_000);
        for (turbine, gossip) in [(10, 40), (10, 20), (50, 45)] {
            races.record(&Race {
                key: MessageKey { block: 1, attempt: 0, message: 0 },
                kind: Kind::Env,
                overlay_at: at(turbine),
                gossip_at: at(gossip),
            });
        }
        let status = races.status();
        assert_eq!(status["turbine"]["first"], 2);
        assert_eq!(status["gossip"]["first"], 1);
        let p50 = status["turbine"]["leadMs"]["p50"].as_f64().unwrap();
        assert!((9.0..11.0).contains(&p50), "{p50}");
    }
}
