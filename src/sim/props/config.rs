//! The configuration of a machine, or of a snapshot: above all its devices.

use crate::sim::clock;
use crate::sim::props::Source;
use crate::sim::props::machine::GUEST;
use crate::sim::value::Data;
use crate::sim::value::Value;
use crate::sim::world::device::Controller;
use crate::sim::world::device::Device;
use crate::sim::world::device::Link;
use crate::sim::world::machine::Machine;
use crate::sim::world::machine::Snapshot;

/// `VirtualMachineConfigInfo` with these disks.
pub fn config(source: &Source<'_>, machine: &Machine, disks: &[&Device], of: Option<&Snapshot>) -> Data {
    let folder =
        machine.vmx.rsplit_once('/').map_or_else(|| machine.vmx.clone(), |(folder, _)| format!("{folder}/"));
    let files = Data::new("VirtualMachineFileInfo")
        .with("vmPathName", machine.vmx.clone())
        .with("snapshotDirectory", folder.clone())
        .with("suspendDirectory", folder.clone())
        .with("logDirectory", folder);
    let unique = machine.extra.iter().any(|(key, value)| {
        key.eq_ignore_ascii_case("disk.enableUUID") && value.eq_ignore_ascii_case("true")
    });
    let extra = machine.extra.iter().map(|(key, value)| {
        Value::from(Data::new("OptionValue").with("key", key.clone()).with("value", value.clone()))
    });
    let modified = of.map_or(machine.created, |snapshot| snapshot.created);
    Data::new("VirtualMachineConfigInfo")
        .with("changeVersion", clock::iso(modified))
        .with("modified", Value::Time(clock::iso(modified)))
        .with("name", machine.name.clone())
        .with("guestFullName", GUEST.1)
        .with("version", "vmx-13")
        .with("uuid", machine.uuid.clone())
        .with("createDate", Value::Time(clock::iso(machine.created)))
        .with("instanceUuid", machine.instance_uuid.clone())
        .with("template", false)
        .with("guestId", GUEST.0)
        .with("alternateGuestName", "")
        .with("annotation", "")
        .with("files", files)
        .with("flags", Data::new("VirtualMachineFlagInfo").with("diskUuidEnabled", unique))
        .with("hardware", hardware(source, machine, disks, of))
        .list("extraConfig", "OptionValue", extra)
        .with("changeTrackingEnabled", machine.tracking)
        .with("firmware", "bios")
}

fn hardware(source: &Source<'_>, machine: &Machine, disks: &[&Device], of: Option<&Snapshot>) -> Data {
    let controllers = machine.slots.controllers.iter().map(|it| controller(it, disks));
    let latest = |device: &Device| match of {
        Some(_) => device.change_id.clone(),
        None => machine
            .disks
            .iter()
            .find(|disk| disk.device.key == device.key)
            .and_then(|disk| disk.tracker.latest()),
    };
    let disks =
        disks.iter().enumerate().map(|(at, device)| disk(source, device, at + 1, latest(device).as_deref()));
    Data::new("VirtualHardware")
        .with("numCPU", 1i32)
        .with("numCoresPerSocket", 1i32)
        .with("memoryMB", 1024i32)
        .list("device", "VirtualDevice", controllers.chain(disks))
}

fn label(label: String, summary: String) -> Data {
    Data::new("Description").with("label", label).with("summary", summary)
}

fn controller(controller: &Controller, disks: &[&Device]) -> Value {
    let on_it = disks.iter().filter(|device| device.controller == controller.key);
    let on_it: Vec<Value> = on_it.map(|device| Value::Int(device.key)).collect();
    let name = format!("SCSI controller {}", controller.bus);
    Data::new(controller.kind)
        .with("key", controller.key)
        .with("deviceInfo", label(name.clone(), name))
        .with("busNumber", controller.bus)
        .list("device", "int", on_it)
        .with("hotAddRemove", true)
        .with("sharedBus", Value::Enum("VirtualSCSISharing", "noSharing".to_owned()))
        .with("scsiCtlrUnitNumber", 7i32)
        .into()
}

fn disk(source: &Source<'_>, device: &Device, number: usize, change_id: Option<&str>) -> Value {
    let kilobytes = i64::try_from(device.capacity / 1024).unwrap_or(i64::MAX);
    let mut backing: Option<Data> = None;
    for (depth, link) in device.chain.iter().enumerate().rev() {
        let id = change_id.filter(|_| depth == 0);
        backing = Some(backing_of(source, device, link, id, backing));
    }
    let first_class = device.leaf().and_then(|leaf| source.world.first_class_at(&leaf.file));
    Data::new("VirtualDisk")
        .with("key", device.key)
        .with("deviceInfo", label(format!("Hard disk {number}"), format!("{} KB", grouped(kilobytes))))
        .maybe("backing", backing)
        .with("controllerKey", device.controller)
        .with("unitNumber", device.unit)
        .with("capacityInKB", kilobytes)
        .with("capacityInBytes", device.capacity)
        .maybe("vDiskId", first_class.map(|disk| Data::new("ID").with("id", disk.id.clone())))
        .into()
}

/// Deltas of VMFS-6 have a type of their own, everything else shows as ESXi shows its files. The types of a chain are one:
/// that of the leaf would have to be that of its parents, which a parent in flat form cannot be, so only a chain all of whose
/// links are such deltas but the base is one.
fn backing_of(
    source: &Source<'_>,
    device: &Device,
    link: &Link,
    change_id: Option<&str>,
    parent: Option<Data>,
) -> Data {
    let delta = parent.is_some();
    let store = source.world.store_ref(&link.file.store);
    let name = link.file.to_string();
    if link.se_sparse && parent.as_ref().is_none_or(|parent| parent.kind == "VirtualDiskSeSparseBackingInfo")
    {
        return Data::new("VirtualDiskSeSparseBackingInfo")
            .with("fileName", name)
            .maybe("datastore", store)
            .with("diskMode", device.mode.clone())
            .with("writeThrough", false)
            .with("uuid", device.uuid.clone())
            .maybe("changeId", change_id)
            .maybe("parent", parent)
            .maybe("deltaDiskFormat", delta.then_some("seSparseFormat"))
            .with("digestEnabled", false);
    }
    Data::new("VirtualDiskFlatVer2BackingInfo")
        .with("fileName", name)
        .maybe("datastore", store)
        .with("diskMode", device.mode.clone())
        .with("split", false)
        .with("writeThrough", false)
        .with("thinProvisioned", link.thin)
        .with("uuid", device.uuid.clone())
        .maybe("changeId", change_id)
        .maybe("parent", parent)
        .maybe(
            "deltaDiskFormat",
            delta.then_some(if link.se_sparse { "seSparseFormat" } else { "redoLogFormat" }),
        )
        .with("digestEnabled", false)
        .with("sharing", "sharingNone")
}

/// `16,777,216`.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
