//! What a new disk is made of.

use crate::format::geometry::Adapter;
use crate::units::Sectors;

/// The kind of disk to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskType {
    /// One growing file.
    MonolithicSparse,
    /// One preallocated file.
    MonolithicFlat,
    /// Growing files of 2 GB.
    SplitSparse,
    /// Preallocated files of 2 GB.
    SplitFlat,
    /// ESX thick.
    VmfsFlat,
    /// Compressed, written in sequence.
    StreamOptimized,
    /// ESX thin.
    VmfsThin,
    /// ESX sparse.
    VmfsSparse,
}

/// What a caller says about a disk to be made.
#[derive(Clone, Copy, Debug)]
pub struct CreateSpec {
    /// The kind of disk.
    pub disk_type: DiskType,
    /// The adapter it is for.
    pub adapter: Adapter,
    /// Virtual hardware version, any number.
    pub hardware_version: u16,
    /// Its size.
    pub capacity: Sectors,
    /// 512 or 4096.
    pub logical_sector_size: u32,
    /// 512 or 4096.
    pub physical_sector_size: u32,
}
