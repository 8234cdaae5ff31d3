//! The list of what is allocated, by one pass over the tables.
//!
//! Tables are read in large pieces, holes of the file are skipped, and nothing is kept. An entry that names an impossible
//! place counts as data: whoever reads it gets the error.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::error::Context;
use crate::error::Result;
use crate::format::Presence;
use crate::format::sparse::Sparse;
use crate::format::sparse::directory::Found;
use crate::format::sparse::header::ENTRIES;
use crate::format::sparse::header::TABLE_BYTES;
use crate::units::SECTOR;

/// Tables whose directory entries are looked at together.
const BATCH: u32 = 64 * 1024;
/// Bytes of tables read at once: large enough to make system calls rare, small enough for the processor's cache.
const PIECE: u64 = 256 * 1024;
/// Bytes looked at together.
const BLOCK: usize = 256;
/// A hole that is cheaper to read over than to go around: a device that has to be waited for reads on anyway.
const SMALL_HOLE: u64 = 64 * 1024;

/// Joins neighbours and passes them on, cut to the range asked for.
struct Joiner<'a> {
    sink: &'a mut dyn FnMut(Range<u64>, Presence),
    range: Range<u64>,
    grain_shift: u32,
    /// First grain that has not been passed on.
    start: u64,
    /// First grain that has not been seen.
    at: u64,
    presence: Presence,
}

impl Joiner<'_> {
    #[inline]
    fn add(&mut self, grains: u64, presence: Presence) {
        if presence != self.presence {
            self.pass_on();
            self.presence = presence;
        }
        self.at += grains;
    }

    fn pass_on(&mut self) {
        let start = (self.start << self.grain_shift).max(self.range.start);
        let end = (self.at << self.grain_shift).min(self.range.end);
        if start < end {
            (self.sink)(start..end, self.presence);
        }
        self.start = self.at;
    }
}

