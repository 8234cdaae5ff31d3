//! What lets us in to a disk's host, as often as it is needed.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::net::nfc::client::Tickets;
use crate::net::nfc::ticket;
use crate::net::nfc::ticket::Ticket;
use crate::net::vim::Hardware;
use crate::net::vim::Moref;
use crate::transport::limits::Limits;
use crate::transport::limits::Seat;
use crate::transport::vsphere::sessions::Shared;
use crate::transport::vsphere::soap::Soap;

/// What a ticket is to permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Right {
    /// Reading any file of the machine.
    Files,
    /// Writing one disk.
    Disk {
        /// The key of its device.
        key: i32,
        /// The host that runs the machine, as far as the server says.
        host: Option<Moref>,
    },
}

/// Tickets for one disk. Each is good for one connection, so that a new one is asked for whenever a connection is made; the
/// host may be another one then.
#[derive(Debug)]
pub struct DiskTickets {
    session: Arc<Shared>,
    machine: Moref,
    path: String,
    right: Right,
    limits: Arc<Limits>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    asked: bool,
    /// The host of the last ticket.
    host: Option<String>,
    seat: Option<Seat>,
    over: bool,
}

impl DiskTickets {
    /// Tickets for the disk at `path` of a machine.
    pub fn new(
        session: Arc<Shared>,
        machine: Moref,
        path: String,
        right: Right,
        limits: Arc<Limits>,
    ) -> DiskTickets {
        DiskTickets { session, machine, path, right, limits, state: Mutex::default() }
    }

    /// A ticket, by `until`. The disk counts as one of its host's from here on.
    pub fn ticket(&self, until: Instant) -> Result<Ticket> {
        let soap = self.session.soap()?;
        let ticket = match &self.right {
            Right::Files => soap.ticket_for_files(&self.machine, until)?,
            Right::Disk { key, host } => {
                let first = !std::mem::replace(&mut self.state.lock().asked, true);
                let (key, host) = if first { (*key, host.clone()) } else { self.look_again(&*soap, until)? };
                soap.ticket_for_disk(&self.machine, key, host.as_ref(), true, until)?
            }
        };
        self.sit(&ticket, &*soap);
        Ok(ticket)
    }

    /// The machine may have moved since.
    fn look_again(&self, soap: &dyn Soap, until: Instant) -> Result<(i32, Option<Moref>)> {
        let hardware = soap.hardware(&self.machine, None, Some(until))?;
        Ok((key_of(&hardware, &self.path)?, hardware.host))
    }

    fn sit(&self, ticket: &Ticket, soap: &dyn Soap) {
        let host = place(ticket.host.as_deref().unwrap_or_else(|| self.session.host()), ticket.port);
        let vcenter = soap.is_vcenter().then(|| self.session.host());
        self.stand_up();
        let seat = self.limits.sit(&host, vcenter);
        let mut state = self.state.lock();
        state.host = Some(host);
        if !state.over {
            state.seat = Some(seat);
        }
    }

    /// The disk does not count as open: opening it failed.
    pub fn stand_up(&self) {
        let seat = self.state.lock().seat.take();
        drop(seat);
    }

    /// The disk is closed.
    pub fn end(&self) {
        self.state.lock().over = true;
        self.stand_up();
    }

    /// Disks of the last ticket's host that are open, this one apart.
    pub fn others(&self) -> usize {
        let (host, own) = {
            let state = self.state.lock();
            (state.host.clone(), usize::from(state.seat.is_some()))
        };
        host.map_or(0, |host| self.limits.on_host(&host).saturating_sub(own))
    }
}

/// A host as it is counted. Several may be reached at one address, by ports that are not the usual one.
fn place(host: &str, port: u16) -> String {
    match port {
        0 | ticket::PORT => host.to_owned(),
        _ if host.contains(':') => format!("[{host}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

/// Each call ends by then, or in what was given to the session when it was opened.
impl Tickets for DiskTickets {
    fn ticket(&self, until: Instant) -> Result<Ticket> {
        DiskTickets::ticket(self, until)
    }
}

/// The key of the disk that has this path as one of its links.
pub fn key_of(hardware: &Hardware, path: &str) -> Result<i32> {
    if let Some(disk) = hardware.disk(path) {
        return Ok(disk.key);
    }
    const MOST: usize = 16;
    let known: Vec<&str> =
        hardware.disks.iter().filter_map(|disk| disk.chain.first()).take(MOST).map(String::as_str).collect();
    let text = format!("machine {:?} has no disk {path}; its disks are {}", hardware.name, known.join(", "));
    Err(Error::new(ErrorKind::NotFound, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_at_one_address_are_told_apart_by_their_ports() {
        assert_eq!([place("esx1", 902), place("esx1", 0)], ["esx1", "esx1"]);
        assert_eq!([place("10.0.0.1", 9020), place("fd00::1", 9021)], ["10.0.0.1:9020", "[fd00::1]:9021"]);
    }
}
