//! The inventory: folders, the datacenter, the hosts and what they are part of, datastores, networks.

use crate::sim::props::Source;
use crate::sim::soap::service;
use crate::sim::value::Data;
use crate::sim::value::Moref;
use crate::sim::value::Value;
use crate::sim::world::World;

/// Objects that are always there.
fn fixed(world: &World) -> Vec<Moref> {
    let shape = world.shape;
    let mut fixed = vec![
        shape.root(),
        shape.datacenter(),
        shape.vm_folder(),
        shape.host_folder(),
        shape.datastore_folder(),
        shape.network_folder(),
        shape.compute(),
        shape.pool(),
        shape.network(),
    ];
    fixed.extend(shape.hosts());
    fixed
}

/// True for an object that is always there.
pub fn is_fixed(world: &World, object: &Moref) -> bool {
    fixed(world).contains(object)
}

/// The datastores.
pub fn datastores(world: &World) -> Vec<Moref> {
    world.stores.iter().enumerate().map(|(at, _)| world.shape.datastore(at)).collect()
}

/// What looks through the datastores.
pub fn browsers(world: &World) -> Vec<Moref> {
    world.stores.iter().enumerate().map(|(at, _)| world.shape.browser(at)).collect()
}

/// The properties of what looks through a datastore.
pub fn browser(world: &World, object: &Moref) -> Option<Data> {
    let at = browsers(world).iter().position(|browser| browser == object)?;
    Some(Data::new("HostDatastoreBrowser").refs("datastore", [world.shape.datastore(at)]))
}

/// The machines.
pub fn machines(world: &World) -> Vec<Moref> {
    world.machines.iter().map(|machine| machine.moref()).collect()
}

/// The machines of a host.
pub fn machines_on(world: &World, host: &Moref) -> Vec<Moref> {
    let number = world.shape.host_number(host);
    let here = world.machines.iter().filter(|machine| Some(machine.host) == number);
    here.map(|machine| machine.moref()).collect()
}

/// What lies below an object, as far as paths of names go.
pub fn children(world: &World, parent: &Moref) -> Vec<Moref> {
    let shape = world.shape;
    match parent {
        it if *it == shape.root() => vec![shape.datacenter()],
        it if *it == shape.datacenter() => {
            vec![shape.vm_folder(), shape.host_folder(), shape.datastore_folder(), shape.network_folder()]
        }
        it if *it == shape.vm_folder() => machines(world),
        it if *it == shape.host_folder() => vec![shape.compute()],
        it if *it == shape.datastore_folder() => datastores(world),
        it if *it == shape.network_folder() => vec![shape.network()],
        it if *it == shape.compute() => shape.hosts().chain([shape.pool()]).collect(),
        _ => Vec::new(),
    }
}

/// What lies above an object.
pub fn parent(world: &World, object: &Moref) -> Option<Moref> {
    let shape = world.shape;
    match object.kind.as_str() {
        "VirtualMachine" => Some(shape.vm_folder()),
        "Datastore" => Some(shape.datastore_folder()),
        "Network" => Some(shape.network_folder()),
        "HostSystem" | "ResourcePool" => Some(shape.compute()),
        "ComputeResource" | "ClusterComputeResource" => Some(shape.host_folder()),
        "Datacenter" => Some(shape.root()),
        "Folder" if *object != shape.root() => Some(shape.datacenter()),
        _ => None,
    }
}

/// The name of an object of the inventory.
pub fn name(site: &crate::sim::site::Site, world: &World, object: &Moref) -> Option<String> {
    let shape = world.shape;
    let fixed = match object {
        it if *it == shape.root() => {
            if shape.esxi {
                "ha-folder-root"
            } else {
                "Datacenters"
            }
        }
        it if *it == shape.datacenter() => shape.datacenter_name(),
        it if *it == shape.vm_folder() => "vm",
        it if *it == shape.host_folder() => "host",
        it if *it == shape.datastore_folder() => "datastore",
        it if *it == shape.network_folder() => "network",
        it if *it == shape.pool() => "Resources",
        it if *it == shape.network() => "VM Network",
        it if matches!(it.kind.as_str(), "HostSystem" | "ComputeResource") && is_fixed(world, it) => {
            let at = shape.host_number(it).unwrap_or(0); // what a single host is part of is called like it
            return Some(if shape.esxi { "localhost.localdomain".to_owned() } else { site.host_name(at) });
        }
        it if *it == shape.compute() => "Cluster",
        it if it.kind == "VirtualMachine" => {
            return world.machine(&it.id).map(|machine| machine.name.clone());
        }
        it => {
            let at = datastores(world).iter().position(|store| store == it)?;
            return world.stores.iter().nth(at).map(|store| store.name.clone());
        }
    };
    Some(fixed.to_owned())
}

