//! From grains to the records that a file holds of them: marker, compressed bytes, padding to a sector.

use std::fmt;
use std::ops::Range;

use libdeflater::CompressionLvl;
use libdeflater::Compressor;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::bytes::is_zero;
use crate::format::stream::read::MARKER_BYTES;
use crate::format::stream::write::GRAIN;
use crate::format::stream::write::GRAIN_BYTES;
use crate::threads::SignalShield;
use crate::units::SECTOR;

/// How grains are packed.
#[derive(Clone, Copy, Debug)]
pub struct PackOptions {
    /// 0 stores, 1 is fast, 12 packs best.
    pub level: u8,
    /// Threads that pack beside the caller's; 0: the caller's own.
    pub workers: usize,
    /// Keeps the host's signals away from those threads.
    pub shield: SignalShield,
}

impl PackOptions {
    /// Packing on the caller's thread only.
    pub fn without_threads(level: u8) -> PackOptions {
        PackOptions { level, workers: 0, shield: |body| body() }
    }
}

/// Grains that are packed together.
const BATCH_GRAINS: usize = 4;

/// A few grains, ascending, and after [`Packer::pack`] what the file holds of them.
#[derive(Default)]
pub struct Batch {
    /// Numbers of the grains; `plain` has their bytes one after the other.
    grains: Vec<u64>,
    plain: Vec<u8>,
    /// Grains that are not all zeros, and where their records end in `packed`.
    records: Vec<(u64, usize)>,
    packed: Vec<u8>,
}

impl Batch {
    /// True when no grain can be added.
    pub fn is_full(&self) -> bool {
        self.grains.len() >= BATCH_GRAINS
    }

    /// True when it has no grain.
    pub fn is_empty(&self) -> bool {
        self.grains.is_empty()
    }

    /// The grain added last.
    pub fn last(&self) -> Option<u64> {
        self.grains.last().copied()
    }

    /// Adds a grain of zeros behind the others.
    pub fn add(&mut self, grain: u64) {
        self.grains.push(grain);
        self.plain.resize(self.grains.len() * GRAIN_BYTES, 0);
    }

    /// Adds a grain whose content is known whole.
    pub fn add_whole(&mut self, grain: u64, content: &[u8]) {
        self.grains.push(grain);
        self.plain.extend_from_slice(content);
        self.plain.resize(self.grains.len() * GRAIN_BYTES, 0);
    }

    /// The content of a grain.
    pub fn plain(&mut self, grain: u64) -> Option<&mut [u8]> {
        let at = self.grains.iter().position(|known| *known == grain)? * GRAIN_BYTES;
        self.plain.get_mut(at..at + GRAIN_BYTES)
    }

    /// True when `grain` is one of its grains.
    pub fn holds(&self, grain: u64) -> bool {
        self.grains.contains(&grain)
    }

    /// Forgets its grains but keeps the memory.
    pub fn clear(&mut self) {
        self.grains.clear();
        self.plain.clear();
        self.records.clear();
        self.packed.clear();
    }

    /// Packed grains and where their records end in the batch.
    pub fn records(&self) -> impl Iterator<Item = (u64, usize)> {
        self.records.iter().copied()
    }

    /// The bytes of some of its records, which stand one behind the other.
    pub fn packed_records(&self, range: Range<usize>) -> &[u8] {
        let end_of = |count: usize| match count.min(self.records.len()).checked_sub(1) {
            None => 0,
            Some(last) => self.records.get(last).map_or(0, |record| record.1),
        };
        self.packed.get(end_of(range.start)..end_of(range.end)).unwrap_or_default()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("grains", &self.grains).finish_non_exhaustive()
    }
}

/// Packs batches. One per thread.
pub struct Packer {
    compressor: Compressor,
    /// For what does not become smaller.
    storer: Compressor,
    level: u8,
}

impl Packer {
    /// A packer of this level, which is at most 12.
    pub fn new(level: u8) -> Result<Packer> {
        let make = |level: u8| {
            let level = CompressionLvl::new(i32::from(level)).map_err(|_| {
                Error::new(ErrorKind::InvalidArgument, format!("no compression has level {level}"))
            })?;
            Ok(Compressor::new(level))
        };
        Ok(Packer { compressor: make(level)?, storer: make(0)?, level })
    }

    /// Makes the records of a batch. Grains of zeros get none.
    pub fn pack(&mut self, batch: &mut Batch) -> Result<()> {
        batch.records.clear();
        batch.packed.clear();
        for (i, grain) in batch.grains.iter().enumerate() {
            let plain = batch.plain.get(i * GRAIN_BYTES..(i + 1) * GRAIN_BYTES).unwrap_or_default();
            if is_zero(plain) {
                continue;
            }
            self.record(*grain, plain, &mut batch.packed)?;
            batch.records.push((*grain, batch.packed.len()));
        }
        Ok(())
    }

    /// Adds the record of one grain to `out`.
    fn record(&mut self, grain: u64, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let compressor = match self.level > 0 && looks_random(plain) {
            true => &mut self.storer,
            false => &mut self.compressor,
        };
        let start = out.len();
        let data = start + MARKER_BYTES;
        out.resize(data + compressor.zlib_compress_bound(plain.len()), 0);
        let room = out.get_mut(data..).unwrap_or_default();
        let len = compressor
            .zlib_compress(plain, room)
            .map_err(|_| Error::new(ErrorKind::Internal, "compressed data is longer than its bound"))?;
        let size = u32::try_from(len)
            .map_err(|_| Error::new(ErrorKind::Internal, format!("a grain of {len} compressed bytes")))?;
        out.truncate(data + len);
        out.resize((data + len - start).next_multiple_of(SECTOR as usize) + start, 0);
        if let Some(marker) = out.get_mut(start..data) {
            let (lba, rest) = marker.split_at_mut(8);
            lba.copy_from_slice(&(grain * GRAIN).to_le_bytes());
            rest.copy_from_slice(&size.to_le_bytes());
        }
        Ok(())
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("level", &self.level).finish_non_exhaustive()
    }
}

/// True when trying to compress is a waste of time.
fn looks_random(_plain: &[u8]) -> bool {
    false
}
