//! What is asked of a server, so that tests can be the server.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::error::Result;
use crate::logging::Log;
use crate::net::http::Hidden;
use crate::net::nfc::ticket::Ticket;
use crate::net::vim::Hardware;
use crate::net::vim::Login;
use crate::net::vim::MachineSpec;
use crate::net::vim::Moref;
use crate::net::vim::Server;
use crate::net::vim::Session;
use crate::net::vim::Times;
use crate::secret::Secret;

/// A session with a server; what the calls do stands with [`Session`].
pub trait Soap: Debug + Send + Sync {
    /// False for a host that is talked to directly.
    fn is_vcenter(&self) -> bool;
    /// As [`Session::machine`].
    fn machine(&self, spec: &MachineSpec) -> Result<Moref>;
    /// As [`Session::hardware_by`].
    fn hardware(&self, machine: &Moref, snapshot: Option<&Moref>, until: Option<Instant>)
    -> Result<Hardware>;
    /// As [`Session::ticket_for_files_by`].
    fn ticket_for_files(&self, machine: &Moref, until: Instant) -> Result<Ticket>;
    /// As [`Session::ticket_for_disk_by`].
    fn ticket_for_disk(
        &self,
        machine: &Moref,
        key: i32,
        host: Option<&Moref>,
        write: bool,
        until: Instant,
    ) -> Result<Ticket>;
    /// As [`Session::disable_relocation`].
    fn disable_relocation(&self, machine: &Moref, identity: &str) -> Result<()>;
    /// As [`Session::enable_relocation`].
    fn enable_relocation(&self, machine: &Moref, identity: &str) -> Result<()>;
    /// As [`Session::datastore_name`].
    fn datastore_name(&self, datastore: &Moref) -> Result<String>;
    /// As [`Session::first_class_disk`].
    fn first_class_disk(&self, id: &str, datastore: &Moref, snapshot: Option<&str>) -> Result<String>;
    /// As [`Session::datacenter_path`].
    fn datacenter_path(&self, inside: &Moref) -> Result<String>;
    /// As [`Session::cookie`].
    fn cookie(&self) -> Secret;
    /// As [`Session::renew`].
    fn renew(&self, stale: &Secret) -> Result<Option<Secret>>;
    /// As [`Session::hidden`].
    fn hidden(&self) -> Hidden;
    /// As [`Session::idle_for`].
    fn idle_for(&self) -> Duration;
    /// As [`Session::keep_alive`].
    fn keep_alive(&self) -> Result<()>;
    /// As [`Session::close`].
    fn close(&self) -> Result<()>;
}

/// Where sessions come from.
pub trait Door: Debug + Send + Sync {
    /// As [`Session::open`].
    fn open(&self, server: &Server, login: &Login, times: Times, log: &Log) -> Result<Arc<dyn Soap>>;
}

/// Sessions over the network.
#[derive(Debug)]
pub struct Network;

impl Door for Network {
    fn open(&self, server: &Server, login: &Login, times: Times, log: &Log) -> Result<Arc<dyn Soap>> {
        Ok(Arc::new(Session::open(server.clone(), login.clone(), times, log.clone())?))
    }
}

impl Soap for Session {
    fn is_vcenter(&self) -> bool {
        self.about().is_vcenter()
    }
    fn machine(&self, spec: &MachineSpec) -> Result<Moref> {
        Session::machine(self, spec)
    }
    fn hardware(
        &self,
        machine: &Moref,
        snapshot: Option<&Moref>,
        until: Option<Instant>,
    ) -> Result<Hardware> {
        Session::hardware_by(self, machine, snapshot, until)
    }
    fn ticket_for_files(&self, machine: &Moref, until: Instant) -> Result<Ticket> {
        Session::ticket_for_files_by(self, machine, Some(until))
    }
    fn ticket_for_disk(
        &self,
        machine: &Moref,
        key: i32,
        host: Option<&Moref>,
        write: bool,
        until: Instant,
    ) -> Result<Ticket> {
        Session::ticket_for_disk_by(self, machine, key, host, write, Some(until))
    }
    fn disable_relocation(&self, machine: &Moref, identity: &str) -> Result<()> {
        Session::disable_relocation(self, machine, identity)
    }
    fn enable_relocation(&self, machine: &Moref, identity: &str) -> Result<()> {
        Session::enable_relocation(self, machine, identity)
    }
    fn datastore_name(&self, datastore: &Moref) -> Result<String> {
        Session::datastore_name(self, datastore)
    }
    fn first_class_disk(&self, id: &str, datastore: &Moref, snapshot: Option<&str>) -> Result<String> {
        Session::first_class_disk(self, id, datastore, snapshot)
    }
    fn datacenter_path(&self, inside: &Moref) -> Result<String> {
        Session::datacenter_path(self, inside)
    }
    fn cookie(&self) -> Secret {
        Session::cookie(self)
    }
    fn renew(&self, stale: &Secret) -> Result<Option<Secret>> {
        Session::renew(self, stale)
    }
    fn hidden(&self) -> Hidden {
        Session::hidden(self).clone()
    }
    fn idle_for(&self) -> Duration {
        Session::idle_for(self)
    }
    fn keep_alive(&self) -> Result<()> {
        Session::keep_alive(self)
    }
    fn close(&self) -> Result<()> {
        Session::close(self)
    }
}
