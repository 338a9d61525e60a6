//! What a keeper of a delegation does next, as a function of what it knows: see
//! [`delegating`](super).

use std::time::Duration;

use fragcast_turbine::{Delegation, PeerId};

use super::Settings;

/// Blocks beyond the open one that nodes take already: one that is taken keeps its leader.
pub(super) const AHEAD: u64 = 8;
/// The most of them after a signer that took long: twice the blocks of 200 ms in an hour, the longest
/// `leader.signer_timeout_ms`.
const MAX_AHEAD: u64 = 36_008;
/// A delegation that is signed begins at least as many blocks beyond the open one: the next one may be
/// open elsewhere, and to tell everybody takes a while.
const SLACK: u64 = 2;
/// How long a node that has just started waits for what its peers know of the gateway.
const GREETINGS: Duration = Duration::from_secs(5);
/// How long it waits for a block to be open, where somebody else speaks for the gateway.
const SILENCE: Duration = Duration::from_secs(60);
/// Why nothing is asked for above the highest sequence that there is.
pub(super) const NO_SEQUENCE: &str =
    "no higher sequence is left, so no other delegation of the gateway can count any more";

/// What is known when it is looked.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    /// The newest open block, or the one before that which the gateway wants to open.
    pub(super) head: Option<u64>,
    /// How long the node has run.
    pub(super) up: Duration,
    /// The gateway's delegations that nodes know.
    pub(super) known: &'a [Delegation],
    /// The one that this node obtained last.
    pub(super) own: Option<Delegation>,
    /// The time, milliseconds since the Unix epoch.
    pub(super) unix: u64,
    /// How many blocks beyond the open one a delegation begins that takes over from somebody else:
    /// [`AHEAD`], or more where the signer has taken longer.
    pub(super) ahead: u64,
}

