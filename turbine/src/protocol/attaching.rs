//! A guest's side: from which members it takes messages, and when it takes them from others.
//!
//! ```text
//! members that are drawn ──▶ candidates, connected ──▶ primary: all sets
//!            every round       round trips       ├──▶ standby, spare: tips
//!                                                └──▶ the rest: measured, and let go
//! ```
//!
//! A guest looks at [`CANDIDATES`] members at a time: the nearest that it has found and others that
//! are drawn, every round anew, and let go after [`LOOK`]. In between it holds no more than the
//! [`HELD`] nearest, since a connection takes a place at a member that another guest may need. While
//! it has fewer, it draws again, after longer and longer pauses. The nearest sends it all sets (*primary*). The next two tell what
//! they have (*standby*, *spare*), so the guest knows what it lacks and asks the nearest that has it:
//! whatever the primary does, nothing is lost.
//!
//! # When it rotates
//! A message is *late* if nothing of it came from the primary, or if it was whole only
//! [`LATE`] after another had told to have it. After [`LATE_IN_A_ROW`] late ones in a row, or when more
//! than half of the last [`WINDOW`] were, the standby becomes primary. Who was left is avoided, for
//! longer each time, and so is for a while who had no place. A primary that serves is kept until
//! another is much nearer, so guests do not wander.
//!
//! What others tell to have is believed for that only where it can be soon, and only of those who have
//! told the truth [`PROVED`] times: a peer cannot make another's messages late by naming what is not
//! there.
//!
//! # When it asks again
//! A member that has granted less than it was asked for is asked for no more than that for [`FULL`],
//! also where there is no other. One that lets nobody in any more is called no more for as long, and
//! another is drawn in its place. Who has not answered after [`UNANSWERED`] is asked again.
//!
//! # Loss
//! What comes of the primary's shreds is counted, and it is asked for as many more of each set as make
//! that a set is incomplete once in a hundred times.
//!
//! # Memory
//! [`SEEN`] messages of 80 bytes, [`AVOIDED`] peers of 56, and 64 bytes for each connected member.

mod judging;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fragcast_shredder::MessageKey;

use super::ctx::Ctx;
use super::repair::mix;
use crate::control::{Attach, Attached, Control, Share};
use crate::egress::Lane;
use crate::outcome::Outcome;
use crate::peer::{PeerId, PeerKey};
use crate::time::Timestamp;

/// Members that a guest is connected to while it looks, and that it holds.
const CANDIDATES: usize = 6;
const HELD: usize = 3;
/// How long a round of candidates is: of the first ones, and of those after them. A guest's own are a
/// quarter shorter or longer, so that guests that began together do not go on so.
const ROUNDS: (Duration, u64, Duration) = (Duration::from_secs(10), 6, Duration::from_secs(60));
/// How long candidates are looked at: round trips are taken once a second.
const LOOK: Duration = Duration::from_secs(3);
/// After how long others are drawn if too few were found, for the first time, and how often that
/// doubles.
const AGAIN: (Duration, u32) = (Duration::from_secs(1), 5);
/// A message that is whole so long after another has told of it is late. Tips come every 50 ms, so
/// most are told of later than they were there.
const LATE: Duration = Duration::from_millis(40);
/// Messages by which a primary is judged.
const WINDOW: usize = 16;
/// Of those, how many must be known.
const KNOWN: usize = 8;
/// Late messages in a row that are enough.
const LATE_IN_A_ROW: usize = 4;
/// A primary is left for a nearer one if that has so much less of a round trip, in percent and in µs,
/// and not before this time.
const NEARER: (u64, u32) = (70, 3_000);
const KEPT: Duration = Duration::from_secs(30);
/// How long who was left is avoided for the first time, and how often that doubles.
const AVOID: (Duration, u32) = (Duration::from_secs(30), 5);
/// How long who had no place is, and is asked for no more than it has granted.
const FULL: Duration = Duration::from_secs(60);
/// After how long who has not answered is asked again.
const UNANSWERED: Duration = Duration::from_secs(5);
/// Messages beyond the newest whole one that a peer is believed to have.
const AHEAD: u16 = 2;
/// How many messages that a peer told of must have come before what it tells makes one late.
const PROVED: u8 = 4;
/// Without a word of those three for so long another is asked for tips.
const QUIET: Duration = Duration::from_secs(3);
/// Messages and peers that are remembered.
const SEEN: usize = 256;
const AVOIDED: usize = 64;
/// Shreds beyond k that are asked for before anything is known of loss.
const EXTRA: u8 = 2;
/// When all of a message's shreds have come that will.
const SETTLED: Duration = Duration::from_millis(300);

