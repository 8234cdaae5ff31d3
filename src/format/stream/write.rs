//! The file side of writing: packed grains go in, ascending; tables, directory and footer follow.
//!
//! ```text
//!   created    KDMV │ descriptor │ directory of zeros │ footer │ end          an empty disk, complete
//!   begun      kdmv │ descriptor │ grains, table, grains, table …             refused by every reader
//!   finished   KDMV │ descriptor │ grains, table … │ directory │ footer │ end
//! ```
//!
//! The first letters change to lower case before the first grain and back after everything else is stable, so a file whose
//! writer was killed is never taken for a complete one. Each table stands behind its grains, tables without grains are
//! left out, and the directory stands at the end, as in what ESXi exports.

use std::sync::Arc;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::create;
use crate::format::create::CreateSpec;
use crate::format::create::Layout;
use crate::format::create::NewFile;
use crate::format::create::NewIdentity;
use crate::format::create::Piece;
use crate::format::descriptor::ExtentAccess;
use crate::format::descriptor::ExtentKind;
use crate::format::descriptor::ExtentLine;
use crate::format::sparse::Header;
use crate::format::sparse::header::ENTRIES;
use crate::format::sparse::header::MAGIC;
use crate::format::sparse::header::MAGIC_INCOMPLETE;
use crate::format::sparse::header::TABLE_BYTES;
use crate::format::stream::write_pack::Batch;
use crate::storage::Storage;
use crate::units::SECTOR;
use crate::units::Sectors;

/// Sectors of a grain.
pub const GRAIN: u64 = 128;
/// Bytes of a grain.
pub const GRAIN_BYTES: usize = (GRAIN * SECTOR) as usize;

/// Sectors kept for the descriptor.
const DESCRIPTOR_SECTORS: u64 = 20;
/// The first grain's place: everything before is header, descriptor and padding.
const OVERHEAD: u64 = 128;
/// Line-end check bytes are valid, grains are compressed, everything has a marker.
const FLAGS: u32 = 0x3_0001;
/// ESXi imports no file with a lower one.
const VERSION: u32 = 3;
/// Entries are 32-bit sector numbers.
const FILE_LIMIT: u64 = (1 << 32) * SECTOR;
pub(super) const END_OF_STREAM: u32 = 0;
pub(super) const GRAIN_TABLE: u32 = 1;
pub(super) const GRAIN_DIRECTORY: u32 = 2;
pub(super) const FOOTER: u32 = 3;

/// The one file of a new disk without data. `name` is its name without folder.
pub fn stream_optimized(spec: &CreateSpec, name: &str, identity: &NewIdentity) -> Result<Layout> {
    create::check_name(name)?;
    create::check_capacity(spec.capacity)?;
    let extent = ExtentLine {
        access: ExtentAccess::ReadWrite,
        sectors: spec.capacity,
        kind: ExtentKind::Sparse,
        name: Some(name.to_owned()),
        offset: Sectors(0),
    };
    let text = create::descriptor_text(spec, "streamOptimized", &[extent], identity)?;
    let room = DESCRIPTOR_SECTORS * SECTOR;
    if text.len() as u64 > room {
        let message = format!("the descriptor has {} bytes, the file has room for {room}", text.len());
        return Err(Error::new(ErrorKind::NameTooLong, message));
    }
    let tables = tables_of(spec.capacity);
    let end = tail(spec.capacity, OVERHEAD * SECTOR, &vec![0; tables])?;
    let len = OVERHEAD * SECTOR + end.len() as u64;
    let pieces = vec![
        Piece { offset: 0, bytes: header(spec.capacity, None).to_vec() },
        Piece { offset: SECTOR, bytes: text },
        Piece { offset: OVERHEAD * SECTOR, bytes: end },
    ];
    Ok(Layout { files: vec![NewFile { name: name.to_owned(), len, pieces, preallocate: false }] })
}

