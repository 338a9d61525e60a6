//! The reading half of a WebSocket connection: tungstenite reads from the socket, and what it would
//! write (answers to pings and to a close) goes to the writing half, between two messages.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::deflate::Plain;
use crate::memory::Charge;

/// Bytes of control frames that wait to be written; beyond, nothing is read.
const MOST: usize = 4096;

/// Control frames for the writing half.
#[derive(Default)]
pub(crate) struct Control {
    frames: Mutex<Vec<u8>>,
    more: AtomicWaker,
    less: AtomicWaker,
}

impl Control {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds whole frames.
    pub(crate) fn push(&self, frames: &[u8]) {
        self.lock().extend_from_slice(frames);
        self.more.wake();
    }

    /// Takes what is there, if anything.
    pub(crate) fn poll_take(&self, cx: &Context<'_>) -> Option<Vec<u8>> {
        self.more.register(cx.waker());
        let frames = std::mem::take(&mut *self.lock());
        self.less.wake();
        (!frames.is_empty()).then_some(frames)
    }
}

/// What tungstenite reads from and writes to.
pub(crate) struct Half<R> {
    pub(crate) read: R,
    pub(crate) control: Arc<Control>,
    /// The bytes read since the last whole message, up to `most`: more are never held.
    pub(crate) partial: Charge,
    pub(crate) most: usize,
    /// Since when there have been any.
    pub(crate) since: Option<Instant>,
    /// Reads along if messages may be compressed.
    pub(crate) plain: Option<Plain>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Half<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.read).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        if let Some(plain) = &mut self.plain {
            plain.pass(&mut buf.filled_mut()[before..]);
        }
        if read > 0 {
            let room = self.most.saturating_sub(self.partial.bytes());
            self.partial.grow(read.min(room));
            self.since.get_or_insert_with(Instant::now);
        }
        Poll::Ready(Ok(()))
    }
}

impl<R: Unpin> AsyncWrite for Half<R> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.control.less.register(cx.waker());
        if self.control.lock().len() > MOST {
            return Poll::Pending;
        }
        self.control.push(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
