//! The bytes of a new hosted sparse file.

use crate::error::{Error, ErrorKind, Result};
use crate::format::create::NewFile;
use crate::format::create::Piece;
use crate::units::SECTOR;
use crate::units::Sectors;

/// A hosted sparse file without data: header, descriptor, the redundant and the primary directory with all their tables.
/// The tables are zeros and therefore no pieces.
pub(super) fn sparse_file(capacity: Sectors, name: &str, descriptor: Option<&[u8]>) -> Result<NewFile> {
    let places = SparsePlaces::new(capacity, descriptor.is_some())?;
    let mut pieces = vec![Piece { offset: 0, bytes: places.header(capacity).to_vec() }];
    if let Some(text) = descriptor {
        let room = DESCRIPTOR_SECTORS * SECTOR;
        if text.len() as u64 > room {
            let message = format!("the descriptor has {} bytes, the file has room for {room}", text.len());
            return Err(Error::new(ErrorKind::NameTooLong, message));
        }
        pieces.push(Piece { offset: SECTOR, bytes: text.to_vec() });
    }
    for directory in [places.redundant, places.primary] {
        pieces.push(Piece { offset: directory * SECTOR, bytes: places.directory(directory)? });
    }
    Ok(NewFile { name: name.to_owned(), len: places.overhead * SECTOR, pieces, preallocate: false })
}

/// Where the parts of a hosted sparse file stand, in sectors.
#[derive(Debug)]
struct SparsePlaces {
    descriptor: bool,
    tables: u64,
    /// Length of a directory.
    directory_sectors: u64,
    redundant: u64,
    primary: u64,
    overhead: u64,
}

impl SparsePlaces {
    fn new(capacity: Sectors, descriptor: bool) -> Result<SparsePlaces> {
        let grains = capacity.0.div_ceil(GRAIN);
        let tables = grains.div_ceil(ENTRIES);
        let directory_sectors = (tables * 4).div_ceil(SECTOR);
        let redundant = if descriptor { 1 + DESCRIPTOR_SECTORS } else { 1 };
        let primary = redundant + directory_sectors + tables * TABLE_SECTORS;
        let end = primary + directory_sectors + tables * TABLE_SECTORS;
        let overhead = end.next_multiple_of(GRAIN);
        if overhead + grains * GRAIN > ADDRESSABLE {
            let message = format!(
                "a sparse file can address {ADDRESSABLE} sectors, a disk of {} needs {}",
                capacity.0,
                overhead + grains * GRAIN
            );
            return Err(Error::new(ErrorKind::FileTooBig, message));
        }
        Ok(SparsePlaces { descriptor, tables, directory_sectors, redundant, primary, overhead })
    }

    fn header(&self, capacity: Sectors) -> [u8; 512] {
        let (descriptor, descriptor_sectors) = if self.descriptor { (1, DESCRIPTOR_SECTORS) } else { (0, 0) };
        let mut header = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"KDMV");
        put(4, &1u32.to_le_bytes()); // version
        put(8, &FLAGS.to_le_bytes());
        put(12, &capacity.0.to_le_bytes());
        put(20, &GRAIN.to_le_bytes());
        put(28, &u64::to_le_bytes(descriptor));
        put(36, &descriptor_sectors.to_le_bytes());
        put(44, &512u32.to_le_bytes()); // entries of a table
        put(48, &self.redundant.to_le_bytes());
        put(56, &self.primary.to_le_bytes());
        put(64, &self.overhead.to_le_bytes());
        put(72, &[0]); // not being written
        put(73, b"\n \r\n"); // shows whether a text-mode copy mangled the file
        header
    }

    /// The directory at sector `at`: the sectors of its tables, which follow it.
    fn directory(&self, at: u64) -> Result<Vec<u8>> {
        let first = at + self.directory_sectors;
        let sector_of = |table| u32::try_from(first + table * TABLE_SECTORS).ok();
        let entries: Option<Vec<[u8; 4]>> =
            (0..self.tables).map(|table| sector_of(table).map(u32::to_le_bytes)).collect();
        let entries = entries.ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("{} tables do not fit in 32-bit sectors", self.tables))
        })?;
        Ok(entries.concat())
    }
}

/// Sectors of a grain in everything VMware writes.
const GRAIN: u64 = 128;
/// Entries of a grain table.
const ENTRIES: u64 = 512;
/// Sectors of a grain table.
const TABLE_SECTORS: u64 = 4;
/// Sectors that are kept for an embedded descriptor.
const DESCRIPTOR_SECTORS: u64 = 20;
/// Line-end check bytes are valid, and there is a redundant directory.
const FLAGS: u32 = 3;
/// Table entries are 32-bit sector numbers.
const ADDRESSABLE: u64 = 1 << 32;