impl View<'_> {
    fn all(&self) -> impl Iterator<Item = Delegation> {
        self.known.iter().copied().chain(self.own)
    }

    /// The delegation that counts for a block, as nodes judge it.
    fn at(&self, block: u64) -> Option<Delegation> {
        let covering = self.all().filter(|d| (d.first..=d.last).contains(&block));
        covering.max_by_key(|d| (d.sequence, std::cmp::Reverse(d.digest())))
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: this one holds.
    Held(Delegation),
    /// Nothing yet, for this reason.
    Wait(&'static str),
    /// Nothing: the gateway has delegated to another node since.
    Elsewhere(PeerId),
    /// Have this one signed.
    Ask(Delegation),
}

/// How many blocks must be left of a delegation for so many blocks, or it is renewed.
pub(super) fn enough(blocks: Option<u64>) -> u64 {
    blocks.map_or(2 * AHEAD, |blocks| blocks / 4)
}

/// What is to be done.
pub(super) fn decide(settings: &Settings, view: &View<'_>) -> Step {
    let (peer, key) = (settings.peer, settings.key);
    let is_mine = |d: &Delegation| settings.is_mine(d);
    let next = view.head.map_or(0, |head| head.saturating_add(1));
    let at = |block: u64| view.at(block);
    // With the highest sequence again it would be one more that contradicts the others.
    let sequence =
        view.all().map(|d| d.sequence).max().map_or(Some(view.unix), |highest| {
            highest.checked_add(1).map(|next| next.max(view.unix))
        });
    let ask = |first: u64| {
        let Some(sequence) = sequence else { return Step::Wait(NO_SEQUENCE) };
        let last = settings.blocks.map_or(u64::MAX, |n| first.saturating_add(n - 1));
        let chain_id = settings.chain_id;
        Step::Ask(Delegation { chain_id, first, last, sequence, peer, key })
    };
    if let (None, Some(own)) = (view.head, view.own) {
        // Which of them counts now nobody can say; what this node has is not asked for again.
        let newer = view.all().find(|d| !is_mine(d) && d.sequence > own.sequence);
        return newer.map_or(Step::Held(own), |newer| Step::Elsewhere(newer.peer));
    }
    match at(next) {
        Some(held) if is_mine(&held) => {
            let enough = enough(settings.blocks);
            let goes_on = || held.last.checked_add(1).and_then(at).is_some_and(|d| is_mine(&d));
            match held.last - next >= enough || goes_on() || sequence.is_none() {
                true => Step::Held(held),
                false => ask(next),
            }
        }
        Some(other) => {
            let since = view.own.is_some_and(|own| own.sequence < other.sequence);
            let begins =
                |d: &Delegation| is_mine(d) && d.first > next && d.sequence > other.sequence;
            match (view.all().find(begins), view.head) {
                (Some(mine), _) => Step::Held(mine),
                (None, _) if since => Step::Elsewhere(other.peer),
                (None, Some(head)) => ask(head.saturating_add(view.ahead)),
                (None, None) if view.up < SILENCE => {
                    Step::Wait("another node or key speaks for the gateway, and no block is known")
                }
                (None, None) => ask(0),
            }
        }
        None if view.head.is_none() && view.up < GREETINGS => {
            Step::Wait("peers may know a delegation of the gateway")
        }
        None => ask(next),
    }
}

/// Whether this node takes a delegation that holds for the one that it has obtained: from then on a
/// higher sequence of somebody else's takes it over. While no block is known nobody can say which
/// of them counts.
pub(super) fn takes(view: &View<'_>, held: &Delegation) -> bool {
    view.head.is_some() && view.own.is_none_or(|own| own.sequence < held.sequence)
}

/// Whether a delegation that has just been signed comes too late: it would change the leader of a
/// block that nodes may have open by now. Where nobody speaks for the gateway, or this node does, it
/// changes none, whatever its first block is.
pub(super) fn is_late(settings: &Settings, view: &View<'_>, new: &Delegation) -> bool {
    let until = match view.head {
        Some(head) => head.saturating_add(SLACK),
        // Which blocks are open is yet to be learnt, as before asking.
        None if view.up < SILENCE => u64::MAX,
        None => return false,
    };
    let until = until.min(new.last);
    if new.first > until {
        return false;
    }
    // Between the first and last blocks of delegations nobody else begins to speak for the gateway.
    let begin = view.all().flat_map(|d| [Some(d.first), d.last.checked_add(1)]).flatten();
    let mut blocks = begin.filter(|block| (new.first..=until).contains(block)).chain([new.first]);
    blocks.any(|block| view.at(block).is_some_and(|d| !settings.is_mine(&d)))
}

/// What becomes of a delegation that the overlay has not had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Untold {
    /// It is told.
    Tell,
    /// Nothing yet.
    Wait,
    /// It comes too late, and another one is asked for.
    Drop,
}

/// What becomes of a delegation that was signed a while ago and that the overlay has not had: the
/// gateway may have registered only now, or this node have been away, and somebody else may have led
/// meanwhile. The view is without it.
pub(super) fn untold(settings: &Settings, view: &View<'_>, own: &Delegation) -> Untold {
    // Peers may know who speaks for the gateway.
    if view.up < GREETINGS {
        return Untold::Wait;
    }
    let next = view.head.map_or(0, |head| head.saturating_add(1));
    let counts = view.at(next);
    if view.head.is_some()
        && counts.is_some_and(|d| !settings.is_mine(&d) && d.sequence > own.sequence)
    {
        // It is left at that.
        return Untold::Wait;
    }
    match is_late(settings, view, own) {
        false => Untold::Tell,
        true if view.head.is_none() => Untold::Wait,
        true => Untold::Drop,
    }
}

/// How far ahead the next delegation is asked for, after a signer took so many blocks.
pub(super) fn further(ahead: u64, took: u64) -> u64 {
    AHEAD.saturating_add(took.saturating_mul(2)).clamp(ahead, MAX_AHEAD.max(ahead))
}
