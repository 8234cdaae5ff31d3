//! Connections: where disks are looked for.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::create::CreateSpec;
use crate::secret::Secret;
use crate::session::close::close_all;
use crate::session::create::create_local;
use crate::session::library::Library;
use crate::session::open_disk::OpenDisk;
use crate::session::open_disk::OpenFlags;
use crate::session::settings::nbd_options;
use crate::session::settings::tls_settings;
use crate::session::vsphere::VspherePlace;
use crate::session::vsphere::nameless;
use crate::transport::nbd_server::How;
use crate::transport::nbd_server::NbdServer;
use crate::transport::vsphere::sessions::Lease;

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
        password: Secret,
    },
    /// A session cookie of the server, with what the caller put next to it.
    Session {
        /// The cookie's value.
        cookie: Secret,
        /// The user, unused for the login.
        name: String,
        /// The key, unused for the login.
        key: Secret,
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

    /// The NBD server that is named, if it is one. Machine, disk and credentials mean nothing to such a server: programs
    /// that insist on them may say what they like.
    pub fn nbd_server(&self) -> Result<Option<NbdServer>> {
        let server = self.server.as_deref().unwrap_or_default();
        NbdServer::named(server, self.port, self.thumbprint.as_deref())
    }
}

/// A place where disks are looked for.
#[derive(Debug)]
pub struct Connection {
    library: Arc<Library>,
    params: ConnectParams,
    read_only: bool,
    modes: Option<String>,
    place: Place,
    disks: Mutex<Disks>,
}

/// Where the disks of a connection are.
#[derive(Debug)]
enum Place {
    /// On this machine, but for those whose path is the URI of an export.
    Here,
    /// With an NBD server.
    Nbd(NbdServer),
    /// With a vCenter or a host.
    Vsphere(Box<VspherePlace>),
    /// With a server that has no name.
    Nowhere,
}

/// Where a path leads.
enum Lead<'a> {
    /// To a file of this machine.
    Here,
    /// To an NBD server; what of the path is for that server.
    Nbd(Cow<'a, NbdServer>, &'a Path),
    /// To a disk of vSphere.
    Vsphere(&'a VspherePlace),
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
    ) -> Result<Self> {
        let place = match params.nbd_server()? {
            Some(server) => Place::Nbd(server),
            None if params.is_local() => Place::Here,
            None => match VspherePlace::new(&library, &params, snapshot)? {
                Some(place) => Place::Vsphere(Box::new(place)),
                None => Place::Nowhere,
            },
        };
        Ok(Self { library, params, read_only, modes, place, disks: Mutex::default() })
    }

    /// The library it belongs to.
    pub(super) fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// What it was made with.
    pub fn params(&self) -> &ConnectParams {
        &self.params
    }

    /// True when an empty path names a disk: a first class disk has a name already, an NBD server has a default export.
    pub fn has_nameless_disk(&self) -> bool {
        matches!(self.place, Place::Nbd(_)) || matches!(self.params.disk, DiskSpec::FirstClassDisk { .. })
    }

    /// Opens a disk with its chain. Writing needs `!flags.READ_ONLY`. On a read-only connection a local disk that cannot be
    /// written to is opened read-only instead, and a remote one in any case.
    pub fn open(self: &Arc<Self>, path: &Path, flags: OpenFlags) -> Result<Arc<OpenDisk>> {
        check_compression(flags)?;
        let flags =
            if self.read_only && self.is_remote(path)? { flags | OpenFlags::READ_ONLY } else { flags };
        let opened = match self.open_own(path, flags) {
            Err(e)
                if self.read_only
                    && !flags.contains(OpenFlags::READ_ONLY)
                    && matches!(e.kind(), ErrorKind::AccessDenied | ErrorKind::ReadOnly) =>
            {
                self.library.log().info(|| format!("{} is opened read-only: {e}", path.display()));
                self.open_own(path, flags | OpenFlags::READ_ONLY)
            }
            result => result,
        }?;
        let disk = Arc::new(opened);
        disk.set_home(self);
        self.adopt(&disk)?;
        Ok(disk)
    }

    /// Opens a disk that the caller closes.
    pub(super) fn open_own(&self, path: &Path, flags: OpenFlags) -> Result<OpenDisk> {
        let write = !flags.contains(OpenFlags::READ_ONLY);
        let config = self.library.config();
        let remote = match self.lead(path)? {
            Lead::Here => return OpenDisk::open_local(&self.library, path, flags),
            Lead::Nbd(server, export) => {
                let (options, tls) = (nbd_options(&config, write), tls_settings(&config));
                let how = How { modes: self.modes.clone(), options, tls };
                server.open(export, &how, self.library.log())?
            }
            Lead::Vsphere(place) => place.open(&self.library, path, self.modes.clone(), flags)?,
        };
        Ok(OpenDisk::of_peer(&self.library, remote, flags))
    }

    /// Where a path leads.
    fn lead<'a>(&'a self, path: &'a Path) -> Result<Lead<'a>> {
        self.check_usable()?;
        match &self.place {
            Place::Nbd(server) => return Ok(Lead::Nbd(Cow::Borrowed(server), path)),
            Place::Vsphere(place) => return Ok(Lead::Vsphere(place)),
            Place::Here | Place::Nowhere => {}
        }
        let server = NbdServer::of_path(path, self.params.thumbprint.as_deref())?;
        Ok(server.map_or(Lead::Here, |server| Lead::Nbd(Cow::Owned(server), Path::new(""))))
    }

    /// True when a path leads to a server.
    pub(super) fn is_remote(&self, path: &Path) -> Result<bool> {
        self.lead(path).map(|lead| !matches!(lead, Lead::Here))
    }

    /// Refuses a path that does not lead to a file of this machine: what verbs need that work on files.
    pub(super) fn check_local(&self, path: &Path) -> Result<()> {
        match self.is_remote(path)? {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::NotSupportedRemote,
                format!("{} is on a server, and this works on files of this machine only", path.display()),
            )),
        }
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
        self.check_local(path)?;
        create_local(path, spec, &self.library, progress).context(|| format!("creating {}", path.display()))
    }

    /// Refuses a connection that is closed, or that leads where this build cannot go.
    fn check_usable(&self) -> Result<()> {
        if self.disks.lock().closed || self.library.is_stopped() {
            return Err(Error::new(ErrorKind::InvalidConnection, "the connection is closed"));
        }
        match &self.place {
            Place::Nowhere => Err(nameless()),
            _ => Ok(()),
        }
    }

    /// Closes it and every disk opened on it. The first error of those closes is returned; everything is closed anyway.
    pub fn close(&self) -> Result<()> {
        let until = Instant::now() + PARTING;
        let closed = close_all(&self.retire());
        if let Some(lease) = self.part() {
            lease.end_by(until);
        }
        closed
    }

    /// Gives the share of a session that it held, once.
    pub(super) fn part(&self) -> Option<Lease> {
        match &self.place {
            Place::Vsphere(place) => place.part(),
            _ => None,
        }
    }

    /// Ends it and gives the disks that are left to be closed.
    pub(super) fn retire(&self) -> Vec<Arc<OpenDisk>> {
        let mut disks = self.disks.lock();
        disks.closed = true;
        std::mem::take(&mut disks.open).iter().filter_map(Weak::upgrade).collect()
    }
}

/// How long an end may take with what comes after its disks are closed.
pub(super) const PARTING: Duration = Duration::from_millis(1900);

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
