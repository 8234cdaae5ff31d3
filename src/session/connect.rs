//! Connections: where disks are looked for.

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::format::create::CreateSpec;
use crate::session::open_disk::{OpenDisk, OpenFlags};

/// How a caller proves who it is. Never shown: the secret parts have no `Debug`.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Credentials {
    /// None given.
    #[default]
    None,
    /// User name and password.
    User {
        /// The user.
        name: String,
        /// The password.
        password: String,
    },
    /// A session cookie of the server, with what the caller put next to it.
    Session {
        /// The cookie's value.
        cookie: String,
        /// The user, unused for the login.
        name: String,
        /// The key, unused for the login.
        key: String,
    },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credentials::None => "none",
            Credentials::User { .. } => "user and password",
            Credentials::Session { .. } => "session",
        })
    }
}

/// Which disks a connection is about, besides the paths given to open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskSpec {
    /// Those of the machine in `vmx_spec`, or local ones.
    #[default]
    Machine,
    /// A first class disk.
    FirstClassDisk {
        /// Its id.
        id: String,
        /// The datastore it lives on.
        datastore: String,
        /// A snapshot of it.
        snapshot: Option<String>,
    },
    /// The disks of a datastore folder.
    Datastore {
        /// The datastore.
        datastore: String,
        /// The folder on it.
        folder: String,
    },
}

/// Everything a caller says when connecting, owned. `None` and empty strings mean the same for all of it, but a copy is
/// given back as it came.
#[derive(Clone, Debug, Default)]
pub struct ConnectParams {
    /// Which machine: `moref=vm-12` or the path form.
    pub vmx_spec: Option<String>,
    /// Host name or address of vCenter or ESXi; empty means local disks.
    pub server: Option<String>,
    /// SHA-1 or SHA-256 of the server's certificate.
    pub thumbprint: Option<String>,
    /// Who connects.
    pub credentials: Credentials,
    /// Port of the server, 0 for the default.
    pub port: u32,
    /// Port of the host's NFC service, 0 for the default.
    pub nfc_port: u32,
    /// Which disks.
    pub disk: DiskSpec,
}

impl ConnectParams {
    /// True when this names local disks: no server and no machine.
    pub fn is_local(&self) -> bool {
        let empty = |s: &Option<String>| s.as_deref().is_none_or(str::is_empty);
        empty(&self.server) && empty(&self.vmx_spec) && self.disk == DiskSpec::Machine
    }
}

/// A place where disks are looked for.
#[derive(Debug)]
pub struct Connection {}

impl Connection {
    /// What it was made with.
    pub fn params(&self) -> &ConnectParams {
        todo!()
    }

    /// Opens a disk with its chain. Writing needs `!flags.READ_ONLY`.
    pub fn open(self: &Arc<Self>, _path: &Path, _flags: OpenFlags) -> Result<Arc<OpenDisk>> {
        todo!()
    }

    /// Makes a disk that reads as zeros. `progress` is called with 0..=100 on this thread, 100 last.
    pub fn create(&self, _path: &Path, _spec: &CreateSpec, _progress: &mut dyn FnMut(u8)) -> Result<()> {
        todo!()
    }

    /// Closes it and every disk opened on it. The first error of those closes is returned; everything is closed anyway.
    pub fn close(&self) -> Result<()> {
        todo!()
    }
}
