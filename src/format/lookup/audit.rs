//! Every entry of directory and tables of a file that may be damaged: what cannot be, and what is used twice.
//!
//! Which units of the file are used is kept as bits, for a part of a large file at a time: memory stays bounded, and a file
//! with more than one such part is read as often as it has parts that hold something.

use std::collections::BTreeSet;
use std::ops::Range;

use super::BAD;
use super::Entries;
use super::Lookup;
use super::Place;
use super::number;

use crate::error::Context;
use crate::error::Result;
use crate::format::bytes::is_zero;
use crate::format::check::Report;

/// Directory entries looked at together.
const DIRECTORY_PIECE: u64 = 16 * 1024;
/// Units whose use is kept at a time: 32 MiB of bits.
const WINDOW: u64 = 1 << 28;

/// Bytes read together.
const PIECE: u64 = 64 * 1024;

/// What an audit came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::format) struct Audit {
    /// Bytes of all tables and grains together.
    pub(in crate::format) used: u64,
    /// Where the last table or grain ends in the file.
    pub(in crate::format) end: u64,
}

/// A table as the directory names it.
pub(in crate::format) enum Named<'a> {
    /// The directory entry cannot be believed.
    Bad(u64),
    /// Its number, where it starts, and its entries; those of a table in a hole are left out.
    Table(u64, u64, &'a [u8]),
}

/// The grains of one table that have a place: their numbers and where they start in the file.
pub(in crate::format) type Grains<'a> = &'a [(u64, u64)];

/// Units of one part of the file that are used.
struct Used {
    window: Range<u64>,
    bits: Vec<u64>,
}

impl Used {
    /// Marks the units of `range` that lie in the window; false if one of them was marked already.
    fn claim(&mut self, range: Range<u64>) -> bool {
        let mut fresh = true;
        for unit in range.start.max(self.window.start)..range.end.min(self.window.end) {
            let index = unit - self.window.start;
            if let Some(word) = usize::try_from(index / 64).ok().and_then(|i| self.bits.get_mut(i)) {
                let bit = 1u64 << (index % 64);
                fresh &= *word & bit == 0;
                *word |= bit;
            }
        }
        fresh
    }
}

/// One look at all entries.
struct Pass<'a, 'b, E: Entries> {
    lookup: &'a Lookup<E>,
    unit: u64,
    used: Used,
    /// The first pass tells what cannot be, and where the others have to look.
    first: bool,
    windows: BTreeSet<u64>,
    audit: Audit,
    report: &'a mut Report<'b>,
}

impl<E: Entries> Lookup<E> {
    /// Tells every entry that cannot be believed, and every table and grain that shares space with another one. `unit`: the
    /// bytes of which all tables and grains are multiples. `each` sees the grains of every table.
    pub(in crate::format) fn audit(
        &self,
        unit: u64,
        report: &mut Report<'_>,
        each: &mut dyn FnMut(Grains<'_>) -> Result<()>,
    ) -> Result<Audit> {
        let units = self.shape.file.div_ceil(unit);
        let bits = vec![0; usize::try_from(units.min(WINDOW).div_ceil(64)).unwrap_or(0)];
        let used = Used { window: 0..WINDOW, bits };
        let (windows, audit) = (BTreeSet::new(), Audit::default());
        let mut pass = Pass { lookup: self, unit, used, first: true, windows, audit, report };
        let mut grains = Vec::new();
        self.each_table(&mut |named| {
            pass.table(&named, &mut grains)?;
            each(&grains)
        })?;
        pass.first = false;
        for window in std::mem::take(&mut pass.windows).into_iter().filter(|&window| window > 0) {
            pass.used.window = window * WINDOW..(window + 1) * WINDOW;
            pass.used.bits.fill(0);
            self.each_table(&mut |named| pass.table(&named, &mut grains))?;
        }
        Ok(pass.audit)
    }

    /// Calls `sink` for each table that the first directory names.
    pub(in crate::format) fn each_table(&self, sink: &mut dyn FnMut(Named<'_>) -> Result<()>) -> Result<()> {
        let mut raw = vec![0; self.table_bytes()];
        let mut table = 0;
        while table < self.tables {
            let count = (self.tables - table).min(DIRECTORY_PIECE);
            let starts = self.raw_directory(self.shape.directory, table, count)?;
            for (number, &at) in (table..).zip(&*starts).filter(|&(_, &at)| at != super::ABSENT) {
                if at == BAD {
                    sink(Named::Bad(number))?;
                    continue;
                }
                let mut data = false;
                self.storage.allocated(at..at + raw.len() as u64, &mut |_| data = true)?;
                if data {
                    self.read(&mut raw, at).context(|| format!("grain table {number}"))?;
                }
                sink(Named::Table(number, at, if data { &raw } else { &[] }))?;
            }
            table += count;
        }
        Ok(())
    }

    /// How many entries the directory has.
    pub(in crate::format) fn tables(&self) -> u64 {
        self.tables
    }

    /// True when something stands in `range`, counted in bytes from `base`.
    pub(in crate::format) fn has_data(&self, base: u64, range: Range<u64>) -> Result<bool> {
        let mut parts = Vec::new();
        let (start, end) =
            (base.saturating_add(range.start), base.saturating_add(range.end).min(self.shape.file));
        self.storage.allocated(start.min(end)..end, &mut |part| parts.push(part))?;
        for part in parts {
            let mut at = part.start.max(start);
            while at < part.end.min(end) {
                let len = (part.end.min(end) - at).min(PIECE);
                let mut piece = vec![0; usize::try_from(len).unwrap_or(0)];
                self.read(&mut piece, at)?;
                if !is_zero(&piece) {
                    return Ok(true);
                }
                at += len;
            }
        }
        Ok(false)
    }

    /// The grains that a table's entries name, with their entries. Those behind the end of the disk are left out.
    pub(in crate::format) fn places<'a>(
        &'a self,
        table: u64,
        raw: &'a [u8],
    ) -> impl Iterator<Item = (u64, u64, Place)> + 'a {
        let first = table.saturating_mul(u64::from(self.shape.entries));
        let grains = self.shape.capacity.div_ceil(self.shape.grain);
        let entries = raw.chunks_exact(E::BYTES).map(number);
        (first..grains)
            .zip(entries)
            .zip(self.decode(table, raw))
            .map(|((grain, entry), place)| (grain, entry, place))
    }

