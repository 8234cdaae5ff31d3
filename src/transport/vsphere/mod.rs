//! Disks of vSphere: of machines of a vCenter or of a host.
//!
//! ```text
//!   what the caller says ─▶ target    which disk of which machine, what to ask for
//!                             │ sessions   one login for all who log in alike
//!                             ▼
//!                           way       nbdssl, nbd ─▶ host ─▶ net::nfc      (limits: how many at once)
//!                             │ tickets    a fresh one per connection
//!                           https_way  https ─▶ transport::https           (only for those who name it)
//!                             ▼
//!                           homes ─▶ BlockStorage ─▶ ReadAhead ─▶ Disk
//! ```

#[cfg(test)]
pub(crate) mod fakes;
pub mod host;
pub mod https_way;
pub mod name;
mod nfc_dial;
pub mod path;
pub mod sessions;
pub mod soap;
pub mod target;
pub mod tickets;
mod way;

use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::format::geometry::Geometry;
use crate::format::raw;
use crate::logging::Log;
use crate::net::vim::Moref;
use crate::transport::Chain;
use crate::transport::Facts;
use crate::transport::Line;
use crate::transport::Mode;
use crate::transport::Remote;
use crate::transport::blocks::BlockStorage;
use crate::transport::choice;
use crate::transport::homes::Homes;
use crate::transport::homes::Route;
use crate::transport::https::Spellings;
use crate::transport::identity_of;
use crate::transport::limits::Limits;
use crate::transport::readahead::ReadAhead;
use crate::transport::vsphere::host::Errand;
use crate::transport::vsphere::host::Hosts;
use crate::transport::vsphere::host::NfcSettings;
use crate::transport::vsphere::host::Served;
use crate::transport::vsphere::https_way::Caches;
use crate::transport::vsphere::https_way::HttpsWay;
use crate::transport::vsphere::nfc_dial::NfcHosts;
use crate::transport::vsphere::sessions::Sessions;
use crate::transport::vsphere::sessions::Shared;
use crate::transport::vsphere::soap::Door;
use crate::transport::vsphere::soap::Network;
use crate::transport::vsphere::target::Subject;
use crate::transport::vsphere::target::Target;
use crate::transport::vsphere::target::chain_of;
use crate::transport::vsphere::target::no_machine;
use crate::transport::vsphere::tickets::DiskTickets;
use crate::transport::vsphere::tickets::key_of;
use crate::transport::vsphere::way::DiskWay;
use crate::transport::vsphere::way::NfcWay;
use crate::units::SECTOR;
use crate::units::Sectors;

/// Everything about vSphere that the connections of one library share.
#[derive(Debug)]
pub struct Vsphere {
    sessions: Sessions,
    hosts: Arc<dyn Hosts>,
    limits: Arc<Limits>,
    spellings: Arc<Spellings>,
    log: Log,
}

/// How a disk is opened.
#[derive(Clone, Debug)]
pub struct How {
    /// The caller's list of transports.
    pub modes: Option<String>,
    /// Writes will come.
    pub write: bool,
    /// The port of hosts, where it is not the one that tickets name.
    pub nfc_port: Option<u16>,
    /// Of the connection to the host.
    pub settings: NfcSettings,
    /// Memory for a disk that is put together here.
    pub caches: Caches,
}

/// Ways in the order of preference.
const WAYS: [Mode; 3] = [Mode::NbdSsl, Mode::Nbd, Mode::Https];
/// Those to a disk of no machine: no host can be asked for one.
const WAYS_WITHOUT_A_MACHINE: [Mode; 1] = [Mode::Https];

impl Vsphere {
    /// Servers and hosts are on the network.
    pub fn on_network(log: Log) -> Vsphere {
        Self::new(Arc::new(Network), Arc::new(NfcHosts { log: log.clone() }), log)
    }

    /// Servers are found behind this door, disks with these hosts.
    pub fn new(door: Arc<dyn Door>, hosts: Arc<dyn Hosts>, log: Log) -> Vsphere {
        let (sessions, limits) = (Sessions::new(door, log.clone()), Limits::new(log.clone()));
        Vsphere { sessions, hosts, limits, spellings: Arc::default(), log }
    }

    /// The sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Nobody waits for anything any more. Leases end by themselves.
    pub fn end(&self) {
        self.limits.end();
        self.sessions.end();
    }

    /// Opens the disk that is meant by a path.
    pub fn open(&self, session: &Arc<Shared>, subject: &Subject, path: &Path, how: &How) -> Result<Remote> {
        let soap = session.soap()?;
        let target = Arc::new(subject.find(&*soap, path, how.write, &self.log)?);
        drop(soap);
        let ways = self.ways(session, subject, &target, how)?;
        let (at, home) =
            choice::first(&ways, &target.path, &self.log).map_err(|e| self.explain(e, session, &target))?;
        let said = ways.get(at).and_then(|way| way.said());
        let Some(served) = said else {
            home.line.cut();
            return Err(Error::new(ErrorKind::Internal, "a way opened a disk and said nothing of it"));
        };
        let ways = ways.into_iter().map(|way| way as Arc<dyn Route>).collect();
        let patience = how.settings.options.connect.saturating_mul(2);
        let homes = Homes::new(ways, at, home, target.path.clone(), patience, self.log.clone());
        let facts = ServedFacts {
            homes: homes.clone(),
            geometry: served.geometry,
            session: Arc::clone(session),
            machine: target.machine.clone(),
            path: target.path.clone(),
            chain: served.chain.clone().or(target.chain.clone()).map_or_else(OnceLock::new, OnceLock::from),
            log: self.log.clone(),
        };
        let disk = self.disk(&homes, &served, &target.path, how.write).inspect_err(|_| homes.cut())?;
        Ok(Remote {
            disk,
            kind: "custom",
            label: served.url,
            line: Arc::new(homes),
            facts: Some(Arc::new(facts)),
        })
    }