/// What every entity shows.
pub fn entity(source: &Source<'_>, kind: &'static str, object: &Moref, disabled: Vec<Value>) -> Data {
    let green = || Value::Enum("ManagedEntityStatus", "green".to_owned());
    Data::new(kind)
        .maybe("parent", parent(source.world, object))
        .list("customValue", "CustomFieldValue", [])
        .with("overallStatus", green())
        .with("configStatus", green())
        .list("configIssue", "Event", [])
        .list("effectiveRole", "int", [Value::Int(-1)])
        .list("permission", "Permission", [])
        .maybe("name", name(source.site, source.world, object))
        .list("disabledMethod", "string", disabled)
        .refs("recentTask", source.world.tasks.of(object))
        .list("declaredAlarmState", "AlarmState", [])
        .list("triggeredAlarmState", "AlarmState", [])
        .with("alarmActionsEnabled", true)
        .list("tag", "Tag", [])
}

/// The properties of an object of the inventory that is no machine.
pub fn properties(source: &Source<'_>, object: &Moref) -> Option<Data> {
    let world = source.world;
    if object.kind == "Datastore" {
        let at = datastores(world).iter().position(|store| store == object)?;
        return Some(datastore(source, object, at));
    }
    if !is_fixed(world, object) {
        return None;
    }
    Some(match object.kind.as_str() {
        "Folder" => folder(source, object),
        "Datacenter" => datacenter(source, object),
        "ComputeResource" | "ClusterComputeResource" => compute(source, object),
        "HostSystem" => host(source, object, world.shape.host_number(object)?),
        "ResourcePool" => pool(source, object),
        _ => network(source, object),
    })
}

fn folder(source: &Source<'_>, object: &Moref) -> Data {
    let shape = source.world.shape;
    let types: &[&str] = match object {
        it if *it == shape.vm_folder() => &["Folder", "VirtualMachine", "VirtualApp"],
        it if *it == shape.host_folder() => &["Folder", "ComputeResource"],
        it if *it == shape.datastore_folder() => &["Folder", "Datastore", "StoragePod"],
        it if *it == shape.network_folder() => &["Folder", "Network", "DistributedVirtualSwitch"],
        _ => &["Folder", "Datacenter"],
    };
    entity(source, "Folder", object, Vec::new())
        .list("childType", "string", types.iter().map(|&kind| Value::from(kind)))
        .refs("childEntity", children(source.world, object))
}

fn datacenter(source: &Source<'_>, object: &Moref) -> Data {
    let shape = source.world.shape;
    entity(source, "Datacenter", object, Vec::new())
        .with("vmFolder", shape.vm_folder())
        .with("hostFolder", shape.host_folder())
        .with("datastoreFolder", shape.datastore_folder())
        .with("networkFolder", shape.network_folder())
        .refs("datastore", datastores(source.world))
        .refs("network", [shape.network()])
}

fn compute(source: &Source<'_>, object: &Moref) -> Data {
    let shape = source.world.shape;
    let hosts = i16::try_from(shape.hosts).unwrap_or(1); // there are not that many
    let (cluster, count) = (shape.hosts > 1, i32::from(hosts));
    let (kind, summary) = match cluster {
        true => ("ClusterComputeResource", "ClusterComputeResourceSummary"),
        false => ("ComputeResource", "ComputeResourceSummary"),
    };
    let summary = Data::new(summary)
        .with("totalCpu", 4000 * count)
        .with("totalMemory", MEMORY * i64::from(count))
        .with("numCpuCores", 2 * hosts)
        .with("numCpuThreads", 2 * hosts)
        .with("effectiveCpu", 4000 * count)
        .with("effectiveMemory", (MEMORY >> 20) * i64::from(count))
        .with("numHosts", count)
        .with("numEffectiveHosts", count)
        .with("overallStatus", Value::Enum("ManagedEntityStatus", "green".to_owned()))
        .maybe("currentFailoverLevel", cluster.then_some(0i32))
        .maybe("numVmotions", cluster.then_some(source.world.moves));
    entity(source, kind, object, Vec::new())
        .with("resourcePool", shape.pool())
        .refs("host", shape.hosts())
        .refs("datastore", datastores(source.world))
        .refs("network", [shape.network()])
        .with("summary", summary)
}

const MEMORY: i64 = 16 << 30;

