//! A connection's socket, which fails when the other side does not take what it is sent.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::client::Client;

/// Bytes a second that a connection must keep up that is slow: in taking answers, and in sending
/// requests.
pub(crate) const RATE: u64 = 128 * 1024;

/// When a transfer must be over of which `bytes` have passed since it began to stall.
pub(crate) fn deadline(since: Instant, patience: Duration, bytes: u64) -> Instant {
    since + patience + Duration::from_millis(bytes.saturating_mul(1_000) / RATE)
}

/// How far a write is that had to wait.
struct Waiting {
    since: Instant,
    written: u64,
    timer: Pin<Box<Sleep>>,
}

/// A socket whose writes fail with [`ErrorKind::TimedOut`] when nothing was taken for `patience`,
/// or too little for long. From one flush to the next counts as one transfer.
pub(crate) struct Wire<S = TcpStream> {
    stream: S,
    client: Arc<Client>,
    patience: Duration,
    waiting: Option<Waiting>,
    /// Whether the last write had to wait.
    pending: bool,
}

impl<S> Wire<S> {
    pub(crate) const fn new(stream: S, client: Arc<Client>, patience: Duration) -> Self {
        Self { stream, client, patience, waiting: None, pending: false }
    }

    fn keeps_up(&mut self) {
        if self.waiting.take().is_some() {
            self.client.mark_not_taken(None);
        }
        self.pending = false;
    }

    fn watch(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(Ok(n)) => {
                match &mut self.waiting {
                    // All of it fitted at once.
                    Some(_) if !self.pending => self.keeps_up(),
                    Some(waiting) => waiting.written += n as u64,
                    None => {}
                }
                self.pending = false;
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.pending = true;
                let (client, patience) = (&self.client, self.patience);
                let waiting = self.waiting.get_or_insert_with(|| {
                    let since = Instant::now();
                    client.mark_not_taken(Some(since));
                    let timer = Box::pin(tokio::time::sleep_until(since + patience));
                    Waiting { since, written: 0, timer }
                });
                let until = deadline(waiting.since, patience, waiting.written);
                if waiting.timer.deadline() != until {
                    waiting.timer.as_mut().reset(until);
                }
                ready!(waiting.timer.as_mut().poll(cx));
                Poll::Ready(Err(ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.keeps_up();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
