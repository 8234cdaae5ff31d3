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
    ///
    /// All adapters but IDE share one table, so disks of one size made for BusLogic, LSI Logic or an unknown adapter
    /// agree; Bareos, which makes every disk for BusLogic, compares them at restore. An IDE disk has 16 heads whatever its
    /// size, because no IDE guest can address more. A disk that carries a geometry in its database keeps that one:
    /// [`Geometry::from_ddb`] comes first, this function fills in where it finds none.
    pub fn for_capacity(capacity: Sectors, adapter: Adapter) -> Geometry {
        let (heads, sectors, most_cylinders) = match (adapter, capacity.0) {
            (Adapter::Ide, _) => (16, 63, IDE_CYLINDERS),
            (_, ..=GIB) => (64, 32, u32::MAX),
            (_, ..=TWO_GIB) => (128, 32, u32::MAX),
            _ => (255, 63, u32::MAX),
        };
        let cylinders = capacity.0 / (u64::from(heads) * u64::from(sectors));
        let cylinders = u32::try_from(cylinders).unwrap_or(u32::MAX).clamp(1, most_cylinders);
        Geometry { cylinders, heads, sectors }
    }

    /// The geometry that a disk database carries. `None` when a number is missing, zero or not a number: compute it then.
    pub fn from_ddb<'a>(lookup: impl Fn(&str) -> Option<&'a str>) -> Option<Geometry> {
        let number = |key| lookup(key)?.trim().parse::<u32>().ok().filter(|&n| n > 0);
        Some(Geometry {
            cylinders: number("geometry.cylinders")?,
            heads: number("geometry.heads")?,
            sectors: number("geometry.sectors")?,
        })
    }

    /// The geometry that the BIOS shall show; zeros when the database does not say all of it.
    pub fn bios_from_ddb<'a>(lookup: impl Fn(&str) -> Option<&'a str>) -> Geometry {
        let bios = |key: &str| match key {
            "geometry.cylinders" => lookup("geometry.biosCylinders"),
            "geometry.heads" => lookup("geometry.biosHeads"),
            _ => lookup("geometry.biosSectors"),
        };
        Geometry::from_ddb(bios).unwrap_or_default()
    }
}

/// 1 GiB in sectors.
const GIB: u64 = 1 << 21;
/// 2 GiB in sectors.
const TWO_GIB: u64 = 1 << 22;
/// The most that the ATA identify data can tell.
const IDE_CYLINDERS: u32 = 16383;

#[cfg(test)]
mod tests {
    use super::*;

    fn scsi(capacity: u64) -> (u32, u32, u32) {
        let g = Geometry::for_capacity(Sectors(capacity), Adapter::LsiLogic);
        (g.cylinders, g.heads, g.sectors)
    }

    #[test]
    fn scsi_geometry_is_what_esxi_wrote_for_known_disks() {
        assert_eq!(scsi(4096), (2, 64, 32)); // 2 MiB
        assert_eq!(scsi(30 << 11), (30, 64, 32)); // 30 MiB
        assert_eq!(scsi(69 << 21), (9007, 255, 63)); // 69 GiB
        assert_eq!(scsi(42 << 31), (5_614_336, 255, 63)); // 42 TiB
    }

    #[test]
    fn the_table_changes_after_one_and_two_gib() {
        assert_eq!((scsi(1 << 21), scsi((1 << 21) + 1)), ((1024, 64, 32), (512, 128, 32)));
        assert_eq!((scsi(1 << 22), scsi((1 << 22) + 1)), ((1024, 128, 32), (261, 255, 63)));
    }

    #[test]
    fn ide_has_16_heads_and_a_limit() {
        let ide = |capacity| Geometry::for_capacity(Sectors(capacity), Adapter::Ide);
        assert_eq!(ide(20480), Geometry { cylinders: 20, heads: 16, sectors: 63 });
        assert_eq!(ide(u64::MAX).cylinders, 16383);
    }

    #[test]
    fn every_other_adapter_gives_the_same_geometry() {
        for capacity in [1, 100, 20480, 1 << 21, 1 << 22, 69 << 21] {
            let one = |adapter| Geometry::for_capacity(Sectors(capacity), adapter);
            assert_eq!(one(Adapter::BusLogic), one(Adapter::LsiLogic));
            assert_eq!(one(Adapter::BusLogic), one(Adapter::Unknown));
        }
    }

    #[test]
    fn no_capacity_gives_an_empty_or_overflowing_geometry() {
        assert_eq!(scsi(0), (1, 64, 32));
        assert_eq!(scsi(1), (1, 64, 32));
        assert_eq!(scsi(u64::MAX), (u32::MAX, 255, 63));
    }

    #[test]
    fn a_database_geometry_counts_only_when_it_is_whole() {
        let whole = |key: &str| match key {
            "geometry.cylinders" => Some("301"),
            "geometry.heads" => Some("4"),
            "geometry.sectors" => Some("17"),
            _ => None,
        };
        assert_eq!(Geometry::from_ddb(whole), Some(Geometry { cylinders: 301, heads: 4, sectors: 17 }));
        assert_eq!(Geometry::bios_from_ddb(whole), Geometry::default());
        for broken in ["0", "", "-1", "x", "99999999999"] {
            let lookup = |key: &str| if key == "geometry.heads" { Some(broken) } else { whole(key) };
            assert_eq!(Geometry::from_ddb(lookup), None, "{broken:?}");
        }
    }

    #[test]
    fn the_bios_geometry_has_its_own_keys() {
        let lookup = |key: &str| match key {
            "geometry.biosCylinders" => Some("1"),
            "geometry.biosHeads" => Some("2"),
            "geometry.biosSectors" => Some("3"),
            _ => None,
        };
        assert_eq!(Geometry::bios_from_ddb(lookup), Geometry { cylinders: 1, heads: 2, sectors: 3 });
    }
}
