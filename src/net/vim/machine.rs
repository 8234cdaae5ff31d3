//! Finding a machine, and what it has.

use std::time::Instant;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::vim::Hardware;
use crate::net::vim::MachineSpec;
use crate::net::vim::Moref;
use crate::net::vim::Power;
use crate::net::vim::Session;
use crate::net::vim::VirtualDisk;
use crate::net::vim::call::Call;
use crate::net::vim::devices;
use crate::net::vim::spec::spellings;
use crate::net::vim::xml;
use crate::net::vim::xml::Node;

const DEVICES: &str = "config.hardware.device";

/// The one datacenter of a host without a vCenter.
const ONLY_DATACENTER: &str = "ha-datacenter";

/// More snapshots than that are not named in an error.
const MOST_NAMED: usize = 8;

impl Session {
    /// The machine that is meant: `MachineNotFound` where the server has none like that. A reference is taken as it is;
    /// whether there is such a machine shows when something is asked of it.
    pub fn machine(&self, spec: &MachineSpec) -> Result<Moref> {
        let found = match spec {
            MachineSpec::Moref(id) => return Ok(Moref::machine(id)),
            MachineSpec::Uuid(uuid) => self.by_uuid(uuid),
            MachineSpec::Inventory(path) => self.by_inventory(path),
            MachineSpec::File { vmx, datacenter, datastore } => self.by_file(vmx, datacenter, datastore),
        };
        let meant = || format!("looking for the machine {spec:?}");
        match found.context(meant)? {
            Some(found) if found.kind == "VirtualMachine" => Ok(found),
            Some(_) => Err(Error::new(ErrorKind::MachineNotFound, "what is there is no virtual machine")),
            None => Err(Error::new(ErrorKind::MachineNotFound, "the server has no such virtual machine")),
        }
        .context(meant)
    }

    /// Of the instance first, which nothing else has; copies of a machine may share that of the firmware.
    fn by_uuid(&self, uuid: &str) -> Result<Option<Moref>> {
        for of_instance in ["true", "false"] {
            let call = self.search("FindByUuid")?.text("uuid", uuid).text("vmSearch", "true");
            let found = self.get(call.text("instanceUuid", of_instance), &mut found)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn by_inventory(&self, path: &str) -> Result<Option<Moref>> {
        for path in spellings(path) {
            let call = self.search("FindByInventoryPath")?.text("inventoryPath", &path);
            let found = self.get(call, &mut found)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Values may be encoded or not, and a name may look encoded: each spelling is tried, the given one first.
    fn by_file(&self, vmx: &str, datacenter: &str, datastore: &str) -> Result<Option<Moref>> {
        let datacenter = match datacenter.trim_matches('/') {
            "" if self.about().is_vcenter() => {
                let what = "a machine that is named by its file needs its datacenter (dcPath) on a vCenter";
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
            "" => ONLY_DATACENTER,
            path => path,
        };
        let Some(datacenter) = self.by_inventory(datacenter)?.filter(|found| found.kind == "Datacenter")
        else {
            let what = "the server has no such datacenter";
            return Err(Error::new(ErrorKind::MachineNotFound, what));
        };
        for file in spellings(vmx) {
            for store in spellings(datastore) {
                let path = if file.starts_with('[') { file.clone() } else { format!("[{store}] {file}") };
                let call = self.search("FindByDatastorePath")?.moref("datacenter", &datacenter);
                let found = self.get(call.text("path", &path), &mut found)?;
                if found.is_some() {
                    return Ok(found);
                }
                if file.starts_with('[') {
                    break;
                }
            }
        }
        Ok(None)
    }

    fn search(&self, method: &'static str) -> Result<Call> {
        match &self.content.search_index {
            Some(index) => Ok(Call::new(method, index)),
            None => Err(Error::new(ErrorKind::NotSupported, "the server cannot look for machines")),
        }
    }

    /// The machine's disks, as they are or as they were when the snapshot was made. A snapshot that is not one of the
    /// machine's is `ObjectNotFound`.
    pub fn hardware(&self, machine: &Moref, snapshot: Option<&Moref>) -> Result<Hardware> {
        self.hardware_by(machine, snapshot, None)
    }

    /// The same by `until`, if that is earlier than the usual time.
    pub fn hardware_by(
        &self,
        machine: &Moref,
        snapshot: Option<&Moref>,
        until: Option<Instant>,
    ) -> Result<Hardware> {
        self.look_at(machine, snapshot, until).context(|| match snapshot {
            Some(snapshot) => format!("disks of {machine} at {snapshot}"),
            None => format!("disks of {machine}"),
        })
    }

    fn look_at(&self, machine: &Moref, snapshot: Option<&Moref>, until: Option<Instant>) -> Result<Hardware> {
        let mut hardware =
            Hardware { name: String::new(), power: Power::Unknown, host: None, disks: Vec::new() };
        let mut paths = vec!["name", "runtime.powerState", "runtime.host"];
        paths.push(if snapshot.is_some() { "snapshot.rootSnapshotList" } else { DEVICES });
        let (mut own, mut snapshots) = (None, Vec::new());
        let withheld = self.properties_by(machine, &paths, until, &mut |path, value| {
            match path {
                "name" => hardware.name = xml::text(value),
                "runtime.powerState" => hardware.power = power(&xml::text(value)),
                "runtime.host" => hardware.host = Some(xml::moref(value)?),
                "snapshot.rootSnapshotList" => snapshots = all_snapshots(value),
                DEVICES => own = Some(devices::disks(value)?),
                _ => {}
            }
            Ok(())
        })?;
        hardware.disks = match snapshot {
            None => own.ok_or_else(|| self.missing(&withheld, DEVICES))?,
            Some(snapshot) if snapshots.contains(&snapshot.id) => self.disks_at(snapshot, until)?,
            Some(snapshot) => return Err(not_its_snapshot(snapshot, &snapshots)),
        };
        Ok(hardware)
    }

    fn disks_at(&self, snapshot: &Moref, until: Option<Instant>) -> Result<Vec<VirtualDisk>> {
        let mut disks = None;
        let withheld = self.properties_by(snapshot, &[DEVICES], until, &mut |path, value| {
            if path == DEVICES {
                disks = Some(devices::disks(value)?);
            }
            Ok(())
        })?;
        disks.ok_or_else(|| self.missing(&withheld, DEVICES))
    }
}

/// The reference in an answer of a search, if it found something.
fn found(response: Node<'_>) -> Result<Option<Moref>> {
    xml::optional_moref(response, "returnval")
}

fn power(state: &str) -> Power {
    match state {
        "poweredOn" => Power::On,
        "poweredOff" => Power::Off,
        "suspended" => Power::Suspended,
        _ => Power::Unknown,
    }
}

/// The ids in a tree of snapshots, which may be deep.
fn all_snapshots(tree: Node<'_>) -> Vec<String> {
    let is_snapshot = |node: &Node<'_>| node.has_tag_name((xml::VIM, "snapshot"));
    tree.descendants()
        .filter(is_snapshot)
        .filter_map(|node| xml::moref(node).ok())
        .map(|found| found.id)
        .collect()
}

fn not_its_snapshot(snapshot: &Moref, its_own: &[String]) -> Error {
    let named = its_own.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let its_own = match its_own.len() {
        0 => "it has none".to_owned(),
        1..=MOST_NAMED => format!("it has {named}"),
        count => format!("it has {named} and {} more", count.saturating_sub(MOST_NAMED)),
    };
    Error::new(ErrorKind::ObjectNotFound, format!("{snapshot} is not a snapshot of the machine: {its_own}"))
}
