//! The log: lines on standard error, written by a thread of its own.
//!
//! Logging never stops the node. A line is handed to the thread over a bounded queue; if the queue
//! is full, because whoever reads the pipe has stopped, or if writing fails (a closed pipe, a full
//! disk), the line is dropped and counted ([`dropped`], `fragcast_log_dropped_total`). When writing
//! works again, a line says how many are missing.
//!
//! Memory: [`MAX_QUEUED`] bytes of lines.

mod limit;

use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

pub use limit::{Limiter, Pace};

use crate::config::LogFormat;

/// Bytes of lines that wait to be written.
pub const MAX_QUEUED: usize = 4 * 1024 * 1024;
/// How long the end of the program waits for the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);

static DROPPED: AtomicU64 = AtomicU64::new(0);
static QUEUE: OnceLock<Lines> = OnceLock::new();

/// Lines that were dropped since the start.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Waits a moment for lines that are on their way.
pub fn flush() {
    let Some(lines) = QUEUE.get() else { return };
    let (done, written) = channel();
    if lines.sender.send(Entry::Flush(done)).is_ok() {
        let _ = written.recv_timeout(LAST_LINES);
    }
}

enum Entry {
    Line(Vec<u8>),
    Flush(Sender<()>),
}

/// The way to the thread.
#[derive(Clone)]
struct Lines {
    sender: Sender<Entry>,
    queued: Arc<AtomicUsize>,
    dropped: &'static AtomicU64,
}

impl Lines {
    /// Starts the thread, which writes to `out`.
    fn start(out: impl Write + Send + 'static, dropped: &'static AtomicU64) -> io::Result<Self> {
        let (sender, entries) = channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let lines = Self { sender, queued: Arc::clone(&queued), dropped };
        let thread = std::thread::Builder::new().name("log".into());
        thread.spawn(move || write(out, &entries, &queued, dropped))?;
        Ok(lines)
    }

    fn push(&self, line: &[u8]) {
        let waiting = self.queued.fetch_add(line.len(), Ordering::Relaxed);
        if waiting + line.len() > MAX_QUEUED || self.sender.send(Entry::Line(line.into())).is_err()
        {
            self.queued.fetch_sub(line.len(), Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(
    mut out: impl Write,
    entries: &Receiver<Entry>,
    queued: &AtomicUsize,
    dropped: &AtomicU64,
) {
    let mut told = 0;
    for entry in entries {
        match entry {
            Entry::Line(line) => {
                let missing = dropped.load(Ordering::Relaxed) - told;
                if missing > 0 {
                    let note = format!("{missing} lines of the log were lost here\n");
                    if out.write_all(note.as_bytes()).is_ok() {
                        told += missing;
                    }
                }
                if out.write_all(&line).and_then(|()| out.flush()).is_err() {
                    dropped.fetch_add(1, Ordering::Relaxed);
                }
                queued.fetch_sub(line.len(), Ordering::Relaxed);
            }
            Entry::Flush(done) => {
                // Who waited may have gone.
                let _ = done.send(());
            }
        }
    }
}

/// Takes one event's line; never fails and never waits.
struct Line(Lines);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.clone())
    }
}

/// Sets another filter.
pub struct Filter(Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>);

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").finish_non_exhaustive()
    }
}

impl Filter {
    /// From now on this filter holds.
    ///
    /// # Errors
    /// It does not parse.
    pub fn set(&self, text: &str) -> anyhow::Result<()> {
        (self.0)(filter(text)?)
    }
}

/// Parses a filter.
///
/// # Errors
/// It does not parse.
pub fn filter(text: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(text)
        .with_context(|| format!("log.filter: `{text}` is no filter, such as `info`"))
}

/// Sets up the log on standard error. Colours are for terminals.
///
/// # Errors
/// The filter does not parse.
pub fn start(format: LogFormat, text: &str) -> anyhow::Result<Filter> {
    let colours = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = Lines::start(io::stderr(), &DROPPED)?;
    // The first one counts, as with the subscriber.
    let _ = QUEUE.set(lines.clone());
    let builder = tracing_subscriber::fmt()
        .with_writer(lines)
        .with_ansi(colours)
        .log_internal_errors(false)
        .with_env_filter(filter(text)?);
    if format == LogFormat::Json {
        let builder = builder.json().with_filter_reloading();
        let handle = builder.reload_handle();
        builder.init();
        Ok(Filter(Box::new(move |filter| Ok(handle.reload(filter)?))))
    } else {
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        builder.init();
        Ok(Filter(Box::new(move |filter| Ok(handle.reload(filter)?))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// A writer that fails, or does not return, while it is told to.
    #[derive(Clone, Default)]
    struct Pipe(Arc<(Mutex<State>, Condvar)>);

    #[derive(Default)]
    struct State {
        fails: bool,
        blocks: bool,
        written: Vec<u8>,
    }

    impl Pipe {
        fn set(&self, fails: bool, blocks: bool) {
            let mut state = self.0.0.lock().unwrap();
            (state.fails, state.blocks) = (fails, blocks);
            self.0.1.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().unwrap().written.clone()).unwrap()
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let state = self.0.0.lock().unwrap();
            let mut state = self.0.1.wait_while(state, |state| state.blocks).unwrap();
            if state.fails {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            state.written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn settle(lines: &Lines) {
        let (done, written) = channel();
        lines.sender.send(Entry::Flush(done)).unwrap();
        written.recv_timeout(Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told_of_later() {
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        let pipe = Pipe::default();
        let lines = Lines::start(pipe.clone(), &DROPPED).unwrap();
        lines.push(b"one\n");
        settle(&lines);
        pipe.set(true, false);
        for _ in 0..3 {
            lines.push(b"lost\n");
        }
        settle(&lines);
        assert_eq!(DROPPED.load(Ordering::Relaxed), 3);
        pipe.set(false, false);
        lines.push(b"two\n");
        settle(&lines);
        assert_eq!(pipe.text(), "one\n3 lines of the log were lost here\ntwo\n");
    }

    #[test]
    fn a_reader_that_has_stopped_stops_nobody_and_memory_is_bounded() {
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        let pipe = Pipe::default();
        let lines = Lines::start(pipe.clone(), &DROPPED).unwrap();
        pipe.set(false, true);
        let line = [b'x'; 1024];
        for _ in 0..2 * MAX_QUEUED / line.len() {
            lines.push(&line);
        }
        let dropped = DROPPED.load(Ordering::Relaxed);
        let half = (MAX_QUEUED / line.len()) as u64;
        assert!((half - 1..=half).contains(&dropped), "{dropped}");
        assert!(lines.queued.load(Ordering::Relaxed) <= MAX_QUEUED);
        pipe.set(false, false);
        settle(&lines);
        assert_eq!(lines.queued.load(Ordering::Relaxed), 0);
        assert!(pipe.text().len() >= MAX_QUEUED / 2);
    }
}
