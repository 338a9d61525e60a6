//! Bootstrap addresses: `<peer id>@host:port`, of members that a node calls before it knows a table.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use fragcast_turbine::PeerId;
use fragcast_turbine::net::Handle;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How often a name is resolved again: its address may change.
const AGAIN: Duration = Duration::from_secs(60);
/// How soon, if it could not be.
const SOON: Duration = Duration::from_secs(5);

/// A member to call first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bootstrap {
    /// Its peer id, which its handshake proves.
    pub peer: PeerId,
    /// Its host, a name or an IP address, and its UDP port.
    pub host: String,
}

/// The text is no bootstrap address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no bootstrap address: write <peer id>@host:port")]
pub struct BootstrapError {
    /// What was given.
    pub text: String,
}

impl FromStr for Bootstrap {
    type Err = BootstrapError;

    fn from_str(text: &str) -> Result<Self, BootstrapError> {
        let wrong = || BootstrapError { text: text.to_owned() };
        let (peer, host) = text.split_once('@').ok_or_else(wrong)?;
        let (name, port) = host.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        // An IPv6 address stands in brackets, or its last part would be a port.
        let bare = name.contains(':') && !(name.starts_with('[') && name.ends_with(']'));
        if name.is_empty() || port == 0 || bare || name.contains(char::is_whitespace) {
            return Err(wrong());
        }
        Ok(Self { peer: peer.parse().map_err(|_| wrong())?, host: host.to_owned() })
    }
}

impl std::fmt::Display for Bootstrap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.peer, self.host)
    }
}

impl Serialize for Bootstrap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bootstrap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Bootstrap {
    /// Where it is now.
    ///
    /// # Errors
    /// Its name does not resolve.
    pub async fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host(&self.host).await?.collect())
    }
}

/// Calls bootstrap addresses but `me`, and looks their names up again and again. Runs until it is
/// aborted.
pub async fn call(all: Vec<Bootstrap>, me: PeerId, net: Handle) {
    let others: Vec<Bootstrap> = all.into_iter().filter(|known| known.peer != me).collect();
    let mut known: Vec<Vec<SocketAddr>> = vec![Vec::new(); others.len()];
    loop {
        let mut all_resolved = true;
        for (bootstrap, known) in others.iter().zip(&mut known) {
            match bootstrap.resolve().await {
                Ok(addresses) if addresses == *known => {}
                Ok(addresses) => {
                    if !net.call(bootstrap.peer, addresses.clone()).await {
                        tracing::warn!(%bootstrap, "a bootstrap address is not called: too many");
                    }
                    *known = addresses;
                }
                Err(error) => {
                    all_resolved = false;
                    tracing::warn!(%bootstrap, %error, "a bootstrap address does not resolve");
                }
            }
        }
        tokio::time::sleep(if all_resolved { AGAIN } else { SOON }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootstrap_addresses_are_a_peer_and_where_it_is() {
        let peer = "07".repeat(32);
        for host in ["127.0.0.1:9300", "[::1]:9300", "node.example:1"] {
            let text = format!("{peer}@{host}");
            let read: Bootstrap = text.parse().unwrap();
            assert_eq!((read.peer, &*read.host), (PeerId([7; 32]), host));
            assert_eq!(read.to_string(), text);
        }
        for bad in ["", "@", "x:1", "x@", "x@y:1", "@y:1"].map(str::to_owned).into_iter().chain(
            ["", "y", "y:", "y:0", ":1", "::1:9300", "y:70000", "a b:1"]
                .map(|host| format!("{peer}@{host}")),
        ) {
            assert!(bad.parse::<Bootstrap>().is_err(), "{bad}");
        }
    }
}
