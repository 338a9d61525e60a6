//! Signals. Every one that would end the process by default and that operators send has a meaning.

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use super::run::Signal;

/// A write beyond the process's limit of a file's size: an error of that write, no end.
const SIGXFSZ: i32 = 25;

/// The signals that a node listens to.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hangup: Stream,
    user1: Stream,
    user2: Stream,
    /// Held so that it does not end the process.
    _file_size: Stream,
}

impl Signals {
    /// Listens from now on.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            _file_size: signal(SignalKind::from_raw(SIGXFSZ))?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::End("SIGTERM"),
            _ = self.interrupt.recv() => Signal::End("SIGINT"),
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.user1.recv() => Signal::Tell,
            _ = self.user2.recv() => Signal::Tell,
        }
    }
}
