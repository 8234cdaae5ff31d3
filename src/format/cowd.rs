//! COWD: the delta of a snapshot on VMFS (`vmfsSparse`). Read only.
//!
//! ```text
//!   header, 4 sectors │ grain directory, u32 each │ tables of 4096 u32 and grains, in order of first write
//! ```
//!
//! Grains are 1 sector by default, so neighbouring sectors that stand together in the file are answered as one run.
//! `check` finds damage. A delta belongs to the host that wrote it: writing into it from outside breaks a running machine, so it is refused.

mod check;

use std::ops::Range;
use std::sync::Arc;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::Image;
use crate::format::Mapping;
use crate::format::Pending;
use crate::format::Presence;
use crate::format::bytes::u32_at;
use crate::format::lookup::Entries;
use crate::format::lookup::Lookup;
use crate::format::lookup::Place;
use crate::format::lookup::Shape;
use crate::format::lookup::TablePlace;
use crate::format::lookup::within;
use crate::logging::Log;
use crate::storage::Storage;
use crate::units::SECTOR;

/// A COWD file.
#[derive(Debug)]
pub struct Cowd {
    lookup: Lookup<CowdEntries>,
}

impl Cowd {
    /// Checks the header of a COWD file. Tables are read when they are needed.
    pub fn open(storage: Arc<dyn Storage>, log: Log, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let (delta, header) = Self::prepare(storage, log.clone(), name.clone()).context(|| name.clone())?;
        if header.unclean {
            log.info(|| format!("{name}: the delta was not closed cleanly"));
        }
        Ok(delta)
    }

    /// The same with room for about `bytes` of tables, instead of 2.5 MiB. For the links of long chains.
    #[must_use]
    pub fn with_table_cache(self, bytes: usize) -> Self {
        Self { lookup: self.lookup.with_budget(bytes) }
    }

    fn prepare(storage: Arc<dyn Storage>, log: Log, name: String) -> Result<(Self, Header)> {
        let file = storage.size()?;
        if file < HEADER_BYTES as u64 {
            let message = format!("a COWD header has {HEADER_BYTES} bytes, the file {file}");
            return Err(Error::new(ErrorKind::NotADisk, message));
        }
        let mut raw = [0; HEADER_BYTES];
        storage.read_at(&mut raw, 0).context(|| "COWD header")?;
        let header = Header::parse(&raw, file)?;
        let entries =
            CowdEntries { first: header.first_free, file, grain: u64::from(header.grain_sectors) * SECTOR };
        let shape = Shape {
            capacity: u64::from(header.sectors) * SECTOR,
            grain: entries.grain,
            entries: TABLE_ENTRIES,
            directory: u64::from(header.directory) * SECTOR,
            spare: None,
            file,
        };
        Ok((Self { lookup: Lookup::new(storage, entries, shape, log, name)? }, header))
    }
}

impl Image for Cowd {
    fn capacity(&self) -> u64 {
        self.lookup.shape().capacity
    }

    fn map(&self, offset: u64, max: u64) -> Result<(Mapping<'_>, u64)> {
        let (place, run) = self.lookup.map(offset, max)?;
        let mapping = match place {
            Place::Data(offset) => Mapping::Data { storage: self.lookup.storage(), offset },
            _ => Mapping::Unallocated, // the format has no zero grains, and bad ones are errors
        };
        Ok((mapping, run))
    }

    fn scan(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>, Presence)) -> Result<()> {
        self.lookup.scan(range, sink)
    }

    fn begin_writing(&self) -> Result<()> {
        Err(self.read_only())
    }

    fn prepare(&self, _offset: u64, _len: u64) -> Result<Option<Pending<'_>>> {
        Err(self.read_only())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

impl Cowd {
    fn read_only(&self) -> Error {
        let message =
            format!("{}: a vmfsSparse delta belongs to its host and is only read", self.lookup.name());
        Error::new(ErrorKind::ReadOnly, message)
    }
}

