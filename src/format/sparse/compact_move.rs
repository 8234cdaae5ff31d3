//! The moves themselves: copies first, then the tables, and a place is free only when that is stable.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::sparse::Sparse;
use crate::format::sparse::compact::Change;
use crate::format::sparse::compact::Share;
use crate::format::sparse::compact::Table;
use crate::format::sparse::compact_slots::Slots;
use crate::format::sparse::header::ENTRIES;
use crate::units::SECTOR;

/// Moves the grains of one file.
pub(super) struct Mover<'a, 'p> {
    image: &'a Sparse,
    tables: &'a [Table],
    slots: Slots,
    share: Share<'p, 'p>,
    /// Slots below this hold all grains in the end.
    boundary: u64,
    /// Grains moved between two flushes.
    batch: usize,
    buffer: Vec<u8>,
}

/// One grain and where it goes.
#[derive(Clone, Copy, Debug)]
struct Move {
    table: usize,
    index: usize,
    from: u64,
    to: u64,
}

/// Which entries name the slots of a part of the file.
struct Tenants {
    slots: Range<u64>,
    /// Position in the list of tables and index, plus one; 0 for nobody.
    entries: Vec<u64>,
}

/// Bytes moved between two flushes at most. What opening for writing is ready to compare after a cut is far more.
const BATCH_BYTES: u64 = 32 << 20;
const BATCH_GRAINS: u64 = 4096;
/// Slots whose tenants are known at a time: 32 MiB.
const KNOWN: u64 = 4 << 20;
const FILE_LIMIT: u64 = (1 << 32) * SECTOR;

impl<'a, 'p> Mover<'a, 'p> {
    pub fn new(image: &'a Sparse, tables: &'a [Table], slots: Slots, share: Share<'p, 'p>) -> Result<Self> {
        let bytes = image.header.grain_bytes();
        let batch = (image.move_bytes.min(BATCH_BYTES) / bytes).clamp(1, BATCH_GRAINS) as usize;
        let boundary = slots.boundary();
        Ok(Self { image, tables, slots, share, boundary, batch, buffer: vec![0; bytes as usize] })
    }

    /// Moves the grains behind the boundary into the gaps before it. The end in bytes of what is used then.
    pub fn close_gaps(mut self) -> Result<u64> {
        let mut gap = 0;
        let mut moves = Vec::new();
        for table in 0..self.tables.len() {
            for (index, slot) in self.grains(table)? {
                if slot < self.boundary {
                    continue;
                }
                let Some(to) = self.slots.next_free(gap, self.boundary) else { continue };
                gap = to + 1;
                moves.push(Move { table, index, from: slot, to });
                if moves.len() >= self.batch {
                    self.perform(&moves)?;
                    moves.clear();
                }
            }
            self.share.tell(table as u64 + 1, self.tables.len() as u64);
        }
        self.perform(&moves)?;
        Ok(self.slots.end(self.boundary) * SECTOR)
    }

    /// Moves every grain to its place in the order of the disk. The end in bytes of what is used then.
    pub fn put_in_order(mut self) -> Result<u64> {
        let mut tenants = Tenants { slots: 0..0, entries: Vec::new() };
        let mut target = 0;
        for table in 0..self.tables.len() {
            let mut next = 0;
            while next < ENTRIES {
                // Read anew for each batch: making room may have moved grains of this very table.
                let mut moves = Vec::new();
                let grains = self.grains(table)?;
                let Some(ahead) = grains.iter().position(|(index, _)| *index >= next) else { break };
                for &(index, from) in grains.iter().skip(ahead).take(self.batch) {
                    while self.slots.is_blocked(target) {
                        target += 1;
                    }
                    if from != target {
                        moves.push(Move { table, index, from, to: target });
                    }
                    target += 1;
                    next = index + 1;
                }
                self.make_room(&mut moves, target, &mut tenants)?;
                self.perform(&moves)?;
                tenants.follow(&moves);
            }
            self.share.tell(table as u64 + 1, self.tables.len() as u64);
        }
        Ok(self.slots.end(self.boundary) * SECTOR)
    }

    /// The grains of a table that are in slots: index of the entry, slot.
    fn grains(&self, table: usize) -> Result<Vec<(usize, u64)>> {
        let Some(table) = self.tables.get(table) else { return Ok(Vec::new()) };
        let entries = self.image.body.read_table(table.places.primary)?;
        let known = self.image.grains_of(table.number);
        let grains =
            entries.iter().zip(known).enumerate().filter(|(_, (entry, _))| !self.image.is_hollow(**entry));
        Ok(grains.filter_map(|(i, (&entry, _))| Some((i, self.slots.slot(u64::from(entry))?))).collect())
    }

