//! Looks which entries of the table cannot be executed any more, whenever a block is verified, and
//! tells what became of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use alloy_primitives::B256;
use fragcast_execution::exec::admission::{Fees, NotAdmitted, admit};

use super::dropped::Dropped;
use super::table::{Standing, Table};
use super::{Forwarder, check};

impl Forwarder {
    /// Looks, on a thread that may block, which entries cannot be executed any more. One look at a
    /// time: the next block brings another.
    pub(super) fn look_through(self: &Arc<Self>) {
        if self.is_empty() || self.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let forwarder = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            forwarder.look();
            forwarder.looking.store(false, Ordering::Release);
        });
    }

    /// Drops entries that cannot be executed any more, and those that gateways leave out.
    pub(super) fn look(&self) {
        let Some(heads) = self.view.heads() else { return };
        let (pending, spec) = (heads.pending(), &self.spec);
        let lowest = check::lowest(spec, &heads, self.config.table.ttl);
        // The block after the newest verified one is whole when the next one is verified.
        let block = heads.latest.number().saturating_add(1);
        let senders = self.table().senders();
        for sender in senders {
            // A source that does not answer now says nothing about a transaction.
            let Ok(account) = pending.state.account(sender) else { continue };
            let next = account.map_or(0, |account| account.nonce);
            let Some(tx) = self.change(|table| table.advance(sender, next, block)) else {
                continue;
            };
            let standing = match admit(spec, pending, &tx, Fees::OfBlock) {
                Ok(_) => Standing::Includable,
                Err(NotAdmitted::Source(_)) => continue,
                Err(NotAdmitted::Invalid(..)) => match admit(spec, pending, &tx, lowest) {
                    Err(NotAdmitted::Invalid(why, text)) => Standing::Over(why, text),
                    _ => Standing::Waits,
                },
            };
            self.change(|table| table.stands(tx.hash, standing, block));
        }
    }

    /// Tells those who wait, and those who will ask, what became of dropped transactions.
    fn tell(&self, dropped: Vec<(B256, Dropped)>) {
        for (hash, why) in dropped {
            tracing::debug!(%hash, %why, "dropped a forwarded transaction");
            self.stats.count(&why);
            // Whoever is told by waiting may ask at once.
            self.reasons().add(hash, why.clone());
            self.waiters.fail(hash, &why);
        }
    }

    /// Changes the table, and tells what was dropped by that.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let (result, dropped) = {
            let mut table = self.table();
            (change(&mut table), table.take_dropped())
        };
        self.tell(dropped);
        result
    }
}
