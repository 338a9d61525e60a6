//! What became of asking: for the votes, the status, metrics and `/readyz`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use alloy_primitives::Address;
use serde_json::{Value, json};

use super::source::{Answer, SourceError};
use super::votes::{self, Vote};
use crate::log::{Limiter, Pace};
use crate::serve::Reader;

/// How long the last answer of a source counts that does not answer any more, at least.
const VOTE_LIFE: Duration = Duration::from_secs(30);
/// The same in polls: a source may miss one without losing its vote.
pub const VOTE_POLLS: u32 = 3;

/// How long the last answer of a source counts that is asked every `poll` and may take `longest` to
/// answer. Shorter than the time between two answers it would leave nobody a vote, or each source in
/// turn the only one.
pub fn vote_life(poll: Duration, longest: Duration) -> Duration {
    VOTE_LIFE.max(poll.saturating_mul(VOTE_POLLS).saturating_add(longest))
}

/// One source.
#[derive(Debug, Default)]
struct State {
    name: String,
    public_name: String,
    list: Option<Vec<Address>>,
    answered_at: Option<Instant>,
    /// Why the last try came to nothing; `None` if it did not.
    failing: Option<String>,
    answers: u64,
    failures: u64,
    contradicts_at: Option<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    sources: Vec<State>,
    /// When some source last said what counts.
    confirmed_at: Option<Instant>,
    agree: bool,
    pending: Option<u64>,
    gateways: usize,
    changes: BTreeMap<&'static str, u64>,
    refused: u64,
    lines: Limiter<(&'static str, usize)>,
}

/// The registry, as this node sees it.
#[derive(Debug)]
pub struct RegistryStatus {
    inner: Mutex<Inner>,
    max_age: Option<Duration>,
    /// How long an answer counts: see [`vote_life`].
    life: Duration,
    started_at: Instant,
}

/// One source in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceNumbers {
    /// Its name.
    pub name: String,
    /// Answers that were lists.
    pub answers: u64,
    /// Tries that came to nothing.
    pub failures: u64,
    /// The time since the last list.
    pub age: Option<Duration>,
    /// Whether the last try came to nothing.
    pub failing: bool,
}

/// The registry in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryNumbers {
    /// By source, in the order of the configuration.
    pub sources: Vec<SourceNumbers>,
    /// The time since a source last said what counts; since the start if none has.
    pub age: Duration,
    /// How long an answer counts: see [`vote_life`].
    pub life: Duration,
    /// Whether sources differ.
    pub differ: bool,
    /// The first block of a list that is announced and not in effect.
    pub pending: Option<u64>,
    /// Gateways of the newest list.
    pub gateways: usize,
    /// Lists that took effect, by why then.
    pub changes: BTreeMap<&'static str, u64>,
    /// Changes that the overlay did not take.
    pub refused: u64,
}

impl RegistryNumbers {
    /// For experiments: those of one source that confirmed the list so long ago, and since then fails and
    /// differs.
    pub(crate) fn believed(age: Duration) -> Self {
        let is_away = age > VOTE_LIFE;
        let (name, age_of) = ("believed".to_owned(), Some(age));
        let source = SourceNumbers { name, answers: 1, failures: 0, age: age_of, failing: is_away };
        Self {
            sources: vec![source],
            age,
            life: VOTE_LIFE,
            differ: is_away,
            pending: None,
            gateways: 1,
            changes: BTreeMap::new(),
            refused: 0,
        }
    }
}

