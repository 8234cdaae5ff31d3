//! The places where grains can be, while they are moved: a bit for each.

use std::ops::Range;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;

/// Places for grains, one behind the other from a first sector on.
#[derive(Debug)]
pub(super) struct Slots {
    first: u64,
    grain: u64,
    /// A grain that can be moved is here.
    used: Vec<u64>,
    /// Something that stays where it is reaches into this place.
    blocked: Vec<u64>,
    count: u64,
    /// Where the last thing that stays ends, in sectors.
    fixed_end: u64,
}

/// Entries are sector numbers of 32 bits.
const FILE_SECTORS: u64 = 1 << 32;

impl Slots {
    /// Empty slots of `grain` sectors from `first` on, in a file of `sectors`.
    pub fn new(first: u64, grain: u64, sectors: u64) -> Result<Self> {
        if first >= FILE_SECTORS || sectors > FILE_SECTORS {
            let text = format!("a sparse file of {sectors} sectors whose grains begin at {first}");
            return Err(Error::new(ErrorKind::FileTooBig, text));
        }
        let words = (sectors.saturating_sub(first).div_ceil(grain)).div_ceil(64) as usize; // at most 64 MiB
        let (used, blocked) = (vec![0; words], vec![0; words]);
        Ok(Self { first, grain, used, blocked, count: 0, fixed_end: first })
    }

    /// Notes something that stays where it is.
    pub fn block(&mut self, sectors: &Range<u64>) {
        if sectors.end <= self.first || sectors.is_empty() {
            return;
        }
        self.fixed_end = self.fixed_end.max(sectors.end);
        let from = sectors.start.saturating_sub(self.first) / self.grain;
        let to = (sectors.end - self.first).div_ceil(self.grain);
        (from..to).for_each(|slot| set(&mut self.blocked, slot, true));
    }

    /// Notes a grain at `sector` that takes up `sectors`. One that is between two slots stays where it is.
    pub fn take(&mut self, sector: u64, sectors: &Range<u64>) {
        match self.slot(sector) {
            Some(slot) => self.fill(slot),
            None => self.block(sectors),
        }
    }

    /// The slot that starts at a sector.
    pub fn slot(&self, sector: u64) -> Option<u64> {
        let from_first = sector.checked_sub(self.first)?;
        (from_first % self.grain == 0).then_some(from_first / self.grain)
    }

    /// The sector where a slot starts.
    pub fn sector(&self, slot: u64) -> u64 {
        self.first + slot * self.grain
    }

    /// True when a slot can be given to a grain.
    pub fn is_free(&self, slot: u64) -> bool {
        !get(&self.used, slot) && !get(&self.blocked, slot)
    }

    /// True when no grain may ever be put into a slot.
    pub fn is_blocked(&self, slot: u64) -> bool {
        get(&self.blocked, slot)
    }

    /// Notes that a grain is in a slot.
    pub fn fill(&mut self, slot: u64) {
        if !get(&self.used, slot) {
            set(&mut self.used, slot, true);
            self.count += 1;
        }
    }

    /// Notes that no grain is in a slot any more.
    pub fn clear(&mut self, slot: u64) {
        if get(&self.used, slot) {
            set(&mut self.used, slot, false);
            self.count -= 1;
        }
    }

    /// The slot behind those that are needed for all grains: the first ones that nothing else reaches into.
    pub fn boundary(&self) -> u64 {
        let mut left = self.count;
        let mut slot = 0;
        while left > 0 {
            left -= u64::from(!self.is_blocked(slot));
            slot += 1;
        }
        slot
    }

    /// The first free slot from `from` on and below `end`.
    pub fn next_free(&self, from: u64, end: u64) -> Option<u64> {
        (from..end).find(|&slot| self.is_free(slot))
    }

    /// Slots that the file has, used or not.
    pub fn len(&self) -> u64 {
        self.used.len() as u64 * 64
    }

    /// The sector behind everything when grains fill the slots below `boundary`.
    pub fn end(&self, boundary: u64) -> u64 {
        self.sector(boundary).max(self.fixed_end)
    }
}

fn get(bits: &[u64], slot: u64) -> bool {
    bits.get((slot / 64) as usize).is_some_and(|word| word >> (slot % 64) & 1 != 0)
}

fn set(bits: &mut Vec<u64>, slot: u64, value: bool) {
    let index = (slot / 64) as usize;
    if bits.len() <= index {
        bits.resize(index + 1, 0);
    }
    if let Some(word) = bits.get_mut(index) {
        let bit = 1 << (slot % 64);
        *word = if value { *word | bit } else { *word & !bit };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_leaves_out_what_stays() {
        let mut slots = Slots::new(128, 128, 128 * 10).unwrap();
        slots.block(&(0..20));
        slots.block(&(300..310)); // inside slot 1
        for sector in [128, 128 * 5, 128 * 9] {
            slots.take(sector, &(sector..sector + 128));
        }
        assert_eq!((slots.boundary(), slots.end(slots.boundary())), (4, 128 * 5));
        assert_eq!(slots.next_free(0, 10), Some(2));
        slots.take(128 * 3 + 1, &(128 * 3 + 1..128 * 4 + 1)); // reaches into slots 2 and 3
        assert_eq!(slots.next_free(0, 10), Some(5));
        slots.clear(0);
        assert_eq!((slots.next_free(0, 10), slots.boundary()), (Some(0), 5));
    }
}
