//! Entries that the file does not have yet: written to the tables after the data they name is stable.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::sparse::Sparse;
use crate::format::sparse::directory::Found;
use crate::format::sparse::directory::Side;
use crate::format::sparse::directory::check;
use crate::format::sparse::header::ENTRIES;
use crate::format::sparse::header::TABLE_BYTES;
use crate::format::sparse::write::Places;
use crate::format::sparse::write::Work;
use crate::units::SECTOR;

/// A pinned table with entries that the file does not have.
#[derive(Clone, Debug)]
pub(super) struct Dirty {
    frame: u32,
    places: Places,
    /// One for each sector of the table: it has such entries.
    sectors: [bool; SECTORS],
}

const SECTORS: usize = (TABLE_BYTES / SECTOR) as usize;
const PER_SECTOR: usize = ENTRIES / SECTORS;

/// Whole sectors of one table, as they shall be in the file.
struct Rewrite {
    places: Places,
    at: u64,
    bytes: Vec<u8>,
}

impl Dirty {
    pub fn new(frame: u32, places: Places) -> Self {
        Self { frame, places, sectors: [false; SECTORS] }
    }

    pub fn mark(&mut self, index: usize) {
        if let Some(sector) = self.sectors.get_mut(index / PER_SECTOR) {
            *sector = true;
        }
    }
}

