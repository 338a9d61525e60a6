//! The verdict on a block: what follows from it, and who is told.

use super::open::{Key, Stage};
use super::service::Service;
use super::stats::BlockReport;
use crate::exec::{Invalid, Verdict};

impl Service {
    /// Gives a block its verdict.
    pub(super) fn conclude(&mut self, key: Key, verdict: Verdict) {
        let Some(open) = self.open.get_mut(&key) else { return };
        let keeps = open.complete.is_some() && matches!(verdict, Verdict::Unverified(_));
        if !keeps {
            open.messages.clear();
        }
        if open.complete.is_none() || matches!(verdict, Verdict::Rejected(_)) {
            open.stage = Stage::Ended;
        }
        open.note(&verdict);
        // Made now, told when what follows from it can be seen.
        let report = self.make_report(key, verdict.clone());
        match verdict {
            Verdict::Verified => self.verified(key),
            Verdict::Rejected(invalid) => {
                let reason = match invalid {
                    Invalid::Seal { field, .. } => field.name(),
                    other => other.label(),
                };
                tracing::warn!(block = key.0, attempt = key.1, reason, "rejected");
                self.note_rejected(key);
                self.drop_block(key, "rejected");
            }
            Verdict::Unverified(_) => {}
        }
        self.tell_report(report);
    }

    pub(super) fn report(&mut self, key: Key, verdict: Verdict) {
        let report = self.make_report(key, verdict);
        self.tell_report(report);
    }

    fn make_report(&self, key: Key, verdict: Verdict) -> Option<BlockReport> {
        Some(self.open.get(&key)?.report(key, verdict))
    }

    fn tell_report(&mut self, report: Option<BlockReport>) {
        let Some(report) = report else { return };
        if let Some(reason) = report.verdict.reason() {
            tracing::info!(block = report.number, attempt = report.attempt, verdict = report.verdict.name(), %reason, "not verified");
        }
        if report.verdict == Verdict::Verified {
            tracing::info!(
                block = report.number,
                hash = %report.hash,
                txs = report.txs,
                gas = report.gas_used,
                ms = report.exec_ns.saturating_add(report.seal_ns) / 1_000_000,
                "verified"
            );
        }
        let seal_ns = report.seal_ns;
        self.parts.stats.update(|s| s.seal_ns += seal_ns);
        self.parts.stats.report(&report);
        if let Some(tap) = &mut self.parts.tap {
            tap(&report);
        }
    }
}
