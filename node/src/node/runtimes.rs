//! The threads that a process has for its nodes.
//!
//! The overlay's driver, gossip and the task that hands their messages on have threads of their
//! own. What is served to strangers (JSON-RPC, Flashblocks) has others, on Linux of a lower
//! priority. So however much is asked, no shred waits for an answer being made. The caller's runtime
//! keeps what is the operator's: ingest, admin, metrics and health.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::Context;
use tokio::runtime::{Builder, Handle, Runtime};

/// The nice value of threads that serve, relative to the process: at 10 a thread gets about a tenth
/// of a core that another thread wants as well.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// The most threads of each kind.
const MOST: usize = 4;

/// Threads of one kind, which end in the background.
#[derive(Debug)]
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        // To wait for them is not possible where this may be dropped.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The threads that a process has for its nodes: two to four of each kind.
#[derive(Debug)]
pub struct Runtimes {
    overlay: Threads,
    serving: Threads,
}

/// What the nodes of the process share.
static SHARED: Mutex<Weak<Runtimes>> = Mutex::new(Weak::new());

impl Runtimes {
    /// Those of the process; they are started if there are none, and end with the last who has them.
    ///
    /// # Errors
    /// Threads cannot be started.
    pub fn shared() -> anyhow::Result<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtimes) = shared.upgrade() {
            return Ok(runtimes);
        }
        let runtimes = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&runtimes);
        Ok(runtimes)
    }

    fn start() -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let build = |name: &str, begin: fn()| {
            Builder::new_multi_thread()
                .worker_threads(cores.clamp(2, MOST))
                .thread_name(name)
                .on_thread_start(begin)
                .enable_all()
                .build()
                .with_context(|| format!("cannot start the threads `{name}`"))
                .map(|runtime| Threads(Some(runtime)))
        };
        Ok(Self { overlay: build("overlay", || {})?, serving: build("serve", give_way)? })
    }

    /// For what carries messages.
    pub fn overlay(&self) -> &Handle {
        Self::handle(&self.overlay)
    }

    /// For what is served to strangers.
    pub fn serving(&self) -> &Handle {
        Self::handle(&self.serving)
    }

    fn handle(threads: &Threads) -> &Handle {
        threads.0.as_ref().expect("it is taken only when dropped").handle()
    }
}

/// Lowers the priority of this thread.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "a thread that serves keeps its priority");
    }
}
