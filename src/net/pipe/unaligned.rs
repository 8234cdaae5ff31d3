//! Writes that are smaller than the server's smallest block change a part of one: read, change, write back. No two
//! threads may do that to the same block at once.

use std::ops::Range;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::units::align_down;
use crate::units::align_up;

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

/// Whole blocks around a range of something of this size.
pub fn widened(range: &Range<u64>, block: u64, size: u64) -> Range<u64> {
    let end = align_up(range.end, block).unwrap_or(u64::MAX).min(size);
    align_down(range.start, block)..end.max(range.end)
}

/// Zeroed memory for a range.
pub fn room(range: &Range<u64>) -> Result<Vec<u8>> {
    let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(len)
        .map_err(|e| Error::new(ErrorKind::OutOfMemory, format!("{len} bytes for whole blocks: {e}")))?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// The part of a buffer for `wide` that is `range`.
pub fn part<'b>(buf: &'b mut [u8], wide: &Range<u64>, range: &Range<u64>) -> Result<&'b mut [u8]> {
    let at = usize::try_from(range.start - wide.start).unwrap_or(usize::MAX);
    let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let part = buf.get_mut(at..).and_then(|rest| rest.get_mut(..len));
    part.ok_or_else(|| Error::new(ErrorKind::Internal, format!("{range:?} is not in {wide:?}")))
}
