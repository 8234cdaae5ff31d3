//! What there is: one datacenter, its hosts' machines, their disks and snapshots, and the tasks that change them.
//!
//! All of it stands behind one lock, which nobody holds while reading or writing a disk. What takes long marks the machine
//! as busy meanwhile.

pub mod build;
pub mod device;
pub mod first_class;
pub mod machine;
pub mod shape;
pub mod task;

use std::path::PathBuf;

use crate::sim::disks::stores::Stores;
use crate::sim::value::Moref;
use crate::sim::world::first_class::FirstClassDisk;
use crate::sim::world::machine::Machine;
use crate::sim::world::machine::Snapshot;
use crate::sim::world::shape::Shape;
use crate::sim::world::task::Tasks;

/// Everything that changes.
#[derive(Debug)]
pub struct World {
    /// The objects that are always there.
    pub shape: Shape,
    /// The datastores.
    pub stores: Stores,
    /// The machines.
    pub machines: Vec<Machine>,
    /// The disks that need no machine.
    pub first_class: Vec<FirstClassDisk>,
    /// The tasks.
    pub tasks: Tasks,
    /// How often machines moved from one host to another.
    pub moves: i32,
    /// Numbers of objects made so far.
    pub next: u32,
}

impl World {
    /// A number for a new object.
    pub fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// A machine.
    pub fn machine(&self, id: &str) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.id == id)
    }

    /// A machine, to change it.
    pub fn machine_mut(&mut self, id: &str) -> Option<&mut Machine> {
        self.machines.iter_mut().find(|machine| machine.id == id)
    }

    /// A snapshot and its machine.
    pub fn snapshot(&self, id: &str) -> Option<(&Machine, &Snapshot)> {
        self.machines.iter().find_map(|machine| Some((machine, machine.snapshot(id)?)))
    }

    /// The reference of a datastore.
    pub fn store_ref(&self, name: &str) -> Option<Moref> {
        self.stores.iter().position(|store| store.name == name).map(|at| self.shape.datastore(at))
    }

    /// The machine that runs on a file: the file is the leaf of one of its disks.
    pub fn running_on(&self, file: &PathBuf) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.powered_on && machine.leaves().any(|leaf| leaf == file))
    }
}
