//! A node's report on itself: whether it is ready, which way it relies on, its status.

use std::time::{Duration, Instant};

use fragcast_turbine::health::{Reason, State};
use fragcast_turbine::net::Snapshot;
use fragcast_turbine::net::gossip::GossipHandle;
use fragcast_turbine::{
    AttachState, DelaysState, Lane, Led, MembersState, Mode, ReceiptsState, Schedule,
};
use serde_json::{Value, json};

use super::Reader;
use super::forks::{self, Stage};
use super::hints;
use super::state::NodeState;

/// Sealed blocks that the executor may be behind before the node is not ready.
const BEHIND: u64 = 16;

/// How the node has sent the last message that it led.
fn led_status(led: &Led, schedule: &Schedule) -> Value {
    json!({
        "block": led.block,
        "attempt": led.attempt,
        "rank": schedule.rank(led.attempt),
        "route": led.route.name(),
        "plan": format!("{:016x}", led.plan),
        "version": led.version,
    })
}

/// What of measured delays the node has.
fn delays_status(delays: &DelaysState) -> Value {
    json!({
        "measured": delays.measured,
        "reporters": delays.reporters,
        "pairs": delays.pairs,
        "medianMs": delays.median_micros.map(|micros| f64::from(micros) / 1e3),
        "coordinatesError": delays.coordinates_error,
        "generation": delays.generation,
    })
}

/// What receipts say: how long shreds take, which relays do not relay.
fn receipts_status(receipts: &ReceiptsState) -> Value {
    let ms = |micros: u32| f64::from(micros) / 1e3;
    let hops = receipts.hops.iter().map(|hop| {
        json!({ "hops": hop.hops, "medianMs": ms(hop.median_micros), "samples": hop.samples })
    });
    let regions = receipts.regions.iter().map(|of| {
        json!({ "region": of.region, "medianMs": ms(of.median_micros), "samples": of.samples })
    });
    json!({
        "sent": receipts.sent,
        "taken": receipts.taken,
        "reporters": receipts.reporters,
        "loss": receipts.loss,
        "excluded": receipts.excluded,
        "noHeads": receipts.no_heads,
        "hops": hops.collect::<Vec<Value>>(),
        "regions": regions.collect::<Vec<Value>>(),
    })
}

/// The guests of this node.
fn guests_status(net: &Snapshot) -> Value {
    let of_guests = [Lane::Guest, Lane::GuestBackfill].map(|lane| lane.name());
    let lanes = net.lanes.iter().filter(|lane| of_guests.contains(&lane.0));
    json!({
        "connected": net.guests,
        "served": net.guests_served,
        "places": net.guest_places,
        "bytes": lanes.map(|lane| lane.2).sum::<u64>(),
    })
}

/// From whom this node, a guest, takes messages.
fn attach_status(state: &AttachState) -> Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    json!({
        "primary": state.primary,
        "granted": state.granted,
        "others": state.others,
        "rttMs": state.round_trip.map(ms),
        "latenessMs": ms(state.lateness),
        "rotations": state.rotations,
        "loss": state.loss,
        "extra": state.extra,
    })
}

impl NodeState {
    /// Why the node is not ready, if it is not.
    pub fn not_ready(&self) -> Option<String> {
        let net = self.net.snapshot();
        let others = self.other_members();
        if let Some(store) = &self.store {
            let durable = store.stats().durable;
            if let Some(failure) = store.failure() {
                return Some(format!(
                    "the database is not written any more, block {durable} is the newest in it: \
                     {failure}; see to the disk and start again"
                ));
            }
            if let Some(trouble) = store.trouble() {
                return Some(format!(
                    "the database cannot be written, block {durable} is the newest in it: \
                     {trouble}; make room, it is tried again"
                ));
            }
        }
        if let Some(executor) = &self.executor {
            if executor.has_ended() {
                return Some("the executor has ended: see the log and start again".into());
            }
            let now = forks::now();
            let active = |(time, _): &&(u64, String)| forks::stage(*time, now) == Stage::Active;
            if let Some((time, fork)) = executor.spec().lacking().iter().find(active) {
                return Some(format!(
                    "the fork {fork} is active since {time}, which this build lacks, and no block is \
                     verified any more: update fragcast"
                ));
            }
            if executor.view().heads().is_none() {
                return Some("the state source has not told its head yet".into());
            }
            if let Some((first, last)) = net.catch_up.gap {
                let way_out = self.way_over_a_gap();
                return Some(format!(
                    "blocks {first} to {last} are missing here and no peer keeps them any more: \
                     {way_out}"
                ));
            }
            let latest = executor.view().heads().map_or(0, |heads| heads.latest.number());
            let sealed = self.with_progress(|p| p.sealed).unwrap_or(0);
            if sealed > latest + BEHIND {
                if let Some((first, last)) = net.catch_up.missing {
                    return Some(format!(
                        "catching up: peers are asked for blocks {first} to {last}"
                    ));
                }
                return Some(format!(
                    "block {} was not executed and block {sealed} is sealed: with client.url set \
                     the execution client would fill the gap",
                    latest + 1
                ));
            }
        }
        if let Some(reason) =
            self.registry.as_ref().and_then(|registry| registry.not_ready(Instant::now()))
        {
            return Some(reason);
        }
        let survey = self.survey();
        if survey.is_alone() {
            return survey.describe();
        }
        let by_gossip = self.gossip.as_ref().map_or(0, |gossip| gossip.snapshot().connections);
        let gossip = by_gossip > 0 && net.fallback.listening;
        if net.fallback.state == State::Gossip && by_gossip == 0 {
            return Some(format!("{}, and connected to nobody there", self.way()));
        }
        if net.connected > 0
            && net.attached.as_ref().is_some_and(|attached| attached.primary.is_none())
        {
            return Some("a guest that no member sends messages to yet".into());
        }
        (others > 0 && net.connected == 0 && !gossip).then(|| {
            let hint = self.hint();
            format!(
                "not connected to any of {others} peers, and nobody is heard on gossip either: {hint}"
            )
        })
    }

