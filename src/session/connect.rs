//! Connections: where disks are looked for.

use std::path::Path;
use std::sync::Arc;
use std::sync::Weak;

use parking_lot::Mutex;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::create::CreateSpec;
use crate::session::close::close_all;
use crate::session::create::create_local;
use crate::session::library::Library;
use crate::session::open_disk::OpenDisk;
use crate::session::open_disk::OpenFlags;

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
pub struct Connection {
    library: Arc<Library>,
    params: ConnectParams,
    read_only: bool,
    snapshot: Option<String>,
    modes: Option<String>,
    disks: Mutex<Disks>,
}

/// What the lock of a connection protects.
#[derive(Debug, Default)]
struct Disks {
    open: Vec<Weak<OpenDisk>>,
    closed: bool,
}

impl Connection {
    pub(super) fn new(
        library: Arc<Library>,
        params: ConnectParams,
        read_only: bool,
        snapshot: Option<String>,
        modes: Option<String>,
    ) -> Self {
        Self { library, params, read_only, snapshot, modes, disks: Mutex::default() }
    }

    /// The library it belongs to.
    pub(super) fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// What it was made with.
    pub fn params(&self) -> &ConnectParams {
        &self.params
    }

    /// Opens a disk with its chain. Writing needs `!flags.READ_ONLY`. On a read-only connection a local disk that cannot be
    /// written to is opened read-only instead.
    pub fn open(self: &Arc<Self>, path: &Path, flags: OpenFlags) -> Result<Arc<OpenDisk>> {
        self.check_usable()?;
        check_compression(flags)?;
        let opened = match OpenDisk::open_local(&self.library, path, flags) {
            Err(e)
                if self.read_only
                    && !flags.contains(OpenFlags::READ_ONLY)
                    && matches!(e.kind(), ErrorKind::AccessDenied | ErrorKind::ReadOnly) =>
            {
                self.library.log().info(|| format!("{} is opened read-only: {e}", path.display()));
                OpenDisk::open_local(&self.library, path, flags | OpenFlags::READ_ONLY)
            }
            result => result,
        }?;
        let disk = Arc::new(opened);
        disk.set_home(self);
        self.adopt(&disk)?;
        Ok(disk)
    }

    /// Takes charge of an open disk: it is closed with the connection.
    pub(super) fn adopt(&self, disk: &Arc<OpenDisk>) -> Result<()> {
        disk.watch_if_needed();
        let mut disks = self.disks.lock();
        if disks.closed {
            drop(disks);
            disk.close()?;
            return Err(Error::new(ErrorKind::InvalidConnection, "the connection was closed meanwhile"));
        }
        disks.open.retain(|known| known.strong_count() > 0);
        disks.open.push(Arc::downgrade(disk));
        Ok(())
    }

    /// Makes a disk that reads as zeros. `progress` is called with 0..=100 on this thread, 100 last.
    pub fn create(&self, path: &Path, spec: &CreateSpec, progress: &mut dyn FnMut(u8)) -> Result<()> {
        self.check_usable()?;
        create_local(path, spec, &self.library, progress).context(|| format!("creating {}", path.display()))
    }

    /// This build reaches local disks only.
    pub(super) fn check_usable(&self) -> Result<()> {
        if self.disks.lock().closed || self.library.is_stopped() {
            return Err(Error::new(ErrorKind::InvalidConnection, "the connection is closed"));
        }
        if self.params.is_local() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::NotSupported,
            format!(
                "server {:?} (snapshot {:?}, transports {:?}): this build has no remote transport, only {:?}",
                self.params.server.as_deref().unwrap_or_default(),
                self.snapshot.as_deref().unwrap_or_default(),
                self.modes.as_deref().unwrap_or_default(),
                Library::transport_modes()
            ),
        ))
    }

    /// Closes it and every disk opened on it. The first error of those closes is returned; everything is closed anyway.
    pub fn close(&self) -> Result<()> {
        close_all(&self.retire())
    }

    /// Ends it and gives the disks that are left to be closed.
    pub(super) fn retire(&self) -> Vec<Arc<OpenDisk>> {
        let mut disks = self.disks.lock();
        disks.closed = true;
        std::mem::take(&mut disks.open).iter().filter_map(Weak::upgrade).collect()
    }
}

/// At most one compression may be asked for; on local disks it has no effect.
fn check_compression(flags: OpenFlags) -> Result<()> {
    let asked =
        flags & (OpenFlags::COMPRESSION_ZLIB | OpenFlags::COMPRESSION_FASTLZ | OpenFlags::COMPRESSION_SKIPZ);
    if asked.bits().count_ones() > 1 {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("more than one compression: {:#x}", asked.bits()),
        ));
    }
    Ok(())
}
