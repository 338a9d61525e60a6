//! What has come in and waits for the driver, with a turn for each peer.
//!
//! Peers take turns, so one that floods waits behind its own flood and nobody else does. A turn
//! is [`TURN_DATAGRAMS`] datagrams and [`TURN_FRAMES`] frames.
//!
//! * Datagrams cannot wait. There is room for [`DATAGRAMS`] of all peers together, 10 MB; when it
//!   is full the peer with most of them loses one, so a peer that has few loses none.
//! * Frames of streams wait at their sender. Each peer may have [`FRAME_BYTES`] of them here or
//!   being read, whatever the others have; then its streams are not read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::connections::Received;
use crate::control::MAX_CONTROL_LEN;
use crate::peer::PeerKey;

/// Datagrams of all peers.
const DATAGRAMS: usize = 8192;
/// Datagrams and frames of one peer's turn.
const TURN_DATAGRAMS: usize = 32;
const TURN_FRAMES: usize = 8;
/// Bytes of one peer's frames: two of the longest.
const FRAME_BYTES: usize = 2 * (MAX_CONTROL_LEN + FRAME_COST);
/// What a frame takes beside its bytes.
const FRAME_COST: usize = 128;

/// Something that came in.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) peer: PeerKey,
    pub(super) what: Received,
    /// Its share of its peer's budget, until it was handled.
    _room: Option<OwnedSemaphorePermit>,
}

/// A peer's budget for frames.
#[derive(Debug, Clone)]
pub(super) struct FrameRoom(Arc<Semaphore>);

impl Default for FrameRoom {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(FRAME_BYTES)))
    }
}

impl FrameRoom {
    /// Waits until there is room for a frame of `len` bytes, which is not longer than any may be.
    pub(super) async fn take(&self, len: usize) -> Option<OwnedSemaphorePermit> {
        let cost = u32::try_from(len + FRAME_COST).ok()?;
        Arc::clone(&self.0).acquire_many_owned(cost).await.ok()
    }
}

/// What waits of one peer.
#[derive(Debug, Default)]
struct Flow {
    datagrams: VecDeque<Bytes>,
    frames: VecDeque<(Received, OwnedSemaphorePermit)>,
}

#[derive(Debug, Default)]
struct State {
    /// Of those of whom something waits.
    flows: BTreeMap<PeerKey, Flow>,
    /// The same peers, by whose turn is next.
    turns: VecDeque<PeerKey>,
    datagrams: usize,
}

impl State {
    fn flow(&mut self, peer: PeerKey) -> &mut Flow {
        self.flows.entry(peer).or_insert_with(|| {
            self.turns.push_back(peer);
            Flow::default()
        })
    }

    /// Makes room for a datagram of `peer`; says whether there is any.
    fn make_room(&mut self, peer: PeerKey) -> bool {
        let own = self.flows.get(&peer).map_or(0, |flow| flow.datagrams.len());
        // Most that come when it is full are of who fills it: then nothing is looked for.
        if own > DATAGRAMS / self.flows.len().max(1) {
            return false;
        }
        let most = self.flows.values_mut().max_by_key(|flow| flow.datagrams.len());
        let Some(most) = most.filter(|flow| flow.datagrams.len() > own + 1) else { return false };
        most.datagrams.pop_back();
        self.datagrams -= 1;
        true
    }

