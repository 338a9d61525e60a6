//! The UDP socket under the endpoint: it can be cut off, and says when it is closed.
//!
//! quinn closes it after the last connection and the endpoint's own task have ended, and tells
//! nobody. Whoever starts a node anew on the same port has to know.

use std::convert::Infallible;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::mpsc;

use super::experiments::Cut;

/// Batches thrown away before other tasks have their turn.
const BATCHES: usize = 32;

/// Dropped with the last use of the socket. Nothing is ever sent.
type InUse = mpsc::Sender<Infallible>;

/// Resolves once the socket is closed.
#[derive(Debug)]
pub(super) struct Closed(mpsc::Receiver<Infallible>);

impl Closed {
    pub(super) async fn wait(mut self) {
        let _ = self.0.recv().await;
    }
}

/// A socket of quinn's, watched.
#[derive(Debug)]
pub(super) struct Socket {
    // Dropped in this order: the sender goes when the socket is closed.
    inner: Arc<dyn AsyncUdpSocket>,
    cut: Cut,
    in_use: InUse,
}

impl Socket {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, cut: Cut) -> (Arc<Self>, Closed) {
        let (in_use, closed) = mpsc::channel(1);
        (Arc::new(Self { inner, cut, in_use }), Closed(closed))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let inner = Arc::clone(&self.inner).create_io_poller();
        Box::pin(Poller { inner, _in_use: self.in_use.clone() })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.cut.is_on() { Ok(()) } else { self.inner.try_send(transmit) }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        for _ in 0..BATCHES {
            let count = ready!(self.inner.poll_recv(cx, bufs, meta))?;
            if !self.cut.is_on() {
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

/// A poller holds the socket too.
struct Poller {
    inner: Pin<Box<dyn UdpPoller>>,
    _in_use: InUse,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_writable(cx)
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
