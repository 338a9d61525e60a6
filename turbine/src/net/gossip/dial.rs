//! Dialling: linked members and bootstrap peers are called with growing pauses, for as long as it
//! takes. Links follow the epochs that live.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use super::identity::libp2p_id_of;
use super::{Addresses, GossipNetConfig, GossipNetError};
use crate::epoch::EpochsView;
use crate::gossip::links;
use crate::peer::PeerId as MemberId;

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
    /// Of these, those that the configuration gives: they stay whatever the links are.
    bootstrap: Vec<Multiaddr>,
    /// Before the first call after a connection was lost.
    patience: Duration,
    pause: Duration,
    state: State,
}

/// The peers that this node calls.
#[derive(Debug)]
pub(super) struct Targets {
    me: MemberId,
    targets: BTreeMap<PeerId, Target>,
    /// Where members are to be found, as far as is known.
    book: Addresses,
    backoff: (Duration, Duration),
    patience: Duration,
}

impl Targets {
    /// The bootstrap peers, and the members that `me` is linked to.
    pub(super) fn new(
        config: &GossipNetConfig,
        me: MemberId,
        epochs: &EpochsView,
        book: Addresses,
    ) -> Result<Self, GossipNetError> {
        let GossipNetConfig { backoff, patience, .. } = *config;
        let mut targets = Self { me, targets: BTreeMap::new(), book, backoff, patience };
        for address in &config.bootstrap {
            let id = peer_in(address).ok_or_else(|| GossipNetError::NoPeer(address.clone()))?;
            check(address)?;
            if Some(id) != libp2p_id_of(&me) {
                let target = targets.entry(id, Duration::ZERO);
                target.bootstrap.push(address.clone());
                target.addresses.push(address.clone());
            }
        }
        match targets.link(epochs) {
            Some(error) => Err(error),
            None => Ok(targets),
        }
    }

    /// Calls those whose link it is now, and nobody else; gives the last address that cannot be
    /// called, if there is one.
    pub(super) fn link(&mut self, epochs: &EpochsView) -> Option<GossipNetError> {
        let linked = links::neighbours(&self.me, epochs);
        let mut wrong = None;
        for target in self.targets.values_mut() {
            target.addresses.clone_from(&target.bootstrap);
        }
        for peer in linked {
            let Some(id) = libp2p_id_of(&peer) else { continue };
            // Both ends know of the link: the lower id calls, the other waits for it first.
            let patience = if self.me < peer { Duration::ZERO } else { self.patience };
            for address in self.book.get(&peer).cloned().unwrap_or_default() {
                match fits(&address, peer, id) {
                    Err(error) => wrong = Some(error),
                    Ok(()) => {
                        let target = self.entry(id, patience);
                        if !target.addresses.contains(&address) {
                            target.addresses.push(address);
                        }
                    }
                }
            }
        }
        self.targets.retain(|_, target| !target.addresses.is_empty());
        wrong
    }

    /// Members are to be found elsewhere; counts with the next [`link`](Self::link).
    pub(super) fn set_addresses(&mut self, book: Addresses) {
        self.book = book;
    }

    fn entry(&mut self, peer: PeerId, patience: Duration) -> &mut Target {
        let pause = self.backoff.0;
        self.targets.entry(peer).or_insert_with(|| Target {
            addresses: Vec::new(),
            bootstrap: Vec::new(),
            patience,
            pause,
            state: State::Waiting(Instant::now() + patience),
        })
    }

    /// All of them.
    pub(super) fn peers(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.targets.keys().copied()
    }