    /// What `/readyz` adds though the node is ready: that `pending` is too old to be told.
    pub fn stale_pending(&self) -> Option<String> {
        let eth = self.eth.get()?;
        let (age, stale) = eth.blocks.pending_age()?;
        stale.then(|| {
            format!(
                "pending is {:.1} s old and reads as latest: rpc.pending_max_age_ms is {}",
                age.as_secs_f64(),
                eth.config.pending_max_age_ms
            )
        })
    }

    /// Why nobody may be connected over the overlay, as far as this node can tell.
    pub fn hint(&self) -> String {
        hints::unconnected(self.net.local_addr(), self.peer, &self.net.epochs())
    }

    /// What the operator can do about blocks that no peer keeps.
    pub(crate) fn way_over_a_gap(&self) -> &'static str {
        match (&self.follow, &self.store) {
            (Some(_), _) => "the execution client (client.url) will bring them, if it has them",
            (None, Some(_)) => {
                "set client.url to an execution client of this chain or to a node that is level, or \
                 stop this node and copy execution.db from such a node, stopped as well"
            }
            (None, None) => "set client.url to an execution client of this chain",
        }
    }

    /// The way that this node relies on, as text.
    pub fn way(&self) -> String {
        let fallback = self.net.snapshot().fallback;
        let why = match fallback.reason {
            Some(Reason::NoRelay) => format!("{}: {}", Reason::NoRelay.describe(), self.hint()),
            reason => reason.map_or("", Reason::describe).to_owned(),
        };
        match (fallback.mode, fallback.state) {
            (Mode::Turbine, _) => "on the overlay alone, as ordered".into(),
            (Mode::Gossip, _) => "on gossip alone, as ordered".into(),
            (Mode::Auto, State::Turbine) if fallback.listening => {
                "on the overlay, and listening to gossip".into()
            }
            (Mode::Auto, State::Turbine) => "on the overlay".into(),
            (Mode::Auto, State::Probing) => format!("on the overlay, probing gossip: {why}"),
            (Mode::Auto, State::Gossip) => format!(
                "on gossip: {why}; back after {} blocks by the overlay alone, {} so far",
                fallback.dwell, fallback.streak
            ),
        }
    }

    fn gossip_status(&self) -> Value {
        let fallback = self.net.snapshot().fallback;
        let net = self.gossip.as_ref().map(GossipHandle::snapshot);
        let counters = self.net.snapshot().counters;
        let (first, last) = self.with_progress(|p| {
            let first: serde_json::Map<String, Value> =
                p.first().map(|(way, n)| (way.to_owned(), n.into())).collect();
            let last = p.changes.back().map(|change| {
                json!({
                    "from": change.from.name(),
                    "to": change.to.name(),
                    "reason": change.reason.name(),
                    "block": change.block,
                    "at": change.at.as_micros(),
                })
            });
            (first, last)
        });
        json!({
            "policy": fallback.policy,
            "mode": fallback.mode,
            "state": fallback.state.name(),
            "way": self.way(),
            "listening": fallback.listening,
            "dwell": fallback.dwell,
            "streak": fallback.streak,
            "lastChange": last,
            "connected": net.as_ref().map(|n| n.connections),
            "barred": net.as_ref().map(|n| n.barred.iter().map(|(_, n)| n).sum::<u64>()),
            "listeners": fallback.listeners,
            "published": net.as_ref().map(|n| n.published + n.caught_up),
            "received": counters.gossip,
            "first": first,
            "race": self.races.status(),
        })
    }

    fn execution_status(&self) -> Value {
        let Some(executor) = &self.executor else { return Value::Null };
        let stats = executor.stats().snapshot();
        let heads = executor.view().heads();
        let latest = heads.as_ref().map(|heads| (heads.latest.number(), heads.latest.hash()));
        let store = self.store.as_ref().map(|store| store.stats());
        json!({
            "latest": latest.map(|(number, _)| number),
            "latestHash": latest.map(|(_, hash)| hash),
            "pending": heads.as_ref().and_then(|h| h.pending.as_ref()).map(|p| p.header.number),
            "pendingStale": self.stale_pending(),
            "durable": stats.durable,
            "verified": stats.verdicts.get("verified").copied().unwrap_or(0),
            "rejected": stats.verdicts.get("rejected").copied().unwrap_or(0),
            "unverified": stats.verdicts.get("unverified").copied().unwrap_or(0),
            "imported": stats.imported,
            "queued": executor.queued(),
            "overrun": stats.overrun,
            "evicted": stats.evicted,
            "lacks": forks::status(executor.spec(), forks::now()),
            "storeFailure": self.store.as_ref().and_then(|s| s.failure().or_else(|| s.trouble())),
            "databaseBytes": store.map(|store| store.file_bytes),
        })
    }

    /// Members who come and go.
    fn tables_status(&self, state: &MembersState, reader: Reader) -> Value {
        json!({
            "fromBlock": state.from_block,
            "members": state.members,
            "isMember": state.is_member,
            "records": state.records,
            "taken": state.taken,
            "refused": state.refused,
            "reason": state.reason,
            "weights": self.weights.as_ref().map(|weights| weights.json(reader)),
        })
    }

    /// The last blocks that substitutes have opened, the newest first.
    fn substituted_status(&self) -> Vec<Value> {
        const SHOWN: usize = 16;
        self.with_progress(|p| {
            let newest = p.substituted.iter().rev().take(SHOWN);
            let of = newest.map(
                |(block, of)| json!({ "block": block, "rank": of.rank, "gateway": of.gateway }),
            );
            of.collect()
        })
    }

    /// How many members there are beside this node.
    fn other_members(&self) -> usize {
        let epochs = self.net.epochs();
        epochs.members().filter(|(_, member)| member.peer() != self.peer).count()
    }

    /// What the operator is told.
    pub fn status(&self) -> Value {
        self.status_for(Reader::Operator)
    }

    /// What `fragcast status` shows, which asks the public JSON-RPC unless it is told otherwise.
    pub fn status_for(&self, reader: Reader) -> Value {
        let net = self.net.snapshot();
        let (opened, sealed) = self.with_progress(|p| (p.opened, p.sealed));
        let next = opened.map_or(0, |block| block.saturating_add(1));
        let peers: Vec<Value> = net
            .round_trips
            .iter()
            .map(|(peer, rtt)| json!({ "peer": peer, "rttMs": rtt.as_secs_f64() * 1e3 }))
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "chainId": self.network.chain_id,
            "dialect": self.network.dialect.name(),
            "peer": self.peer,
            "leads": self.leads(),
            "delegation": self.delegation.as_ref().map(|delegation| delegation.json(reader)),
            "opened": opened,
            "sealed": sealed,
            "nextGateway": self.net.epochs().gateway(next),
            "substitutes": self.network.schedule.substitutes(),
            "substituted": self.substituted_status(),
            "members": net.members,
            "connected": net.connected,
            "wanted": net.wanted,
            "guests": guests_status(&net),
            "guest": net.attached.as_ref().map(attach_status),
            "peers": peers,
            "registry": self
                .registry
                .as_ref()
                .map(|registry| registry.status(Instant::now(), reader)),
            "tables": net.members_state.live.then(|| self.tables_status(&net.members_state, reader)),
            "gossip": self.gossip_status(),
            "delivered": net.counters.delivered,
            "repaired": net.counters.repaired,
            "window": [net.window.0, net.window.1],
            "catchUp": {
                "verified": net.catch_up.verified,
                "missing": net.catch_up.missing,
                "gap": net.catch_up.gap,
            },
            "delays": delays_status(&net.delays),
            "led": self.with_progress(|p| {
                p.led.back().map(|led| led_status(led, &self.network.schedule))
            }),
            "receipts": receipts_status(&net.receipts),
            "execution": self.execution_status(),
            "flashblocks": self.flashblocks.get().map(|stats| stats.status()),
            "differences": self.survey().texts,
            "ready": self.not_ready().is_none(),
            "outcomes": net.outcomes.iter().filter(|(_, n)| *n > 0)
                .map(|(o, n)| (o.label().to_owned(), n.into()))
                .collect::<serde_json::Map<String, Value>>(),
        })
    }
}
