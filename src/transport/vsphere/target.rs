//! From what a caller says to the disk that is meant.

use std::path::Path;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::logging::Log;
use crate::net::vim::Hardware;
use crate::net::vim::MachineSpec;
use crate::net::vim::Moref;
use crate::net::vim::same_path;
use crate::transport::Chain;
use crate::transport::vsphere::path;
use crate::transport::vsphere::soap::Soap;
use crate::transport::vsphere::tickets::Right;
use crate::transport::vsphere::tickets::key_of;

/// What the disks of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disks {
    /// Those of the machine, by their paths.
    OfMachine,
    /// One that exists without a machine.
    FirstClass {
        /// Its id.
        id: String,
        /// The reference of its datastore.
        datastore: String,
        /// The id of a snapshot of it.
        snapshot: Option<String>,
    },
    /// Those of a folder of a datastore, by their paths relative to that.
    OfFolder {
        /// The reference of the datastore.
        datastore: String,
        /// The folder.
        folder: String,
    },
}

/// What a connection is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The machine, in one of the ways to name one.
    pub machine: Option<String>,
    /// A snapshot of the machine.
    pub snapshot: Option<String>,
    /// Which disks.
    pub disks: Disks,
}

/// A disk that was found.
#[derive(Debug)]
pub struct Target {
    /// Its path on its datastore.
    pub path: String,
    /// The machine whose disk it is. Hosts open disks of machines only.
    pub machine: Option<Moref>,
    /// What has to be asked for.
    pub right: Right,
    /// Its chain, if it had to be looked at.
    pub chain: Option<Chain>,
}

impl Subject {
    /// The machine. `InvalidArgument`: none is named.
    pub fn find_machine(&self, soap: &dyn Soap) -> Result<Moref> {
        let Some(text) = self.machine.as_deref().filter(|text| !text.trim().is_empty()) else {
            let what = "no virtual machine is named (vmxSpec is empty)";
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        };
        let spec = MachineSpec::parse(text)?;
        soap.machine(&spec).context(|| format!("looking for the machine {text:?}"))
    }

    /// The datastore that is named by its reference.
    pub fn datastore(&self) -> Option<Moref> {
        match &self.disks {
            Disks::OfMachine => None,
            Disks::FirstClass { datastore, .. } | Disks::OfFolder { datastore, .. } => {
                Some(Moref::new("Datastore", datastore))
            }
        }
    }

    /// Finds the disk that is meant by a path.
    pub fn find(&self, soap: &dyn Soap, given: &Path, write: bool, log: &Log) -> Result<Target> {
        let path = self.path(soap, given)?;
        let machine = match (&self.disks, &self.machine) {
            (Disks::OfMachine, _) | (_, Some(_)) => self.find_machine(soap)?,
            _ => return Ok(Target { path, machine: None, right: Right::Files, chain: None }),
        };
        let snapshot = self.snapshot.as_deref().and_then(Moref::snapshot);
        let hardware = |snapshot: Option<&Moref>| {
            soap.hardware(&machine, snapshot, None).context(|| format!("looking at the disks of {machine}"))
        };
        // A snapshot is looked at to know that it is one, and one of this machine's.
        let then = snapshot.as_ref().map(|snapshot| hardware(Some(snapshot))).transpose()?;
        let mut chain = then.as_ref().and_then(|then| chain_of(then, &path));
        if let (Some(snapshot), None) = (&snapshot, &chain) {
            log.info(|| {
                format!("{path} is no disk of {snapshot}: the host decides whether it can be opened")
            });
        }
        let must_be_attached = matches!(self.disks, Disks::FirstClass { .. }) && chain.is_none();
        let mut right = Right::Files;
        if write || must_be_attached {
            let now = hardware(None)?;
            let key = key_of(&now, &path).map_err(|e| self.explain(e))?;
            chain = chain.or_else(|| chain_of(&now, &path));
            if write {
                right = Right::Disk { key, host: now.host };
            }
        }
        Ok(Target { path, machine: Some(machine), right, chain })
    }