    /// Hosts answer alike when a disk is not there and when it may not be opened; the server knows better.
    fn explain(&self, error: Error, session: &Arc<Shared>, target: &Target) -> Error {
        let unclear = matches!(error.kind(), ErrorKind::AccessDenied | ErrorKind::ReadOnly);
        let (true, None, Some(machine)) = (unclear, &target.chain, &target.machine) else { return error };
        let hardware = session.soap().and_then(|soap| soap.hardware(machine, None, None));
        match hardware.map(|hardware| key_of(&hardware, &target.path)) {
            Ok(Err(missing)) => error.with_kind(ErrorKind::NotFound).context(missing.to_string()),
            Ok(Ok(_)) => error,
            Err(e) => {
                self.log.info(|| format!("whether {machine} has {} is not known: {e}", target.path));
                error
            }
        }
    }

    /// The ways to a disk that the caller wants, in his order.
    fn ways(
        &self,
        session: &Arc<Shared>,
        subject: &Subject,
        target: &Target,
        how: &How,
    ) -> Result<Vec<Arc<dyn DiskWay>>> {
        let order = |possible: &[Mode], stand_in| {
            choice::order(how.modes.as_deref(), possible, stand_in, &target.path, &self.log)
        };
        let https = || Arc::new(self.https_way(session, subject, target, how)) as Arc<dyn DiskWay>;
        let Some(machine) = &target.machine else {
            let order = order(&WAYS_WITHOUT_A_MACHINE, None).map_err(|_| no_machine(&target.path))?;
            return Ok(order.into_iter().map(|_| https()).collect());
        };
        let way = |mode| match mode {
            Mode::Https => https(),
            mode => Arc::new(self.nfc_way(session, target, machine, mode, how)),
        };
        Ok(order(&WAYS, Some(Mode::NbdSsl))?.into_iter().map(way).collect())
    }

    fn https_way(&self, session: &Arc<Shared>, subject: &Subject, target: &Target, how: &How) -> HttpsWay {
        HttpsWay {
            session: Arc::clone(session),
            path: target.path.clone(),
            inside: target.machine.clone().or_else(|| subject.datastore()),
            write: how.write,
            caches: how.caches,
            spellings: Arc::clone(&self.spellings),
            log: self.log.clone(),
            said: Mutex::new(None),
        }
    }

    fn nfc_way(
        &self,
        session: &Arc<Shared>,
        target: &Target,
        machine: &Moref,
        mode: Mode,
        how: &How,
    ) -> NfcWay {
        let (path, right) = (target.path.clone(), target.right.clone());
        let limits = Arc::clone(&self.limits);
        let tickets = DiskTickets::new(Arc::clone(session), machine.clone(), path.clone(), right, limits);
        NfcWay {
            errand: Errand {
                tickets: Arc::new(tickets),
                login_host: session.host().to_owned(),
                nfc_port: how.nfc_port,
                path,
                write: how.write,
                ssl: mode == Mode::NbdSsl,
                settings: how.settings.clone(),
            },
            hosts: Arc::clone(&self.hosts),
            limits: Arc::clone(&self.limits),
            said: Mutex::new(None),
        }
    }

    fn disk(&self, homes: &Homes, served: &Served, path: &str, write: bool) -> Result<Disk> {
        let blocks = BlockStorage::new(Arc::new(homes.clone()), path.to_owned(), write, self.log.clone())?;
        let size = homes.size_in_sectors();
        let described = raw::describe_served(Sectors(size), &served.database)?;
        Disk::described(Arc::new(ReadAhead::new(Arc::new(blocks))), write, identity_of(path), described)
    }
}

impl Homes {
    /// Whole sectors of the disk, rounded up.
    fn size_in_sectors(&self) -> u64 {
        crate::transport::blocks::Blocks::size(self).div_ceil(SECTOR)
    }
}

/// What is known of a disk of a host.
#[derive(Debug)]
struct ServedFacts {
    homes: Homes,
    geometry: Option<Geometry>,
    session: Arc<Shared>,
    /// Whom to ask for the chain.
    machine: Option<Moref>,
    path: String,
    /// Asked for when it is needed first.
    chain: OnceLock<Chain>,
    log: Log,
}

impl Facts for ServedFacts {
    fn key(&self, key: &str) -> Result<Option<String>> {
        self.homes.key(key)
    }

    /// Only the server knows it; while it does not tell, the disk has one link.
    fn chain(&self) -> Chain {
        if let Some(known) = self.chain.get() {
            return known.clone();
        }
        let ask = |machine| self.session.soap()?.hardware(machine, None, None);
        let hardware = self.machine.as_ref().and_then(|machine| ask(machine).ok());
        let chain = hardware.and_then(|hardware| chain_of(&hardware, &self.path)).unwrap_or_else(|| {
            self.log.info(|| format!("{}: the server does not tell its chain", self.path));
            Chain { links: 1, parent: None }
        });
        self.chain.get_or_init(|| chain).clone()
    }

    fn geometry(&self) -> Option<Geometry> {
        self.geometry
    }
}

#[cfg(test)]
mod tests;
