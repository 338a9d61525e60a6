//! What has come in and waits for the driver, with a turn for each peer.
//!
//! Peers take turns, so one that floods waits behind its own flood and nobody else does. A turn
//! is [`TURN_DATAGRAMS`] datagrams and [`TURN_FRAMES`] frames.
//!
//! * Guests take turns among themselves: of what is taken at a time an eighth is theirs, however
//!   many there are. Datagrams of guests are not taken at all.
//! * Datagrams cannot wait. There is room for [`DATAGRAMS`] of all peers together, 10 MB; when it
//!   is full the peer with most of them loses one, so a peer that has few loses none.
//! * Frames of streams wait at their sender. Each peer may have [`FRAME_BYTES`] of them here or
//!   being read, whatever the others have; then its streams are not read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
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
/// The same of a guest's: one of the longest that it may send.
const GUEST_FRAME_BYTES: usize = GUEST_FRAME + FRAME_COST;
/// The longest frame of a guest.
pub(super) const GUEST_FRAME: usize = 64 * 1024 + 512;
/// The part of what is taken at a time that is for guests.
const GUESTS_PART: usize = 8;
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

/// A peer's budget for frames, and whether it is a guest.
#[derive(Debug, Clone)]
pub(super) struct FrameRoom {
    bytes: Arc<Semaphore>,
    guest: Arc<AtomicBool>,
    /// Whether it has as much room as a member, which it keeps.
    grown: Arc<AtomicBool>,
}

impl Default for FrameRoom {
    fn default() -> Self {
        Self::new(false)
    }
}

impl FrameRoom {
    pub(super) fn new(guest: bool) -> Self {
        let bytes = if guest { GUEST_FRAME_BYTES } else { FRAME_BYTES };
        let bytes = Arc::new(Semaphore::new(bytes));
        let [guest, grown] = [guest, !guest].map(|flag| Arc::new(AtomicBool::new(flag)));
        Self { bytes, guest, grown }
    }

    /// Whether it is a guest's.
    pub(super) fn is_guest(&self) -> bool {
        self.guest.load(Ordering::Relaxed)
    }

    /// Its peer is a member from now on and has as much as any, or a guest, who keeps what it had.
    pub(super) fn set_guest(&self, guest: bool) {
        self.guest.store(guest, Ordering::Relaxed);
        if !guest && !self.grown.swap(true, Ordering::Relaxed) {
            self.bytes.add_permits(FRAME_BYTES - GUEST_FRAME_BYTES);
        }
    }

    /// Waits until there is room for a frame of `len` bytes, which is not longer than any may be.
    pub(super) async fn take(&self, len: usize) -> Option<OwnedSemaphorePermit> {
        let cost = u32::try_from(len + FRAME_COST).ok()?;
        Arc::clone(&self.bytes).acquire_many_owned(cost).await.ok()
    }
}

/// What waits of one peer.
#[derive(Debug, Default)]
struct Flow {
    datagrams: VecDeque<Bytes>,
    frames: VecDeque<(Received, OwnedSemaphorePermit)>,
    guest: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Of those of whom something waits.
    flows: BTreeMap<PeerKey, Flow>,
    /// The same peers, by whose turn is next.
    turns: VecDeque<PeerKey>,
    /// Guests of whom something waits.
    guest_turns: VecDeque<PeerKey>,
    datagrams: usize,
}

impl State {
    fn flow(&mut self, peer: PeerKey, guest: bool) -> &mut Flow {
        let turns = if guest { &mut self.guest_turns } else { &mut self.turns };
        self.flows.entry(peer).or_insert_with(|| {
            turns.push_back(peer);
            Flow { guest, ..Flow::default() }
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

    /// Takes up to `most`, a turn a peer: of members, of guests, and of members what is left.
    fn take(&mut self, out: &mut Vec<Inbound>, most: usize) {
        let guests = if self.guest_turns.is_empty() { 0 } else { (most / GUESTS_PART).max(1) };
        self.take_turns(out, most.saturating_sub(guests), false);
        self.take_turns(out, most.min(out.len() + guests), true);
        self.take_turns(out, most, false);
    }

    const fn turns_of(&mut self, guests: bool) -> &mut VecDeque<PeerKey> {
        if guests { &mut self.guest_turns } else { &mut self.turns }
    }

    fn take_turns(&mut self, out: &mut Vec<Inbound>, most: usize, guests: bool) {
        while out.len() < most
            && let Some(peer) = self.turns_of(guests).pop_front()
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
                // It may have become something else, but what waits of it was a guest's.
                let guest = flow.guest;
                self.turns_of(guest).push_back(peer);
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
            state.flow(peer, false).datagrams.push_back(bytes);
            drop(state);
            self.0.arrived.notify_one();
        }
        full
    }

    /// Queues a frame, whose room was taken before it was read.
    pub(super) fn push_frame(
        &self,
        peer: PeerKey,
        guest: bool,
        what: Received,
        room: OwnedSemaphorePermit,
    ) {
        self.state().flow(peer, guest).frames.push_back((what, room));
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
        inbox.push_frame(peer(of), false, Received::Control(vec![0; len].into()), permit);
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
            if flood.bytes.available_permits() < 1_000 + FRAME_COST {
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
    async fn a_hundred_guests_that_flood_take_an_eighth_of_what_is_taken() {
        let inbox = Inbox::default();
        for of in 1_000..1_100 {
            let room = FrameRoom::new(true);
            assert!(room.is_guest());
            for _ in 0..100 {
                let permit = room.take(100).await.unwrap();
                inbox.push_frame(peer(of), true, Received::Control(vec![0; 100].into()), permit);
            }
        }
        for n in 0..500 {
            assert!(!inbox.push_datagram(peer(1), datagram(n)));
        }
        let mut members = 0;
        for burst in 1..=3 {
            let taken = take(&inbox, 256).await;
            members += taken.iter().filter(|(of, _)| *of == 1).count();
            assert_eq!(taken.iter().filter(|(of, _)| *of >= 1_000).count(), 32);
            assert_eq!(members, (burst * 224).min(500));
        }
    }

    #[tokio::test]
    async fn a_guest_that_becomes_a_member_has_as_much_room_as_any() {
        let room = FrameRoom::new(true);
        let held = room.take(GUEST_FRAME).await.unwrap();
        room.set_guest(false);
        assert!(!room.is_guest() && room.take(MAX_CONTROL_LEN).await.is_some());
        drop(held);
        room.set_guest(true);
        room.set_guest(false);
        assert_eq!(room.bytes.available_permits(), FRAME_BYTES, "once");
        // Also while frames of its are here.
        let held = [room.take(MAX_CONTROL_LEN).await, room.take(MAX_CONTROL_LEN).await];
        room.set_guest(true);
        room.set_guest(false);
        drop(held);
        assert_eq!(room.bytes.available_permits(), FRAME_BYTES, "once");
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
