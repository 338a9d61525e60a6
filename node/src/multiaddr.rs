//! Addresses of gossip: which multiaddrs the configuration and the network file may have.

use fragcast_turbine::net::gossip::libp2p::multiaddr::Protocol;

pub use fragcast_turbine::net::gossip::libp2p::Multiaddr;

const EXAMPLE: &str = "/ip4/192.0.2.1/tcp/9222";

/// Why a multiaddr cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It does not parse.
    #[error("`{text}` is no multiaddr such as {EXAMPLE}: {reason}")]
    Form {
        /// The text.
        text: String,
        /// What libp2p says.
        reason: String,
    },
    /// It is something else than a host and a TCP port.
    #[error("`{0}` is no host and TCP port, as {EXAMPLE} is")]
    NotTcp(String),
    /// An address to listen on names a peer.
    #[error("`{0}`: leave out /p2p/, it is this node's own")]
    OwnPeer(String),
    /// An address to listen on is not an IP address.
    #[error("`{0}`: to listen takes an IP address, such as /ip4/0.0.0.0/…")]
    NotIp(String),
    /// A member's address names a peer.
    #[error("`{0}`: leave out /p2p/, it follows from the member's record")]
    MemberPeer(String),
    /// The address of a peer that is no member does not say which peer.
    #[error("`{0}` must end in /p2p/ and the peer's id, so that it is known")]
    NoPeer(String),
}

fn parse(text: &str) -> Result<Multiaddr, AddressError> {
    let form = |e: &dyn std::fmt::Display| AddressError::Form {
        text: text.to_owned(),
        reason: e.to_string(),
    };
    let address: Multiaddr = text.parse().map_err(|e| form(&e))?;
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    let is_host = |part: &Protocol<'_>| {
        use Protocol::{Dns, Dns4, Dns6, Ip4, Ip6};
        matches!(part, Ip4(_) | Ip6(_) | Dns(_) | Dns4(_) | Dns6(_))
    };
    let spoken = match parts.as_slice() {
        [host, Protocol::Tcp(_)] | [host, Protocol::Tcp(_), Protocol::P2p(_)] => is_host(host),
        _ => false,
    };
    if spoken { Ok(address) } else { Err(AddressError::NotTcp(text.to_owned())) }
}

fn names_a_peer(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::P2p(_)))
}

/// An address to listen on.
///
/// # Errors
/// [`AddressError`].
pub fn listen_address(text: &str) -> Result<Multiaddr, AddressError> {
    let address = parse(text)?;
    if names_a_peer(&address) {
        return Err(AddressError::OwnPeer(text.to_owned()));
    }
    if !matches!(address.iter().next(), Some(Protocol::Ip4(_) | Protocol::Ip6(_))) {
        return Err(AddressError::NotIp(text.to_owned()));
    }
    Ok(address)
}

/// Parses a member's address; its peer id is known from its record.
///
/// # Errors
/// [`AddressError`].
pub fn member_address(text: &str) -> Result<Multiaddr, AddressError> {
    let address = parse(text)?;
    if names_a_peer(&address) {
        return Err(AddressError::MemberPeer(text.to_owned()));
    }
    Ok(address)
}

/// Where a peer that is no member listens.
///
/// # Errors
/// [`AddressError`].
pub fn peer_address(text: &str) -> Result<Multiaddr, AddressError> {
    let address = parse(text)?;
    match address.iter().last() {
        Some(Protocol::P2p(_)) => Ok(address),
        _ => Err(AddressError::NoPeer(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
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
            let error = error.unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
