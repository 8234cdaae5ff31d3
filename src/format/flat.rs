//! Extents without tables: a piece of a file or device, zeros, and pieces that nobody may touch.
//!
//! A flat extent hides its parent everywhere: a hole in its file is a run of zeros, never a look at the parent.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::format::Image;
use crate::format::Mapping;
use crate::format::Pending;
use crate::format::Presence;
use crate::storage::Copied;
use crate::storage::LocalFile;
use crate::storage::ReadOp;
use crate::storage::Storage;
use crate::transfer::Finish;
use crate::transfer::Transfer;
use crate::units::byte_range;

/// A run of bytes of a storage that is the content of an extent.
#[derive(Debug)]
pub struct Flat {
    storage: Arc<dyn Storage>,
    /// Where the extent starts in the storage; `offset + len` fits in 64 bits.
    offset: u64,
    len: u64,
    writable: bool,
}

impl Flat {
    /// The `len` bytes at `offset` of `storage`, all of which must exist. When not `writable`, writes to the storage that
    /// [`Image::map`] names fail with `ReadOnly`.
    pub fn open(storage: Arc<dyn Storage>, offset: u64, len: u64, writable: bool) -> Result<Flat> {
        let needed = byte_range(offset, len)?.end;
        let actual = storage.size()?;
        if actual < needed {
            let name = storage.label();
            return Err(Error::new(
                ErrorKind::EndOfFile,
                format!("{name}: the extent needs {needed} bytes ({len} at {offset}), the file has {actual}"),
            ));
        }
        let storage = if writable { storage } else { Arc::new(ReadOnly(storage)) };
        Ok(Flat { storage, offset, len, writable })
    }
}

impl Image for Flat {
    fn capacity(&self) -> u64 {
        self.len
    }

    fn map(&self, offset: u64, max: u64) -> Result<(Mapping<'_>, u64)> {
        if offset >= self.len {
            return Err(outside(offset, self.len));
        }
        let data = Mapping::Data { storage: &*self.storage, offset: self.offset + offset };
        Ok((data, max.min(self.len - offset)))
    }

    fn scan(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>, Presence)) -> Result<()> {
        if range.start >= range.end {
            return Ok(());
        }
        if range.end > self.len {
            return Err(outside(range.end, self.len));
        }
        let mut at = range.start;
        self.storage.allocated(self.offset + range.start..self.offset + range.end, &mut |piece| {
            let start = piece.start.saturating_sub(self.offset).clamp(at, range.end);
            let end = piece.end.saturating_sub(self.offset).clamp(start, range.end);
            if start == end {
                return;
            }
            if at < start {
                sink(at..start, Presence::Zero);
            }
            sink(start..end, Presence::Data);
            at = end;
        })?;
        if at < range.end {
            sink(at..range.end, Presence::Zero);
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        if self.writable { self.storage.flush() } else { Ok(()) }
    }
}

/// A ZERO extent: zeros without a file. Takes no data.
#[derive(Debug)]
pub struct Zeros {
    len: u64,
}

impl Zeros {
    /// `len` bytes of zeros.
    pub fn new(len: u64) -> Zeros {
        Zeros { len }
    }
}

impl Image for Zeros {
    fn capacity(&self) -> u64 {
        self.len
    }

    fn map(&self, offset: u64, max: u64) -> Result<(Mapping<'_>, u64)> {
        if offset >= self.len {
            return Err(outside(offset, self.len));
        }
        Ok((Mapping::Zero, max.min(self.len - offset)))
    }

    fn prepare(&self, offset: u64, _len: u64) -> Result<Option<Pending<'_>>> {
        let message = format!("the ZERO extent has no file for data (at {offset:#x})");
        Err(Error::new(ErrorKind::ReadOnly, message))
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// A NOACCESS extent: part of the disk's size, but neither read nor written.
#[derive(Debug)]
pub struct NoAccess {
    len: u64,
}

impl NoAccess {
    /// `len` bytes that are refused.
    pub fn new(len: u64) -> NoAccess {
        NoAccess { len }
    }
}

impl Image for NoAccess {
    fn capacity(&self) -> u64 {
        self.len
    }

