//! The file of a sparse extent: its bytes, how many there are, and how to speak of it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::sparse::Header;
use crate::format::sparse::header::ENTRIES;
use crate::format::sparse::header::TABLE_BYTES;
use crate::logging::Log;
use crate::storage::Storage;
use crate::units::SECTOR;

/// Bytes of two grains that are compared at a time.
const PIECE: u64 = 256 * 1024;

/// The entries of one grain table.
pub(super) type Entries = [u32; ENTRIES];

/// The file behind an extent.
#[derive(Debug)]
pub(super) struct Body {
    pub storage: Arc<dyn Storage>,
    /// The last length heard of. It only ever grows, except when the writer cuts unused space off the end.
    size: AtomicU64,
    pub name: String,
    pub log: Log,
}

impl Body {
    pub fn new(storage: Arc<dyn Storage>, name: String, log: Log) -> Result<Self> {
        let size = storage.size().context(|| format!("size of {name}"))?;
        Ok(Self { storage, size: AtomicU64::new(size), name, log })
    }

    /// The last length heard of.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Notes a length that the file was given.
    pub fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Relaxed);
    }

    /// True when the file reaches at least to `end`; asks again when it did not the last time, because another process
    /// may be making it longer.
    pub fn reaches(&self, end: u64) -> Result<bool> {
        if end <= self.size() {
            return Ok(true);
        }
        let size = self.storage.size()?;
        self.size.fetch_max(size, Ordering::Relaxed);
        Ok(end <= size)
    }

    /// Reads the grain table at byte `at`.
    pub fn read_table(&self, at: u64) -> Result<Box<Entries>> {
        let mut bytes = [0; TABLE_BYTES as usize];
        self.storage.read_at(&mut bytes, at).context(|| format!("grain table of {}", self.name))?;
        let mut entries = Box::new([0; ENTRIES]);
        decode(&bytes, entries.as_mut_slice());
        Ok(entries)
    }

    /// Fills `bytes` from `at` on, without reading where the storage knows that there are only zeros.
    pub fn read_around_holes(&self, bytes: &mut [u8], at: u64) -> Result<()> {
        bytes.fill(0);
        let mut parts = Vec::new();
        self.storage.allocated(at..at.saturating_add(bytes.len() as u64), &mut |part| parts.push(part))?;
        for part in parts {
            let start = usize::try_from(part.start.saturating_sub(at)).unwrap_or(usize::MAX);
            let end = usize::try_from(part.end.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
            if let Some(window) = bytes.get_mut(start..end) {
                self.storage.read_at(window, part.start)?;
            }
        }
        Ok(())
    }

    /// A fault of this file's content.
    pub fn corrupt(&self, text: impl AsRef<str>) -> Error {
        Error::new(ErrorKind::Corrupt, format!("{}: {}", self.name, text.as_ref()))
    }
}

/// Little-endian words out of bytes, as many as both have.
pub(super) fn decode(bytes: &[u8], words: &mut [u32]) {
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
}

/// True when the bytes of a grain are the same at two sectors, both inside the file.
pub(super) fn same_grain(header: &Header, body: &Body, grain: u64, one: u32, other: u32) -> Result<bool> {
    let rest = header.capacity_bytes() - grain * header.grain_bytes();
    let mut left = rest.min(header.grain_bytes());
    let (mut one, mut other) = (u64::from(one) * SECTOR, u64::from(other) * SECTOR);
    let story = || format!("grain {grain} of {}", body.name);
    let mut first = vec![0; left.min(PIECE) as usize];
    let mut second = first.clone();
    while left > 0 {
        let len = left.min(PIECE);
        first.truncate(len as usize);
        second.truncate(len as usize);
        body.storage.read_at(&mut first, one).context(story)?;
        body.storage.read_at(&mut second, other).context(story)?;
        if first != second {
            return Ok(false);
        }
        (one, other, left) = (one + len, other + len, left - len);
    }
    Ok(true)
}
