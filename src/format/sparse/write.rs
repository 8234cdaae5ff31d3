//! New grains: reserved, written by the caller, then entered into the tables.
//!
//! ```text
//!   prepare   pins the grain's table, takes space at the end of the file; others who want the same grain wait
//!   (the caller writes the data)
//!   commit    direct:   redundant table, primary table, then the table in memory
//!             deferred: the table in memory only; publish makes the data stable and writes the tables
//! ```
//!
//! The two tables are written one after the other, so a killed process leaves them differing in entries that are empty on
//! one side; opening for writing mends that. No lock is held while the file is read or written: what must exclude others
//! meanwhile is a flag or a reservation in [`Work`], and they wait on `changed`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Condvar;
use parking_lot::Mutex;
use parking_lot::MutexGuard;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::Pending;
use crate::format::sparse::Sparse;
use crate::format::sparse::header::ENTRIES;
use crate::format::sparse::header::UNCLEAN_AT;
use crate::format::sparse::publish::Dirty;
use crate::format::sparse::space::Answer;
use crate::format::sparse::space::Grant;
use crate::format::sparse::space::Space;
use crate::format::sparse::tables::Pin;
use crate::units::SECTOR;

/// The writing side of an extent.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) work: Mutex<Work>,
    /// Something in `work` was released.
    pub(super) changed: Condvar,
    /// Tables with unpublished entries at which a commit publishes by itself.
    pub(super) dirty_limit: usize,
    /// `work.failed` is set: told to every write without taking the lock.
    has_failed: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Work {
    pub space: Space,
    pub reserved: Vec<Reservation>,
    next_ticket: u64,
    /// The header says that the file is being written.
    begun: bool,
    /// Somebody is making the file longer.
    growing: bool,
    /// Somebody is making a grain table.
    pub building: bool,
    /// Room for grain tables in a grain taken for them.
    pub table_room: Range<u64>,
    /// Tables with entries that the file does not have.
    pub dirty: BTreeMap<u32, Dirty>,
    /// Tables that are being published.
    pub publishing: BTreeSet<u32>,
    /// Why nothing more can be written; see [`Writer::fail`].
    failed: Option<String>,
}

/// Where the two copies of a table stand, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub primary: u64,
    pub redundant: Option<u64>,
}

/// Grains of one table that are being made.
#[derive(Clone, Debug)]
pub(super) struct Reservation {
    pub ticket: u64,
    pub grains: Range<u64>,
    pub grant: Grant,
    pub frame: u32,
    pub places: Places,
    /// Its entries are being written to the tables.
    pub entering: bool,
}

/// Unpublished tables at most: 4 MiB.
const DIRTY_TABLES: usize = 2048;

impl Writer {
    pub fn new(space: Space, frames: u32) -> Self {
        let work = Work {
            space,
            reserved: Vec::new(),
            next_ticket: 0,
            begun: false,
            growing: false,
            building: false,
            table_room: 0..0,
            dirty: BTreeMap::new(),
            publishing: BTreeSet::new(),
            failed: None,
        };
        let dirty_limit = DIRTY_TABLES.min(frames as usize / 2);
        let has_failed = AtomicBool::new(false);
        Self { work: Mutex::new(work), changed: Condvar::new(), dirty_limit, has_failed }
    }

    /// From now on nothing is written until the file is opened again: its tables may not be what they are in memory. The
    /// first cause is kept.
    pub fn fail(&self, work: &mut Work, cause: &Error) {
        work.failed.get_or_insert_with(|| cause.to_string());
        self.has_failed.store(true, Ordering::Release);
    }

    /// Refuses once something has failed.
    pub fn check(&self) -> Result<()> {
        if self.has_failed.load(Ordering::Acquire) { self.work.lock().check() } else { Ok(()) }
    }
}

impl Work {
    /// Refuses when a table could not be written before: memory and file may differ.
    pub fn check(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(cause) => {
                let text = format!("nothing more is written until the disk is opened again; before: {cause}");
                Err(Error::new(ErrorKind::Io, text))
            }
        }
    }

    /// Changes `entries` of a table, of which the first is entry `first`, to what the reservations that are being entered
    /// make of it.
    pub fn overlay(&self, table: u32, first: usize, grain: u64, entries: &mut [u32]) {
        for r in self.reserved.iter().filter(|r| r.entering && r.table() == table) {
            for (index, value) in r.entries(grain) {
                if let Some(entry) = index.checked_sub(first).and_then(|index| entries.get_mut(index)) {
                    *entry = value;
                }
            }
        }
    }
}

impl Reservation {
    pub fn table(&self) -> u32 {
        (self.grains.start / ENTRIES as u64) as u32
    }

    /// Index and value of its entries, for grains of `grain` bytes.
    pub fn entries(&self, grain: u64) -> impl Iterator<Item = (usize, u32)> {
        let first = (self.grains.start % ENTRIES as u64) as usize;
        let count = (self.grains.end - self.grains.start) as usize;
        let offset = self.grant.offset;
        // The space stays below 2^32 sectors.
        (0..count).map(move |i| (first + i, ((offset + i as u64 * grain) / SECTOR) as u32))
    }
}

