//! Which parts of a disk a copy looks at, and how far it is.

use std::collections::VecDeque;
use std::ops::Range;

use crate::disk::Disk;
use crate::error::{Context, Result};
use crate::units::align_down;

/// What is looked at at once for zeros: a grain of everything that is created here.
pub const UNIT: u64 = 64 * 1024;
/// Allocated parts are listed window by window, so that memory stays bounded.
const WINDOW: u64 = 256 << 20;

/// A walk over the data of a disk.
pub(super) struct Walk {
    capacity: u64,
    /// Bytes of a part at most, whole units.
    longest: u64,
    /// Where the window ends whose parts are known.
    window: u64,
    parts: VecDeque<Range<u64>>,
    /// Everything before this was handed out.
    done: u64,
}

impl Walk {
    /// From `start` on, which is the start of a unit or the end of the disk.
    pub fn new(source: &Disk, start: u64, longest: u64) -> Walk {
        let capacity = source.capacity();
        Walk { capacity, longest, window: start, parts: VecDeque::new(), done: start }
    }

    /// The next part, which begins and, but for the end of the disk, ends with a unit. An empty part
    /// says that there was nothing up to there. `None`: there is no more.
    pub fn next(&mut self, source: &Disk) -> Result<Option<Range<u64>>> {
        loop {
            if let Some(part) = self.parts.front() {
                // The end of one part and the start of the next may lie in one unit.
                let at = align_down(part.start, UNIT).max(self.done);
                let end = part.end.next_multiple_of(UNIT).min(self.window).min(at + self.longest);
                if at < end {
                    self.done = end;
                    return Ok(Some(at..end));
                }
                self.parts.pop_front();
                continue;
            }
            if self.window == self.capacity {
                return Ok(None);
            }
            let start = self.window;
            self.window = self.capacity.min(start + WINDOW);
            self.parts = data_of(source, start..self.window)?.into();
            if self.parts.is_empty() {
                return Ok(Some(self.window..self.window));
            }
        }
    }
}

/// The parts of a window that hold data, those in neighbouring units merged.
fn data_of(source: &Disk, window: Range<u64>) -> Result<Vec<Range<u64>>> {
    let mut parts: Vec<Range<u64>> = Vec::new();
    source
        .allocated(window, &mut |part| match parts.last_mut() {
            Some(last) if align_down(part.start, UNIT) <= last.end => last.end = last.end.max(part.end),
            _ => parts.push(part),
        })
        .context(|| "looking for data")?;
    Ok(parts)
}

/// Turns places on the disk into ascending percents.
pub(super) struct Steps<'a> {
    capacity: u64,
    last: u8,
    progress: &'a mut dyn FnMut(u8),
}

impl<'a> Steps<'a> {
    pub fn new(capacity: u64, progress: &'a mut dyn FnMut(u8)) -> Steps<'a> {
        Steps { capacity, last: 0, progress }
    }

    /// Everything before `at` is done.
    pub fn reach(&mut self, at: u64) {
        let percent = u128::from(at) * 99 / u128::from(self.capacity.max(1));
        let percent = u8::try_from(percent).unwrap_or(99);
        if percent > self.last {
            self.last = percent;
            (self.progress)(percent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_ascend_and_stay_below_100() {
        let mut seen = Vec::new();
        let mut progress = |percent| seen.push(percent);
        let mut steps = Steps::new(1000, &mut progress);
        [0, 5, 11, 11, 500, 400, 1000].into_iter().for_each(|at| steps.reach(at));
        assert_eq!(seen, [1, 49, 99]);
    }
}
