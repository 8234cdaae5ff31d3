//! A chain of links and the one loop that reads, writes and lists them.
//!
//! ```text
//!   Disk ── links[0] leaf ── pieces: extent image │ extent image │ …      read: leaf first, then its parents
//!        ├─ links[1]       ── pieces: …                                    write: leaf only
//!        └─ links[n] base
//! ```
//!
//! Formats say where bytes are; this room moves them. It does not know where storages come from.
#![forbid(unsafe_code)]

pub mod anatomy;
pub mod attach;
pub mod blocks;
pub mod check;
pub mod cid;
pub mod compact;
pub mod copy;
pub mod link;
pub mod open;
pub mod owner;
pub mod raw;
pub mod read;
pub mod start;
pub mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

use crate::disk::link::Link;
use crate::disk::owner::OwnerIndex;
use crate::error::{Error, ErrorKind, Result};
use crate::format::Image;
use crate::units::byte_range;

/// An opened chain. All methods may be called from many threads at once.
#[derive(Debug)]
pub struct Disk {
    /// Leaf first, base last.
    links: Vec<Arc<Link>>,
    capacity: u64,
    writable: bool,
    /// The leaf has a parent, opened or not: its new grains wait for stable data.
    is_child: bool,
    /// Which link answers for which part of the disk.
    owners: OwnerIndex,
    /// Whether the leaf is marked as changed: see [`Disk::mark_changed`].
    changed: AtomicU8,
    /// Held by the one thread that marks the leaf.
    marking: Mutex<()>,
    /// The storage below takes transfers that go on by themselves.
    starts: bool,
}

/// States of `Disk::changed`.
const UNCHANGED: u8 = 0;
const CHANGED: u8 = 1;
const FAILED: u8 = 2;

impl Disk {
    /// A disk of these links, leaf first.
    fn new(links: Vec<Arc<Link>>, writable: bool, is_child: bool) -> Result<Self> {
        let Some(leaf) = links.first() else {
            return Err(Error::new(ErrorKind::Internal, "a chain without links"));
        };
        let capacity = leaf.capacity();
        let owners = OwnerIndex::new(links.len());
        let (changed, marking) = (AtomicU8::new(UNCHANGED), Mutex::new(()));
        Ok(Self { links, capacity, writable, is_child, owners, changed, marking, starts: false })
    }

    /// Size in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// True when it was opened for writing.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// True when the leaf has a parent, opened or not.
    pub fn is_child(&self) -> bool {
        self.is_child
    }

    /// The links, leaf first.
    pub fn links(&self) -> &[Arc<Link>] {
        &self.links
    }

    /// The link that was opened.
    pub fn leaf(&self) -> &Link {
        &self.links[0] // `new` refuses a chain without links
    }

    /// Refuses to change a disk that was opened for reading.
    pub(super) fn check_writable(&self) -> Result<()> {
        match self.writable {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::ReadOnly, "the disk is open read-only")),
        }
    }

    /// Refuses what does not lie inside the disk.
    pub fn check_range(&self, offset: u64, len: usize) -> Result<()> {
        match byte_range(offset, len as u64) {
            Ok(range) if range.end <= self.capacity => Ok(()),
            _ => Err(Error::new(
                ErrorKind::OutOfRange,
                format!("{len} bytes at {offset:#x} lie outside the disk of {} bytes", self.capacity),
            )),
        }
    }

    /// Returns when everything written before is stable, tables included.
    pub fn flush(&self) -> Result<()> {
        self.changed_images().try_for_each(|image| {
            image.publish()?;
            image.flush()
        })
    }

    /// Writes what a child keeps back to its tables. Cheap when there is nothing.
    pub fn publish(&self) -> Result<()> {
        self.changed_images().filter(|image| image.has_unpublished()).try_for_each(Image::publish)
    }

    /// True when [`Disk::publish`] has something to do.
    pub fn has_unpublished(&self) -> bool {
        self.changed_images().any(Image::has_unpublished)
    }

    /// True when something was written, or began to be.
    pub fn is_changed(&self) -> bool {
        self.changed_images().next().is_some()
    }

    /// Ends writing: everything stable, the extents marked clean. No call may follow that writes. The first error is
    /// returned; every extent is ended anyway.
    pub fn finish(&self) -> Result<()> {
        let mut first = Ok(());
        for image in self.changed_images() {
            let ended = image.finish();
            first = first.and(ended);
        }
        first
    }

    /// The extents of the leaf that were written to.
    fn changed_images(&self) -> impl Iterator<Item = &dyn Image> {
        let pieces = if self.writable { self.leaf().pieces() } else { &[] };
        pieces.iter().filter(|piece| piece.is_begun()).map(|piece| piece.image())
    }

    /// Before the first change after an open: a new content id, stable before anything it stands for.
    fn mark_changed(&self) -> Result<()> {
        if self.changed.load(Ordering::Acquire) == UNCHANGED {
            let _marking = self.marking.lock();
            if self.changed.load(Ordering::Acquire) == UNCHANGED {
                let result = self.leaf().renew_cid();
                self.changed.store(if result.is_ok() { CHANGED } else { FAILED }, Ordering::Release);
                return result;
            }
        }
        match self.changed.load(Ordering::Acquire) {
            CHANGED => Ok(()),
            _ => Err(Error::new(ErrorKind::ReadOnly, "writing failed to start; reopen the disk")),
        }
    }
}
