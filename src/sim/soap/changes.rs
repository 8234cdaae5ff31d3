//! Changed areas of disks (`vsphere.md` 5.6, O).

use std::sync::Arc;

use crate::sim::disks::areas::Areas;
use crate::sim::disks::open::How;
use crate::sim::disks::open::OpenFile;
use crate::sim::disks::tracker::Known;
use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::call::Reply;
use crate::sim::soap::fault::Fault;
use crate::sim::value::Data;
use crate::sim::value::Value;
use crate::sim::world::World;
use crate::sim::world::device::Device;
use crate::sim::xml::Arg;

/// `QueryChangedDiskAreas`.
pub fn query(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let key = call.args.number("deviceKey").and_then(|key| i32::try_from(key).ok());
    let key = key.ok_or_else(|| Fault::argument("deviceKey"))?;
    let start = call.args.number("startOffset").and_then(|start| u64::try_from(start).ok());
    let start = start.ok_or_else(|| Fault::argument("startOffset"))?;
    let change_id = call.text("changeId")?;
    let asked = {
        let world = site.world.lock();
        ask(&world, call, key, change_id.trim())?
    };
    let capacity = asked.device.capacity;
    if start >= capacity {
        return Err(Fault::argument("startOffset"));
    }
    let areas = asked.areas(site)?;
    let (found, next) = areas.slice(start, capacity, site.options.most_areas.max(1));
    let found = found.into_iter().map(|area| {
        Value::Data(
            Data::new("DiskChangeExtent").with("start", area.start).with("length", area.end - area.start),
        )
    });
    Reply::of(Data::new("DiskChangeInfo").with("startOffset", start).with("length", next - start).list(
        "changedArea",
        "DiskChangeExtent",
        found,
    ))
}

/// What is asked for.
struct Asked {
    device: Device,
    /// Between which moments; none: everything that is allocated.
    known: Option<Known>,
}

fn ask(world: &World, call: &Call<'_>, key: i32, change_id: &str) -> Result<Asked, Fault> {
    let machine = world.machine(&call.this.id).ok_or_else(|| Fault::no_object(&call.this))?;
    let disk = machine.disks.iter().find(|disk| disk.device.key == key);
    let (device, to) = match call.args.one("snapshot").and_then(Arg::moref) {
        None => (disk.map(|disk| disk.device.clone()), None),
        Some(moref) => {
            let snapshot = machine.snapshot(&moref.id).ok_or_else(|| Fault::no_object(&moref))?;
            let device = snapshot.disks.iter().find(|device| device.key == key).cloned();
            let to = device.as_ref().and_then(|device| device.change_id.clone());
            (device, Some(to))
        }
    };
    let device = device.ok_or_else(|| Fault::argument("deviceKey"))?;
    let name = device.leaf().map_or_else(String::new, |leaf| leaf.to_string());
    let unknown = || Fault::file("FileFault", &name);
    // Without tracking at that moment there is no map, not even of what is allocated.
    let tracked = match &to {
        None => disk.is_some_and(|disk| disk.tracker.latest().is_some()),
        Some(to) => to.is_some(),
    };
    if !tracked {
        return Err(unknown());
    }
    if change_id == "*" {
        return Ok(Asked { device, known: None });
    }
    let known = disk.and_then(|disk| disk.tracker.between(change_id, to.flatten().as_deref()));
    Ok(Asked { device, known: Some(known.ok_or_else(unknown)?) })
}

impl Asked {
    fn areas(self, site: &Site) -> Result<Areas, Fault> {
        let name = self.device.leaf().map_or_else(String::new, |leaf| leaf.to_string());
        let fault = |e| Fault::of(&e, &name);
        match self.known {
            None => {
                let Some(leaf) = self.device.leaf() else { return Err(Fault::file("FileFault", &name)) };
                OpenFile::open(&leaf.file, How::Read, &site.log)
                    .and_then(|open| open.allocated())
                    .map_err(fault)
            }
            Some(known) => {
                let mut areas = known.areas;
                for link in &known.links {
                    let own = OpenFile::open(link, How::Read, &site.log).and_then(|open| open.own_areas());
                    areas.unite(&own.map_err(fault)?);
                }
                Ok(areas)
            }
        }
    }
}
