//! The header of a hosted sparse file, checked once and then trusted.
//!
//! Uncompressed sparse extents and compressed (stream-optimised) files share it. Field offsets are those of VMware's
//! "Virtual Disk Format 5.0"; the limits are ours, and stand before anything is allocated.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::format::bytes::u8_at;
use crate::format::bytes::u16_at;
use crate::format::bytes::u32_at;
use crate::format::bytes::u64_at;
use crate::units::SECTOR;
use crate::units::Sectors;

/// First bytes of a finished file.
pub const MAGIC: [u8; 4] = *b"KDMV";
/// First bytes of a file whose writer has not finished it.
pub const MAGIC_INCOMPLETE: [u8; 4] = *b"kdmv";
/// Bytes of the header.
pub const HEADER_BYTES: usize = 512;
/// Entries in a grain table.
pub const ENTRIES: usize = 512;
/// Bytes of a grain table.
pub const TABLE_BYTES: u64 = ENTRIES as u64 * 4;
/// Where the byte `uncleanShutdown` stands.
pub const UNCLEAN_AT: u64 = 72;

const FLAG_NEWLINES: u32 = 1;
/// Flag bit: there are redundant tables.
pub const FLAG_REDUNDANT: u32 = 2;
const FLAG_ZERO_GRAINS: u32 = 4;
/// Flag bit: the grains are compressed.
pub const FLAG_COMPRESSED: u32 = 0x1_0000;
const FLAG_MARKERS: u32 = 0x2_0000;
/// Readers that do not know one of these bits must not read the file.
const INCOMPATIBLE: u32 = 0xffff_0000;

const NEWLINES: [u8; 4] = [0x0a, 0x20, 0x0d, 0x0a];
const NEWLINES_AT: usize = 73;
const GRAIN_SECTORS: std::ops::RangeInclusive<u64> = 8..=65536;
const MAX_CAPACITY: u64 = 1 << 40;
const MAX_DESCRIPTOR: u64 = 16 << 20;

/// What the header of a hosted sparse file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// 1, 2 or 3.
    pub version: u32,
    /// The flags as they stand in the file; the methods name them.
    pub flags: u32,
    /// Size of the extent, at least one sector, at most 2^40.
    pub capacity: Sectors,
    /// Size of a grain: a power of two from 8 to 65536.
    pub grain: Sectors,
    /// The bytes of the file that hold the embedded descriptor; they lie inside the file and are at most 16 MiB.
    pub descriptor: Option<Range<u64>>,
    /// Byte offset of the grain directory, if it lies whole inside the file.
    pub directory: Option<u64>,
    /// Byte offset of the redundant grain directory, if there is one and it lies whole inside the file.
    pub redundant: Option<u64>,
    /// No grain starts before this.
    pub overhead: Sectors,
    /// The last writer did not close the file.
    pub unclean: bool,
    gd_offset: u64,
}

impl Header {
    /// Reads and checks a header (or footer), the first 512 bytes of `sector`, of a file of `file_size` bytes.
    ///
    /// * [`ErrorKind::NotADisk`]: no magic, an unfinished file, or values that no writer produces.
    /// * [`ErrorKind::UnsupportedVersion`]: a version outside 1 to 3.
    /// * [`ErrorKind::UnsupportedFeature`]: an incompatible flag or a compression that is not known.
    pub fn parse(sector: &[u8], file_size: u64) -> Result<Header> {
        check_magic(sector)?;
        let version = u32_at(sector, 4, "version")?;
        if !(1..=3).contains(&version) {
            let text = format!("sparse header: version 1 to 3 expected, {version} found");
            return Err(Error::new(ErrorKind::UnsupportedVersion, text));
        }
        let flags = u32_at(sector, 8, "flags")?;
        check_flags(sector, flags)?;
        let capacity = u64_at(sector, 12, "capacity")?;
        let grain = u64_at(sector, 20, "grainSize")?;
        check_sizes(capacity, grain, u32_at(sector, 44, "numGTEsPerGT")?)?;
        let descriptor = descriptor_range(
            u64_at(sector, 28, "descriptorOffset")?,
            u64_at(sector, 36, "descriptorSize")?,
            file_size,
        )?;
        let mut header = Header {
            version,
            flags,
            capacity: Sectors(capacity),
            grain: Sectors(grain),
            descriptor,
            directory: None,
            redundant: None,
            overhead: Sectors(u64_at(sector, 64, "overHead")?),
            unclean: u8_at(sector, 72, "uncleanShutdown")? != 0,
            gd_offset: u64_at(sector, 56, "gdOffset")?,
        };
        header.place_directories(u64_at(sector, 48, "rgdOffset")?, file_size)?;
        Ok(header)
    }