impl Sparse {
    pub(super) fn writer(&self) -> Result<&Writer> {
        self.writer.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::ReadOnly, format!("{} is open for reading only", self.body.name))
        })
    }

    /// Marks the file as being written, once.
    pub(super) fn begin(&self) -> Result<()> {
        let writer = self.writer()?;
        if writer.work.lock().begun {
            return Ok(());
        }
        self.mark(true)?;
        writer.work.lock().begun = true;
        Ok(())
    }

    /// Sets the header's note that the file is being written, durably.
    pub(super) fn mark(&self, unclean: bool) -> Result<()> {
        self.body
            .storage
            .write_at(&[u8::from(unclean)], UNCLEAN_AT)
            .and_then(|()| self.body.storage.flush())
            .context(|| format!("header of {}", self.body.name))
    }

    pub(super) fn reserve(&self, offset: u64, len: u64) -> Result<Option<Pending<'_>>> {
        let writer = self.writer()?;
        let capacity = self.header.capacity_bytes();
        if len == 0 || offset >= capacity {
            let text = format!("{}: {len} bytes at {offset:#x} of {capacity}", self.body.name);
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        self.begin()?;
        let first = offset >> self.grain_shift;
        let last = (offset + (len - 1).min(capacity - offset - 1)) >> self.grain_shift;
        let table = (first / ENTRIES as u64) as u32;
        let grains = first..(last + 1).min((u64::from(table) + 1) * ENTRIES as u64);
        let (frame, places) = self.hold_table(table)?;
        let outcome = self.reserve_in(writer, frame, places, grains);
        if !matches!(outcome, Ok(Some(_))) {
            self.tables.unpin(frame);
        }
        let Some(reservation) = outcome? else { return Ok(None) };
        let shift = self.grain_shift;
        Ok(Some(Pending {
            grains: reservation.grains.start << shift..reservation.grains.end << shift,
            storage: &*self.body.storage,
            offset: reservation.grant.offset,
            zeroed: reservation.grant.zeroed,
            ticket: reservation.ticket,
        }))
    }

    fn reserve_in(
        &self,
        writer: &Writer,
        frame: u32,
        places: Places,
        grains: Range<u64>,
    ) -> Result<Option<Reservation>> {
        let mut work = writer.work.lock();
        loop {
            work.check()?;
            if work.reserved.iter().any(|r| r.grains.contains(&grains.start)) {
                writer.changed.wait(&mut work);
                continue;
            }
            let mut end = grains.end;
            for r in &work.reserved {
                if r.grains.start > grains.start {
                    end = end.min(r.grains.start);
                }
            }
            let hollow =
                |&grain: &u64| self.is_hollow(self.tables.entry(frame, (grain % ENTRIES as u64) as usize));
            let free = (grains.start..end).take_while(hollow).count() as u64;
            if free == 0 {
                return Ok(None);
            }
            let Some(grant) = self.take_space(writer, &mut work, free)? else { continue };
            let ticket = work.next_ticket;
            work.next_ticket += 1;
            let grains = grains.start..grains.start + grant.grains;
            let reservation = Reservation { ticket, grains, grant, frame, places, entering: false };
            work.reserved.push(reservation.clone());
            return Ok(Some(reservation));
        }
    }

    /// True for an entry without data.
    pub(super) fn is_hollow(&self, entry: u32) -> bool {
        entry == 0 || (entry == 1 && self.header.has_zero_grains())
    }

    /// Takes space for up to `grains` grains. `None`: the lock was let go meanwhile, look at everything again.
    pub(super) fn take_space(
        &self,
        writer: &Writer,
        work: &mut MutexGuard<'_, Work>,
        grains: u64,
    ) -> Result<Option<Grant>> {
        let (needed, wanted) = match work.space.take(grains).context(|| self.body.name.clone())? {
            Answer::Granted(grant) => return Ok(Some(grant)),
            Answer::Grow { needed, wanted } => (needed, wanted),
        };
        if work.growing {
            writer.changed.wait(work);
            return Ok(None);
        }
        work.growing = true;
        let grown = MutexGuard::unlocked(work, || {
            // A large step may hit a limit that the space needed does not.
            let storage = &self.body.storage;
            storage.set_len(wanted).map(|()| wanted).or_else(|_| storage.set_len(needed).map(|()| needed))
        });
        work.growing = false;
        writer.changed.notify_all();
        let size = grown.context(|| format!("making {} longer", self.body.name))?;
        work.space.grew(size);
        self.body.set_size(size);
        Ok(None)
    }

    /// Pins the table with its places, making it if the file has none.
    fn hold_table(&self, table: u32) -> Result<(u32, Places)> {
        loop {
            match self.tables.pin(table) {
                Pin::Held(frame) => match self.table_places(table) {
                    Ok(Some(places)) => return Ok((frame, places)),
                    Ok(None) => {
                        self.tables.unpin(frame);
                        self.build_table(table)?;
                    }
                    Err(e) => {
                        self.tables.unpin(frame);
                        return Err(e);
                    }
                },
                Pin::Absent => drop(self.fetch(table, false)?),
                Pin::Full => self.make_room()?,
            }
        }
    }

    /// Called when every table in memory is in use: publishes, or waits for those who use them.
    fn make_room(&self) -> Result<()> {
        if self.has_dirty() {
            return self.publish_dirty();
        }
        let writer = self.writer()?;
        let mut work = writer.work.lock();
        // A table may have become free before the lock was taken: look again soon even if nobody says so.
        writer.changed.wait_for(&mut work, Duration::from_millis(10));
        Ok(())
    }

    pub(super) fn end(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return self.body.storage.flush() };
        if !writer.work.lock().begun {
            return Ok(());
        }
        self.flush_all()?;
        let excess = writer.work.lock().space.excess();
        if let Some(len) = excess {
            self.body
                .storage
                .set_len(len)
                .context(|| format!("cutting the unused end of {}", self.body.name))?;
            self.body.set_size(len);
            self.body.storage.flush()?;
        }
        self.mark(false)?;
        writer.work.lock().begun = false;
        Ok(())
    }
}
