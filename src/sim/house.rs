//! What the NFC server asks: tickets redeemed, disks opened.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::ddb;
use crate::format::geometry::Geometry;
use crate::net::nfc::refusal;
use crate::sim::disks::open::How;
use crate::sim::disks::open::OpenFile;
use crate::sim::disks::stores;
use crate::sim::disks::tracker::Tracker;
use crate::sim::disks::uses::Use;
use crate::sim::fault::Target;
use crate::sim::nfc::Grant;
use crate::sim::nfc::House;
use crate::sim::nfc::Refusal;
use crate::sim::nfc::Right;
use crate::sim::nfc::Volume;
use crate::sim::site::Site;
use crate::sim::soap::relocate;
use crate::sim::world::World;
use crate::sim::world::machine::Machine;
use crate::units::SECTOR;
use crate::units::Sectors;

/// The simulator as the NFC server of a host sees it.
#[derive(Debug)]
pub struct Estate {
    /// The simulator.
    pub site: Arc<Site>,
    /// The number of the host.
    pub host: usize,
}

impl House for Estate {
    fn redeem(&self, ticket: &str) -> Option<Grant> {
        self.site.tickets.redeem_nfc(self.host, ticket)
    }

    fn relocate(&self, grant: &Grant, to: Target) -> bool {
        let moved = match to {
            Target::Next => relocate::onwards(&self.site, &grant.machine),
            Target::Host(at) => relocate::to(&self.site, &grant.machine, at),
        };
        moved.unwrap_or_else(|fault| {
            self.site.log.warning(|| format!("vixsim: a rule moves nothing: {}", fault.text));
            false
        })
    }

    fn open(&self, grant: &Grant, path: &str, write: bool) -> Result<Arc<dyn Volume>, Refusal> {
        let opened = open(self, grant, path, write);
        self.site.log.info(|| match &opened {
            Ok(_) => format!("vixsim: opened {path}, {}", if write { "to write" } else { "to read" }),
            Err(Refusal { code, text }) => format!("vixsim: {path} is refused: {code} {text}"),
        });
        opened.map(|open| Arc::new(open) as Arc<dyn Volume>)
    }
}

/// The code where real hosts' is unknown: what the vendor's library shows as an unknown error (`nfc.md` 9).
const UNKNOWN: u64 = 1;
/// The file is not there, and it is locked: the numbers of the vendor's own codes (I, `nfc.md` 9).
const MISSING: u64 = 4;
const LOCKED: u64 = 15;

fn refuse<T>(code: u64, text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, text: text.into() })
}

fn not_permitted<T>() -> Result<T, Refusal> {
    refuse(refusal::NOT_PERMITTED, "NfcAioProcessOpenFileMsg: permission check failed") // O, `nfc.md` 14
}

fn locked<T>() -> Result<T, Refusal> {
    refuse(LOCKED, "DiskLib error 16392: Failed to lock the file") // the text is O, `nfc.md` 14
}

/// What is opened, once it is clear that it may be.
struct Plan {
    file: PathBuf,
    held: Use,
    /// The changes of the disk whose leaf it is.
    tracker: Option<Arc<Tracker>>,
}

fn open(estate: &Estate, grant: &Grant, path: &str, write: bool) -> Result<Open, Refusal> {
    let site = &*estate.site;
    let plan = plan(estate, &site.world.lock(), grant, path, write)?;
    let how = if write { How::Write } else { How::Read };
    match OpenFile::open(&plan.file, how, &site.log) {
        Ok(file) => Ok(Open::new(file, plan.held, plan.tracker)),
        Err(e) if e.kind() == ErrorKind::Locked => locked(),
        Err(e) if e.kind() == ErrorKind::NotFound => missing(),
        Err(e) if e.kind() == ErrorKind::AccessDenied => not_permitted(),
        Err(e) => {
            site.log.warning(|| format!("vixsim: {e}"));
            refuse(UNKNOWN, "Failed to open the disk")
        }
    }
}

fn missing<T>() -> Result<T, Refusal> {
    refuse(MISSING, "DiskLib error: The system cannot find the file specified: file not found")
}

