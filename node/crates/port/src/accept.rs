//! Accepting connections.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::seats::Seats;
use crate::stats::PortStats;

/// The shortest pause after a failure.
const FIRST: Duration = Duration::from_millis(10);
/// The longest.
const LONGEST: Duration = Duration::from_secs(1);
/// A failure is told at most so often.
const QUIET: Duration = Duration::from_secs(10);

/// Accepts connections; after a failure, most likely for want of file descriptors, it waits, longer
/// each time.
#[derive(Debug, Default)]
pub struct Backoff {
    /// The last pause; `None` after a success.
    last: Option<Duration>,
    /// When a failure was last told.
    told: Option<Instant>,
}

/// Bytes that the kernel takes beyond those that are on their way. What it holds for a client that
/// does not read is no memory of the process, but of the machine.
#[cfg(target_os = "linux")]
const AHEAD: u32 = 256 * 1024;

/// Prepares a connection for answers: they are sent at once, and the kernel holds few bytes that
/// nobody takes.
pub fn tune(stream: &TcpStream) {
    // Waiting for more would only delay what is written whole.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_notsent_lowat(AHEAD) {
        tracing::debug!(%error, "the kernel holds as much as it likes");
    }
}

impl Backoff {
    /// The next connection. To drop this future loses none.
    pub async fn accept(
        &mut self,
        listener: &TcpListener,
        seats: Option<&Seats>,
        stats: &PortStats,
    ) -> (TcpStream, SocketAddr) {
        loop {
            match listener.accept().await {
                Ok(accepted) => {
                    self.last = None;
                    return accepted;
                }
                // It is gone before it was here; the next may be there.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionAborted
                            | ErrorKind::ConnectionReset
                            | ErrorKind::Interrupted
                    ) =>
                {
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    stats.accept_failed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let freed = seats.is_some_and(Seats::make_room);
                    let pause = self.pause();
                    if self.told.is_none_or(|told| told.elapsed() >= QUIET) {
                        self.told = Some(Instant::now());
                        tracing::warn!(%error, freed, "cannot accept connections for a moment");
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// The pause after another failure.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.last.map_or(FIRST, |last| (last * 2).min(LONGEST));
        self.last = Some(pause);
        pause
    }
}
