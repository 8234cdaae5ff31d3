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

/// A description of a disk that a server shows as one, for asking: the pairs that the server has in its database, of which
/// the unusable are left out, and the content id that follows from them if one does.
pub fn describe_served(capacity: Sectors, database: &[(String, String)]) -> Result<Descriptor> {
    let extent = capacity.0.max(1);
    let cid = database.iter().find_map(|(key, value)| content_id(key, value));
    let cid = cid.map_or_else(String::new, |cid| format!("CID={cid}\nparentCID=ffffffff\n"));
    let text = format!("version=1\n{cid}createType=\"vmfs\"\nRW {extent} VMFS \"served\" 0\n");
    let mut described = Descriptor::parse(text.as_bytes())?;
    for (key, value) in database.iter().filter(|(key, value)| key.len() + value.len() <= LONGEST_PAIR) {
        let _ = described.set_ddb(key, value); // a pair that no descriptor could hold is not one of its database
    }
    Ok(described)
}

/// A pair of the database that is longer belongs to no disk.
const LONGEST_PAIR: usize = 4096;

/// The last eight digits of the long content id are the content id, in every disk of a host.
fn content_id<'a>(key: &str, value: &'a str) -> Option<&'a str> {
    let digits = value.get(value.len().checked_sub(8)?..)?;
    let usable = key.eq_ignore_ascii_case("longContentID")
        && value.len() == 32
        && value.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !digits.eq_ignore_ascii_case("ffffffff");
    usable.then_some(digits)
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

    #[test]
    fn a_served_disk_has_the_database_of_its_server_and_its_content_id() {
        let pairs = [
            ("adapterType", "ide"),
            ("longContentID", "bd746094172e7bea0b3805d81234abcd"),
            ("comment", "two\nlines"),
            ("uuid", "60 00 C2 9b"),
        ];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let served = describe_served(Sectors(2048), &pairs).unwrap();
        assert_eq!(served.ddb_keys().collect::<Vec<_>>(), ["adapterType", "longContentID", "uuid"]);
        assert_eq!((served.cid(), served.parent_cid()), (Some(0x1234_abcd), None));
        assert_eq!(served.ddb("uuid"), Some("60 00 C2 9b"));
        for odd in ["", "ü", "bd746094172e7bea0b3805d8ffffffff", "zz746094172e7bea0b3805d81234abcd"] {
            let pair = [("longContentID".to_owned(), odd.to_owned())];
            assert_eq!(describe_served(Sectors(1), &pair).unwrap().cid(), None, "{odd}");
        }
    }
}
