//! Counters that several tasks count in.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::counts::Labelled;

/// A shared counter for each variant of an enum.
#[derive(Debug)]
pub(super) struct Tally<E> {
    counts: Vec<AtomicU64>,
    of: std::marker::PhantomData<E>,
}

impl<E: Labelled> Default for Tally<E> {
    fn default() -> Self {
        let counts = E::VARIANTS.iter().map(|_| AtomicU64::new(0)).collect();
        Self { counts, of: std::marker::PhantomData }
    }
}

impl<E: Labelled> Tally<E> {
    /// Counts one.
    pub(super) fn count(&self, variant: E) {
        self.counts[variant.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// All names, with their counts.
    pub(super) fn labels(&self) -> Vec<(&'static str, u64)> {
        let names = E::VARIANTS.iter().map(|variant| (*variant).into());
        names.zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::connections::Dropped;
    use crate::net::listen::Call;

    /// They are labels of metrics.
    #[test]
    fn names_are_a_contract() {
        let tally = Tally::<Dropped>::default();
        tally.count(Dropped::StreamQueue);
        assert_eq!(
            tally.labels(),
            [
                ("inbound_queue", 0),
                ("datagram_buffer", 0),
                ("stream_queue", 1),
                ("unreachable", 0),
                ("injected", 0),
                ("guest", 0)
            ]
        );
        let calls: Vec<&str> = Tally::<Call>::default().labels().iter().map(|l| l.0).collect();
        assert_eq!(
            calls.join(" "),
            "accepted stranger retried refused_total refused_address refused_network refused_barred \
             ignored handshake_failed"
        );
    }
}
