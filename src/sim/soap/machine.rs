//! Machines: power, and what they do not do here.

use std::path::PathBuf;
use std::sync::Arc;

use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::fault::Fault;
use crate::sim::soap::login::internal;
use crate::sim::soap::tasks;
use crate::sim::soap::tasks::Claim;

/// `PowerOnVM_Task`.
pub fn power_on(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    tasks::start(site, call, Claim::of(site, &call.this.id)?, |site, id| {
        switch(site, id, true).map(|()| None)
    })
}

/// `PowerOffVM_Task`.
pub fn power_off(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    tasks::start(site, call, Claim::of(site, &call.this.id)?, |site, id| {
        switch(site, id, false).map(|()| None)
    })
}

/// `ShutdownGuest`: there is no guest to ask.
pub fn shut_down(_site: &Arc<Site>, _call: &Call<'_>) -> Outcome {
    Err(Fault::new(
        "ToolsUnavailable",
        "Cannot complete operation because VMware Tools is not running in this virtual machine.",
    ))
}

/// Tasks that the simulator does not have. A client that disabled one is told so before.
pub fn refuse_task(_site: &Arc<Site>, _call: &Call<'_>) -> Outcome {
    Err(Fault::not_supported())
}

/// Switches a machine on or off.
pub fn switch(site: &Site, id: &str, on: bool) -> Result<(), Fault> {
    site.change(|world| {
        let Some(machine) = world.machine(id) else { return Err(Fault::not_found()) };
        if machine.powered_on == on {
            return Err(Fault::power(machine.powered_on));
        }
        let leaves: Vec<PathBuf> = machine.leaves().cloned().collect();
        let taken = |leaf: &&PathBuf| {
            site.uses.is_written(leaf) || world.running_on(leaf).is_some_and(|other| other.id != id)
        };
        if let Some(leaf) = leaves.iter().find(|leaf| on && taken(leaf)) {
            return Err(Fault::file("FileLocked", &leaf.display().to_string()));
        }
        let Some(machine) = world.machine_mut(id) else { return Err(Fault::not_found()) };
        machine.powered_on = on;
        if on && machine.tracking {
            // Tracking that was asked for begins when a machine starts, or with the next snapshot.
            for disk in machine.disks.iter().filter(|disk| disk.tracker.latest().is_none()) {
                disk.tracker.mark(None).map_err(|e| internal(&e))?;
            }
        }
        Ok(())
    })
}
