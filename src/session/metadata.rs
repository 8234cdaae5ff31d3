//! What a disk says about itself: its database as key and value strings, and what follows from it.

use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::format::ddb;
use crate::format::geometry::Geometry;
use crate::session::open_disk::DiskInfo;
use crate::units::SECTOR;
use crate::units::Sectors;

/// The value of `key`: the opened link's, else that of the nearest parent that has one.
fn look_up(disk: &Disk, key: &str) -> Option<String> {
    disk.links().iter().find_map(|link| link.with_descriptor(|d| d.ddb(key).map(str::to_owned)))
}

/// The value of a key, `KeyNotFound` when no link has it.
pub(super) fn value(disk: &Disk, key: &str) -> Result<String> {
    look_up(disk, key).ok_or_else(|| {
        Error::new(
            ErrorKind::KeyNotFound,
            format!("{} has no key {key:?} in its database", disk.leaf().label()),
        )
    })
}

/// Sets a value in the opened link, durably.
pub(super) fn set(disk: &Disk, key: &str, value: &str) -> Result<()> {
    if !disk.is_writable() {
        return Err(Error::new(ErrorKind::ReadOnly, format!("{} is open read-only", disk.leaf().label())));
    }
    disk.leaf().change_descriptor(|descriptor| descriptor.set_ddb(key, value))
}

/// Every key once, the opened link's first.
pub(super) fn keys(disk: &Disk) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for link in disk.links() {
        link.with_descriptor(|descriptor| {
            for key in descriptor.ddb_keys() {
                if !all.iter().any(|known| known.eq_ignore_ascii_case(key)) {
                    all.push(key.to_owned());
                }
            }
        });
    }
    all
}

/// What the disk's users are shown of it.
pub(super) fn info(disk: &Disk) -> Result<DiskInfo> {
    let capacity = Sectors(disk.capacity() / SECTOR);
    let all: Vec<(String, Option<String>)> =
        keys(disk).into_iter().map(|k| (k.clone(), look_up(disk, &k))).collect();
    let look = |key: &str| {
        all.iter().find(|(known, _)| known.eq_ignore_ascii_case(key)).and_then(|(_, value)| value.as_deref())
    };
    let adapter = ddb::adapter(look("adapterType"));
    Ok(DiskInfo {
        bios_geometry: Geometry::bios_from_ddb(look),
        geometry: Geometry::from_ddb(look).unwrap_or_else(|| Geometry::for_capacity(capacity, adapter)),
        capacity,
        adapter,
        links: u32::try_from(disk.links().len()).unwrap_or(u32::MAX),
        parent_hint: disk.leaf().with_descriptor(|d| d.parent_hint().map(str::to_owned)),
        uuid: look("uuid").map(str::to_owned),
        logical_sector_size: ddb::sector_size(look("logicalSectorSize")),
        physical_sector_size: ddb::sector_size(look("physicalSectorSize")),
    })
}
