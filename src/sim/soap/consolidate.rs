//! Removing snapshots: which links are merged into which, and what the machine's chains are afterwards.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::sim::disks::merge;
use crate::sim::disks::stores::FileRef;
use crate::sim::site::Site;
use crate::sim::soap::fault::Fault;
use crate::sim::world::device::Device;
use crate::sim::world::machine::Machine;

/// What becomes of the file of a snapshot that goes.
#[derive(Debug)]
enum Plan {
    /// It stays as it is: others stand on it, or are it.
    Keep,
    /// Nobody needs it.
    Delete(Arc<FileRef>),
    /// The one link that stands on it goes into it.
    Merge { child: Arc<FileRef>, parent: Arc<FileRef>, above: Vec<PathBuf> },
}

/// Removes a snapshot. Without `merge` the links stay, to be consolidated later.
pub fn remove(site: &Arc<Site>, id: &str, snapshot: &str, merge: bool) -> Result<(), Fault> {
    let devices: Vec<Device> = {
        let world = site.world.lock();
        let machine = world.machine(id).ok_or_else(Fault::not_found)?;
        machine.snapshot(snapshot).ok_or_else(Fault::not_found)?.disks.clone()
    };
    for device in devices.iter().filter(|_| merge) {
        carry_out(site, id, device, Some(snapshot))?;
    }
    site.change(|world| {
        let machine = world.machine_mut(id).ok_or_else(Fault::not_found)?;
        let Some(at) = machine.snapshots.iter().position(|other| other.id == snapshot) else { return Ok(()) };
        let gone = machine.snapshots.remove(at);
        for other in machine.snapshots.iter_mut().filter(|other| other.parent.as_deref() == Some(snapshot)) {
            other.parent.clone_from(&gone.parent);
        }
        if machine.current.as_deref() == Some(snapshot) {
            machine.current = gone.parent;
        }
        Ok(())
    })
}

/// Merges every link of the machine's disks that is the disk of no snapshot.
pub fn all(site: &Arc<Site>, id: &str) -> Result<(), Fault> {
    loop {
        let next = {
            let world = site.world.lock();
            let machine = world.machine(id).ok_or_else(Fault::not_found)?;
            superfluous(machine)
        };
        match next {
            Some(device) => carry_out(site, id, &device, None)?,
            None => return Ok(()),
        }
    }
}

/// A disk that begins with a link between the leaf and a base that no snapshot holds.
pub fn superfluous(machine: &Machine) -> Option<Device> {
    let held = |file: &PathBuf| {
        machine.snapshots.iter().flat_map(|s| &s.disks).any(|device| device.position(file) == Some(0))
    };
    machine.disks.iter().map(|disk| &disk.device).find_map(|device| {
        let at = (1..device.chain.len())
            .find(|at| device.chain.get(*at).is_some_and(|link| !held(&link.file.file)))?;
        Some(Device { chain: device.chain.get(at..)?.to_vec(), ..device.clone() })
    })
}

/// Deletes the leaf of a device that the machine had, if no chain needs it any more.
pub fn delete_unused(site: &Arc<Site>, id: &str, device: &Device) -> Result<(), Fault> {
    let Some(leaf) = device.leaf() else { return Ok(()) };
    let needed = {
        let world = site.world.lock();
        let machine = world.machine(id).ok_or_else(Fault::not_found)?;
        machine.devices().any(|other| other.position(&leaf.file).is_some())
    };
    match needed {
        true => Ok(()),
        false => merge::delete(&leaf.file).map_err(|e| Fault::of(&e, &leaf.to_string())),
    }
}

/// Takes the snapshot's hold of one disk away.
fn carry_out(site: &Arc<Site>, id: &str, device: &Device, snapshot: Option<&str>) -> Result<(), Fault> {
    let plan = site.change(|world| {
        let machine = world.machine_mut(id).ok_or_else(Fault::not_found)?;
        let plan = plan(machine, device, snapshot);
        if let Plan::Merge { child, parent, above } = &plan {
            let mut files = above.iter().chain([&child.file, &parent.file]);
            if files.any(|file| site.uses.is_used(file)) {
                return Err(Fault::file("FileLocked", &child.to_string()));
            }
            machine.merging = true;
        }
        Ok(plan)
    })?;
    match plan {
        Plan::Keep => Ok(()),
        Plan::Delete(file) => merge::delete(&file.file).map_err(|e| Fault::of(&e, &file.to_string())),
        Plan::Merge { child, parent, above } => {
            let merged = merge::merge(&child.file, &parent.file, &above, &site.log);
            site.change(|world| {
                let Some(machine) = world.machine_mut(id) else { return Ok(()) };
                machine.merging = false;
                let before = merged.map_err(|e| Fault::of(&e, &child.to_string()))?;
                for disk in &machine.disks {
                    disk.tracker.keep(&child.file, &before.child);
                    disk.tracker.keep(&parent.file, &before.parent);
                }
                for device in machine.devices_mut() {
                    device.chain.retain(|link| link.file.file != child.file);
                }
                Ok(())
            })
        }
    }
}

/// What to do about the leaf of a device of a snapshot.
fn plan(machine: &Machine, device: &Device, snapshot: Option<&str>) -> Plan {
    let Some(file) = device.leaf() else { return Plan::Keep };
    let now = machine.disks.iter().map(|disk| &disk.device);
    let others = machine.snapshots.iter().filter(|other| Some(other.id.as_str()) != snapshot);
    let devices: Vec<&Device> = now.chain(others.flat_map(|other| &other.disks)).collect();
    let mut children: Vec<Arc<FileRef>> = Vec::new();
    for device in &devices {
        match device.position(&file.file) {
            Some(0) => return Plan::Keep,
            Some(at) => children.extend(device.chain.get(at - 1).map(|link| link.file.clone())),
            None => {}
        }
    }
    children.sort_by(|a, b| a.file.cmp(&b.file));
    children.dedup_by(|a, b| a.file == b.file);
    match (children.as_slice(), device.chain.len()) {
        // A base disk was there before the snapshot was, and outlives it.
        ([], 1) => Plan::Keep,
        ([], _) => Plan::Delete(file.clone()),
        ([child], _) => {
            let above: BTreeSet<PathBuf> = devices
                .iter()
                .filter_map(|device| {
                    let at = device.position(&child.file)?.checked_sub(1)?;
                    device.chain.get(at).map(|link| link.file.file.clone())
                })
                .collect();
            Plan::Merge { child: child.clone(), parent: file.clone(), above: above.into_iter().collect() }
        }
        _ => Plan::Keep,
    }
}
