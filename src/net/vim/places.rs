//! Where things are: datacenters, datastores, first class disks.

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::vim::Moref;
use crate::net::vim::Session;
use crate::net::vim::call::Call;
use crate::net::vim::xml;
use crate::net::vim::xml::Node;

/// Folders above an object.
const MOST_FOLDERS: usize = 64;

impl Session {
    /// Path in the inventory of the datacenter that an object is in, folders included, as the server writes the names:
    /// with `%2f` for a slash in one.
    pub fn datacenter_path(&self, inside: &Moref) -> Result<String> {
        self.climb(inside).context(|| format!("the datacenter of {inside}"))
    }

    fn climb(&self, inside: &Moref) -> Result<String> {
        let mut names: Vec<String> = Vec::new();
        let (mut at, mut is_above) = (inside.clone(), false);
        for _ in 0..MOST_FOLDERS {
            let found = self.above(&at)?;
            is_above |= at.kind == "Datacenter";
            // The folder above all has a name too, but it is not part of paths.
            if is_above && (found.parent.is_some() || at.kind == "Datacenter") {
                names.push(found.name);
            }
            at = match found.parent {
                Some(parent) => parent,
                None if is_above => {
                    names.reverse();
                    return Ok(names.join("/"));
                }
                None => return Err(Error::new(ErrorKind::ObjectNotFound, "it is in no datacenter")),
            };
        }
        Err(xml::broken("folders that do not end"))
    }

    fn above(&self, object: &Moref) -> Result<Above> {
        let is_machine = object.kind == "VirtualMachine";
        let paths: &[&str] = if is_machine { &["name", "parent", "parentVApp"] } else { &["name", "parent"] };
        let (mut name, mut parent) = (None, None);
        let withheld = self.properties(object, paths, &mut |path, value| {
            match path {
                "name" => name = Some(xml::text(value)),
                // A machine in a vApp has no folder, but the vApp has a place.
                "parent" | "parentVApp" => parent = Some(xml::moref(value)?),
                _ => {}
            }
            Ok(())
        })?;
        let name = name.ok_or_else(|| self.missing(&withheld, "name"))?;
        Ok(Above { name, parent })
    }

    /// The name that stands in the brackets of paths.
    pub fn datastore_name(&self, datastore: &Moref) -> Result<String> {
        let mut name = None;
        let withheld = self
            .properties(datastore, &["summary.name"], &mut |_, value| {
                name = Some(xml::text(value));
                Ok(())
            })
            .context(|| format!("the name of {datastore}"))?;
        name.filter(|name| !name.is_empty()).ok_or_else(|| self.missing(&withheld, "summary.name"))
    }

    /// The path of a first class disk, or of one of its snapshots.
    pub fn first_class_disk(&self, id: &str, datastore: &Moref, snapshot: Option<&str>) -> Result<String> {
        let Some(manager) = &self.content.storage_objects else {
            return Err(Error::new(ErrorKind::NotSupported, "the server knows no first class disks"));
        };
        let of_vcenter = self.about().is_vcenter();
        let method = match (of_vcenter, snapshot) {
            (true, None) => "RetrieveVStorageObject",
            (false, None) => "HostRetrieveVStorageObject",
            (true, Some(_)) => "RetrieveSnapshotDetails",
            (false, Some(_)) => {
                let what = "a host without a vCenter does not tell where snapshots of first class disks are";
                return Err(Error::new(ErrorKind::NotSupported, what));
            }
        };
        let mut call = Call::new(method, manager).inside("id", |inside| inside.text("id", id));
        call = call.moref("datastore", datastore);
        if let Some(snapshot) = snapshot {
            call = call.inside("snapshotId", |inside| inside.text("id", snapshot));
        }
        let place: &[&str] = if snapshot.is_some() { &["path"] } else { &["config", "backing", "filePath"] };
        self.get(call, &mut |response| path_at(response, place))
            .context(|| format!("the first class disk {id:?} on {datastore}"))
    }
}

/// An object's name and what is above it.
struct Above {
    name: String,
    parent: Option<Moref>,
}

fn path_at(response: Node<'_>, place: &[&'static str]) -> Result<String> {
    let found = xml::path(xml::need(response, "returnval")?, place)?.map(xml::text);
    found.filter(|path| !path.is_empty()).ok_or_else(|| xml::broken("a first class disk without a file"))
}
