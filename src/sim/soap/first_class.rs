//! The managers of first class disks, as far as reading needs them (`vsphere.md` 10; fields: T). How a host is asked for such
//! a disk over NFC is in no public description, so no ticket is given for one.

use std::sync::Arc;

use crate::sim::clock;
use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::call::Reply;
use crate::sim::soap::fault::Fault;
use crate::sim::value::Data;
use crate::sim::value::Moref;
use crate::sim::value::Value;
use crate::sim::world::World;
use crate::sim::world::first_class::FirstClassDisk;
use crate::sim::xml::Arg;

/// `RetrieveVStorageObject`, `HostRetrieveVStorageObject`.
pub fn retrieve(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let world = site.world.lock();
    let (disk, store) = disk_of(&world, call)?;
    Reply::of(Data::new("VStorageObject").with("config", config(disk, store)))
}

/// `ListVStorageObject`, `HostListVStorageObject`.
pub fn list(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let store = call.moref("datastore")?;
    let world = site.world.lock();
    let on_it = world.first_class.iter().filter(|disk| store_of(&world, disk).as_ref() == Some(&store));
    let ids = on_it.map(|disk| id(&disk.id).into()).collect();
    Reply::of(Value::List("ID", ids))
}

/// `RetrieveSnapshotDetails`.
pub fn snapshot_details(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let wanted = id_in(call, "snapshotId")?;
    let world = site.world.lock();
    let (disk, _) = disk_of(&world, call)?;
    let found = disk.snapshots.iter().find(|snapshot| snapshot.id.eq_ignore_ascii_case(&wanted));
    let snapshot = found.ok_or_else(Fault::not_found)?;
    Reply::of(Data::new("VStorageObjectSnapshotDetails").with("path", snapshot.link.file.to_string()))
}

/// The disk that is asked for, and its datastore.
fn disk_of<'w>(world: &'w World, call: &Call<'_>) -> Result<(&'w FirstClassDisk, Moref), Fault> {
    let (wanted, store) = (id_in(call, "id")?, call.moref("datastore")?);
    let found = world.first_class.iter().find(|disk| disk.id.eq_ignore_ascii_case(&wanted));
    let at = found.filter(|disk| store_of(world, disk).as_ref() == Some(&store));
    at.map(|disk| (disk, store)).ok_or_else(Fault::not_found)
}

fn store_of(world: &World, disk: &FirstClassDisk) -> Option<Moref> {
    world.store_ref(&disk.leaf.file.store)
}

/// The text of an argument of the type `ID`.
fn id_in<'a>(call: &Call<'a>, name: &'a str) -> Result<String, Fault> {
    let id = call.args.one(name).and_then(|id: Arg<'a>| id.text_of("id"));
    id.filter(|id| !id.is_empty()).ok_or_else(|| Fault::argument(name))
}

fn id(text: &str) -> Data {
    Data::new("ID").with("id", text)
}

/// `VStorageObjectConfigInfo`.
fn config(disk: &FirstClassDisk, store: Moref) -> Data {
    let backing = Data::new("BaseConfigInfoDiskFileBackingInfo")
        .with("datastore", store)
        .with("filePath", disk.leaf.file.to_string())
        .with("provisioningType", if disk.leaf.thin { "thin" } else { "lazyZeroedThick" });
    Data::new("VStorageObjectConfigInfo")
        .with("id", id(&disk.id))
        .with("name", disk.name.clone())
        .with("createTime", Value::Time(clock::iso(disk.created)))
        .with("keepAfterDeleteVm", true)
        .with("backing", backing)
        .with("capacityInMB", disk.capacity >> 20)
        .list("consumptionType", "string", [Value::from("disk")])
}
