//! Allocated ranges in the units that a caller asks for.

use std::ops::Range;

use crate::session::open_disk::AllocatedBlocks;
use crate::units::SECTOR;

/// Collects byte ranges as chunks.
pub(super) struct Chunks {
    start: u64,
    end: u64,
    chunk: u64,
    pub found: AllocatedBlocks,
}

impl Chunks {
    /// For `sectors` of a disk, in units of `chunk` sectors from its start.
    pub fn new(sectors: Range<u64>, chunk: u64) -> Self {
        Self { start: sectors.start, end: sectors.end, chunk, found: Vec::new() }
    }

    /// Adds the chunks that `part` (bytes) touches; parts come in ascending order.
    pub fn add(&mut self, part: &Range<u64>) {
        let first = (part.start / SECTOR - self.start) / self.chunk;
        let last = (part.end.div_ceil(SECTOR) - self.start).div_ceil(self.chunk);
        let start = self.start + first * self.chunk;
        let end = (self.start + last * self.chunk).min(self.end);
        match self.found.last_mut() {
            Some((at, len)) if *at + *len >= start => *len = (*len).max(end - *at),
            _ => self.found.push((start, end - start)),
        }
    }
}
