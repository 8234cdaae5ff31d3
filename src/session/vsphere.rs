//! Connections to vSphere, and the machines that programs hold while they are backed up.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use crate::config::Key;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::vim::Login;
use crate::net::vim::Moref;
use crate::net::vim::Server;
use crate::session::connect::ConnectParams;
use crate::session::connect::Credentials;
use crate::session::connect::DiskSpec;
use crate::session::connect::PARTING;
use crate::session::library::Library;
use crate::session::open_disk::OpenFlags;
use crate::session::settings::nfc_settings;
use crate::session::settings::tls_settings;
use crate::session::settings::vim_times;
use crate::transport::Remote;
use crate::transport::vsphere::How;
use crate::transport::vsphere::https_way::Caches;
use crate::transport::vsphere::name::ServerName;
use crate::transport::vsphere::sessions::Entrance;
use crate::transport::vsphere::sessions::Lease;
use crate::transport::vsphere::soap::Soap;
use crate::transport::vsphere::target::Disks;
use crate::transport::vsphere::target::Subject;

/// Where the disks of a connection to vSphere are.
#[derive(Debug)]
pub(super) struct VspherePlace {
    subject: Subject,
    nfc_port: Option<u16>,
    /// Given back when the connection is closed.
    lease: Mutex<Option<Lease>>,
}

/// Characters of the longest identity.
const LONGEST_IDENTITY: usize = 50;

impl VspherePlace {
    /// The place that parameters name, `None` when they name no server. Nothing is sent.
    pub fn new(library: &Library, params: &ConnectParams, snapshot: Option<String>) -> Result<Option<Self>> {
        let Some(entrance) = entrance(library, params)? else { return Ok(None) };
        Ok(Some(VspherePlace {
            subject: subject(params, snapshot),
            nfc_port: u16::try_from(params.nfc_port).ok().filter(|port| *port > 0),
            lease: Mutex::new(Some(library.vsphere().sessions().lease(entrance))),
        }))
    }

    /// Opens a disk.
    pub fn open(
        &self,
        library: &Library,
        path: &Path,
        modes: Option<String>,
        flags: OpenFlags,
    ) -> Result<Remote> {
        if flags.contains(OpenFlags::SINGLE_LINK) {
            let what = "hosts open the whole chain of a disk, not a single link";
            return Err(Error::new(ErrorKind::NotSupported, what));
        }
        let session = self.lease.lock().as_ref().map(|lease| Arc::clone(lease.session()));
        let Some(session) = session else {
            return Err(Error::new(ErrorKind::InvalidConnection, "the connection is closed"));
        };
        let config = library.config();
        let how = How {
            modes,
            write: !flags.contains(OpenFlags::READ_ONLY),
            nfc_port: self.nfc_port,
            settings: nfc_settings(&config, flags),
            caches: Caches { tables: config.grain_table_cache(), grains: config.inflated_grain_cache() },
        };
        library.vsphere().open(&session, &self.subject, path, &how)
    }

    /// Gives the share of the session back, once.
    pub fn part(&self) -> Option<Lease> {
        self.lease.lock().take()
    }
}

/// A connection that is remote and names no server.
pub(super) fn nameless() -> Error {
    let what = "a virtual machine is named, and no server that would have it (serverName is empty)";
    Error::new(ErrorKind::InvalidArgument, what)
}

fn subject(params: &ConnectParams, snapshot: Option<String>) -> Subject {
    let named = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let disks = match params.disk.clone() {
        DiskSpec::Machine => Disks::OfMachine,
        DiskSpec::FirstClassDisk { id, datastore, snapshot } => Disks::FirstClass { id, datastore, snapshot },
        DiskSpec::Datastore { datastore, folder } => Disks::OfFolder { datastore, folder },
    };
    Subject { machine: named(params.vmx_spec.clone()), snapshot: named(snapshot), disks }
}

/// Where and how to log in. `None`: no server is named.
fn entrance(library: &Library, params: &ConnectParams) -> Result<Option<Entrance>> {
    let text = params.server.as_deref().unwrap_or_default();
    let Some(ServerName { host, port }) = ServerName::parse(text, params.port)? else { return Ok(None) };
    let login = match params.credentials.clone() {
        Credentials::User { name, password } => Login::User { name, password },
        Credentials::Session { cookie, .. } => Login::Cookie(cookie),
        Credentials::None => {
            let what = format!("{host} wants a login, and no credentials were given");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
    };
    let config = library.config();
    let thumbprint = params.thumbprint.clone().filter(|text| !text.trim().is_empty());
    let mut tls = tls_settings(&config);
    tls.thumbprint = thumbprint;
    Ok(Some(Entrance {
        server: Server { host, port, tls },
        login,
        times: vim_times(&config),
        keep_alive: Duration::from_secs(config.number(Key::KeepAlive)),
    }))
}

/// What is done to a machine around a backup.
impl Library {
    /// Keeps the machine that the parameters name from being moved by its vCenter, in the name of `identity`, until
    /// [`Library::release_machine`]. `OperationDisabled` where somebody else does that already. Nothing to do for local disks
    /// and NBD servers.
    pub fn hold_machine(&self, params: &ConnectParams, identity: &str) -> Result<()> {
        self.on_machine(params, identity, &|soap, machine| soap.disable_relocation(machine, identity))
    }

    /// Takes [`Library::hold_machine`] back; also what a program that crashed left behind.
    pub fn release_machine(&self, params: &ConnectParams, identity: &str) -> Result<()> {
        self.on_machine(params, identity, &|soap, machine| soap.enable_relocation(machine, identity))
    }

    fn on_machine(
        &self,
        params: &ConnectParams,
        identity: &str,
        act: &dyn Fn(&dyn Soap, &Moref) -> Result<()>,
    ) -> Result<()> {
        if !params.has_machines()? {
            return Ok(());
        }
        let refused = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        match identity.chars().count() {
            0 => return refused("the identity is empty".to_owned()),
            count if count > LONGEST_IDENTITY => {
                return refused(format!(
                    "the identity has {count} characters, at most {LONGEST_IDENTITY} are known"
                ));
            }
            _ => {}
        }
        let Some(entrance) = entrance(self, params)? else { return Err(nameless()) };
        let subject = subject(params, None);
        if subject.machine.is_none() {
            return refused("no virtual machine is named (vmxSpec is empty)".to_owned());
        }
        let lease = self.vsphere().sessions().lease(entrance);
        let done = lease.session().soap().and_then(|soap| {
            if !soap.is_vcenter() {
                self.log().info(|| "HostAgent is not a vCenter, cannot disable svmotion.");
                let what = "a host without a vCenter moves no machine, so that none can be held";
                return Err(Error::new(ErrorKind::NotSupported, what));
            }
            let machine = subject.find_machine(&*soap)?;
            act(&*soap, &machine).context(|| format!("{machine} in the name of {identity:?}"))
        });
        lease.end_by(Instant::now() + PARTING);
        done
    }
}

impl ConnectParams {
    /// True for a server that has virtual machines: neither this machine nor an NBD server.
    pub fn has_machines(&self) -> Result<bool> {
        Ok(!self.is_local() && self.nbd_server()?.is_none())
    }
}

#[cfg(test)]
mod tests;
