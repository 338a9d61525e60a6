//! Keeps the delegation of a gateway whose key a [remote signer](super::signer) has.
//!
//! Once a second it is looked which delegation of the gateway counts for the next block, and
//! `decide` says what to do. The rules:
//!
//! * The one that was obtained is saved and told again after a restart; the signer is asked for
//!   nothing that is there already. One that came by another way (the network file, a peer) is taken
//!   for obtained once it holds and a block is known.
//! * One for so many blocks is renewed in its last quarter, from the next block on: the key is the
//!   same, so two that overlap are no two leaders.
//! * Where another peer or key speaks for the gateway, it is taken over from the first block that no
//!   node has open. But a node that has spoken for the gateway and sees a higher sequence for somebody
//!   else leaves it at that: two nodes that took over from one another would never end.
//! * The sequence is the time in milliseconds, or one more than the highest that is known. So it grows
//!   without anything being remembered, and stays above what people number by hand. Above the highest
//!   number that there is nothing is asked for.
//!
//! While the signer is away what there is holds; it is asked again after 1 to 64 s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fragcast_turbine::delegation::DelegationError;
use fragcast_turbine::net::{DelegationRefused, Handle};
use fragcast_turbine::{Delegation, EpochsView, PeerId, SignedDelegation};
use serde_json::{Value, json};

use super::signer::{Asked, Signer};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// Blocks beyond the open one that nodes take already: one that is taken keeps its leader.
const AHEAD: u64 = 8;
/// How long a node that has just started waits for what its peers know of the gateway.
const GREETINGS: Duration = Duration::from_secs(5);
/// How long it waits for a block to be open, where somebody else speaks for the gateway.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest pause between two requests that failed: 2^6 seconds.
const MAX_DOUBLINGS: u32 = 6;
/// The pause before a delegation that was not taken is told again.
const AGAIN: Duration = Duration::from_secs(10);

/// Why nothing is asked for above the highest sequence that there is.
const NO_SEQUENCE: &str =
    "no higher sequence is left, so no other delegation of the gateway can count any more";

/// What a node needs to be delegated to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who signs.
    pub signer: Signer,
    /// Chain id.
    pub chain_id: u64,
    /// This node.
    pub peer: PeerId,
    /// Its leader key (public).
    pub key: [u8; 32],
    /// Blocks of a delegation; `None`: all.
    pub blocks: Option<u64>,
    /// Where the delegation is saved.
    pub saved: PathBuf,
}

/// What is known when it is looked.
#[derive(Debug, Clone, Copy)]
struct View<'a> {
    /// The newest open block, or the one before that which the gateway wants to open.
    head: Option<u64>,
    /// How long the node has run.
    up: Duration,
    /// The gateway's delegations that nodes know.
    known: &'a [Delegation],
    /// The one that this node obtained last.
    own: Option<Delegation>,
    /// The time, milliseconds since the Unix epoch.
    unix: u64,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing: this one holds.
    Held(Delegation),
    /// Nothing yet, for this reason.
    Wait(&'static str),
    /// Nothing: the gateway has delegated to another node since.
    Elsewhere(PeerId),
    /// Have this one signed.
    Ask(Delegation),
}