    /// Where they are, and where members are, as far as an address says so without a name service.
    pub(super) fn places(&self) -> impl Iterator<Item = &Multiaddr> + '_ {
        let called = self.targets.values().flat_map(|target| &target.addresses);
        called.chain(self.book.values().flatten())
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

/// Whether an address can be called.
fn check(address: &Multiaddr) -> Result<(), GossipNetError> {
    match address.iter().any(|part| matches!(part, Protocol::Tcp(_))) {
        true => Ok(()),
        false => Err(GossipNetError::Unsupported(address.clone())),
    }
}

/// Whether an address can be called, and names nobody but this member.
fn fits(address: &Multiaddr, member: MemberId, expected: PeerId) -> Result<(), GossipNetError> {
    match peer_in(address) {
        Some(found) if found != expected => {
            let (expected, found) = (expected.into(), found.into());
            Err(GossipNetError::OtherPeer { address: address.clone(), member, expected, found })
        }
        _ => check(address),
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
    use std::sync::Arc;

    use super::*;
    use crate::epoch::Epoch;
    use crate::membership::{Membership, sample};
    use crate::schedule::Schedule;
    use crate::testing::gateway;

    const CHAIN: u64 = 5;

    fn epoch(from_block: u64, members: Membership) -> Arc<Epoch> {
        let schedule = Schedule::new(vec![gateway().address()], 30).unwrap();
        Arc::new(Epoch::new(CHAIN, from_block, Arc::new(members), schedule, []).unwrap())
    }

    fn ids(table: &Membership) -> Vec<MemberId> {
        table.members().iter().map(|member| member.peer()).collect()
    }

    fn called(calls: Vec<(PeerId, Vec<Multiaddr>)>) -> Vec<PeerId> {
        calls.into_iter().map(|(peer, _)| peer).collect()
    }

    fn listening(peers: &[MemberId]) -> Addresses {
        let at = |(i, peer): (usize, &MemberId)| {
            (*peer, vec![format!("/ip4/127.0.0.1/tcp/{}", 9000 + i).parse().unwrap()])
        };
        peers.iter().enumerate().map(at).collect()
    }

    /// As the member at this place of a table of `n`.
    fn targets(
        config: &GossipNetConfig,
        n: usize,
        me: usize,
        book: impl FnOnce(&[MemberId]) -> Addresses,
    ) -> (Result<Targets, GossipNetError>, Vec<PeerId>) {
        let (table, _) = sample(CHAIN, &vec![1; n]);
        let members = ids(&table);
        let epochs = EpochsView::new(vec![epoch(0, table)]).unwrap();
        let made = Targets::new(config, members[me], &epochs, book(&members));
        (made, members.iter().filter_map(libp2p_id_of).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_members_the_lower_one_calls() {
        let config = GossipNetConfig::new(CHAIN);
        let (targets, ids) = targets(&config, 3, 1, listening);
        let mut targets = targets.unwrap();
        let now = Instant::now();
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
        let config = GossipNetConfig::new(CHAIN);
        let (targets, ids) = targets(&config, 2, 0, listening);
        let mut targets = targets.unwrap();
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

    #[tokio::test(start_paused = true)]
    async fn links_follow_the_epochs_and_bootstrap_peers_stay() {
        let (old, _) = sample(CHAIN, &[1; 3]);
        // The same members but one, and one more.
        let (all, _) = sample(CHAIN, &[1; 4]);
        let me = ids(&old)[0];
        let gone = ids(&old)[2];
        let kept = all.members().iter().filter(|member| member.peer() != gone).cloned();
        let new = Membership::new(CHAIN, kept.collect()).unwrap();
        let joined = *ids(&new).iter().find(|id| !ids(&old).contains(id)).unwrap();
        let stranger = Protocol::P2p(PeerId::random());
        let bootstrap: Multiaddr = "/ip4/1.2.3.4/tcp/9222".parse().unwrap();
        let config = GossipNetConfig {
            bootstrap: vec![bootstrap.with(stranger)],
            ..GossipNetConfig::new(CHAIN)
        };
        let (first, second) = (epoch(0, old), epoch(100, new));
        let one = EpochsView::new(vec![first.clone()]).unwrap();
        let both = EpochsView::new(vec![first, second.clone()]).unwrap();
        let later = EpochsView::new(vec![second]).unwrap();
        let book = listening(&ids(&all));
        let mut targets = Targets::new(&config, me, &one, book).unwrap();
        let has = |targets: &Targets, id| targets.targets.contains_key(&libp2p_id_of(&id).unwrap());
        assert!(has(&targets, gone) && !has(&targets, joined));
        // What goes on with the others goes on.
        targets.connected(Instant::now(), &libp2p_id_of(&gone).unwrap());
        assert!(targets.link(&both).is_none());
        assert!(has(&targets, gone) && has(&targets, joined));
        assert!(
            !called(targets.due(Instant::now(), |_| false)).contains(&libp2p_id_of(&gone).unwrap())
        );
        assert!(targets.link(&later).is_none());
        assert!(!has(&targets, gone) && has(&targets, joined));
        assert_eq!(targets.peers().count(), 3, "two members and a bootstrap peer");
    }

    #[tokio::test]
    async fn addresses_must_say_who_is_there() {
        let bare: Multiaddr = "/ip4/1.2.3.4/tcp/9222".parse().unwrap();
        let config =
            GossipNetConfig { bootstrap: vec![bare.clone()], ..GossipNetConfig::new(CHAIN) };
        let (nameless, ids) = targets(&config, 2, 0, |_| Addresses::new());
        let error = nameless.unwrap_err();
        assert!(error.to_string().contains("append /p2p/"), "{error}");

        let config = GossipNetConfig::new(CHAIN);
        let named = bare.with(Protocol::P2p(ids[0]));
        let (other, _) = targets(&config, 2, 0, |ids| [(ids[1], vec![named])].into());
        let error = other.unwrap_err();
        assert!(error.to_string().contains("correct the address"), "{error}");

        let udp: Multiaddr = "/ip4/1.2.3.4/udp/9222".parse().unwrap();
        let (unsupported, _) = targets(&config, 2, 0, |ids| [(ids[1], vec![udp])].into());
        let error = unsupported.unwrap_err();
        assert!(error.to_string().contains("is no TCP address"), "{error}");
    }
}
