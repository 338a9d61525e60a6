//! Whom we call: linked members and bootstrap peers, with growing pauses, for as long as it
//! takes.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use super::identity::libp2p_id_of;
use super::{GossipNetConfig, GossipNetError};
use crate::gossip::links;
use crate::membership::{Membership, PeerIndex};

/// After a connection that lived this long the pauses start again from the shortest.
const GOOD: Duration = Duration::from_secs(10);

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Called next at this time.
    Waiting(Instant),
    Dialling,
    /// Since.
    Connected(Instant),
}

#[derive(Debug)]
struct Target {
    addresses: Vec<Multiaddr>,
    /// Before the first call after a connection was lost.
    patience: Duration,
    pause: Duration,
    state: State,
}

/// Those that we call.
#[derive(Debug)]
pub(super) struct Targets {
    targets: BTreeMap<PeerId, Target>,
    backoff: (Duration, Duration),
}

impl Targets {
    pub(super) fn new(
        config: &GossipNetConfig,
        members: &Membership,
        me: PeerIndex,
        mut addresses: BTreeMap<PeerIndex, Vec<Multiaddr>>,
    ) -> Result<Self, GossipNetError> {
        let mut targets = Self { targets: BTreeMap::new(), backoff: config.backoff };
        let peers: Vec<_> = members.members().iter().map(|member| member.peer()).collect();
        let own = peers.get(me as usize).and_then(libp2p_id_of);
        for index in links::links(me, &peers) {
            let Some(id) = peers.get(index as usize).and_then(libp2p_id_of) else { continue };
            // Both ends know of the link: the lower index calls, the other waits for it first.
            let patience = if me < index { Duration::ZERO } else { config.patience };
            for address in addresses.remove(&index).unwrap_or_default() {
                match peer_in(&address) {
                    Some(found) if found != id => {
                        let (member, expected, found) = (index, id.into(), found.into());
                        return Err(GossipNetError::OtherPeer { address, member, expected, found });
                    }
                    _ => targets.add(id, address, patience)?,
                }
            }
        }
        for address in &config.bootstrap {
            let id = peer_in(address).ok_or_else(|| GossipNetError::NoPeer(address.clone()))?;
            if Some(id) != own {
                targets.add(id, address.clone(), Duration::ZERO)?;
            }
        }
        Ok(targets)
    }

    fn add(
        &mut self,
        peer: PeerId,
        address: Multiaddr,
        patience: Duration,
    ) -> Result<(), GossipNetError> {
        if !address.iter().any(|part| matches!(part, Protocol::Tcp(_))) {
            return Err(GossipNetError::Unsupported(address));
        }
        let target = self.targets.entry(peer).or_insert_with(|| Target {
            addresses: Vec::new(),
            patience,
            pause: self.backoff.0,
            state: State::Waiting(Instant::now() + patience),
        });
        if !target.addresses.contains(&address) {
            target.addresses.push(address);
        }
        Ok(())
    }

    /// All of them.
    pub(super) fn peers(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.targets.keys().copied()
    }

    /// Those whose time has come, unless `barred`; they are taken to be called now.
    pub(super) fn due(
        &mut self,
        now: Instant,
        barred: impl Fn(&PeerId) -> bool,
    ) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let due = |target: &Target| matches!(target.state, State::Waiting(at) if at <= now);
        let mut calls = Vec::new();
        for (peer, target) in &mut self.targets {
            if due(target) && !barred(peer) {
                target.state = State::Dialling;
                calls.push((*peer, target.addresses.clone()));
            }
        }
        calls
    }

    /// A peer is connected, whoever called.
    pub(super) fn connected(&mut self, now: Instant, peer: &PeerId) {
        if let Some(target) = self.targets.get_mut(peer)
            && !matches!(target.state, State::Connected(_))
        {
            target.state = State::Connected(now);
        }
    }

    /// The last connection to a peer is gone.
    pub(super) fn disconnected(&mut self, now: Instant, peer: &PeerId) {
        let (first, longest) = self.backoff;
        let Some(target) = self.targets.get_mut(peer) else { return };
        let good = matches!(target.state, State::Connected(since) if now - since >= GOOD);
        target.pause = if good { first } else { (target.pause * 2).min(longest) };
        target.state = State::Waiting(now + target.pause.max(target.patience));
    }

    /// A call went wrong; says whether it was one of ours.
    pub(super) fn failed(&mut self, now: Instant, peer: &PeerId) -> bool {
        let longest = self.backoff.1;
        let Some(target) = self.targets.get_mut(peer) else { return false };
        if target.state != State::Dialling {
            return false;
        }
        target.state = State::Waiting(now + target.pause);
        target.pause = (target.pause * 2).min(longest);
        true
    }
}