impl Sparse {
    pub(super) fn list(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>, Presence)) -> Result<()> {
        let range = range.start..range.end.min(self.header.capacity_bytes());
        if range.start >= range.end {
            return Ok(());
        }
        let table_shift = self.grain_shift + ENTRIES.trailing_zeros();
        let first = (range.start >> table_shift) as u32;
        let last = ((range.end - 1) >> table_shift) as u32;
        let start = u64::from(first) * ENTRIES as u64;
        let grain_shift = self.grain_shift;
        let presence = Presence::Unallocated;
        let mut out = Joiner { sink, range, grain_shift, start, at: start, presence };
        let unpublished = self.unpublished_tables();
        let mut buffer = Vec::new();
        let mut found = Vec::new();
        let mut table = first;
        while table <= last {
            let end = last.saturating_add(1).min(table.saturating_add(BATCH));
            self.directory.find_many(&self.body, table..end, &mut found)?;
            self.list_batch(table, &found, &unpublished, &mut buffer, &mut out)?;
            table = end;
        }
        out.pass_on();
        Ok(())
    }

    fn list_batch(
        &self,
        first: u32,
        found: &[Found],
        unpublished: &BTreeSet<u32>,
        buffer: &mut Vec<u8>,
        out: &mut Joiner<'_>,
    ) -> Result<()> {
        let mut rest = found;
        let mut table = first;
        while let Some(&place) = rest.first() {
            let expected = |i: usize| match place {
                Found::At(sector) => {
                    sector.checked_add(i as u32 * (TABLE_BYTES / SECTOR) as u32).map(Found::At)
                }
                other => Some(other),
            };
            let alone = unpublished.contains(&table);
            let count = if alone {
                1
            } else {
                let stop = unpublished.range(table..).next().map_or(usize::MAX, |&t| (t - table) as usize);
                rest.iter()
                    .enumerate()
                    .take(stop)
                    .take_while(|&(i, &f)| Some(f) == expected(i))
                    .count()
                    .max(1)
            };
            let grains = count as u64 * ENTRIES as u64;
            match place {
                // Entries that the file does not have yet.
                _ if alone => {
                    let entries = self.fetch(table, false)?;
                    entries.iter().for_each(|&entry| out.add(1, self.presence(entry)));
                }
                Found::Nowhere => out.add(grains, Presence::Unallocated),
                Found::Damaged(_) => out.add(grains, Presence::Data),
                Found::At(sector) => {
                    self.list_tables(u64::from(sector) * SECTOR, count as u64, buffer, out)?;
                }
            }
            rest = rest.get(count..).unwrap_or_default();
            table += count as u32;
        }
        Ok(())
    }

    /// Lists `count` tables that lie one behind the other at byte `at`.
    fn list_tables(&self, at: u64, count: u64, buffer: &mut Vec<u8>, out: &mut Joiner<'_>) -> Result<()> {
        let end = at + count * TABLE_BYTES;
        let mut parts: Vec<Range<u64>> = Vec::new();
        self.body.storage.allocated(at..end, &mut |part| match parts.last_mut() {
            Some(last) if part.start - last.end < SMALL_HOLE => last.end = part.end,
            _ => parts.push(part),
        })?;
        let mut done = at;
        for part in parts {
            // Whole entries only; a hole that ends inside an entry is read as if it ended before.
            let start = at + (part.start.saturating_sub(at) & !(BLOCK as u64 - 1));
            let stop = (at + (part.end.saturating_sub(at).next_multiple_of(BLOCK as u64))).min(end);
            let start = start.max(done);
            out.add(start.saturating_sub(done) / 4, Presence::Unallocated);
            let mut piece = start;
            while piece < stop {
                let len = (stop - piece).min(PIECE);
                if (buffer.len() as u64) < len {
                    buffer.resize(len as usize, 0);
                }
                let bytes = buffer.get_mut(..len as usize).unwrap_or_default();
                self.body
                    .storage
                    .read_at(bytes, piece)
                    .context(|| format!("grain tables of {}", self.body.name))?;
                self.list_bytes(bytes, out);
                piece += len;
            }
            done = done.max(stop);
        }
        out.add(end.saturating_sub(done) / 4, Presence::Unallocated);
        Ok(())
    }

    fn list_bytes(&self, bytes: &[u8], out: &mut Joiner<'_>) {
        let zero_grains = self.header.has_zero_grains();
        for block in bytes.chunks(BLOCK) {
            let words = block.as_chunks::<4>().0;
            if zero_grains {
                words.iter().for_each(|&word| out.add(1, self.presence(u32::from_le_bytes(word))));
                continue;
            }
            list_mask(data_mask(words), words.len() as u32, out);
        }
    }

    fn presence(&self, entry: u32) -> Presence {
        match entry {
            0 => Presence::Unallocated,
            1 if self.header.has_zero_grains() => Presence::Zero,
            _ => Presence::Data,
        }
    }
}

/// A set bit for each of up to 64 entries that is not zero.
#[inline]
fn data_mask(words: &[[u8; 4]]) -> u64 {
    // First a byte for each entry, which the compiler does many at a time; then eight bytes of 0 or 1 become eight bits:
    // the product moves byte k to bit 56 + k.
    let mut flags = [0u8; BLOCK / 4];
    for (flag, &word) in flags.iter_mut().zip(words) {
        *flag = u8::from(u32::from_le_bytes(word) != 0);
    }
    let mut mask = 0;
    for (eight, shift) in flags.as_chunks::<8>().0.iter().zip((0u32..).step_by(8)) {
        mask |= (u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56) << shift;
    }
    mask
}

/// Up to 64 grains, a set bit for each that has data.
#[inline]
fn list_mask(mut mask: u64, mut count: u32, out: &mut Joiner<'_>) {
    while count > 0 {
        let (presence, run) = if mask & 1 == 0 {
            (Presence::Unallocated, mask.trailing_zeros().min(count))
        } else {
            (Presence::Data, mask.trailing_ones().min(count))
        };
        out.add(u64::from(run), presence);
        mask = mask.checked_shr(run).unwrap_or(0);
        count -= run;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_has_a_bit_for_each_entry_with_data() {
        let mut seed = 1u64;
        for len in [0, 1, 7, 8, 63, 64] {
            for _ in 0..200 {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let words: Vec<[u8; 4]> = (0..len)
                    .map(|i| ((seed >> (i % 61) & 1) << (i % 32)) as u32)
                    .map(u32::to_le_bytes)
                    .collect();
                let mask = words.iter().enumerate().fold(0, |m, (i, w)| m | u64::from(*w != [0; 4]) << i);
                assert_eq!(data_mask(&words), mask);
            }
        }
    }
}
