//! The grain directory: where each grain table stands.
//!
//! Nothing is read at open. Pages of 1024 entries are read when a table of theirs is asked for, and a bounded number of
//! them is kept. A damaged entry of the primary directory is answered from the redundant one.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::error::Context;
use crate::error::Result;
use crate::format::sparse::Header;
use crate::format::sparse::body::Body;
use crate::format::sparse::body::decode;
use crate::format::sparse::header::TABLE_BYTES;
use crate::units::SECTOR;

/// One of the two directories with their tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Primary,
    Redundant,
}

/// Where a table is, as far as the directories tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is none: nothing of its range is allocated.
    Nowhere,
    /// At this sector; it lies inside the file.
    At(u32),
    /// The entry names a place outside the file.
    Damaged(u32),
}

#[derive(Debug)]
pub(super) struct Directory {
    /// Byte offsets of the primary and the redundant directory.
    places: [Option<u64>; 2],
    tables: u32,
    /// Pages by number and side; each lock is held only to look or to store.
    pages: Box<[Mutex<Option<Box<Page>>>]>,
    /// Counts changed entries, so that a page read before a change is not kept after it.
    changes: AtomicU64,
    warned: AtomicBool,
}

#[derive(Debug)]
struct Page {
    number: u32,
    side: Side,
    entries: [u32; PAGE],
}

/// Entries of a page: 4 KiB of the directory.
const PAGE: usize = 1024;
/// Pages kept at most: 512 KiB.
const PAGES: u32 = 128;

impl Directory {
    pub fn new(header: &Header) -> Self {
        let tables = header.tables();
        let pages = tables.div_ceil(PAGE as u32).saturating_mul(2).min(PAGES);
        Self {
            places: [header.directory, header.redundant],
            tables,
            pages: (0..pages).map(|_| Mutex::new(None)).collect(),
            changes: AtomicU64::new(0),
            warned: AtomicBool::new(false),
        }
    }

    /// Byte offset of one of the directories.
    pub fn place(&self, side: Side) -> Option<u64> {
        match side {
            Side::Primary => self.places[0],
            Side::Redundant => self.places[1],
        }
    }

    /// The byte offset of the table to read, `None` if it does not exist.
    pub fn find(&self, body: &Body, table: u32) -> Result<Option<u64>> {
        match self.judge(body, table)? {
            Found::Nowhere => Ok(None),
            Found::At(sector) => Ok(Some(u64::from(sector) * SECTOR)),
            Found::Damaged(sector) => {
                let text = format!("grain table {table} at sector {sector} lies past the end of the file");
                Err(body.corrupt(text))
            }
        }
    }

    fn judge(&self, body: &Body, table: u32) -> Result<Found> {
        let primary = match self.entry(body, Side::Primary, table)? {
            Some(sector) => check(body, sector)?,
            None => Found::Nowhere,
        };
        if matches!(primary, Found::At(_)) {
            return Ok(primary);
        }
        let redundant = self.entry(body, Side::Redundant, table)?.unwrap_or(0);
        self.fall_back(body, table, primary, redundant)
    }

