//! The grain tables in memory: a bounded cache that readers use without locks.
//!
//! ```text
//!   slots[table % n]  one word: table number, kind, value
//!        ├─ Empty               nothing allocated in the whole table
//!        ├─ Linear(sector)      grain i stands at sector + i * grain: a table written in sequence
//!        └─ Frame(number) ──▶   frames[number]: 512 entries
//! ```
//!
//! Most tables of most disks are empty or linear and need no more than their slot. A frame may be given to another table
//! at any moment; its sequence number tells a reader that this happened (odd: being filled; changed: refilled), and the
//! reader asks again. Changes of slots and frames happen under `state`; an entry of a pinned frame may be changed without.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::format::sparse::body::Entries;
use crate::format::sparse::frame::Frame;
use crate::format::sparse::frame::NO_TABLE;
use crate::format::sparse::frame::Seen;
use crate::format::sparse::header::ENTRIES;

#[derive(Debug)]
pub(super) struct Tables {
    slots: Box<[OnceLock<Box<[AtomicU64]>>]>,
    slot_mask: u32,
    frames: Box<[OnceLock<Box<[Frame]>>]>,
    limit: u32,
    /// Sectors of a grain.
    grain: u32,
    /// Number of grains of the whole extent.
    grains: u64,
    state: Mutex<State>,
}

/// What only one thread at a time may touch.
#[derive(Debug)]
struct State {
    /// How often each frame that exists is pinned.
    pins: Vec<u32>,
    /// Frames that hold no table.
    free: Vec<u32>,
    hand: u32,
    /// Counts tables that fell out of the cache, by table number.
    drops: Drops,
}

/// A snapshot of how many tables fell out of the cache.
pub(super) type Drops = [u32; 64];

/// What the cache knows of a table.
pub(super) enum View<'a> {
    Unknown,
    Empty,
    Linear(u32),
    Frame(Seen<'a>),
}

/// Whether a table could be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pin {
    /// In this frame, until it is unpinned.
    Held(u32),
    /// The table is not in the cache.
    Absent,
    /// Every frame that could be used is pinned.
    Full,
}

const SLOT_CHUNK: u32 = 1024;
const MAX_SLOTS: u32 = 1 << 17;
const FRAME_CHUNK: u32 = 8;
const MIN_FRAMES: u32 = 8;
const MAX_FRAMES: u32 = 1 << 20;

// A slot word: kind in bits 0-1, table number in bits 2-29, value in bits 30-61.
const EMPTY: u64 = 1;
const LINEAR: u64 = 2;
const FRAME: u64 = 3;

fn word(kind: u64, table: u32, value: u32) -> u64 {
    kind | u64::from(table) << 2 | u64::from(value) << 30
}

fn table_of(word: u64) -> u32 {
    (word >> 2) as u32 & 0x0fff_ffff
}

fn value_of(word: u64) -> u32 {
    (word >> 30) as u32
}

impl Tables {
    pub fn new(tables: u32, grains: u64, grain: u32, cache_bytes: usize) -> Self {
        let slots = tables.next_power_of_two().min(MAX_SLOTS);
        let wanted = u32::try_from(cache_bytes / size_of::<Frame>()).unwrap_or(MAX_FRAMES);
        let limit = wanted.clamp(MIN_FRAMES, MAX_FRAMES);
        let cells = |count: u32, chunk: u32| count.div_ceil(chunk) as usize;
        Self {
            slots: (0..cells(slots, SLOT_CHUNK)).map(|_| OnceLock::new()).collect(),
            slot_mask: slots - 1,
            frames: (0..cells(limit, FRAME_CHUNK)).map(|_| OnceLock::new()).collect(),
            limit,
            grain,
            grains,
            state: Mutex::new(State { pins: Vec::new(), free: Vec::new(), hand: 0, drops: [0; 64] }),
        }
    }

