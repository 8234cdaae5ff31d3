//! Disk geometry as VMware computes it.

use crate::units::Sectors;

/// Cylinders, heads and sectors per track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Geometry {
    /// Cylinders.
    pub cylinders: u32,
    /// Heads, also called tracks per cylinder.
    pub heads: u32,
    /// Sectors per track.
    pub sectors: u32,
}

/// The virtual adapter a disk is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Adapter {
    /// IDE.
    Ide,
    /// SCSI, BusLogic.
    BusLogic,
    /// SCSI, LSI Logic; also what paravirtual, SAS and NVMe disks carry.
    LsiLogic,
    /// Something else, or not said.
    Unknown,
}

impl Geometry {
    /// The geometry of a new disk: a stable function of capacity and adapter.
    pub fn for_capacity(_capacity: Sectors, _adapter: Adapter) -> Geometry {
        todo!()
    }
}
