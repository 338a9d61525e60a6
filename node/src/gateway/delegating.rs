//! Keeps the delegation of a gateway whose key a [remote signer](super::signer) has.
//!
//! Once a second it is looked which delegation of the gateway counts for the next block, and
//! `decision` says what to do. The rules:
//!
//! * The one that was obtained is saved and told again after a restart; the signer is asked for
//!   nothing that is there already. One that came by another way (the network file, a peer) is taken
//!   for obtained once it holds and a block is known.
//! * One that the overlay has not had (its gateway is not registered yet) is saved as such, and before
//!   it is told, in the same run or after a restart, it is looked whether it comes too late by now.
//! * One for so many blocks is renewed in its last quarter, from the next block on: the key is the
//!   same, so two that overlap are no two leaders.
//! * Where another peer or key speaks for the gateway, it is taken over from the first block that no
//!   node has open; if that one is open by the time that it is signed, what was signed is dropped, and
//!   asked for again further ahead. But a node that has spoken for the gateway and sees a higher
//!   sequence for somebody else leaves it at that: two nodes that took over from one another would
//!   never end.
//! * The sequence is the time in milliseconds, or one more than the highest that is known. So it grows
//!   without anything being remembered, and stays above what people number by hand. Above the highest
//!   number that there is nothing is asked for.
//!
//! While the signer is away what there is holds; it is asked again after 1 to 64 s.

mod decision;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fragcast_turbine::delegation::DelegationError;
use fragcast_turbine::net::{DelegationRefused, Handle};
use fragcast_turbine::{Delegation, EpochsView, PeerId, SignedDelegation};
use serde_json::{Value, json};

use super::signer::{Asked, Signer};
use crate::serve::Reader;
use decision::{
    AHEAD, NO_SEQUENCE, Step, Untold, View, decide, enough, further, is_late, takes, untold,
};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// The longest pause between two requests that failed: 2^6 seconds.
const MAX_DOUBLINGS: u32 = 6;
/// The pause before a delegation that was not taken is told again.
const AGAIN: Duration = Duration::from_secs(10);

/// What is wrong with a delegation that was signed too late.
const LATE: &str = "signed when its first block was open already: approve the next one sooner, which \
                    begins further ahead";

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

impl Settings {
    /// Whether a delegation is to this node and its key.
    fn is_mine(&self, delegation: &Delegation) -> bool {
        delegation.peer == self.peer && delegation.key == self.key
    }
}

#[derive(Debug, Default)]
struct Inner {
    signer: String,
    /// Blocks of a delegation; `None`: all.
    blocks: Option<u64>,
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

    /// As JSON. Which signer there is, and what it answers, only the operator is told.
    pub fn json(&self, reader: Reader) -> Value {
        let inner = self.lock();
        let (signer, error) = match reader {
            Reader::Operator => (Some(&inner.signer), inner.error.as_deref()),
            Reader::Anybody => (None, inner.error.as_ref().map(|_| "see the log")),
        };
        json!({
            "signer": signer,
            "state": inner.state,
            "first": inner.held.map(|held| held.first),
            "last": inner.held.map(|held| held.last),
            "sequence": inner.held.map(|held| held.sequence),
            "elsewhere": inner.elsewhere,
            "error": error,
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

    /// A delegation with fewer blocks left is renewed; `None` while another node speaks for the gateway, and
    /// this one needs none.
    pub fn renewed_from(&self) -> Option<u64> {
        let inner = self.lock();
        inner.elsewhere.is_none().then(|| enough(inner.blocks))
    }

    /// What is wrong, if anything, for `/readyz`.
    pub fn describe(&self) -> Option<String> {
        let inner = self.lock();
        let error = inner.error.as_ref()?;
        Some(format!("the gateway's delegation could not be had: {}: {error}", inner.signer))
    }
}

/// What stands behind a saved delegation that the overlay has not had.
const UNTOLD: &str = " untold";

/// Reads the delegation that was saved, and whether the overlay has had it; `None` if there is none of
/// use.
fn read(settings: &Settings) -> Option<(SignedDelegation, bool)> {
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
    let text = text.trim();
    let untold = text.strip_suffix(UNTOLD);
    let signed: SignedDelegation = match untold.unwrap_or(text).parse() {
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
    Some((signed, untold.is_none()))
}

/// Writes it, and whether the overlay has had it: whole, or not at all.
fn write(path: &Path, signed: &SignedDelegation, is_told: bool) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let mut file = std::fs::File::create(&name)?;
    writeln!(file, "{signed}{}", if is_told { "" } else { UNTOLD })?;
    file.sync_all()?;
    std::fs::rename(&name, path)
}

/// Keeps a delegation.
pub struct Keeper {
    settings: Settings,
    net: Handle,
    status: Arc<DelegationStatus>,
    own: Option<SignedDelegation>,
    /// Whether the overlay has had it: until then it changes nobody's leader.
    is_told: bool,
    /// How far ahead it is asked for where somebody else speaks for the gateway.
    ahead: u64,
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
        // Without one nothing is told.
        let (own, is_told) = read(&settings).unzip();
        {
            let mut inner = status.lock();
            (inner.signer, inner.blocks) = (settings.signer.name(), settings.blocks);
        }
        Self {
            settings,
            net,
            status,
            own,
            is_told: is_told.unwrap_or_default(),
            ahead: AHEAD,
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
        let (head, epochs) = self.look().await?;
        let known = self.known(&epochs);
        self.tell(&epochs, head).await;
        let view = self.view(head, &known);
        let step = decide(&self.settings, &view);
        self.status.note(&step, head);
        match step {
            Step::Held(held) if takes(&view, &held) => self.take(&epochs, held).await,
            Step::Held(_) => {}
            Step::Wait(why) => self.say(why),
            Step::Elsewhere(peer) => self.leave_to(peer),
            Step::Ask(delegation) if Instant::now() >= self.ask_at => {
                self.ask(delegation, head).await?;
            }
            Step::Ask(_) => {}
        }
        Some(())
    }

    /// The open block, or the one before that which the gateway wants to open, and the epochs. `None`
    /// if the driver has ended.
    async fn look(&self) -> Option<(Option<u64>, Arc<EpochsView>)> {
        let wanted = self.status.lock().wanted.map(|block| block.saturating_sub(1));
        let head = self.net.support(Vec::new()).await?.head.or(wanted);
        Some((head, self.net.epochs()))
    }

    fn view<'a>(&self, head: Option<u64>, known: &'a [Delegation]) -> View<'a> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        View {
            head,
            up: self.started.elapsed(),
            known,
            own: self.own.map(|own| own.delegation),
            unix: u64::try_from(now.as_millis()).unwrap_or_default(),
            ahead: self.ahead,
        }
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
        (self.own, self.is_told) = (Some(signed), true);
        self.save(signed).await;
    }

