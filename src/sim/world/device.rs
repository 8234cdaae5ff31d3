//! Disks as devices of a machine.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Context;
use crate::error::Result;
use crate::format::ddb;
use crate::format::descriptor::Descriptor;
use crate::format::descriptor::ExtentKind;
use crate::format::geometry::Adapter;
use crate::logging::Log;
use crate::sim::disks::open::How;
use crate::sim::disks::open::OpenFile;
use crate::sim::disks::stores::FileRef;
use crate::sim::disks::stores::Stores;
use crate::sim::disks::tracker::Tracker;

/// One link of a disk.
#[derive(Debug)]
pub struct Link {
    /// Its description.
    pub file: Arc<FileRef>,
    /// The files with its data; none when they are in the file of the description.
    pub extents: Vec<Arc<FileRef>>,
    /// Space is taken when it is written to.
    pub thin: bool,
    /// A delta of the kind that ESXi makes on VMFS-6.
    pub se_sparse: bool,
}

/// A disk of a machine or of a snapshot.
#[derive(Clone, Debug)]
pub struct Device {
    /// `VirtualDisk.key`.
    pub key: i32,
    /// The key of its controller.
    pub controller: i32,
    /// Its place there.
    pub unit: i32,
    /// `persistent` and so on.
    pub mode: String,
    /// The identity that the guest sees.
    pub uuid: String,
    /// Bytes.
    pub capacity: u64,
    /// Leaf first.
    pub chain: Vec<Arc<Link>>,
    /// Of a snapshot: the moment it was made at.
    pub change_id: Option<String>,
}

/// A disk of a machine as it is.
#[derive(Clone, Debug)]
pub struct MachineDisk {
    /// The device.
    pub device: Device,
    /// Its changes.
    pub tracker: Arc<Tracker>,
}

/// A controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Its key.
    pub key: i32,
    /// Its type.
    pub kind: &'static str,
    /// Its bus.
    pub bus: i32,
}

/// What is known of a disk that is to become a device.
#[derive(Debug)]
pub struct Found {
    /// Leaf first.
    pub chain: Vec<Arc<Link>>,
    /// Bytes.
    pub capacity: u64,
    /// The adapter it was made for.
    pub adapter: Adapter,
    /// Its identity.
    pub uuid: Option<String>,
}

impl Device {
    /// The file of the leaf.
    pub fn leaf(&self) -> Option<&Arc<FileRef>> {
        self.chain.first().map(|link| &link.file)
    }

    /// Where a file stands in the chain.
    pub fn position(&self, file: &PathBuf) -> Option<usize> {
        self.chain.iter().position(|link| link.file.file == *file)
    }
}

impl Found {
    /// Opens the disk at `path` and gives its links names.
    pub fn at(path: &std::path::Path, stores: &mut Stores, log: &Log) -> Result<Found> {
        let path = path.canonicalize().context(|| path.display().to_string())?;
        let open = OpenFile::open(&path, How::Read, log)?;
        let mut chain = Vec::new();
        for (link, file) in open.disk.links().iter().zip(open.chain()?) {
            chain.push(Arc::new(Link::of(&link.descriptor(), &file, stores)?));
        }
        let base = open.disk.links().last();
        let find = |key: &str| {
            let ask =
                |link: &Arc<crate::disk::link::Link>| link.with_descriptor(|d| d.ddb(key).map(str::to_owned));
            open.disk.links().iter().find_map(ask)
        };
        let adapter = ddb::adapter(base.and_then(|_| find("adapterType")).as_deref());
        let uuid = find("uuid").and_then(|text| dashed(&text));
        Ok(Found { chain, capacity: open.disk.capacity(), adapter, uuid })
    }
}

impl Link {
    /// The link that `descriptor`, which stands in `file`, describes.
    pub fn of(descriptor: &Descriptor, file: &std::path::Path, stores: &mut Stores) -> Result<Link> {
        let folder = file.parent().unwrap_or(std::path::Path::new("/"));
        let mut extents = Vec::new();
        for name in descriptor.extents().iter().filter_map(|extent| extent.name.as_deref()) {
            // An embedded description names the file it stands in, by the name it had when it was made.
            let Ok(real) = folder.join(name).canonicalize() else { continue };
            if real != file && real.is_file() && real.starts_with(folder) {
                extents.push(stores.name_of(&real)?);
            }
        }
        let kinds: Vec<ExtentKind> = descriptor.extents().iter().map(|extent| extent.kind).collect();
        let sparse = |kind: &ExtentKind| {
            matches!(kind, ExtentKind::Sparse | ExtentKind::VmfsSparse | ExtentKind::SeSparse)
        };
        let said_thin = descriptor.ddb("thinProvisioned").is_some_and(|value| value.trim() == "1");
        Ok(Link {
            file: stores.name_of(file)?,
            extents,
            thin: said_thin || kinds.iter().any(sparse),
            se_sparse: kinds.contains(&ExtentKind::SeSparse),
        })
    }
}