    /// How many frames there can be.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// What is known of a table. Takes no lock.
    #[inline]
    pub fn view(&self, table: u32) -> View<'_> {
        let word = match self.slot(table) {
            Some(slot) => slot.load(Ordering::Acquire),
            None => return View::Unknown,
        };
        if table_of(word) != table {
            return View::Unknown;
        }
        match word & 3 {
            EMPTY => View::Empty,
            LINEAR => View::Linear(value_of(word)),
            FRAME => self.frame(value_of(word)).and_then(|f| f.see(table)).map_or(View::Unknown, View::Frame),
            _ => View::Unknown,
        }
    }

    /// A snapshot to be taken before a table is read from the file and given to [`Tables::offer`].
    pub fn drops(&self) -> Drops {
        self.state.lock().drops
    }

    /// A copy of a table's entries, if it is in the cache.
    pub fn copy(&self, table: u32) -> Option<Box<Entries>> {
        let _state = self.state.lock();
        let word = self.known(table)?;
        let mut entries = Box::new([0; ENTRIES]);
        self.expand(word, table, &mut entries);
        Some(entries)
    }

    /// Keeps a table that was read from the file after the snapshot `before` was taken. A table that is in the cache
    /// already, or that may have changed in the file since, is not kept.
    pub fn offer(&self, table: u32, entries: &Entries, before: &Drops) {
        let state = &mut *self.state.lock();
        if bucket(&state.drops, table) != bucket(before, table) || self.known(table).is_some() {
            return;
        }
        let compact = self.compact(table, entries);
        if self.vacate(state, table) {
            let word = match compact {
                Some(word) => word,
                None => match self.take_frame(state) {
                    Some(number) => self.fill(number, table, entries),
                    None => return,
                },
            };
            self.store(table, word);
        }
    }

    /// Makes sure that a table of the cache has a frame and keeps it until [`Tables::unpin`].
    pub fn pin(&self, table: u32) -> Pin {
        let state = &mut *self.state.lock();
        let Some(word) = self.known(table) else {
            // What stands in the way stays there while it is pinned.
            return if self.vacate(state, table) { Pin::Absent } else { Pin::Full };
        };
        let number = if word & 3 == FRAME {
            value_of(word)
        } else {
            let Some(number) = self.take_frame(state) else { return Pin::Full };
            let mut entries = [0; ENTRIES];
            self.expand(word, table, &mut entries);
            let word = self.fill(number, table, &entries);
            self.store(table, word);
            number
        };
        if let Some(pins) = state.pins.get_mut(number as usize) {
            *pins += 1;
        }
        Pin::Held(number)
    }

    /// Ends a [`Tables::pin`].
    pub fn unpin(&self, number: u32) {
        if let Some(pins) = self.state.lock().pins.get_mut(number as usize) {
            *pins = pins.saturating_sub(1);
        }
    }

    /// Forgets every table that is not pinned. Nobody may be reading.
    pub fn forget(&self) {
        let state = &mut *self.state.lock();
        let pinned = |number: u32| state.pins.get(number as usize).is_some_and(|&pins| pins > 0);
        for slot in self.slots.iter().filter_map(OnceLock::get).flatten() {
            let word = slot.load(Ordering::Acquire);
            if word & 3 != FRAME || !pinned(value_of(word)) {
                slot.store(0, Ordering::Release);
            }
        }
        let unused: Vec<u32> = (0..state.pins.len() as u32).filter(|&number| !pinned(number)).collect();
        for &number in &unused {
            self.fill(number, NO_TABLE, &[0; ENTRIES]);
        }
        state.free = unused;
        state.drops.iter_mut().for_each(|count| *count = count.wrapping_add(1));
    }

    /// An entry of a pinned frame.
    pub fn entry(&self, number: u32, index: usize) -> u32 {
        self.frame(number).map_or(0, |frame| frame.entry(index))
    }

    /// Changes an entry of a pinned frame; readers see it at once.
    pub fn set_entry(&self, number: u32, index: usize, value: u32) {
        if let Some(frame) = self.frame(number) {
            frame.set(index, value);
        }
    }

    #[inline]
    fn slot(&self, table: u32) -> Option<&AtomicU64> {
        let index = table & self.slot_mask;
        let chunk = self.slots.get((index / SLOT_CHUNK) as usize)?.get()?;
        chunk.get((index % SLOT_CHUNK) as usize)
    }

    #[inline]
    fn frame(&self, number: u32) -> Option<&Frame> {
        self.frames.get((number / FRAME_CHUNK) as usize)?.get()?.get((number % FRAME_CHUNK) as usize)
    }

    /// The slot word of a table that is in the cache. `state` is held.
    fn known(&self, table: u32) -> Option<u64> {
        let word = self.slot(table)?.load(Ordering::Acquire);
        (word & 3 != 0 && table_of(word) == table).then_some(word)
    }

    /// Sets the slot of a table, making the chunk it belongs to. `state` is held.
    fn store(&self, table: u32, word: u64) {
        let index = table & self.slot_mask;
        if let Some(chunk) = self.slots.get((index / SLOT_CHUNK) as usize) {
            let count = (self.slot_mask + 1).min(SLOT_CHUNK);
            let chunk = chunk.get_or_init(|| (0..count).map(|_| AtomicU64::new(0)).collect());
            if let Some(slot) = chunk.get((index % SLOT_CHUNK) as usize) {
                slot.store(word, Ordering::Release);
            }
        }
    }

    /// Frees a table's slot from another table that shares it; false if that one is pinned.
    fn vacate(&self, state: &mut State, table: u32) -> bool {
        let word = self.slot(table).map_or(0, |slot| slot.load(Ordering::Acquire));
        let other = table_of(word);
        if word & 3 == 0 || other == table {
            return true;
        }
        if word & 3 == FRAME {
            let number = value_of(word);
            if state.pins.get(number as usize).is_none_or(|&pins| pins > 0) {
                return false;
            }
            self.fill(number, NO_TABLE, &[0; ENTRIES]);
            state.free.push(number);
        }
        self.store(table, 0);
        state.dropped(other);
        true
    }

    /// A frame that holds no table, taken from another one if need be; `None` if all are pinned.
    fn take_frame(&self, state: &mut State) -> Option<u32> {
        if let Some(number) = state.free.pop() {
            return Some(number);
        }
        let born = state.pins.len() as u32;
        if born < self.limit {
            let count = FRAME_CHUNK as usize;
            self.frames
                .get((born / FRAME_CHUNK) as usize)?
                .get_or_init(|| (0..count).map(|_| Frame::new()).collect());
            state.pins.push(0);
            return Some(born);
        }
        for _ in 0..2 * self.limit {
            let number = state.hand;
            state.hand = (state.hand + 1) % self.limit;
            let frame = self.frame(number)?;
            if state.pins.get(number as usize).is_some_and(|&pins| pins == 0) && !frame.was_used() {
                self.evict(state, frame);
                return Some(number);
            }
        }
        None
    }

    /// Takes a frame from its table, which stays known if it has become empty or linear.
    fn evict(&self, state: &mut State, frame: &Frame) {
        let table = frame.table();
        let mut entries = [0; ENTRIES];
        frame.copy(&mut entries);
        match self.compact(table, &entries) {
            Some(word) => self.store(table, word),
            None => {
                self.store(table, 0);
                state.dropped(table);
            }
        }
    }

    /// Fills a frame; the slot word that leads to it.
    fn fill(&self, number: u32, table: u32, entries: &Entries) -> u64 {
        if let Some(frame) = self.frame(number) {
            frame.fill(table, entries);
        }
        word(FRAME, table & 0x0fff_ffff, number)
    }

    /// The word of an empty or linear table.
    fn compact(&self, table: u32, entries: &Entries) -> Option<u64> {
        let first = *entries.first()?;
        if first == 0 {
            return entries.iter().all(|&e| e == 0).then(|| word(EMPTY, table, 0));
        }
        let (used, rest) = entries.split_at(self.valid(table));
        let linear = first > 1
            && u64::from(first) + u64::from(self.grain) * ENTRIES as u64 <= u64::from(u32::MAX)
            && used.iter().zip(0u32..).all(|(&e, i)| e == first.wrapping_add(i.wrapping_mul(self.grain)))
            && rest.iter().all(|&e| e == 0);
        linear.then(|| word(LINEAR, table, first))
    }

    /// The entries of a table that is in the cache. `state` is held.
    fn expand(&self, word: u64, table: u32, entries: &mut Entries) {
        match word & 3 {
            LINEAR => {
                for (e, i) in entries.iter_mut().take(self.valid(table)).zip(0u32..) {
                    *e = value_of(word).wrapping_add(i.wrapping_mul(self.grain));
                }
            }
            FRAME => {
                if let Some(frame) = self.frame(value_of(word)) {
                    frame.copy(entries);
                }
            }
            _ => {}
        }
    }

    /// How many entries of a table stand for grains.
    fn valid(&self, table: u32) -> usize {
        let first = u64::from(table) * ENTRIES as u64;
        self.grains.saturating_sub(first).min(ENTRIES as u64) as usize
    }
}

