//! Snapshots: children made and merged for real.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::format::descriptor::Descriptor;
use crate::sim::disks::child;
use crate::sim::disks::merge;
use crate::sim::disks::open::How;
use crate::sim::disks::open::OpenFile;
use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::call::Reply;
use crate::sim::soap::consolidate;
use crate::sim::soap::fault::Fault;
use crate::sim::soap::login::internal;
use crate::sim::soap::tasks;
use crate::sim::soap::tasks::Claim;
use crate::sim::soap::tasks::Ended;
use crate::sim::value::Value;
use crate::sim::world::World;
use crate::sim::world::device::Device;
use crate::sim::world::device::Link;
use crate::sim::world::machine::Snapshot;

/// What a snapshot is made with.
struct Wish {
    name: String,
    description: String,
    quiesced: bool,
}

/// `CreateSnapshot_Task`. Memory is not saved: there is none.
pub fn create(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let quiesced = call.args.is("quiesce") || call.args.one("quiesceSpec").is_some();
    let description = call.args.text_of("description").unwrap_or_default();
    let wish = Wish { name: call.text("name")?, description, quiesced };
    let claim = Claim::of(site, &call.this.id)?;
    tasks::start(site, call, claim, move |site, id| make(site, id, wish))
}

fn make(site: &Arc<Site>, id: &str, wish: Wish) -> Ended {
    let disks: Vec<Device> = {
        let world = site.world.lock();
        let machine = world.machine(id).ok_or_else(Fault::not_found)?;
        machine
            .disks
            .iter()
            .map(|disk| disk.device.clone())
            .filter(|device| !is_independent(device))
            .collect()
    };
    let mut made = Made { site, files: Vec::new() };
    for device in &disks {
        made.child_of(device)?;
    }
    let snapshot = site.change(|world| enter(world, id, wish, &made.files))?;
    made.files.clear(); // they stay
    Ok(Some(Value::Ref(snapshot.moref())))
}

/// Disks of these modes are no part of snapshots.
fn is_independent(device: &Device) -> bool {
    device.mode.starts_with("independent")
}

/// Children that go again unless all of them can be made.
struct Made<'a> {
    site: &'a Site,
    files: Vec<NewChild>,
}

/// A child that was made.
struct NewChild {
    /// The key of its device.
    key: i32,
    file: PathBuf,
    /// What stands in it; known once it could be opened.
    descriptor: Option<Descriptor>,
}

impl NewChild {
    fn link(&self, world: &mut World) -> Result<Arc<Link>, Fault> {
        let fault = |e| Fault::of(&e, &self.file.display().to_string());
        let descriptor = self.descriptor.as_ref().ok_or_else(Fault::not_found)?;
        Link::of(descriptor, &self.file, &mut world.stores).map(Arc::new).map_err(fault)
    }
}

impl Made<'_> {
    fn child_of(&mut self, device: &Device) -> Result<(), Fault> {
        let leaf = device.leaf().ok_or_else(Fault::not_found)?;
        if self.site.uses.is_written(&leaf.file) {
            return Err(Fault::file("FileLocked", &leaf.to_string()));
        }
        let fault = |e| Fault::of(&e, &leaf.to_string());
        let file = child::make(&leaf.file, &leaf.file, &self.site.log).map_err(fault)?;
        self.files.push(NewChild { key: device.key, file: file.clone(), descriptor: None });
        let open = OpenFile::open(&file, How::Read, &self.site.log).map_err(fault)?;
        if let Some(child) = self.files.last_mut() {
            child.descriptor = Some(open.disk.leaf().descriptor());
        }
        Ok(())
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        for child in &self.files {
            if let Err(e) = merge::delete(&child.file) {
                self.site.log.warning(|| format!("vixsim: {} stays: {e}", child.file.display()));
            }
        }
    }
}

/// Makes the machine stand on its new children.
fn enter(world: &mut World, id: &str, wish: Wish, files: &[NewChild]) -> Result<Snapshot, Fault> {
    let mut links = Vec::new();
    for child in files {
        links.push((child.key, child.link(world)?));
    }
    let (number, shape) = (world.number(), world.shape);
    let machine = world.machine_mut(id).ok_or_else(Fault::not_found)?;
    let mut disks = Vec::new();
    for disk in &mut machine.disks {
        let mut before = disk.device.clone();
        if let Some((_, link)) = links.iter().find(|(key, _)| *key == before.key) {
            if machine.tracking {
                let moment = disk.tracker.mark(Some(&link.file.file));
                before.change_id = Some(moment.map_err(|e| internal(&e))?);
            }
            disk.device.chain.insert(0, link.clone());
        }
        disks.push(before);
    }
    machine.count += 1;
    let snapshot = Snapshot {
        id: shape.snapshot(id, number, machine.count),
        number: machine.count,
        name: wish.name,
        description: wish.description,
        created: SystemTime::now(),
        powered_on: machine.powered_on,
        quiesced: wish.quiesced,
        parent: machine.current.clone(),
        disks,
    };
    machine.current = Some(snapshot.id.clone());
    machine.snapshots.push(snapshot.clone());
    Ok(snapshot)
}

/// The machine of the snapshot that is called.
fn machine_of(site: &Site, call: &Call<'_>) -> Result<String, Fault> {
    let world = site.world.lock();
    let found = world.snapshot(&call.this.id).map(|(machine, _)| machine.id.clone());
    found.ok_or_else(|| Fault::no_object(&call.this))
}