    /// True when a table names grains behind the end of the disk.
    pub(in crate::format) fn reaches_past_the_end(&self, table: u64, raw: &[u8]) -> bool {
        let first = table.saturating_mul(u64::from(self.shape.entries));
        let inside = self.shape.capacity.div_ceil(self.shape.grain).saturating_sub(first);
        let bytes = usize::try_from(inside).unwrap_or(usize::MAX).saturating_mul(E::BYTES);
        raw.get(bytes..).is_some_and(|rest| !is_zero(rest))
    }

    /// What is wrong with an entry.
    pub(in crate::format) fn entry_fault(&self, entry: u64) -> String {
        self.entries.fault(entry)
    }
}

impl<E: Entries> Pass<'_, '_, E> {
    /// Looks at a table; leaves its grains in `grains`.
    fn table(&mut self, named: &Named<'_>, grains: &mut Vec<(u64, u64)>) -> Result<()> {
        grains.clear();
        let (table, at, raw) = match *named {
            Named::Table(table, at, raw) => (table, at, raw),
            Named::Bad(table) => {
                self.fault(|| format!("directory entry {table} names no possible place of a grain table"));
                return Ok(());
            }
        };
        let lookup = self.lookup;
        if !self.claim(at, lookup.table_bytes() as u64) {
            self.report.fault(
                false,
                format!("grain table {table} at byte {at:#x} shares space with something else"),
            );
        }
        if self.first {
            if lookup.reaches_past_the_end(table, raw) {
                self.report
                    .fault(false, format!("grain table {table} has entries behind the end of the disk"));
            }
        }
        for (grain, entry, place) in lookup.places(table, raw) {
            match place {
                Place::Data(at) => {
                    grains.push((grain, at));
                    if !self.claim(at, lookup.shape.grain) {
                        let text = format!("grain {grain} at byte {at:#x} shares space with something else");
                        self.report.fault(false, text);
                    }
                }
                Place::Bad => self.fault(|| format!("grain {grain}: {}", lookup.entry_fault(entry))),
                Place::Unallocated | Place::Zero => {}
            }
        }
        Ok(())
    }

    /// Claims space; false if a part of it is used already.
    fn claim(&mut self, at: u64, bytes: u64) -> bool {
        let end = at.saturating_add(bytes);
        let units = at / self.unit..end.div_ceil(self.unit);
        if self.first {
            self.audit.end = self.audit.end.max(end);
            self.audit.used = self.audit.used.saturating_add(bytes);
            self.windows.extend(units.start / WINDOW..=units.end.saturating_sub(1) / WINDOW);
        }
        self.used.claim(units)
    }

    /// A fault that only the first pass tells.
    fn fault(&mut self, text: impl FnOnce() -> String) {
        if self.first {
            self.report.fault(false, text());
        }
    }
}
