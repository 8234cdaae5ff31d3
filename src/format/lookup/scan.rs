//! What is allocated, in one pass over the tables.
//!
//! The directory is read in pieces, and tables that stand one after the other in the file are read together. The caches are
//! left alone. A grain or table whose entry cannot be believed counts as data: the tables say that something is there, and
//! reading it reports the fault.

use std::ops::Range;

use super::BAD;
use super::Entries;
use super::Lookup;
use super::Place;

use crate::error::Context;
use crate::error::Result;
use crate::format::Presence;

/// Directory entries looked at together.
const DIRECTORY_PIECE: u64 = 16 * 1024;
/// Bytes of tables read together.
const TABLES_PIECE: u64 = 1024 * 1024;

/// Receives presences in ascending order, merges equal neighbours and clips them to the range asked for.
struct Merge<'a> {
    range: Range<u64>,
    pending: Option<(Range<u64>, Presence)>,
    sink: &'a mut dyn FnMut(Range<u64>, Presence),
}

impl Merge<'_> {
    fn add(&mut self, part: Range<u64>, presence: Presence) {
        let part = part.start.max(self.range.start)..part.end.min(self.range.end);
        if part.start >= part.end {
            return;
        }
        match &mut self.pending {
            Some((run, held)) if *held == presence && run.end == part.start => run.end = part.end,
            _ => {
                self.end();
                self.pending = Some((part, presence));
            }
        }
    }

    fn end(&mut self) {
        if let Some((run, presence)) = self.pending.take() {
            (self.sink)(run, presence);
        }
    }
}

impl<E: Entries> Lookup<E> {
    /// Reports every part of `range` in ascending order without gaps, neighbours merged.
    pub(in crate::format) fn scan(
        &self,
        range: Range<u64>,
        sink: &mut dyn FnMut(Range<u64>, Presence),
    ) -> Result<()> {
        if range.start >= range.end {
            return Ok(());
        }
        self.check(range.end - 1)?;
        let coverage = self.coverage();
        let mut table = range.start / coverage;
        let end = range.end.div_ceil(coverage);
        let mut merge = Merge { range, pending: None, sink };
        let mut raw = Vec::new();
        while table < end {
            let count = (end - table).min(DIRECTORY_PIECE);
            let starts = self.directory(table, count)?;
            self.scan_tables(table, &starts, &mut raw, &mut merge)?;
            table += count;
        }
        merge.end();
        Ok(())
    }

    /// Reports the tables from `first` on that start at `starts`.
    fn scan_tables(
        &self,
        first: u64,
        starts: &[u64],
        raw: &mut Vec<u8>,
        merge: &mut Merge<'_>,
    ) -> Result<()> {
        let coverage = self.coverage();
        let bytes = self.table_bytes() as u64;
        let mut rest = starts;
        let mut table = first;
        while let Some(&at) = rest.first() {
            let start = table.saturating_mul(coverage);
            let mut taken = 1;
            if at <= BAD {
                taken = rest.iter().take_while(|&&other| other == at).count();
                let presence = if at == BAD { Presence::Data } else { Presence::Unallocated };
                merge.add(start..start.saturating_add(coverage.saturating_mul(taken as u64)), presence);
            } else {
                let most = (TABLES_PIECE / bytes).max(1);
                let expected = (0..most).map(|n| at.wrapping_add(n.wrapping_mul(bytes)));
                taken =
                    rest.iter().zip(expected).take_while(|(at, expected)| *at == expected).count().max(taken);
                raw.resize(taken * self.table_bytes(), 0);
                self.read(raw, at).context(|| format!("grain tables from {table}"))?;
                for (number, entries) in (table..).zip(raw.chunks_exact(self.table_bytes())) {
                    self.scan_table(number, entries, merge);
                }
            }
            rest = rest.get(taken..).unwrap_or_default();
            table += taken as u64;
        }
        Ok(())
    }

    /// Reports one table from its entries.
    fn scan_table(&self, table: u64, raw: &[u8], merge: &mut Merge<'_>) {
        let start = table.saturating_mul(self.coverage());
        if raw.iter().all(|&byte| byte == 0) {
            merge.add(start..start.saturating_add(self.coverage()), Presence::Unallocated);
            return;
        }
        let grain = self.shape.grain;
        let (mut run, mut end) = (None, start);
        for place in self.decode(table, raw) {
            let presence = match place {
                Place::Unallocated => Presence::Unallocated,
                Place::Zero => Presence::Zero,
                Place::Data(_) | Place::Bad => Presence::Data,
            };
            run = match run {
                Some((from, held)) if held == presence => Some((from, held)),
                Some((from, held)) => {
                    merge.add(from..end, held);
                    Some((end, presence))
                }
                None => Some((end, presence)),
            };
            end = end.saturating_add(grain);
        }
        if let Some((from, held)) = run {
            merge.add(from..end, held);
        }
    }

    /// Bytes of the disk that a table covers.
    fn coverage(&self) -> u64 {
        self.shape.grain.saturating_mul(u64::from(self.shape.entries))
    }
}
