//! A few inflated grains, for reads that want only a part of one.
//!
//! The buffers are made once and change owner by swapping: a thread inflates into its own buffer without any lock, then
//! trades it for that of the slot it replaces. Slots are locked only for that trade and for copying out.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;

/// Slots that a grain can be in, if there are so many.
const WAYS: usize = 4;

/// A set-associative cache of whole grains.
pub(super) struct GrainCache {
    grain_bytes: usize,
    /// `sets * ways` slots; grain `g` is in one of the `ways` of set `g % sets`.
    slots: Box<[Slot]>,
    sets: u64,
    ways: usize,
    clock: AtomicU64,
}

#[derive(Default)]
struct Slot {
    /// When it was last used.
    used: AtomicU64,
    /// The grain and its bytes.
    held: RwLock<Held>,
}

#[derive(Default)]
struct Held {
    /// Number of the grain plus one; 0: empty.
    tag: u64,
    bytes: Vec<u8>,
}

impl GrainCache {
    /// A cache of at most `budget` bytes. A single grain is held even if it is larger: without it, small reads in sequence
    /// would inflate it again and again. A budget of 0 holds nothing.
    pub(super) fn new(grain_bytes: usize, budget: usize) -> Self {
        let grains = (budget / grain_bytes.max(1)).max(budget.min(1));
        let ways = grains.min(WAYS);
        let sets = grains.checked_div(ways).unwrap_or(0);
        let slots = (0..sets * ways).map(|_| Slot::default()).collect();
        Self { grain_bytes, slots, sets: sets as u64, ways, clock: AtomicU64::new(1) }
    }

    /// How many grains it holds when full.
    pub(super) fn grains(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Copies the bytes of `grain` from `start` on into `buf`, if it is held.
    pub(super) fn copy(&self, grain: u64, start: usize, buf: &mut [u8]) -> bool {
        let tag = grain.wrapping_add(1);
        for slot in self.set(grain) {
            let held = slot.held.read();
            if held.tag != tag {
                continue;
            }
            let Some(from) = start.checked_add(buf.len()).and_then(|end| held.bytes.get(start..end)) else {
                return false;
            };
            buf.copy_from_slice(from);
            slot.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
            return true;
        }
        false
    }

    /// True when `grain` is held.
    pub(super) fn holds(&self, grain: u64) -> bool {
        self.set(grain).iter().any(|slot| slot.held.read().tag == grain.wrapping_add(1))
    }

    /// Takes a whole inflated grain out of `bytes` and leaves another buffer there, of a grain's length or empty.
    pub(super) fn trade(&self, grain: u64, bytes: &mut Vec<u8>) {
        if bytes.len() != self.grain_bytes {
            return;
        }
        let set = self.set(grain);
        let tag = grain.wrapping_add(1);
        let same = set.iter().find(|slot| slot.held.read().tag == tag);
        let oldest = || set.iter().min_by_key(|slot| slot.used.load(Ordering::Relaxed));
        let Some(slot) = same.or_else(oldest) else { return };
        let mut held = slot.held.write();
        std::mem::swap(&mut held.bytes, bytes);
        held.tag = tag;
        slot.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The slots that `grain` can be in.
    fn set(&self, grain: u64) -> &[Slot] {
        let Some(set) = grain.checked_rem(self.sets) else { return &[] };
        let first = usize::try_from(set).unwrap_or(usize::MAX).saturating_mul(self.ways);
        self.slots.get(first..first.saturating_add(self.ways)).unwrap_or_default()
    }
}

impl fmt::Debug for GrainCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrainCache").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grains_come_back_until_others_need_the_room() {
        let cache = GrainCache::new(8, 8 * 8);
        assert_eq!(cache.sets, 2);
        for grain in 0..100u64 {
            let mut bytes = vec![grain as u8; 8];
            cache.trade(grain, &mut bytes);
            assert!(bytes.is_empty() || bytes.len() == 8);
            let mut out = [255; 3];
            assert!(cache.copy(grain, 5, &mut out) && out == [grain as u8; 3]);
        }
        assert_eq!(
            (0..100).filter(|&grain| cache.holds(grain)).collect::<Vec<_>>(),
            [92, 93, 94, 95, 96, 97, 98, 99]
        );
        assert!(!cache.copy(99, 6, &mut [0; 3]));
    }

    #[test]
    fn the_grain_used_last_is_kept() {
        let cache = GrainCache::new(1, 4);
        cache.trade(1000, &mut vec![1]);
        for grain in 0..50 {
            assert!(cache.copy(1000, 0, &mut [0]));
            cache.trade(grain, &mut vec![0]);
        }
    }

    #[test]
    fn small_budgets_hold_one_grain_and_none_holds_nothing() {
        for (budget, held) in [(0, false), (1, true), (1 << 20, true), (3 << 20, true)] {
            let cache = GrainCache::new(1 << 20, budget);
            cache.trade(7, &mut vec![0; 1 << 20]);
            assert_eq!(cache.holds(7), held, "{budget} bytes");
        }
    }
}