/// The peer that an address names.
fn peer_in(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last()? {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::sample;

    fn peers(table: &Membership) -> Vec<PeerId> {
        table.members().iter().filter_map(|m| libp2p_id_of(&m.peer())).collect()
    }

    fn listening(n: PeerIndex) -> BTreeMap<PeerIndex, Vec<Multiaddr>> {
        (0..n)
            .map(|i| (i, vec![format!("/ip4/127.0.0.1/tcp/{}", 9000 + i).parse().unwrap()]))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_members_the_lower_one_calls() {
        let (table, _) = sample(5, &[1; 3]);
        let config = GossipNetConfig::new(5);
        let ids = peers(&table);
        let mut targets = Targets::new(&config, &table, 1, listening(3)).unwrap();
        let now = Instant::now();
        let called = |calls: Vec<(PeerId, Vec<Multiaddr>)>| -> Vec<PeerId> {
            calls.into_iter().map(|(peer, _)| peer).collect()
        };
        assert_eq!(called(targets.due(now, |_| false)), [ids[2]]);
        assert_eq!(called(targets.due(now, |_| false)), []);
        assert_eq!(called(targets.due(now + config.patience, |_| false)), [ids[0]]);
        // Lost after a good while: called again at once.
        targets.connected(now, &ids[2]);
        targets.disconnected(now + GOOD, &ids[2]);
        let again = now + GOOD + config.backoff.0;
        assert_eq!(called(targets.due(again, |_| true)), []);
        assert_eq!(called(targets.due(again, |_| false)), [ids[2]]);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_up_to_the_longest() {
        let (table, _) = sample(5, &[1; 2]);
        let config = GossipNetConfig::new(5);
        let mut targets = Targets::new(&config, &table, 0, listening(2)).unwrap();
        let ids = peers(&table);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let mut now = Instant::now();
            while targets.due(now, |_| false).is_empty() {
                tokio::time::advance(Duration::from_millis(100)).await;
                now = Instant::now();
            }
            assert!(targets.failed(now, &ids[1]));
            let State::Waiting(at) = targets.targets[&ids[1]].state else { panic!() };
            pauses.push(at - now);
        }
        assert_eq!(pauses[..3], [200, 400, 800].map(Duration::from_millis));
        assert_eq!(pauses[9], config.backoff.1);
    }

    #[tokio::test]
    async fn addresses_must_say_who_is_there() {
        let (table, _) = sample(5, &[1; 2]);
        let ids = peers(&table);
        let bare: Multiaddr = "/ip4/1.2.3.4/tcp/9222".parse().unwrap();
        let config = GossipNetConfig { bootstrap: vec![bare.clone()], ..GossipNetConfig::new(5) };
        let none = BTreeMap::new;
        let error = Targets::new(&config, &table, 0, none()).unwrap_err();
        assert!(error.to_string().contains("append /p2p/"), "{error}");

        let config = GossipNetConfig::new(5);
        let named = bare.with(Protocol::P2p(ids[0]));
        let error = Targets::new(&config, &table, 0, [(1, vec![named])].into()).unwrap_err();
        assert!(error.to_string().contains("correct the address"), "{error}");

        let udp: Multiaddr = "/ip4/1.2.3.4/udp/9222".parse().unwrap();
        let error = Targets::new(&config, &table, 0, [(1, vec![udp])].into()).unwrap_err();
        assert!(error.to_string().contains("is no TCP address"), "{error}");
    }
}