    /// The path of the disk on its datastore.
    fn path(&self, soap: &dyn Soap, given: &Path) -> Result<String> {
        let of_kind = |datastore: &str| Moref::new("Datastore", datastore);
        match &self.disks {
            Disks::OfMachine => path::of_disk(given),
            Disks::FirstClass { id, datastore, snapshot } => {
                let named = given.to_str().unwrap_or_default();
                if !named.is_empty() && !named.eq_ignore_ascii_case(id) {
                    return path::of_disk(given);
                }
                let found = soap.first_class_disk(id, &of_kind(datastore), snapshot.as_deref());
                path::of_disk(Path::new(&found.context(|| format!("looking for the first class disk {id}"))?))
            }
            Disks::OfFolder { datastore, folder } => {
                let name = soap.datastore_name(&of_kind(datastore));
                path::below(
                    &name.context(|| format!("looking for the datastore {datastore}"))?,
                    folder,
                    given,
                )
            }
        }
    }

    /// A first class disk that is not attached to the machine is not there by mistake.
    fn explain(&self, error: Error) -> Error {
        match (&self.disks, error.kind()) {
            (Disks::FirstClass { id, .. }, ErrorKind::NotFound) => {
                error.with_kind(ErrorKind::NotSupported).context(format!(
                    "the first class disk {id} is not attached to the machine that vmxSpec names"
                ))
            }
            _ => error,
        }
    }
}

/// What hosts cannot be asked for.
pub fn no_machine(path: &str) -> Error {
    let text = format!(
        "{path} is named without a machine, and how a host is asked for a disk of no machine is not known publicly: name \
         the machine that it is attached to in vmxSpec, or read it with https among the transports"
    );
    Error::new(ErrorKind::NotSupported, text)
}