/// A file being written. Grains come in ascending order.
#[derive(Debug)]
pub struct StreamWriter {
    storage: Arc<dyn Storage>,
    capacity: Sectors,
    /// Where the next record goes, in bytes.
    end: u64,
    /// The sector of each finished table, 0 for one without grains.
    directory: Vec<u32>,
    /// The table that is being filled.
    table: Box<[u32; ENTRIES]>,
    table_number: usize,
}

impl StreamWriter {
    /// The writer of a file that [`stream_optimized`] made and nobody has written to; `footer` is what its end says.
    /// Changes nothing yet.
    pub fn open(storage: Arc<dyn Storage>, footer: &Header) -> Result<StreamWriter> {
        let mut first = [0; SECTOR as usize];
        storage.read_at(&mut first, 0).context(|| "header")?;
        let Some(directory) = footer.directory.filter(|_| first == header(footer.capacity, None)) else {
            return Err(written_once("another program made it"));
        };

        let tables = tables_of(footer.capacity);
        let mut entries = vec![0; tables * 4];
        storage.read_at(&mut entries, directory).context(|| "grain directory")?;
        if entries.iter().any(|byte| *byte != 0) {
            return Err(written_once("it holds data already"));
        }
        StreamWriter::new(storage, footer.capacity)
    }

    /// The writer of a file that begins as it should and has no data.
    pub fn new(storage: Arc<dyn Storage>, capacity: Sectors) -> Result<StreamWriter> {
        create::check_capacity(capacity)?;
        Ok(StreamWriter {
            storage,
            capacity,
            end: OVERHEAD * SECTOR,
            directory: vec![0; tables_of(capacity)],
            table: Box::new([0; ENTRIES]),
            table_number: 0,
        })
    }

    /// Marks the file as unfinished, durably, and takes its old end away.
    pub fn begin(&self) -> Result<()> {
        self.storage.write_at(&MAGIC_INCOMPLETE, 0)?;
        self.storage.flush()?;
        self.storage.set_len(OVERHEAD * SECTOR)
    }

    /// Adds the grains of a packed batch.
    pub fn append(&mut self, batch: &Batch) -> Result<()> {
        let mut done = 0;
        for (i, (grain, _)) in batch.records().enumerate() {
            if self.table_of(grain)? < self.table_number {
                return Err(Error::new(ErrorKind::Internal, format!("grain {grain} comes too late")));
            }
            if self.table_of(grain)? != self.table_number {
                // The records so far belong before the table.
                self.write(batch.packed_records(done..i))?;
                done = i;
                self.end_table()?;
                self.table_number = self.table_of(grain)?;
            }
            let at = self.end + batch.packed_records(done..i).len() as u64;
            let len = batch.packed_records(i..i + 1).len() as u64;
            if at + len > FILE_LIMIT {
                return Err(too_big());
            }
            let index = (grain % ENTRIES as u64) as usize;
            if let Some(entry) = self.table.get_mut(index) {
                *entry = (at / SECTOR) as u32; // below the limit
            }
        }
        self.write(batch.packed_records(done..usize::MAX))
    }

    /// Where the marker of a grain that was added stands, `None` if it was not.
    pub fn find(&self, grain: u64) -> Result<Option<u64>> {
        let table = self.table_of(grain)?;
        let index = (grain % ENTRIES as u64) as usize;
        let entry = match table == self.table_number {
            true => self.table.get(index).copied().unwrap_or(0),
            false => match self.directory.get(table).copied().unwrap_or(0) {
                0 => 0,
                sector => {
                    let mut bytes = [0; 4];
                    self.storage.read_at(&mut bytes, u64::from(sector) * SECTOR + index as u64 * 4)?;
                    u32::from_le_bytes(bytes)
                }
            },
        };
        Ok((entry != 0).then_some(u64::from(entry) * SECTOR))
    }

    /// The storage it writes to.
    pub fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// Size of the disk.
    pub fn capacity(&self) -> Sectors {
        self.capacity
    }

    /// Writes what is left, makes all of it stable and marks the file as complete, durably.
    pub fn finish(&mut self) -> Result<()> {
        self.end_table()?;
        let end = tail(self.capacity, self.end, &self.directory)?;
        self.write(&end)?;
        self.storage.flush()?;
        self.storage.write_at(&MAGIC, 0)?;
        self.storage.flush()
    }

