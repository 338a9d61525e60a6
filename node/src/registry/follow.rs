//! From lists to epochs: asks the sources, and hands the overlay another epoch when it is time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::Address;
use fragcast_turbine::net::Handle;
use fragcast_turbine::rotation::{Change, Why};
use fragcast_turbine::{Epoch, EpochError, EpochsView, Rotation, Schedule, SignedDelegation};
use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::saved::Saved;
use super::source::{Source, SourceError};
use super::status::{RegistryStatus, vote_life};
use crate::network::Network;

/// How often it is looked whether a change is due: several times in the shortest block.
const LOOK: Duration = Duration::from_millis(100);
/// The longest pause of a source that fails, in polls: a laboratory that polls often waits for less.
const MAX_POLLS: u32 = 30;
/// The same in time, unless it is polled less often than that.
pub const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Settings of following a registry.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The sources, the most trusted first.
    pub sources: Vec<Source>,
    /// How often each is asked.
    pub poll: Duration,
    /// How long the start waits for the first answers, if a schedule is saved.
    pub patience: Duration,
    /// Where the schedule is saved for the next start; `None`: nowhere.
    pub saved: Option<PathBuf>,
    /// The node is not ready with a list that was confirmed longer ago than this; `None`: it is.
    pub max_age: Option<Duration>,
}

impl Settings {
    /// How long the last answer of a source counts.
    fn vote_life(&self) -> Duration {
        let longest = self.sources.iter().map(Source::longest).max();
        vote_life(self.poll, longest.unwrap_or_default())
    }
}

/// How long to wait after so many failures in a row.
fn pause(poll: Duration, failures: u32) -> Duration {
    let polls = 2u32.pow(failures.min(10)).min(MAX_POLLS);
    (poll * polls).min(MAX_PAUSE).max(poll)
}

/// With which schedules a node begins.
#[derive(Debug)]
pub struct Beginning {
    settings: Settings,
    schedules: Vec<(u64, Schedule)>,
    rotation: Rotation,
    status: Arc<RegistryStatus>,
}

impl Beginning {
    /// Asks all sources once, and reads what was saved: with that the node need not wait for a source
    /// that takes long.
    ///
    /// * With a saved schedule that goes on: another list follows it with its next term, unless
    ///   peers go by it from another block.
    /// * Else the list of the registry holds from block 0 on, or, if it does not answer, that of the
    ///   network file.
    /// * A network file that lists no gateways, with nothing saved, makes the start wait for the
    ///   registry.
    pub async fn of(settings: Settings, network: &Network) -> Self {
        let term = network.schedule.blocks_per_term();
        let names = settings.sources.iter().map(|source| (source.name(), source.public_name()));
        let life = settings.vote_life();
        let status = Arc::new(RegistryStatus::new(names, settings.max_age, life));
        let saved = settings.saved.as_ref().and_then(|path| {
            Saved::read(path, network.chain_id, term).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), "the saved schedule is not used: {error}");
                None
            })
        });
        let patience = saved.as_ref().map(|_| settings.patience);
        let asked = settings.sources.iter().map(|source| async move {
            let patience = patience.unwrap_or_else(|| source.longest());
            let late = Err(SourceError::TimedOut(patience));
            tokio::time::timeout(patience, source.ask()).await.unwrap_or(late)
        });
        for (index, answer) in join_all(asked).await.into_iter().enumerate() {
            status.take(Instant::now(), index, answer);
        }
        let mut schedules =
            saved.map(|saved| saved.schedules(&network.schedule)).unwrap_or_default();
        let in_use = schedules.last().unwrap_or(&(0, network.schedule.clone())).clone();
        if schedules.is_empty() && !network.has_gateways {
            wait_for_answer(&settings, &status).await;
        }
        let told = status.vote(Instant::now(), in_use.1.gateways()).map(|vote| vote.list);
        let told = told.and_then(|list| in_use.1.with_gateways(list).ok());
        match (schedules.is_empty(), told) {
            (true, Some(told)) => schedules.push((0, told)),
            (true, None) => {
                tracing::warn!("no registry answers: the gateways of the network file hold");
                schedules.push(in_use);
            }
            (false, Some(told)) if told != in_use.1 => {
                let next = (in_use.0 / term).saturating_add(1).saturating_mul(term);
                schedules.push((next, told));
            }
            (false, Some(_)) => {}
            (false, None) => {
                tracing::warn!("no registry answers: the schedule that was saved last holds");
            }
        }
        let wanted = schedules.last().map_or_else(Vec::new, |(_, s)| s.gateways().to_vec());
        Self { settings, schedules, rotation: Rotation::new(wanted), status }
    }

    /// The epochs to start the protocol with.
    ///
    /// # Errors
    /// [`EpochError`].
    pub fn epochs(&self, network: &Network) -> Result<Vec<Epoch>, EpochError> {
        let ours = delegations(network);
        let epoch = |(from_block, schedule): &(u64, Schedule)| {
            let known = of(&ours, schedule.gateways());
            let (members, schedule) = (Arc::clone(&network.members), schedule.clone());
            Epoch::new(network.chain_id, *from_block, members, schedule, known)
        };
        self.schedules.iter().map(epoch).collect()
    }

    /// What the registry says of itself.
    pub const fn status(&self) -> &Arc<RegistryStatus> {
        &self.status
    }

    /// What follows the registry of a running node.
    pub fn follow(self, net: Handle, network: &Network) -> Follower {
        let Self { settings, rotation, status, .. } = self;
        Follower { settings, rotation, status, net, ours: delegations(network), saved: None }
    }
}