impl RegistryStatus {
    /// Nobody has answered yet. Sources have a name for the operator and one for everybody; of two with
    /// the same one each has its number behind it. Answers count for `life`.
    pub fn new(
        names: impl Iterator<Item = (String, String)>,
        max_age: Option<Duration>,
        life: Duration,
    ) -> Self {
        let names: Vec<(String, String)> = names.collect();
        let numbered = |number: usize, name: &str, of: fn(&(String, String)) -> &String| {
            let twice = names.iter().filter(|names| of(names) == name).count() > 1;
            if twice { format!("{name} #{}", number + 1) } else { name.to_owned() }
        };
        let source = |(number, (name, public_name)): (usize, &(String, String))| State {
            name: numbered(number, name, |names| &names.0),
            public_name: numbered(number, public_name, |names| &names.1),
            ..State::default()
        };
        let sources = names.iter().enumerate().map(source).collect();
        let inner = Inner { sources, agree: true, ..Inner::default() };
        Self { inner: Mutex::new(inner), max_age, life, started_at: Instant::now() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a source has answered.
    pub fn take(&self, now: Instant, index: usize, answer: Result<Answer, SourceError>) {
        let mut inner = self.lock();
        let Inner { sources, lines, .. } = &mut *inner;
        let Some(source) = sources.get_mut(index) else { return };
        let mut due = |kind| lines.pass((kind, index), Pace::BACK_OFF, now);
        match answer {
            Ok(Answer { list, contradicts_at }) => {
                source.answers += 1;
                if source.failing.take().is_some() {
                    tracing::info!(source = source.name, "this source of gateways answers again");
                }
                if let Some(block) = contradicts_at
                    && let Some(left_out) = due("contradicts")
                {
                    tracing::warn!(
                        source = source.name,
                        block,
                        left_out,
                        "the registry names another gateway for this block than its own list: \
                         compare blocks_per_term"
                    );
                }
                source.contradicts_at = contradicts_at;
                source.answered_at = Some(now);
                source.list = Some(list.addresses());
            }
            Err(error) => {
                source.failures += 1;
                let error = error.to_string();
                if let Some(left_out) = due("failing") {
                    let name = &source.name;
                    tracing::warn!(
                        source = name,
                        left_out,
                        "no list of gateways from this source, the last one holds: {error}"
                    );
                }
                source.failing = Some(error);
            }
        }
    }

    /// What most sources say, if any has answered lately; `in_use` decides between equals.
    pub fn vote(&self, now: Instant, in_use: &[Address]) -> Option<Vote> {
        let mut inner = self.lock();
        let is_valid = |source: &&State| {
            source.answered_at.is_some_and(|at| now.duration_since(at) <= self.life)
        };
        let lists = inner
            .sources
            .iter()
            .map(|source| Some(source).filter(is_valid).and_then(|source| source.list.as_deref()));
        let vote = votes::count(lists, in_use)?;
        let told = inner.sources.iter().filter(|source| source.list.as_ref() == Some(&vote.list));
        let confirmed_at = told.filter_map(|source| source.answered_at).max();
        inner.confirmed_at = inner.confirmed_at.max(confirmed_at);
        if !vote.agree
            && let Some(left_out) = inner.lines.pass(("differ", 0), Pace::BACK_OFF, now)
        {
            let gateways = vote.list.len();
            tracing::warn!(
                gateways,
                left_out,
                "sources of gateways differ: most of them count, then the list in use, then the \
                 first source"
            );
        }
        inner.agree = vote.agree;
        Some(vote)
    }

    /// What is announced, and how many gateways the newest list has.
    pub(super) fn note(&self, pending: Option<u64>, gateways: usize) {
        let mut inner = self.lock();
        (inner.pending, inner.gateways) = (pending, gateways);
    }

    pub(super) fn changed(&self, why: &'static str) {
        *self.lock().changes.entry(why).or_default() += 1;
    }

    pub(super) fn refused(&self, from_block: u64, error: &str) {
        let mut inner = self.lock();
        inner.refused += 1;
        let now = Instant::now();
        if let Some(left_out) = inner.lines.pass(("refused", 0), Pace::MINUTE, now) {
            tracing::warn!(from_block, left_out, "a list of gateways was not taken: {error}");
        }
    }

    /// The numbers at a time.
    pub fn numbers(&self, now: Instant) -> RegistryNumbers {
        let inner = self.lock();
        let source = |source: &State| SourceNumbers {
            name: source.name.clone(),
            answers: source.answers,
            failures: source.failures,
            age: source.answered_at.map(|at| now.duration_since(at)),
            failing: source.failing.is_some(),
        };
        RegistryNumbers {
            sources: inner.sources.iter().map(source).collect(),
            age: now.duration_since(inner.confirmed_at.unwrap_or(self.started_at)),
            life: self.life,
            differ: !inner.agree,
            pending: inner.pending,
            gateways: inner.gateways,
            changes: inner.changes.clone(),
            refused: inner.refused,
        }
    }

    /// Why the node is not ready for the registry's sake, if it is not: its list is older than the
    /// operator allows.
    pub fn not_ready(&self, now: Instant) -> Option<String> {
        let (age, max_age) = (self.numbers(now).age, self.max_age?);
        (age > max_age).then(|| {
            format!(
                "the list of gateways was confirmed {} s ago, registry.max_age_s is {}: no source \
                 answers",
                age.as_secs(),
                max_age.as_secs()
            )
        })
    }

    /// What `/readyz` adds though the node is ready: that the list is an old one.
    pub fn describe(&self, now: Instant) -> Option<String> {
        let numbers = self.numbers(now);
        let away = numbers.age > self.life;
        let differ = numbers.differ.then(|| "sources of gateways differ".to_owned());
        away.then(|| {
            let seconds = numbers.age.as_secs();
            format!("no registry answers: the list of gateways is {seconds} s old")
        })
        .or(differ)
    }

    /// The registry's part of the status.
    pub fn status(&self, now: Instant, reader: Reader) -> Value {
        let numbers = self.numbers(now);
        let inner = self.lock();
        let sources = numbers.sources.iter().zip(&inner.sources).map(|(source, state)| {
            json!({
                "source": match reader {
                    Reader::Operator => &state.name,
                    Reader::Anybody => &state.public_name,
                },
                "answers": source.answers,
                "failures": source.failures,
                "ageSeconds": source.age.map(|age| age.as_secs()),
                "gateways": state.list.as_ref().map(Vec::len),
                "error": state.failing,
                "contradictsAt": state.contradicts_at,
            })
        });
        json!({
            "gateways": numbers.gateways,
            "ageSeconds": numbers.age.as_secs(),
            "differ": numbers.differ,
            "pendingFrom": numbers.pending,
            "changes": numbers.changes,
            "refused": numbers.refused,
            "sources": sources.collect::<Vec<Value>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Gateway, GatewayList};

    fn answer(gateways: &[u8]) -> Answer {
        let row =
            |n: &u8| Gateway { url: "http://x:1".into(), address: Address::with_last_byte(*n) };
        Answer { list: GatewayList::new(gateways.iter().map(row)).unwrap(), contradicts_at: None }
    }

    fn status(max_age: Option<u64>) -> RegistryStatus {
        let names = ["one", "two"].map(|name| (name.to_owned(), name.to_owned()));
        RegistryStatus::new(names.into_iter(), max_age.map(Duration::from_secs), VOTE_LIFE)
    }

    fn failure() -> SourceError {
        SourceError::Status(503)
    }

    #[test]
    fn a_registry_that_is_away_is_told_by_its_age_and_makes_nobody_unready() {
        let (status, start) = (status(None), Instant::now());
        status.take(start, 0, Ok(answer(&[1, 2])));
        assert_eq!(status.vote(start, &[]).unwrap().list.len(), 2);
        let later = start + Duration::from_secs(20);
        status.take(later, 0, Err(failure()));
        assert_eq!(status.vote(later, &[]).unwrap().list.len(), 2);
        assert_eq!(status.describe(later), None);
        let later = start + Duration::from_secs(3_620);
        assert_eq!(status.vote(later, &[]), None, "nobody has a vote: the last list holds");
        let text = "no registry answers: the list of gateways is 3620 s old";
        assert_eq!(status.describe(later).as_deref(), Some(text));
        assert_eq!(status.not_ready(later), None);
        let value = status.status(later, Reader::Operator);
        assert_eq!(value["ageSeconds"], 3_620);
        assert_eq!(value["sources"][0]["failures"], 1);
        assert_eq!(value["sources"][0]["error"], "answered HTTP 503");
        status.take(later, 0, Ok(answer(&[1, 2])));
        status.vote(later, &[]);
        assert_eq!((status.describe(later), status.numbers(later).age), (None, Duration::ZERO));
    }

    #[test]
    fn a_list_older_than_allowed_makes_a_node_unready() {
        let status = status(Some(600));
        let later = status.started_at + Duration::from_secs(601);
        let reason = status.not_ready(later).unwrap();
        assert!(reason.contains("601 s ago, registry.max_age_s is 600"), "{reason}");
        status.take(later, 1, Ok(answer(&[1])));
        status.vote(later, &[]);
        assert_eq!(status.not_ready(later), None);
    }

    #[test]
    fn a_source_that_is_away_loses_its_vote() {
        let (status, start) = (status(None), Instant::now());
        status.take(start, 0, Ok(answer(&[1])));
        status.take(start, 1, Ok(answer(&[1, 2])));
        let in_use = [Address::with_last_byte(1)];
        let vote = |now| {
            let vote = status.vote(now, &in_use);
            (vote.map(|vote| vote.list.len()), status.numbers(now).differ)
        };
        assert_eq!(vote(start), (Some(1), true));
        let later = start + VOTE_LIFE + Duration::from_secs(1);
        status.take(later, 1, Ok(answer(&[1, 2])));
        assert_eq!(vote(later), (Some(2), false));
    }

    #[test]
    fn a_source_that_is_asked_seldom_keeps_its_vote_between_two_polls() {
        let seconds = Duration::from_secs;
        let (poll, longest) = (seconds(60), seconds(24));
        let names = ["one", "two"].map(|name| (name.to_owned(), name.to_owned()));
        let status = RegistryStatus::new(names.into_iter(), None, vote_life(poll, longest));
        let start = Instant::now();
        assert_eq!(status.numbers(start).life, seconds(204), "for the alert");
        status.take(start, 0, Ok(answer(&[1])));
        status.take(start + seconds(30), 1, Ok(answer(&[1, 2])));
        let in_use = [Address::with_last_byte(1)];
        for later in (0..=3).map(|n| start + seconds(45 + 5 * n)) {
            let vote = status.vote(later, &in_use);
            assert_eq!(vote.map(|vote| (vote.list.len(), vote.agree)), Some((1, false)));
        }
        // One that is asked again as often as usual and fails once keeps it as well.
        let later = start + poll * 2 + longest;
        assert!(status.vote(later, &in_use).is_some());
        assert!(status.describe(later).is_none_or(|text| !text.contains("no registry answers")));
        let later = start + seconds(30) + poll * 3 + longest + seconds(1);
        assert_eq!(status.vote(later, &in_use), None);
        assert!(status.describe(later).unwrap().contains("no registry answers"));
        assert_eq!(vote_life(seconds(1), seconds(24)), VOTE_LIFE, "of a usual source");
    }

    #[test]
    fn sources_at_one_host_have_names_of_their_own_and_everybody_is_told_no_path() {
        let timeout = Duration::from_secs(1);
        let names =
            ["http://h:1/SECRET", "http://h:1/?jwt=SECRET", "/etc/PATH/one.json", "two.json"]
                .map(|text| crate::registry::Source::new(text, 30, timeout).unwrap())
                .map(|source| (source.name(), source.public_name()));
        let status = RegistryStatus::new(names.into_iter(), None, VOTE_LIFE);
        let of = |reader| {
            let value = status.status(Instant::now(), reader);
            assert!(!value.to_string().contains("SECRET"), "{value}");
            let sources = value["sources"].as_array().unwrap().iter();
            sources.map(|source| source["source"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let urls = ["http://h:1/… #1", "http://h:1/… #2"];
        assert_eq!(of(Reader::Operator), [&urls[..], &["/etc/PATH/one.json", "two.json"]].concat());
        assert_eq!(of(Reader::Anybody), [&urls[..], &["file #3", "file #4"]].concat());
        let metrics: Vec<String> =
            status.numbers(Instant::now()).sources.into_iter().map(|source| source.name).collect();
        assert_eq!(metrics, of(Reader::Operator));
    }
}
