//! The bytes of a disk that a server holds, as a [`Storage`] of whole sectors: one piece of code for every protocol.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Result};
use crate::format::bytes::is_zero;
use crate::logging::Log;
use crate::storage::Storage;
use crate::transfer::Finish;
use crate::transfer::Transfer;
use crate::transport::allocation;
use crate::transport::allocation::Known;
use crate::units::SECTOR;
use crate::units::align_up;

/// What the client of a protocol offers for one disk or export. Offsets and lengths are those of the export; splitting,
/// alignment to the server's block size and making up for lost connections are its affair.
pub trait Blocks: Debug + Send + Sync {
    /// Bytes of the export.
    fn size(&self) -> u64;

    /// Fills the buffer.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Writes the buffer.
    fn write(&self, buf: &[u8], offset: u64) -> Result<()>;

    /// As [`Storage::zero`].
    fn zero(&self, range: Range<u64>) -> Result<bool>;

    /// As [`Storage::discard`]. The default: there is nothing to be gained.
    fn trim(&self, _range: Range<u64>) -> Result<bool> {
        Ok(false)
    }

    /// As [`Storage::flush`].
    fn flush(&self) -> Result<()>;

    /// Reports ascending parts of a range, all of it, with what is known of each. `Ok(false)`: the server does not tell.
    fn allocation(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>, Reads)) -> Result<bool>;

    /// As [`Storage::start`].
    fn start(&self, transfer: Transfer, offset: u64, finish: Finish) -> Option<(Transfer, Finish)>;

    /// The value of a key of the disk's database. The default: there is none.
    fn key(&self, _key: &str) -> Result<Option<String>> {
        Ok(None)
    }
}

/// What a server says about a part of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// As anything.
    Anything,
    /// As zeros.
    Zeros,
}

/// An export. Its last sector may lie in the export only in part: the rest reads as zeros, and it cannot be written to.
#[derive(Debug)]
pub struct BlockStorage {
    blocks: Arc<dyn Blocks>,
    label: String,
    log: Log,
    /// Bytes of the export.
    size: u64,
    /// Bytes of the disk: whole sectors.
    len: u64,
    /// Zeros are better said than sent.
    says_zeros: AtomicBool,
    /// The server says what is allocated.
    tells: AtomicBool,
    /// What it said, on a disk that nobody writes to through us.
    known: Option<Known>,
}

/// Writes of zeros from here on are worth a look.
const WORTH_A_LOOK: usize = 64 << 10;

impl BlockStorage {
    /// The export that `blocks` serves.
    pub fn new(blocks: Arc<dyn Blocks>, label: String, write: bool, log: Log) -> Result<Self> {
        let size = blocks.size();
        let len = align_up(size, SECTOR).filter(|len| i64::try_from(*len).is_ok()).ok_or_else(|| {
            Error::new(ErrorKind::UnsupportedFeature, format!("{label} has {size} bytes, more than 2^63"))
        })?;
        Ok(Self {
            blocks,
            label,
            log,
            size,
            len,
            says_zeros: AtomicBool::new(write),
            tells: AtomicBool::new(true),
            known: (!write).then(Known::default),
        })
    }

