//! A disk that loses power: writes that were not synced are kept, dropped or torn, in any order.

use std::io;
use std::sync::{Arc, Mutex};

use super::Rng;

/// Bytes that a disk writes atomically.
const SECTOR: usize = 512;

#[derive(Debug, Clone)]
enum Op {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl Op {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::SetLen(len) => image.resize(*len, 0),
            Self::Write(offset, data) => {
                let end = offset + data.len();
                if image.len() < end {
                    image.resize(end, 0);
                }
                image[*offset..end].copy_from_slice(data);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Disk {
    /// The contents as the program sees them.
    current: Vec<u8>,
    /// The contents that survive a crash for certain.
    synced: Vec<u8>,
    /// Operations that may survive a crash.
    unsynced: Vec<Op>,
    /// Operations left before the power fails.
    left: Option<u64>,
    dead: bool,
}

impl Disk {
    fn step(&mut self) -> io::Result<bool> {
        if self.dead {
            return Err(io::Error::other("no power"));
        }
        if let Some(left) = &mut self.left {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => self.dead = true,
            }
        }
        Ok(self.dead)
    }

    fn change(&mut self, op: Op) -> io::Result<()> {
        let last = self.step()?;
        op.apply(&mut self.current);
        self.unsynced.push(op);
        // Whoever wrote it does not learn how far it came.
        if last { Err(io::Error::other("the power went")) } else { Ok(()) }
    }
}

/// The backend; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(super) struct TearingBackend(Arc<Mutex<Disk>>);

impl TearingBackend {
    /// A disk with this content.
    pub(super) fn new(image: Vec<u8>) -> Self {
        let disk = Disk { current: image.clone(), synced: image, ..Disk::default() };
        Self(Arc::new(Mutex::new(disk)))
    }

    fn disk(&self) -> std::sync::MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    /// Makes the power fail after `left` more operations.
    pub(super) fn die_after(&self, left: u64) {
        self.disk().left = Some(left);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.disk().dead
    }

    /// The contents of the disk if it crashed now.
    pub(super) fn crash(&self, rng: &mut Rng) -> Vec<u8> {
        let disk = self.disk();
        let mut image = disk.synced.clone();
        // Some crashes lose all, some lose nothing, most something.
        let kept = match rng.below(6) {
            0 => 0,
            1 => 100,
            _ => rng.below(100),
        };
        for op in &disk.unsynced {
            if rng.below(100) < kept {
                op.apply(&mut image);
                continue;
            }
            let Op::Write(offset, data) = op else { continue };
            match rng.below(3) {
                // Dropped.
                0 => {}
                // A prefix of bytes.
                1 => {
                    let len = rng.below(data.len() as u64 + 1) as usize;
                    Op::Write(*offset, data[..len].to_vec()).apply(&mut image);
                }
                // Some of its sectors.
                _ => {
                    let mut at = 0;
                    while at < data.len() {
                        let end = (at + SECTOR - (offset + at) % SECTOR).min(data.len());
                        if rng.below(2) == 0 {
                            Op::Write(offset + at, data[at..end].to_vec()).apply(&mut image);
                        }
                        at = end;
                    }
                }
            }
        }
        image
    }
}

impl redb::StorageBackend for TearingBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.disk();
        let start = offset as usize;
        let data = disk.current.get(start..start + out.len());
        out.copy_from_slice(data.ok_or_else(|| io::Error::other("read beyond the end"))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk().change(Op::SetLen(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk();
        if disk.step()? {
            return Err(io::Error::other("the power went"));
        }
        let disk = &mut *disk;
        // As cheap as what changed.
        for op in disk.unsynced.drain(..) {
            op.apply(&mut disk.synced);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk().change(Op::Write(offset as usize, data.to_vec()))
    }
}
