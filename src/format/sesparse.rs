//! SESparse: the space-efficient delta of ESXi (`seSparse`). Read only.
//!
//! ```text
//!   constant header │ volatile header │ journal header ┊ journal ┊ directory ┊ tables ┊ bitmap ┊ backmap ┊ grains
//! ```
//!
//! There is no public specification; what is known comes from other readers and one real file. What is not known is refused:
//! other versions, flags, a journal that waits to be replayed.

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
use crate::format::bytes::u64_at;
use crate::format::lookup::Entries;
use crate::format::lookup::Lookup;
use crate::format::lookup::Place;
use crate::format::lookup::Shape;
use crate::format::lookup::TablePlace;
use crate::format::lookup::within;
use crate::logging::Log;
use crate::storage::Storage;
use crate::units::SECTOR;

/// A SESparse file.
#[derive(Debug)]
pub struct SeSparse {
    lookup: Lookup<SeEntries>,
}

impl SeSparse {
    /// Checks both headers of a SESparse file. Directory and tables are read when they are needed.
    pub fn open(storage: Arc<dyn Storage>, log: Log, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let opened = Self::prepare(storage, log, name.clone()).and_then(|(delta, _, volatile)| {
            check_journal(&volatile)?;
            Ok(delta)
        });
        opened.context(|| name)
    }

    /// The same with room for about `bytes` of tables, instead of 2.5 MiB. For the links of long chains.
    #[must_use]
    pub fn with_table_cache(self, bytes: usize) -> Self {
        Self { lookup: self.lookup.with_budget(bytes) }
    }

    /// Reads both headers; the journal may wait. The second header comes as it stands.
    fn prepare(storage: Arc<dyn Storage>, log: Log, name: String) -> Result<(Self, Header, Sector)> {
        let file = storage.size()?;
        if file < SECTOR {
            let message = format!("a SESparse header has {SECTOR} bytes, the file {file}");
            return Err(Error::new(ErrorKind::NotADisk, message));
        }
        let mut raw = [0; SECTOR as usize];
        storage.read_at(&mut raw, 0).context(|| "SESparse header")?;
        let header = Header::parse(&raw, file)?;
        storage.read_at(&mut raw, header.volatile * SECTOR).context(|| "SESparse volatile header")?;
        check_volatile(&raw)?;
        let shape = Shape {
            capacity: header.capacity * SECTOR,
            grain: GRAIN_SECTORS * SECTOR,
            entries: TABLE_ENTRIES,
            directory: header.directory.start * SECTOR,
            spare: None,
            file,
        };
        let entries = SeEntries { tables: header.tables.clone(), grains: header.grains.clone(), file };
        Ok((Self { lookup: Lookup::new(storage, entries, shape, log, name)? }, header, raw))
    }

    fn read_only(&self) -> Error {
        let message =
            format!("{}: a seSparse delta belongs to its host and is only read", self.lookup.name());
        Error::new(ErrorKind::ReadOnly, message)
    }
}

impl Image for SeSparse {
    fn capacity(&self) -> u64 {
        self.lookup.shape().capacity
    }

