//! Moving grains inside the file: to close gaps and give space back, or to put them in order.
//!
//! ```text
//!   free      entries of grains that hold only zeros are emptied                       (shrink only)
//!   plan      slots: places for grains from the first one on; tables among them stay    compact_slots
//!   move      copies are made in free slots, flush, both tables name the copies, flush  compact_move
//!   cut       what lies behind the last used slot goes
//! ```
//!
//! A slot is used again only after the tables that freed it are stable. A cut in between leaves each grain whole in the place
//! that its entry names, old or new; where the two tables name different places, both hold the same.

use std::ops::Range;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::Arrange;
use crate::format::Rearrange;
use crate::format::sparse::Sparse;
use crate::format::sparse::body::Entries;
use crate::format::sparse::compact_move::Mover;
use crate::format::sparse::compact_slots::Slots;
use crate::format::sparse::directory::Side;
use crate::format::sparse::header::ENTRIES;
use crate::format::sparse::header::TABLE_BYTES;
use crate::format::sparse::space::Space;
use crate::format::sparse::write::Places;
use crate::storage::Storage;
use crate::units::SECTOR;

/// One table of the file and where its copies stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub number: u32,
    pub places: Places,
}

/// A new value of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// Position in the list of tables.
    pub table: usize,
    pub index: usize,
    pub value: u32,
}

/// Bytes read at once when looking for zeros.
const PIECE: u64 = 1 << 20;
/// Entries emptied before they are written.
const CHANGES: usize = 1 << 16;

/// Tells how far the work is, in permille of a part of it.
pub(super) struct Share<'a, 'b> {
    pub progress: &'a mut (dyn FnMut(u64, u64) + 'b),
    pub start: u64,
    pub end: u64,
}

impl Share<'_, '_> {
    pub fn tell(&mut self, done: u64, all: u64) {
        let part = u128::from(self.end - self.start) * u128::from(done) / u128::from(all.max(1));
        (self.progress)(self.start + u64::try_from(part).unwrap_or(0), WHOLE);
    }
}

/// What `Share` counts up to.
const WHOLE: u64 = 1000;

impl Rearrange for Sparse {
    fn storage(&self) -> &dyn Storage {
        &*self.body.storage
    }