/// `60 00 C2 9a ..-..` of a disk data base as a UUID: `6000C29a-....-....-....-............`.
fn dashed(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let part = |from: usize, to: usize| digits.get(from..to);
    (digits.len() == 32)
        .then(|| Some([part(0, 8)?, part(8, 12)?, part(12, 16)?, part(16, 20)?, part(20, 32)?].join("-")))
        .flatten()
}

/// Places for disks on SCSI controllers, 15 on each. What a disk says of its adapter decides about the kind of a new
/// controller only: an IDE disk of another product sits on SCSI as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// The controllers, in the order they were made.
    pub controllers: Vec<Controller>,
}

/// Units of a SCSI controller; 7 is the controller itself.
const UNITS: i32 = 16;
const OWN_UNIT: i32 = 7;
const SCSI_CONTROLLER: i32 = 1000;
const SCSI_DISK: i32 = 2000;
const MOST_BUSES: i32 = 4;

/// The key of a disk in its place.
pub fn disk_key(controller: i32, unit: i32) -> i32 {
    SCSI_DISK + controller.saturating_sub(SCSI_CONTROLLER).saturating_mul(UNITS).saturating_add(unit)
}

impl Slots {
    /// A free place for a disk: its key, controller and unit. `None` when every place is taken.
    pub fn take(&mut self, adapter: Adapter, taken: &[&Device]) -> Option<(i32, i32, i32)> {
        let used = |controller: i32, unit: i32| {
            taken.iter().any(|device| device.controller == controller && device.unit == unit)
        };
        let kind = match adapter {
            Adapter::BusLogic => "VirtualBusLogicController",
            Adapter::LsiLogic => "VirtualLsiLogicController",
            _ => "ParaVirtualSCSIController",
        };
        let places = (0..MOST_BUSES).flat_map(|bus| (0..UNITS).map(move |unit| (bus, unit)));
        for (bus, unit) in places.filter(|(_, unit)| *unit != OWN_UNIT) {
            let controller = SCSI_CONTROLLER + bus;
            if !used(controller, unit) {
                self.add(controller, kind, bus);
                return Some((disk_key(controller, unit), controller, unit));
            }
        }
        None
    }

    /// A controller, unless it is there.
    pub fn add(&mut self, key: i32, kind: &'static str, bus: i32) {
        if !self.controllers.iter().any(|controller| controller.key == key) {
            self.controllers.push(Controller { key, kind, bus });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(place: (i32, i32, i32)) -> Device {
        Device {
            key: place.0,
            controller: place.1,
            unit: place.2,
            mode: String::new(),
            uuid: String::new(),
            capacity: 0,
            chain: Vec::new(),
            change_id: None,
        }
    }

    #[test]
    fn places_are_given_once_and_never_that_of_the_controller() {
        let (mut slots, mut devices) = (Slots::default(), Vec::<Device>::new());
        while let Some(place) = slots.take(Adapter::Unknown, &devices.iter().collect::<Vec<_>>()) {
            assert_ne!(place.2, OWN_UNIT);
            assert!(!devices.iter().any(|d| d.key == place.0));
            devices.push(device(place));
        }
        assert_eq!((devices.len(), slots.controllers.len()), (60, 4));
        assert_eq!((devices[0].key, devices[0].controller, devices[0].unit), (2000, 1000, 0));
    }

    #[test]
    fn the_identity_of_a_disk_is_written_as_a_uuid() {
        let text = "60 00 C2 9a 11 22 33 44-55 66 77 88 99 aa bb cc";
        assert_eq!(dashed(text).as_deref(), Some("6000C29a-1122-3344-5566-778899aabbcc"));
        assert_eq!(dashed("60 00"), None);
    }
}