/// What is known of a message.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Which other than the primary told first to have it, and when.
    told: Option<(PeerKey, Timestamp)>,
    /// Shreds of it that came from the primary.
    came: u32,
    /// When it was whole, how many shreds make it whole, and how many the primary was to send.
    whole: Option<(Timestamp, u32, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Avoided {
    until: Timestamp,
    times: u32,
    /// What it has granted when it was asked for more, and until when it is asked for no more.
    grants: Option<(Share, Timestamp)>,
}

/// What a member was asked for.
#[derive(Debug, Clone, Copy)]
struct Asked {
    wants: Attach,
    at: Timestamp,
    answered: bool,
}

/// What a guest knows of those that it takes messages from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AttachState {
    /// Who sends it all sets.
    pub primary: Option<PeerId>,
    /// Whether that one has granted it.
    pub granted: bool,
    /// Who tells what it has: standby and spare.
    pub others: Vec<PeerId>,
    /// The round trip to the primary.
    pub round_trip: Option<Duration>,
    /// The median over its last messages of the time from others' tips to the whole message.
    pub lateness: Duration,
    /// How often another became primary because the one before was late, silent, full or gone.
    pub rotations: u64,
    /// The share of the primary's shreds that was lost on the way.
    pub loss: f64,
    /// Shreds beyond k that are asked for of each set.
    pub extra: u8,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Attaching {
    primary: Option<PeerKey>,
    since: Timestamp,
    granted: bool,
    /// Standby and spare.
    others: Vec<PeerKey>,
    /// What was asked of whom.
    asked: BTreeMap<PeerKey, Asked>,
    avoided: BTreeMap<PeerKey, Avoided>,
    /// Of connected members, how many of the messages that each told of have come, up to [`PROVED`].
    proved: BTreeMap<PeerKey, u8>,
    drawn: Vec<PeerKey>,
    drawn_at: Timestamp,
    /// How often was drawn, and how often in a row because too few were found.
    draws: u64,
    vain: u32,
    round: u64,
    round_at: Timestamp,
    seen: BTreeMap<MessageKey, Seen>,
    newest: Option<MessageKey>,
    /// Of the last messages: how late each was, and whether that counts.
    window: VecDeque<(Duration, bool)>,
    heard_at: Timestamp,
    turn: usize,
    rotations: u64,
    loss: f64,
    extra: u8,
}

impl Default for Attaching {
    fn default() -> Self {
        Self {
            primary: None,
            since: Timestamp::default(),
            granted: false,
            others: Vec::new(),
            asked: BTreeMap::new(),
            avoided: BTreeMap::new(),
            proved: BTreeMap::new(),
            drawn: Vec::new(),
            drawn_at: Timestamp::default(),
            draws: 0,
            vain: 0,
            round: 0,
            round_at: Timestamp::default(),
            seen: BTreeMap::new(),
            newest: None,
            window: VecDeque::new(),
            heard_at: Timestamp::default(),
            turn: 0,
            rotations: 0,
            loss: 0.0,
            extra: EXTRA,
        }
    }
}

impl Attaching {
    /// The members that this node, a guest, is to be connected to.
    pub(super) fn wanted(&self, ctx: &Ctx) -> Vec<PeerKey> {
        let mut wanted = self.held();
        if self.drawn_at == Timestamp::default() || ctx.now < self.drawn_at + LOOK {
            let drawn = |peer: &&PeerKey| {
                ctx.peers.contains(**peer)
                    && !self.held().contains(peer)
                    && !self.is_full(ctx, **peer)
            };
            wanted.extend(self.drawn.iter().filter(drawn));
        }
        wanted.truncate(CANDIDATES);
        wanted
    }

    /// Primary, standby and spare.
    fn held(&self) -> Vec<PeerKey> {
        self.primary.into_iter().chain(self.others.iter().copied()).collect()
    }

    /// Whether fewer members were found than this guest needs, or those that were say nothing.
    fn lacks(&self, ctx: &Ctx) -> bool {
        let grants = |peer: PeerKey| self.most(ctx.now, peer);
        let serves = |peer: &PeerKey| {
            ctx.peers.can_ask(*peer)
                && (!self.is_avoided(ctx.now, *peer) || grants(*peer) == Share::Tips)
        };
        let primary = self.primary.filter(|peer| serves(peer) && grants(*peer) == Share::All);
        let found =
            usize::from(primary.is_some()) + self.others.iter().filter(|peer| serves(peer)).count();
        found < HELD.min(ctx.epochs.newest().members()) || self.hears_nothing(ctx.now)
    }

    fn hears_nothing(&self, now: Timestamp) -> bool {
        self.heard_at > Timestamp::default() && now >= self.heard_at + QUIET
    }

    /// Draws candidates, if a round is over or too few were found.
    pub(super) fn draw(&mut self, ctx: &Ctx) {
        let (now, (first, count, later)) = (ctx.now, ROUNDS);
        if self.draws == 1 && self.drawn_at == Timestamp::default() {
            // Drawn before there was any time.
            (self.round_at, self.drawn_at) = (now, now);
        }
        // By its id: the key that it has in its own table all guests have in theirs.
        let id = ctx.peers.id(ctx.me()).unwrap_or(PeerId([0; 32]));
        let me = u64::from_le_bytes(*id.0.first_chunk().expect("32 bytes"));
        let length = if self.round <= count { first } else { later };
        let percent = 75 + (mix(&[me, self.round]) % 51) as u32;
        let is_over = self.round == 0 || now >= self.round_at + length * percent / 100;
        let lacks = self.lacks(ctx);
        if !lacks {
            self.vain = 0;
        }
        let again = AGAIN.0 * (1 << self.vain.min(AGAIN.1));
        if !(is_over || lacks && now >= self.drawn_at + again) {
            return;
        }
        if is_over {
            (self.round, self.round_at) = (self.round + 1, now);
        }
        self.vain += u32::from(lacks);
        (self.draws, self.drawn_at) = (self.draws + 1, now);
        self.drawn.clear();
        let living = ctx.epochs.newest();
        let members = living.members();
        let held = self.held();
        if members <= CANDIDATES {
            let all = (0..members as u32).map(|index| living.key(index));
            self.drawn.extend(all.filter(|peer| *peer != ctx.me()));
            return;
        }
        for n in 0..4 * CANDIDATES as u64 {
            let index = mix(&[me, self.draws, n]) % members as u64;
            let peer = living.key(index as u32);
            let fits = peer != ctx.me() && !self.is_avoided(now, peer) && !held.contains(&peer);
            if fits && !self.drawn.contains(&peer) && held.len() + self.drawn.len() < CANDIDATES {
                self.drawn.push(peer);
            }
        }
    }

    /// A member has let this guest not in, or has sent it away, since it has no place.
    pub(super) fn refused(&mut self, ctx: &mut Ctx, peer: PeerKey) {
        if !ctx.is_guest {
            return;
        }
        self.avoid(ctx.now, peer, FULL, false);
        if let Some(avoided) = self.avoided.get_mut(&peer) {
            avoided.grants = Some((Share::Nothing, ctx.now + FULL));
        }
        self.step(ctx);
    }

    /// Whether a member has no place at all.
    fn is_full(&self, ctx: &Ctx, peer: PeerKey) -> bool {
        self.most(ctx.now, peer) == Share::Nothing
    }

    fn is_avoided(&self, now: Timestamp, peer: PeerKey) -> bool {
        self.avoided.get(&peer).is_some_and(|avoided| avoided.until > now)
    }

    fn avoid(&mut self, now: Timestamp, peer: PeerKey, time: Duration, counts: bool) {
        if self.avoided.len() >= AVOIDED && !self.avoided.contains_key(&peer) {
            let first = self.avoided.iter().min_by_key(|(_, avoided)| avoided.until);
            let first = first.map(|(peer, _)| *peer);
            first.map(|peer| self.avoided.remove(&peer));
        }
        let avoided =
            self.avoided.entry(peer).or_insert(Avoided { until: now, times: 0, grants: None });
        avoided.until = now + time * (1 << avoided.times.min(AVOID.1));
        avoided.times += u32::from(counts);
    }

    /// The most that a peer is asked for: what it granted when it was asked for more.
    fn most(&self, now: Timestamp, peer: PeerKey) -> Share {
        let grants = self.avoided.get(&peer).and_then(|avoided| avoided.grants);
        grants.filter(|(_, until)| *until > now).map_or(Share::All, |(share, _)| share)
    }

    /// Chooses whom to take messages from, and tells them. To be called about once a second, and when
    /// a connection comes or goes.
    pub(super) fn step(&mut self, ctx: &mut Ctx) {
        if !ctx.is_guest {
            if self.primary.is_some() || !self.asked.is_empty() {
                *self = Self { rotations: self.rotations, ..Self::default() };
            }
            return;
        }
        self.draw(ctx);
        self.settle(ctx);
        self.choose(ctx);
        self.tell(ctx);
    }

    fn choose(&mut self, ctx: &Ctx) {
        let now = ctx.now;
        let far = |peer: PeerKey| ctx.round_trips.get(peer).unwrap_or(u32::MAX);
        // Nearest first; who is avoided only where nobody else is there.
        let mut near: Vec<PeerKey> =
            ctx.peers.iter_connected().filter(|peer| ctx.peers.can_ask(*peer)).collect();
        // Who is not measured yet will be within a second.
        near.retain(|peer| far(*peer) < u32::MAX && !self.is_full(ctx, *peer));
        near.sort_by_key(|peer| (self.is_avoided(now, *peer), far(*peer), *peer));
        let fits = |peer: &PeerKey| ctx.peers.can_ask(*peer) && !self.is_avoided(now, *peer);
        let kept = self.primary.filter(fits);
        let nearest = near.first().copied();
        let primary = match (kept, nearest) {
            (Some(kept), Some(nearest)) if now >= self.since + KEPT => {
                let (had, has) = (far(kept), far(nearest));
                let much = u64::from(has) * 100 < u64::from(had) * NEARER.0;
                if much && had.saturating_sub(has) > NEARER.1 { Some(nearest) } else { Some(kept) }
            }
            (Some(kept), _) => Some(kept),
            (None, nearest) => nearest,
        };
        if primary != self.primary {
            // One that is nearer is no reason to count.
            let rotates = kept.is_none() && self.primary.is_some();
            self.begin(now, primary);
            self.rotations += u64::from(rotates);
        }
        near.retain(|peer| Some(*peer) != primary);
        if near.len() > 2 && self.hears_nothing(now) {
            // Nobody of them says anything: the spare takes turns.
            self.turn += 1;
            let last = near.len() - 1;
            near.swap(1, 1 + self.turn % last);
        }
        near.truncate(HELD - 1);
        self.others = near;
    }

    fn begin(&mut self, now: Timestamp, primary: Option<PeerKey>) {
        (self.primary, self.since, self.granted) = (primary, now, false);
        self.window.clear();
        self.seen.values_mut().for_each(|seen| seen.came = 0);
    }

    /// Tells peers what is wanted of them, if that has changed.
    fn tell(&mut self, ctx: &mut Ctx) {
        let tips = Attach { share: Share::Tips, extra: 0 };
        let mut wants: BTreeMap<PeerKey, Attach> =
            self.others.iter().map(|peer| (*peer, tips)).collect();
        wants.extend(self.primary.map(|p| (p, Attach { share: Share::All, extra: self.extra })));
        self.asked.retain(|peer, _| ctx.peers.can_ask(*peer));
        let nothing = Attach { share: Share::Nothing, extra: 0 };
        for (peer, wants) in &mut wants {
            let most = self.most(ctx.now, *peer);
            if most < wants.share {
                *wants = Attach { share: most, extra: 0 };
            }
        }
        let left = self.asked.keys().filter(|peer| !wants.contains_key(peer));
        let left: Vec<(PeerKey, Attach)> = left.map(|peer| (*peer, nothing)).collect();
        for (peer, wants) in wants.into_iter().chain(left) {
            let is_known = match self.asked.get(&peer) {
                Some(asked) => {
                    let waits = asked.answered || ctx.now < asked.at + UNANSWERED;
                    asked.wants == wants && waits
                }
                None => wants.share == Share::Nothing,
            };
            if is_known {
                continue;
            }
            ctx.send_control_in(Lane::Data, peer, &Control::Attach(wants));
            let asked = Asked { wants, at: ctx.now, answered: false };
            match wants.share {
                Share::Nothing => drop(self.asked.remove(&peer)),
                _ => drop(self.asked.insert(peer, asked)),
            }
        }
    }

    /// A member says what it grants.
    pub(super) fn granted(&mut self, ctx: &mut Ctx, from: PeerKey, granted: Attached) -> Outcome {
        let Some(asked) = self.asked.get_mut(&from) else { return Outcome::ControlStale };
        if granted.share == Share::Nothing && granted.places > 0 {
            // To what was said before: that nothing is wanted.
            return Outcome::ControlStale;
        }
        asked.answered = true;
        if granted.share < asked.wants.share {
            match granted.share {
                Share::Nothing => drop(self.asked.remove(&from)),
                share => asked.wants = Attach { share, extra: 0 },
            }
            self.avoid(ctx.now, from, FULL, false);
            if let Some(avoided) = self.avoided.get_mut(&from) {
                avoided.grants = Some((granted.share, ctx.now + FULL));
            }
            if self.primary == Some(from) {
                self.granted = false;
            }
            self.step(ctx);
        } else if self.primary == Some(from) && asked.wants.share == Share::All {
            self.granted = true;
        }
        Outcome::Control
    }

    /// A connection came up.
    pub(super) fn connected(&mut self, ctx: &mut Ctx) {
        if ctx.is_guest && (self.primary.is_none() || self.others.len() < HELD - 1) {
            self.step(ctx);
        }
    }

    /// A connection is gone.
    pub(super) fn disconnected(&mut self, ctx: &mut Ctx, peer: PeerKey) {
        self.asked.remove(&peer);
        self.proved.remove(&peer);
        if ctx.is_guest && (self.primary == Some(peer) || self.others.contains(&peer)) {
            self.step(ctx);
        }
    }

    /// A peer is none any more.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.asked.remove(&peer);
        self.proved.remove(&peer);
        self.avoided.remove(&peer);
        self.drawn.retain(|drawn| *drawn != peer);
        self.others.retain(|other| *other != peer);
        if self.primary == Some(peer) {
            self.primary = None;
        }
    }

    /// For the operator; `None` on a member.
    pub(super) fn state(&self, ctx: &Ctx) -> Option<AttachState> {
        let round_trip = self.primary.and_then(|primary| ctx.round_trips.get(primary));
        let mut late: Vec<Duration> = self.window.iter().map(|(late, _)| *late).collect();
        late.sort_unstable();
        ctx.is_guest.then(|| AttachState {
            primary: self.primary.and_then(|primary| ctx.peers.id(primary)),
            granted: self.granted,
            others: self.others.iter().filter_map(|peer| ctx.peers.id(*peer)).collect(),
            round_trip: round_trip.map(|micros| Duration::from_micros(micros.into())),
            lateness: late.get(late.len() / 2).copied().unwrap_or_default(),
            rotations: self.rotations,
            loss: self.loss,
            extra: self.extra,
        })
    }
}

#[cfg(test)]
mod tests;