    /// Moves whoever is in the way of `moves` behind them; slots below `settled` are in order.
    fn make_room(&mut self, moves: &mut [Move], settled: u64, tenants: &mut Tenants) -> Result<()> {
        let mut evictions = Vec::new();
        let (mut behind, mut between) = (self.boundary, settled);
        for occupied in moves.iter().map(|m| m.to).filter(|&to| !self.slots.is_free(to)).collect::<Vec<_>>() {
            if !tenants.slots.contains(&occupied) {
                *tenants = self.find_tenants(occupied)?;
            }
            let Some((table, index)) = tenants.of(occupied) else {
                let text = format!("{}: slot {occupied} is used by no grain", self.image.body.name);
                return Err(Error::new(ErrorKind::Internal, text));
            };
            // Behind all that stays, where it will not be in the way again; the file grows only if it has to.
            let known = self.slots.len().max(self.boundary);
            let to = match self.slots.next_free(behind, known) {
                Some(slot) => slot,
                None => match self.slots.next_free(between, self.boundary) {
                    Some(slot) => slot,
                    None => self.first_new(behind.max(known)),
                },
            };
            if to >= self.boundary {
                behind = to + 1;
            } else {
                between = to + 1;
            }
            evictions.push(Move { table, index, from: occupied, to });
        }
        evictions.sort_by_key(|m| (m.table, m.index));
        self.perform(&evictions)?;
        tenants.follow(&evictions);
        let moved: HashMap<(usize, usize), u64> =
            evictions.iter().map(|m| ((m.table, m.index), m.to)).collect();
        for m in moves {
            m.from = moved.get(&(m.table, m.index)).copied().unwrap_or(m.from);
        }
        Ok(())
    }

    /// The first slot from `from` on that nothing stays in.
    fn first_new(&self, from: u64) -> u64 {
        let mut slot = from;
        while !self.slots.is_free(slot) {
            slot += 1;
        }
        slot
    }

    /// One pass over all tables: who is in the slots from `slot` on.
    fn find_tenants(&self, slot: u64) -> Result<Tenants> {
        let end = slot + KNOWN.min(self.slots.len().saturating_sub(slot).max(1));
        let mut tenants = Tenants { slots: slot..end, entries: vec![0; (end - slot) as usize] };
        for table in 0..self.tables.len() {
            for (index, slot) in self.grains(table)? {
                tenants.note(slot, table, index);
            }
        }
        Ok(tenants)
    }

    /// Copies grains to free slots and has the tables name the copies. The old slots are free afterwards.
    fn perform(&mut self, moves: &[Move]) -> Result<()> {
        if moves.is_empty() {
            return Ok(());
        }
        let storage = &self.image.body.storage;
        let last = moves.iter().map(|m| m.to).max().unwrap_or(0);
        let end = self.slots.sector(last + 1) * SECTOR;
        if end > FILE_LIMIT {
            let text = format!("no room in {} to move grains", self.image.body.name);
            return Err(Error::new(ErrorKind::FileTooBig, text));
        }
        if storage.size()? < end {
            storage.set_len(end)?;
        }
        let mut changes = Vec::with_capacity(moves.len());
        for m in moves {
            self.copy(m)?;
            let value = self.slots.sector(m.to) as u32; // below the limit
            changes.push(Change { table: m.table, index: m.index, value });
        }
        storage.flush()?;
        self.image.write_changes(self.tables, &changes)?;
        storage.flush()?;
        for m in moves {
            self.slots.clear(m.from);
        }
        for m in moves {
            self.slots.fill(m.to);
        }
        Ok(())
    }

    fn copy(&mut self, m: &Move) -> Result<()> {
        let Some(table) = self.tables.get(m.table) else { return Ok(()) };
        let grain = u64::from(table.number) * ENTRIES as u64 + m.index as u64;
        let story = || format!("moving grain {grain} of {}", self.image.body.name);
        // The file may end inside its last grain, behind the end of the disk.
        let valid = self.image.valid_bytes(grain) as usize;
        self.buffer.fill(0);
        let window = self.buffer.get_mut(..valid).unwrap_or_default();
        self.image.body.storage.read_at(window, self.slots.sector(m.from) * SECTOR).context(story)?;
        self.image.body.storage.write_at(&self.buffer, self.slots.sector(m.to) * SECTOR).context(story)
    }
}

impl Tenants {
    fn note(&mut self, slot: u64, table: usize, index: usize) {
        if let Some(entry) = slot.checked_sub(self.slots.start).and_then(|i| self.entries.get_mut(i as usize))
        {
            *entry = table as u64 * ENTRIES as u64 + index as u64 + 1;
        }
    }

    fn of(&self, slot: u64) -> Option<(usize, usize)> {
        let number = self.entries.get(slot.checked_sub(self.slots.start)? as usize)?.checked_sub(1)?;
        Some(((number / ENTRIES as u64) as usize, (number % ENTRIES as u64) as usize))
    }

    fn follow(&mut self, moves: &[Move]) {
        for m in moves {
            if let Some(entry) =
                m.from.checked_sub(self.slots.start).and_then(|i| self.entries.get_mut(i as usize))
            {
                *entry = 0;
            }
        }
        for m in moves {
            self.note(m.to, m.table, m.index);
        }
    }
}