    /// Takes up to `most`, a turn a peer.
    fn take(&mut self, out: &mut Vec<Inbound>, most: usize) {
        while out.len() < most
            && let Some(peer) = self.turns.pop_front()
        {
            let Some(flow) = self.flows.get_mut(&peer) else { continue };
            let frames = flow.frames.len().min(TURN_FRAMES).min(most - out.len());
            let frames = flow.frames.drain(..frames);
            out.extend(frames.map(|(what, room)| Inbound { peer, what, _room: Some(room) }));
            let count = flow.datagrams.len().min(TURN_DATAGRAMS).min(most - out.len());
            self.datagrams -= count;
            let datagrams = flow.datagrams.drain(..count).map(Received::Shred);
            out.extend(datagrams.map(|what| Inbound { peer, what, _room: None }));
            if flow.datagrams.is_empty() && flow.frames.is_empty() {
                self.flows.remove(&peer);
            } else {
                self.turns.push_back(peer);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Notify,
}

/// See the module. Clones are the same inbox; one task takes from it.
#[derive(Debug, Clone, Default)]
pub(super) struct Inbox(Arc<Shared>);

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a datagram; says whether that cost one, this or another.
    pub(super) fn push_datagram(&self, peer: PeerKey, bytes: Bytes) -> bool {
        let mut state = self.state();
        let full = state.datagrams >= DATAGRAMS;
        if !full || state.make_room(peer) {
            state.datagrams += 1;
            state.flow(peer).datagrams.push_back(bytes);
            drop(state);
            self.0.arrived.notify_one();
        }
        full
    }

    /// Queues a frame, whose room was taken before it was read.
    pub(super) fn push_frame(&self, peer: PeerKey, what: Received, room: OwnedSemaphorePermit) {
        self.state().flow(peer).frames.push_back((what, room));
        self.0.arrived.notify_one();
    }

    /// Waits for something and takes up to `most`. Nothing is lost if it is given up.
    pub(super) async fn recv_many(&self, out: &mut Vec<Inbound>, most: usize) {
        loop {
            self.state().take(out, most);
            if !out.is_empty() {
                return;
            }
            self.0.arrived.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> PeerKey {
        PeerKey::from(number)
    }

    fn datagram(n: usize) -> Bytes {
        n.to_le_bytes().to_vec().into()
    }

    async fn take(inbox: &Inbox, most: usize) -> Vec<(u32, bool)> {
        let mut out = Vec::new();
        inbox.recv_many(&mut out, most).await;
        let is_frame = |what: &Received| matches!(what, Received::Control(_));
        out.iter().map(|inbound| (inbound.peer.number(), is_frame(&inbound.what))).collect()
    }

    async fn frame(inbox: &Inbox, room: &FrameRoom, of: u32, len: usize) {
        let permit = room.take(len).await.unwrap();
        inbox.push_frame(peer(of), Received::Control(vec![0; len].into()), permit);
    }

    #[tokio::test]
    async fn a_flood_costs_its_sender_and_waits_behind_itself() {
        let inbox = Inbox::default();
        let dropped = (0..20_000).filter(|n| inbox.push_datagram(peer(1), datagram(*n))).count();
        assert_eq!(dropped, 20_000 - DATAGRAMS);
        // An honest peer's all find room, at the cost of the flood.
        for n in 0..500 {
            inbox.push_datagram(peer(2), datagram(n));
            inbox.push_datagram(peer(1), datagram(n));
        }
        assert_eq!(inbox.state().datagrams, DATAGRAMS);
        assert_eq!(inbox.state().flows[&peer(2)].datagrams.len(), 500);
        let mut honest = 0;
        for burst in 1..=8 {
            let taken = take(&inbox, 256).await;
            assert_eq!(taken.len(), 256);
            honest += taken.iter().filter(|(of, _)| *of == 2).count();
            assert_eq!(honest, (burst * 128).min(500), "half of each burst, while there are any");
        }
    }

    #[tokio::test]
    async fn many_floods_leave_an_honest_peer_its_place() {
        let inbox = Inbox::default();
        for n in 0..2_000 {
            for of in 1..=20 {
                inbox.push_datagram(peer(of), datagram(n));
            }
        }
        for n in 0..100 {
            inbox.push_datagram(peer(99), datagram(n));
        }
        assert_eq!(inbox.state().flows[&peer(99)].datagrams.len(), 100);
        assert_eq!(inbox.state().datagrams, DATAGRAMS);
    }

    #[tokio::test]
    async fn frames_wait_at_their_sender_and_take_no_room_of_datagrams_or_of_others() {
        let inbox = Inbox::default();
        let (flood, honest) = (FrameRoom::default(), FrameRoom::default());
        let writer = {
            let (inbox, flood) = (inbox.clone(), flood.clone());
            tokio::spawn(async move {
                for _ in 0..10_000 {
                    frame(&inbox, &flood, 1, 1_000).await;
                }
            })
        };
        for _ in 0..100_000 {
            if flood.0.available_permits() < 1_000 + FRAME_COST {
                break;
            }
            tokio::task::yield_now().await;
        }
        let held = inbox.state().flows[&peer(1)].frames.len();
        assert_eq!(held, FRAME_BYTES / (1_000 + FRAME_COST));
        // All others go on.
        assert!(!inbox.push_datagram(peer(2), datagram(0)));
        frame(&inbox, &honest, 3, MAX_CONTROL_LEN).await;
        let taken = take(&inbox, 64).await;
        let others: Vec<_> = taken.iter().filter(|(of, _)| *of != 1).copied().collect();
        assert_eq!(others, [(2, false), (3, true)]);
        assert_eq!(taken[..TURN_FRAMES], [(1, true); TURN_FRAMES]);
        // What was handled makes room for the next of the flood, and all of it comes in the end.
        let mut rest = 10_000 - taken.iter().filter(|(of, _)| *of == 1).count();
        while rest > 0 {
            rest -= take(&inbox, 256).await.len();
        }
        writer.await.unwrap();
        assert!(inbox.state().flows.is_empty() && inbox.state().turns.is_empty());
    }

    #[tokio::test]
    async fn who_waits_is_woken_and_who_gives_up_loses_nothing() {
        let inbox = Inbox::default();
        let mut out = Vec::new();
        tokio::select! {
            biased;
            () = inbox.recv_many(&mut out, 9) => panic!("there is nothing"),
            () = std::future::ready(()) => {}
        }
        let waiting = {
            let inbox = inbox.clone();
            tokio::spawn(async move { take(&inbox, 9).await })
        };
        tokio::task::yield_now().await;
        inbox.push_datagram(peer(4), datagram(1));
        assert_eq!(waiting.await.unwrap(), [(4, false)]);
    }
}
