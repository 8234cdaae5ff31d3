//! From compressed grains to the caller's bytes.
//!
//! Whole grains are inflated straight into the caller's buffer, parts of grains by way of the cache. Grains of a request
//! that stand one after the other in the file are read together.

use super::Stream;
use super::work::Work;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::bytes::u32_at;
use crate::format::bytes::u64_at;
use crate::format::lookup::Place;
use crate::format::lookup::within;
use crate::units::SECTOR;

/// Bytes of a grain's marker before its data.
pub(super) const MARKER_BYTES: usize = 12;
/// Compressed bytes read together, give or take a grain.
const READ_LIMIT: u64 = 512 * 1024;
/// Table markers and tables may stand between two grains that follow each other.
const BETWEEN: u64 = 8 * 1024;

/// A part of one grain.
struct Part<'a> {
    grain: u64,
    /// First byte within the grain.
    start: usize,
    buf: &'a mut [u8],
}

impl Stream {
    /// Fills `buf` from `offset`, all of which must be packed.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if self.read_cached(offset, buf)? == buf.len() {
            return Ok(());
        }
        let last = self.last_grain(offset, buf.len());
        self.pool.with(|work| {
            self.parts(offset, buf, |part| {
                if !self.cache.copy(part.grain, part.start, part.buf) {
                    self.read_part(work, part, last)?;
                }
                Ok(true)
            })
        })
    }

    /// Fills `buf` from the cache up to the first grain that is not in it; how many bytes that is. The rest of `buf` is
    /// untouched.
    pub(super) fn read_cached(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        self.parts(offset, buf, |part| {
            let held = self.cache.copy(part.grain, part.start, part.buf);
            done += if held { part.buf.len() } else { 0 };
            Ok(held)
        })?;
        Ok(done)
    }

    /// Inflates the packed grains of a range into the cache, as many as that holds.
    pub(super) fn load(&self, offset: u64, len: u64) -> Result<()> {
        let first = offset / self.grain();
        let end = offset.saturating_add(len).min(self.lookup.shape().capacity).div_ceil(self.grain());
        let end = end.min(first.saturating_add(self.cache.grains()));
        let last = end.saturating_sub(1);
        self.pool.with(|work| {
            for grain in first..end {
                if !self.cache.holds(grain)
                    && let (Place::Data(at), _) = self.lookup.place(grain, 1)?
                {
                    self.inflate(work, grain, at, last)?;
                    self.cache.trade(grain, &mut work.grain);
                }
            }
            Ok(())
        })
    }

    /// Cuts `buf` at grain borders and hands the parts out in order until `each` answers `false`.
    fn parts(
        &self,
        offset: u64,
        mut buf: &mut [u8],
        mut each: impl FnMut(&mut Part<'_>) -> Result<bool>,
    ) -> Result<()> {
        let capacity = self.lookup.shape().capacity;
        if !within(offset, buf.len() as u64, capacity) {
            let message =
                format!("{} bytes at {offset:#x} are not all within the disk's {capacity}", buf.len());
            return Err(Error::new(ErrorKind::OutOfRange, message).context(self.lookup.name()));
        }
        let mut grain = offset / self.grain();
        let mut start = usize::try_from(offset % self.grain()).unwrap_or(0);
        while !buf.is_empty() {
            let (head, rest) = buf.split_at_mut((self.grain_bytes - start).min(buf.len()));
            if !each(&mut Part { grain, start, buf: head })? {
                return Ok(());
            }
            (grain, start, buf) = (grain + 1, 0, rest);
        }
        Ok(())
    }

    /// Inflates one part; `last` is the last grain of the whole request.
    fn read_part(&self, work: &mut Work, part: &mut Part<'_>, last: u64) -> Result<()> {
        let (Place::Data(at), _) = self.lookup.place(part.grain, 1)? else {
            let message = format!("{}: grain {} holds no packed data", self.lookup.name(), part.grain);
            return Err(Error::new(ErrorKind::Internal, message));
        };
        if part.buf.len() == self.grain_bytes {
            return self.inflate_whole(work, part.grain, at, last, part.buf);
        }
        self.inflate(work, part.grain, at, last)?;
        let end = part.start.saturating_add(part.buf.len());
        if let Some(from) = work.grain.get(part.start..end) {
            part.buf.copy_from_slice(from);
        }
        self.cache.trade(part.grain, &mut work.grain);
        Ok(())
    }

    /// Inflates a grain into the work's own buffer.
    fn inflate(&self, work: &mut Work, grain: u64, at: u64, last: u64) -> Result<()> {
        let mut room = std::mem::take(&mut work.grain);
        room.resize(self.grain_bytes, 0);
        let result = self.inflate_whole(work, grain, at, last, &mut room);
        work.grain = room;
        result
    }

    /// Inflates the grain whose marker is at byte `at` of the file into `out`, a whole grain.
    fn inflate_whole(&self, work: &mut Work, grain: u64, at: u64, last: u64, out: &mut [u8]) -> Result<()> {
        self.inflate_checked(work, grain, at, last, out).context(|| {
            format!("{}: grain {grain} (disk byte {:#x})", self.lookup.name(), grain * self.grain())
        })
    }

    fn inflate_checked(&self, work: &mut Work, grain: u64, at: u64, last: u64, out: &mut [u8]) -> Result<()> {
        let storage = self.lookup.storage();
        if !work.window.holds(at, MARKER_BYTES) {
            let len = usize::try_from(self.read_to(grain, at, last) - at).unwrap_or(MARKER_BYTES);
            work.window.fill(storage, at, len)?;
        }
        let len = self.marker(work.window.find(at, MARKER_BYTES).unwrap_or_default(), grain, at)?;
        if !work.window.holds(at, len) {
            let len = usize::try_from(self.read_to(grain, at, last) - at).unwrap_or(len).max(len);
            work.window.fill(storage, at, len)?;
        }
        let packed = work.window.find(at, len).and_then(|all| all.get(MARKER_BYTES..)).unwrap_or_default();
        let inflated = work.inflater.inflate(packed, out)?;
        let needed = self.lookup.needed(grain);
        if (inflated as u64) < needed {
            let message = format!("the compressed data inflates to {inflated} bytes, expected {needed}");
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        Ok(())
    }

    /// Checks the marker of a grain; marker and data are so many bytes long.
    fn marker(&self, marker: &[u8], grain: u64, at: u64) -> Result<usize> {
        let lba = u64_at(marker, 0, "marker lba")?;
        let size = u32_at(marker, 8, "marker size")?;
        let expected = grain.saturating_mul(self.grain() / SECTOR);
        let corrupt =
            |what: String| Err(Error::new(ErrorKind::Corrupt, format!("marker at {at:#x}: {what}")));
        if lba != expected {
            return corrupt(format!("it is of sector {lba}, expected {expected}"));
        }
        if size == 0 || u64::from(size) > self.packed_limit() {
            return corrupt(format!("{size} compressed bytes, expected 1 to {}", self.packed_limit()));
        }
        let len = MARKER_BYTES as u64 + u64::from(size);
        let file = self.lookup.shape().file;
        if !within(at, len, file) {
            return corrupt(format!("{size} compressed bytes pass the end of the file ({file} bytes)"));
        }
        Ok(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// Where a read that starts with the marker of `grain` at `at` ends best: behind the grains up to `last` that follow it
    /// in the file. How long the last of them is tells the marker after it, or a guess.
    fn read_to(&self, grain: u64, at: u64, last: u64) -> u64 {
        let file = self.lookup.shape().file;
        let limit = at.saturating_add(READ_LIMIT);
        let (mut marker, mut next) = (at, grain + 1);
        while let Some((behind, start)) = self.next_packed(next, last) {
            let near = start > marker && start - marker <= self.packed_limit() + BETWEEN;
            if !near {
                break;
            }
            if behind > last || start >= limit {
                return start;
            }
            (marker, next) = (start, behind + 1);
        }
        let guess = self.grain() + self.grain() / 32 + SECTOR;
        marker.saturating_add(guess).min(file)
    }

    /// The first packed grain from `next` on and its marker, if it is found quickly.
    fn next_packed(&self, mut next: u64, last: u64) -> Option<(u64, u64)> {
        let per_table = u64::from(self.lookup.shape().entries);
        for _ in 0..4 {
            if next > last && next / per_table != last / per_table || self.lookup.needed(next) == 0 {
                return None;
            }
            match self.lookup.place(next, 1).ok()? {
                (Place::Data(at), _) => return Some((next, at)),
                (_, run) => next = next.saturating_add(run),
            }
        }
        None
    }

    /// More compressed bytes than any compressor makes of a grain.
    fn packed_limit(&self) -> u64 {
        self.grain() * 2
    }

    fn grain(&self) -> u64 {
        self.lookup.shape().grain
    }

    fn last_grain(&self, offset: u64, len: usize) -> u64 {
        offset.saturating_add(len as u64).saturating_sub(1) / self.grain()
    }
}
