//! From an offset to what lies behind it.
//!
//! The path of a table that is in the cache takes no lock and allocates nothing; grains that follow each other in the file,
//! and runs of grains that are not there, become one answer.

use std::sync::atomic::Ordering;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::Mapping;
use crate::format::sparse::Sparse;
use crate::format::sparse::body::Entries;
use crate::format::sparse::body::decode;
use crate::format::sparse::header::ENTRIES;
use crate::format::sparse::header::TABLE_BYTES;
use crate::format::sparse::tables::View;
use crate::units::SECTOR;

/// Grains whose entries follow each other in the way that makes one run.
#[derive(Clone, Copy)]
struct Run {
    /// The entry of the first grain.
    first: u32,
    grains: u64,
    /// What each further entry is larger than the one before: a grain for data, 0 for grains without data.
    step: u64,
}

/// Tables read at once when they are asked for in order: 64 KiB.
const AHEAD: u32 = 32;
/// Tables that one answer may span.
const SPAN: u64 = 64;

impl Run {
    fn begin(first: u32, grain: u64, zero_grains: bool) -> Self {
        let hollow = first == 0 || (first == 1 && zero_grains);
        Self { first, grains: 0, step: if hollow { 0 } else { grain } }
    }

    fn next(&self) -> u64 {
        u64::from(self.first) + self.grains * self.step
    }

    /// Adds the entries `from..to` as long as they fit; true if all did.
    #[inline]
    fn take(&mut self, entry: impl Fn(usize) -> u32, from: usize, to: usize) -> bool {
        for i in from..to {
            if u64::from(entry(i)) != self.next() {
                return false;
            }
            self.grains += 1;
        }
        true
    }

    /// Adds `count` entries that begin with `entry` and go on by `step`.
    fn take_steps(&mut self, entry: u64, step: u64, count: usize) -> bool {
        let fits = entry == self.next() && step == self.step;
        if fits {
            self.grains += count as u64;
        }
        fits
    }
}

