//! Which bytes of a read have arrived: each must come exactly once.

use std::collections::BTreeMap;
use std::ops::Range;

/// More islands than this have no honest reason: a read of 256 KiB in blocks of 512 bytes, every other one missing, has 256.
const MOST_ISLANDS: usize = 1024;

/// Parts of `0..len` that arrived. Costs nothing while they come in order, and little in any other.
#[derive(Debug, Default)]
pub struct Coverage {
    /// Everything before this arrived.
    prefix: u64,
    /// What arrived beyond it, ends by starts: neither touching each other nor the prefix.
    islands: BTreeMap<u64, u64>,
}

impl Coverage {
    /// Notes a part that is not empty, or says what is wrong with it.
    pub fn add(&mut self, part: Range<u64>) -> Result<(), &'static str> {
        if part.start < self.prefix || self.overlaps(&part) {
            return Err("came twice");
        }
        let end = self.islands.remove(&part.end).unwrap_or(part.end);
        if part.start == self.prefix {
            self.prefix = end;
        } else if let Some((_, before)) = self.islands.range_mut(..part.start).next_back()
            && *before == part.start
        {
            *before = end;
        } else if self.islands.len() < MOST_ISLANDS {
            self.islands.insert(part.start, end);
        } else {
            return Err("came far from all others, as too many did");
        }
        Ok(())
    }

    /// True when `0..len` arrived.
    pub fn is_whole(&self, len: u64) -> bool {
        self.prefix >= len
    }

    /// Islands do not overlap each other: the last one that begins before the end of the part ends last.
    fn overlaps(&self, part: &Range<u64>) -> bool {
        self.islands.range(..part.end).next_back().is_some_and(|(_, end)| *end > part.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_in_any_order_make_a_whole() {
        let mut seen = Coverage::default();
        for part in [8..12, 0..4, 14..16, 12..14, 4..8] {
            assert!(!seen.is_whole(16));
            seen.add(part).unwrap();
        }
        assert!(seen.is_whole(16));
        assert!(seen.islands.is_empty());
    }

    #[test]
    fn neighbours_are_one_island() {
        let mut seen = Coverage::default();
        for part in [8..9, 6..7, 7..8, 20..21, 21..22, 5..6] {
            seen.add(part).unwrap();
        }
        assert_eq!(seen.islands, BTreeMap::from([(5, 9), (20, 22)]));
    }

    #[test]
    fn a_byte_that_comes_twice_is_refused() {
        for again in [0..1, 3..5, 9..10, 7..9, 11..13, 0..16, 5..9, 4..16, 8..12] {
            let mut seen = Coverage::default();
            seen.add(0..4).unwrap();
            seen.add(8..12).unwrap();
            assert_eq!(seen.add(again.clone()), Err("came twice"), "{again:?}");
        }
    }

    #[test]
    fn scattered_parts_are_bounded() {
        let mut seen = Coverage::default();
        let taken = (1..100_000_u64).take_while(|i| seen.add(i * 2..i * 2 + 1).is_ok()).count();
        assert_eq!(taken, MOST_ISLANDS);
        seen.add(3..4).unwrap(); // what joins islands is welcome
        assert_eq!(seen.islands.len(), MOST_ISLANDS - 1);
    }

    #[test]
    fn bytes_in_order_are_no_islands() {
        let mut seen = Coverage::default();
        (0..100_000).for_each(|i| seen.add(i..i + 1).unwrap());
        assert!(seen.is_whole(100_000) && seen.islands.is_empty());
    }
}
