//! The sections of a node's picture that are read off its state.

use fragcast_turbine::health::{Change, Reason};
use fragcast_turbine::net::{LinkSnapshot, Snapshot, Spread};
use fragcast_turbine::{EpochsView, Membership, PeerId, PeerIndex, Timestamp};
use serde_json::{Value, json};

use super::super::state::{NodeState, Progress};

/// Changes of the way that are told.
const CHANGES: usize = 8;
/// Peers that are told with their numbers.
const PEERS: usize = 256;
/// The largest network whose tree is told.
pub(super) const TREE: usize = 1_024;

/// The first digits of a peer id.
fn short(peer: &PeerId) -> String {
    format!("{peer:?}")
}

pub(super) fn node(state: &NodeState, net: &Snapshot) -> Value {
    let why = state.not_ready();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "chainId": state.network.chain_id,
        "dialect": state.network.dialect.name(),
        "peer": state.peer,
        "short": short(&state.peer),
        "leads": state.leads(),
        "guest": net.attached.is_some(),
        "members": net.members,
        "connected": net.connected,
        "wanted": net.wanted,
        "guests": net.guests,
        "executes": state.executor.is_some(),
        "ready": why.is_none(),
        "why": why,
    })
}

fn leader(state: &NodeState, epochs: &EpochsView, block: u64) -> Option<Value> {
    let gateway = epochs.gateway(block)?;
    let peer = epochs.leader(block).map(|leader| leader.peer);
    Some(json!({
        "block": block,
        "gateway": gateway,
        "peer": peer,
        "short": peer.as_ref().map(short),
        "me": peer == Some(state.peer),
    }))
}

pub(super) fn chain(state: &NodeState, last: Option<Timestamp>) -> Value {
    let (opened, sealed) = state.with_progress(|p| (p.opened, p.sealed));
    let epochs = state.net.epochs();
    let block = opened.unwrap_or_default();
    let next = epochs.next_terms(block).next().and_then(|(_, first)| {
        let mut next = leader(state, &epochs, first)?;
        next["from"] = first.into();
        Some(next)
    });
    let heads = state.executor.as_ref().and_then(|executor| executor.view().heads());
    json!({
        "opened": opened,
        "sealed": sealed,
        "last": last.map(Timestamp::as_micros),
        "latest": heads.as_ref().map(|heads| heads.latest.number()),
        "pending": heads.as_ref().and_then(|h| h.pending.as_ref()).map(|p| p.header.number),
        "durable": state.store.as_ref().map(|store| store.stats().durable),
        "leader": leader(state, &epochs, block),
        "next": next,
    })
}

fn change(change: &Change) -> Value {
    json!({
        "from": change.from.name(),
        "to": change.to.name(),
        "reason": change.reason.name(),
        "text": change.reason.describe(),
        "block": change.block,
        "at": change.at.as_micros(),
    })
}

pub(super) fn way(state: &NodeState, net: &Snapshot) -> Value {
    let fallback = net.fallback;
    let changes: Vec<Value> =
        state.with_progress(|p| p.changes.iter().rev().take(CHANGES).map(change).collect());
    let gossip = state.gossip.as_ref().map(|gossip| gossip.snapshot().connections);
    json!({
        "state": fallback.state.name(),
        "mode": fallback.mode,
        "policy": fallback.policy,
        "listening": fallback.listening,
        "text": state.way(),
        "reason": fallback.reason.map(Reason::name),
        "dwell": fallback.dwell,
        "streak": fallback.streak,
        "listeners": fallback.listeners,
        "gossipPeers": gossip,
        "changes": changes,
    })
}

pub(super) fn counts(state: &NodeState, net: &Snapshot) -> Value {
    let counters = &net.counters;
    let event = |name: &str| {
        let of = |p: &Progress| p.events().find(|(kind, _)| *kind == name).map_or(0, |(_, n)| n);
        state.with_progress(of)
    };
    json!({
        "delivered": counters.delivered,
        "repaired": counters.repaired,
        "repairRequested": counters.repair_requested,
        "repairUseful": counters.repair_useful,
        "repairGivenUp": counters.repair_given_up,
        "recovered": counters.recovered,
        "forwarded": counters.forwarded,
        "gossip": counters.gossip,
        "gossipFirst": counters.gossip_first,
        "equivocations": event("equivocation"),
        "delegatedTwice": event("delegated_twice"),
        "badParity": event("bad_parity"),
        "badMessages": event("bad_message"),
        "barred": event("barred"),
        "retracted": event("retracted"),
        "mismatches": event("mismatch"),
        "injected": net.drops.iter().find(|(name, _)| *name == "injected").map(|(_, n)| n),
    })
}

