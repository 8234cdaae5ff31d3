//! Machines and their snapshots.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::sim::value::Moref;
use crate::sim::world::device::Device;
use crate::sim::world::device::MachineDisk;
use crate::sim::world::device::Slots;

/// A machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `config.uuid`, what the guest sees.
    pub uuid: String,
    /// `config.instanceUuid`, what the vCenter sees.
    pub instance_uuid: String,
    /// `[store] dir/name.vmx`. The file itself does not exist.
    pub vmx: String,
    /// It runs.
    pub powered_on: bool,
    /// The number of the host that it is on, whether it runs or not.
    pub host: usize,
    /// Its disks.
    pub disks: Vec<MachineDisk>,
    /// Its controllers.
    pub slots: Slots,
    /// Its snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// The snapshot that it stands on.
    pub current: Option<String>,
    /// How many snapshots it ever had.
    pub count: i32,
    /// `config.changeTrackingEnabled`.
    pub tracking: bool,
    /// `config.extraConfig`.
    pub extra: Vec<(String, String)>,
    /// Methods that somebody disabled.
    pub disabled: Vec<Disabled>,
    /// A task changes it.
    pub busy: bool,
    /// A task moves data from one of its files to another: nobody may open them.
    pub merging: bool,
    /// When it was made.
    pub created: SystemTime,
}

/// A disabled method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// The method.
    pub method: String,
    /// Who disabled it.
    pub source: String,
    /// Why.
    pub reason: String,
    /// The session that takes it along when it ends.
    pub session: Option<String>,
}

/// A snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its identifier.
    pub id: String,
    /// Its number in its machine.
    pub number: i32,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// When it was made.
    pub created: SystemTime,
    /// The machine ran.
    pub powered_on: bool,
    /// The guest was asked to hold still.
    pub quiesced: bool,
    /// The snapshot that it stands on.
    pub parent: Option<String>,
    /// The disks as they were.
    pub disks: Vec<Device>,
}

impl Machine {
    /// Its reference.
    pub fn moref(&self) -> Moref {
        Moref::new("VirtualMachine", self.id.clone())
    }

    /// A snapshot.
    pub fn snapshot(&self, id: &str) -> Option<&Snapshot> {
        self.snapshots.iter().find(|snapshot| snapshot.id == id)
    }

    /// The snapshots that stand on one, or on none.
    pub fn children<'a>(&'a self, parent: Option<&'a str>) -> impl Iterator<Item = &'a Snapshot> {
        self.snapshots.iter().filter(move |snapshot| snapshot.parent.as_deref() == parent)
    }

    /// The files it writes to when it runs.
    pub fn leaves(&self) -> impl Iterator<Item = &PathBuf> {
        self.disks.iter().filter_map(|disk| disk.device.leaf()).map(|file| &file.file)
    }

    /// All its disks: as they are, and as its snapshots hold them.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        let now = self.disks.iter().map(|disk| &disk.device);
        now.chain(self.snapshots.iter().flat_map(|snapshot| &snapshot.disks))
    }

    /// All its disks, to change their chains.
    pub fn devices_mut(&mut self) -> impl Iterator<Item = &mut Device> {
        let now = self.disks.iter_mut().map(|disk| &mut disk.device);
        now.chain(self.snapshots.iter_mut().flat_map(|snapshot| &mut snapshot.disks))
    }
}

impl Snapshot {
    /// Its reference.
    pub fn moref(&self) -> Moref {
        Moref::new("VirtualMachineSnapshot", self.id.clone())
    }
}
