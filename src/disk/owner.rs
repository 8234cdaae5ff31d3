//! Which link of a chain answers for which part of the disk.
//!
//! Asking every link in turn costs a table look-up per link and read. A long chain remembers, per cell of 64 KiB, the one
//! link that holds all of it, so that a read asks that link alone. Cells that several links share stay unknown and are
//! asked the long way. Windows of cells are filled on first use and bounded in number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::RwLock;

/// Bytes of one cell: the grain of everything VMware writes.
pub(super) const CELL: u64 = 64 * 1024;
/// Cells of one window: 32 MiB of disk.
const CELLS: usize = 512;
const WINDOW: u64 = CELL * CELLS as u64;
/// Windows kept: 1 MiB of memory at most, 64 GiB of disk.
const WINDOWS: usize = 2048;

/// The answer for a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Not known: ask the links in turn.
    Unknown,
    /// This link has all of the cell as data or zeros.
    Link(usize),
    /// No link has anything in it.
    Nobody,
}

const UNKNOWN: u8 = 0xff;
const NOBODY: u8 = 0xfe;

impl Owner {
    fn code(self) -> u8 {
        match self {
            Owner::Link(i) if i < usize::from(NOBODY) => i as u8,
            Owner::Nobody => NOBODY,
            _ => UNKNOWN,
        }
    }
}

/// The windows of one disk.
#[derive(Debug)]
pub(super) struct OwnerIndex {
    enabled: bool,
    /// Counts changes of the leaf: what was learned before a change is not stored after it.
    changes: AtomicU64,
    /// Keyed by window number. Write-locked only to add or drop windows.
    windows: RwLock<HashMap<u64, Box<[AtomicU8; CELLS]>, Spread>>,
}

/// Window numbers are small and dense: one multiplication spreads them well enough.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spread(u64);

impl std::hash::BuildHasher for Spread {
    type Hasher = Spread;
    fn build_hasher(&self) -> Spread {
        Spread(0)
    }
}

impl std::hash::Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }
}

impl OwnerIndex {
    /// An index for a chain of `links`; a single link needs none.
    pub(super) fn new(links: usize) -> Self {
        let windows = RwLock::new(HashMap::with_hasher(Spread(0)));
        Self { enabled: links > 1, changes: AtomicU64::new(0), windows }
    }

    /// True when it is worth asking.
    #[inline]
    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The owner of the cell at `offset` and for how many bytes, up to `max`, the answer holds. `None`: the window is not
    /// filled yet, see [`OwnerIndex::fill`].
    #[inline]
    pub(super) fn find(&self, offset: u64, max: u64) -> Option<(Owner, u64)> {
        let windows = self.windows.read();
        let window = windows.get(&(offset / WINDOW))?;
        let first = (offset % WINDOW / CELL) as usize;
        let code = window[first].load(Ordering::Relaxed);
        let start = offset - offset % CELL;
        let mut end = start + CELL;
        for cell in &window[first + 1..] {
            if end - offset >= max || cell.load(Ordering::Relaxed) != code {
                break;
            }
            end += CELL;
        }
        let owner = match code {
            UNKNOWN => Owner::Unknown,
            NOBODY => Owner::Nobody,
            link => Owner::Link(usize::from(link)),
        };
        Some((owner, max.min(end - offset)))
    }

    /// The bytes of the window around `offset`.
    pub(super) fn window(offset: u64) -> std::ops::Range<u64> {
        let start = offset - offset % WINDOW;
        start..start.saturating_add(WINDOW)
    }

    /// To be taken before looking at the links, for [`OwnerIndex::fill`].
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Stores what is known of the window around `offset`, unless the leaf changed since `changes` was taken; `owner_of`
    /// gets the start of each cell below `end`.
    pub(super) fn fill(&self, offset: u64, end: u64, changes: u64, mut owner_of: impl FnMut(u64) -> Owner) {
        let start = Self::window(offset).start;
        let cells = std::array::from_fn(|i| {
            let at = start + i as u64 * CELL;
            AtomicU8::new(if at < end { owner_of(at).code() } else { UNKNOWN })
        });
        let mut windows = self.windows.write();
        if self.changes() != changes {
            return;
        }
        if windows.len() >= WINDOWS
            && let Some(victim) = windows.keys().next().copied()
        {
            windows.remove(&victim);
        }
        windows.insert(start / WINDOW, Box::new(cells));
    }

    /// Forgets what is known of a range that the leaf has just changed. A concurrent [`OwnerIndex::fill`] either sees the
    /// count and stores nothing, or stores before the marks below are set.
    pub(super) fn forget(&self, range: std::ops::Range<u64>) {
        if !self.enabled {
            return;
        }
        self.changes.fetch_add(1, Ordering::AcqRel);
        let windows = self.windows.read();
        let mut at = range.start - range.start % CELL;
        while at < range.end {
            if let Some(window) = windows.get(&(at / WINDOW)) {
                window[(at % WINDOW / CELL) as usize].store(UNKNOWN, Ordering::Relaxed);
            }
            at += CELL;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_cells_of_one_owner_are_one_answer() {
        let index = OwnerIndex::new(3);
        assert!(index.find(0, 1).is_none());
        index.fill(5, 10 * CELL, 0, |at| if at < 4 * CELL { Owner::Link(2) } else { Owner::Nobody });
        assert_eq!(index.find(100, u64::MAX), Some((Owner::Link(2), 4 * CELL - 100)));
        assert_eq!(index.find(100, 7), Some((Owner::Link(2), 7)));
        assert_eq!(index.find(4 * CELL, u64::MAX), Some((Owner::Nobody, 6 * CELL)));
        index.forget(CELL..CELL + 1);
        assert_eq!(index.find(0, u64::MAX), Some((Owner::Link(2), CELL)));
        assert_eq!(index.find(CELL, u64::MAX), Some((Owner::Unknown, CELL)));
    }

    #[test]
    fn what_was_learned_before_a_change_is_not_stored() {
        let index = OwnerIndex::new(2);
        let changes = index.changes();
        index.forget(0..CELL);
        index.fill(0, CELL, changes, |_| Owner::Link(1));
        assert!(index.find(0, 1).is_none());
    }
}
