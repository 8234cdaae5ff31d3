//! Sets of areas of a disk, in units of 64 KiB as change maps have them (O, `vsphere.md` 5.6).

use std::collections::BTreeMap;
use std::ops::Range;

/// The unit of change maps.
pub const UNIT: u64 = 64 * 1024;

/// Disjoint areas that do not touch each other, in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Areas(BTreeMap<u64, u64>);

impl Areas {
    /// Adds all units that `range` touches.
    pub fn add(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        let mut start = range.start - range.start % UNIT;
        let mut end = range.end.checked_next_multiple_of(UNIT).unwrap_or(u64::MAX);
        if let Some((&before, &its_end)) = self.0.range(..=start).next_back()
            && its_end >= start
        {
            (start, end) = (before, end.max(its_end));
        }
        while let Some((&next, &its_end)) = self.0.range(start..=end).next() {
            end = end.max(its_end);
            self.0.remove(&next);
        }
        self.0.insert(start, end);
    }

    /// Adds all of another set.
    pub fn unite(&mut self, other: &Areas) {
        other.0.iter().for_each(|(&start, &end)| self.add(start..end));
    }

    /// The areas, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(&start, &end)| start..end)
    }

    /// What one answer holds: at most `most` areas of `from..capacity`, and where the next question goes on; that is
    /// `capacity` when there is nothing more.
    pub fn slice(&self, from: u64, capacity: u64, most: usize) -> (Vec<Range<u64>>, u64) {
        let mut found = Vec::new();
        for area in self.iter() {
            let area = area.start.max(from)..area.end.min(capacity);
            if area.start >= area.end {
                continue;
            }
            if found.len() == most {
                // What lies between is known to be unchanged, so the next answer starts at its first area.
                return (found, area.start);
            }
            found.push(area);
        }
        (found, capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same by units in a vector.
    fn model(ranges: &[Range<u64>], units: usize) -> Vec<bool> {
        let mut set = vec![false; units];
        for range in ranges.iter().filter(|range| range.start < range.end) {
            let last = (range.end - 1) / UNIT;
            (range.start / UNIT..=last).for_each(|unit| set[unit as usize] = true);
        }
        set
    }

    #[test]
    fn random_areas_are_those_of_the_model() {
        let mut seed = 7u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..200 {
            let ranges: Vec<Range<u64>> = (0..random(60))
                .map(|_| {
                    let start = random(100 * UNIT);
                    start..start + random(5 * UNIT)
                })
                .collect();
            let mut areas = Areas::default();
            ranges.iter().for_each(|range| areas.add(range.clone()));
            let mut seen = vec![false; 110];
            let mut last_end = None;
            for area in areas.iter() {
                assert!(last_end.is_none_or(|end| end < area.start), "areas touch: {areas:?}");
                last_end = Some(area.end);
                (area.start / UNIT..area.end / UNIT).for_each(|unit| seen[unit as usize] = true);
            }
            assert_eq!(seen, model(&ranges, 110));
        }
    }

    #[test]
    fn slices_cover_everything_and_hold_no_more_than_asked() {
        let mut areas = Areas::default();
        (0..50).for_each(|i| areas.add(i * 3 * UNIT..i * 3 * UNIT + 1));
        let capacity = 200 * UNIT;
        let (mut from, mut all, mut answers) = (0, Vec::new(), 0);
        while from < capacity {
            let (part, next) = areas.slice(from, capacity, 7);
            assert!(part.len() <= 7 && next > from);
            all.extend(part);
            (from, answers) = (next, answers + 1);
        }
        assert_eq!((all.len(), answers), (50, 8));
        let (cut, end) = areas.slice(UNIT / 2, UNIT, 7);
        assert_eq!((cut.first(), cut.len(), end), (Some(&(UNIT / 2..UNIT)), 1, UNIT));
    }
}