    /// Drops the delegation that nobody has been told: nor is it to be told after a restart.
    async fn drop_own(&mut self) {
        let Some(own) = self.own.take() else { return };
        let first = own.delegation.first;
        tracing::warn!(
            first,
            "somebody else speaks for the gateway in blocks that are open already: the delegation is \
             dropped, and another one is asked for"
        );
        let path = self.settings.saved.clone();
        // What cannot be removed is overwritten by the next one.
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_file(path)).await;
    }

    /// Saves a delegation for the next start.
    async fn save(&self, signed: SignedDelegation) {
        let (path, is_told) = (self.settings.saved.clone(), self.is_told);
        let written = tokio::task::spawn_blocking(move || {
            write(&path, &signed, is_told).map_err(|error| format!("{}: {error}", path.display()))
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
    async fn tell(&mut self, epochs: &EpochsView, head: Option<u64>) {
        let Some(own) = self.own else { return };
        let mut leaders = epochs.epochs().iter().flat_map(|epoch| epoch.delegations().iter());
        let was_told = self.is_told;
        if leaders.any(|leader| leader.signed.delegation == own.delegation) {
            self.is_told = true;
        } else if self.told_at.is_some_and(|told_at| told_at.elapsed() < AGAIN) {
            return;
        } else {
            let known = self.known(epochs);
            let view = View { own: None, ..self.view(head, &known) };
            match (!was_told).then(|| untold(&self.settings, &view, &own.delegation)) {
                None | Some(Untold::Tell) => self.hand_over(own).await,
                Some(Untold::Wait) => return,
                Some(Untold::Drop) => return self.drop_own().await,
            }
        }
        if self.is_told && !was_told {
            self.save(own).await;
        }
    }

    /// Tells the overlay of it.
    async fn hand_over(&mut self, own: SignedDelegation) {
        self.told_at = Some(Instant::now());
        match self.net.delegation(own).await {
            Ok(()) => {
                self.is_told = true;
                tracing::info!(
                    first = own.delegation.first,
                    last = own.delegation.last,
                    sequence = own.delegation.sequence,
                    "the gateway delegates to this node"
                );
            }
            // Below others it counts for nothing.
            Err(DelegationRefused::Delegation(DelegationError::Stale)) => self.is_told = true,
            // It is kept until the gateway registers.
            Err(DelegationRefused::Delegation(DelegationError::NotAGateway(_)))
            | Err(DelegationRefused::Ended) => {}
            Err(error) => tracing::warn!("the delegation was not taken, it is told again: {error}"),
        }
    }

    /// Lets the signer sign, and takes what it has signed unless it comes too late. `None` if the
    /// driver has ended.
    async fn ask(&mut self, delegation: Delegation, asked_at: Option<u64>) -> Option<()> {
        let answer = self.settings.signer.sign(delegation).await;
        // Somebody may have had to approve it: where the chain is by now is asked again.
        let (head, epochs) = self.look().await?;
        let known = self.known(&epochs);
        let late = answer.is_ok() && is_late(&self.settings, &self.view(head, &known), &delegation);
        let asked = match &answer {
            Ok(_) if late => Asked::Late,
            Ok(_) => Asked::Signed,
            Err(error) => error.into(),
        };
        *self.status.lock().asked.entry(asked).or_default() += 1;
        match answer {
            Ok(_) if late => {
                let took = head.zip(asked_at).map_or(0, |(now, then)| now.saturating_sub(then));
                self.ahead = further(self.ahead, took);
                self.failures = 0;
                tracing::warn!(
                    signer = self.settings.signer.name(),
                    first = delegation.first,
                    blocks = took,
                    ahead = self.ahead,
                    "the delegation was signed when its first block was open already: it is dropped, \
                     and asked for again further ahead"
                );
                self.status.lock().error = Some(LATE.to_owned());
            }
            Ok(signed) => {
                (self.failures, self.said) = (0, "");
                (self.own, self.is_told) = (Some(signed), false);
                self.status.lock().error = None;
                self.hand_over(signed).await;
                self.save(signed).await;
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
        Some(())
    }
}

#[cfg(test)]
mod tests;
