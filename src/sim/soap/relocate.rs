//! Machines that move from one host to another.
//!
//! Only the host changes: files stay where they are. What real hosts do to the NFC connections of a machine that moves is known
//! in part: some were seen to stay (`nfc.md` 8). Here they end, which is the harder case for a client.

use std::sync::Arc;

use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::fault::Fault;
use crate::sim::soap::tasks;
use crate::sim::soap::tasks::Claim;
use crate::sim::value::Moref;
use crate::sim::value::Value;
use crate::sim::world::World;
use crate::sim::world::machine::Machine;
use crate::sim::xml::Arg;

/// What a specification may say here. All else is about files or devices, which stay.
const KNOWN: &[&str] = &["host", "pool", "folder", "datastore", "diskMoveType", "transform"];

/// `RelocateVM_Task`: to the host of the specification. Without one the machine stays where it is.
pub fn relocate(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    has_hosts(site)?;
    let spec = call.args.one("spec").ok_or_else(|| Fault::argument("spec"))?;
    let host = {
        let world = site.world.lock();
        let machine = world.machine(&call.this.id).ok_or_else(|| Fault::no_object(&call.this))?;
        check(&world, machine, spec)?;
        host_of(site, &world, spec.one("host"))?
    };
    start(site, call, host)
}

/// `MigrateVM_Task`, its older form: a host, and which state the machine has to be in.
pub fn migrate(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    has_hosts(site)?;
    let host = {
        let world = site.world.lock();
        let machine = world.machine(&call.this.id).ok_or_else(|| Fault::no_object(&call.this))?;
        is_ours(&world.shape.pool(), call.args.one("pool"), "pool")?;
        let state = if machine.powered_on { "poweredOn" } else { "poweredOff" };
        if call.args.text_of("state").is_some_and(|wanted| wanted != state) {
            return Err(Fault::power(machine.powered_on));
        }
        host_of(site, &world, call.args.one("host"))?
    };
    if host.is_none() {
        return Err(Fault::argument("host")); // clusters that choose one themselves are another kind
    }
    start(site, call, host)
}

fn start(site: &Arc<Site>, call: &Call<'_>, host: Option<usize>) -> Outcome {
    tasks::start(site, call, Claim::of(site, &call.this.id)?, move |site, id| {
        if let Some(host) = host {
            to(site, id, host)?;
        }
        Ok(None::<Value>)
    })
}

/// From a single host there is nowhere to go.
fn has_hosts(site: &Site) -> Result<(), Fault> {
    if site.hosts.len() > 1 { Ok(()) } else { Err(Fault::not_supported()) }
}

/// The number of the host that is named. A host in maintenance takes no machines: by which fault real servers say so is
/// documented as one about the state.
fn host_of(site: &Site, world: &World, given: Option<Arg<'_>>) -> Result<Option<usize>, Fault> {
    let Some(given) = given.and_then(Arg::moref) else { return Ok(None) };
    let at = world.shape.host_number(&given).ok_or_else(|| Fault::no_object(&given))?;
    if site.host(at).knobs.now().maintenance {
        let text = "The operation is not allowed in the current state of the host.";
        return Err(Fault::new("InvalidState", text));
    }
    Ok(Some(at))
}

fn check(world: &World, machine: &Machine, spec: Arg<'_>) -> Result<(), Fault> {
    let mut fields = spec.0.children().filter(|node| node.is_element()).map(Arg);
    if fields.any(|field| !KNOWN.contains(&field.name())) {
        return Err(Fault::not_supported());
    }
    is_ours(&world.shape.pool(), spec.one("pool"), "spec.pool")?;
    is_ours(&world.shape.vm_folder(), spec.one("folder"), "spec.folder")?;
    let Some(store) = spec.one("datastore").and_then(Arg::moref) else { return Ok(()) };
    let at = world.stores.iter().enumerate().find(|(at, _)| world.shape.datastore(*at) == store);
    let (_, store) = at.ok_or_else(|| Fault::no_object(&store))?;
    let mut files = machine.devices().flat_map(|device| &device.chain);
    if files.any(|link| link.file.store != store.name) {
        return Err(Fault::not_supported());
    }
    Ok(())
}

/// There is one of its kind.
fn is_ours(ours: &Moref, given: Option<Arg<'_>>, name: &str) -> Result<(), Fault> {
    match given.and_then(Arg::moref) {
        Some(given) if given != *ours => Err(Fault::argument(name)),
        _ => Ok(()),
    }
}

/// Moves a machine to a host, whatever somebody disabled. Its tickets die, and its connections to the host that it leaves end.
/// False: it is there already.
pub fn to(site: &Site, id: &str, host: usize) -> Result<bool, Fault> {
    moved(site, id, |_| host)
}

/// Moves a machine to the host behind its own, from the last one to the first. False: there is no other.
pub fn onwards(site: &Site, id: &str) -> Result<bool, Fault> {
    moved(site, id, |here| (here + 1) % site.hosts.len())
}

fn moved(site: &Site, id: &str, choose: impl FnOnce(usize) -> usize) -> Result<bool, Fault> {
    let (from, to, name) = site.change(|world| {
        let machine = world.machine_mut(id).ok_or_else(Fault::not_found)?;
        let from = machine.host;
        let to = choose(from);
        if to >= site.hosts.len() {
            return Err(Fault::argument("host"));
        }
        machine.host = to;
        let name = machine.name.clone();
        if from != to {
            site.tickets.forget(id);
            world.moves = world.moves.saturating_add(1);
        }
        Ok((from, to, name))
    })?;
    if from == to {
        return Ok(false);
    }
    site.host(from).cut_machine(id);
    site.log.info(|| format!("vixsim: {name} moved from {} to {}", site.host_name(from), site.host_name(to)));
    Ok(true)
}
