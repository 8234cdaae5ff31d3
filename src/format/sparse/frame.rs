//! 512 entries in memory that belong to one grain table at a time.
//!
//! Readers take no lock. The sequence number tells them that the frame was given to another table while they read: it is
//! odd while the frame is filled, and never the same again afterwards.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;

use crate::format::sparse::body::Entries;
use crate::format::sparse::header::ENTRIES;

/// The table of a frame that has none.
pub(super) const NO_TABLE: u32 = u32::MAX;

/// 512 entries that belong to one table at a time.
#[derive(Debug)]
pub(super) struct Frame {
    sequence: AtomicU64,
    table: AtomicU32,
    used: AtomicBool,
    entries: [AtomicU32; ENTRIES],
}

/// A frame as a reader found it.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    frame: &'a Frame,
    sequence: u64,
}

impl Frame {
    /// A frame without a table.
    pub fn new() -> Self {
        Self {
            sequence: AtomicU64::new(0),
            table: AtomicU32::new(NO_TABLE),
            used: AtomicBool::new(false),
            entries: [const { AtomicU32::new(0) }; ENTRIES],
        }
    }

    /// The table it belongs to.
    pub fn table(&self) -> u32 {
        self.table.load(Ordering::Acquire)
    }

    /// Changes one entry; readers see it at once.
    pub fn set(&self, index: usize, value: u32) {
        if let Some(entry) = self.entries.get(index) {
            entry.store(value, Ordering::Release);
        }
    }

    /// Whether it was read since the last time this was asked.
    pub fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// The frame as it is, if it holds this table.
    #[inline]
    pub fn see(&self, table: u32) -> Option<Seen<'_>> {
        let sequence = self.sequence.load(Ordering::Acquire);
        if sequence & 1 != 0 || self.table.load(Ordering::Acquire) != table {
            return None;
        }
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        Some(Seen { frame: self, sequence })
    }

    /// One entry.
    #[inline]
    pub fn entry(&self, index: usize) -> u32 {
        self.entries.get(index).map_or(0, |entry| entry.load(Ordering::Acquire))
    }

    /// All entries.
    pub fn copy(&self, entries: &mut Entries) {
        for (to, from) in entries.iter_mut().zip(&self.entries) {
            *to = from.load(Ordering::Acquire);
        }
    }

    /// Gives the frame to a table. Only one thread at a time, and never while somebody has it pinned.
    pub fn fill(&self, table: u32, entries: &Entries) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.table.store(table, Ordering::Relaxed);
        for (to, from) in self.entries.iter().zip(entries) {
            to.store(*from, Ordering::Relaxed);
        }
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }
}

impl Seen<'_> {
    /// An entry, to be believed only if [`Seen::holds`] afterwards.
    #[inline]
    pub fn entry(&self, index: usize) -> u32 {
        self.frame.entry(index)
    }

    /// True when everything read so far belonged to the table.
    #[inline]
    pub fn holds(&self) -> bool {
        fence(Ordering::Acquire);
        self.frame.sequence.load(Ordering::Relaxed) == self.sequence
    }
}
