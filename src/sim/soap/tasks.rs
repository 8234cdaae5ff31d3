//! Running tasks: each on a thread of its own, one at a time for each machine. Tasks that change no machine are in nobody's way.

use std::sync::Arc;
use std::time::SystemTime;

use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::call::Reply;
use crate::sim::soap::fault::Fault;
use crate::sim::soap::login::internal;
use crate::sim::soap::methods;
use crate::sim::value::Moref;
use crate::sim::value::Value;
use crate::sim::world::task::Task;

/// How a task ends.
pub type Ended = Result<Option<Value>, Fault>;

/// A machine that a task changes. No other task may, until this is dropped.
#[derive(Debug)]
pub struct Claim {
    site: Arc<Site>,
    /// The machine.
    pub machine: String,
}

impl Claim {
    /// Claims a machine.
    pub fn of(site: &Arc<Site>, machine: &str) -> Result<Claim, Fault> {
        site.change(|world| {
            let moref = Moref::new("VirtualMachine", machine);
            let found = world.machine_mut(machine).ok_or_else(|| Fault::no_object(&moref))?;
            match std::mem::replace(&mut found.busy, true) {
                true => Err(Fault::in_progress()),
                false => Ok(Claim { site: site.clone(), machine: machine.to_owned() }),
            }
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.site.change(|world| {
            if let Some(machine) = world.machine_mut(&self.machine) {
                (machine.busy, machine.merging) = (false, false);
            }
        });
    }
}

/// Begins a task on a claimed machine. Its reference is the reply.
pub fn start(
    site: &Arc<Site>,
    call: &Call<'_>,
    claim: Claim,
    work: impl FnOnce(&Arc<Site>, &str) -> Ended + Send + 'static,
) -> Outcome {
    let world = site.world.lock();
    let name = world.machine(&claim.machine).map_or_else(String::new, |machine| machine.name.clone());
    drop(world);
    let entity = Moref::new("VirtualMachine", claim.machine.clone());
    start_on(site, call, (entity, name), move |site| {
        let ended = work(site, &claim.machine);
        drop(claim); // whoever sees the end of the task may begin the next one
        ended
    })
}

/// Begins a task on an object of this name, which it does not change. Its reference is the reply.
pub fn start_on(
    site: &Arc<Site>,
    call: &Call<'_>,
    (entity, entity_name): (Moref, String),
    work: impl FnOnce(&Arc<Site>) -> Ended + Send + 'static,
) -> Outcome {
    let Some(method) = methods::name(call.method) else { return Err(Fault::request("no such method")) };
    let user = call.session()?.user.clone();
    let task = site.change(|world| {
        let number = world.number();
        let id = match world.shape.esxi {
            true => format!("haTask-{}-vim.{}-{number}", entity.id, method.trim_end_matches("_Task")),
            false => format!("task-{number}"),
        };
        let task = Task { id, method, entity, entity_name, user, begun: SystemTime::now(), ended: None };
        let moref = task.moref();
        world.tasks.add(task);
        moref
    });
    let (theirs, id) = (site.clone(), task.id.clone());
    let born = site.threads.spawn("vix-sim-task", move || {
        let end = End { site: &theirs, id };
        end.with(work(&theirs));
    });
    match born {
        Ok(()) => Reply::of(task),
        Err(e) => {
            site.change(|world| world.tasks.end(&task.id, Err(internal(&e))));
            Err(internal(&e))
        }
    }
}

/// Ends a task, also when its thread panics.
struct End<'a> {
    site: &'a Arc<Site>,
    id: String,
}

impl End<'_> {
    fn with(self, ended: Ended) {
        if let Err(fault) = &ended {
            self.site.log.info(|| format!("vixsim: {} ended with {}: {}", self.id, fault.name(), fault.text));
        }
        self.site.change(|world| world.tasks.end(&self.id, ended));
        std::mem::forget(self);
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let fault = Fault::new("SystemError", "The task ended without a result").with("reason", "panic");
        self.site.change(|world| world.tasks.end(&self.id, Err(fault)));
    }
}
