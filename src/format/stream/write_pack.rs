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
        let compressor = match HASTY.contains(&self.level) && looks_random(plain) {
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

/// Levels that save time rather than the last bytes.
const HASTY: std::ops::RangeInclusive<u8> = 1..=6;
/// Bytes looked at for how often each value occurs: `SAMPLES` pieces of `SAMPLE` bytes, spread over the grain.
const SAMPLE: usize = 64;
const SAMPLES: usize = 64;
/// What the squares of 256 counts add up to at most when the bytes are as good as random: 69616 is expected of random ones,
/// with a deviation of 360. Beyond this, a code for single bytes alone would save a fifth of a percent.
const EVEN: u32 = 71_000;
/// Words of 8 bytes that occurred before, of 8192, from which on repetitions are worth looking for.
const REPEATS: usize = 64;
/// Words that are remembered.
const REMEMBERED: usize = 4096;

/// True when trying to compress is a waste of time: all bytes are equally frequent, as in compressed or encrypted data, and
/// hardly anything occurs twice. Takes a thirtieth of the time that compressing does.
fn looks_random(plain: &[u8]) -> bool {
    let mut counts = [0u32; 256];
    for piece in plain.chunks(plain.len() / SAMPLES + 1) {
        for byte in piece.iter().take(SAMPLE) {
            if let Some(count) = counts.get_mut(usize::from(*byte)) {
                *count += 1;
            }
        }
    }
    counts.iter().map(|count| count * count).sum::<u32>() <= EVEN && !repeats(plain)
}

/// True when many words occurred before, at a distance of whole words.
fn repeats(plain: &[u8]) -> bool {
    let mut last = [0u32; REMEMBERED];
    let mut found = 0;
    for word in plain.as_chunks::<8>().0 {
        let mixed = u64::from_le_bytes(*word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let tag = mixed as u32 | 1; // 0 is an empty slot
        let slot = (mixed >> 52) as usize;
        if let Some(slot) = last.get_mut(slot) {
            found += usize::from(*slot == tag);
            *slot = tag;
        }
    }
    found >= REPEATS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: u64) -> Vec<u8> {
        let mut x = seed | 1;
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
        };
        (0..GRAIN_BYTES / 8).flat_map(|_| next()).collect()
    }

    #[test]
    fn only_what_cannot_be_packed_is_stored_as_it_is() {
        let noise = random(1);
        assert!((1..200).all(|seed| looks_random(&random(seed))));
        let pages: Vec<u8> = noise.iter().take(4096).copied().cycle().take(GRAIN_BYTES).collect();
        let text: Vec<u8> = noise.iter().map(|byte| byte & 0x3f).collect();
        let mut half = noise.clone();
        half[GRAIN_BYTES / 2..].fill(b' ');
        let counted: Vec<u8> = (0..GRAIN_BYTES as u32 / 4).flat_map(u32::to_le_bytes).collect();
        for (packable, what) in [
            (pages, "pages"),
            (text, "text"),
            (half, "half"),
            (counted, "counted"),
            (vec![7; GRAIN_BYTES], "sevens"),
        ] {
            assert!(!looks_random(&packable), "{what}");
        }
    }

    #[test]
    fn records_inflate_to_what_they_were_made_of() {
        for level in [0, 1, 9, 12] {
            let mut packer = Packer::new(level).unwrap();
            let mut batch = Batch::default();
            let grains = [random(3), vec![0; GRAIN_BYTES], vec![9; GRAIN_BYTES]];
            grains.iter().zip([5, 6, 700]).for_each(|(plain, number)| batch.add_whole(number, plain));
            packer.pack(&mut batch).unwrap();
            assert_eq!(
                batch.records().map(|record| record.0).collect::<Vec<_>>(),
                [5, 700],
                "zeros have no record"
            );
            for (i, plain) in [&grains[0], &grains[2]].into_iter().enumerate() {
                let record = batch.packed_records(i..i + 1);
                assert_eq!(record.len() % 512, 0);
                let size = u32::from_le_bytes(record[8..12].try_into().unwrap()) as usize;
                assert!(size <= GRAIN_BYTES + 64, "{size} bytes");
                let mut out = vec![0; GRAIN_BYTES];
                let len = libdeflater::Decompressor::new()
                    .zlib_decompress(&record[12..12 + size], &mut out)
                    .unwrap();
                assert!(len == GRAIN_BYTES && out == *plain, "level {level}");
            }
        }
        assert_eq!(Packer::new(13).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
