//! File descriptors: how many the process may have, and how many of them strangers may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Raises the soft limit of open files to the hard one; returns what holds then, `None` if that is
/// not known or there is none.
pub fn raise_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        if limit.current == limit.maximum {
            return limit.current;
        }
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(error) => {
                tracing::warn!(%error, "the limit of open files cannot be raised");
                limit.current
            }
        }
    }
    #[cfg(not(unix))]
    None
}

/// Descriptors that several ports share.
#[derive(Debug, Clone)]
pub struct Descriptors(Arc<AtomicUsize>);

impl Descriptors {
    /// A number of descriptors.
    pub fn new(number: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(number)))
    }

    /// How many are left.
    pub fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes one, if there is one.
    pub fn take(&self) -> Option<Descriptor> {
        let taken =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        taken.ok().map(|_| Descriptor(Arc::clone(&self.0)))
    }
}

/// One descriptor; dropping this gives it back.
#[derive(Debug)]
pub struct Descriptor(Arc<AtomicUsize>);

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