    fn map(&self, offset: u64, _max: u64) -> Result<(Mapping<'_>, u64)> {
        let message = format!("the descriptor marks this extent NOACCESS (at {offset:#x} of it)");
        Err(Error::new(ErrorKind::AccessDenied, message))
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// A storage whose writes fail: what a RDONLY extent hands out, also where the file underneath would take them.
#[derive(Debug)]
struct ReadOnly(Arc<dyn Storage>);

impl ReadOnly {
    fn refuse<T>(&self) -> Result<T> {
        Err(Error::new(ErrorKind::ReadOnly, format!("{}: the extent is read-only", self.0.label())))
    }
}

impl Storage for ReadOnly {
    fn size(&self) -> Result<u64> {
        self.0.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_at(buf, offset)
    }

    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> Result<bool> {
        self.0.try_read_at(buf, offset)
    }

    fn read_batch(&self, reads: &mut [ReadOp<'_>]) -> Result<()> {
        self.0.read_batch(reads)
    }

    fn start(&self, transfer: Transfer, offset: u64, finish: Finish) -> Option<(Transfer, Finish)> {
        match transfer {
            Transfer::Write(_) => {
                finish(transfer, self.refuse());
                None
            }
            _ => self.0.start(transfer, offset, finish),
        }
    }

    fn write_at(&self, _buf: &[u8], _offset: u64) -> Result<()> {
        self.refuse()
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn zero(&self, _range: Range<u64>) -> Result<bool> {
        self.refuse()
    }

    fn discard(&self, _range: Range<u64>) -> Result<bool> {
        self.refuse()
    }

    fn allocated(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        self.0.allocated(range, sink)
    }

    fn set_len(&self, _len: u64) -> Result<()> {
        self.refuse()
    }

    fn copy_from(&self, _offset: u64, _source: &dyn Storage, _from: Range<u64>) -> Result<Copied> {
        self.refuse()
    }

    fn local_file(&self) -> Option<LocalFile<'_>> {
        self.0.local_file()
    }

    fn label(&self) -> String {
        self.0.label()
    }
}

fn outside(offset: u64, len: u64) -> Error {
    Error::new(ErrorKind::OutOfRange, format!("{offset:#x} lies outside the extent of {len} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 MiB whose data stands at 100..200 and 300..400 and whose flushes are counted by nobody.
    #[derive(Debug)]
    struct Holes;

    impl Storage for Holes {
        fn size(&self) -> Result<u64> {
            Ok(1 << 20)
        }
        fn read_at(&self, buf: &mut [u8], _offset: u64) -> Result<()> {
            buf.fill(7);
            Ok(())
        }
        fn write_at(&self, _buf: &[u8], _offset: u64) -> Result<()> {
            Ok(())
        }
        fn flush(&self) -> Result<()> {
            Err(Error::new(ErrorKind::Io, "flush was called"))
        }
        fn allocated(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>)) -> Result<()> {
            assert!(range.start < range.end);
            [100..200, 300..400].into_iter().for_each(sink); // whatever was asked for
            Ok(())
        }
        fn label(&self) -> String {
            "holes".into()
        }
    }

    fn flat(offset: u64, len: u64, writable: bool) -> Result<Flat> {
        Flat::open(Arc::new(Holes), offset, len, writable)
    }

    fn scanned(image: &dyn Image, range: Range<u64>) -> Vec<(Range<u64>, Presence)> {
        let mut seen = Vec::new();
        image.scan(range, &mut |piece, presence| seen.push((piece, presence))).unwrap();
        seen
    }

    #[test]
    fn the_offset_of_the_extent_is_added() {
        let image = flat(512, 1000, true).unwrap();
        let (mapping, run) = image.map(10, 5000).unwrap();
        assert!(matches!(mapping, Mapping::Data { offset: 522, .. }));
        assert_eq!((run, image.map(10, 8).unwrap().1, image.capacity()), (990, 8, 1000));
        assert_eq!(image.map(1000, 1).unwrap_err().kind(), ErrorKind::OutOfRange);
    }

    #[test]
    fn a_file_that_is_too_short_is_refused_with_both_lengths() {
        assert!(flat(512, (1 << 20) - 512, true).is_ok());
        let error = flat(512, (1 << 20) - 511, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::EndOfFile);
        assert!(error.to_string().contains("1048577") && error.to_string().contains("1048576"), "{error}");
        assert_eq!(flat(u64::MAX, 2, true).unwrap_err().kind(), ErrorKind::OutOfRange);
    }

    #[test]
    fn holes_are_zeros_and_pieces_are_clipped() {
        let image = flat(50, 300, false).unwrap();
        use Presence::{Data, Zero};
        let all = [(0..50, Zero), (50..150, Data), (150..250, Zero), (250..300, Data)];
        assert_eq!(scanned(&image, 0..300), all);
        assert_eq!(scanned(&image, 60..255), [(60..150, Data), (150..250, Zero), (250..255, Data)]);
        assert_eq!(scanned(&image, 160..170), [(160..170, Zero)]);
        assert_eq!(scanned(&image, 10..10), []);
        assert_eq!(image.scan(0..301, &mut |_, _| ()).unwrap_err().kind(), ErrorKind::OutOfRange);
    }

    #[test]
    fn a_read_only_extent_refuses_writes_to_its_storage() {
        let image = flat(0, 512, false).unwrap();
        let (Mapping::Data { storage, .. }, _) = image.map(0, 512).unwrap() else { panic!("flat is data") };
        assert_eq!(storage.write_at(&[0], 0).unwrap_err().kind(), ErrorKind::ReadOnly);
        assert_eq!(storage.set_len(0).unwrap_err().kind(), ErrorKind::ReadOnly);
        let mut byte = [0];
        storage.read_at(&mut byte, 0).unwrap();
        assert_eq!(byte, [7]);
        image.flush().unwrap();
    }

    #[test]
    fn flushing_a_writable_extent_reaches_the_storage() {
        assert_eq!(flat(0, 512, true).unwrap().flush().unwrap_err().kind(), ErrorKind::Io);
    }

    #[test]
    fn zeros_read_as_zeros_and_take_no_data() {
        let image = Zeros::new(100);
        assert!(matches!(image.map(40, 100).unwrap(), (Mapping::Zero, 60)));
        assert_eq!(image.map(100, 1).unwrap_err().kind(), ErrorKind::OutOfRange);
        assert_eq!(image.prepare(0, 1).unwrap_err().kind(), ErrorKind::ReadOnly);
        assert_eq!(scanned(&image, 0..100), [(0..100, Presence::Zero)]);
    }

    #[test]
    fn an_extent_without_access_is_denied() {
        let image = NoAccess::new(100);
        assert_eq!(image.map(0, 1).unwrap_err().kind(), ErrorKind::AccessDenied);
        assert_eq!(image.scan(0..1, &mut |_, _| ()).unwrap_err().kind(), ErrorKind::AccessDenied);
        assert_eq!(image.capacity(), 100);
    }
}
