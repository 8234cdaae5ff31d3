//! The search index.

use std::sync::Arc;

use crate::sim::disks::stores;
use crate::sim::props;
use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::call::Reply;
use crate::sim::value::Moref;
use crate::sim::value::Value;
use crate::sim::world::World;

fn with_uuid(site: &Site, call: &Call<'_>) -> Vec<Moref> {
    let wanted = call.args.text_of("uuid").unwrap_or_default().to_ascii_lowercase();
    let instance = call.args.is("instanceUuid");
    let world = site.world.lock();
    if !call.args.is("vmSearch") {
        return Vec::new();
    }
    let uuid = |machine: &crate::sim::world::machine::Machine| {
        if instance { machine.instance_uuid.clone() } else { machine.uuid.clone() }
    };
    world.machines.iter().filter(|machine| uuid(machine) == wanted).map(|machine| machine.moref()).collect()
}

/// `FindByUuid`.
pub fn by_uuid(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    Reply::maybe(with_uuid(site, call).into_iter().next())
}

/// `FindAllByUuid`.
pub fn all_by_uuid(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let found = with_uuid(site, call).into_iter().map(Value::Ref).collect();
    Reply::of(Value::List("ManagedObjectReference", found))
}

/// `FindByDnsName`, `FindByIp`: no guest of the simulator has a name or an address.
pub fn by_name_or_address(_site: &Arc<Site>, _call: &Call<'_>) -> Outcome {
    Reply::none()
}

/// `FindByInventoryPath`: names from the top, with slashes between them.
pub fn by_inventory_path(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let path = call.text("inventoryPath")?;
    let world = site.world.lock();
    let mut here = world.shape.root();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        match child_of(site, &world, &here, name) {
            Some(child) => here = child,
            None => return Reply::none(),
        }
    }
    Reply::of(here)
}

/// `FindChild`.
pub fn child(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let (entity, name) = (call.moref("entity")?, call.text("name")?);
    let world = site.world.lock();
    Reply::maybe(child_of(site, &world, &entity, &name))
}

/// The child of this name. In names, slashes and percent signs are percent-encoded.
fn child_of(site: &Site, world: &World, parent: &Moref, name: &str) -> Option<Moref> {
    let children = props::inventory::children(world, parent);
    children.into_iter().find(|child| {
        let its = props::inventory::name(site, world, child).unwrap_or_default();
        its == name || its.replace('%', "%25").replace('/', "%2f") == name
    })
}

/// `FindByDatastorePath`: `[store] dir/vm.vmx`.
pub fn by_datastore_path(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let datacenter = call.moref("datacenter")?;
    let path = call.text("path")?;
    let world = site.world.lock();
    if datacenter != world.shape.datacenter() {
        return Err(crate::sim::soap::fault::Fault::no_object(&datacenter));
    }
    let wanted = stores::parse(&path);
    let found =
        world.machines.iter().find(|machine| wanted.is_some() && stores::parse(&machine.vmx) == wanted);
    Reply::maybe(found.map(|machine| machine.moref()))
}
