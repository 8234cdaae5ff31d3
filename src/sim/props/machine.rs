//! Machines and snapshots.

use crate::sim::clock;
use crate::sim::props::Source;
use crate::sim::props::config;
use crate::sim::props::inventory;
use crate::sim::props::layout;
use crate::sim::soap::consolidate;
use crate::sim::value::Data;
use crate::sim::value::Moref;
use crate::sim::value::Value;
use crate::sim::world::device::Device;
use crate::sim::world::machine::Machine;
use crate::sim::world::machine::Snapshot;

/// The guest system that machines say they have.
pub const GUEST: (&str, &str) = ("otherGuest64", "Other (64-bit)");

/// All properties of a machine.
pub fn properties(source: &Source<'_>, machine: &Machine) -> Data {
    let world = source.world;
    let moref = machine.moref();
    let active = |session: &String| source.site.sessions.has_key(session);
    let disabled = machine.disabled.iter().filter(|one| one.session.as_ref().is_none_or(active));
    let disabled = disabled.map(|one| Value::from(one.method.clone())).collect();
    let now: Vec<&Device> = machine.disks.iter().map(|disk| &disk.device).collect();
    let runtime = runtime(source, machine);
    inventory::entity(source, "VirtualMachine", &moref, disabled)
        .with("capability", capability())
        .with("config", config::config(source, machine, &now, None))
        .with("layoutEx", layout::layout(machine))
        .with("resourcePool", world.shape.pool())
        .with("runtime", runtime.clone())
        .with("guest", guest(machine))
        .with("summary", summary(machine, runtime))
        .refs("datastore", stores(source, machine))
        .refs("network", [])
        .maybe("snapshot", tree(machine))
        .refs("rootSnapshot", machine.children(None).map(Snapshot::moref))
        .with("guestHeartbeatStatus", Value::Enum("ManagedEntityStatus", "gray".to_owned()))
}

/// All properties of a snapshot.
pub fn snapshot_properties(source: &Source<'_>, machine: &Machine, snapshot: &Snapshot) -> Data {
    let devices: Vec<&Device> = snapshot.disks.iter().collect();
    Data::new("VirtualMachineSnapshot")
        .with("config", config::config(source, machine, &devices, Some(snapshot)))
        .refs("childSnapshot", machine.children(Some(&snapshot.id)).map(Snapshot::moref))
        .with("vm", machine.moref())
}

fn power(on: bool) -> Value {
    Value::Enum("VirtualMachinePowerState", if on { "poweredOn" } else { "poweredOff" }.to_owned())
}

fn runtime(source: &Source<'_>, machine: &Machine) -> Data {
    Data::new("VirtualMachineRuntimeInfo")
        .with("host", source.world.shape.host(machine.host))
        .with("connectionState", Value::Enum("VirtualMachineConnectionState", "connected".to_owned()))
        .with("powerState", power(machine.powered_on))
        .with("toolsInstallerMounted", false)
        .with("numMksConnections", 0i32)
        .with("consolidationNeeded", consolidate::superfluous(machine).is_some())
}

fn guest(machine: &Machine) -> Data {
    Data::new("GuestInfo")
        .with("toolsStatus", Value::Enum("VirtualMachineToolsStatus", "toolsNotInstalled".to_owned()))
        .with("toolsVersionStatus", "guestToolsNotInstalled")
        .with("toolsRunningStatus", "guestToolsNotRunning")
        .with("guestState", if machine.powered_on { "running" } else { "notRunning" })
}

fn summary(machine: &Machine, runtime: Data) -> Data {
    let guest = Data::new("VirtualMachineGuestSummary")
        .with("guestId", GUEST.0)
        .with("guestFullName", GUEST.1)
        .with("toolsStatus", Value::Enum("VirtualMachineToolsStatus", "toolsNotInstalled".to_owned()))
        .with("toolsRunningStatus", "guestToolsNotRunning");
    let disks = i32::try_from(machine.disks.len()).unwrap_or(i32::MAX);
    let config = Data::new("VirtualMachineConfigSummary")
        .with("name", machine.name.clone())
        .with("template", false)
        .with("vmPathName", machine.vmx.clone())
        .with("memorySizeMB", 1024i32)
        .with("numCpu", 1i32)
        .with("numEthernetCards", 0i32)
        .with("numVirtualDisks", disks)
        .with("uuid", machine.uuid.clone())
        .with("instanceUuid", machine.instance_uuid.clone())
        .with("guestId", GUEST.0)
        .with("guestFullName", GUEST.1)
        .with("annotation", "");
    Data::new("VirtualMachineSummary")
        .with("vm", machine.moref())
        .with("runtime", runtime)
        .with("guest", guest)
        .with("config", config)
        .with("quickStats", Data::new("VirtualMachineQuickStats"))
        .with("overallStatus", Value::Enum("ManagedEntityStatus", "green".to_owned()))
}

fn capability() -> Data {
    let yes = [
        "snapshotOperationsSupported",
        "multipleSnapshotsSupported",
        "snapshotConfigSupported",
        "poweredOffSnapshotsSupported",
    ];
    let data =
        yes.into_iter().fold(Data::new("VirtualMachineCapability"), |data, name| data.with(name, true));
    data.with("memorySnapshotsSupported", false)
        .with("revertToSnapshotSupported", true)
        .with("quiescedSnapshotsSupported", true)
        .with("changeTrackingSupported", true)
}

fn stores(source: &Source<'_>, machine: &Machine) -> Vec<Moref> {
    let files = machine.devices().flat_map(|device| &device.chain).map(|link| &link.file.store);
    let mut found: Vec<Moref> = files.filter_map(|name| source.world.store_ref(name)).collect();
    found.sort();
    found.dedup();
    found
}

/// The snapshots as a tree; unset without any.
fn tree(machine: &Machine) -> Option<Data> {
    let current = machine.current.as_ref().map(|id| Moref::new("VirtualMachineSnapshot", id.clone()));
    (!machine.snapshots.is_empty()).then(|| {
        Data::new("VirtualMachineSnapshotInfo").maybe("currentSnapshot", current).list(
            "rootSnapshotList",
            "VirtualMachineSnapshotTree",
            branches(machine, None, 0),
        )
    })
}

/// Chains are no longer than that, and neither are trees.
const DEEPEST: usize = 300;

fn branches(machine: &Machine, parent: Option<&str>, depth: usize) -> Vec<Value> {
    if depth > DEEPEST {
        return Vec::new();
    }
    let branch = |snapshot: &Snapshot| -> Value {
        Data::new("VirtualMachineSnapshotTree")
            .with("snapshot", snapshot.moref())
            .with("vm", machine.moref())
            .with("name", snapshot.name.clone())
            .with("description", snapshot.description.clone())
            .with("id", snapshot.number)
            .with("createTime", Value::Time(clock::iso(snapshot.created)))
            .with("state", power(snapshot.powered_on))
            .with("quiesced", snapshot.quiesced)
            .list(
                "childSnapshotList",
                "VirtualMachineSnapshotTree",
                branches(machine, Some(&snapshot.id), depth + 1),
            )
            .with("replaySupported", false)
            .into()
    };
    machine.children(parent).map(branch).collect()
}
