//! Whom this node is to be connected to: the [rule](crate::peering) over the plans that it has.

use std::sync::Arc;

use super::ctx::Ctx;
use super::delays::{Audience, Delays};
use super::epochs::Living;
use crate::peer::PeerKey;
use crate::peering::{self, Leads, Ring};
use crate::plan::PlanView;

/// Peers by way of which a leader is told of delays that this node is not to be connected to: they
/// are, unless something has failed.
const BY_WAY_OF: usize = 3;

/// Whether connections are too few for everybody, in the epochs that live.
pub(super) fn is_bounded(ctx: &Ctx) -> bool {
    peering::is_bounded(ctx.peers.len(), ctx.config.connections)
}

/// The leaders of an audience by their places, with their plans that are or may be in force: first
/// those that are likely to be, of all leaders, then the others.
fn leads<'a>(ctx: &'a Ctx, living: &'a Living, audience: &Audience) -> Vec<Leads<'a>> {
    let now = ctx.now.as_micros() / 1_000_000;
    let (mut leads, mut others) = (Vec::new(), Vec::new());
    for leader in &audience.leaders {
        let Some((id, place)) = ctx.peers.table().peer(*leader).zip(living.index(*leader)) else {
            continue;
        };
        let own = living.epoch().delegations().iter().filter(|known| known.peer == id);
        let keys: std::collections::BTreeSet<[u8; 32]> =
            own.map(|known| *known.key.as_bytes()).collect();
        let before = leads.len();
        for key in &keys {
            let mut plans = living.plans.followed(key, now);
            let with = |plan: &'a Arc<PlanView>| Leads { leader: place, plan: Some(&**plan) };
            leads.extend(plans.next().map(with));
            others.extend(plans.map(with));
        }
        if leads.len() == before {
            leads.push(Leads { leader: place, plan: None });
        }
    }
    leads.append(&mut others);
    leads
}

/// The peers that this node is to be connected to, those that matter most first; `None` if it is
/// everybody.
pub(super) fn wanted(ctx: &Ctx) -> Option<Vec<PeerKey>> {
    let most = ctx.config.connections;
    if !is_bounded(ctx) {
        return None;
    }
    let audiences = Delays::audiences(ctx);
    let mut all: Vec<PeerKey> = Vec::new();
    let mut known = std::collections::BTreeSet::new();
    // The newest epoch first: it is where this node will be.
    let living: Vec<&Living> = ctx.epochs.iter().collect();
    for living in living.into_iter().rev() {
        let Some(me) = living.me() else { continue };
        let members = living.members();
        let wanted = if peering::is_bounded(members, most) {
            let table = living.epoch().members().hash();
            let audience = audiences.iter().find(|audience| audience.table == table);
            let leads = audience.map(|audience| leads(ctx, living, audience));
            peering::wanted(living.ring(most), &leads.unwrap_or_default(), me, most)
        } else {
            (0..members as u32).filter(|member| *member != me).collect()
        };
        let keys = wanted.into_iter().map(|member| living.key(member));
        all.extend(keys.filter(|key| known.insert(*key)));
    }
    all.truncate(most);
    Some(all)
}

/// The connected peers that the rule connects to the leaders of an audience, a few of them drawn;
/// `None` if everybody is connected to everybody.
pub(super) fn reaching(ctx: &Ctx, audience: &Audience) -> Option<Vec<PeerKey>> {
    if !is_bounded(ctx) {
        return None;
    }
    let same = |living: &&Living| living.epoch().members().hash() == audience.table;
    let living = ctx.epochs.iter().filter(same).last()?;
    let ring: &Ring = living.ring(ctx.config.connections);
    let plans: Vec<_> =
        leads(ctx, living, audience).into_iter().filter_map(|leads| leads.plan).collect();
    let reaches = |peer: &PeerKey| {
        living.index(*peer).is_some_and(|peer| {
            ring.landmarks().binary_search(&peer).is_ok()
                || plans.iter().any(|plan| plan.relays().binary_search(&peer).is_ok())
        })
    };
    let mut peers: Vec<PeerKey> = ctx.peers.iter_connected().filter(reaches).collect();
    let turn = ctx.now.as_micros() as usize + ctx.me().number() as usize;
    if !peers.is_empty() {
        let first = turn % peers.len();
        peers.rotate_left(first);
    }
    peers.truncate(BY_WAY_OF);
    Some(peers)
}

/// The plans that a peer is offered whose connection is up: those of the leaders that count. Their
/// leaders reach some peers only.
pub(super) fn offers(ctx: &Ctx) -> Vec<u64> {
    if !is_bounded(ctx) {
        return Vec::new();
    }
    let plans = Delays::audiences(ctx).into_iter().flat_map(|audience| {
        let living: Vec<&Living> = ctx.epochs.iter().collect();
        living.into_iter().flat_map(move |living| leads(ctx, living, &audience))
    });
    let mut ids: Vec<u64> = plans.filter_map(|leads| Some(leads.plan?.id())).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
