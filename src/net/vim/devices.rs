//! Virtual disks among the devices of a machine.

use crate::error::Result;
use crate::net::vim::Adapter;
use crate::net::vim::Backing;
use crate::net::vim::VirtualDisk;
use crate::net::vim::xml;
use crate::net::vim::xml::Node;

/// Links of one disk.
const MOST_LINKS: usize = 256;

/// Reads `config.hardware.device`.
pub fn disks(devices: Node<'_>) -> Result<Vec<VirtualDisk>> {
    let all = || devices.children().filter(|n| n.is_element());
    let mut controllers = Vec::new();
    for device in all() {
        if let Some(adapter) = xml::type_of(device).and_then(adapter)
            && let Some(key) = xml::number::<i32>(device, "key")?
        {
            controllers.push((key, adapter));
        }
    }
    let mut disks = Vec::new();
    for device in all().filter(|device| xml::type_of(*device) == Some("VirtualDisk")) {
        let mut disk = disk(device)?;
        let attached = controllers.iter().find(|(key, _)| *key == disk.controller);
        disk.adapter = attached.map_or(Adapter::Unknown, |(_, adapter)| *adapter);
        disks.push(disk);
    }
    Ok(disks)
}

fn adapter(kind: &str) -> Option<Adapter> {
    match kind {
        "VirtualIDEController" => Some(Adapter::Ide),
        "VirtualBusLogicController" => Some(Adapter::BusLogic),
        "VirtualLsiLogicController" => Some(Adapter::LsiLogic),
        "VirtualLsiLogicSASController" => Some(Adapter::LsiLogicSas),
        "ParaVirtualSCSIController" => Some(Adapter::ParaVirtual),
        "VirtualAHCIController" | "VirtualSATAController" => Some(Adapter::Ahci),
        "VirtualNVMEController" => Some(Adapter::Nvme),
        _ => None,
    }
}

fn disk(device: Node<'_>) -> Result<VirtualDisk> {
    let key = xml::number(device, "key")?.ok_or_else(|| xml::broken("a virtual disk without a key"))?;
    let label = xml::path(device, &["deviceInfo", "label"])?.map(xml::text).unwrap_or_default();
    let mut disk = VirtualDisk {
        key,
        label,
        chain: Vec::new(),
        capacity: capacity(device)?,
        mode: String::new(),
        uuid: None,
        change_id: None,
        controller: xml::number(device, "controllerKey")?.unwrap_or_default(),
        unit: xml::number(device, "unitNumber")?,
        adapter: Adapter::Unknown,
        backing: Backing::Other,
        datastore: None,
        first_class: xml::path(device, &["vDiskId", "id"])?.map(xml::text).filter(|id| !id.is_empty()),
    };
    if let Some(backing) = xml::one(device, "backing")? {
        disk.mode = xml::optional(backing, "diskMode")?.unwrap_or_default();
        disk.uuid = xml::optional(backing, "uuid")?.filter(|uuid| !uuid.is_empty());
        disk.change_id = xml::optional(backing, "changeId")?.filter(|id| !id.is_empty());
        disk.datastore = xml::optional_moref(backing, "datastore").unwrap_or(None);
        disk.backing = kind(xml::type_of(backing).unwrap_or_default());
        disk.chain = chain(backing)?;
    }
    Ok(disk)
}

/// Older servers tell KiB only.
fn capacity(device: Node<'_>) -> Result<u64> {
    let bytes = match xml::number::<u64>(device, "capacityInBytes")? {
        Some(bytes) => Some(bytes),
        None => match xml::number::<u64>(device, "capacityInKB")? {
            Some(kib) => kib.checked_mul(1024),
            None => return Err(xml::broken("a virtual disk without a capacity")),
        },
    };
    bytes
        .filter(|bytes| *bytes < 1 << 62)
        .ok_or_else(|| xml::broken("a virtual disk with an impossible capacity"))
}

fn kind(name: &str) -> Backing {
    match name {
        "VirtualDiskFlatVer1BackingInfo" | "VirtualDiskFlatVer2BackingInfo" => Backing::Flat,
        "VirtualDiskSeSparseBackingInfo" => Backing::SeSparse,
        "VirtualDiskSparseVer1BackingInfo" | "VirtualDiskSparseVer2BackingInfo" => Backing::Sparse,
        "VirtualDiskRawDiskMappingVer1BackingInfo" => Backing::RawDevice,
        _ => Backing::Other,
    }
}