/// Bytes of the header.
const HEADER_BYTES: usize = 2048;
/// Entries of a grain table.
const TABLE_ENTRIES: u16 = 4096;
/// The largest grain that the format allows, in sectors.
const GRAIN_LIMIT: u32 = 2048;
/// The flag bits that the format defines; both are always set.
const FLAGS: u32 = 3;

/// What the header says that a reader needs, or a check.
struct Header {
    flags: u32,
    sectors: u32,
    grain_sectors: u32,
    /// Sector of the grain directory.
    directory: u32,
    /// Entries of the directory.
    entries: u32,
    /// The next free sector of the file, as the writer counts.
    free: u32,
    /// The first byte behind header and directory, where tables and grains may start.
    first_free: u64,
    unclean: bool,
}

impl Header {
    fn parse(raw: &[u8], file: u64) -> Result<Self> {
        if raw.get(..4) != Some(b"COWD") {
            return Err(Error::new(ErrorKind::NotADisk, "the magic COWD is missing"));
        }
        let version = u32_at(raw, 4, "version")?;
        if version != 1 {
            return Err(Error::new(
                ErrorKind::UnsupportedVersion,
                format!("COWD version {version}, known is 1"),
            ));
        }
        let flags = u32_at(raw, 8, "flags")?;
        if flags & !FLAGS != 0 {
            let message = format!("COWD flags {flags:#x}, known are {FLAGS:#x}");
            return Err(Error::new(ErrorKind::UnsupportedFeature, message));
        }
        let insane = |message: String| Err(Error::new(ErrorKind::NotADisk, message));
        let sectors = u32_at(raw, 12, "capacity")?;
        if sectors == 0 {
            return insane("the capacity is 0 sectors".into());
        }
        let grain_sectors = u32_at(raw, 16, "grain size")?;
        if !(1..=GRAIN_LIMIT).contains(&grain_sectors) {
            return insane(format!("grains of {grain_sectors} sectors, expected 1 to {GRAIN_LIMIT}"));
        }
        let directory = u32_at(raw, 20, "directory offset")?;
        if u64::from(directory) * SECTOR < HEADER_BYTES as u64 {
            return insane(format!("the grain directory at sector {directory} overlaps the header"));
        }
        let entries = u32_at(raw, 24, "directory entries")?;
        let tables = u64::from(sectors).div_ceil(u64::from(grain_sectors) * u64::from(TABLE_ENTRIES));
        if u64::from(entries) < tables {
            return insane(format!("{sectors} sectors need {tables} directory entries, there are {entries}"));
        }
        let bytes = tables.next_multiple_of(SECTOR / 4) * 4;
        if !within(u64::from(directory) * SECTOR, tables * 4, file) {
            return insane(format!("the grain directory at sector {directory} passes the end of the file"));
        }
        let first_free = u64::from(directory) * SECTOR + bytes;
        let unclean = u32_at(raw, 1648, "unclean shutdown")? != 0;
        let free = u32_at(raw, 28, "free sector")?;
        Ok(Self { flags, sectors, grain_sectors, directory, entries, free, first_free, unclean })
    }
}

/// Sector numbers, 0 for "not here".
#[derive(Debug)]
struct CowdEntries {
    /// The first byte where tables and grains may start.
    first: u64,
    file: u64,
    grain: u64,
}

impl Entries for CowdEntries {
    const BYTES: usize = 4;

    fn table(&self, entry: u64) -> TablePlace {
        match entry.saturating_mul(SECTOR) {
            0 => TablePlace::Absent,
            at if at >= self.first => TablePlace::At(at),
            _ => TablePlace::Bad,
        }
    }

    fn grain(&self, entry: u64, needed: u64) -> Place {
        match entry.saturating_mul(SECTOR) {
            0 => Place::Unallocated,
            at if at >= self.first && within(at, needed, self.file) => Place::Data(at),
            _ => Place::Bad,
        }
    }

    fn fault(&self, entry: u64) -> String {
        if entry.saturating_mul(SECTOR) < self.first {
            return format!("table entry {entry:#x} points into header or directory");
        }
        format!(
            "table entry {entry:#x}: a grain of {} bytes there passes the end of the file ({} bytes)",
            self.grain, self.file
        )
    }
}
