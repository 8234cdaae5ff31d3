//! Mends what the check found: copies are made behind everything that is used and made stable, then the entries are
//! switched, redundant tables first, and at last the unused end is cut off.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::sparse::Header;
use crate::format::sparse::body::Body;
use crate::format::sparse::check_entries::Value;
use crate::format::sparse::check_tables::Copies;
use crate::format::sparse::check_tables::Found;
use crate::format::sparse::directory::Directory;
use crate::format::sparse::directory::Side;
use crate::format::sparse::header::ENTRIES;
use crate::format::sparse::header::TABLE_BYTES;
use crate::units::SECTOR;
use crate::units::align_up;

/// Entries are sector numbers of 32 bits.
const FILE_LIMIT: u64 = (1 << 32) * SECTOR;
const PIECE: u64 = 1 << 20;
/// Where the header names the directories.
const REDUNDANT_AT: u64 = 48;
const PRIMARY_AT: u64 = 56;

struct Mender<'a> {
    header: &'a Header,
    body: &'a Body,
    found: &'a Found,
    /// Where the next copy goes.
    next: u64,
    /// New values of entries by grain.
    values: BTreeMap<u64, u32>,
}

/// Mends everything; nothing else may be wrong with the file, since that might be where the copies go. `cut` also gives
/// back the unused end of the file.
pub(super) fn apply(header: &Header, body: &Body, found: &Found, cut: bool) -> Result<()> {
    let next = align_up(found.end, header.grain_bytes()).ok_or_else(too_big)?;
    let mut mender = Mender { header, body, found, next, values: BTreeMap::new() };
    mender.copy_grains()?;
    let named = mender.copy_tables()?;
    let directory = mender.copy_directory(&named)?;
    body.storage.flush()?;
    mender.write_entries()?;
    mender.name_tables(&named, directory)?;
    body.storage.flush()?;
    let end = mender.next;
    if cut && body.storage.size()? > end {
        body.storage.set_len(end)?;
        body.storage.flush()?;
    }
    Ok(())
}

/// The side on which a table has no usable copy and needs one.
fn missing(header: &Header, copies: &Copies) -> Option<Side> {
    match (copies.primary, copies.redundant) {
        (None, Some(_)) => Some(Side::Primary),
        (Some(_), None) if header.has_redundant_tables() => Some(Side::Redundant),
        _ => None,
    }
}

fn too_big() -> Error {
    Error::new(ErrorKind::FileTooBig, "a sparse file cannot grow past 2 TiB")
}

impl Mender<'_> {
    /// Space for `bytes` behind everything that is used, made part of the file.
    fn take(&mut self, bytes: u64) -> Result<u64> {
        let at = self.next;
        let end = at.checked_add(bytes).filter(|&end| end <= FILE_LIMIT).ok_or_else(too_big)?;
        self.next = align_up(end, self.header.grain_bytes()).ok_or_else(too_big)?;
        if self.body.storage.size()? < self.next {
            self.body.storage.set_len(self.next)?;
        }
        Ok(at)
    }

    fn copy_grains(&mut self) -> Result<()> {
        for fix in &self.found.fixes {
            let value = match fix.value {
                Value::Entry(entry) => entry,
                Value::CopyOf(sector) => self.copy_grain(fix.grain, sector)?,
                Value::Lengthen(sector) => {
                    let end = u64::from(sector) * SECTOR + self.header.grain_bytes();
                    if self.body.storage.size()? < end {
                        self.body.storage.set_len(end)?;
                    }
                    continue;
                }
            };
            self.values.insert(fix.grain, value);
        }
        Ok(())
    }

    fn copy_grain(&mut self, grain: u64, sector: u32) -> Result<u32> {
        let bytes = self.header.grain_bytes();
        let used = bytes.min(self.header.capacity_bytes() - grain * bytes);
        let to = self.take(bytes)?;
        let mut done = 0;
        while done < bytes {
            let mut piece = vec![0; PIECE.min(bytes - done) as usize];
            let known = (used.saturating_sub(done) as usize).min(piece.len());
            if let Some(window) = piece.get_mut(..known) {
                self.body.storage.read_at(window, u64::from(sector) * SECTOR + done)?;
            }
            self.body.storage.write_at(&piece, to + done)?;
            done += piece.len() as u64;
        }
        Ok((to / SECTOR) as u32)
    }

    /// Copies of the tables that have none on one side; where they stand.
    fn copy_tables(&mut self) -> Result<Vec<(Side, u32, u32)>> {
        let mut named = Vec::new();
        let mut room = 0..0;
        for copies in &self.found.tables {
            let (Some(side), Some(from)) = (missing(self.header, copies), copies.readable()) else {
                continue;
            };
            if room.end - room.start < TABLE_BYTES {
                let bytes = self.header.grain_bytes().max(TABLE_BYTES);
                let at = self.take(bytes)?;
                room = at..at + bytes;
            }
            let mut entries = self.body.read_table(from)?;
            let first = u64::from(copies.table) * ENTRIES as u64;
            for (grain, value) in self.values.range(first..first + ENTRIES as u64) {
                if let Some(entry) = entries.get_mut((grain - first) as usize) {
                    *entry = *value;
                }
            }
            let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
            self.body.storage.write_at(&bytes, room.start)?;
            named.push((side, copies.table, (room.start / SECTOR) as u32));
            room.start += TABLE_BYTES;
        }
        Ok(named)
    }

    /// A new directory for the side that has none; where it stands.
    fn copy_directory(&mut self, named: &[(Side, u32, u32)]) -> Result<Option<u64>> {
        if self.found.lost_side.is_none() {
            return Ok(None);
        }
        let bytes = self.header.directory_bytes();
        let at = self.take(bytes)?;
        let mut done = 0;
        let mut rest = named.iter().peekable();
        while done < bytes {
            let mut piece = vec![0; PIECE.min(bytes - done) as usize];
            for (table, entry) in (done / 4..).zip(piece.as_chunks_mut::<4>().0) {
                if let Some((_, _, sector)) = rest.next_if(|named| u64::from(named.1) == table) {
                    *entry = sector.to_le_bytes();
                }
            }
            self.body.storage.write_at(&piece, at + done)?;
            done += piece.len() as u64;
        }
        Ok(Some(at))
    }

    /// Writes the new entries into the tables that are there.
    fn write_entries(&self) -> Result<()> {
        for redundant in [true, false] {
            for copies in &self.found.tables {
                let place = if redundant { copies.redundant } else { copies.primary };
                let first = u64::from(copies.table) * ENTRIES as u64;
                let Some(place) = place else { continue };
                for (grain, value) in self.values.range(first..first + ENTRIES as u64) {
                    self.body.storage.write_at(&value.to_le_bytes(), place + (grain - first) * 4)?;
                }
            }
        }
        Ok(())
    }

    /// Enters the new tables into the directory, or the new directory into the header.
    fn name_tables(&self, named: &[(Side, u32, u32)], new_directory: Option<u64>) -> Result<()> {
        if let (Some(at), Some(side)) = (new_directory, self.found.lost_side) {
            let field = if side == Side::Primary { PRIMARY_AT } else { REDUNDANT_AT };
            return self.body.storage.write_at(&(at / SECTOR).to_le_bytes(), field);
        }
        let directory = Directory::new(self.header);
        named
            .iter()
            .try_for_each(|&(side, table, sector)| directory.set_entry(self.body, side, table, sector))
    }
}
