//! Which parts of the file are used, so that nothing is used twice.

use std::ops::Range;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;

/// Sectors of a file that grains and tables lay claim to.
///
/// Grains of one file lie at multiples of the grain size from some start; those are kept as bits, made as needed. Grains
/// that are shifted against them, and metadata, are kept as ranges.
#[derive(Debug)]
pub(super) struct Claims {
    /// Sectors of a grain, a power of two, and which.
    grain: u64,
    shift: u32,
    /// Remainder of the first grain's sector; `None` before the first grain.
    phase: Option<u64>,
    chunks: Vec<Option<Box<[u64; WORDS]>>>,
    shifted: Vec<u32>,
    metadata: Vec<Range<u64>>,
}

const WORDS: usize = 1024;
const BITS: u64 = WORDS as u64 * 64;
/// Ranges kept of each kind: no writer makes that many.
const RANGES: usize = 1 << 20;

impl Claims {
    /// No claims yet, in a file with grains of `grain` sectors, a power of two.
    pub fn new(grain: u64) -> Self {
        Self {
            grain,
            shift: grain.trailing_zeros(),
            phase: None,
            chunks: Vec::new(),
            shifted: Vec::new(),
            metadata: Vec::new(),
        }
    }

    /// Claims the grain at `sector`; false if it is claimed already.
    pub fn grain(&mut self, sector: u32) -> Result<bool> {
        let sector64 = u64::from(sector);
        let remainder = sector64 & (self.grain - 1);
        if *self.phase.get_or_insert(remainder) != remainder {
            if self.shifted.len() >= RANGES {
                return Err(overfull());
            }
            self.shifted.push(sector);
            return Ok(true); // compared with the others at the end
        }
        let index = sector64 >> self.shift;
        let chunk = (index / BITS) as usize;
        if self.chunks.len() <= chunk {
            self.chunks.resize_with(chunk + 1, || None); // at most 2^13
        }
        let Some(chunk) = self.chunks.get_mut(chunk) else { return Ok(false) };
        let bits = chunk.get_or_insert_with(|| Box::new([0; WORDS]));
        let Some(word) = bits.get_mut((index % BITS / 64) as usize) else { return Ok(false) };
        let bit = 1u64 << (index % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        Ok(fresh)
    }

    /// Claims sectors for a header, descriptor, directory or table.
    pub fn metadata(&mut self, sectors: Range<u64>) -> Result<()> {
        if let Some(last) = self.metadata.last_mut()
            && last.end == sectors.start
        {
            last.end = sectors.end;
            return Ok(());
        }
        if self.metadata.len() >= RANGES {
            return Err(overfull());
        }
        self.metadata.push(sectors);
        Ok(())
    }

    /// True when any of these sectors is claimed for metadata. After [`Claims::sort_metadata`].
    pub fn is_metadata(&self, sectors: &Range<u64>) -> bool {
        let next = self.metadata.partition_point(|m| m.end <= sectors.start);
        self.metadata.get(next).is_some_and(|m| m.start < sectors.end)
    }

    /// Puts the metadata in order and joins what touches or overlaps; says how many sectors that is.
    pub fn sort_metadata(&mut self) -> u64 {
        self.metadata.sort_unstable_by_key(|range| range.start);
        let mut joined: Vec<Range<u64>> = Vec::with_capacity(self.metadata.len());
        for range in self.metadata.drain(..) {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        self.metadata = joined;
        self.metadata.iter().map(|range| range.end - range.start).sum()
    }

    /// True when a grain that is claimed reaches into these sectors. Puts the grains in order first.
    pub fn has_grain_in(&mut self, sectors: &Range<u64>) -> bool {
        self.shifted.sort_unstable();
        let next = self.shifted.partition_point(|&at| u64::from(at) + self.grain <= sectors.start);
        self.shifted.get(next).is_some_and(|&at| u64::from(at) < sectors.end)
            || self.grain_in(sectors).is_some()
    }

    /// True when the grain at `sector` is claimed.
    pub fn has_grain(&self, sector: u32) -> bool {
        let sector64 = u64::from(sector);
        match self.phase {
            Some(phase) if sector64 % self.grain == phase => self.has(sector64 / self.grain),
            _ => self.shifted.contains(&sector),
        }
    }

    /// The sector behind the last metadata.
    pub fn metadata_end(&self) -> u64 {
        self.metadata.iter().map(|range| range.end).max().unwrap_or(0)
    }

    /// A sector that is claimed twice, by whatever.
    pub fn conflict(&mut self) -> Option<u64> {
        self.metadata.sort_unstable_by_key(|range| range.start);
        self.shifted.sort_unstable();
        let doubled = self.metadata.windows(2).find_map(|pair| match pair {
            [a, b] if b.start < a.end => Some(b.start),
            _ => None,
        });
        let crowded = self.shifted.windows(2).find_map(|pair| match pair {
            [a, b] if u64::from(*b) < u64::from(*a) + self.grain => Some(u64::from(*b)),
            _ => None,
        });
        doubled
            .or(crowded)
            .or_else(|| self.metadata.iter().find_map(|range| self.grain_in(range)))
            .or_else(|| self.shifted.iter().find_map(|&at| self.conflict_of_shifted(u64::from(at))))
    }

    fn conflict_of_shifted(&self, at: u64) -> Option<u64> {
        let range = at..at + self.grain;
        if self.grain_in(&range).is_some() {
            return Some(at);
        }
        let next = self.metadata.partition_point(|m| m.end <= range.start);
        self.metadata.get(next).filter(|m| m.start < range.end).map(|_| at)
    }

    /// A grain among the bits that overlaps `range`.
    fn grain_in(&self, range: &Range<u64>) -> Option<u64> {
        let phase = self.phase?;
        let first = range.start.saturating_sub(phase) / self.grain;
        let last = range.end.checked_sub(1)?.checked_sub(phase)? / self.grain;
        let known = self.chunks.len() as u64 * BITS;
        (first..(last + 1).min(known)).find(|&index| self.has(index)).map(|index| index * self.grain + phase)
    }

    fn has(&self, index: u64) -> bool {
        let chunk = self.chunks.get((index / BITS) as usize).and_then(Option::as_ref);
        let word = chunk.and_then(|bits| bits.get((index % BITS / 64) as usize)).copied().unwrap_or(0);
        word >> (index % 64) & 1 != 0
    }
}

fn overfull() -> Error {
    Error::new(ErrorKind::NeedsRepair, "grains and tables are scattered in a way that no writer produces")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grain_claimed_twice_is_noticed() {
        let mut claims = Claims::new(128);
        assert!(
            claims.grain(128).unwrap() && claims.grain(256).unwrap() && claims.grain(u32::MAX - 127).unwrap()
        );
        assert!(!claims.grain(256).unwrap());
        assert_eq!(claims.conflict(), None);
    }

    #[test]
    fn grains_that_overlap_by_a_part_are_noticed() {
        for (at, clash) in [(300, true), (257, true), (383, true), (500, false), (129, true)] {
            let mut claims = Claims::new(128);
            claims.grain(256).unwrap();
            claims.grain(at).unwrap();
            assert_eq!(claims.conflict().is_some(), clash, "{at}");
        }
        let mut claims = Claims::new(128);
        for at in [0, 1000, 1127] {
            claims.grain(at).unwrap();
        }
        assert_eq!(claims.conflict(), Some(1127));
    }

    #[test]
    fn grains_over_metadata_are_noticed() {
        for (at, clash) in [(128, false), (256, true), (384, true), (512, false)] {
            let mut claims = Claims::new(128);
            claims.metadata(0..60).unwrap();
            claims.metadata(300..400).unwrap();
            claims.grain(at).unwrap();
            assert_eq!(claims.conflict().is_some(), clash, "{at}");
            claims.grain(1 << 20 | 1).unwrap();
            claims.grain(399).unwrap();
            assert!(claims.conflict().is_some());
        }
    }

    #[test]
    fn metadata_that_overlaps_is_noticed() {
        let mut claims = Claims::new(128);
        claims.metadata(0..1).unwrap();
        claims.metadata(20..24).unwrap();
        claims.metadata(24..28).unwrap();
        assert_eq!((claims.conflict(), claims.metadata_end()), (None, 28));
        claims.metadata(23..27).unwrap();
        assert_eq!(claims.conflict(), Some(23));
    }
}
