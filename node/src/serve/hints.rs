//! Why nobody may be connected over the overlay, as far as this node can tell by itself.

use std::net::SocketAddr;
use std::path::Path;

use fragcast_turbine::{EpochsView, PeerId};

/// What a path must carry for QUIC to work at all: 1,200 bytes of payload, with the headers of UDP
/// and IPv4.
const LEAST_MTU: u32 = 1_228;

/// Whether a socket bound to `local` can send to `to`. One that is bound to all IPv6 addresses
/// speaks IPv4 as well.
fn reaches(local: SocketAddr, to: SocketAddr) -> bool {
    to.is_ipv4() == local.is_ipv4() || (local.is_ipv6() && local.ip().is_unspecified())
}

/// Members none of whose addresses can be reached from `local`.
fn unreachable(local: SocketAddr, me: PeerId, epochs: &EpochsView) -> (usize, usize) {
    let others = epochs.members().filter(|(_, member)| member.peer() != me);
    let (mut count, mut all) = (0, 0);
    for (_, member) in others {
        all += 1;
        count += usize::from(!member.addresses().any(|to| reaches(local, to)));
    }
    (count, all)
}

/// Network interfaces, as Linux lists them under `root`, that cannot carry a datagram.
fn narrow(root: &Path) -> Vec<(String, u32)> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut narrow: Vec<(String, u32)> = entries
        .filter_map(|entry| {
            let read = |name| std::fs::read_to_string(entry.path().join(name)).ok();
            if read("operstate").is_some_and(|state| state.trim() == "down") {
                return None;
            }
            let mtu = read("mtu")?.trim().parse().ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), mtu))
        })
        .filter(|(_, mtu)| *mtu < LEAST_MTU)
        .collect();
    narrow.sort();
    narrow
}

/// The most likely reason why nobody is connected to a node that listens at `local`, and what to
/// do.
pub fn unconnected(local: SocketAddr, me: PeerId, epochs: &EpochsView) -> String {
    explain(local, unreachable(local, me, epochs), &narrow(Path::new("/sys/class/net")))
}

fn explain(
    local: SocketAddr,
    (unreachable, all): (usize, usize),
    narrow: &[(String, u32)],
) -> String {
    let mut reasons = Vec::new();
    if unreachable > 0 {
        let (ours, theirs) = if local.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
        reasons.push(format!(
            "{unreachable} of {all} members have {theirs} addresses only, and p2p.listen is \
             {ours}: listen at [::] to speak both"
        ));
    }
    for (name, mtu) in narrow {
        reasons.push(format!(
            "the interface {name} has an MTU of {mtu}, and QUIC needs {LEAST_MTU}: if members are \
             reached over it, raise it"
        ));
    }
    if unreachable < all || all == 0 {
        let also = if reasons.is_empty() { "" } else { "else: " };
        reasons.push(format!(
            "{also}is UDP blocked, does the path carry {LEAST_MTU} bytes, are the members' \
             addresses right?"
        ));
    }
    reasons.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_that_cannot_meet_are_named() {
        let (four, six) = (at("192.0.2.1:1"), at("[2001:db8::1]:1"));
        for (local, to, reached) in [
            (at("0.0.0.0:9300"), four, true),
            (at("0.0.0.0:9300"), six, false),
            (at("[::]:9300"), four, true),
            (at("[::]:9300"), six, true),
            (six, four, false),
            (six, six, true),
        ] {
            assert_eq!(reaches(local, to), reached, "{local} {to}");
        }
        let text = explain(four, (2, 2), &[]);
        assert!(text.contains("2 of 2 members have IPv6 addresses only"), "{text}");
        assert!(text.contains("listen at [::]") && !text.contains("UDP blocked"), "{text}");
        let text = explain(four, (1, 2), &[]);
        assert!(text.contains("1 of 2") && text.contains("else: is UDP blocked"), "{text}");
    }

    #[test]
    fn an_interface_that_is_too_narrow_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for (name, mtu, state) in
            [("eth0", "1500", "up"), ("wg0", "1200", "unknown"), ("tun9", "500", "down")]
        {
            let at = dir.path().join(name);
            std::fs::create_dir(&at).unwrap();
            std::fs::write(at.join("mtu"), format!("{mtu}\n")).unwrap();
            std::fs::write(at.join("operstate"), format!("{state}\n")).unwrap();
        }
        let found = narrow(dir.path());
        assert_eq!(found, [("wg0".to_owned(), 1_200)]);
        let text = explain(at("[::]:9300"), (0, 3), &found);
        assert!(text.starts_with("the interface wg0 has an MTU of 1200"), "{text}");
        assert_eq!(narrow(&dir.path().join("none")), []);
    }
}
