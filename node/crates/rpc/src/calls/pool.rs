//! The threads that calls run on.
//!
//! Executing frags comes first: there are fewer of these threads than cores, on Linux they run at a
//! lower priority than all others of the process, and the queue in front of them is bounded. A call
//! that waited longer than it may run is not run any more, because its caller has probably given
//! up; so the queue drains even when every call is heavy.
//!
//! Why not tokio's blocking threads: there are hundreds, at equal priority.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::error::CallError;

/// The threads' nice value relative to the process: at 10 a thread gets about a tenth of a core
/// that another thread wants as well.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// The stack of a thread: the frames of a trace lie in one another, as deep as calls do, and so does
/// their writing as JSON.
const STACK: usize = 16 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// A bounded pool of threads for calls, which copies share.
#[derive(Clone)]
pub struct CallPool {
    jobs: SyncSender<Job>,
    /// The longest that a call may wait.
    patience: Duration,
}

/// One thread less than there are cores, at least one.
pub fn default_threads() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores - 1).unwrap_or(NonZeroUsize::MIN)
}

impl CallPool {
    /// Starts `threads` threads; `queue` calls may wait for them, each for at most `patience`. The
    /// threads end when the pool is dropped and their calls are done.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn new(threads: NonZeroUsize, queue: usize, patience: Duration) -> std::io::Result<Self> {
        let (jobs, receiver) = sync_channel(queue.max(1));
        let receiver = Arc::new(Mutex::new(receiver));
        for index in 0..threads.get() {
            let receiver = Arc::clone(&receiver);
            std::thread::Builder::new()
                .name(format!("call-{index}"))
                .stack_size(STACK)
                .spawn(move || work(&receiver))?;
        }
        Ok(Self { jobs, patience })
    }

    /// Runs `call` on one of the threads.
    ///
    /// # Errors
    /// [`CallError::Busy`] if too many wait or it waited too long, [`CallError::Internal`] if it
    /// panicked, else the call's own.
    pub async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        self.run_within(self.patience, call).await
    }

    /// [`run`](Self::run) for a call that may wait for `patience`.
    async fn run_within<T: Send + 'static>(
        &self,
        patience: Duration,
        call: impl FnOnce() -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let (answer, answered) = oneshot::channel();
        let queued = Instant::now();
        let job: Job = Box::new(move || {
            if answer.is_closed() {
                return;
            }
            let late = queued.elapsed() > patience;
            // Nobody may be listening any more.
            let _ = answer.send(if late { Err(CallError::Busy) } else { call() });
        });
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(CallError::Busy),
            Err(TrySendError::Disconnected(_)) => return Err(CallError::Internal),
        }
        // Dropped without an answer: it panicked.
        answered.await.unwrap_or(Err(CallError::Internal))
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "a thread for calls keeps its priority");
    }
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a call panicked");
        }
    }
}

#[cfg(test)]
mod tests;