/// Asks until some source has a list.
async fn wait_for_answer(settings: &Settings, status: &RegistryStatus) {
    let mut failures = 0;
    while status.vote(Instant::now(), &[]).is_none() {
        if failures == 0 {
            tracing::warn!("no registry answers, and the network file has no gateways: waiting");
        }
        tokio::time::sleep(pause(settings.poll, failures)).await;
        failures = failures.saturating_add(1);
        let asked = join_all(settings.sources.iter().map(Source::ask));
        for (index, answer) in asked.await.into_iter().enumerate() {
            status.take(Instant::now(), index, answer);
        }
    }
}

/// The delegations of a network file, registered gateways or not, with who signed them.
fn delegations(network: &Network) -> Vec<(Address, SignedDelegation)> {
    let all = network.delegations.iter().chain(&network.early);
    all.filter_map(|signed| Some((signed.gateway().ok()?, *signed))).collect()
}

fn of<'a>(
    all: &'a [(Address, SignedDelegation)],
    gateways: &'a [Address],
) -> impl Iterator<Item = SignedDelegation> + 'a {
    all.iter().filter(|(gateway, _)| gateways.contains(gateway)).map(|(_, signed)| *signed)
}

/// Follows the registry.
pub struct Follower {
    settings: Settings,
    rotation: Rotation,
    status: Arc<RegistryStatus>,
    net: Handle,
    /// Delegations that this node knows from its files.
    ours: Vec<(Address, SignedDelegation)>,
    /// What was saved last.
    saved: Option<Saved>,
}

impl Follower {
    /// Runs until the overlay's driver ends, or it is aborted.
    pub async fn run(mut self) {
        let news = Arc::new(Notify::new());
        // Aborted when this is.
        let mut asking = JoinSet::new();
        for (index, source) in self.settings.sources.iter().cloned().enumerate() {
            let (status, news, poll) = (self.status.clone(), news.clone(), self.settings.poll);
            asking.spawn(async move {
                let mut failures = 0u32;
                loop {
                    let answer = source.ask().await;
                    failures = if answer.is_ok() { 0 } else { failures.saturating_add(1) };
                    status.take(Instant::now(), index, answer);
                    news.notify_one();
                    tokio::time::sleep(pause(poll, failures)).await;
                }
            });
        }
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = news.notified() => {}
                _ = look.tick() => {}
            }
            if self.step().await.is_none() {
                return;
            }
        }
    }

    /// Does what is due. `None` if the driver has ended.
    async fn step(&mut self) -> Option<()> {
        if let Some(vote) = self.status.vote(Instant::now(), self.rotation.wanted()) {
            let gateways = vote.list.len();
            if self.rotation.want(vote.list) {
                tracing::info!(gateways, agree = vote.agree, "the registry has another list");
            }
        }
        let epochs = self.net.epochs();
        let in_effect = epochs.newest().schedule().gateways() == self.rotation.wanted();
        let settled = in_effect && epochs.epochs().len() == 1;
        self.save(&epochs).await;
        if settled {
            self.status.note(None, gateways_of(&epochs));
            return Some(());
        }
        let support = self.net.support(self.rotation.wanted().to_vec()).await?;
        // What the driver has published by then.
        let epochs = self.net.epochs();
        if let Some(change) = self.rotation.next(&epochs, &support) {
            self.change(&epochs, change).await;
        }
        let epochs = self.net.epochs();
        let from = epochs.newest().rotation_from();
        let is_ahead =
            support.head.is_none_or(|head| from > head) && from > epochs.oldest().from_block();
        self.status.note(is_ahead.then_some(from), gateways_of(&epochs));
        Some(())
    }

    /// Hands the overlay the epoch of a change.
    async fn change(&mut self, epochs: &EpochsView, change: Change) {
        let Change { from_block, instead, gateways, why } = change;
        let newest = epochs.newest();
        let known: Vec<SignedDelegation> = of(&self.ours, &gateways).collect();
        let count = gateways.len();
        let epoch = newest.schedule().with_gateways(gateways).map_err(|error| error.to_string());
        let epoch = epoch.and_then(|schedule| {
            let members = Arc::clone(newest.members());
            Epoch::new(newest.chain_id(), from_block, members, schedule, known)
                .map_err(|error| error.to_string())
        });
        let taken = match epoch {
            Ok(epoch) => {
                let taken = match instead {
                    true => self.net.epoch_instead(epoch).await,
                    false => self.net.epoch(epoch).await,
                };
                taken.map_err(|error| error.to_string())
            }
            Err(error) => Err(error),
        };
        match taken {
            Ok(()) => {
                let why_text: &'static str = why.into();
                self.status.changed(why_text);
                match why {
                    Why::Postponed => tracing::warn!(
                        from_block,
                        gateways = count,
                        "most peers do not go by the new list of gateways yet: it waits a term"
                    ),
                    _ => tracing::info!(
                        from_block,
                        gateways = count,
                        why = why_text,
                        "another list of gateways takes effect"
                    ),
                }
            }
            Err(error) => {
                self.rotation.refuse(from_block);
                self.status.refused(from_block, &error);
            }
        }
    }

    /// Saves what is in force, if it has changed.
    async fn save(&mut self, epochs: &EpochsView) {
        let Some(path) = self.settings.saved.clone() else { return };
        let now = Saved::of(epochs);
        if self.saved.as_ref() == Some(&now) {
            return;
        }
        self.saved = Some(now.clone());
        let written = tokio::task::spawn_blocking(move || {
            now.write(&path).map_err(|error| format!("{}: {error}", path.display()))
        });
        if let Ok(Err(error)) = written.await {
            tracing::warn!("the schedule could not be saved for the next start: {error}");
        }
    }
}

/// How many gateways the newest list has.
fn gateways_of(epochs: &EpochsView) -> usize {
    epochs.newest().schedule().gateways().len()
}

#[cfg(test)]
mod tests;