impl Sparse {
    pub(super) fn has_dirty(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| {
            let work = writer.work.lock();
            !work.dirty.is_empty() || !work.publishing.is_empty()
        })
    }

    /// Tables whose entries in memory are ahead of the file.
    pub(super) fn unpublished_tables(&self) -> BTreeSet<u32> {
        self.writer.as_ref().map_or_else(BTreeSet::new, |writer| {
            let work = writer.work.lock();
            work.dirty.keys().chain(&work.publishing).copied().collect()
        })
    }

    /// Makes the data written so far stable, then writes the entries that name it. Returns when all entries that were
    /// unpublished at the call are in the file's tables. One at a time; others wait.
    pub(super) fn publish_dirty(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let mut work = writer.work.lock();
        while !work.publishing.is_empty() {
            writer.changed.wait(&mut work);
        }
        work.check()?;
        if work.dirty.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut work.dirty);
        let rewrites = self.rewrites(&work, &batch);
        work.publishing = batch.keys().copied().collect();
        drop(work);

        let written = self.body.storage.flush().and_then(|()| self.write_tables(&rewrites));

        let mut work = writer.work.lock();
        work.publishing.clear();
        match &written {
            Ok(()) => batch.values().for_each(|dirty| self.tables.unpin(dirty.frame)),
            Err(e) => {
                // They go on serving reads, so their frames stay pinned.
                writer.fail(&mut work, e);
                work.dirty.extend(batch);
            }
        }
        drop(work);
        writer.changed.notify_all();
        written
    }

    /// The sectors of the tables as they are now: everything in them names data that has been written.
    fn rewrites(&self, work: &Work, batch: &BTreeMap<u32, Dirty>) -> Vec<Rewrite> {
        let mut rewrites = Vec::with_capacity(batch.len());
        for (&table, dirty) in batch {
            for sector in (0..SECTORS).filter(|&sector| dirty.sectors.get(sector) == Some(&true)) {
                let first = sector * PER_SECTOR;
                let mut entries = [0; PER_SECTOR];
                for (entry, index) in entries.iter_mut().zip(first..) {
                    *entry = self.tables.entry(dirty.frame, index);
                }
                work.overlay(table, first, self.header.grain_bytes(), &mut entries);
                let bytes = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
                rewrites.push(Rewrite { places: dirty.places, at: sector as u64 * SECTOR, bytes });
            }
        }
        rewrites
    }

    fn write_tables(&self, rewrites: &[Rewrite]) -> Result<()> {
        let storage = &self.body.storage;
        let story = || format!("grain tables of {}", self.body.name);
        for Rewrite { places, at, bytes } in rewrites {
            if let Some(place) = places.redundant {
                storage.write_at(bytes, place + at).context(story)?;
            }
        }
        for Rewrite { places, at, bytes } in rewrites {
            storage.write_at(bytes, places.primary + at).context(story)?;
        }
        Ok(())
    }

    pub(super) fn flush_all(&self) -> Result<()> {
        if let Some(writer) = &self.writer {
            self.publish_dirty()?;
            writer.work.lock().check()?;
        }
        let flushed = self.body.storage.flush().context(|| self.body.name.clone());
        if let (Err(e), Some(writer)) = (&flushed, &self.writer) {
            // What the host dropped cannot be known, and a second flush may wrongly succeed.
            writer.fail(&mut writer.work.lock(), e);
        }
        flushed
    }

    /// Where the copies of a table stand; `None` if the file has no such table.
    pub(super) fn table_places(&self, table: u32) -> Result<Option<Places>> {
        let place = |side| -> Result<Option<u64>> {
            let sector = self.directory.entry(&self.body, side, table)?.unwrap_or(0);
            match check(&self.body, sector)? {
                Found::Nowhere => Ok(None),
                Found::At(sector) => Ok(Some(u64::from(sector) * SECTOR)),
                Found::Damaged(sector) => Err(self
                    .body
                    .corrupt(format!("grain table {table} at sector {sector} lies past the end"))),
            }
        };
        let redundant = place(Side::Redundant)?;
        match place(Side::Primary)? {
            Some(_) if redundant.is_none() && self.directory.place(Side::Redundant).is_some() => {
                let text = format!("{}: grain table {table} has no redundant copy", self.body.name);
                Err(Error::new(ErrorKind::NeedsRepair, text))
            }
            Some(primary) => Ok(Some(Places { primary, redundant })),
            None => Ok(None),
        }
    }

    /// Makes an empty table, both copies, for a file whose writer left it out. One at a time; others wait.
    pub(super) fn build_table(&self, table: u32) -> Result<()> {
        let writer = self.writer()?;
        let sides = if self.directory.place(Side::Redundant).is_some() { 2 } else { 1 };
        let bytes = sides * TABLE_BYTES;
        let mut work = writer.work.lock();
        loop {
            work.check()?;
            if work.building {
                writer.changed.wait(&mut work);
                return Ok(()); // perhaps it was this one
            }
            if work.table_room.end - work.table_room.start >= bytes {
                break;
            }
            if let Some(grant) = self.take_space(writer, &mut work, 1)? {
                work.table_room = grant.offset..grant.offset + self.header.grain_bytes();
            }
        }
        let at = work.table_room.start;
        work.table_room.start += bytes;
        work.building = true;
        drop(work);
        let built = self.blank_table(table, at, bytes);
        let named = built.is_ok().then(|| self.name_table(table, at, bytes));
        let mut work = writer.work.lock();
        work.building = false;
        if let Some(Err(e)) = &named {
            writer.fail(&mut work, e);
        }
        drop(work);
        writer.changed.notify_all();
        named.unwrap_or(built)
    }

    fn blank_table(&self, table: u32, at: u64, bytes: u64) -> Result<()> {
        let storage = &self.body.storage;
        storage
            .write_at(&vec![0; bytes as usize], at)
            .and_then(|()| storage.flush())
            .context(|| format!("new grain table {table} of {}", self.body.name))
    }

    /// Enters a table that is in the file into the directories, the redundant one first.
    fn name_table(&self, table: u32, at: u64, bytes: u64) -> Result<()> {
        if self.table_places(table)?.is_some() {
            return Ok(()); // somebody was faster
        }
        let sector = (at / SECTOR) as u32; // space stays below 2^32 sectors
        if bytes > TABLE_BYTES {
            let redundant = sector + (TABLE_BYTES / SECTOR) as u32;
            self.directory.set_entry(&self.body, Side::Redundant, table, redundant)?;
        }
        self.directory.set_entry(&self.body, Side::Primary, table, sector)?;
        self.body.storage.flush().context(|| format!("new grain table {table} of {}", self.body.name))
    }
}
