//! `ReconfigVM_Task`: change tracking, disks added and removed, settings.

use std::collections::HashMap;
use std::sync::Arc;

use crate::sim::disks::stores;
use crate::sim::disks::tracker::Tracker;
use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::fault::Fault;
use crate::sim::soap::tasks;
use crate::sim::soap::tasks::Claim;
use crate::sim::soap::tasks::Ended;
use crate::sim::world::World;
use crate::sim::world::build::identity_of;
use crate::sim::world::device;
use crate::sim::world::device::Device;
use crate::sim::world::device::Found;
use crate::sim::world::device::MachineDisk;
use crate::sim::world::machine::Machine;
use crate::sim::xml::Arg;

/// What is to change.
#[derive(Debug, Default)]
struct Wish {
    name: Option<String>,
    tracking: Option<bool>,
    extra: Vec<(String, String)>,
    devices: Vec<Change>,
}

/// A change of one device.
#[derive(Debug)]
enum Change {
    Controller { key: i32, kind: String, bus: i32 },
    Add { file: String, mode: String, controller: i32, unit: Option<i32> },
    Remove { key: i32 },
}

/// More of anything than that is no request.
const MOST: usize = 1000;

/// `ReconfigVM_Task`.
pub fn reconfigure(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let wish = read(call.args.one("spec").ok_or_else(|| Fault::argument("spec"))?)?;
    let claim = Claim::of(site, &call.this.id)?;
    tasks::start(site, call, claim, move |site, id| carry_out(site, id, wish))
}

/// What the simulator does not change is refused, rather than forgotten.
fn read(spec: Arg<'_>) -> Result<Wish, Fault> {
    let mut wish = Wish::default();
    for part in spec.0.children().filter(|node| node.is_element()).map(Arg).take(MOST) {
        match part.name() {
            "changeVersion" => {}
            "name" => wish.name = Some(part.text()),
            "changeTrackingEnabled" => wish.tracking = Some(spec.is("changeTrackingEnabled")),
            "extraConfig" => {
                let key = part.text_of("key").ok_or_else(|| Fault::argument("spec.extraConfig"))?;
                wish.extra.push((key, part.text_of("value").unwrap_or_default()));
            }
            "deviceChange" => wish.devices.push(read_device(part)?),
            other => {
                let text = format!("The simulator does not change {other}");
                return Err(Fault::new("NotSupported", text));
            }
        }
    }
    Ok(wish)
}

fn read_device(change: Arg<'_>) -> Result<Change, Fault> {
    if change.one("fileOperation").is_some() {
        let text = "The simulator neither makes nor deletes the files of disks that are added or removed";
        return Err(Fault::new("NotSupported", text));
    }
    let wrong = || Fault::argument("spec.deviceChange");
    let device = change.one("device").ok_or_else(wrong)?;
    let number = |arg: Arg<'_>, name| arg.number(name).and_then(|number| i32::try_from(number).ok());
    let key = number(device, "key").unwrap_or(-1);
    let kind = device.kind().unwrap_or_default();
    match (change.text_of("operation").as_deref(), kind) {
        (Some("remove"), "VirtualDisk") => Ok(Change::Remove { key }),
        (Some("add"), "VirtualDisk") => {
            let backing = device.one("backing").ok_or_else(wrong)?;
            Ok(Change::Add {
                file: backing.text_of("fileName").ok_or_else(wrong)?,
                mode: backing.text_of("diskMode").unwrap_or_else(|| "persistent".to_owned()),
                controller: number(device, "controllerKey").ok_or_else(wrong)?,
                unit: number(device, "unitNumber").filter(|unit| *unit >= 0),
            })
        }
        (Some("add"), kind) if CONTROLLERS.contains(&kind) => Ok(Change::Controller {
            key,
            kind: kind.to_owned(),
            bus: number(device, "busNumber").unwrap_or(0),
        }),
        _ => Err(Fault::not_supported()),
    }
}

const CONTROLLERS: &[&str] = &[
    "ParaVirtualSCSIController",
    "VirtualLsiLogicController",
    "VirtualLsiLogicSASController",
    "VirtualBusLogicController",
];

const MODES: &[&str] = &["persistent", "independent_persistent", "independent_nonpersistent"];

