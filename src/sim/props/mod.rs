//! Properties: what each object shows.
//!
//! The properties of an object are one structure, made anew for each question; a path leads into it.

pub mod config;
pub mod inventory;
pub mod known;
pub mod layout;
pub mod machine;
pub mod managers;

use std::sync::Arc;

use crate::sim::session::Session;
use crate::sim::site::Site;
use crate::sim::soap::fault::Fault;
use crate::sim::value::Data;
use crate::sim::value::Moref;
use crate::sim::value::Value;
use crate::sim::world::World;

/// What properties are made from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The simulator.
    pub site: &'a Site,
    /// What there is; its lock is held.
    pub world: &'a World,
    /// Who asks: views and filters are its own.
    pub session: Option<&'a Arc<Session>>,
}

/// True when there is such an object for the caller.
pub fn exists(site: &Site, session: Option<&Arc<Session>>, object: &Moref) -> bool {
    let world = site.world.lock();
    Source { site, world: &world, session }.exists(object)
}

impl Source<'_> {
    /// True when there is such an object for the caller.
    pub fn exists(&self, object: &Moref) -> bool {
        let world = self.world;
        match object.kind.as_str() {
            "VirtualMachine" => world.machine(&object.id).is_some(),
            "VirtualMachineSnapshot" => world.snapshot(&object.id).is_some(),
            "Task" => world.tasks.get(&object.id).is_some(),
            "Datastore" => inventory::datastores(world).contains(object),
            "HostDatastoreBrowser" => inventory::browsers(world).contains(object),
            _ => {
                inventory::is_fixed(world, object)
                    || managers::is_one(world, object)
                    || self.session.is_some_and(|session| session.collectors.has(object))
            }
        }
    }

    /// All properties of an object.
    pub fn properties(&self, object: &Moref) -> Option<Data> {
        let world = self.world;
        match object.kind.as_str() {
            "VirtualMachine" => world.machine(&object.id).map(|it| machine::properties(self, it)),
            "VirtualMachineSnapshot" => world
                .snapshot(&object.id)
                .map(|(machine, it)| machine::snapshot_properties(self, machine, it)),
            "Task" => world.tasks.get(&object.id).map(|task| Data::new("Task").with("info", task.info())),
            "HostDatastoreBrowser" => inventory::browser(world, object),
            _ => inventory::properties(self, object)
                .or_else(|| managers::properties(self, object))
                .or_else(|| self.session?.collectors.properties(self.world, object)),
        }
    }

    /// What a path leads to. `Ok(None)`: nothing is set there. An object never has a property that its type does not name.
    pub fn at(&self, object: &Moref, all: &Value, path: &str) -> Result<Option<Value>, Fault> {
        let first = path.split(['.', '[']).next().unwrap_or_default();
        if let Some(found) = all.at(path) {
            return Ok(Some(found.clone()));
        }
        match all.at(first).is_some() || known::is_property(&object.kind, first) {
            true => Ok(None),
            false => Err(Fault::new(
                "InvalidProperty",
                format!("The property '{path}' is not valid for {}", object.kind),
            )
            .with("name", path)),
        }
    }
}
