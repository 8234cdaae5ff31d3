//! Copying without looking at every byte: the system copies from file to file, or lets both files share the same blocks.
//!
//! Files that can share do: that takes no time and no space. To leave zeros out, a look at the beginning of each unit is
//! enough for nearly all of them. Where files cannot share, the system copies whatever may keep its zeros; the rest goes
//! through memory, since every byte has to be looked at.

use std::ops::Range;

use crate::disk::Disk;
use crate::disk::copy::Zeros;
use crate::disk::copy::runs;
use crate::disk::copy::walk::Steps;
use crate::disk::copy::walk::UNIT;
use crate::disk::copy::walk::Walk;
use crate::disk::read::Source;
use crate::error::{Context, Result};
use crate::format::bytes::is_zero;
use crate::storage::Copied;
use crate::storage::Storage;

/// Copied at once: large enough for the system to be fast, small enough for progress to be told in time.
const STEP: u64 = 16 << 20;
/// A unit that holds something shows that in this many bytes, nearly always.
const GLANCE: usize = 4096;

/// Copies what can be copied this way, from the start; says from where on the rest has to go through memory.
pub(super) fn copy(source: &Disk, target: &Disk, zeros: Zeros, steps: &mut Steps<'_>) -> Result<u64> {
    let mut direct = Direct { source, target, zeros, decided: false, unit: Vec::new() };
    let mut walk = Walk::new(source, 0, STEP);
    while let Some(part) = walk.next(source)? {
        if let Some(rest) = direct.copy_part(&part)? {
            return Ok(rest);
        }
        steps.reach(part.end);
    }
    Ok(source.capacity())
}

/// A copy under way.
struct Direct<'a> {
    source: &'a Disk,
    target: &'a Disk,
    zeros: Zeros,
    /// This is the way for all of the disk: the first data has shown it.
    decided: bool,
    unit: Vec<u8>,
}

impl Direct<'_> {
    /// Copies a part that begins and, but for the end of the disk, ends with a unit. `Some`: everything before that is
    /// copied, the rest had better go through memory.
    fn copy_part(&mut self, part: &Range<u64>) -> Result<Option<u64>> {
        let mut at = part.start;
        while at < part.end {
            let (from, run) = self.source.resolve(at, part.end - at, 0)?;
            let whole = if self.zeros == Zeros::MayStay { run } else { run - run % UNIT };
            match from {
                Source::Zero if whole > 0 => at += whole,
                Source::Data { storage, offset, link } if whole > 0 && storage.local_file().is_some() => {
                    let story = || format!("data of {}", link.label());
                    match self.zeros {
                        Zeros::MayStay => self.take(storage, offset, at..at + whole).context(story)?,
                        Zeros::LeaveOut => self.take_data(storage, offset, at..at + whole).context(story)?,
                    }
                    at += whole;
                    if !self.decided {
                        return Ok(Some(at));
                    }
                }
                // Packed, or several links have a part of the unit, or the disk ends in it, or it lies far away.
                _ if self.decided => at = self.carry(at, part.end)?,
                _ => return Ok(Some(at)),
            }
        }
        Ok(None)
    }

    /// Copies one unit, or what the disk has of it, through memory; says where it ends.
    fn carry(&mut self, at: u64, limit: u64) -> Result<u64> {
        let end = limit.min(at - at % UNIT + UNIT);
        self.unit.resize((end - at) as usize, 0); // at most a unit
        self.source.read(&mut self.unit, at)?;
        runs(&self.unit, at, &mut |bytes, offset| self.target.write(bytes, offset))?;
        Ok(end)
    }

    /// Copies the units of a run, which stands at `from` of a storage, that are not zeros.
    fn take_data(&mut self, storage: &dyn Storage, from: u64, run: Range<u64>) -> Result<()> {
        let place = |at: u64| from + (at - run.start);
        let mut data = run.start..run.start;
        while data.end < run.end {
            let at = data.end;
            let holds = self.holds_data(storage, place(at))?;
            if !holds {
                self.take(storage, place(data.start), data.clone())?;
                data.start = at + UNIT;
            }
            data.end = at + UNIT;
        }
        self.take(storage, place(data.start), data)
    }

    /// Whether a unit of a storage is more than zeros.
    fn holds_data(&mut self, storage: &dyn Storage, at: u64) -> Result<bool> {
        self.unit.resize(UNIT as usize, 0);
        let (head, rest) = self.unit.split_at_mut(GLANCE);
        storage.read_at(head, at)?;
        if !is_zero(head) {
            return Ok(true);
        }
        storage.read_at(rest, at + GLANCE as u64)?;
        Ok(!is_zero(rest))
    }

    /// Puts what stands at `from` of a storage to `to` of the target.
    fn take(&mut self, storage: &dyn Storage, mut from: u64, mut to: Range<u64>) -> Result<()> {
        while to.start < to.end {
            let (len, copied) = self.target.take(storage, from, to.end - to.start, to.start)?;
            // Where looking at every byte is needed anyway, only sharing is better than memory.
            self.decided |= copied == Some(Copied::Shared)
                || copied == Some(Copied::BySystem) && self.zeros == Zeros::MayStay;
            from += len;
            to.start += len;
        }
        Ok(())
    }
}
