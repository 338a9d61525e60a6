//! Pictures for many readers: made ten times a second while anybody reads, written once for all.
//!
//! A picture is a list of sections. A reader is sent all of them once, and from then on those that
//! have changed. `QUEUE` pictures wait for a slow reader; one that misses some is sent a whole
//! picture again, which is written once for all such readers, so a slow page sees fewer pictures and
//! delays nobody. While nobody reads, nothing is made. Everything runs on the threads that serve.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fragcast_port::{Memory, Notices, Shared, Subscriber, Unsent};
use jsonrpsee::core::SubscriptionError;
use jsonrpsee::types::ErrorObjectOwned;
use jsonrpsee::{Extensions, PendingSubscriptionSink, RpcModule};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};

/// The time between two pictures.
const TICK: Duration = Duration::from_millis(100);
/// A reader hears from the hub at least so often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Pictures that wait for a slow reader, in one ring for all: some 20 kB each.
const QUEUE: usize = 4;

/// A picture: names and contents of its sections, always the same names in the same order.
pub type Sections = Vec<(&'static str, Value)>;

/// Makes a picture. It waits for nothing.
pub type Paint = Box<dyn Fn() -> Sections + Send + Sync>;

/// The JSON-RPC names of a hub.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// Gives one picture.
    pub get: &'static str,
    /// Subscribes.
    pub subscribe: &'static str,
    /// The notification.
    pub notification: &'static str,
    /// Ends a subscription.
    pub unsubscribe: &'static str,
}

/// Sections that changed.
#[derive(Clone)]
struct News {
    seq: u64,
    text: Arc<Notices>,
}

