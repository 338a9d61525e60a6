//! Faults on purpose, for experiments and tests: a node that loses shreds, or is cut off.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// Batches thrown away before other tasks have their turn.
const BATCHES: usize = 32;

/// A UDP socket that can be cut off, as by a firewall: drops all packets, both ways, while the
/// flag is set.
///
/// Below QUIC, not above: connections do not learn of it, but find out as they would in the
/// field, by silence. A socket that is closed instead would tell the peers at once.
#[derive(Debug)]
pub(super) struct CutSocket {
    pub(super) inner: Arc<dyn AsyncUdpSocket>,
    pub(super) cut: Arc<AtomicBool>,
}

impl CutSocket {
    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }
}

impl AsyncUdpSocket for CutSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.is_cut() { Ok(()) } else { self.inner.try_send(transmit) }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        for _ in 0..BATCHES {
            let count = ready!(self.inner.poll_recv(cx, bufs, meta))?;
            if !self.is_cut() {
                return Poll::Ready(Ok(count));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// Throws away a share of the shreds, by a seeded generator.
#[derive(Debug)]
pub(super) struct Losses {
    share: u64,
    state: u64,
}

impl Losses {
    pub(super) fn new(share: f64, seed: u64) -> Self {
        Self { share: (share.clamp(0.0, 1.0) * u64::MAX as f64) as u64, state: seed }
    }

    /// Whether the next shred is lost. SplitMix64 (Steele, Lea, Flood 2014).
    pub(super) fn hit(&mut self) -> bool {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) < self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_lost_as_was_asked_for_and_always_the_same() {
        let hits = |share| {
            let mut losses = Losses::new(share, 7);
            (0..10_000).map(|_| losses.hit()).collect::<Vec<bool>>()
        };
        let count = |share| hits(share).into_iter().filter(|hit| *hit).count();
        assert_eq!((count(0.0), count(1.0)), (0, 10_000));
        assert!((1_900..2_100).contains(&count(0.2)), "{}", count(0.2));
        assert_eq!(hits(0.2), hits(0.2));
    }
}