/// The chain from a link down.
pub fn chain_of(hardware: &Hardware, path: &str) -> Option<Chain> {
    let disk = hardware.disk(path)?;
    let at = disk.chain.iter().position(|link| same_path(link, path))?;
    let links = u32::try_from(disk.chain.len() - at).unwrap_or(u32::MAX);
    Some(Chain { links, parent: disk.chain.get(at + 1).cloned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::transport::vsphere::fakes::CHAIN;
    use crate::transport::vsphere::fakes::FakeServer;
    use crate::transport::vsphere::fakes::Lines;
    use crate::transport::vsphere::fakes::entrance;
    use crate::transport::vsphere::soap::Door;

    fn subject(machine: Option<&str>, disks: Disks) -> Subject {
        Subject { machine: machine.map(str::to_owned), snapshot: None, disks }
    }

    fn of_machine(snapshot: Option<&str>) -> Subject {
        let snapshot = snapshot.map(str::to_owned);
        Subject { snapshot, ..subject(Some("moref=vm-1"), Disks::OfMachine) }
    }

    fn first_class(machine: Option<&str>, id: &str) -> Subject {
        let datastore = "datastore-1".to_owned();
        subject(machine, Disks::FirstClass { id: id.to_owned(), datastore, snapshot: None })
    }

    fn soap(server: &Arc<FakeServer>) -> Arc<dyn Soap> {
        let way_in = entrance("vc", "a");
        server.open(&way_in.server, &way_in.login, way_in.times, &Log::none()).unwrap()
    }

    fn find(subject: &Subject, path: &str, write: bool) -> Result<(Target, Vec<String>), ErrorKind> {
        let server = FakeServer::new();
        let soap = soap(&server);
        server.asked.lock().clear();
        let target = subject.find(&*soap, Path::new(path), write, &Log::none()).map_err(|e| e.kind())?;
        let asked = server.asked.lock().clone();
        Ok((target, asked))
    }

    #[test]
    fn reading_asks_for_the_machine_and_nothing_else() {
        let (target, asked) = find(&of_machine(None), CHAIN[1], false).unwrap();
        assert_eq!((target.right, target.path.as_str(), target.chain), (Right::Files, CHAIN[1], None));
        assert_eq!(asked, ["machine Moref(\"vm-1\")"]);
    }

    #[test]
    fn writing_finds_the_device_by_any_link_of_its_chain() {
        for (i, path) in CHAIN.iter().enumerate() {
            let (target, _) = find(&of_machine(None), &path.replace("] ", "]"), true).unwrap();
            let host = Some(Moref::new("HostSystem", "esx1"));
            assert_eq!(target.right, Right::Disk { key: 2000, host });
            let parent = CHAIN.get(i + 1).map(|&name| name.to_owned());
            assert_eq!(target.chain, Some(Chain { links: 3 - u32::try_from(i).unwrap(), parent }));
        }
        assert_eq!(find(&of_machine(None), "[ds] vm/z.vmdk", true).unwrap_err(), ErrorKind::NotFound);
        let (independent, _) = find(&of_machine(None), "[ds] vm/b.vmdk", true).unwrap();
        assert!(matches!(independent.right, Right::Disk { key: 2001, .. }));
    }

    #[test]
    fn a_snapshot_is_looked_at_and_tells_the_chain() {
        let (target, asked) = find(&of_machine(Some("moref=snapshot-2")), CHAIN[1], false).unwrap();
        assert_eq!(asked[1], "hardware VirtualMachine vm-1 snapshot-2");
        assert_eq!(target.chain, Some(Chain { links: 2, parent: Some(CHAIN[2].to_owned()) }));
    }

    #[test]
    fn a_disk_that_the_snapshot_has_not_is_left_to_the_host() {
        let server = FakeServer::new();
        let (lines, log) = Lines::log();
        let subject = of_machine(Some("snapshot-2"));
        let target = subject.find(&*soap(&server), Path::new(CHAIN[0]), false, &log).unwrap();
        assert_eq!(target.path, CHAIN[0]);
        assert!(lines.has("is no disk of VirtualMachineSnapshot snapshot-2"));
    }

    #[test]
    fn without_a_machine_there_is_nothing_to_open() {
        for machine in [None, Some(""), Some(" "), Some("esx.example.org")] {
            let nobody = subject(machine, Disks::OfMachine);
            assert_eq!(find(&nobody, CHAIN[0], false).unwrap_err(), ErrorKind::InvalidArgument);
        }
        assert_eq!(find(&of_machine(None), "vm/a.vmdk", false).unwrap_err(), ErrorKind::NameInvalid);
    }

    #[test]
    fn a_first_class_disk_is_found_by_its_id_and_opened_where_it_is_attached() {
        for path in ["", "F", "f"] {
            let (target, _) = find(&first_class(Some("moref=vm-1"), "f"), path, true).unwrap();
            assert!(matches!(target.right, Right::Disk { key: 2002, .. }), "{path}");
            let (target, _) = find(&first_class(None, "f"), path, false).unwrap();
            assert_eq!((target.machine, target.path.as_str()), (None, "[ds] fcd/f.vmdk"));
        }
        let elsewhere = first_class(Some("moref=vm-1"), "other");
        assert_eq!(find(&elsewhere, "", false).unwrap_err(), ErrorKind::NotSupported);
    }

    #[test]
    fn a_disk_of_a_folder_is_named_relative_to_it() {
        let folder = Disks::OfFolder { datastore: "datastore-1".to_owned(), folder: "vm".to_owned() };
        let (target, asked) = find(&subject(Some("vm-1"), folder.clone()), "a.vmdk", true).unwrap();
        assert_eq!(
            (target.path.as_str(), asked[0].as_str()),
            ("[ds] vm/a.vmdk", "name Datastore datastore-1")
        );
        assert!(matches!(target.right, Right::Disk { key: 2000, .. }));
        assert_eq!(find(&subject(None, folder), "a.vmdk", false).unwrap().0.machine, None);
    }
}
