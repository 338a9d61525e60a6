//! The UDP socket under the endpoint: it can be cut off, taken away, and says when it is closed.
//!
//! quinn closes it after the last connection and the endpoint's own task have ended, and tells
//! nobody. A connection that was closed in the middle of its handshake lives for three seconds
//! more (RFC 9000, section 10.2: three times the probe timeout). Whoever starts a node anew on the
//! same port cannot wait for that, and has to know when the port is free.

use std::convert::Infallible;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Endpoint, UdpPoller};
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

/// Takes its socket from an endpoint that has said goodbye. What is left of its connections sends
/// nothing any more and hears nothing.
///
/// # Errors
/// The socket does not know its address.
pub(super) fn release(endpoint: &Endpoint) -> io::Result<()> {
    let nowhere = Arc::new(Nowhere(endpoint.local_addr()?));
    // The endpoint also keeps the socket before this one, until something comes by this one.
    endpoint.rebind_abstract(nowhere.clone())?;
    endpoint.rebind_abstract(nowhere)
}

/// A socket to nowhere, in the place of one at this address.
#[derive(Debug)]
struct Nowhere(SocketAddr);

impl AsyncUdpSocket for Nowhere {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Ready)
    }

    fn try_send(&self, _: &Transmit<'_>) -> io::Result<()> {
        Ok(())
    }

    fn poll_recv(
        &self,
        _: &mut Context<'_>,
        _: &mut [IoSliceMut<'_>],
        _: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0)
    }
}

/// It can always be sent to nowhere.
#[derive(Debug)]
struct Ready;

impl UdpPoller for Ready {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
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
