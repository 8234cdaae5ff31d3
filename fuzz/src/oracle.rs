//! Second readers of every sparse format: slow, simple, written from the format reference alone. They say what a sector
//! holds, so that a reader that invents bytes is found out.
//!
//! An oracle may allow more than the library (which may answer any damage with an error), but what it calls a fault must
//! never read as data, and what it refuses to open must not open.

use std::sync::Arc;

use libdeflater::Decompressor;

use super::store::Holey;

/// What a sector of an image holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// These 512 bytes.
    Bytes(Vec<u8>),
    /// Zeros, whatever a parent holds.
    Zero,
    /// The parent's content.
    Parent,
    /// Nothing that may be shown: reading must fail.
    Fault,
}

/// A second reader.
pub trait Oracle {
    /// Size of the image.
    fn sectors(&self) -> u64;
    /// What a sector of it holds.
    fn sector(&self, lba: u64) -> Want;
    /// Where its tables meet, for choosing sectors worth asking for.
    fn table_sectors(&self) -> u64;
}

fn u32_at(file: &Holey, at: u64) -> Option<u64> {
    file.peek(at, 4).map(|b| u64::from(u32::from_le_bytes(b.try_into().unwrap())))
}

fn u64_at(file: &Holey, at: u64) -> Option<u64> {
    file.peek(at, 8).map(|b| u64::from_le_bytes(b.try_into().unwrap()))
}

/// The bytes of a sector of the file, a fault when it is not there.
fn file_sector(file: &Holey, sector: Option<u64>) -> Want {
    let at = sector.and_then(|s| s.checked_mul(512));
    at.and_then(|at| file.peek(at, 512)).map_or(Want::Fault, Want::Bytes)
}

/// True when `len` bytes at sector `sector` lie in the file.
fn fits(file: &Holey, sector: u64, len: u64) -> bool {
    sector.checked_mul(512).and_then(|at| at.checked_add(len)).is_some_and(|end| end <= file.len())
}

/// The numbers of a hosted sparse header that reading needs.
#[derive(Clone, Debug)]
struct Header {
    version: u64,
    flags: u64,
    capacity: u64,
    grain: u64,
    rgd: u64,
    gd: u64,
    overhead: u64,
}

impl Header {
    fn read(file: &Holey, at: u64) -> Result<Self, &'static str> {
        let word = |offset| u32_at(file, at + offset).ok_or("too short for a header");
        let long = |offset| u64_at(file, at + offset).ok_or("too short for a header");
        file.peek(at, 512).ok_or("too short for a header")?;
        let header = Self {
            version: word(4)?,
            flags: word(8)?,
            capacity: long(12)?,
            grain: long(20)?,
            rgd: long(48)?,
            gd: long(56)?,
            overhead: long(64)?,
        };
        if word(0)? != 0x564d_444b {
            return Err("no magic");
        }
        if !(1..=3).contains(&header.version) {
            return Err("an unknown version");
        }
        if header.flags & 0xfffc_0000 != 0 {
            return Err("an unknown incompatible flag");
        }
        if header.flags & 1 != 0 && file.peek(at + 73, 4).as_deref() != Some(b"\n \r\n") {
            return Err("went through a text-mode copy");
        }
        if !header.grain.is_power_of_two() || !(8..=65536).contains(&header.grain) {
            return Err("an impossible grain size");
        }
        if word(44)? != 512 {
            return Err("an impossible table size");
        }
        if header.capacity == 0 || header.capacity > 1 << 40 {
            return Err("an impossible capacity");
        }
        Ok(header)
    }

    fn directory_bytes(&self) -> u64 {
        self.capacity.div_ceil(self.grain).div_ceil(512) * 4
    }

    /// A directory lies whole in the file, behind the header.
    fn has_directory(&self, file: &Holey, sector: u64) -> bool {
        sector > 0 && fits(file, sector, self.directory_bytes())
    }

    /// Some directory can be read.
    fn has_any_directory(&self, file: &Holey) -> bool {
        self.has_directory(file, self.gd) || self.flags & 2 != 0 && self.has_directory(file, self.rgd)
    }

    /// Byte of the table entry for a grain. `Ok(None)`: no table.
    fn entry(&self, file: &Holey, grain: u64) -> Result<Option<u64>, ()> {
        let slot = grain / 512 * 4;
        let named = |directory: u64| match self.has_directory(file, directory) {
            true => u32_at(file, directory * 512 + slot),
            false => None,
        };
        let good = |table: u64| table != 0 && fits(file, table, 2048);
        let primary = named(self.gd);
        let redundant = if self.flags & 2 != 0 { named(self.rgd) } else { None };
        let table = match (primary, redundant) {
            (Some(p), _) if good(p) => p,
            (_, Some(r)) if good(r) => r,
            (Some(0), _) | (None, Some(0)) => return Ok(None),
            _ => return Err(()),
        };
        Ok(Some(table * 512 + grain % 512 * 4))
    }
}

