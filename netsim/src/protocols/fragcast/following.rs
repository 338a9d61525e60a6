//! Connections that follow the plan, in a network of more nodes than a node has connections.
//!
//! Every node asks its protocol whom it is to be connected to, as the daemon does once a second. Two
//! nodes are connected if either wants it and both have room; calls succeed at once, and who is
//! wanted by neither end any more is let go. In a network in which everybody is connected to
//! everybody nothing is ever changed here.

use std::collections::{BTreeMap, BTreeSet};

use fragcast_turbine::Protocol;

use crate::NodeId;

/// By node: whom it is to be connected to. `None` if that is everybody.
///
/// Only for networks of one table, where the keys of nodes are their numbers.
pub(super) fn targets(nodes: &[Protocol], limit: u32) -> Option<Vec<BTreeSet<NodeId>>> {
    if nodes.len() <= limit as usize + 1 {
        return None;
    }
    let mut peers: Vec<BTreeSet<NodeId>> = vec![BTreeSet::new(); nodes.len()];
    let wanted: Vec<Vec<NodeId>> = nodes
        .iter()
        .map(|node| {
            let wanted = node.wanted_connections().unwrap_or_default();
            wanted.into_iter().map(|peer| peer.number()).collect()
        })
        .collect();
    // What matters most to both ends first. What only one end wants comes after what the other does.
    let mut places: BTreeMap<(NodeId, NodeId), (usize, u8)> = BTreeMap::new();
    for (me, wanted) in (0..).zip(&wanted) {
        for (place, other) in wanted.iter().enumerate() {
            let pair = places.entry((me.min(*other), me.max(*other))).or_default();
            *pair = (pair.0.max(place), pair.1 + 1);
        }
    }
    let late = |(place, ends): (usize, u8)| place + if ends < 2 { limit as usize } else { 0 };
    let mut pairs: Vec<(usize, (NodeId, NodeId))> =
        places.into_iter().map(|(pair, place)| (late(place), pair)).collect();
    pairs.sort_unstable();
    for (_, (one, other)) in pairs {
        let has_room = |node: NodeId| peers[node as usize].len() < limit as usize;
        if has_room(one) && has_room(other) {
            peers[one as usize].insert(other);
            peers[other as usize].insert(one);
        }
    }
    Some(peers)
}

/// What has become of connections.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// The nodes that have new ones or lost some: their protocols must be drained.
    pub(super) touched: Vec<NodeId>,
    /// The pairs that are connected no more, the lower node first.
    pub(super) parted: Vec<(NodeId, NodeId)>,
}

/// Changes connections to what they are to be.
pub(super) fn follow(nodes: &mut [Protocol], limit: u32) -> Followed {
    let mut followed = Followed::default();
    let Some(targets) = targets(nodes, limit) else { return followed };
    for ((me, node), target) in (0..).zip(&mut *nodes).zip(targets) {
        let before: BTreeSet<NodeId> = node.connected_peers().map(|peer| peer.number()).collect();
        for peer in before.difference(&target) {
            node.handle_disconnected((*peer).into());
            if me < *peer {
                followed.parted.push((me, *peer));
            }
        }
        target.difference(&before).for_each(|peer| node.handle_connected((*peer).into()));
        if before != target {
            followed.touched.push(me);
        }
    }
    followed
}