    /// Notes which of the directories lie inside the file; one of them must, unless the file says that it is at the end.
    fn place_directories(&mut self, rgd_offset: u64, file_size: u64) -> Result<()> {
        let bytes = self.directory_bytes();
        let inside = |sector: u64| {
            let start = sector.checked_mul(SECTOR)?;
            (sector > 0 && start.checked_add(bytes)? <= file_size).then_some(start)
        };
        if !self.gd_at_end() {
            self.directory = inside(self.gd_offset);
        }
        if self.flags & FLAG_REDUNDANT != 0 {
            self.redundant = inside(rgd_offset);
        }
        if self.directory.is_some() || self.redundant.is_some() || (self.gd_at_end() && self.is_compressed())
        {
            return Ok(());
        }
        let text = format!(
            "sparse header: a grain directory of {bytes} bytes at sector {} (redundant: {rgd_offset}) does not fit \
             into a file of {file_size} bytes",
            self.gd_offset
        );
        Err(Error::new(ErrorKind::NotADisk, text))
    }

    /// The grains are compressed: a stream-optimised file.
    pub fn is_compressed(&self) -> bool {
        self.flags & FLAG_COMPRESSED != 0
    }

    /// Every grain and table is preceded by a marker.
    pub fn has_markers(&self) -> bool {
        self.flags & FLAG_MARKERS != 0
    }

    /// An entry of 1 is a grain of zeros.
    pub fn has_zero_grains(&self) -> bool {
        self.flags & FLAG_ZERO_GRAINS != 0
    }

    /// The file claims to have a redundant directory and redundant tables.
    pub fn has_redundant_tables(&self) -> bool {
        self.flags & FLAG_REDUNDANT != 0
    }

    /// The directory is named by a footer at the end of the file.
    pub fn gd_at_end(&self) -> bool {
        self.gd_offset == u64::MAX
    }

    /// Size of the extent in bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity.0 * SECTOR // at most 2^49
    }

    /// Size of a grain in bytes, a power of two.
    pub fn grain_bytes(&self) -> u64 {
        self.grain.0 * SECTOR // at most 2^25
    }

    /// Number of grains; the last one may lie partly behind the capacity.
    pub fn grains(&self) -> u64 {
        self.capacity.0.div_ceil(self.grain.0)
    }

    /// Number of grain tables: entries of the grain directory, at most 2^28.
    pub fn tables(&self) -> u32 {
        u32::try_from(self.grains().div_ceil(ENTRIES as u64)).unwrap_or(u32::MAX) // capacity is bounded: never MAX
    }

    /// Bytes of the grain directory.
    pub fn directory_bytes(&self) -> u64 {
        u64::from(self.tables()) * 4
    }
}

fn check_magic(sector: &[u8]) -> Result<()> {
    if sector.len() < HEADER_BYTES {
        let text = format!("sparse header: {HEADER_BYTES} bytes expected, {} found", sector.len());
        return Err(Error::new(ErrorKind::NotADisk, text));
    }
    if sector.starts_with(&MAGIC) {
        return Ok(());
    }
    if sector.starts_with(&MAGIC_INCOMPLETE) {
        let text = "sparse header: the file is incomplete, its writer has not finished it (magic \"kdmv\")";
        return Err(Error::new(ErrorKind::NotADisk, text));
    }
    Err(Error::new(ErrorKind::NotADisk, "sparse header: the magic \"KDMV\" is missing"))
}

