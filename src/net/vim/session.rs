//! A session with a server.

use std::time::Duration;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Log;
use crate::net::nfc::ticket::Ticket;
use crate::net::vim::About;
use crate::net::vim::Hardware;
use crate::net::vim::Login;
use crate::net::vim::MachineSpec;
use crate::net::vim::Moref;
use crate::net::vim::Server;
use crate::net::vim::Times;
use crate::secret::Secret;

/// A session with a server. Many threads may use it at once: each call has a connection of its own while it lasts, and no
/// lock is held while a server is waited for, but for the one of logging in again.
///
/// Dropping it closes the connections; only [`Session::close`] says farewell.
#[derive(Debug)]
pub struct Session {
    about: About,
}

fn pending<T>() -> Result<T> {
    Err(Error::new(ErrorKind::NotSupported, "not there yet"))
}

#[allow(unused_variables, clippy::needless_pass_by_value)]
impl Session {
    /// Connects and gets in.
    ///
    /// The kinds of errors: those of connecting and of TLS; `Unauthorised` for a wrong user or password;
    /// `SessionInvalid` for a cookie that is not one of a session.
    pub fn open(server: Server, login: Login, times: Times, log: Log) -> Result<Self> {
        pending()
    }

    /// What the server says about itself.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The machine that is meant: `MachineNotFound` where the server has none like that.
    pub fn machine(&self, spec: &MachineSpec) -> Result<Moref> {
        pending()
    }

    /// The machine's disks, as they are or as they were when the snapshot was made. A snapshot that is not one of the
    /// machine's is `ObjectNotFound`.
    pub fn hardware(&self, machine: &Moref, snapshot: Option<&Moref>) -> Result<Hardware> {
        pending()
    }

    /// Permission to read any file of the machine (`NfcGetVmFiles`).
    pub fn ticket_for_files(&self, machine: &Moref) -> Result<Ticket> {
        pending()
    }

    /// Permission for the disk with this key (`NfcRandomAccessOpenDisk`, without `write` `NfcRandomAccessOpenReadonly`).
    pub fn ticket_for_disk(
        &self,
        machine: &Moref,
        key: i32,
        host: Option<&Moref>,
        write: bool,
    ) -> Result<Ticket> {
        pending()
    }

    /// Keeps the machine where it is. `OperationDisabled` where somebody with another identity did that before,
    /// `NotSupported` on a host without a vCenter.
    pub fn disable_relocation(&self, machine: &Moref, identity: &str) -> Result<()> {
        pending()
    }

    /// Undoes [`Session::disable_relocation`] with the same identity.
    pub fn enable_relocation(&self, machine: &Moref, identity: &str) -> Result<()> {
        pending()
    }

    /// Path in the inventory of the datacenter that an object is in, folders included, as the server writes the names.
    pub fn datacenter_path(&self, inside: &Moref) -> Result<String> {
        pending()
    }

    /// The name that stands in the brackets of paths.
    pub fn datastore_name(&self, datastore: &Moref) -> Result<String> {
        pending()
    }

    /// The path of a first class disk, or of one of its snapshots.
    pub fn first_class_disk(&self, id: &str, datastore: &Moref, snapshot: Option<&str>) -> Result<String> {
        pending()
    }

    /// The value of the session's cookie, as it has to be sent.
    pub fn cookie(&self) -> Secret {
        Secret::default()
    }

    /// How long the server has not heard of this session.
    pub fn idle_for(&self) -> Duration {
        Duration::ZERO
    }

    /// Keeps the session from expiring; half an hour without a call is the usual limit.
    pub fn keep_alive(&self) -> Result<()> {
        pending()
    }

    /// Logs out, if the session was logged in here, and closes the connections. Nothing happens the second time.
    pub fn close(&self) -> Result<()> {
        pending()
    }
}
