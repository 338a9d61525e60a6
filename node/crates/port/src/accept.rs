//! Accepting connections.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::seats::Seats;
use crate::stats::PortStats;

/// The shortest pause after a failure.
const FIRST: Duration = Duration::from_millis(10);
/// The longest.
const LONGEST: Duration = Duration::from_secs(1);

/// Accepts connections; after a failure, most likely for want of file descriptors, it waits, longer
/// each time.
#[derive(Debug, Default)]
pub struct Backoff(Option<Duration>);

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
                    self.0 = None;
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
                    if pause == FIRST {
                        tracing::warn!(%error, freed, "cannot accept connections for a moment");
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// The pause after another failure.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.0.map_or(FIRST, |last| (last * 2).min(LONGEST));
        self.0 = Some(pause);
        pause
    }
}