fn check_flags(sector: &[u8], flags: u32) -> Result<()> {
    let unknown = flags & INCOMPATIBLE & !(FLAG_COMPRESSED | FLAG_MARKERS);
    if unknown != 0 {
        let text = format!("sparse header: flags {unknown:#x} are not known and forbid reading");
        return Err(Error::new(ErrorKind::UnsupportedFeature, text));
    }
    if flags & FLAG_NEWLINES != 0 && sector.get(NEWLINES_AT..NEWLINES_AT + 4) != Some(&NEWLINES[..]) {
        let text = "sparse header: the line-end bytes are altered, the file went through a text-mode copy";
        return Err(Error::new(ErrorKind::NotADisk, text));
    }
    let algorithm = u16_at(sector, 77, "compressAlgorithm")?;
    if algorithm > 1 || (flags & FLAG_COMPRESSED != 0 && algorithm != 1) {
        let text = format!("sparse header: compression 1 (deflate) expected, {algorithm} found");
        return Err(Error::new(ErrorKind::UnsupportedFeature, text));
    }
    Ok(())
}

fn check_sizes(capacity: u64, grain: u64, entries: u32) -> Result<()> {
    let fault = if !(1..=MAX_CAPACITY).contains(&capacity) {
        format!("capacity of 1 to 2^40 sectors expected, {capacity} found")
    } else if !grain.is_power_of_two() || !GRAIN_SECTORS.contains(&grain) {
        format!("grain of 8 to 65536 sectors, a power of two, expected, {grain} found")
    } else if entries as usize != ENTRIES {
        format!("grain tables of {ENTRIES} entries expected, {entries} found")
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::NotADisk, format!("sparse header: {fault}")))
}