/// A hosted sparse extent.
pub struct Sparse {
    file: Arc<Holey>,
    header: Header,
}

impl Sparse {
    /// Reads the header; the reason when no reader may trust it.
    pub fn open(file: Arc<Holey>) -> Result<Self, &'static str> {
        let header = Header::read(&file, 0)?;
        if !header.has_any_directory(&file) {
            return Err("a directory outside the file");
        }
        Ok(Self { file, header })
    }

    /// The sectors of a grain that are inside the capacity are all inside the file.
    fn has_grain(&self, grain: u64, start: u64) -> bool {
        let sectors = (self.header.capacity - grain * self.header.grain).min(self.header.grain);
        fits(&self.file, start, sectors * 512)
    }

    /// Its uncleanShutdown byte is not zero.
    pub fn is_unclean(&self) -> bool {
        self.file.peek(72, 1).is_none_or(|b| b != [0])
    }
}

impl Oracle for Sparse {
    fn sectors(&self) -> u64 {
        self.header.capacity
    }

    fn sector(&self, lba: u64) -> Want {
        let grain = lba / self.header.grain;
        match self.header.entry(&self.file, grain) {
            Err(()) => Want::Fault,
            Ok(None) => Want::Parent,
            Ok(Some(at)) => match u32_at(&self.file, at) {
                None => Want::Fault,
                Some(0) => Want::Parent,
                Some(1) if self.header.flags & 4 != 0 => Want::Zero,
                Some(start) if start < self.header.overhead => Want::Fault,
                Some(start) if !self.has_grain(grain, start) => Want::Fault,
                Some(start) => file_sector(&self.file, start.checked_add(lba % self.header.grain)),
            },
        }
    }

    fn table_sectors(&self) -> u64 {
        self.header.grain * 512
    }
}

/// A stream-optimised file.
pub struct Stream {
    file: Arc<Holey>,
    header: Header,
}

impl Stream {
    /// Reads header and footer; the reason when no reader may trust them.
    pub fn open(file: Arc<Holey>) -> Result<Self, &'static str> {
        let mut header = Header::read(&file, 0)?;
        if header.flags & 0x10000 == 0 {
            return Err("is not compressed");
        }
        if header.gd == u64::MAX {
            let at = file.len().checked_sub(1024).ok_or("too short for a footer")?;
            let footer = Header::read(&file, at)?;
            if (footer.capacity, footer.grain, footer.version)
                != (header.capacity, header.grain, header.version)
            {
                return Err("a footer that contradicts the header");
            }
            header = footer;
        }
        if !header.has_any_directory(&file) {
            return Err("a directory outside the file");
        }
        Ok(Self { file, header })
    }

    fn inflate(&self, grain: u64, marker: u64) -> Option<Vec<u8>> {
        let at = marker.checked_mul(512)?;
        let (lba, size) = (u64_at(&self.file, at)?, u32_at(&self.file, at + 8)?);
        let grain_bytes = self.header.grain * 512;
        if lba != grain * self.header.grain || size == 0 || size > 2 * grain_bytes + 1024 {
            return None;
        }
        let packed = self.file.peek(at + 12, size as usize)?;
        let mut content = vec![0; grain_bytes as usize];
        let len = Decompressor::new().zlib_decompress(&packed, &mut content).ok()?;
        let needed = (self.header.capacity - lba).min(self.header.grain) * 512;
        (len as u64 >= needed).then_some(content)
    }
}

impl Oracle for Stream {
    fn sectors(&self) -> u64 {
        self.header.capacity
    }

    fn sector(&self, lba: u64) -> Want {
        let grain = lba / self.header.grain;
        match self.header.entry(&self.file, grain) {
            Err(()) => Want::Fault,
            Ok(None) => Want::Parent,
            Ok(Some(at)) => match u32_at(&self.file, at) {
                None => Want::Fault,
                Some(0) => Want::Parent,
                Some(1) if self.header.flags & 4 != 0 => Want::Zero,
                Some(marker) => match self.inflate(grain, marker) {
                    Some(content) => {
                        let from = (lba % self.header.grain) as usize * 512;
                        Want::Bytes(content[from..from + 512].to_vec())
                    }
                    None => Want::Fault,
                },
            },
        }
    }

    fn table_sectors(&self) -> u64 {
        self.header.grain * 512
    }
}

