//! Disks that are nothing but their bytes: what can be said of one that has no description of its own.

use crate::error::Result;
use crate::format::descriptor::Descriptor;
use crate::format::geometry::Adapter;
use crate::format::geometry::Geometry;
use crate::units::Sectors;

/// The adapter that a disk is said to be for which does not say: every guest has a driver for it.
const ADAPTER: (Adapter, &str) = (Adapter::LsiLogic, "lsilogic");

/// A description of a disk of this size, for asking: adapter and geometry follow from the size, there is no content id, no
/// uuid and no parent.
pub fn describe(capacity: Sectors) -> Result<Descriptor> {
    let Geometry { cylinders, heads, sectors } = Geometry::for_capacity(capacity, ADAPTER.0);
    let extent = capacity.0.max(1); // no extent is empty; who asks for the size asks the disk
    let text = format!(
        "version=1\ncreateType=\"raw\"\nRW {extent} FLAT \"raw\" 0\n\
         ddb.adapterType = \"{}\"\nddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"{heads}\"\nddb.geometry.sectors = \"{sectors}\"\n",
        ADAPTER.1
    );
    Descriptor::parse(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::SECTOR;

    #[test]
    fn a_raw_disk_says_what_follows_from_its_size_and_no_more() {
        let raw = describe(Sectors(1 << 21)).unwrap();
        let keys: Vec<_> = raw.ddb_keys().collect();
        assert_eq!(keys, ["adapterType", "geometry.cylinders", "geometry.heads", "geometry.sectors"]);
        assert_eq!((raw.ddb("geometry.cylinders"), raw.ddb("uuid")), (Some("1024"), None));
        assert_eq!((raw.cid(), raw.parent_cid(), raw.parent_hint()), (None, None, None));
        assert_eq!(raw.create_type(), Some("raw"));
    }

    #[test]
    fn any_size_can_be_described() {
        for bytes in [0, 512, i64::MAX as u64] {
            describe(Sectors(bytes / SECTOR)).unwrap();
        }
    }
}