pub(super) fn latency(state: &NodeState, net: &Snapshot, (recent, first): (Value, Value)) -> Value {
    let ms = |micros: u32| f64::from(micros) / 1e3;
    let hops = net.receipts.hops.iter().map(|hop| {
        json!({ "hops": hop.hops, "medianMs": ms(hop.median_micros), "samples": hop.samples })
    });
    let regions = net.receipts.regions.iter().map(|of| {
        json!({ "region": of.region, "medianMs": ms(of.median_micros), "samples": of.samples })
    });
    json!({
        "recent": recent,
        "first": first,
        "hops": hops.collect::<Vec<Value>>(),
        "regions": regions.collect::<Vec<Value>>(),
        "race": state.races.status(),
    })
}

pub(super) fn peers(state: &NodeState, net: &Snapshot) -> Value {
    let epochs = state.net.epochs();
    // The places are those of the tree that is drawn, if one is.
    let members = net.spread.as_ref().map_or_else(|| epochs.newest().members(), Spread::members);
    let list: Vec<Value> = net
        .links
        .iter()
        .take(PEERS)
        .map(|link| {
            json!({
                "peer": short(&link.peer),
                "member": members.index(&link.peer),
                // Tenths of a millisecond: what is finer changes with every look.
                "rttMs": (link.round_trip.as_secs_f64() * 1e4).round() / 10.0,
                "in": link.received,
                "out": link.sent,
            })
        })
        .collect();
    let more = net.links.len() - list.len();
    json!({ "list": list, "more": more })
}

/// The members that this node is connected to, by their places in the tree: of all of them, also of those
/// that [`peers`] has no room for.
pub(super) fn linked(net: &Snapshot) -> Value {
    let members = net.spread.as_ref().map(Spread::members);
    let members = members.filter(|members| members.members().len() <= TREE);
    members.map_or(Value::Null, |members| places(members, &net.links).into())
}

fn places(members: &Membership, links: &[LinkSnapshot]) -> Vec<PeerIndex> {
    let places = links.iter().filter_map(|link| members.index(&link.peer));
    let mut places: Vec<PeerIndex> = places.collect();
    // In an order that does not change with the connections', so that the section stays the same.
    places.sort_unstable();
    places
}

pub(super) fn tree(state: &NodeState, spread: &Spread) -> Value {
    let members = spread.members().members();
    if members.len() > TREE {
        return Value::Null;
    }
    let parents = spread.parents();
    let depth = |mut at: u32| {
        let mut depth = 0_u32;
        // A tree has no circle, and a depth is below the number of members in any case.
        while at != spread.leader && (depth as usize) < parents.len() {
            at = parents.get(at as usize).copied().flatten()?;
            depth += 1;
        }
        Some(depth)
    };
    let depths: Vec<Option<u32>> = (0..parents.len() as u32).map(depth).collect();
    json!({
        "block": spread.key.block,
        "attempt": spread.key.attempt,
        "message": spread.key.message,
        "route": spread.route.name(),
        "plan": format!("{:016x}", spread.plan_id()),
        "leader": spread.leader,
        "me": spread.members().index(&state.peer),
        "peers": members.iter().map(|member| short(&member.peer())).collect::<Vec<String>>(),
        "regions": (0..parents.len() as u32).map(|i| spread.region(i)).collect::<Vec<u16>>(),
        "parents": parents,
        "depths": depths,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fragcast_turbine::membership::sample;

    use super::*;

    #[test]
    fn of_all_members_is_told_whether_they_are_connected() {
        let (members, _) = sample(901, &[1; 400]);
        let link = |member: &fragcast_turbine::Member| LinkSnapshot {
            peer: member.peer(),
            round_trip: Duration::from_millis(1),
            sent: 0,
            received: 0,
        };
        // All but the first, in no order, and a guest whom no table names.
        let mut links: Vec<LinkSnapshot> =
            members.members().iter().skip(1).rev().map(link).collect();
        links.push(LinkSnapshot { peer: PeerId([7; 32]), ..links[0] });
        let linked = places(&members, &links);
        assert_eq!(linked, (1..400).collect::<Vec<PeerIndex>>());
    }
}
