//! An open disk: reading, writing, allocated blocks, what it is.

use bitflags::bitflags;

use crate::error::Result;
use crate::format::geometry::{Adapter, Geometry};
use crate::units::Sectors;

bitflags! {
    /// How a disk is opened; unknown bits are kept.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OpenFlags: u32 {
        /// Bypass the host's cache.
        const UNBUFFERED = 1;
        /// Only the named link, without its parents.
        const SINGLE_LINK = 2;
        /// No writing.
        const READ_ONLY = 4;
        /// Compress on the network with zlib; no effect on local disks.
        const COMPRESSION_ZLIB = 16;
        /// Compress on the network with FastLZ; no effect on local disks.
        const COMPRESSION_FASTLZ = 32;
        /// Do not send zero blocks over the network; no effect on local disks.
        const COMPRESSION_SKIPZ = 64;
        const _ = !0;
    }
}

/// What a disk says about itself.
#[derive(Clone, Debug)]
pub struct DiskInfo {
    /// Geometry the BIOS shows; zeros when the disk does not say.
    pub bios_geometry: Geometry,
    /// The disk's geometry.
    pub geometry: Geometry,
    /// Size of the disk.
    pub capacity: Sectors,
    /// The adapter it was made for.
    pub adapter: Adapter,
    /// Links in the opened chain, 1 for a base disk.
    pub links: u32,
    /// The parent named by the opened link.
    pub parent_hint: Option<String>,
    /// The disk's identity as its database has it.
    pub uuid: Option<String>,
    /// 512 or 4096.
    pub logical_sector_size: u32,
    /// 512 or 4096.
    pub physical_sector_size: u32,
}

/// What runs once when an asynchronous request is done: a plain function and two words for it, so that a request needs no
/// allocation. Called without any lock held, on any thread, also before the submitting call returns.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// The function.
    pub call: fn([usize; 2], Result<()>),
    /// Handed to it as they are.
    pub words: [usize; 2],
}

/// Ascending, disjoint, non-empty ranges in sectors: (start, length).
pub type AllocatedBlocks = Vec<(u64, u64)>;

/// A disk opened with its chain. All methods may be called from many threads at once.
#[derive(Debug)]
pub struct OpenDisk {}

impl OpenDisk {
    /// Reads whole sectors; `buf.len()` is a multiple of 512. Any part past the end fails with `OutOfRange` and reads
    /// nothing; an empty read at or before the end succeeds.
    pub fn read(&self, _start: Sectors, _buf: &mut [u8]) -> Result<()> {
        todo!()
    }

    /// Writes whole sectors. Acknowledged data survives the end of the process.
    pub fn write(&self, _start: Sectors, _buf: &[u8]) -> Result<()> {
        todo!()
    }

    /// Starts a read. `Err`: refused, `done` does not run. `Ok`: `done` runs exactly once.
    pub fn read_async(&self, _start: Sectors, _buf: &'static mut [u8], _done: Completion) -> Result<()> {
        todo!()
    }

    /// Starts a write; see [`OpenDisk::read_async`].
    pub fn write_async(&self, _start: Sectors, _buf: &'static [u8], _done: Completion) -> Result<()> {
        todo!()
    }

    /// Returns when every asynchronous request of this disk has completed and its completion has returned. Refused with
    /// `Busy` inside a completion.
    pub fn wait(&self) -> Result<()> {
        todo!()
    }

    /// Returns when everything acknowledged is stable.
    pub fn flush(&self) -> Result<()> {
        todo!()
    }

    /// What the disk says about itself.
    pub fn info(&self) -> Result<DiskInfo> {
        todo!()
    }

    /// The transport it uses.
    pub fn transport_mode(&self) -> &'static str {
        todo!()
    }

    /// The sectors that may hold data, in units of `chunk` sectors, clipped to `start..start + count` and the capacity.
    /// `count` may pass the end. `chunk` of at least 128, at most 524288 chunks.
    pub fn allocated_blocks(
        &self,
        _start: Sectors,
        _count: Sectors,
        _chunk: Sectors,
    ) -> Result<AllocatedBlocks> {
        todo!()
    }

    /// The value of a key of the disk database, `KeyNotFound` when there is none.
    pub fn metadata(&self, _key: &str) -> Result<String> {
        todo!()
    }

    /// Adds or replaces a value.
    pub fn set_metadata(&self, _key: &str, _value: &str) -> Result<()> {
        todo!()
    }

    /// Every key that [`OpenDisk::metadata`] answers.
    pub fn metadata_keys(&self) -> Result<Vec<String>> {
        todo!()
    }

    /// Completes what is in flight, makes written data durable and releases locks. Closing twice is `InvalidHandle`.
    pub fn close(&self) -> Result<()> {
        todo!()
    }
}
