//! Guests: nodes that no table names, and that take messages from a few members.
//!
//! They are the last nodes of the world. Each asks its protocol once a second to whom it is to be
//! connected, as the daemon does; calls succeed at once, unless the member has no place and says so,
//! and who is not wanted any more is let go. Round trips are measured as those of members, but to all of the few.

use std::collections::{BTreeMap, BTreeSet};

use fragcast_turbine::{PeerKey, Protocol, Timestamp};

use super::epochs::Keys;
use crate::NodeId;

/// The guests that a member knows: keys by node, and nodes by key.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) keys: BTreeMap<NodeId, PeerKey>,
    pub(super) nodes: BTreeMap<PeerKey, NodeId>,
}

/// Changes the guests' connections to what they want. Returns the nodes that have new ones or lost
/// some: their protocols must be drained.
pub(super) fn follow(
    nodes: &mut [Protocol],
    keys: &mut Keys,
    now: Timestamp,
    is_up: impl Fn(NodeId) -> bool,
) -> BTreeSet<NodeId> {
    let mut touched = BTreeSet::new();
    let Keys::Guests { members, known } = keys else { return touched };
    for guest in (*members..nodes.len() as NodeId).filter(|guest| is_up(*guest)) {
        let protocol = &nodes[guest as usize];
        let wanted = protocol.wanted_connections().unwrap_or_default();
        let wanted: BTreeSet<NodeId> = wanted.into_iter().map(|peer| peer.number()).collect();
        let before: BTreeSet<NodeId> =
            protocol.connected_peers().map(|peer| peer.number()).collect();
        let id = protocol.epochs().peers().peer(protocol.me()).expect("it knows itself");
        for member in before.difference(&wanted) {
            let known = &mut known[*member as usize];
            if let Some(key) = known.keys.remove(&guest) {
                known.nodes.remove(&key);
                nodes[*member as usize].handle_disconnected(key);
            }
            nodes[guest as usize].handle_disconnected((*member).into());
            touched.extend([*member, guest]);
        }
        for member in wanted.difference(&before).filter(|member| is_up(**member)) {
            let Some(key) = nodes[*member as usize].handle_guest(now, id) else {
                nodes[guest as usize].handle_refused(now, (*member).into());
                touched.insert(guest);
                continue;
            };
            let known = &mut known[*member as usize];
            known.keys.insert(guest, key);
            known.nodes.insert(key, guest);
            nodes[*member as usize].handle_connected(key);
            nodes[guest as usize].handle_connected((*member).into());
            touched.extend([*member, guest]);
        }
    }
    touched
}