    /// How many of `len` bytes at `offset` the export has. All of them must lie in the disk.
    fn inside(&self, offset: u64, len: usize) -> Result<usize> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.size => Ok(len),
            Some(end) if end <= self.len => {
                Ok(usize::try_from(self.size.saturating_sub(offset)).unwrap_or(len))
            }
            _ => Err(Error::new(
                ErrorKind::EndOfFile,
                format!("{len} bytes at {offset:#x} of {}, which has {}", self.label, self.len),
            )),
        }
    }

    /// What the export has of a range, if that is anything.
    fn part(&self, range: Range<u64>) -> Option<Range<u64>> {
        let range = range.start..range.end.min(self.size);
        (range.start < range.end).then_some(range)
    }

    /// Refuses to write to the sector that is not whole.
    fn check_whole(&self, offset: u64, len: usize) -> Result<()> {
        if self.inside(offset, len)? == len {
            return Ok(());
        }
        let text = format!(
            "the last sector of {} cannot be written to: the export ends inside it, at byte {}",
            self.label, self.size
        );
        Err(Error::new(ErrorKind::NotSupported, text))
    }

    /// True when these bytes should be said instead of sent.
    fn is_better_said(&self, buf: &[u8]) -> bool {
        buf.len() >= WORTH_A_LOOK && self.says_zeros.load(Ordering::Relaxed) && is_zero(buf)
    }

    /// Asks the server what is allocated. What it does not tell counts as allocated, and so does what it tells only with a
    /// fault of its own; the loss of the connection is told.
    fn ask(&self, range: Range<u64>, sink: allocation::Sink<'_>) -> Result<()> {
        let mut at = range.start;
        let mut take = |part: Range<u64>, reads: Reads| {
            at = at.max(part.end);
            if reads == Reads::Anything {
                sink(part);
            }
        };
        let answer = match self.tells.load(Ordering::Relaxed) {
            true => self.blocks.allocation(range.clone(), &mut take),
            false => Ok(false),
        };
        match answer {
            Ok(true) => return Ok(()),
            Ok(false) => self.tells.store(false, Ordering::Relaxed),
            Err(e) if is_of_the_connection(e.kind()) => return Err(e),
            Err(e) => self.log.warning(|| {
                format!("{} does not tell what is allocated, so all of it counts: {e}", self.label)
            }),
        }
        if at < range.end {
            sink(at..range.end);
        }
        Ok(())
    }
}

/// Faults after which the server cannot be asked anything.
fn is_of_the_connection(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionLost
            | ErrorKind::ConnectionRefused
            | ErrorKind::ServerNotFound
            | ErrorKind::TimedOut
            | ErrorKind::Cancelled
    )
}

impl Storage for BlockStorage {
    fn size(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (inside, past) = buf.split_at_mut(self.inside(offset, buf.len())?);
        past.fill(0);
        self.blocks.read(inside, offset)
    }

    /// What touches the sector that is not whole, and zeros, take the other way.
    fn start(&self, transfer: Transfer, offset: u64, finish: Finish) -> Option<(Transfer, Finish)> {
        let whole = self.inside(offset, transfer.len()).is_ok_and(|inside| inside == transfer.len());
        if !whole || matches!(&transfer, Transfer::Write(buf) if self.is_better_said(buf)) {
            return Some((transfer, finish));
        }
        self.blocks.start(transfer, offset, finish)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_whole(offset, buf.len())?;
        if self.is_better_said(buf) {
            if self.blocks.zero(offset..offset + buf.len() as u64)? {
                return Ok(());
            }
            self.says_zeros.store(false, Ordering::Relaxed);
        }
        self.blocks.write(buf, offset)
    }

    fn flush(&self) -> Result<()> {
        self.blocks.flush()
    }

    fn allocated(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        let Some(range) = self.part(range) else { return Ok(()) };
        let mut ask = |range: Range<u64>, sink: allocation::Sink<'_>| self.ask(range, sink);
        match &self.known {
            Some(known) => known.tell(range, self.size, &mut ask, sink),
            None => allocation::closed(range, &mut ask, sink),
        }
    }

    /// The rest of the sector that is not whole is zeros already.
    fn zero(&self, range: Range<u64>) -> Result<bool> {
        let Some(range) = self.part(range) else { return Ok(true) };
        let zeroed = self.blocks.zero(range)?;
        if !zeroed {
            self.says_zeros.store(false, Ordering::Relaxed);
        }
        Ok(zeroed)
    }

    fn discard(&self, range: Range<u64>) -> Result<bool> {
        self.part(range).map_or(Ok(false), |range| self.blocks.trim(range))
    }

    fn label(&self) -> String {
        self.label.clone()
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of ranges with one in them")]
mod tests;
