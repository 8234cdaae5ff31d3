//! Writes that are smaller than the server's smallest block change a part of one: read, change, write back. No two
//! threads may do that to the same block at once.

use std::ops::Range;

use parking_lot::Condvar;
use parking_lot::Mutex;

/// Blocks that are being changed.
#[derive(Debug, Default)]
pub struct Changing {
    ranges: Mutex<Vec<Range<u64>>>,
    freed: Condvar,
}

/// A claim on some blocks, until it is dropped.
#[derive(Debug)]
pub struct Claim<'a> {
    changing: &'a Changing,
    range: Range<u64>,
}

impl Changing {
    /// Waits until nobody else changes anything in these blocks.
    pub fn claim(&self, range: Range<u64>) -> Claim<'_> {
        let mut ranges = self.ranges.lock();
        while ranges.iter().any(|other| other.start < range.end && range.start < other.end) {
            self.freed.wait(&mut ranges);
        }
        ranges.push(range.clone());
        Claim { changing: self, range }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut ranges = self.changing.ranges.lock();
        if let Some(at) = ranges.iter().position(|range| *range == self.range) {
            ranges.swap_remove(at);
        }
        drop(ranges);
        self.changing.freed.notify_all();
    }
}
