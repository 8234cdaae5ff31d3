//! What a simulator is started with.

use std::fmt;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Log;
use crate::secret::Secret;
use crate::sim::certificate::CertificateFiles;
use crate::sim::personality::Release;

/// How a simulator is started. The default is a vCenter 8.0 without machines on ports that the system picks, on loopback.
#[derive(Clone)]
pub struct Options {
    /// Where HTTPS is served; port 0 is any.
    pub listen: SocketAddr,
    /// Where authd and NFC of the first host are served; port 0 is any. Other hosts have the same address and any port.
    pub nfc: SocketAddr,
    /// The one user.
    pub user: String,
    /// The user's password.
    pub password: Secret,
    /// A bare host instead of a vCenter.
    pub esxi: bool,
    /// How many hosts the vCenter has. A bare host is one.
    pub hosts: usize,
    /// Which release it is.
    pub release: Release,
    /// Machines.
    pub machines: Vec<MachineOptions>,
    /// Disks that need no machine.
    pub first_class: Vec<FirstClassOptions>,
    /// Folders that show as datastores. The folder of a disk outside of them becomes a directory of a datastore `datastore1`.
    pub datastores: Vec<DatastoreOptions>,
    /// Settings of the NFC server, `NAME=VALUE`.
    pub nfc_settings: Vec<String>,
    /// Rules of the fault language.
    pub faults: Vec<String>,
    /// The certificate; without, a self-signed one is made.
    pub certificate: Option<CertificateFiles>,
    /// How long a session lives without a call.
    pub session_life: Duration,
    /// How long a ticket can be used.
    pub ticket_life: Duration,
    /// How names stand in the queries of `/folder`.
    pub folder_encoding: FolderEncoding,
    /// The most areas that one answer about changed areas has.
    pub most_areas: usize,
    /// Where lines go. They never have passwords, cookies or tickets in them.
    pub log: Log,
}

/// How often `dcPath` and `dsName` are percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FolderEncoding {
    /// Twice by clients of a vCenter (K, `vsphere.md` 9), once by those of a bare host (I).
    #[default]
    AsReal,
    /// Once.
    Once,
    /// Twice.
    Twice,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineOptions {
    /// Its name.
    pub name: String,
    /// The disks: of a chain the leaf, whose parents become snapshots.
    pub disks: Vec<PathBuf>,
    /// It runs from the start.
    pub powered_on: bool,
}

/// One first class disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstClassOptions {
    /// Its name.
    pub name: String,
    /// The disk: of a chain the leaf, whose parents become snapshots of it.
    pub disk: PathBuf,
}

/// One datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatastoreOptions {
    /// Its name.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: any,
            nfc: any,
            user: "administrator@vsphere.local".to_owned(),
            password: Secret::from("vixsim".to_owned()),
            esxi: false,
            hosts: 1,
            release: Release::default(),
            machines: Vec::new(),
            first_class: Vec::new(),
            datastores: Vec::new(),
            nfc_settings: Vec::new(),
            faults: Vec::new(),
            certificate: None,
            session_life: Duration::from_secs(30 * 60),
            ticket_life: Duration::from_secs(120),
            folder_encoding: FolderEncoding::default(),
            most_areas: 2000,
            log: Log::none(),
        }
    }
}

impl Options {
    /// Another password.
    pub fn set_password(&mut self, password: String) {
        self.password = Secret::from(password);
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("nfc", &self.nfc)
            .field("user", &self.user)
            .field("esxi", &self.esxi)
            .field("hosts", &self.hosts)
            .field("release", &self.release)
            .field("machines", &self.machines)
            .field("first_class", &self.first_class)
            .field("datastores", &self.datastores)
            .finish_non_exhaustive()
    }
}

impl MachineOptions {
    /// `NAME=DISK[,DISK...]`.
    pub fn parse(text: &str) -> Result<MachineOptions> {
        let (name, disks) = split(text, "NAME=DISK[,DISK...]")?;
        let disks: Vec<PathBuf> =
            disks.split(',').filter(|disk| !disk.is_empty()).map(PathBuf::from).collect();
        if name.is_empty() || name.contains('/') {
            return Err(bad(text, "a machine needs a name without slashes"));
        }
        Ok(MachineOptions { name: name.to_owned(), disks, powered_on: false })
    }
}

impl FirstClassOptions {
    /// `NAME=DISK`.
    pub fn parse(text: &str) -> Result<FirstClassOptions> {
        let (name, disk) = split(text, "NAME=DISK")?;
        if name.is_empty() || disk.is_empty() {
            return Err(bad(text, "a first class disk needs a name and a disk"));
        }
        Ok(FirstClassOptions { name: name.to_owned(), disk: PathBuf::from(disk) })
    }
}

impl DatastoreOptions {
    /// `NAME=DIR`.
    pub fn parse(text: &str) -> Result<DatastoreOptions> {
        let (name, folder) = split(text, "NAME=DIR")?;
        if name.is_empty() || name.contains(['[', ']', '/']) {
            return Err(bad(text, "a datastore needs a name without slashes and brackets"));
        }
        Ok(DatastoreOptions { name: name.to_owned(), folder: PathBuf::from(folder) })
    }
}

fn split<'a>(text: &'a str, form: &str) -> Result<(&'a str, &'a str)> {
    text.split_once('=').ok_or_else(|| bad(text, &format!("expected {form}")))
}

fn bad(text: &str, why: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{text:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_have_a_name_and_disks() {
        let machine = MachineOptions::parse("vm one=a/b.vmdk,c.vmdk").unwrap();
        assert_eq!((machine.name.as_str(), machine.powered_on), ("vm one", false));
        assert_eq!(machine.disks, [PathBuf::from("a/b.vmdk"), PathBuf::from("c.vmdk")]);
        assert!(MachineOptions::parse("vm=").unwrap().disks.is_empty());
        for odd in ["", "vm", "=a.vmdk", "a/b=c.vmdk"] {
            assert_eq!(MachineOptions::parse(odd).unwrap_err().kind(), ErrorKind::InvalidArgument, "{odd}");
        }
    }

    #[test]
    fn first_class_disks_have_a_name_and_one_disk() {
        let disk = FirstClassOptions::parse("f=a/b.vmdk").unwrap();
        assert_eq!((disk.name.as_str(), disk.disk), ("f", PathBuf::from("a/b.vmdk")));
        for odd in ["", "f", "f=", "=a.vmdk"] {
            assert_eq!(
                FirstClassOptions::parse(odd).unwrap_err().kind(),
                ErrorKind::InvalidArgument,
                "{odd}"
            );
        }
    }

    #[test]
    fn no_password_is_printed() {
        let options = Options { password: Secret::from("canary".to_owned()), ..Options::default() };
        assert!(!format!("{options:?}").contains("canary"));
    }
}