    fn map(&self, offset: u64, max: u64) -> Result<(Mapping<'_>, u64)> {
        let (place, run) = self.lookup.map(offset, max)?;
        let mapping = match place {
            Place::Data(offset) => Mapping::Data { storage: self.lookup.storage(), offset },
            Place::Zero => Mapping::Zero,
            Place::Unallocated | Place::Bad => Mapping::Unallocated, // bad ones are errors already
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

const CONSTANT_MAGIC: u64 = 0x0000_0000_cafe_babe;
const VOLATILE_MAGIC: u64 = 0x0000_0000_cafe_cafe;
/// Version 2.1, the only one that is known.
const VERSION: u64 = 0x0000_0002_0000_0001;
/// Sectors of a grain, the only size that is known.
const GRAIN_SECTORS: u64 = 8;
/// Sectors of a grain table, the only size that is known.
const TABLE_SECTORS: u64 = 64;
const TABLE_ENTRIES: u16 = 4096;
/// Larger disks than any product makes; keeps the arithmetic far from its limits.
const CAPACITY_LIMIT: u64 = 1 << 40;
/// The high half of a directory entry that names a table.
const TABLE_MARK: u64 = 0x1000_0000;

type Sector = [u8; SECTOR as usize];

/// What the constant header says that a reader needs, in sectors.
struct Header {
    /// In the order of [`AREAS`].
    areas: [Range<u64>; 8],
    capacity: u64,
    volatile: u64,
    directory: Range<u64>,
    tables: Range<u64>,
    grains: Range<u64>,
}

/// The areas of the file: name, byte of the offset field in the header; the size field follows it.
const AREAS: [(&str, usize); 8] = [
    ("volatile header", 80),
    ("journal header", 96),
    ("journal", 112),
    ("grain directory", 128),
    ("grain tables", 144),
    ("free bitmap", 160),
    ("backmap", 176),
    ("grains", 192),
];
/// Bytes of the header that hold fields; zeros follow.
const FIELDS: usize = 208;

impl Header {
    fn parse(raw: &[u8], file: u64) -> Result<Self> {
        if u64_at(raw, 0, "magic")? != CONSTANT_MAGIC {
            return Err(Error::new(ErrorKind::NotADisk, "the SESparse magic is missing"));
        }
        let version = u64_at(raw, 8, "version")?;
        if version != VERSION {
            let message = format!("SESparse version {version:#x}, known is {VERSION:#x}");
            return Err(Error::new(ErrorKind::UnsupportedVersion, message));
        }
        check_features(raw)?;
        let capacity = u64_at(raw, 16, "capacity")?;
        if !(1..=CAPACITY_LIMIT).contains(&capacity) {
            return Err(Error::new(ErrorKind::NotADisk, format!("the capacity is {capacity} sectors")));
        }
        let areas = areas(raw)?;
        let [volatile, _, _, directory, tables, _, _, grains] = areas.clone();
        let needed = capacity.div_ceil(GRAIN_SECTORS * u64::from(TABLE_ENTRIES)).div_ceil(SECTOR / 8);
        if directory.end - directory.start < needed {
            let message =
                format!("{capacity} sectors need a directory of {needed} sectors, not {directory:?}");
            return Err(Error::new(ErrorKind::NotADisk, message));
        }
        if volatile.is_empty() || volatile.start >= file / SECTOR {
            let message = format!("the volatile header at sector {} is outside the file", volatile.start);
            return Err(Error::new(ErrorKind::NotADisk, message));
        }
        Ok(Self { areas, capacity, volatile: volatile.start, directory, tables, grains })
    }
}

/// Refuses what other writers may mean by fields that are constant in all known files.
fn check_features(raw: &[u8]) -> Result<()> {
    let expected = [
        ("grain size", 24, GRAIN_SECTORS),
        ("grain table size", 32, TABLE_SECTORS),
        ("flags", 40, 0),
        ("reserved field 1", 48, 0),
        ("reserved field 2", 56, 0),
        ("reserved field 3", 64, 0),
        ("reserved field 4", 72, 0),
    ];
    for (name, at, known) in expected {
        let value = u64_at(raw, at, name)?;
        if value != known {
            let message = format!("SESparse {name} is {value:#x}, known is {known:#x}");
            return Err(Error::new(ErrorKind::UnsupportedFeature, message));
        }
    }
    if raw.iter().skip(FIELDS).any(|&byte| byte != 0) {
        let message = "the SESparse header is not zero behind its last field";
        return Err(Error::new(ErrorKind::UnsupportedFeature, message));
    }
    Ok(())
}

/// The areas in the order of [`AREAS`]: behind the header, on whole grains where they hold tables or grains, disjoint.
fn areas(raw: &[u8]) -> Result<[Range<u64>; 8]> {
    let mut areas = std::array::from_fn(|_| 0..0);
    for (area, (name, at)) in areas.iter_mut().zip(AREAS) {
        let start = u64_at(raw, at, name)?;
        let size = u64_at(raw, at + 8, name)?;
        let insane = |what| {
            Error::new(
                ErrorKind::NotADisk,
                format!("SESparse {name}: {size} sectors at sector {start}: {what}"),
            )
        };
        let end = start.checked_add(size).filter(|&end| end <= u64::MAX / SECTOR);
        let end = end.ok_or_else(|| insane("passes 2^64 bytes"))?;
        if start == 0 {
            return Err(insane("overlaps the first header"));
        }
        if at >= 112 && start % GRAIN_SECTORS != 0 {
            return Err(insane("does not start on a whole grain"));
        }
        *area = start..end;
    }
    let mut sorted: [_; 8] = std::array::from_fn(|i| (areas.get(i).cloned().unwrap_or(0..0), i));
    sorted.sort_by_key(|(area, _)| (area.start, area.end));
    for pair in sorted.windows(2) {
        if let [(low, i), (high, j)] = pair
            && low.end > high.start
            && !high.is_empty()
        {
            let name = |i: usize| AREAS.get(i).map_or("", |(name, _)| name);
            let message =
                format!("SESparse {} {low:?} and {} {high:?} overlap (sectors)", name(*i), name(*j));
            return Err(Error::new(ErrorKind::NotADisk, message));
        }
    }
    Ok(areas)
}

fn check_volatile(raw: &[u8]) -> Result<()> {
    if u64_at(raw, 0, "volatile magic")? != VOLATILE_MAGIC {
        return Err(Error::new(ErrorKind::NotADisk, "the magic of SESparse's volatile header is missing"));
    }
    if raw.iter().skip(32).any(|&byte| byte != 0) {
        let message = "SESparse's volatile header is not zero behind its last field";
        return Err(Error::new(ErrorKind::UnsupportedFeature, message));
    }
    Ok(())
}

fn check_journal(volatile: &[u8]) -> Result<()> {
    if u64_at(volatile, 24, "replay journal")? != 0 {
        let message = "the journal of this SESparse file must be replayed first, which only its host can do: \
                       open or consolidate the snapshot there";
        return Err(Error::new(ErrorKind::NeedsRepair, message));
    }
    Ok(())
}

/// Table indexes and rotated grain indexes, told apart by their top bits.
#[derive(Debug)]
struct SeEntries {
    /// Sectors of the grain tables.
    tables: Range<u64>,
    /// Sectors of the grains.
    grains: Range<u64>,
    file: u64,
}

/// The index of a grain in the grains area; its low 12 bits stand above its high 48.
fn grain_index(entry: u64) -> u64 {
    ((entry >> 48) & 0xfff) | ((entry & 0xffff_ffff_ffff) << 12)
}

impl SeEntries {
    /// The sector of an allocated grain, if it lies in the grains area and in the file.
    fn grain_start(&self, entry: u64, needed: u64) -> Option<u64> {
        let first = grain_index(entry).checked_mul(GRAIN_SECTORS)?.checked_add(self.grains.start)?;
        let whole = first.checked_add(GRAIN_SECTORS)? <= self.grains.end;
        let at = first.checked_mul(SECTOR)?;
        (whole && within(at, needed, self.file)).then_some(at)
    }
}

impl Entries for SeEntries {
    const BYTES: usize = 8;

    fn table(&self, entry: u64) -> TablePlace {
        if entry == 0 {
            return TablePlace::Absent;
        }
        let first = (entry & 0xffff_ffff) * TABLE_SECTORS + self.tables.start;
        if entry >> 32 != TABLE_MARK || first + TABLE_SECTORS > self.tables.end {
            return TablePlace::Bad;
        }
        TablePlace::At(first.saturating_mul(SECTOR))
    }

    fn grain(&self, entry: u64, needed: u64) -> Place {
        match entry >> 60 {
            0 if entry == 0 => Place::Unallocated,
            1 | 2 => Place::Zero, // unmapped grains keep their old index in the low bits
            3 => self.grain_start(entry, needed).map_or(Place::Bad, Place::Data),
            _ => Place::Bad,
        }
    }

    fn fault(&self, entry: u64) -> String {
        match entry >> 60 {
            0 => format!("table entry {entry:#x} says unallocated, but is not 0"),
            3 => format!(
                "table entry {entry:#x}: grain index {} lies outside the grains (sectors {:?}) or the file ({} bytes)",
                grain_index(entry),
                self.grains,
                self.file
            ),
            kind => format!("table entry {entry:#x} is of unknown kind {kind}"),
        }
    }
}