/// `RemoveSnapshot_Task`.
pub fn remove(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let (snapshot, children) = (call.this.id.clone(), call.args.is("removeChildren"));
    let merge = call.args.one("consolidate").is_none() || call.args.is("consolidate");
    let claim = Claim::of(site, &machine_of(site, call)?)?;
    tasks::start(site, call, claim, move |site, id| {
        let mut doomed = vec![snapshot];
        if children {
            let world = site.world.lock();
            let machine = world.machine(id).ok_or_else(Fault::not_found)?;
            let mut at = 0;
            while let Some(parent) = doomed.get(at).cloned() {
                doomed.extend(machine.children(Some(&parent)).map(|child| child.id.clone()));
                at += 1;
            }
        }
        doomed.iter().rev().try_for_each(|snapshot| consolidate::remove(site, id, snapshot, merge))?;
        Ok(None)
    })
}

/// `RemoveAllSnapshots_Task`.
pub fn remove_all(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let merge = call.args.one("consolidate").is_none() || call.args.is("consolidate");
    let claim = Claim::of(site, &call.this.id)?;
    tasks::start(site, call, claim, move |site, id| {
        loop {
            let youngest = {
                let world = site.world.lock();
                let machine = world.machine(id).ok_or_else(Fault::not_found)?;
                machine.snapshots.last().map(|snapshot| snapshot.id.clone())
            };
            match youngest {
                Some(snapshot) => consolidate::remove(site, id, &snapshot, merge)?,
                None => return Ok(None),
            }
        }
    })
}

/// `ConsolidateVMDisks_Task`.
pub fn consolidate(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let claim = Claim::of(site, &call.this.id)?;
    tasks::start(site, call, claim, |site, id| consolidate::all(site, id).map(|()| None))
}

/// `RenameSnapshot`.
pub fn rename(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let (name, description) = (call.args.text_of("name"), call.args.text_of("description"));
    let machine = machine_of(site, call)?;
    site.change(|world| {
        let machine = world.machine_mut(&machine).ok_or_else(Fault::not_found)?;
        let snapshot = machine.snapshots.iter_mut().find(|snapshot| snapshot.id == call.this.id);
        let snapshot = snapshot.ok_or_else(|| Fault::no_object(&call.this))?;
        snapshot.name = name.unwrap_or_else(|| snapshot.name.clone());
        snapshot.description = description.unwrap_or_else(|| snapshot.description.clone());
        Ok(())
    })?;
    Reply::none()
}

/// `RevertToSnapshot_Task`.
pub fn revert(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let snapshot = call.this.id.clone();
    let claim = Claim::of(site, &machine_of(site, call)?)?;
    tasks::start(site, call, claim, move |site, id| go_back(site, id, &snapshot))
}

/// `RevertToCurrentSnapshot_Task`.
pub fn revert_to_current(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let current = site.world.lock().machine(&call.this.id).and_then(|machine| machine.current.clone());
    let current = current.ok_or_else(Fault::not_found)?;
    let claim = Claim::of(site, &call.this.id)?;
    tasks::start(site, call, claim, move |site, id| go_back(site, id, &current))
}

/// Puts new children on the disks of the snapshot; what the machine wrote since goes. Its state of power is that of the
/// snapshot without memory: off.
fn go_back(site: &Arc<Site>, id: &str, snapshot: &str) -> Ended {
    let (wanted, old): (Vec<Device>, Vec<Device>) = {
        let world = site.world.lock();
        let machine = world.machine(id).ok_or_else(Fault::not_found)?;
        let snapshot = machine.snapshot(snapshot).ok_or_else(Fault::not_found)?;
        let old = machine.disks.iter().map(|disk| disk.device.clone()).collect();
        (snapshot.disks.clone(), old)
    };
    for leaf in old.iter().filter_map(Device::leaf) {
        if site.uses.is_used(&leaf.file) {
            return Err(Fault::file("FileLocked", &leaf.to_string()));
        }
    }
    let mut made = Made { site, files: Vec::new() };
    for device in wanted.iter().filter(|device| !is_independent(device)) {
        made.child_of(device)?;
    }
    site.change(|world| {
        let mut links = Vec::new();
        for child in &made.files {
            links.push((child.key, child.link(world)?));
        }
        let machine = world.machine_mut(id).ok_or_else(Fault::not_found)?;
        machine.disks.retain(|disk| wanted.iter().any(|device| device.key == disk.device.key));
        for disk in &mut machine.disks {
            let Some(device) = wanted.iter().find(|device| device.key == disk.device.key) else { continue };
            let on_top = links.iter().find(|(key, _)| *key == device.key).map(|(_, link)| link.clone());
            let chain = on_top.into_iter().chain(device.chain.iter().cloned()).collect();
            disk.device = Device { chain, change_id: None, ..device.clone() };
            disk.tracker.stop(); // the disk went back in time: what changed since an earlier moment is not known
        }
        (machine.current, machine.powered_on) = (Some(snapshot.to_owned()), false);
        Ok(())
    })?;
    made.files.clear();
    for device in old.iter().filter(|device| device.chain.len() > 1) {
        consolidate::delete_unused(site, id, device)?;
    }
    Ok(None)
}