impl Sparse {
    pub(super) fn lookup(&self, offset: u64, max: u64) -> Result<(Mapping<'_>, u64)> {
        let capacity = self.header.capacity_bytes();
        if offset >= capacity || max == 0 {
            let text = format!("{}: {max} bytes at {offset:#x} of {capacity}", self.body.name);
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        let max = max.min(capacity - offset);
        let within = offset & (self.header.grain_bytes() - 1);
        let grain = offset >> self.grain_shift;
        let want = ((within + max - 1) >> self.grain_shift) + 1;
        let run = self.run(grain, want.min(SPAN * ENTRIES as u64))?;
        let (mapping, grains) = match run.first {
            0 => (Mapping::Unallocated, run.grains),
            1 if self.header.has_zero_grains() => (Mapping::Zero, run.grains),
            first => {
                let grains = self.check_data(grain, first, run.grains)?;
                (
                    Mapping::Data {
                        storage: &*self.body.storage,
                        offset: u64::from(first) * SECTOR + within,
                    },
                    grains,
                )
            }
        };
        Ok((mapping, ((grains << self.grain_shift) - within).min(max)))
    }

    /// The entries from `grain` on, at most `want` of them, that make one run; at least one.
    fn run(&self, grain: u64, want: u64) -> Result<Run> {
        let end = grain + want;
        let mut at = grain;
        let mut run: Option<Run> = None;
        while at < end {
            let table = (at / ENTRIES as u64) as u32;
            let from = (at % ENTRIES as u64) as usize;
            let to = (from as u64 + end - at).min(ENTRIES as u64) as usize;
            let (whole, next) = match self.known_run(run, table, from, to) {
                Some(answer) => answer,
                None => match run {
                    Some(run) => return Ok(run),
                    None => {
                        let entries = self.fetch(table, to == ENTRIES && at + ((to - from) as u64) < end)?;
                        let mut run = self.start_run(entries.get(from).copied().unwrap_or(0));
                        (run.take(|i| entries.get(i).copied().unwrap_or(0), from, to), run)
                    }
                },
            };
            if !whole {
                return Ok(next);
            }
            run = Some(next);
            at += (to - from) as u64;
        }
        run.ok_or_else(|| Error::new(ErrorKind::Internal, "an empty run of grains was asked for"))
    }

    fn start_run(&self, first: u32) -> Run {
        Run::begin(first, self.header.grain.0, self.header.has_zero_grains())
    }

    /// Continues a run with a table that is in the cache; `None` if it is not. The flag: all of `from..to` belongs to it.
    #[inline]
    fn known_run(&self, run: Option<Run>, table: u32, from: usize, to: usize) -> Option<(bool, Run)> {
        match self.tables.view(table) {
            View::Unknown => None,
            View::Empty => {
                let mut run = run.unwrap_or(Run { first: 0, grains: 0, step: 0 });
                Some((run.take_steps(0, 0, to - from), run))
            }
            View::Linear(base) => {
                let step = self.header.grain.0;
                let first = u64::from(base) + from as u64 * step;
                let mut run = run.unwrap_or(Run { first: first as u32, grains: 0, step });
                Some((run.take_steps(first, step, to - from), run))
            }
            View::Frame(seen) => {
                let mut run = run.unwrap_or_else(|| self.start_run(seen.entry(from)));
                let whole = run.take(|i| seen.entry(i), from, to);
                seen.holds().then_some((whole, run))
            }
        }
    }

    /// Checks that data lies behind `grains` entries from `first` on; how many of them lie inside the file.
    #[inline]
    fn check_data(&self, grain: u64, first: u32, grains: u64) -> Result<u64> {
        let start = u64::from(first) * SECTOR;
        let valid =
            (grains << self.grain_shift).min(self.header.capacity_bytes() - (grain << self.grain_shift));
        if first > 1 && u64::from(first) >= self.header.overhead.0 && start + valid <= self.body.size() {
            return Ok(grains);
        }
        self.check_doubtful(grain, first, start, valid)
    }

    #[cold]
    fn check_doubtful(&self, grain: u64, first: u32, start: u64, valid: u64) -> Result<u64> {
        if first <= 1 || u64::from(first) < self.header.overhead.0 {
            let text = format!("grain {grain} is said to be at sector {first}, among the tables");
            return Err(self.body.corrupt(text));
        }
        if self.body.reaches(start + valid)? {
            return Ok(valid.div_ceil(self.header.grain_bytes()));
        }
        let inside = self.body.size().saturating_sub(start) >> self.grain_shift;
        if inside == 0 {
            let text = format!(
                "grain {grain} is said to be at sector {first}, past the end of the file ({} bytes)",
                self.body.size()
            );
            return Err(self.body.corrupt(text));
        }
        Ok(inside)
    }

    /// The entries of a table, read from the file if need be, together with those that follow it when tables are asked for
    /// in order or the request goes on (`more`).
    #[cold]
    pub(super) fn fetch(&self, table: u32, more: bool) -> Result<Box<Entries>> {
        if let Some(entries) = self.tables.copy(table) {
            return Ok(entries);
        }
        let before = self.tables.drops();
        let Some(at) = self.directory.find(&self.body, table)? else {
            let entries = Box::new([0; ENTRIES]);
            self.tables.offer(table, &entries, &before);
            return Ok(entries);
        };
        let in_order = self.next_miss.swap(table + 1, Ordering::Relaxed) == table && table > 0;
        let count = if more || in_order { self.consecutive(table, at) } else { 1 };
        let mut bytes = vec![0; count as usize * TABLE_BYTES as usize];
        self.body
            .storage
            .read_at(&mut bytes, at)
            .context(|| format!("grain table {table} of {}", self.body.name))?;
        let mut answer = Box::new([0; ENTRIES]);
        let mut entries = [0; ENTRIES];
        // The one asked for comes last, so that it is the last to be thrown out again.
        for (i, table) in (table..table + count).enumerate().rev() {
            let start = i * TABLE_BYTES as usize;
            decode(bytes.get(start..).unwrap_or_default(), &mut entries);
            self.tables.offer(table, &entries, &before);
            if i == 0 {
                *answer = entries;
            }
        }
        self.next_miss.store(table + count, Ordering::Relaxed);
        Ok(answer)
    }

    /// How many tables from `table` on, which stands at byte `at`, lie one behind the other in the file.
    fn consecutive(&self, table: u32, at: u64) -> u32 {
        let most = AHEAD.min(self.header.tables() - table);
        let next = |i: &u32| {
            let place = at + u64::from(*i) * TABLE_BYTES;
            matches!(self.directory.find(&self.body, table + i), Ok(Some(found)) if found == place)
        };
        1 + (1..most).take_while(next).count() as u32
    }
}