/// A COWD extent.
pub struct Cowd {
    file: Arc<Holey>,
    capacity: u64,
    grain: u64,
    gd: u64,
    /// The first sector behind header and directory.
    first: u64,
}

impl Cowd {
    /// Reads the header; the reason when no reader may trust it.
    pub fn open(file: Arc<Holey>) -> Result<Self, &'static str> {
        let word = |at| u32_at(&file, at).ok_or("too short for a header");
        let (capacity, grain, gd) = (word(12)?, word(16)?, word(20)?);
        if word(0)? != 0x4457_4f43 {
            return Err("no magic");
        }
        if word(4)? != 1 {
            return Err("an unknown version");
        }
        if capacity == 0 || grain == 0 || grain > 2048 {
            return Err("an impossible size");
        }
        let tables = capacity.div_ceil(4096 * grain);
        if !fits(&file, gd, tables * 4) {
            return Err("a directory outside the file");
        }
        let first = gd + (tables * 4).div_ceil(512);
        Ok(Self { file, capacity, grain, gd, first })
    }
}

impl Oracle for Cowd {
    fn sectors(&self) -> u64 {
        self.capacity
    }

    fn sector(&self, lba: u64) -> Want {
        let grain = lba / self.grain;
        match u32_at(&self.file, self.gd * 512 + grain / 4096 * 4) {
            None => Want::Fault,
            Some(0) => Want::Parent,
            Some(table) if table < self.first || !fits(&self.file, table, 16384) => Want::Fault,
            Some(table) => match u32_at(&self.file, table * 512 + grain % 4096 * 4) {
                None => Want::Fault,
                Some(0) => Want::Parent,
                Some(start) if start < self.first => Want::Fault,
                Some(start) => file_sector(&self.file, start.checked_add(lba % self.grain)),
            },
        }
    }

    fn table_sectors(&self) -> u64 {
        self.grain * 4096
    }
}

/// A SESparse extent.
pub struct SeSparse {
    file: Arc<Holey>,
    capacity: u64,
    gd: u64,
    tables: (u64, u64),
    grains: (u64, u64),
}

impl SeSparse {
    /// Reads the headers; the reason when no reader may trust them.
    pub fn open(file: Arc<Holey>) -> Result<Self, &'static str> {
        let word = |index: u64| u64_at(&file, index * 8).ok_or("too short for a header");
        if word(0)? != 0xcafe_babe || u64_at(&file, word(10)?.saturating_mul(512)) != Some(0xcafe_cafe) {
            return Err("no magic");
        }
        if word(1)? != 0x2_0000_0001 {
            return Err("an unknown version");
        }
        if (5..10).any(|i| word(i) != Ok(0)) {
            return Err("a flag or reserved field is set");
        }
        if word(3)? != 8 || word(4)? != 64 || word(2)? == 0 {
            return Err("an impossible size");
        }
        if u64_at(&file, word(10)? * 512 + 24) != Some(0) {
            return Err("a journal to replay");
        }
        Ok(Self {
            capacity: word(2)?,
            gd: word(16)?,
            tables: (word(18)?, word(19)?),
            grains: (word(24)?, word(25)?),
            file,
        })
    }

    fn entry(&self, grain: u64) -> Option<u64> {
        let gde = u64_at(&self.file, self.gd.checked_mul(512)?.checked_add(grain / 4096 * 8)?)?;
        if gde == 0 {
            return Some(0);
        }
        let table = gde & 0xffff_ffff;
        if gde >> 32 != 0x1000_0000 || table >= self.tables.1 / 64 {
            return None;
        }
        let at = self.tables.0.checked_add(table * 64)?.checked_mul(512)?;
        u64_at(&self.file, at.checked_add(grain % 4096 * 8)?)
    }
}

impl Oracle for SeSparse {
    fn sectors(&self) -> u64 {
        self.capacity
    }

    fn sector(&self, lba: u64) -> Want {
        let Some(entry) = self.entry(lba / 8) else { return Want::Fault };
        match entry >> 60 {
            0 if entry == 0 => Want::Parent,
            1 | 2 => Want::Zero,
            3 => {
                let index = (entry >> 48 & 0xfff) | (entry & 0xffff_ffff_ffff) << 12;
                match index
                    .checked_mul(8)
                    .filter(|at| at.checked_add(8).is_some_and(|end| end <= self.grains.1))
                {
                    Some(at) => file_sector(&self.file, self.grains.0.checked_add(at + lba % 8)),
                    None => Want::Fault,
                }
            }
            _ => Want::Fault,
        }
    }

    fn table_sectors(&self) -> u64 {
        8 * 4096
    }
}
