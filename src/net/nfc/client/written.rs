//! What this client wrote: a host may call it not allocated until the disk is opened again.

use std::collections::BTreeMap;
use std::ops::Range;

use parking_lot::Mutex;

/// Bytes that are remembered as one.
const GRAIN: u64 = 64 << 10;
/// Bytes that one row of bits is for.
const ROW: u64 = GRAIN * 64 * WORDS as u64;
const WORDS: usize = 64;

/// Parts of a disk, as bits: a disk that is written everywhere takes 16 bytes per 8 MiB.
#[derive(Debug, Default)]
pub struct Written {
    rows: Mutex<BTreeMap<u64, Box<[u64; WORDS]>>>,
}

impl Written {
    /// A range is about to be written.
    pub fn mark(&self, range: &Range<u64>) {
        let mut rows = self.rows.lock();
        let mut at = range.start - range.start % GRAIN;
        while at < range.end {
            let row = rows.entry(at / ROW).or_insert_with(|| Box::new([0; WORDS]));
            let grain = at % ROW / GRAIN;
            if let Some(word) = usize::try_from(grain / 64).ok().and_then(|i| row.get_mut(i)) {
                *word |= 1 << (grain % 64);
            }
            at += GRAIN;
        }
    }

    /// The parts of a range that were written, in order, widened to whole grains and cut at the range's ends.
    pub fn in_range(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let rows = self.rows.lock();
        let mut found: Vec<Range<u64>> = Vec::new();
        let last = range.end.div_ceil(ROW);
        for (row, words) in rows.range(range.start / ROW..last.max(range.start / ROW)) {
            for (word, bits) in (0_u64..).zip(words.iter()).filter(|(_, bits)| **bits != 0) {
                for bit in (0..64).filter(|bit| bits >> bit & 1 == 1) {
                    let start = row * ROW + (word * 64 + bit) * GRAIN;
                    let part = start.max(range.start)..(start + GRAIN).min(range.end);
                    match found.last_mut() {
                        _ if part.is_empty() => {}
                        Some(last) if last.end == part.start => last.end = part.end,
                        _ => found.push(part),
                    }
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "it is a list of ranges")]
    fn what_was_written_is_found_in_whole_grains() {
        let written = Written::default();
        written.mark(&(GRAIN - 1..GRAIN + 1));
        written.mark(&(2 * GRAIN..3 * GRAIN));
        written.mark(&(5 * ROW + 7..5 * ROW + 8));
        let all = written.in_range(&(0..1 << 50));
        assert_eq!(all, [0..3 * GRAIN, 5 * ROW..5 * ROW + GRAIN]);
        assert_eq!(written.in_range(&(10..GRAIN + 10)), [10..GRAIN + 10]);
        assert!(written.in_range(&(3 * GRAIN..5 * ROW)).is_empty());
        assert!(written.in_range(&(7..7)).is_empty());
    }
}
