//! The links of gossip, and the holders that publish a message for a listener.
//!
//! Both are functions of a membership table, so that everybody computes the same. Two members of
//! a table are linked if the hash of the pair is low enough for [`LINKS`] links a member on
//! average: a random graph that needs no discovery, and of which each end can tell the other's
//! links. A message is published by the holders with the lowest hash of message and holder, the
//! same for all listeners, so that listeners with the same neighbours get the same few copies
//! instead of a few each.

use std::collections::BTreeSet;

use alloy_primitives::B256;

use crate::epoch::EpochsView;
use crate::membership::PeerIndex;
use crate::peer::PeerId;

/// Links of a member on average. Networks that are not larger are linked completely.
pub const LINKS: usize = 48;

/// Holders beside the leader that publish for one listener.
pub const HOLDERS: usize = 2;

fn key(context: &[u8], first: &[u8], second: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("fragcast 2026 gossip links");
    hasher.update(context).update(first).update(second);
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("32 bytes"))
}

/// Whether two members of a table of `members` are linked.
pub fn linked(a: &PeerId, b: &PeerId, members: usize) -> bool {
    if a == b {
        return false;
    }
    if members <= LINKS + 1 {
        return true;
    }
    let share = LINKS as f64 / (members - 1) as f64;
    key(b"pair", &a.0.min(b.0), &a.0.max(b.0)) < (share * u64::MAX as f64) as u64
}

/// The links of member `me`.
pub fn links(me: PeerIndex, members: &[PeerId]) -> Vec<PeerIndex> {
    let Some(own) = members.get(me as usize) else { return Vec::new() };
    let linked = (0..).zip(members).filter(|(_, peer)| linked(own, peer, members.len()));
    linked.map(|(index, _)| index).collect()
}

/// The members that `me` is linked to by the tables of any epoch that lives.
pub fn neighbours(me: &PeerId, epochs: &EpochsView) -> BTreeSet<PeerId> {
    let tables = epochs.epochs().iter().map(|epoch| epoch.members());
    let linked = tables.filter(|table| table.index(me).is_some()).flat_map(|table| {
        let others = table.members().iter().map(|member| member.peer());
        others.filter(|other| linked(me, other, table.len()))
    });
    linked.collect()
}

/// The place of `holder` among those who could publish the message `root`: the lowest do.
pub fn rank(root: &B256, holder: PeerIndex) -> u64 {
    key(b"rank", root.as_slice(), &holder.to_le_bytes())
}

#[cfg(test)]
mod tests;