/// Names of the files from this link to the last one.
fn chain(leaf: Node<'_>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut link = Some(leaf);
    while let Some(backing) = link {
        if names.len() >= MOST_LINKS {
            return Err(xml::broken("a virtual disk with too many links"));
        }
        match xml::optional(backing, "fileName")?.filter(|name| !name.is_empty()) {
            Some(name) => names.push(name),
            None => break, // a device without a file
        }
        link = xml::one(backing, "parent")?;
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::net::http::Hidden;
    use crate::net::vim::Moref;

    fn read(devices: &str) -> Result<Vec<VirtualDisk>> {
        let text = format!(
            "<val xmlns='urn:vim25' xmlns:x='http://www.w3.org/2001/XMLSchema-instance' x:type='ArrayOfVirtualDevice'>{devices}</val>"
        );
        disks(xml::parse(text.as_bytes(), &Hidden::default()).unwrap().root_element())
    }

    fn disk_with(inside: &str) -> Result<VirtualDisk> {
        read(&format!("<VirtualDevice x:type='VirtualDisk'>{inside}</VirtualDevice>"))
            .map(|mut disks| disks.remove(0))
    }

    #[test]
    fn a_disk_is_read_with_its_chain_and_controller() {
        let disks = read(
            "<VirtualDevice x:type='VirtualVideoCard'><key>500</key></VirtualDevice>\
             <VirtualDevice x:type='VirtualDisk'><key>2000</key><deviceInfo><label>Hard disk 1</label></deviceInfo>\
             <backing x:type='VirtualDiskSeSparseBackingInfo'><fileName>[ds] a/a-000001.vmdk</fileName>\
             <datastore type='Datastore'>datastore-1</datastore><diskMode>persistent</diskMode><uuid>6000C29</uuid>\
             <changeId>52 f3/2</changeId><parent x:type='VirtualDiskFlatVer2BackingInfo'>\
             <fileName>[ds] a/a.vmdk</fileName><diskMode>persistent</diskMode></parent></backing>\
             <controllerKey>1000</controllerKey><unitNumber>3</unitNumber><capacityInKB>2</capacityInKB>\
             <capacityInBytes>1536</capacityInBytes><vDiskId><id>fcd-1</id></vDiskId><newField>9</newField></VirtualDevice>\
             <VirtualDevice x:type='ParaVirtualSCSIController'><key>1000</key></VirtualDevice>",
        )
        .unwrap();
        let expected = VirtualDisk {
            key: 2000,
            label: "Hard disk 1".into(),
            chain: vec!["[ds] a/a-000001.vmdk".into(), "[ds] a/a.vmdk".into()],
            capacity: 1536,
            mode: "persistent".into(),
            uuid: Some("6000C29".into()),
            change_id: Some("52 f3/2".into()),
            controller: 1000,
            unit: Some(3),
            adapter: Adapter::ParaVirtual,
            backing: Backing::SeSparse,
            datastore: Some(Moref::new("Datastore", "datastore-1")),
            first_class: Some("fcd-1".into()),
        };
        assert_eq!(disks, [expected]);
    }

    #[test]
    fn a_disk_needs_a_key_and_a_possible_capacity() {
        assert_eq!(disk_with("<key>1</key><capacityInKB>2</capacityInKB>").unwrap().capacity, 2048);
        for inside in [
            "<capacityInKB>2</capacityInKB>",
            "<key>x</key><capacityInKB>2</capacityInKB>",
            "<key>99999999999</key><capacityInKB>2</capacityInKB>",
            "<key>1</key>",
            "<key>1</key><capacityInKB>-2</capacityInKB>",
            "<key>1</key><capacityInKB>18446744073709551615</capacityInKB>",
            "<key>1</key><capacityInBytes>9223372036854775807</capacityInBytes>",
            "<key>1</key><key>2</key><capacityInKB>2</capacityInKB>",
        ] {
            assert_eq!(disk_with(inside).unwrap_err().kind(), ErrorKind::Protocol, "{inside}");
        }
    }

    #[test]
    fn chains_are_followed_as_far_as_chains_go() {
        let links = |count: usize| {
            let (begin, end) =
                ("<parent><fileName>[ds] x</fileName>".repeat(count), "</parent>".repeat(count));
            disk_with(&format!(
                "<key>1</key><capacityInKB>2</capacityInKB><backing><fileName>[ds] leaf</fileName>{begin}{end}</backing>"
            ))
        };
        assert_eq!(links(63).unwrap().chain.len(), 64);
        assert_eq!(links(MOST_LINKS).unwrap_err().kind(), ErrorKind::Protocol);
    }
}
