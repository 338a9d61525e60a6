//! A UDP socket that can be cut off, as by a firewall: for experiments and tests.
//!
//! Below QUIC, not above: connections do not learn of it, but find out as they would in the
//! field, by silence. A socket that is closed instead would tell the peers at once.

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

/// Drops all packets, both ways, while the flag is set.
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