impl State {
    fn dropped(&mut self, table: u32) {
        let count = self.drops.len();
        if let Some(drops) = self.drops.get_mut(table as usize % count) {
            *drops = drops.wrapping_add(1);
        }
    }
}

fn bucket(drops: &Drops, table: u32) -> u32 {
    drops.get(table as usize % drops.len()).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn scattered(table: u32) -> Box<Entries> {
        let mut entries = Box::new([0; ENTRIES]);
        for (e, i) in entries.iter_mut().zip(0u32..) {
            *e = table.wrapping_mul(1 << 12) + i.wrapping_mul(7) + 2;
        }
        entries
    }

    fn linear(first: u32, count: usize) -> Box<Entries> {
        let mut entries = Box::new([0; ENTRIES]);
        for (e, i) in entries.iter_mut().take(count).zip(0u32..) {
            *e = first + i * 8;
        }
        entries
    }

    #[test]
    fn empty_and_linear_tables_need_no_frame() {
        let tables = Tables::new(100, 99 * 512 + 5, 8, 0);
        let before = tables.drops();
        tables.offer(0, &[0; ENTRIES], &before);
        tables.offer(1, &linear(128, 512), &before);
        tables.offer(2, &linear(128, 511), &before);
        tables.offer(99, &linear(4096, 5), &before);
        assert!(matches!(tables.view(0), View::Empty));
        assert!(matches!(tables.view(1), View::Linear(128)));
        assert!(matches!(tables.view(2), View::Frame(_)));
        assert!(matches!(tables.view(99), View::Linear(4096)), "five grains are all that the last table has");
        assert!(matches!(tables.view(3), View::Unknown));
        for (table, entries) in [(1, linear(128, 512)), (2, linear(128, 511)), (99, linear(4096, 5))] {
            assert_eq!(tables.copy(table), Some(entries), "table {table}");
        }
    }

    #[test]
    fn a_table_that_changed_meanwhile_is_not_kept() {
        let tables = Tables::new(100_000, 100_000 * 512, 8, 0);
        let before = tables.drops();
        tables.offer(64, &scattered(64), &before);
        let Pin::Held(frame) = tables.pin(64) else { panic!("the table is there") };
        tables.set_entry(frame, 3, 77);
        tables.offer(64, &scattered(64), &before);
        assert_eq!(tables.entry(frame, 3), 77, "what is in memory wins");
        tables.unpin(frame);
        for table in 1000..1000 + 2 * MIN_FRAMES {
            tables.offer(table, &scattered(table), &before);
        }
        assert!(matches!(tables.view(64), View::Unknown), "it was thrown out");
        tables.offer(64, &scattered(64), &before);
        assert!(matches!(tables.view(64), View::Unknown), "read before it was thrown out");
        tables.offer(64, &scattered(64), &tables.drops());
        assert!(matches!(tables.view(64), View::Frame(_)));
    }

    #[test]
    fn pinned_tables_stay() {
        let tables = Tables::new(100_000, 100_000 * 512, 8, 0);
        for table in 0..MIN_FRAMES {
            tables.offer(table, &scattered(table), &tables.drops());
            assert!(matches!(tables.pin(table), Pin::Held(_)));
        }
        tables.offer(5000, &scattered(5000), &tables.drops());
        assert!(matches!(tables.view(5000), View::Unknown));
        tables.offer(5001, &[0; ENTRIES], &tables.drops());
        assert_eq!((tables.pin(5001), tables.pin(5000)), (Pin::Full, Pin::Absent));
        tables.unpin(5);
        assert!(matches!(tables.pin(5001), Pin::Held(5)));
        assert!(matches!(tables.view(5), View::Unknown));
    }

    #[test]
    fn tables_that_share_a_slot_take_turns() {
        let count = 2 * MAX_SLOTS;
        let tables = Tables::new(count, u64::from(count) * 512, 8, 0);
        let other = MAX_SLOTS + 5;
        tables.offer(5, &scattered(5), &tables.drops());
        tables.offer(other, &scattered(other), &tables.drops());
        assert!(matches!((tables.view(5), tables.view(other)), (View::Unknown, View::Frame(_))));
        let Pin::Held(frame) = tables.pin(other) else { panic!("the table is there") };
        tables.offer(5, &scattered(5), &tables.drops());
        assert_eq!(tables.pin(5), Pin::Full, "its place is taken by a pinned table");
        tables.unpin(frame);
        assert_eq!(tables.pin(5), Pin::Absent);
    }

    #[test]
    fn readers_never_see_entries_of_another_table() {
        const TABLES: u32 = 3 * MIN_FRAMES;
        let tables = Tables::new(TABLES, u64::from(TABLES) * 512, 8, 0);
        let stop = AtomicBool::new(false);
        let seen = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for reader in 0..2u32 {
                let (tables, stop, seen) = (&tables, &stop, &seen);
                scope.spawn(move || {
                    let mut i = reader;
                    while !stop.load(Ordering::Relaxed) {
                        i = i.wrapping_mul(1664525).wrapping_add(1013904223);
                        let (table, index) = ((i >> 8) % TABLES, (i >> 20) as usize % (ENTRIES - 8));
                        if let View::Frame(frame) = tables.view(table) {
                            let found: Vec<u32> = (index..index + 8).map(|k| frame.entry(k)).collect();
                            if frame.holds() {
                                let wanted = scattered(table);
                                assert_eq!(found, wanted[index..index + 8], "table {table}");
                                seen.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
            for i in 0..200_000u32 {
                let table = i.wrapping_mul(2654435761) % TABLES;
                tables.offer(table, &scattered(table), &tables.drops());
            }
            while seen.load(Ordering::Relaxed) < 1000 {
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
