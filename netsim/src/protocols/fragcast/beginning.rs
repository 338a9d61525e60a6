//! The state of the nodes when a run begins: connected, with the current block open.

use std::collections::BTreeMap;

use fragcast_shredder::{Kind, MessageKey};
use fragcast_turbine::{Payload, Protocol, Timestamp};

use super::epochs::Keys;
use super::{EPOCH, following, gateway_key, messages};
use crate::load::{Broadcast, Load};
use crate::{NodeId, SECONDS};

/// Opens the blocks of a load that begins in mid-block, such as a single frag: every node has the
/// Env, since otherwise all would ask for it.
pub(super) fn open_blocks(nodes: &mut [Protocol], keys: &Keys, load: &Load) {
    let mut blocks: BTreeMap<u64, &Broadcast> = BTreeMap::new();
    for broadcast in &load.broadcasts {
        let first = blocks.entry(broadcast.key.block).or_insert(broadcast);
        if broadcast.key.message < first.key.message {
            *first = broadcast;
        }
    }
    for (block, first) in blocks.into_iter().filter(|(_, first)| first.key.message > 0) {
        let key = MessageKey { block, attempt: first.key.attempt, message: 0 };
        let env = Broadcast { key, kind: Kind::Env, ..*first };
        let message = messages::signed(&env, 0, &gateway_key(env.leader));
        let leader = &mut nodes[env.leader as usize];
        let mut now = Timestamp::from_nanos(EPOCH - 60 * SECONDS);
        leader.broadcast(now, key, &message).expect("it leads, and its lanes are wide");
        // Every node gets each shred once, without delay.
        let mut shreds = std::collections::BTreeSet::new();
        loop {
            while let Some(transmit) = leader.poll_transmit(now) {
                if let Payload::Shred(bytes) = transmit.payload {
                    shreds.insert(bytes);
                }
            }
            match leader.egress().next_at(now) {
                Some(at) => now = now.max(at),
                None => break,
            }
        }
        for (index, node) in nodes.iter_mut().enumerate() {
            let sender = keys.key(index as NodeId, env.leader);
            if let Some(sender) = sender.filter(|_| index as NodeId != env.leader) {
                let burst = shreds.iter().map(|bytes| (sender, bytes.clone()));
                node.handle_datagrams(now, burst);
            }
            while node.poll_event().is_some() {}
            // All that they would forward, check or tell is done before the run begins, since the
            // block has been open for longer than nodes send tips of an open block.
            for at in [now, Timestamp::from_nanos(EPOCH - 40 * SECONDS)] {
                node.handle_timeout(at);
                while node.poll_transmit(at).is_some() {}
            }
        }
    }
}

/// Connects every node to every other, or, where they may not have as many connections, as the rule
/// says that the daemon follows.
pub(super) fn connect(nodes: &mut [Protocol], limit: u32) {
    let n = nodes.len();
    match following::targets(nodes, limit) {
        None => {
            for (me, node) in nodes.iter_mut().enumerate() {
                node.assume_connected((0..n).filter(|peer| *peer != me).map(|peer| peer as NodeId));
            }
        }
        Some(peers) => {
            for (node, peers) in nodes.iter_mut().zip(peers) {
                node.assume_connected(peers);
            }
        }
    }
}
