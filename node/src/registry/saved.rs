//! The schedule that was in force last, for the next start: `schedule.json`.
//!
//! A node that is restarted while the registry is away, or in the middle of a change, must know what
//! held before: the list of the network file may be months old. The file has the lists of the epochs
//! that live, three at most, and nothing else of the registry: no URL, no secret. A file that is
//! missing or damaged is told, and as good as none.

use std::io::Write as _;
use std::path::Path;

use alloy_primitives::Address;
use fragcast_turbine::epoch::MAX_EPOCHS;
use fragcast_turbine::{EpochsView, Schedule};
use serde::{Deserialize, Serialize};

use super::list::MAX_ROWS;

/// Bytes of the file, at most.
const MAX_BYTES: u64 = 1024 * 1024;

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// Chain id.
    pub chain_id: u64,
    /// Blocks that a gateway leads at a time.
    pub blocks_per_term: u64,
    /// The lists by rising first block, the first of them perhaps from 0 on.
    pub lists: Vec<SavedList>,
}

/// A list of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedList {
    /// Its first block.
    pub from_block: u64,
    /// Its gateways in order of rotation.
    pub gateways: Vec<Address>,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is no JSON of that form.
    #[error("damaged: {0}")]
    Json(#[from] serde_json::Error),
    /// It is of another chain, or of other terms.
    #[error("of another chain, or of terms of another length")]
    Other,
    /// Its lists are none, or not in order.
    #[error("damaged: its lists do not follow one another")]
    Lists,
}

impl Saved {
    /// What is in force now.
    pub fn of(epochs: &EpochsView) -> Self {
        let newest = epochs.newest();
        let list = |epoch: &std::sync::Arc<fragcast_turbine::Epoch>| SavedList {
            from_block: epoch.rotation_from(),
            gateways: epoch.schedule().gateways().to_vec(),
        };
        // Epochs that change the members alone have the list of the one before.
        let mut lists: Vec<SavedList> = epochs.epochs().iter().map(list).collect();
        lists.dedup_by_key(|list| list.from_block);
        Self {
            chain_id: newest.chain_id(),
            blocks_per_term: newest.schedule().blocks_per_term(),
            lists,
        }
    }

    /// Reads a file of this chain; `None` if there is none.
    ///
    /// # Errors
    /// [`SavedError`].
    pub fn read(path: &Path, chain_id: u64, term: u64) -> Result<Option<Self>, SavedError> {
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let saved: Self = serde_json::from_reader(std::io::Read::take(file, MAX_BYTES))?;
        if (saved.chain_id, saved.blocks_per_term) != (chain_id, term) {
            return Err(SavedError::Other);
        }
        let rising = saved.lists.windows(2).all(|two| two[0].from_block < two[1].from_block);
        let right = |list: &SavedList| (1..=MAX_ROWS).contains(&list.gateways.len());
        let number = (1..=MAX_EPOCHS).contains(&saved.lists.len());
        match rising && number && saved.lists.iter().all(right) {
            true => Ok(Some(saved)),
            false => Err(SavedError::Lists),
        }
    }

    /// Writes the file: whole, or not at all.
    ///
    /// # Errors
    /// [`SavedError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), SavedError> {
        let beside = path.with_extension("json.new");
        let mut file = std::fs::File::create(&beside)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        Ok(std::fs::rename(&beside, path)?)
    }

    /// The schedules, each with its first block, by the rules of the network's own.
    pub fn schedules(&self, rules: &Schedule) -> Vec<(u64, Schedule)> {
        let schedule = |list: &SavedList| {
            let schedule = rules.with_gateways(list.gateways.clone());
            Some((list.from_block, schedule.ok()?))
        };
        self.lists.iter().filter_map(schedule).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(lists: &[(u64, usize)]) -> Saved {
        let gateways = |n| (1..=n).map(|n| Address::with_last_byte(n as u8)).collect();
        let list = |(from_block, n): &(u64, usize)| SavedList {
            from_block: *from_block,
            gateways: gateways(*n),
        };
        Saved { chain_id: 901, blocks_per_term: 30, lists: lists.iter().map(list).collect() }
    }

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("schedule.json");
        assert!(Saved::read(&path, 901, 30).unwrap().is_none());
        let good = saved(&[(0, 2), (60, 3)]);
        good.write(&path).unwrap();
        good.write(&path).unwrap();
        assert_eq!(Saved::read(&path, 901, 30).unwrap(), Some(good.clone()));
        let rules = Schedule::new(vec![Address::ZERO], 30).unwrap().with_substitutes(1).unwrap();
        let schedules = good.schedules(&rules);
        assert_eq!(schedules.iter().map(|(from, _)| *from).collect::<Vec<_>>(), [0, 60]);
        assert!(schedules.iter().all(|(_, schedule)| schedule.substitutes() == 1));
        assert!(matches!(Saved::read(&path, 902, 30), Err(SavedError::Other)));
        assert!(matches!(Saved::read(&path, 901, 31), Err(SavedError::Other)));
        for wrong in [&[][..], &[(60, 2), (60, 3)], &[(0, 0)], &[(0, 1), (1, 1), (2, 1), (3, 1)]] {
            saved(wrong).write(&path).unwrap();
            assert!(matches!(Saved::read(&path, 901, 30), Err(SavedError::Lists)), "{wrong:?}");
        }
        std::fs::write(&path, "{\"chain_id\":901").unwrap();
        assert!(matches!(Saved::read(&path, 901, 30), Err(SavedError::Json(_))));
    }
}