fn plan(estate: &Estate, world: &World, grant: &Grant, path: &str, write: bool) -> Result<Plan, Refusal> {
    let site = &*estate.site;
    if write && !grant.right.writes() {
        return not_permitted(); // O, `nfc.md` 2
    }
    let Some(machine) = world.machine(&grant.machine) else { return not_permitted() };
    if machine.host != estate.host {
        // It moved after the ticket was redeemed. The connection ends at any moment; what real hosts say until then, if
        // anything, is not known.
        return refuse(UNKNOWN, "vixsim: the machine runs on another host");
    }
    let Some(file) = stores::parse(path).and_then(|(store, path)| world.stores.file(store, path)) else {
        return missing();
    };
    let of_right = |key: i32| match grant.right {
        Right::Files => true,
        Right::Disk { key: permitted, .. } => key == permitted,
    };
    let mut devices = machine.devices().filter(|device| of_right(device.key));
    let Some((device, at)) = devices.find_map(|device| Some((device, device.position(&file)?))) else {
        return not_permitted();
    };
    check_state(site, machine, &file)?;
    let is_leaf = machine.leaves().any(|leaf| *leaf == file);
    if write && !is_leaf {
        // What a host does when somebody wants to write below a snapshot is not known.
        return refuse(
            UNKNOWN,
            "vixsim: only the disk that the machine itself writes to can be opened for writing",
        );
    }
    let chain = device.chain.iter().skip(at).map(|link| link.file.file.clone()).collect();
    let Some(held) = site.uses.begin(chain, write) else { return locked() };
    let disk = machine.disks.iter().find(|disk| disk.device.position(&file) == Some(0));
    Ok(Plan { file, held, tracker: disk.map(|disk| disk.tracker.clone()) })
}

/// A machine that runs keeps the files that it writes to for itself, whatever the ticket (O, `nfc.md` 2 and 14).
fn check_state(site: &Site, machine: &Machine, file: &PathBuf) -> Result<(), Refusal> {
    if machine.merging {
        return locked();
    }
    if machine.powered_on && machine.leaves().any(|leaf| leaf == file) {
        return refuse(UNKNOWN, "Thin/TBZ/Sparse disks cannot be opened in multiwriter mode");
    }
    match site.uses.is_written(file) {
        // Whoever reads what another one writes gets a mixture.
        true => locked(),
        false => Ok(()),
    }
}

/// An open disk.
#[derive(Debug)]
struct Open {
    file: OpenFile,
    tracker: Option<Arc<Tracker>>,
    geometry: Geometry,
    /// When what a child keeps back was last brought to its tables.
    published: Mutex<Instant>,
    /// Ends after the file.
    _held: Use,
}

/// How long a child keeps new table entries back at most while it is written to: who kills the simulator loses no more.
const PUBLISH: Duration = Duration::from_secs(1);

impl Open {
    fn new(file: OpenFile, held: Use, tracker: Option<Arc<Tracker>>) -> Self {
        let capacity = Sectors(file.disk.capacity() / SECTOR);
        let adapter = ddb::adapter(look(&file, "adapterType").as_deref());
        let said = file
            .disk
            .links()
            .iter()
            .find_map(|link| link.with_descriptor(|d| Geometry::from_ddb(|key| d.ddb(key))));
        let geometry = said.unwrap_or_else(|| Geometry::for_capacity(capacity, adapter));
        Self { file, tracker, geometry, published: Mutex::new(Instant::now()), _held: held }
    }
}

/// A key of the data base: the leaf's, or that of the nearest parent that has it.
fn look(file: &OpenFile, key: &str) -> Option<String> {
    file.disk.links().iter().find_map(|link| link.with_descriptor(|d| d.ddb(key).map(str::to_owned)))
}

impl Volume for Open {
    fn capacity(&self) -> u64 {
        self.file.disk.capacity()
    }

    fn geometry(&self) -> (u32, u32, u32) {
        (self.geometry.cylinders, self.geometry.heads, self.geometry.sectors)
    }

    fn sector_size(&self) -> u32 {
        ddb::sector_size(look(&self.file, "logicalSectorSize").as_deref())
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.disk.read(buf, offset)
    }

    fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        let Some(tracker) = &self.tracker else {
            return Err(Error::new(ErrorKind::ReadOnly, "only leaves are written to"));
        };
        // Before the write: a change that is noted and did not happen does no harm, the other way round it would.
        tracker.wrote(offset..offset.saturating_add(buf.len() as u64));
        self.file.disk.write(buf, offset)?;
        let mut published = self.published.lock();
        if published.elapsed() < PUBLISH {
            return Ok(());
        }
        *published = Instant::now();
        drop(published);
        self.file.disk.publish()
    }

    fn allocated(&self, range: Range<u64>, tell: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        self.file.disk.allocated(range, tell)
    }

    fn key(&self, key: &str) -> Option<String> {
        look(&self.file, key)
    }

    fn flush(&self) -> Result<()> {
        self.file.disk.flush()
    }
}

#[cfg(test)]
mod tests;