#[derive(Default)]
struct Last {
    seq: u64,
    painted: Option<Instant>,
    told: Option<Instant>,
    sections: Vec<(&'static str, String)>,
    /// All of them as a notification, until the next picture is made.
    whole: Option<Arc<Notices>>,
}

/// See the module.
pub struct Hub {
    paint: Paint,
    last: Mutex<Last>,
    news: broadcast::Sender<News>,
    reader: Notify,
    texts: Shared<u64>,
    patience: Duration,
    slow: AtomicU64,
}

/// A picture as JSON: its number, whether it is whole, and sections.
fn text<'a>(
    seq: u64,
    whole: bool,
    sections: impl Iterator<Item = &'a (&'static str, String)>,
) -> String {
    let at = fragcast_turbine::Timestamp::from_nanos(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)),
    );
    let mut out = format!(r#"{{"seq":{seq},"at":{},"whole":{whole}"#, at.as_micros());
    for (name, json) in sections {
        out.push_str(&format!(r#","{name}":{json}"#));
    }
    out.push('}');
    out
}

impl Hub {
    /// A hub of pictures that `paint` makes. A reader that takes nothing for `patience` is dropped.
    pub fn new(paint: Paint, patience: Duration, memory: Arc<Memory>) -> Arc<Self> {
        let (news, _) = broadcast::channel(QUEUE);
        Arc::new(Self {
            paint,
            last: Mutex::default(),
            news,
            reader: Notify::new(),
            texts: Shared::new(0, memory),
            patience,
            slow: AtomicU64::new(0),
        })
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many read.
    pub fn readers(&self) -> usize {
        self.news.receiver_count()
    }

    /// How many readers were dropped for being slow.
    pub fn slow(&self) -> u64 {
        self.slow.load(Ordering::Relaxed)
    }

    /// Begins to read, until what it gives is dropped.
    #[cfg(test)]
    pub(super) fn read(&self) -> Box<dyn std::any::Any> {
        Box::new(self.news.subscribe())
    }

    /// Makes a picture and tells readers what has changed.
    fn step(&self, last: &mut Last, now: Instant) {
        last.whole = None;
        let sections: Vec<(&'static str, String)> =
            (self.paint)().into_iter().map(|(name, value)| (name, value.to_string())).collect();
        let changed: Vec<&(&'static str, String)> = match last.sections.len() == sections.len() {
            true => {
                let pairs = sections.iter().zip(&last.sections);
                pairs.filter(|(new, old)| new != old).map(|(new, _)| new).collect()
            }
            false => sections.iter().collect(),
        };
        let quiet = last.told.is_some_and(|told| now.duration_since(told) < HEARTBEAT);
        last.painted = Some(now);
        if changed.is_empty() && quiet {
            return;
        }
        last.seq += 1;
        last.told = Some(now);
        if self.news.receiver_count() > 0 {
            let text = text(last.seq, false, changed.into_iter()).into_bytes();
            // Nobody may be listening any more.
            let _ = self.news.send(News { seq: last.seq, text: self.texts.once(vec![text]) });
        }
        last.sections = sections;
    }

    /// The last picture, at most half a tick old at `now`.
    fn fresh(&self, now: Instant) -> MutexGuard<'_, Last> {
        let mut last = self.last();
        if last.painted.is_none_or(|at| now.saturating_duration_since(at) >= TICK / 2) {
            self.step(&mut last, now);
        }
        last
    }

    /// A whole picture.
    pub fn whole(&self) -> String {
        let last = self.fresh(Instant::now());
        text(last.seq, true, last.sections.iter())
    }

    /// A whole picture for a reader, with its number.
    fn whole_news(&self, now: Instant) -> News {
        let mut last = self.fresh(now);
        let Last { seq, sections, whole, .. } = &mut *last;
        let write = || self.texts.once(vec![text(*seq, true, sections.iter()).into_bytes()]);
        News { seq: *seq, text: Arc::clone(whole.get_or_insert_with(write)) }
    }

    /// Makes pictures while anybody reads, until the task is aborted.
    pub async fn run(self: Arc<Self>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if self.readers() == 0 {
                self.reader.notified().await;
            }
            tick.tick().await;
            self.step(&mut self.last(), Instant::now());
        }
    }

    async fn serve(
        &self,
        pending: PendingSubscriptionSink,
        extensions: &Extensions,
    ) -> Result<(), SubscriptionError> {
        let subscriber = Subscriber::accept(pending, extensions, self.patience).await?;
        let mut news = self.news.subscribe();
        self.reader.notify_one();
        let News { mut seq, text: mut next } = self.whole_news(Instant::now());
        loop {
            match subscriber.send(&next).await {
                Ok(()) => {}
                Err(Unsent::Gone) => return Ok(()),
                Err(Unsent::Slow) => {
                    self.slow.fetch_add(1, Ordering::Relaxed);
                    return Err("too slow".into());
                }
            }
            next = loop {
                let received = tokio::select! {
                    () = subscriber.closed() => return Ok(()),
                    received = news.recv() => received,
                };
                match received {
                    Ok(News { seq: number, .. }) if number <= seq => {}
                    Ok(News { seq: number, text }) if number == seq + 1 => {
                        seq = number;
                        break text;
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {
                        let whole = self.whole_news(Instant::now());
                        seq = whole.seq;
                        break whole.text;
                    }
                    Err(RecvError::Closed) => return Ok(()),
                }
            };
        }
    }

    /// The methods of a hub.
    pub fn module(self: &Arc<Self>, names: Names) -> RpcModule<Arc<Self>> {
        let mut module = RpcModule::new(Arc::clone(self));
        module
            .register_method(names.get, |_, hub, _| {
                RawValue::from_string(hub.whole()).map_err(|error| {
                    ErrorObjectOwned::owned(-32_603, error.to_string(), None::<()>)
                })
            })
            .expect("a name of its own");
        module
            .register_subscription(
                names.subscribe,
                names.notification,
                names.unsubscribe,
                |_, pending, hub, extensions| async move { hub.serve(pending, &extensions).await },
            )
            .expect("names of its own");
        module
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hub(count: &Arc<AtomicU64>) -> Arc<Hub> {
        let count = Arc::clone(count);
        let paint: Paint = Box::new(move || {
            let n = count.load(Ordering::Relaxed);
            vec![("still", json!({ "is": 1 })), ("moving", json!(n))]
        });
        Hub::new(paint, Duration::from_secs(1), Memory::new(1024 * 1024))
    }

    fn parsed(news: &News) -> Value {
        serde_json::from_slice(&news.text.texts()[0]).unwrap()
    }

    #[test]
    fn readers_are_told_what_has_changed() {
        let count = Arc::<AtomicU64>::default();
        let hub = hub(&count);
        let mut news = hub.news.subscribe();
        let now = Instant::now();
        let whole = hub.whole_news(now);
        let told = parsed(&whole);
        assert_eq!((whole.seq, &told["whole"], &told["still"]["is"]), (1, &json!(true), &json!(1)));
        count.store(7, Ordering::Relaxed);
        hub.step(&mut hub.last(), now + TICK);
        let first = news.try_recv().unwrap();
        assert_eq!(first.seq, 1);
        let second = parsed(&news.try_recv().unwrap());
        assert_eq!((&second["seq"], &second["moving"]), (&json!(2), &json!(7)));
        assert!(second.get("still").is_none() && second["whole"] == false, "{second}");
        // Nothing new: nothing is told until the heartbeat.
        hub.step(&mut hub.last(), now + HEARTBEAT);
        assert!(news.try_recv().is_err());
        hub.step(&mut hub.last(), now + TICK + HEARTBEAT);
        let beat = parsed(&news.try_recv().unwrap());
        assert!(beat["seq"] == 3 && beat.get("moving").is_none(), "{beat}");
    }

    #[test]
    fn who_misses_pictures_is_sent_a_whole_one() {
        let count = Arc::<AtomicU64>::default();
        let hub = hub(&count);
        let mut news = hub.news.subscribe();
        let mut now = Instant::now();
        for n in 0..3 * QUEUE as u64 {
            count.store(n, Ordering::Relaxed);
            now += TICK;
            hub.step(&mut hub.last(), now);
        }
        assert!(matches!(news.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))));
        let whole = hub.whole_news(now);
        let told = parsed(&whole);
        assert_eq!((&told["whole"], &told["moving"]), (&json!(true), &json!(3 * QUEUE - 1)));
        // It is written once for all, until the next picture.
        assert!(Arc::ptr_eq(&whole.text, &hub.whole_news(now).text));
        count.store(99, Ordering::Relaxed);
        assert_eq!(parsed(&hub.whole_news(now + TICK))["moving"], 99);
    }
}
