//! Ends the nodes of an emulation on SIGINT and SIGTERM before this program ends.
//!
//! Installing a handler replaces the system's default action for good. So there is one handler for
//! the whole program, which ends the program when no emulation runs, as the default would. SIGKILL
//! cannot be caught: the nodes then keep running and must be ended by hand.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

/// The exit code by which shells recognise a program that SIGINT ended.
const EXIT_CODE: i32 = 130;

/// Number of signals received.
static SIGNALS: OnceLock<watch::Sender<u64>> = OnceLock::new();
/// Emulations in progress.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);

/// While this value exists, signals are passed to it instead of ending the program.
#[derive(Debug)]
pub(super) struct Interrupt(watch::Receiver<u64>);

impl Interrupt {
    pub(super) fn listen() -> io::Result<Self> {
        let signals = match SIGNALS.get() {
            Some(signals) => signals,
            None => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let mut installed = Ok(());
                let signals = SIGNALS.get_or_init(|| {
                    installed = std::thread::Builder::new()
                        .name("signals".into())
                        .spawn(move || runtime.block_on(watch_signals()))
                        .map(drop);
                    watch::Sender::new(0)
                });
                installed?;
                signals
            }
        };
        ACTIVE.fetch_add(1, Ordering::SeqCst);
        Ok(Self(signals.subscribe()))
    }

    /// Resolves with the first signal since [`listen`](Self::listen).
    pub(super) async fn happens(&mut self) {
        // The sender is a static: it is never gone.
        let _ = self.0.changed().await;
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        ACTIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn watch_signals() {
    while next_signal().await.is_ok() {
        if ACTIVE.load(Ordering::SeqCst) == 0 {
            std::process::exit(EXIT_CODE);
        }
        if let Some(signals) = SIGNALS.get() {
            signals.send_modify(|count| *count += 1);
        }
    }
}

async fn next_signal() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            interrupt = tokio::signal::ctrl_c() => interrupt,
        }
    }
    #[cfg(not(unix))]
    {
        tokio::signal::ctrl_c().await
    }
}
