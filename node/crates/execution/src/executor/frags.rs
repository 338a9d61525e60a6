//! The states after frags of the newest blocks, so that nodes behind one balancer can be asked for
//! the same one.
//!
//! Bounds: the open blocks and the [`BLOCKS`] newest verified ones, [`STATES`] states in all, of
//! which the oldest block's go first. A state is a list of layers that the newest state of its block
//! has as well: some 100 bytes, and 8 for each frag and each layer below it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::view::Heads;
use crate::exec::Snapshot;

/// Verified blocks whose states after each frag are kept.
pub(super) const BLOCKS: u64 = 8;
/// States that are kept in all.
pub(super) const STATES: usize = 1_024;

/// The states, by number and attempt of their block.
#[derive(Default)]
pub(super) struct FragStates {
    /// Those of a block, in the order of frags; the first ones may have gone.
    blocks: BTreeMap<(u64, u8), Vec<Arc<Snapshot>>>,
    count: usize,
}

impl FragStates {
    /// Keeps what is new in the heads, and forgets what is too old.
    pub(super) fn note(&mut self, heads: &Heads) {
        for open in &heads.open {
            if !open.frags.is_empty() {
                self.add(open);
            }
        }
        let oldest = heads.latest.number().saturating_sub(BLOCKS - 1);
        while let Some((&key, _)) = self.blocks.first_key_value() {
            // The newest block keeps its last states, however many frags it has.
            let too_many = self.count > STATES && self.blocks.len() > 1;
            if key.0 >= oldest && !too_many {
                break;
            }
            self.forget(key.0, key.1);
        }
        if self.count > STATES
            && let Some(mut only) = self.blocks.first_entry()
        {
            let beyond = self.count - STATES;
            only.get_mut().drain(..beyond);
            self.count = STATES;
        }
    }

    fn add(&mut self, snapshot: &Arc<Snapshot>) {
        let key = (snapshot.header.number, snapshot.attempt);
        let states = self.blocks.entry(key).or_default();
        match states.last_mut() {
            Some(last) if Arc::ptr_eq(last, snapshot) => {}
            // The block after its last frag, and then sealed.
            Some(last) if last.frags.len() == snapshot.frags.len() => {
                last.clone_from(snapshot);
            }
            // It is executed anew from its first frag on.
            Some(last) if last.frags.len() > snapshot.frags.len() => {
                self.count -= states.len() - 1;
                *states = vec![Arc::clone(snapshot)];
            }
            _ => {
                states.push(Arc::clone(snapshot));
                self.count += 1;
            }
        }
    }

    /// Forgets a block.
    pub(super) fn forget(&mut self, number: u64, attempt: u8) {
        if let Some(states) = self.blocks.remove(&(number, attempt)) {
            self.count -= states.len();
        }
    }

    /// The block as it was after a frag.
    pub(super) fn get(&self, number: u64, attempt: u8, frag: u64) -> Option<&Arc<Snapshot>> {
        let states = self.blocks.get(&(number, attempt))?;
        let wanted = usize::try_from(frag).ok()?.checked_add(1)?;
        let at = states.binary_search_by_key(&wanted, |state| state.frags.len()).ok()?;
        states.get(at)
    }
}

#[cfg(test)]
mod tests;
