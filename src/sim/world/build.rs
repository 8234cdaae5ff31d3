//! The world at the start: machines made of the disks that the options name.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use ring::digest;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::sim::disks::stores::Stores;
use crate::sim::disks::tracker::Tracker;
use crate::sim::options::MachineOptions;
use crate::sim::options::Options;
use crate::sim::random;
use crate::sim::world::World;
use crate::sim::world::device::Device;
use crate::sim::world::device::Found;
use crate::sim::world::device::MachineDisk;
use crate::sim::world::device::Slots;
use crate::sim::world::machine::Machine;
use crate::sim::world::machine::Snapshot;
use crate::sim::world::shape::FIRST_NUMBER;
use crate::sim::world::shape::Shape;
use crate::sim::world::task::Tasks;

impl World {
    /// Opens every disk once.
    pub fn new(options: &Options) -> Result<World> {
        let mut world = World {
            shape: Shape { esxi: options.esxi, hosts: options.hosts },
            stores: Stores::new(&options.datastores)?,
            machines: Vec::new(),
            first_class: Vec::new(),
            tasks: Tasks::default(),
            moves: 0,
            next: FIRST_NUMBER,
        };
        for machine in &options.machines {
            let story = || format!("machine {:?}", machine.name);
            if world.machines.iter().any(|other| other.name == machine.name) {
                return Err(Error::new(ErrorKind::InvalidArgument, format!("{} is named twice", story())));
            }
            let machine = world.new_machine(machine, options).context(story)?;
            if let Some(leaf) =
                machine.leaves().find(|leaf| world.machines.iter().any(|m| m.leaves().any(|l| l == *leaf)))
            {
                let text = format!("{} belongs to two machines", leaf.display());
                return Err(Error::new(ErrorKind::InvalidArgument, text));
            }
            world.machines.push(machine);
        }
        for disk in &options.first_class {
            world.add_first_class(disk, options)?;
        }
        Ok(world)
    }

    fn new_machine(&mut self, given: &MachineOptions, options: &Options) -> Result<Machine> {
        let number = self.number();
        let mut slots = Slots::default();
        let mut disks: Vec<MachineDisk> = Vec::new();
        for path in &given.disks {
            let found =
                Found::at(path, &mut self.stores, &options.log).context(|| path.display().to_string())?;
            let taken: Vec<&Device> = disks.iter().map(|disk| &disk.device).collect();
            let Some((key, controller, unit)) = slots.take(found.adapter, &taken) else {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    "more disks than a machine has places for",
                ));
            };
            let file = found.chain.last().map_or_else(PathBuf::new, |link| link.file.file.clone());
            let uuid = found.uuid.unwrap_or_else(|| identity_of("disk", &file.to_string_lossy()));
            let device = Device {
                key,
                controller,
                unit,
                mode: "persistent".to_owned(),
                uuid,
                capacity: found.capacity,
                chain: found.chain,
                change_id: None,
            };
            disks.push(MachineDisk { device, tracker: Arc::new(Tracker::default()) });
        }
        let home = disks.first().and_then(|disk| disk.device.leaf()).map(|file| {
            let folder = Path::new(&file.path).parent().and_then(Path::to_str).unwrap_or_default();
            (file.store.clone(), folder.to_owned())
        });
        let home =
            home.or_else(|| self.stores.iter().next().map(|store| (store.name.clone(), given.name.clone())));
        let (store, folder) = home.unwrap_or_else(|| ("datastore1".to_owned(), given.name.clone()));
        let folder = if folder.is_empty() { folder } else { folder + "/" };
        let count = self.machines.len() + 1;
        let mut machine = Machine {
            id: self.shape.machine(number, count),
            name: given.name.clone(),
            uuid: identity_of("machine", &given.name),
            instance_uuid: identity_of("instance", &given.name),
            vmx: format!("[{store}] {folder}{}.vmx", given.name),
            powered_on: given.powered_on,
            host: 0,
            disks,
            slots,
            snapshots: Vec::new(),
            current: None,
            count: 0,
            tracking: false,
            extra: Vec::new(),
            disabled: Vec::new(),
            busy: false,
            merging: false,
            created: SystemTime::now(),
        };
        self.snapshots_of_chains(&mut machine);
        Ok(machine)
    }

    /// Each parent link is the disk of a snapshot, the oldest first. Disks with fewer links joined the machine later, so they
    /// are in its younger snapshots only.
    fn snapshots_of_chains(&mut self, machine: &mut Machine) {
        let longest = machine.disks.iter().map(|disk| disk.device.chain.len()).max().unwrap_or(0);
        for above in (1..longest).rev() {
            let disks: Vec<Device> = machine
                .disks
                .iter()
                .filter_map(|disk| {
                    let chain = disk.device.chain.get(above..).filter(|chain| !chain.is_empty())?;
                    Some(Device { chain: chain.to_vec(), ..disk.device.clone() })
                })
                .collect();
            machine.count += 1;
            let number = self.number();
            let id = self.shape.snapshot(&machine.id, number, machine.count);
            machine.snapshots.push(Snapshot {
                id: id.clone(),
                number: machine.count,
                name: format!("snapshot {}", machine.count),
                description: String::new(),
                created: SystemTime::now(),
                powered_on: false,
                quiesced: false,
                parent: machine.current.replace(id),
                disks,
            });
        }
    }
}

/// The same identity for the same name at every start.
pub fn identity_of(what: &str, name: &str) -> String {
    let digest = digest::digest(&digest::SHA256, format!("{what}\0{name}").as_bytes());
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest.as_ref()).for_each(|(byte, from)| *byte = *from);
    random::uuid_of(bytes)
}