fn descriptor_range(offset: u64, size: u64, file_size: u64) -> Result<Option<Range<u64>>> {
    if offset == 0 || size == 0 {
        return Ok(None);
    }
    let start = offset.checked_mul(SECTOR);
    let bytes = size.checked_mul(SECTOR).filter(|&bytes| bytes <= MAX_DESCRIPTOR);
    match start.zip(bytes).and_then(|(start, bytes)| Some(start..start.checked_add(bytes)?)) {
        Some(range) if range.end <= file_size => Ok(Some(range)),
        _ => {
            let text = format!(
                "sparse header: a descriptor of {size} sectors at sector {offset} is too large or does not fit into a \
                 file of {file_size} bytes"
            );
            Err(Error::new(ErrorKind::NotADisk, text))
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::format::sparse) fn sample(capacity: u64, grain: u64) -> Vec<u8> {
        let mut h = vec![0; 512];
        h[0..4].copy_from_slice(&MAGIC);
        h[4..8].copy_from_slice(&1u32.to_le_bytes());
        h[8..12].copy_from_slice(&3u32.to_le_bytes());
        h[12..20].copy_from_slice(&capacity.to_le_bytes());
        h[20..28].copy_from_slice(&grain.to_le_bytes());
        h[28..36].copy_from_slice(&1u64.to_le_bytes());
        h[36..44].copy_from_slice(&20u64.to_le_bytes());
        h[44..48].copy_from_slice(&512u32.to_le_bytes());
        h[48..56].copy_from_slice(&21u64.to_le_bytes());
        h[56..64].copy_from_slice(&26u64.to_le_bytes());
        h[64..72].copy_from_slice(&128u64.to_le_bytes());
        h[73..77].copy_from_slice(&NEWLINES);
        h
    }

    fn with(at: usize, bytes: &[u8]) -> Result<Header> {
        let mut h = sample(20480, 128);
        h[at..at + bytes.len()].copy_from_slice(bytes);
        Header::parse(&h, 65536)
    }

    fn refused(at: usize, bytes: &[u8]) -> ErrorKind {
        with(at, bytes).unwrap_err().kind()
    }

    #[test]
    fn an_ordinary_header_is_read() {
        let h = Header::parse(&sample(20480, 128), 65536).unwrap();
        assert_eq!((h.capacity, h.grain, h.grains(), h.tables()), (Sectors(20480), Sectors(128), 160, 1));
        assert_eq!(
            (h.directory, h.redundant, h.descriptor.clone()),
            (Some(26 * 512), Some(21 * 512), Some(512..10752))
        );
        assert!(!h.is_compressed() && !h.has_zero_grains() && h.has_redundant_tables() && !h.unclean);
    }

    #[test]
    fn each_corrupt_field_leads_to_one_kind() {
        use ErrorKind::{NotADisk, UnsupportedFeature, UnsupportedVersion};
        let q = |v: u64| v.to_le_bytes().to_vec();
        let d = |v: u32| v.to_le_bytes().to_vec();
        let table: &[(&str, usize, Vec<u8>, ErrorKind)] = &[
            ("magic", 0, b"QDMV".to_vec(), NotADisk),
            ("incomplete", 0, b"kdmv".to_vec(), NotADisk),
            ("version 0", 4, d(0), UnsupportedVersion),
            ("version 4", 4, d(4), UnsupportedVersion),
            ("flag 19", 8, d(3 | 1 << 19), UnsupportedFeature),
            ("flag 31", 8, d(3 | 1 << 31), UnsupportedFeature),
            ("capacity 0", 12, q(0), NotADisk),
            ("capacity 2^62", 12, q(1 << 62), NotADisk),
            ("capacity max", 12, q(u64::MAX), NotADisk),
            ("capacity past its directory", 12, q(1 << 40), NotADisk),
            ("grain 0", 20, q(0), NotADisk),
            ("grain 4", 20, q(4), NotADisk),
            ("grain 129", 20, q(129), NotADisk),
            ("grain 2^17", 20, q(1 << 17), NotADisk),
            ("grain 2^63", 20, q(1 << 63), NotADisk),
            ("descriptor far", 28, q(u64::MAX), NotADisk),
            ("descriptor past end", 28, q(120), NotADisk),
            ("descriptor huge", 36, q(1 << 56), NotADisk),
            ("entries", 44, d(0x8000_0001), NotADisk),
            ("newline 1", 73, vec![0x0d], NotADisk),
            ("newline 2", 74, vec![0], NotADisk),
            ("newline 3", 75, vec![0x0a], NotADisk),
            ("newline 4", 76, vec![0], NotADisk),
            ("algorithm", 77, vec![2, 0], UnsupportedFeature),
        ];
        for (name, at, bytes, kind) in table {
            assert_eq!(refused(*at, bytes), *kind, "{name}");
        }
    }

    #[test]
    fn compatible_unknown_flags_are_ignored() {
        assert!(with(8, &(3u32 | 1 << 9).to_le_bytes()).is_ok());
    }

    #[test]
    fn one_good_directory_is_enough() {
        for bad in [0, 1 << 30, u64::MAX, u64::MAX / 2] {
            let h = with(56, &bad.to_le_bytes()).unwrap();
            assert_eq!((h.directory, h.redundant), (None, Some(21 * 512)), "{bad:#x}");
            assert_eq!(with(48, &bad.to_le_bytes()).unwrap().redundant, None, "{bad:#x}");
        }
        let mut h = sample(20480, 128);
        h[48..64].fill(0);
        assert_eq!(Header::parse(&h, 65536).unwrap_err().kind(), ErrorKind::NotADisk);
    }

    #[test]
    fn a_directory_at_the_end_is_for_compressed_files_only() {
        let mut h = sample(20480, 128);
        h[8..12].copy_from_slice(&1u32.to_le_bytes());
        h[56..64].fill(0xff);
        assert_eq!(Header::parse(&h, 65536).unwrap_err().kind(), ErrorKind::NotADisk);
        h[8..12].copy_from_slice(&0x3_0001u32.to_le_bytes());
        assert_eq!(
            Header::parse(&h, 65536).unwrap_err().kind(),
            ErrorKind::UnsupportedFeature,
            "algorithm 0"
        );
        h[77] = 1;
        let h = Header::parse(&h, 65536).unwrap();
        assert!(h.is_compressed() && h.has_markers() && h.gd_at_end() && h.directory.is_none());
    }

    #[test]
    fn a_short_sector_is_not_a_disk() {
        for len in [0, 3, 4, 100, 511] {
            assert_eq!(Header::parse(&sample(8, 8)[..len], 1 << 20).unwrap_err().kind(), ErrorKind::NotADisk);
        }
    }
}