/// The machine is claimed, so nobody else changes its devices while their files are looked at.
fn carry_out(site: &Arc<Site>, id: &str, wish: Wish) -> Ended {
    let (mut stores, mut machine) = {
        let world = site.world.lock();
        (world.stores.clone(), world.machine(id).ok_or_else(Fault::not_found)?.clone())
    };
    let mut keys = HashMap::new();
    for change in &wish.devices {
        match change {
            Change::Controller { key, kind, bus } => {
                add_controller(&mut machine, &mut keys, *key, kind, *bus)?;
            }
            Change::Add { .. } => add_disk(site, &mut machine, &mut stores, &keys, change)?,
            Change::Remove { key } => remove_disk(site, &mut machine, *key)?,
        }
    }
    let adds = wish.devices.iter().any(|change| matches!(change, Change::Add { .. }));
    for (key, value) in wish.extra {
        machine.extra.retain(|(other, _)| *other != key);
        if !value.is_empty() && machine.extra.len() < MOST {
            machine.extra.push((key, value));
        }
    }
    if let Some(tracking) = wish.tracking {
        machine.tracking = tracking;
        machine.disks.iter().filter(|_| !tracking).for_each(|disk| disk.tracker.stop());
    }
    machine.name = wish.name.unwrap_or(machine.name);
    site.change(|world| {
        if adds {
            refuse_locked(world, &machine)?;
            world.stores = stores;
        }
        let place = world.machine_mut(id).ok_or_else(Fault::not_found)?;
        machine.disabled = std::mem::take(&mut place.disabled);
        *place = machine;
        Ok(None)
    })
}

/// A disk that another machine writes to can be attached for reading only.
fn refuse_locked(world: &World, machine: &Machine) -> Result<(), Fault> {
    for device in machine.disks.iter().map(|disk| &disk.device) {
        let Some(leaf) = device.leaf() else { continue };
        let other = world.running_on(&leaf.file).filter(|other| other.id != machine.id);
        if other.is_some() && device.mode != "independent_nonpersistent" {
            return Err(Fault::file("FileLocked", &leaf.to_string()));
        }
    }
    Ok(())
}

fn add_controller(
    machine: &mut Machine,
    keys: &mut HashMap<i32, i32>,
    key: i32,
    kind: &str,
    bus: i32,
) -> Result<(), Fault> {
    let own = 1000 + bus;
    let kind = CONTROLLERS.iter().find(|known| **known == kind);
    let taken = machine.slots.controllers.iter().any(|controller| controller.key == own);
    match kind {
        Some(kind) if !taken && (0..4).contains(&bus) => {
            machine.slots.add(own, kind, bus);
            keys.insert(key, own);
            Ok(())
        }
        _ => Err(Fault::argument("spec.deviceChange.device.busNumber")),
    }
}

fn add_disk(
    site: &Site,
    machine: &mut Machine,
    stores: &mut stores::Stores,
    keys: &HashMap<i32, i32>,
    change: &Change,
) -> Result<(), Fault> {
    let Change::Add { file, mode, controller, unit } = change else { return Ok(()) };
    if !MODES.contains(&mode.as_str()) {
        return Err(Fault::argument("spec.deviceChange.device.backing.diskMode"));
    }
    let path = stores::parse(file).and_then(|(store, path)| stores.file(store, path));
    let path = path.ok_or_else(|| Fault::file("FileNotFound", file))?;
    let found = Found::at(&path, stores, &site.log).map_err(|e| Fault::of(&e, file))?;
    let controller = keys.get(controller).copied().unwrap_or(*controller);
    if !machine.slots.controllers.iter().any(|known| known.key == controller) {
        return Err(Fault::argument("spec.deviceChange.device.controllerKey"));
    }
    let used =
        |unit: i32| machine.disks.iter().any(|d| d.device.controller == controller && d.device.unit == unit);
    let unit = match unit {
        Some(unit) => Some(*unit),
        None => (0..16).find(|unit| *unit != 7 && !used(*unit)),
    };
    let unit = unit.filter(|unit| (0..16).contains(unit) && *unit != 7 && !used(*unit));
    let unit = unit.ok_or_else(|| Fault::argument("spec.deviceChange.device.unitNumber"))?;
    let key = device::disk_key(controller, unit);
    let base =
        found.chain.last().map_or_else(String::new, |link| link.file.file.to_string_lossy().into_owned());
    let device = Device {
        key,
        controller,
        unit,
        mode: mode.clone(),
        uuid: found.uuid.unwrap_or_else(|| identity_of("disk", &base)),
        capacity: found.capacity,
        chain: found.chain,
        change_id: None,
    };
    machine.disks.push(MachineDisk { device, tracker: Arc::new(Tracker::default()) });
    Ok(())
}

fn remove_disk(site: &Site, machine: &mut Machine, key: i32) -> Result<(), Fault> {
    let at = machine.disks.iter().position(|disk| disk.device.key == key);
    let at = at.ok_or_else(|| Fault::argument("spec.deviceChange.device.key"))?;
    let in_use = machine
        .disks
        .get(at)
        .and_then(|disk| disk.device.leaf())
        .filter(|leaf| site.uses.is_used(&leaf.file));
    if let Some(leaf) = in_use {
        return Err(Fault::file("FileLocked", &leaf.to_string()));
    }
    machine.disks.remove(at);
    Ok(())
}