    /// The redundant entry where the primary one is of no use.
    fn fall_back(&self, body: &Body, table: u32, primary: Found, redundant: u32) -> Result<Found> {
        match check(body, redundant)? {
            Found::At(sector) => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    body.log.warning(|| {
                        format!(
                            "{}: the grain directory is damaged (table {table}), reading through the redundant one",
                            body.name
                        )
                    });
                }
                Ok(Found::At(sector))
            }
            Found::Damaged(sector) if primary == Found::Nowhere => Ok(Found::Damaged(sector)),
            _ => Ok(primary),
        }
    }

    /// The places of `tables` into `found` (emptied before); like [`Directory::find`], but nothing is kept.
    pub fn find_many(&self, body: &Body, tables: Range<u32>, found: &mut Vec<Found>) -> Result<()> {
        found.clear();
        let primary = self.read(body, Side::Primary, tables.clone())?;
        let mut redundant = None;
        for (i, table) in tables.clone().enumerate() {
            let judged = match primary.get(i) {
                Some(&sector) => check(body, sector)?,
                None => Found::Nowhere,
            };
            if matches!(judged, Found::At(_)) || self.places[1].is_none() {
                found.push(judged);
                continue;
            }
            if redundant.is_none() {
                redundant = Some(self.read(body, Side::Redundant, tables.clone())?);
            }
            let other = redundant.as_ref().and_then(|r| r.get(i)).copied().unwrap_or(0);
            found.push(self.fall_back(body, table, judged, other)?);
        }
        Ok(())
    }

    /// The raw entries of one side for `tables`; empty if that side does not exist. Holes of the file cost nothing.
    pub fn read(&self, body: &Body, side: Side, tables: Range<u32>) -> Result<Vec<u32>> {
        let Some(place) = self.place(side) else { return Ok(Vec::new()) };
        let count = tables.end.min(self.tables).saturating_sub(tables.start) as usize;
        let mut bytes = vec![0; count * 4];
        body.read_around_holes(&mut bytes, place + u64::from(tables.start) * 4)
            .context(|| format!("grain directory of {}", body.name))?;
        let mut words = vec![0; count];
        decode(&bytes, &mut words);
        Ok(words)
    }

    /// The raw entry of one side; `None` if that side does not exist.
    pub fn entry(&self, body: &Body, side: Side, table: u32) -> Result<Option<u32>> {
        let Some(place) = self.place(side) else { return Ok(None) };
        let number = table / PAGE as u32;
        let Some(slot) = self.slot(side, number) else { return Ok(None) };
        let index = table as usize % PAGE;
        if let Some(page) = &*slot.lock()
            && (page.number, page.side) == (number, side)
        {
            return Ok(page.entries.get(index).copied());
        }
        let changes = self.changes.load(Ordering::Acquire);
        let first = number * PAGE as u32;
        let count = self.tables.saturating_sub(first).min(PAGE as u32) as usize;
        let mut bytes = [0; PAGE * 4];
        let window = bytes.get_mut(..count * 4).unwrap_or_default();
        body.storage
            .read_at(window, place + u64::from(first) * 4)
            .context(|| format!("grain directory of {}", body.name))?;
        let mut page = Box::new(Page { number, side, entries: [0; PAGE] });
        decode(window, &mut page.entries);
        let entry = page.entries.get(index).copied();
        let mut slot = slot.lock();
        if self.changes.load(Ordering::Acquire) == changes {
            *slot = Some(page);
        }
        Ok(entry)
    }

    /// Writes an entry of one side.
    pub fn set_entry(&self, body: &Body, side: Side, table: u32, sector: u32) -> Result<()> {
        let Some(place) = self.place(side) else { return Ok(()) };
        body.storage
            .write_at(&sector.to_le_bytes(), place + u64::from(table) * 4)
            .context(|| format!("grain directory of {}", body.name))?;
        self.changes.fetch_add(1, Ordering::AcqRel);
        let number = table / PAGE as u32;
        if let Some(slot) = self.slot(side, number)
            && let Some(page) = &mut *slot.lock()
            && (page.number, page.side) == (number, side)
            && let Some(entry) = page.entries.get_mut(table as usize % PAGE)
        {
            *entry = sector;
        }
        Ok(())
    }

    fn slot(&self, side: Side, number: u32) -> Option<&Mutex<Option<Box<Page>>>> {
        let key = number as usize * 2 + usize::from(side == Side::Redundant);
        self.pages.get(key % self.pages.len().max(1))
    }
}

/// Whether a whole table fits into the file at `sector`.
pub(super) fn check(body: &Body, sector: u32) -> Result<Found> {
    if sector == 0 {
        return Ok(Found::Nowhere);
    }
    let inside = body.reaches(u64::from(sector) * SECTOR + TABLE_BYTES)?;
    Ok(if inside { Found::At(sector) } else { Found::Damaged(sector) })
}