fn host(source: &Source<'_>, object: &Moref, at: usize) -> Data {
    let (site, shape) = (source.site, source.world.shape);
    let this = site.host(at);
    let uuid_of = if at == 0 { "host".to_owned() } else { format!("host {at}") };
    let runtime = Data::new("HostRuntimeInfo")
        .with("connectionState", Value::Enum("HostSystemConnectionState", "connected".to_owned()))
        .with("powerState", Value::Enum("HostSystemPowerState", "poweredOn".to_owned()))
        .with("inMaintenanceMode", this.knobs.now().maintenance);
    let product = Data { kind: "AboutInfo".into(), ..service::about(site, true) };
    let hardware = Data::new("HostHardwareSummary")
        .with("vendor", "vixsim")
        .with("model", "vixsim")
        .with("uuid", crate::sim::world::build::identity_of("host", &uuid_of))
        .with("memorySize", MEMORY)
        .with("cpuModel", "vixsim")
        .with("cpuMhz", 2000i32)
        .with("numCpuPkgs", 1i16)
        .with("numCpuCores", 2i16)
        .with("numCpuThreads", 2i16)
        .with("numNics", 1i32)
        .with("numHBAs", 1i32);
    let config = Data::new("HostConfigSummary")
        .maybe("name", name(site, source.world, object))
        .with("port", 443i32)
        .with("sslThumbprint", this.identity.sha1.clone())
        .with("product", product.clone())
        .with("vmotionEnabled", shape.hosts > 1);
    let summary = Data::new("HostListSummary")
        .with("host", object.clone())
        .with("hardware", hardware)
        .with("runtime", runtime.clone())
        .with("config", config)
        .with("quickStats", Data::new("HostListSummaryQuickStats"))
        .with("overallStatus", Value::Enum("ManagedEntityStatus", "green".to_owned()))
        .with("rebootRequired", false);
    entity(source, "HostSystem", object, Vec::new())
        .with("runtime", runtime)
        .with("summary", summary)
        .with("config", Data::new("HostConfigInfo").with("host", object.clone()).with("product", product))
        .refs("vm", machines_on(source.world, object))
        .refs("datastore", datastores(source.world))
        .refs("network", [shape.network()])
}

fn pool(source: &Source<'_>, object: &Moref) -> Data {
    entity(source, "ResourcePool", object, Vec::new())
        .with("owner", source.world.shape.compute())
        .refs("resourcePool", [])
        .refs("vm", machines(source.world))
}

fn network(source: &Source<'_>, object: &Moref) -> Data {
    let summary = Data::new("NetworkSummary")
        .with("network", object.clone())
        .maybe("name", name(source.site, source.world, object))
        .with("accessible", true);
    entity(source, "Network", object, Vec::new())
        .with("summary", summary)
        .refs("host", source.world.shape.hosts())
        .refs("vm", [])
}

/// A datastore. Whether it is VMFS is nobody's business here: it is a folder, which is what a local datastore is.
fn datastore(source: &Source<'_>, object: &Moref, at: usize) -> Data {
    let world = source.world;
    let name = world.stores.iter().nth(at).map_or_else(String::new, |store| store.name.clone());
    let url = format!("ds:///vmfs/volumes/{name}/");
    let summary = Data::new("DatastoreSummary")
        .with("datastore", object.clone())
        .with("name", name.clone())
        .with("url", url.clone())
        .with("capacity", CAPACITY)
        .with("freeSpace", CAPACITY / 2)
        .with("accessible", true)
        .with("multipleHostAccess", world.shape.hosts > 1)
        .with("type", "OTHER")
        .with("maintenanceMode", "normal");
    let info = Data::new("LocalDatastoreInfo")
        .with("name", name.clone())
        .with("url", url)
        .with("freeSpace", CAPACITY / 2)
        .with("maxFileSize", 62i64 << 40);
    let mount = Data::new("HostMountInfo")
        .with("path", format!("/vmfs/volumes/{name}"))
        .with("accessMode", "readWrite")
        .with("mounted", true)
        .with("accessible", true);
    let hosts = world.shape.hosts().map(|host| {
        Value::from(Data::new("DatastoreHostMount").with("key", host).with("mountInfo", mount.clone()))
    });
    let has_files = |machine: &&crate::sim::world::machine::Machine| {
        machine.devices().flat_map(|device| &device.chain).any(|link| link.file.store == name)
    };
    let capability = Data::new("DatastoreCapability")
        .with("directoryHierarchySupported", true)
        .with("rawDiskMappingsSupported", false)
        .with("perFileThinProvisioningSupported", true);
    entity(source, "Datastore", object, Vec::new())
        .with("info", info)
        .with("summary", summary)
        .list("host", "DatastoreHostMount", hosts)
        .refs("vm", world.machines.iter().filter(has_files).map(|machine| machine.moref()))
        .with("browser", world.shape.browser(at))
        .with("capability", capability)
}

/// What datastores say of their size. The real one is that of the folder's file system, which tests should not depend on.
const CAPACITY: i64 = 1 << 40;
