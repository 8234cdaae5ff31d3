//! The disk database (`ddb.` lines) of a new disk, and the meaning of values found in one.

use crate::format::create::CreateSpec;
use crate::format::create::DiskType;
use crate::format::create::NewIdentity;
use crate::format::geometry::Adapter;
use crate::format::geometry::Geometry;

/// Keys, without `ddb.`, and values of a new disk, in the order in which they are written: that of their names, as ESXi
/// sorts them.
pub fn new_disk(spec: &CreateSpec, identity: &NewIdentity) -> Vec<(&'static str, String)> {
    let geometry = Geometry::for_capacity(spec.capacity, spec.adapter);
    let mut ddb = vec![
        ("adapterType", adapter_name(spec.adapter).to_owned()),
        ("encoding", "UTF-8".to_owned()),
        ("geometry.cylinders", geometry.cylinders.to_string()),
        ("geometry.heads", geometry.heads.to_string()),
        ("geometry.sectors", geometry.sectors.to_string()),
        ("longContentID", identity.long_content_id()),
        ("toolsVersion", UNKNOWN_TOOLS.to_owned()),
        ("uuid", uuid_text(&identity.uuid)),
        ("virtualHWVersion", spec.hardware_version.to_string()),
    ];
    for (key, size) in
        [("logicalSectorSize", spec.logical_sector_size), ("physicalSectorSize", spec.physical_sector_size)]
    {
        if size == LARGE_SECTOR {
            ddb.push((key, size.to_string()));
        }
    }
    if spec.disk_type == DiskType::VmfsThin {
        ddb.push(("thinProvisioned", "1".to_owned()));
    }
    ddb.sort_by_key(|&(key, _)| key);
    ddb
}

/// The value of `uuid` for 16 random bytes: VMware's prefix 60 00 C2 9, the rest random.
pub fn uuid_text(random: &[u8; 16]) -> String {
    let mut bytes = *random;
    let [first, second, third, fourth, ..] = &mut bytes;
    (*first, *second, *third, *fourth) = (0x60, 0x00, 0xc2, 0x90 | *fourth & 0x0f);
    let mut text = String::with_capacity(47);
    for (i, byte) in bytes.iter().enumerate() {
        text += match i {
            0 => "",
            8 => "-",
            _ => " ",
        };
        text += &match i {
            0..3 => format!("{byte:02X}"),
            _ => format!("{byte:02x}"),
        };
    }
    text
}

/// The number that a value says.
pub fn number(value: &str) -> Option<u64> {
    value.trim().parse().ok()
}

/// The sector size that a value says; 512 for anything that is not 4096.
pub fn sector_size(value: Option<&str>) -> u32 {
    match value.and_then(number) {
        Some(4096) => LARGE_SECTOR,
        _ => 512,
    }
}

/// The value of `adapterType`. A disk made for no adapter in particular carries what VMware's newer adapters carry.
pub fn adapter_name(adapter: Adapter) -> &'static str {
    match adapter {
        Adapter::Ide => "ide",
        Adapter::BusLogic => "buslogic",
        Adapter::LsiLogic | Adapter::Unknown => "lsilogic",
    }
}

/// The adapter behind a value of `adapterType`.
pub fn adapter(value: Option<&str>) -> Adapter {
    let known = [
        ("ide", Adapter::Ide),
        ("buslogic", Adapter::BusLogic),
        ("lsilogic", Adapter::LsiLogic),
        ("lsisas1068", Adapter::LsiLogic),
        ("pvscsi", Adapter::LsiLogic),
    ];
    let name = value.unwrap_or_default().trim();
    known
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map_or(Adapter::Unknown, |&(_, adapter)| adapter)
}

/// The only sector size besides 512.
const LARGE_SECTOR: u32 = 4096;
/// The version of the guest's tools when nobody knows it.
const UNKNOWN_TOOLS: &str = "2147483647";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uuid_has_the_form_that_vmware_writes() {
        let random = std::array::from_fn(|i| 0xf0 | i as u8);
        assert_eq!(uuid_text(&random), "60 00 C2 93 f4 f5 f6 f7-f8 f9 fa fb fc fd fe ff");
        assert_eq!(uuid_text(&[0; 16]), "60 00 C2 90 00 00 00 00-00 00 00 00 00 00 00 00");
    }

    #[test]
    fn adapters_survive_their_names() {
        for one in [Adapter::Ide, Adapter::BusLogic, Adapter::LsiLogic] {
            assert_eq!(adapter(Some(adapter_name(one))), one);
        }
        assert_eq!(adapter(Some("LsiLogic")), Adapter::LsiLogic);
        assert_eq!(adapter(Some("legacyESX")), Adapter::Unknown);
        assert_eq!(adapter(None), Adapter::Unknown);
        assert_eq!(adapter_name(Adapter::Unknown), "lsilogic");
    }

    #[test]
    fn a_sector_size_is_512_or_4096() {
        let sizes = [None, Some("512"), Some("4096"), Some("0"), Some("x"), Some("8192")].map(sector_size);
        assert_eq!(sizes, [512, 512, 4096, 512, 512, 512]);
    }
}