    /// Writes the table behind its grains, if it has any.
    fn end_table(&mut self) -> Result<()> {
        if self.table.iter().all(|entry| *entry == 0) {
            return Ok(());
        }
        let mut record = marker(TABLE_BYTES / SECTOR, GRAIN_TABLE).to_vec();
        self.table.iter().for_each(|entry| record.extend_from_slice(&entry.to_le_bytes()));
        let sector = u32::try_from(self.end / SECTOR + 1).map_err(|_| too_big())?;
        self.write(&record)?;
        if let Some(entry) = self.directory.get_mut(self.table_number) {
            *entry = sector;
        }
        self.table.fill(0);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if !bytes.is_empty() {
            self.storage.write_at(bytes, self.end)?;
            self.end += bytes.len() as u64;
        }
        Ok(())
    }

    /// The table of a grain.
    fn table_of(&self, grain: u64) -> Result<usize> {
        let table = usize::try_from(grain / ENTRIES as u64).unwrap_or(usize::MAX);
        if table < self.directory.len() {
            return Ok(table);
        }
        Err(Error::new(ErrorKind::Internal, format!("grain {grain} lies outside the disk")))
    }
}

/// Refuses to write to a file for a reason.
fn written_once(why: &str) -> Error {
    let message = format!("a stream-optimised disk is written once, right after this library made it: {why}");
    Error::new(ErrorKind::ReadOnly, message)
}

fn too_big() -> Error {
    Error::new(
        ErrorKind::FileTooBig,
        format!("a stream-optimised file cannot hold more than {FILE_LIMIT} bytes"),
    )
}

/// How many tables a disk has; at most 2 million.
fn tables_of(capacity: Sectors) -> usize {
    capacity.0.div_ceil(GRAIN).div_ceil(ENTRIES as u64) as usize
}

/// A marker of something that is no grain, `sectors` long.
pub(super) fn marker(sectors: u64, kind: u32) -> [u8; SECTOR as usize] {
    let mut bytes = [0; SECTOR as usize];
    bytes[..8].copy_from_slice(&sectors.to_le_bytes());
    bytes[12..16].copy_from_slice(&kind.to_le_bytes());
    bytes
}

/// What ends a file: directory, footer, end of stream, all with their markers. It will stand at byte `at`.
fn tail(capacity: Sectors, at: u64, directory: &[u32]) -> Result<Vec<u8>> {
    let mut entries: Vec<u8> = directory.iter().flat_map(|sector| sector.to_le_bytes()).collect();
    entries.resize(entries.len().next_multiple_of(SECTOR as usize), 0);
    let sectors = entries.len() as u64 / SECTOR;
    let place = at / SECTOR + 1;
    if place > u64::from(u32::MAX) {
        return Err(too_big());
    }
    let mut bytes = marker(sectors, GRAIN_DIRECTORY).to_vec();
    bytes.append(&mut entries);
    bytes.extend_from_slice(&marker(1, FOOTER));
    bytes.extend_from_slice(&header(capacity, Some(place)));
    bytes.extend_from_slice(&marker(0, END_OF_STREAM));
    Ok(bytes)
}

/// The header, or with the sector of the directory the footer.
fn header(capacity: Sectors, directory: Option<u64>) -> [u8; SECTOR as usize] {
    let mut header = [0; SECTOR as usize];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC);
    put(4, &VERSION.to_le_bytes());
    put(8, &FLAGS.to_le_bytes());
    put(12, &capacity.0.to_le_bytes());
    put(20, &GRAIN.to_le_bytes());
    put(28, &1u64.to_le_bytes()); // the descriptor's sector
    put(36, &DESCRIPTOR_SECTORS.to_le_bytes());
    put(44, &(ENTRIES as u32).to_le_bytes());
    put(56, &directory.unwrap_or(u64::MAX).to_le_bytes());
    put(64, &OVERHEAD.to_le_bytes());
    put(73, b"\n \r\n");
    put(77, &1u16.to_le_bytes()); // deflate
    header
}
