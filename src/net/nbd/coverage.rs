//! Which bytes of a read have arrived: each must come exactly once.

use std::ops::Range;

/// More islands than this have no honest reason.
const MOST_ISLANDS: usize = 4096;

/// Parts of `0..len` that arrived. Costs nothing while they come in order.
#[derive(Debug, Default)]
pub struct Coverage {
    /// Everything before this arrived.
    prefix: u64,
    /// What arrived beyond it: ascending, neither touching each other nor the prefix.
    islands: Vec<Range<u64>>,
}

impl Coverage {
    /// Notes a part that is not empty. `false`: some of it was there already, or the parts are absurdly scattered.
    #[must_use]
    pub fn add(&mut self, part: Range<u64>) -> bool {
        if part.start < self.prefix {
            return false;
        }
        let at = self.islands.partition_point(|island| island.end <= part.start);
        if self.islands.get(at).is_some_and(|next| next.start < part.end) {
            return false;
        }
        if part.start == self.prefix {
            self.prefix = part.end;
            while self.islands.first().is_some_and(|island| island.start == self.prefix) {
                self.prefix = self.islands.remove(0).end;
            }
            return true;
        }
        self.insert(at, part)
    }

    /// True when nothing arrived.
    pub fn is_empty(&self) -> bool {
        self.prefix == 0 && self.islands.is_empty()
    }

    /// True when `0..len` arrived.
    pub fn is_whole(&self, len: u64) -> bool {
        self.prefix >= len
    }

    fn insert(&mut self, at: usize, part: Range<u64>) -> bool {
        if let Some(before) = at.checked_sub(1).and_then(|i| self.islands.get_mut(i))
            && before.end == part.start
        {
            before.end = part.end;
            let end = part.end;
            if self.islands.get(at).is_some_and(|next| next.start == end) {
                let next = self.islands.remove(at);
                if let Some(before) = self.islands.get_mut(at - 1) {
                    before.end = next.end;
                }
            }
            return true;
        }
        if let Some(next) = self.islands.get_mut(at)
            && next.start == part.end
        {
            next.start = part.start;
            return true;
        }
        if self.islands.len() >= MOST_ISLANDS {
            return false;
        }
        self.islands.insert(at, part);
        true
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
            assert!(seen.add(part));
        }
        assert!(seen.is_whole(16));
        assert!(seen.islands.is_empty());
    }

    #[test]
    fn a_byte_that_comes_twice_is_refused() {
        for again in [0..1, 3..5, 9..10, 7..9, 11..13, 0..16, 5..9] {
            let mut seen = Coverage::default();
            assert!(seen.add(0..4) && seen.add(8..12));
            assert!(!seen.add(again.clone()), "{again:?}");
        }
    }

    #[test]
    fn scattered_parts_are_bounded() {
        let mut seen = Coverage::default();
        let taken = (1..100_000_u64).take_while(|i| seen.add(i * 2..i * 2 + 1)).count();
        assert_eq!(taken, MOST_ISLANDS);
    }
}
