//! A bounded cache of decoded metadata, shared by many readers.
//!
//! A hit takes one shared lock for the time of a hash lookup. Nothing is loaded under the lock: two threads that miss the
//! same block load it twice, which is harmless because loaded blocks never change.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::BuildHasherDefault;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;

/// Blocks by number, thrown out by second chance when their weight passes the budget.
#[derive(Debug)]
pub(super) struct Cache<T> {
    budget: usize,
    /// Which blocks are held, and in which order they are looked at for eviction.
    state: RwLock<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    held: HashMap<u64, Held<T>, BuildHasherDefault<Mix>>,
    clock: VecDeque<u64>,
    weight: usize,
}

#[derive(Debug)]
struct Held<T> {
    block: Arc<T>,
    weight: usize,
    /// Looked up since the clock passed it.
    used: AtomicBool,
}

/// What an entry costs beside its content: hash slot, clock slot and allocation.
const OVERHEAD: usize = 96;

impl<T> Cache<T> {
    /// An empty cache that holds about `budget` bytes.
    pub(super) fn new(budget: usize) -> Self {
        let state = State { held: HashMap::default(), clock: VecDeque::new(), weight: 0 };
        Self { budget, state: RwLock::new(state) }
    }

    /// The block `number` if it is held.
    pub(super) fn find(&self, number: u64) -> Option<Arc<T>> {
        let state = self.state.read();
        let held = state.held.get(&number)?;
        if !held.used.load(Ordering::Relaxed) {
            held.used.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&held.block))
    }

    /// Keeps a block of `weight` bytes, in place of an earlier one with this number.
    pub(super) fn keep(&self, number: u64, block: Arc<T>, weight: usize) {
        let weight = weight.saturating_add(OVERHEAD);
        let mut state = self.state.write();
        state.make_room(self.budget.saturating_sub(weight));
        let held = Held { block, weight, used: AtomicBool::new(false) };
        match state.held.insert(number, held) {
            Some(old) => state.weight -= old.weight,
            None => state.clock.push_back(number),
        }
        state.weight += weight;
    }
}

impl<T> State<T> {
    /// Throws blocks out until they weigh at most `goal`; each is passed over at most once.
    fn make_room(&mut self, goal: usize) {
        while self.weight > goal {
            let Some(number) = self.clock.pop_front() else { return };
            let used = self.held.get_mut(&number).is_some_and(|held| std::mem::take(held.used.get_mut()));
            if used {
                self.clock.push_back(number);
            } else if let Some(old) = self.held.remove(&number) {
                self.weight -= old.weight;
            }
        }
    }
}

/// Spreads block numbers, which are dense and small, over the hash table.
#[derive(Debug, Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_stays_within_the_budget() {
        let cache = Cache::new(10 * (100 + OVERHEAD));
        for number in 0..1000 {
            cache.keep(number, Arc::new(number), 100);
            cache.keep(number, Arc::new(number), 100);
            let state = cache.state.read();
            assert!(state.weight <= cache.budget && state.held.len() == state.clock.len());
            assert_eq!(state.weight, state.held.len() * (100 + OVERHEAD));
        }
        assert_eq!(cache.find(999).as_deref(), Some(&999));
        assert_eq!(cache.find(0), None);
    }

    #[test]
    fn a_block_in_use_outlives_unused_ones() {
        let cache = Cache::new(4 * (1 + OVERHEAD));
        cache.keep(7, Arc::new(()), 1);
        for number in 100..200 {
            assert!(cache.find(7).is_some());
            cache.keep(number, Arc::new(()), 1);
        }
    }
}