    fn rearrange(
        &self,
        how: Arrange,
        zero_below: &dyn Fn(Range<u64>) -> Result<bool>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<u64> {
        let writer = self.writer()?;
        self.begin()?;
        self.flush_all()?;
        if !writer.work.lock().reserved.is_empty() {
            return Err(Error::new(ErrorKind::Busy, format!("{} is being written to", self.body.name)));
        }
        let before = self.body.storage.size()?;
        let outcome = self.arrange(how, zero_below, progress);
        self.tables.forget();
        let mut work = writer.work.lock();
        work.table_room = 0..0;
        let space = outcome.and_then(|end| {
            let size = self.body.storage.size()?;
            self.body.set_size(size);
            let space = Space::new(self.header.grain_bytes(), end, size, self.header.grains())?;
            Ok((space, before.saturating_sub(size)))
        });
        match space {
            Ok((space, freed)) => {
                work.space = space;
                Ok(freed)
            }
            Err(e) => {
                // The two tables may name different places with the same content: neither may be written to.
                writer.fail(&mut work, &e);
                Err(e)
            }
        }
    }
}

impl Sparse {
    /// Does it all; the end in bytes of what is used then.
    fn arrange(
        &self,
        how: Arrange,
        zero_below: &dyn Fn(Range<u64>) -> Result<bool>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<u64> {
        let tables = self.all_tables()?;
        let half = if how == Arrange::Close { WHOLE / 2 } else { 0 };
        if how == Arrange::Close {
            let share = Share { progress: &mut *progress, start: 0, end: half };
            self.free_zeros(&tables, zero_below, share)?;
        }
        let slots = self.plan(&tables)?;
        let share = Share { progress, start: half, end: WHOLE };
        let mover = Mover::new(self, &tables, slots, share)?;
        let end = match how {
            Arrange::Close => mover.close_gaps()?,
            Arrange::Order => mover.put_in_order()?,
        };
        let storage = &self.body.storage;
        storage.flush()?;
        if storage.size()? > end {
            storage.set_len(end).context(|| format!("cutting the end of {}", self.body.name))?;
            storage.flush()?;
        }
        Ok(end)
    }

    fn all_tables(&self) -> Result<Vec<Table>> {
        let mut tables = Vec::new();
        for number in 0..self.header.tables() {
            tables.extend(self.table_places(number)?.map(|places| Table { number, places }));
        }
        Ok(tables)
    }

    /// Empties the entries of grains that hold only zeros, and make no difference when they are gone.
    fn free_zeros(
        &self,
        tables: &[Table],
        zero_below: &dyn Fn(Range<u64>) -> Result<bool>,
        mut share: Share<'_, '_>,
    ) -> Result<()> {
        let mut changes = Vec::new();
        let mut buffer = Vec::new();
        for (i, table) in tables.iter().enumerate() {
            let entries = self.body.read_table(table.places.primary)?;
            for (index, grain) in self.grains_of(table.number).enumerate() {
                let entry = entries.get(index).copied().unwrap_or(0);
                if self.is_hollow(entry) || !self.is_zero(grain, entry, &mut buffer)? {
                    continue;
                }
                let shift = self.grain_shift;
                let range = grain << shift..((grain + 1) << shift).min(self.header.capacity_bytes());
                if zero_below(range)? {
                    changes.push(Change { table: i, index, value: 0 });
                } else if self.header.has_zero_grains() {
                    changes.push(Change { table: i, index, value: 1 });
                }
            }
            if changes.len() >= CHANGES {
                self.write_changes(tables, &changes)?;
                changes.clear();
            }
            share.tell(i as u64 + 1, tables.len() as u64);
        }
        self.write_changes(tables, &changes)?;
        // Nothing may take the freed places before nobody names them.
        self.body.storage.flush()
    }

    /// The grains of a table.
    pub(super) fn grains_of(&self, table: u32) -> Range<u64> {
        let first = u64::from(table) * ENTRIES as u64;
        first..(first + ENTRIES as u64).min(self.header.grains())
    }

    /// Bytes of a grain that lie inside the disk.
    pub(super) fn valid_bytes(&self, grain: u64) -> u64 {
        (self.header.capacity_bytes() - (grain << self.grain_shift)).min(self.header.grain_bytes())
    }

    fn is_zero(&self, grain: u64, entry: u32, buffer: &mut Vec<u8>) -> Result<bool> {
        let mut at = u64::from(entry) * SECTOR;
        let end = at + self.valid_bytes(grain);
        while at < end {
            let len = (end - at).min(PIECE);
            buffer.resize(len as usize, 0);
            self.body
                .read_around_holes(buffer, at)
                .context(|| format!("grain {grain} of {}", self.body.name))?;
            if buffer.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            at += len;
        }
        Ok(true)
    }

    /// Writes new values of entries, which come table by table: all redundant tables, then the primary ones.
    pub(super) fn write_changes(&self, tables: &[Table], changes: &[Change]) -> Result<()> {
        for redundant in [true, false] {
            for of_table in changes.chunk_by(|a, b| a.table == b.table) {
                let Some(Change { table, .. }) = of_table.first() else { continue };
                let Some(Table { places, .. }) = tables.get(*table) else { continue };
                let place = if redundant { places.redundant } else { Some(places.primary) };
                if let Some(place) = place {
                    self.write_table(place, of_table)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the sectors of one table that change.
    fn write_table(&self, place: u64, changes: &[Change]) -> Result<()> {
        const PER_SECTOR: usize = SECTOR as usize / 4;
        let mut entries: Box<Entries> = self.body.read_table(place)?;
        let mut touched = [false; TABLE_BYTES as usize / SECTOR as usize];
        for change in changes {
            if let Some(entry) = entries.get_mut(change.index) {
                *entry = change.value;
            }
            if let Some(sector) = touched.get_mut(change.index / PER_SECTOR) {
                *sector = true;
            }
        }
        for ((chunk, at), _) in entries
            .chunks(PER_SECTOR)
            .zip((place..).step_by(SECTOR as usize))
            .zip(touched)
            .filter(|(_, t)| *t)
        {
            let bytes: Vec<u8> = chunk.iter().flat_map(|entry| entry.to_le_bytes()).collect();
            self.body
                .storage
                .write_at(&bytes, at)
                .context(|| format!("grain tables of {}", self.body.name))?;
        }
        Ok(())
    }

    /// Which slots there are, which hold grains, and which hold something else.
    fn plan(&self, tables: &[Table]) -> Result<Slots> {
        let first = self.header.overhead.0.max(1);
        let mut slots = Slots::new(first, self.header.grain.0, self.body.storage.size()?.div_ceil(SECTOR))?;
        let sectors = |place: u64, bytes: u64| place / SECTOR..(place + bytes).div_ceil(SECTOR);
        for side in [Side::Primary, Side::Redundant] {
            if let Some(place) = self.directory.place(side) {
                slots.block(&sectors(place, self.header.directory_bytes()));
            }
        }
        if let Some(text) = &self.header.descriptor {
            slots.block(&sectors(text.start, text.end - text.start));
        }
        for table in tables {
            for place in table.places.redundant.into_iter().chain([table.places.primary]) {
                slots.block(&sectors(place, TABLE_BYTES));
            }
            let entries = self.body.read_table(table.places.primary)?;
            for (&entry, grain) in entries.iter().zip(self.grains_of(table.number)) {
                if !self.is_hollow(entry) {
                    let sector = u64::from(entry);
                    slots.take(sector, &(sector..sector + self.valid_bytes(grain).div_ceil(SECTOR)));
                }
            }
        }
        Ok(slots)
    }
}
