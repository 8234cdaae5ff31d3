//! Makes tables, directory and footer of a stream file again, from its records.
//!
//! Records stay where they are. What follows the last of them is cut off, durably, before anything else is written there,
//! and a header that names another directory is changed last. A cut in between leaves a file without its end, which the
//! next repair makes again in the same way.

use super::check::DIRECTORY_AT;
use super::check::RawHeader;
use super::check_walk::Records;
use super::write::END_OF_STREAM;
use super::write::FOOTER;
use super::write::GRAIN_DIRECTORY;
use super::write::GRAIN_TABLE;
use super::write::marker;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::sparse::Header;
use crate::format::sparse::header::ENTRIES;
use crate::format::sparse::header::FLAG_REDUNDANT;
use crate::format::sparse::header::TABLE_BYTES;
use crate::format::sparse::header::UNCLEAN_AT;
use crate::storage::Storage;
use crate::units::SECTOR;

/// A table with its marker.
const TABLE_RECORD: u64 = SECTOR + TABLE_BYTES;
/// Bytes written together.
const PIECE: usize = 1 << 20;
/// Where the header holds what a file with one directory at its end does not have.
const FLAGS_AT: usize = 8;
const REDUNDANT_AT: usize = 48;

/// Bytes that go to the file one after the other.
struct Pen<'a> {
    storage: &'a dyn Storage,
    at: u64,
    held: Vec<u8>,
}

impl Pen<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= PIECE { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        if !self.held.is_empty() {
            self.storage.write_at(&self.held, self.at)?;
        }
        self.at += self.held.len() as u64;
        self.held.clear();
        Ok(())
    }
}

/// Makes the end of the file again.
pub(super) fn mend(storage: &dyn Storage, raw: &RawHeader, header: &Header, records: &Records) -> Result<()> {
    let start = records.end;
    let tables = tables_of(records).count() as u64;
    let directory = start + tables * TABLE_RECORD;
    let directory_bytes = header.directory_bytes().next_multiple_of(SECTOR);
    let end = directory + directory_bytes + 4 * SECTOR;
    if end > (1 << 32) * SECTOR {
        return Err(Error::new(ErrorKind::FileTooBig, "the tables would stand behind what can be named"));
    }
    storage.set_len(start)?;
    storage.flush()?;
    let mut pen = Pen { storage, at: start, held: Vec::new() };
    put_tables(&mut pen, records)?;
    pen.put(&marker(directory_bytes / SECTOR, GRAIN_DIRECTORY))?;
    put_directory(&mut pen, records, start, directory_bytes)?;
    pen.put(&marker(1, FOOTER))?;
    pen.put(&with_directory(raw, directory / SECTOR + 1))?;
    pen.put(&marker(0, END_OF_STREAM))?;
    pen.write()?;
    storage.flush()?;
    let first = with_directory(raw, u64::MAX);
    if first != *raw {
        storage.write_at(&first, 0)?;
        storage.flush()?;
    }
    Ok(())
}

/// The header of a file whose writer is done and whose one directory is at `sector`.
fn with_directory(raw: &RawHeader, sector: u64) -> RawHeader {
    let mut header = *raw;
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(field) = header.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    let flags =
        raw.get(FLAGS_AT..).and_then(|rest| rest.first_chunk()).map_or(0, |flags| u32::from_le_bytes(*flags));
    put(FLAGS_AT, &(flags & !FLAG_REDUNDANT).to_le_bytes());
    put(REDUNDANT_AT, &[0; 8]);
    put(DIRECTORY_AT, &sector.to_le_bytes());
    put(UNCLEAN_AT as usize, &[0]);
    header
}

/// The numbers of the tables that have grains.
fn tables_of(records: &Records) -> impl Iterator<Item = u64> {
    let mut last = None;
    records.ascending().filter_map(move |(_, grain)| {
        let table = grain / ENTRIES as u64;
        (last.replace(table) != Some(table)).then_some(table)
    })
}

fn put_tables(pen: &mut Pen<'_>, records: &Records) -> Result<()> {
    let mut rest = records.ascending().peekable();
    for table in tables_of(records) {
        let mut entries = [0; TABLE_BYTES as usize];
        while let Some((sector, grain)) = rest.next_if(|(_, grain)| grain / ENTRIES as u64 == table) {
            let at = (grain % ENTRIES as u64) as usize * 4;
            if let Some(entry) = entries.get_mut(at..at + 4) {
                entry.copy_from_slice(&sector.to_le_bytes());
            }
        }
        pen.put(&marker(TABLE_BYTES / SECTOR, GRAIN_TABLE))?;
        pen.put(&entries)?;
    }
    Ok(())
}

/// The directory, of tables that stand one behind the other from `start` on.
fn put_directory(pen: &mut Pen<'_>, records: &Records, start: u64, bytes: u64) -> Result<()> {
    let mut named = tables_of(records).zip(0u64..).peekable();
    for sector in 0..bytes / SECTOR {
        let mut entries = [0; SECTOR as usize];
        for (table, entry) in (sector * SECTOR / 4..).zip(entries.as_chunks_mut::<4>().0) {
            if let Some((_, nth)) = named.next_if(|(named, _)| *named == table) {
                *entry = (((start + nth * TABLE_RECORD) / SECTOR + 1) as u32).to_le_bytes(); // below the limit
            }
        }
        pen.put(&entries)?;
    }
    Ok(())
}
