//! What a copy takes from its source besides the content.

use crate::disk::Disk;
use crate::error::Result;
use crate::format::create::CreateSpec;
use crate::format::create::DiskType;
use crate::format::ddb;
use crate::format::descriptor::ExtentKind;
use crate::format::geometry::Adapter;
use crate::session::copy::CopySpec;
use crate::session::metadata;
use crate::units::SECTOR;
use crate::units::Sectors;

/// The kind of disk that comes closest to one that exists.
pub(super) fn kind_of(disk: &Disk) -> DiskType {
    disk.leaf().with_descriptor(|descriptor| {
        let thin = descriptor.ddb("thinProvisioned") == Some("1");
        let flat = descriptor.extents().iter().all(|extent| {
            !matches!(extent.kind, ExtentKind::Sparse | ExtentKind::VmfsSparse | ExtentKind::SeSparse)
        });
        match descriptor.create_type().unwrap_or_default().to_ascii_lowercase().as_str() {
            "streamoptimized" => DiskType::StreamOptimized,
            "twogbmaxextentsparse" | "2gbmaxextentsparse" => DiskType::SplitSparse,
            "twogbmaxextentflat" | "2gbmaxextentflat" => DiskType::SplitFlat,
            "vmfsthin" => DiskType::VmfsThin,
            "vmfs" if thin => DiskType::VmfsThin,
            name if flat && name.starts_with("vmfs") => DiskType::VmfsFlat,
            _ if flat => DiskType::MonolithicFlat,
            _ => DiskType::MonolithicSparse,
        }
    })
}

/// What a copy is made as: what the caller says, then what the source says.
pub(super) fn create_spec(source: &Disk, kind: Option<DiskType>, spec: Option<&CopySpec>) -> CreateSpec {
    let value = |key| metadata::value(source, key).ok();
    let version = || value("virtualHWVersion").as_deref().and_then(ddb::number);
    CreateSpec {
        disk_type: kind.unwrap_or(DiskType::MonolithicSparse),
        adapter: spec.map_or_else(|| ddb::adapter(value("adapterType").as_deref()), |spec| spec.adapter),
        hardware_version: spec.map_or_else(
            || version().and_then(|n| u16::try_from(n).ok()).unwrap_or(HARDWARE_VERSION),
            |spec| spec.hardware_version,
        ),
        capacity: Sectors(source.capacity() / SECTOR),
        logical_sector_size: ddb::sector_size(value("logicalSectorSize").as_deref()),
        physical_sector_size: ddb::sector_size(value("physicalSectorSize").as_deref()),
    }
}

/// Writes what the copy keeps of its source's database.
pub(super) fn adopt(source: &Disk, copy: &Disk, adapter: Adapter) -> Result<()> {
    let before = ddb::adapter(metadata::value(source, "adapterType").ok().as_deref());
    let same_geometry = (before == Adapter::Ide) == (adapter == Adapter::Ide);
    let geometry = if same_geometry { &KEPT_GEOMETRY[..] } else { &[] };
    let kept: Vec<(&str, String)> = KEPT
        .iter()
        .chain(geometry)
        .filter_map(|key| Some((*key, metadata::value(source, key).ok()?)))
        .filter(|(_, value)| value.len() <= LONGEST_KEPT)
        .collect();
    copy.leaf().change_descriptor(|descriptor| {
        for (key, value) in &kept {
            let _ = descriptor.set_ddb(key, value); // what UTF-8 cannot hold does not make the copy worthless
        }
        Ok(())
    })
}

/// Keys of the database that a copy keeps, besides geometry.
const KEPT: [&str; 3] = ["toolsVersion", "toolsInstallType", "comment"];
/// Keys that a copy keeps when its adapter counts the same way.
const KEPT_GEOMETRY: [&str; 6] = [
    "geometry.cylinders",
    "geometry.heads",
    "geometry.sectors",
    "geometry.biosCylinders",
    "geometry.biosHeads",
    "geometry.biosSectors",
];
/// A longer value may not fit where the new descriptor stands.
const LONGEST_KEPT: usize = 1024;
/// The hardware version of a copy of a disk that names none.
const HARDWARE_VERSION: u16 = 4;
