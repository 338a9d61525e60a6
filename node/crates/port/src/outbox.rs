//! Messages that wait to be written to a WebSocket.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::client::Client;
use crate::envelope::{echo, is_elsewhere};
use crate::memory::Memory;

/// A message: the parts one after the other. The body may be shared with other connections.
pub(crate) struct Item {
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
    pub(crate) tail: &'static [u8],
    /// Since when it has waited.
    pub(crate) since: Instant,
}

impl Item {
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len() + self.tail.len()
    }
}

struct Queue {
    items: VecDeque<Item>,
    /// Bytes of the items, and of the one that is being written.
    bytes: usize,
    /// Their number.
    number: usize,
    /// What jsonrpsee's sinks send: answers to subscriptions, and their ends. Ids that jsonrpsee has no
    /// room for are still as it was given them.
    sinks: mpsc::Receiver<Box<RawValue>>,
    /// Nothing more comes in.
    finished: bool,
    writer: Option<Waker>,
}

/// How much waits at most while more is added by those who can wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) bytes: usize,
    pub(crate) messages: usize,
}

impl Limit {
    const fn allows(self, queue: &Queue) -> bool {
        queue.bytes < self.bytes && queue.number < self.messages
    }
}

/// Messages that wait to be written to a WebSocket, in order. One that is there is kept even if it
/// is longer than the limit; but beyond the limit nobody adds to it who can wait.
pub(crate) struct Outbox {
    memory: Arc<Memory>,
    client: Arc<Client>,
    limit: Limit,
    queue: Mutex<Queue>,
    room: Notify,
}

/// The connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

impl Outbox {
    pub(crate) fn new(
        memory: Arc<Memory>,
        client: Arc<Client>,
        limit: Limit,
        sinks: mpsc::Receiver<Box<RawValue>>,
    ) -> Self {
        let queue = Queue {
            items: VecDeque::new(),
            bytes: 0,
            number: 0,
            sinks,
            finished: false,
            writer: None,
        };
        Self { memory, client, limit, queue: Mutex::new(queue), room: Notify::new() }
    }

    /// The connection.
    pub(crate) const fn client(&self) -> &Arc<Client> {
        &self.client
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, queue: &mut Queue, item: Item) {
        queue.bytes += item.len();
        queue.number += 1;
        queue.items.push_back(item);
        if let Some(writer) = queue.writer.take() {
            writer.wake();
        }
    }

    fn own(&self, text: Box<RawValue>) -> Item {
        let text = String::from(Box::<str>::from(text)).into_bytes();
        let body = self.memory.keep(Some(&self.client), text);
        Item { head: Bytes::new(), body, tail: b"", since: Instant::now() }
    }

    /// Adds what a sink has sent, unless a batch's answer tells it.
    fn add_sent(&self, queue: &mut Queue, text: Box<RawValue>) {
        if !is_elsewhere(&text) {
            let item = self.own(echo(text));
            self.add(queue, item);
        }
    }

    /// Adds what the sinks have sent before.
    fn catch_up(&self, queue: &mut Queue) {
        while let Ok(text) = queue.sinks.try_recv() {
            self.add_sent(queue, text);
        }
    }

    /// Adds an answer.
    pub(crate) fn answer(&self, text: Box<RawValue>) {
        let mut queue = self.lock();
        if !queue.finished {
            self.catch_up(&mut queue);
            let item = self.own(text);
            self.add(&mut queue, item);
        }
    }

    /// Adds a message, after everything that the sinks have sent before.
    pub(crate) fn push(&self, item: Item) -> Result<(), Gone> {
        let mut queue = self.lock();
        if queue.finished {
            return Err(Gone);
        }
        self.catch_up(&mut queue);
        self.add(&mut queue, item);
        Ok(())
    }

    /// Whether there is room for more.
    pub(crate) fn has_room(&self) -> bool {
        let queue = self.lock();
        self.limit.allows(&queue) && !queue.finished
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().number == 0
    }

    /// Waits until there is room.
    pub(crate) async fn room(&self) -> Result<(), Gone> {
        loop {
            let told = self.room.notified();
            {
                let queue = self.lock();
                if queue.finished {
                    return Err(Gone);
                }
                if self.limit.allows(&queue) {
                    return Ok(());
                }
            }
            told.await;
        }
    }

    /// The next message for the writer; `None` after the last of a finished outbox.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let mut queue = self.lock();
        // While the limit is exceeded, what the sinks send makes their senders wait.
        while self.limit.allows(&queue) && !queue.finished {
            match queue.sinks.poll_recv(cx) {
                Poll::Ready(Some(text)) => self.add_sent(&mut queue, text),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        let next = queue.items.pop_front();
        self.client.mark_behind(next.as_ref().map(|item| item.since));
        match next {
            Some(item) => Poll::Ready(Some(item)),
            None if queue.finished => Poll::Ready(None),
            None => {
                queue.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// A message of `bytes` was written.
    pub(crate) fn written(&self, bytes: usize) {
        let room = {
            let mut queue = self.lock();
            let full = !self.limit.allows(&queue);
            queue.bytes = queue.bytes.saturating_sub(bytes);
            queue.number = queue.number.saturating_sub(1);
            full && self.limit.allows(&queue)
        };
        if room {
            self.room.notify_waiters();
        }
    }

    /// Takes nothing more: what is there may still be written.
    pub(crate) fn finish(&self) {
        let mut queue = self.lock();
        self.catch_up(&mut queue);
        queue.finished = true;
        queue.sinks.close();
        if let Some(writer) = queue.writer.take() {
            writer.wake();
        }
        drop(queue);
        self.room.notify_waiters();
    }

    /// Takes nothing more and forgets what is there.
    pub(crate) fn close(&self) {
        self.finish();
        let items = {
            let mut queue = self.lock();
            (queue.bytes, queue.number) = (0, 0);
            while queue.sinks.try_recv().is_ok() {}
            std::mem::take(&mut queue.items)
        };
        drop(items);
    }
}
