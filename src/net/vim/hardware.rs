//! The disks of a machine, or of one of its snapshots.

use crate::net::vim::moref::Moref;

/// Whether a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It runs: the newest link of its disks is locked.
    On,
    /// It does not run.
    Off,
    /// It is suspended.
    Suspended,
    /// The server did not say, or said something else.
    Unknown,
}

/// What a virtual disk is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adapter {
    /// IDE.
    Ide,
    /// BusLogic SCSI.
    BusLogic,
    /// LSI Logic SCSI, parallel.
    LsiLogic,
    /// LSI Logic SCSI, SAS.
    LsiLogicSas,
    /// VMware's own SCSI.
    ParaVirtual,
    /// SATA.
    Ahci,
    /// NVMe.
    Nvme,
    /// Something else, or nothing that the server told.
    Unknown,
}

/// What holds the data of a virtual disk's newest link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// A flat file or a thin one, or a redo log of the older kind.
    Flat,
    /// A redo log of the newer kind.
    SeSparse,
    /// A sparse file of a hosted product.
    Sparse,
    /// A device, mapped by a file.
    RawDevice,
    /// Something else.
    Other,
}

/// A virtual disk of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualDisk {
    /// The key of the device, unique in its machine.
    pub key: i32,
    /// `Hard disk 1`, empty when the server did not say.
    pub label: String,
    /// Names of the files as `[ds] dir/name.vmdk`, the newest link first. Empty for a disk without a file.
    pub chain: Vec<String>,
    /// Bytes.
    pub capacity: u64,
    /// `persistent`, `independent_nonpersistent` and so on.
    pub mode: String,
    /// The disk's identity, as the guest may see it.
    pub uuid: Option<String>,
    /// Tells what changed since; only where changes are tracked.
    pub change_id: Option<String>,
    /// The key of the controller that it is attached to.
    pub controller: i32,
    /// Where it is attached there.
    pub unit: Option<i32>,
    /// What kind of controller that is.
    pub adapter: Adapter,
    /// What holds the data.
    pub backing: Backing,
    /// The datastore of the newest link.
    pub datastore: Option<Moref>,
    /// The id under which it is a first class disk.
    pub first_class: Option<String>,
}

impl VirtualDisk {
    /// True when the path is that of a link of this disk. One blank behind the datastore's bracket does not matter.
    pub fn has(&self, path: &str) -> bool {
        self.chain.iter().any(|link| same_path(link, path))
    }

    /// Snapshots leave it alone.
    pub fn is_independent(&self) -> bool {
        self.mode.starts_with("independent")
    }
}

/// A machine with its disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// The machine's name.
    pub name: String,
    /// Whether the machine runs; for a snapshot too, it is the machine that is looked at.
    pub power: Power,
    /// The host that runs it, if the server says.
    pub host: Option<Moref>,
    /// The disks as they are, or as they were when the snapshot was made.
    pub disks: Vec<VirtualDisk>,
}

impl Hardware {
    /// The disk that has this path as one of its links.
    pub fn disk(&self, path: &str) -> Option<&VirtualDisk> {
        self.disks.iter().find(|disk| disk.has(path))
    }
}

/// Datastore paths are compared as the server writes them, but for one blank behind the bracket.
pub fn same_path(a: &str, b: &str) -> bool {
    parts(a) == parts(b)
}

/// `[ds]` and what follows the blank.
fn parts(path: &str) -> (&str, &str) {
    match path.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((datastore, file)) => (datastore, file.strip_prefix(' ').unwrap_or(file)),
        None => ("", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_blank_behind_the_bracket_does_not_matter() {
        assert!(same_path("[ds] a/b.vmdk", "[ds]a/b.vmdk"));
        assert!(!same_path("[ds] a/b.vmdk", "[ds]  a/b.vmdk"), "a folder may begin with a blank");
        assert!(!same_path("[ds] a/b.vmdk", "[dt] a/b.vmdk"));
        assert!(!same_path("[ds] a/b.vmdk", "[ds] A/b.vmdk"));
        assert!(!same_path("[ds] a/b.vmdk", "a/b.vmdk"));
    }
}
