//! Counts the bytes of every TCP connection, below the encryption.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use libp2p::Multiaddr;
use libp2p::futures::{AsyncRead, AsyncWrite};

/// Bytes of one connection.
#[derive(Debug, Default)]
pub(super) struct Meter {
    received: AtomicU64,
}

impl Meter {
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// What all streams count in.
#[derive(Debug, Default)]
struct Ledger {
    received: AtomicU64,
    sent: AtomicU64,
    /// Meters of open connections, by the other end's address as libp2p has it.
    open: Mutex<BTreeMap<Multiaddr, Arc<Meter>>>,
}

/// Bytes of all connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Meters(Arc<Ledger>);

impl Meters {
    /// Bytes received and sent, handshakes included.
    pub(super) fn totals(&self) -> (u64, u64) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (get(&self.0.received), get(&self.0.sent))
    }

    /// The meter of a connection.
    pub(super) fn of(&self, address: &Multiaddr) -> Arc<Meter> {
        self.open().get(address).cloned().unwrap_or_default()
    }

    /// Counts what passes through a stream.
    pub(super) fn count<S>(&self, stream: S, address: &Multiaddr) -> Metered<S> {
        let meter = Arc::new(Meter::default());
        self.open().insert(address.clone(), Arc::clone(&meter));
        Metered { stream, meter, address: address.clone(), meters: self.clone() }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, BTreeMap<Multiaddr, Arc<Meter>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream whose bytes are counted.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    meter: Arc<Meter>,
    address: Multiaddr,
    meters: Meters,
}

impl<S> Metered<S> {
    fn received(&self, result: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = result {
            self.meter.received.fetch_add(*bytes as u64, Ordering::Relaxed);
            self.meters.0.received.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }

    fn sent(&self, result: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = result {
            self.meters.0.sent.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }
}

impl<S> Drop for Metered<S> {
    fn drop(&mut self) {
        let mut open = self.meters.open();
        // A later connection to the same address has replaced it.
        if open.get(&self.address).is_some_and(|meter| Arc::ptr_eq(meter, &self.meter)) {
            open.remove(&self.address);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.received(&result);
        result
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_read_vectored(cx, bufs);
        self.received(&result);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.sent(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.sent(&result);
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
