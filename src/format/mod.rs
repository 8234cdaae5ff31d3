//! VMDK: what the bytes of a virtual disk file mean.
//!
//! A format never moves data: it says what lies behind an offset and for how long ([`Image::map`]), and where data to come
//! shall go ([`Image::prepare`], [`Image::commit`]). The loops that copy bytes live in `disk/`. Formats know neither files
//! nor sockets; they ask a [`Storage`].
#![forbid(unsafe_code)]

pub mod bytes;
pub mod check;
pub mod cowd;
pub mod create;
pub mod ddb;
pub mod descriptor;
pub mod encoding;
pub mod flat;
pub mod geometry;
mod lookup;
pub mod raw;
pub mod sesparse;
pub mod sparse;
pub mod stream;

use std::fmt::Debug;
use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// What lies behind an offset of an image.
#[derive(Debug)]
pub enum Mapping<'a> {
    /// Bytes of a storage, at this offset of it.
    Data {
        /// Where the bytes are.
        storage: &'a dyn Storage,
        /// At which byte of it.
        offset: u64,
    },
    /// Zeros, whatever a parent holds.
    Zero,
    /// Nothing here: the parent's content, zeros without a parent.
    Unallocated,
    /// Data that only [`Image::read_packed`] can deliver.
    Packed,
}

/// The same question without the place of the data; what [`Image::scan`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Data of this image.
    Data,
    /// Zeros, whatever a parent holds.
    Zero,
    /// The parent's content.
    Unallocated,
}

/// Where data to come shall be written. Made by [`Image::prepare`], ended by [`Image::commit`] or [`Image::abandon`].
///
/// While it exists, nobody else can prepare any of its grains: `prepare` waits.
#[derive(Debug)]
pub struct Pending<'a> {
    /// The whole grains that are being allocated, as image offsets; holds all of the range asked for that was possible.
    pub grains: Range<u64>,
    /// Where they go.
    pub storage: &'a dyn Storage,
    /// At which byte of `storage` the first of them starts; the others follow without a gap.
    pub offset: u64,
    /// The new space reads as zeros already: zeros need not be written.
    pub zeroed: bool,
    /// The image's own number for this reservation.
    pub ticket: u64,
}

/// How an image shall be rearranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrange {
    /// Grains of zeros go, the gaps are closed, the end is cut off.
    Close,
    /// The grains are put in the order of the disk, without gaps.
    Order,
}

/// An image whose data can be moved about inside its file.
pub trait Rearrange {
    /// Rearranges a writable image that nobody else uses meanwhile; says by how many bytes its file became shorter.
    /// `zero_below` tells whether a range reads as zeros when this image has nothing there. `progress` gets what is done and
    /// all there is to do. A cut at any moment leaves the content as it was; after a failure the image must be opened again
    /// before it is written to.
    fn rearrange(
        &self,
        how: Arrange,
        zero_below: &dyn Fn(Range<u64>) -> Result<bool>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<u64>;
}

/// One link's data, or one extent of it. All methods may be called from many threads at once.
pub trait Image: Debug + Send + Sync {
    /// Size in bytes of what it represents.
    fn capacity(&self) -> u64;

    /// What lies at `offset` (below the capacity), and for how many bytes the answer holds: at least 1, at most `max` and
    /// never past the capacity. Neighbours are merged where that is cheap.
    fn map(&self, offset: u64, max: u64) -> Result<(Mapping<'_>, u64)>;

    /// Delivers bytes of a [`Mapping::Packed`] run.
    fn read_packed(&self, offset: u64, _buf: &mut [u8]) -> Result<()> {
        Err(Error::new(ErrorKind::Internal, format!("no packed data at {offset:#x}")))
    }

    /// Like [`Image::read_packed`], but only if it needs no long work: `Ok(false)` otherwise.
    fn try_read_packed(&self, _offset: u64, _buf: &mut [u8]) -> Result<bool> {
        Ok(false)
    }

    /// The unit in which [`Mapping::Packed`] data is inflated, if there is any. A request cut at its multiples can be
    /// read by several threads without doing anything twice.
    fn packed_unit(&self) -> Option<u64> {
        None
    }

    /// Prepares packed data of a range for coming reads, as far as memory is set aside for that: read-ahead for another
    /// thread to call. A fault here shows again in the read.
    fn prefetch(&self, _offset: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    /// Reports every part of `range` in ascending order without gaps. Neighbours of equal presence need not be merged.
    /// Does not load what it does not need, and leaves caches as they are.
    fn scan(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>, Presence)) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let (mapping, run) = self.map(at, range.end - at)?;
            let presence = match mapping {
                Mapping::Data { .. } | Mapping::Packed => Presence::Data,
                Mapping::Zero => Presence::Zero,
                Mapping::Unallocated => Presence::Unallocated,
            };
            sink(at..at + run, presence);
            at += run;
        }
        Ok(())
    }

    /// Called once before the first change of a writable image: marks it as being written, durably.
    fn begin_writing(&self) -> Result<()> {
        Ok(())
    }

    /// Reserves space for `offset..offset + len`, which [`Image::map`] has just called `Unallocated` or `Zero`. Waits while
    /// another reservation covers the first grain. `Ok(None)`: somebody allocated it meanwhile, map again.
    /// The reservation may cover fewer grains than asked for, never none.
    fn prepare(&self, offset: u64, _len: u64) -> Result<Option<Pending<'_>>> {
        Err(Error::new(ErrorKind::ReadOnly, format!("this kind of image takes no new data (at {offset:#x})")))
    }

    /// Publishes a reservation whose data has been written. With `deferred` the data is not stable yet and must not be found
    /// after a crash: the entries serve reads from now on, and reach the tables at the next [`Image::publish`].
    fn commit(&self, pending: Pending<'_>, _deferred: bool) -> Result<()> {
        Err(Error::new(ErrorKind::Internal, format!("nothing was prepared at {:#x}", pending.grains.start)))
    }

    /// Gives a reservation back after a failed write.
    fn abandon(&self, _pending: Pending<'_>) {}

    /// Writes deferred entries to the tables, after making the data they name stable. Cheap when there are none.
    fn publish(&self) -> Result<()> {
        Ok(())
    }

    /// True when [`Image::publish`] has something to do.
    fn has_unpublished(&self) -> bool {
        false
    }

    /// Returns when everything written before is stable, tables included.
    fn flush(&self) -> Result<()>;

    /// Ends writing: publishes, marks the image as clean, makes that stable. Called once, nothing follows.
    fn finish(&self) -> Result<()> {
        self.flush()
    }

    /// The image as one that can be rearranged, if it can.
    fn rearrangeable(&self) -> Option<&dyn Rearrange> {
        None
    }
}