fn decide(settings: &Settings, view: &View<'_>) -> Step {
    let (peer, key) = (settings.peer, settings.key);
    let is_mine = |d: &Delegation| d.peer == peer && d.key == key;
    let all = || view.known.iter().copied().chain(view.own);
    let next = view.head.map_or(0, |head| head.saturating_add(1));
    let at = |block: u64| {
        let covering = all().filter(move |d| (d.first..=d.last).contains(&block));
        // As nodes judge it.
        covering.max_by_key(|d| (d.sequence, std::cmp::Reverse(d.digest())))
    };
    // With the highest sequence again it would be one more that contradicts the others.
    let sequence = all()
        .map(|d| d.sequence)
        .max()
        .map_or(Some(view.unix), |highest| highest.checked_add(1).map(|next| next.max(view.unix)));
    let ask = |first: u64| {
        let Some(sequence) = sequence else { return Step::Wait(NO_SEQUENCE) };
        let last = settings.blocks.map_or(u64::MAX, |n| first.saturating_add(n - 1));
        let chain_id = settings.chain_id;
        Step::Ask(Delegation { chain_id, first, last, sequence, peer, key })
    };
    if let (None, Some(own)) = (view.head, view.own) {
        // Which of them counts now nobody can say; what this node has is not asked for again.
        let newer = all().find(|d| !is_mine(d) && d.sequence > own.sequence);
        return newer.map_or(Step::Held(own), |newer| Step::Elsewhere(newer.peer));
    }
    match at(next) {
        Some(held) if is_mine(&held) => {
            let enough = settings.blocks.map_or(2 * AHEAD, |blocks| blocks / 4);
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
            match (all().find(begins), view.head) {
                (Some(mine), _) => Step::Held(mine),
                (None, _) if since => Step::Elsewhere(other.peer),
                (None, Some(head)) => ask(head.saturating_add(AHEAD)),
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
fn takes(view: &View<'_>, held: &Delegation) -> bool {
    view.head.is_some() && view.own.is_none_or(|own| own.sequence < held.sequence)
}

#[derive(Debug, Default)]
struct Inner {
    signer: String,
    state: &'static str,
    held: Option<Delegation>,
    /// Who speaks for the gateway, if not this node.
    elsewhere: Option<PeerId>,
    error: Option<String>,
    asked: BTreeMap<Asked, u64>,
    head: Option<u64>,
    /// The block of the gateway's last message that was refused because nobody leads it here.
    wanted: Option<u64>,
}

/// How a node stands with its gateway's signer.
#[derive(Debug, Default)]
pub struct DelegationStatus(Mutex<Inner>);

impl DelegationStatus {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, step: &Step, head: Option<u64>) {
        let mut inner = self.lock();
        let (state, held, elsewhere) = match step {
            Step::Held(held) => ("held", Some(*held), None),
            Step::Wait(_) => ("waiting", None, None),
            Step::Elsewhere(peer) => ("elsewhere", None, Some(*peer)),
            // One that is being renewed holds until then.
            Step::Ask(_) => ("asking", inner.held, None),
        };
        (inner.state, inner.held, inner.elsewhere, inner.head) = (state, held, elsewhere, head);
        match step {
            Step::Ask(_) => {}
            Step::Wait(NO_SEQUENCE) => inner.error = Some(NO_SEQUENCE.to_owned()),
            // Where nothing is asked for, nothing that was refused is missing.
            _ => inner.error = None,
        }
    }

    /// The gateway has posted a message of a block that this node does not lead: where no block is
    /// known, that is where the chain is.
    pub fn want(&self, block: u64) {
        self.lock().wanted = Some(block);
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let inner = self.lock();
        json!({
            "signer": inner.signer,
            "state": inner.state,
            "first": inner.held.map(|held| held.first),
            "last": inner.held.map(|held| held.last),
            "sequence": inner.held.map(|held| held.sequence),
            "elsewhere": inner.elsewhere,
            "error": inner.error,
        })
    }

    /// Requests to the signer, by what became of them.
    pub fn asked(&self) -> Vec<(&'static str, u64)> {
        let inner = self.lock();
        let count = |asked: &Asked| inner.asked.get(asked).copied().unwrap_or(0);
        Asked::ALL.iter().map(|asked| (asked.name(), count(asked))).collect()
    }

    /// Blocks that are left of the delegation, the next one included; 0 without one.
    pub fn blocks_left(&self) -> u64 {
        let inner = self.lock();
        let next = inner.head.map_or(0, |head| head.saturating_add(1));
        let left = |held: Delegation| held.last.saturating_sub(next.max(held.first)) + 1;
        inner.held.filter(|held| held.last >= next).map_or(0, |held| match held.last {
            u64::MAX => u64::MAX,
            _ => left(held),
        })
    }

    /// What is wrong, if anything, for `/readyz`.
    pub fn describe(&self) -> Option<String> {
        let inner = self.lock();
        let error = inner.error.as_ref()?;
        Some(format!("the gateway's delegation could not be had: {}: {error}", inner.signer))
    }
}

/// Reads the delegation that was saved; `None` if there is none of use.
fn read(settings: &Settings) -> Option<SignedDelegation> {
    let path = &settings.saved;
    let unused = |why: &str| {
        tracing::warn!(path = %path.display(), "the saved delegation is not used: {why}");
        None
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return unused(&error.to_string()),
    };
    let signed: SignedDelegation = match text.trim().parse() {
        Ok(signed) => signed,
        Err(error) => return unused(&format!("{error}")),
    };
    let Delegation { chain_id, peer, key, .. } = signed.delegation;
    if chain_id != settings.chain_id {
        return unused("it is of another chain");
    }
    if signed.gateway().ok() != Some(settings.signer.gateway()) {
        return unused("it is not signed by leader.gateway");
    }
    if peer != settings.peer || key != settings.key {
        return unused("it is for another peer or leader key: another one is asked for");
    }
    Some(signed)
}

/// Writes it: whole, or not at all.
fn write(path: &Path, signed: &SignedDelegation) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let mut file = std::fs::File::create(&name)?;
    writeln!(file, "{signed}")?;
    file.sync_all()?;
    std::fs::rename(&name, path)
}

/// Keeps a delegation.
pub struct Keeper {
    settings: Settings,
    net: Handle,
    status: Arc<DelegationStatus>,
    own: Option<SignedDelegation>,
    started: Instant,
    /// Requests that failed, one after the other, and when to ask again.
    failures: u32,
    ask_at: Instant,
    /// When it was told last.
    told_at: Option<Instant>,
    /// What was last said in the log.
    said: &'static str,
}

impl Keeper {
    /// Of a node that runs; reads what was saved.
    pub fn new(settings: Settings, net: Handle, status: Arc<DelegationStatus>) -> Self {
        let now = Instant::now();
        let own = read(&settings);
        status.lock().signer = settings.signer.name();
        Self {
            settings,
            net,
            status,
            own,
            started: now,
            failures: 0,
            ask_at: now,
            told_at: None,
            said: "",
        }
    }

    /// Runs until the overlay ends, or it is aborted.
    pub async fn run(mut self) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            if self.step().await.is_none() {
                return;
            }
        }
    }

    /// Does what is due. `None` if the driver has ended.
    async fn step(&mut self) -> Option<()> {
        let wanted = self.status.lock().wanted.map(|block| block.saturating_sub(1));
        let head = self.net.support(Vec::new()).await?.head.or(wanted);
        let epochs = self.net.epochs();
        let known = self.known(&epochs);
        self.tell(&epochs).await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let view = View {
            head,
            up: self.started.elapsed(),
            known: &known,
            own: self.own.map(|own| own.delegation),
            unix: u64::try_from(now.as_millis()).unwrap_or_default(),
        };
        let step = decide(&self.settings, &view);
        self.status.note(&step, head);
        match step {
            Step::Held(held) if takes(&view, &held) => self.take(&epochs, held).await,
            Step::Held(_) => {}
            Step::Wait(why) => self.say(why),
            Step::Elsewhere(peer) => self.leave_to(peer),
            Step::Ask(delegation) if Instant::now() >= self.ask_at => self.ask(delegation).await,
            Step::Ask(_) => {}
        }
        Some(())
    }

    /// The delegations of the gateway that nodes go by.
    fn known(&self, epochs: &EpochsView) -> Vec<Delegation> {
        let gateway = self.settings.signer.gateway();
        let all = epochs.newest().delegations().iter().filter(|leader| leader.gateway == gateway);
        all.map(|leader| leader.signed.delegation).collect()
    }

    /// Takes over a delegation that came by another way than from the signer.
    async fn take(&mut self, epochs: &EpochsView, held: Delegation) {
        let mut all = epochs.newest().delegations().iter().map(|leader| leader.signed);
        let Some(signed) = all.find(|signed| signed.delegation == held) else { return };
        self.own = Some(signed);
        self.save(signed).await;
    }

    /// Saves a delegation for the next start.
    async fn save(&self, signed: SignedDelegation) {
        let path = self.settings.saved.clone();
        let written = tokio::task::spawn_blocking(move || {
            write(&path, &signed).map_err(|error| format!("{}: {error}", path.display()))
        });
        if let Ok(Err(error)) = written.await {
            tracing::warn!("the delegation could not be saved for the next start: {error}");
        }
    }

    fn say(&mut self, why: &'static str) {
        if self.said != why {
            self.said = why;
            tracing::info!("no delegation is asked for yet: {why}");
        }
    }

    fn leave_to(&mut self, peer: PeerId) {
        const WHY: &str = "elsewhere";
        if self.said != WHY {
            self.said = WHY;
            tracing::warn!(
                %peer,
                saved = %self.settings.saved.display(),
                "the gateway has delegated to another node or key since: this node leaves it at \
                 that; to lead again, remove the saved delegation and start this node again"
            );
        }
    }

    /// Tells the overlay of the delegation, if it does not know it and the gateway is registered.
    async fn tell(&mut self, epochs: &EpochsView) {
        let Some(own) = self.own else { return };
        let mut leaders = epochs.epochs().iter().flat_map(|epoch| epoch.delegations().iter());
        let late = self.told_at.is_some_and(|told_at| told_at.elapsed() < AGAIN);
        if late || leaders.any(|leader| leader.signed.delegation == own.delegation) {
            return;
        }
        self.told_at = Some(Instant::now());
        match self.net.delegation(own).await {
            Ok(()) => tracing::info!(
                first = own.delegation.first,
                last = own.delegation.last,
                sequence = own.delegation.sequence,
                "the gateway delegates to this node"
            ),
            // It is kept until the gateway registers; below others it counts for nothing.
            Err(DelegationRefused::Delegation(
                DelegationError::NotAGateway(_) | DelegationError::Stale,
            ))
            | Err(DelegationRefused::Ended) => {}
            Err(error) => tracing::warn!("the delegation was not taken, it is told again: {error}"),
        }
    }

    async fn ask(&mut self, delegation: Delegation) {
        let answer = self.settings.signer.sign(delegation).await;
        let asked = answer.as_ref().map_or_else(Asked::from, |_| Asked::Signed);
        *self.status.lock().asked.entry(asked).or_default() += 1;
        match answer {
            Ok(signed) => {
                (self.failures, self.told_at, self.said) = (0, None, "");
                self.own = Some(signed);
                self.status.lock().error = None;
                self.save(signed).await;
                let epochs = self.net.epochs();
                self.tell(&epochs).await;
            }
            Err(error) => {
                let pause = Duration::from_secs(1 << self.failures.min(MAX_DOUBLINGS));
                self.ask_at = Instant::now() + pause;
                self.failures = self.failures.saturating_add(1);
                let (signer, text) = (self.settings.signer.name(), error.to_string());
                let mut inner = self.status.lock();
                if inner.error.as_ref() != Some(&text) {
                    tracing::warn!(
                        signer,
                        gateway = %self.settings.signer.gateway(),
                        "the delegation is not signed, and is asked for again: {text}"
                    );
                }
                inner.error = Some(text);
            }
        }
    }
}

#[cfg(test)]
mod tests;
