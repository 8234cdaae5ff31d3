//! A vCenter or a bare ESXi host in one process, for tests: this crate's own and those of programs that use the library.
//!
//! ```text
//!   http      HTTPS server ─▶ site (the door) ─┬▶ soap       calls ─▶ collector, props: what clients see
//!                                              └▶ folder     files of datastores
//!   hosts ─▶ nfc  authd and NFC ─▶ house ─▶ disks            children, merges, maps of changes
//!   world     machines, snapshots, tasks       session · tickets · fault (rules) · personality (releases)
//! ```
//!
//! It answers on loopback only, unless told otherwise, with what the public references tag as observed or documented; what
//! is unknown it refuses instead of inventing it. No code of the library uses it.
#![forbid(unsafe_code)]

pub mod certificate;
mod clock;
mod collector;
pub mod disks;
pub mod fault;
mod folder;
mod hosts;
mod house;
pub mod http;
mod injected;
pub mod nfc;
pub mod options;
pub mod personality;
mod props;
mod random;
pub mod ready;
mod session;
mod site;
mod soap;
mod tickets;
mod value;
mod world;
mod xml;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::os;
use crate::os::EndSignals;
use crate::sim::certificate::Identity;
use crate::sim::disks::uses::Uses;
use crate::sim::fault::Faults;
use crate::sim::fault::Rule;
use crate::sim::http::server::Server;
use crate::sim::nfc::Knobs;
use crate::sim::nfc::NfcServer;
use crate::sim::options::Options;
use crate::sim::ready::Ready;
use crate::sim::ready::ReadyDisk;
use crate::sim::ready::ReadyFirstClass;
use crate::sim::ready::ReadyHost;
use crate::sim::ready::ReadyMachine;
use crate::sim::ready::ReadySnapshot;
use crate::sim::session::Sessions;
use crate::sim::site::Door;
use crate::sim::site::Site;
use crate::sim::soap::machine;
use crate::sim::soap::relocate;
use crate::sim::tickets::Tickets;
use crate::sim::value::Moref;
use crate::sim::world::World;
use crate::sim::world::device::Device;
use crate::sim::world::first_class::FirstClassDisk;
use crate::threads::Threads;

/// A running simulator. It ends when it is dropped; there may be many in one process.
#[derive(Debug)]
pub struct Sim {
    site: Arc<Site>,
    server: Option<Server>,
    /// One of each host.
    nfc: Vec<NfcServer>,
}

/// How long the end waits for tasks.
const END: Duration = Duration::from_secs(10);

impl Sim {
    /// Opens every disk and begins to serve. All ports accept when this returns.
    pub fn start(options: Options) -> Result<Sim> {
        let listener = Server::listen(options.listen)?;
        let sdk = listener.local_addr().context(|| "the address of the server")?;
        let site = site_of(options, sdk)?;
        let nfc = hosts::serve(&site)?;
        let door = Arc::new(Door(site.clone()));
        let server = Server::serve(listener, site.identity.config.clone(), door, site.log.clone())?;
        site.log.info(|| {
            let nfc: Vec<String> = nfc.iter().map(|server| server.address().to_string()).collect();
            format!("vixsim: HTTPS on {sdk}, NFC on {}", nfc.join(", "))
        });
        Ok(Sim { site, server: Some(server), nfc })
    }

    /// Where HTTPS is served.
    pub fn address(&self) -> SocketAddr {
        self.site.sdk
    }

    /// Where authd and NFC of the first host are served.
    pub fn nfc_address(&self) -> SocketAddr {
        self.site.host(0).address().unwrap_or(self.site.options.nfc)
    }

    /// How the NFC server of the first host behaves, which may change at any time.
    pub fn knobs(&self) -> &Knobs {
        &self.site.host(0).knobs
    }

    /// The same of the host that is `at` in the list of [`Ready::hosts`].
    pub fn knobs_of(&self, at: usize) -> Option<&Knobs> {
        self.site.hosts.get(at).map(|host| &*host.knobs)
    }

    /// How many NFC connections are served at this moment by all hosts.
    pub fn served(&self) -> u32 {
        self.nfc.iter().map(NfcServer::served).sum()
    }

    /// Cuts every NFC connection; the next one is taken again.
    pub fn cut_nfc(&self) {
        self.nfc.iter().for_each(NfcServer::cut);
    }

    /// The certificate in PEM, for clients that check it.
    pub fn certificate(&self) -> &str {
        &self.site.identity.pem
    }

    /// What a client has to know, as it is at the moment.
    pub fn ready(&self) -> Ready {
        let site = &self.site;
        let world = site.world.lock();
        let host = match site.sdk.ip() {
            ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
            ip if ip.is_ipv6() => format!("[{ip}]"),
            ip => ip.to_string(),
        };
        Ready {
            url: format!("https://{host}:{}/sdk", site.sdk.port()),
            sdk_port: site.sdk.port(),
            nfc_port: site.host(0).port(),
            thumbprint_sha1: site.identity.sha1.clone(),
            thumbprint_sha256: site.identity.sha256.clone(),
            vms: world.machines.iter().map(ready_machine).collect(),
            hosts: world.shape.hosts().enumerate().map(|(at, host)| ready_host(site, at, host)).collect(),
            first_class: world.first_class.iter().map(|disk| ready_first_class(&world, disk)).collect(),
        }
    }

    /// The rules about what goes wrong, which may change at any time.
    pub fn faults(&self) -> &Faults {
        &self.site.faults
    }

    /// Switches a machine on or off, as its user would.
    pub fn power(&self, machine: &str, on: bool) -> Result<()> {
        let id = self.machine_id(machine)?;
        machine::switch(&self.site, &id, on).map_err(|fault| Error::new(ErrorKind::Busy, fault.text))
    }

    /// Moves a machine to the host that is `at` in the list of [`Ready::hosts`], as a cluster does by itself: nobody is asked.
    pub fn relocate(&self, machine: &str, at: usize) -> Result<()> {
        let id = self.machine_id(machine)?;
        relocate::to(&self.site, &id, at)
            .map(drop)
            .map_err(|fault| Error::new(ErrorKind::InvalidArgument, fault.text))
    }

    /// How long sessions live without a call from now on.
    pub fn set_session_life(&self, life: Duration) {
        self.site.sessions.set_life(life);
    }

    /// How long tickets made from now on can be used.
    pub fn set_ticket_life(&self, life: Duration) {
        self.site.tickets.set_life(life);
    }

    /// Ends all sessions, as a server does that starts anew.
    pub fn end_sessions(&self) {
        self.site.sessions.close_all();
        self.site.change(|_| ()); // who waits in their name looks again
    }

    /// Cuts every HTTPS connection.
    pub fn cut(&self) {
        self.server.iter().for_each(Server::cut);
    }

    fn machine_id(&self, name: &str) -> Result<String> {
        let world = self.site.world.lock();
        let found = world.machines.iter().find(|machine| machine.name == name || machine.id == name);
        let missing = || Error::new(ErrorKind::MachineNotFound, format!("no machine is called {name:?}"));
        found.map(|machine| machine.id.clone()).ok_or_else(missing)
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.server = None;
        self.nfc.clear();
        self.site.threads.join_until(Instant::now() + END);
    }
}

/// Everything but the servers.
fn site_of(options: Options, sdk: SocketAddr) -> Result<Arc<Site>> {
    let faults = Faults::new();
    for text in &options.faults {
        let rule = Rule::parse(text)?;
        if let Some(at) = rule.host().filter(|at| *at >= options.hosts) {
            let what = format!("the rule {text:?} names host {} of {}", at.saturating_add(1), options.hosts);
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        faults.add(rule);
    }
    let world = World::new(&options)?;
    let identity = Identity::new(options.certificate.as_ref(), options.listen.ip())?;
    let faults = Arc::new(faults);
    let hosts = hosts::new(&options, &identity, &faults)?;
    Ok(Arc::new(Site {
        personality: options.release.personality(),
        sdk,
        hosts,
        world: Mutex::new(world),
        changed: Condvar::new(),
        sessions: Sessions::new(options.session_life),
        tickets: Tickets::new(options.ticket_life),
        uses: Arc::new(Uses::default()),
        faults,
        threads: Threads::new(os::with_signals_blocked),
        ending: AtomicBool::new(false),
        log: options.log.clone(),
        identity,
        options,
    }))
}

/// What asks a program around a simulator to end.
#[derive(Debug)]
pub struct End(EndSignals);

impl End {
    /// Takes over `SIGTERM`, `SIGINT` and `SIGHUP`. To be called by the first thread, before anything else.
    pub fn watch() -> Result<End> {
        EndSignals::watch().map(End).context(|| "watching for signals")
    }

    /// Waits for one of them, and, if asked, for the end of the standard input.
    pub fn wait(&self, watch_input: bool) -> Result<()> {
        self.0.wait(watch_input).context(|| "waiting for signals")
    }
}

fn ready_host(site: &Site, at: usize, host: Moref) -> ReadyHost {
    ReadyHost { name: site.host_name(at), moref: host.id, nfc_port: site.host(at).port() }
}

fn ready_disk(device: &Device) -> Option<ReadyDisk> {
    let leaf = device.leaf()?;
    Some(ReadyDisk { path: leaf.to_string(), key: device.key, file: leaf.file.clone() })
}

fn ready_first_class(world: &World, disk: &FirstClassDisk) -> ReadyFirstClass {
    ReadyFirstClass {
        name: disk.name.clone(),
        id: disk.id.clone(),
        datastore: world.store_ref(&disk.leaf.file.store).map(|store| store.id).unwrap_or_default(),
        path: disk.leaf.file.to_string(),
        snapshots: disk.snapshots.iter().map(|snapshot| snapshot.id.clone()).collect(),
    }
}

fn ready_machine(machine: &world::machine::Machine) -> ReadyMachine {
    let snapshots = machine.snapshots.iter().map(|snapshot| ReadySnapshot {
        name: snapshot.name.clone(),
        moref: snapshot.id.clone(),
        disks: snapshot.disks.iter().filter_map(ready_disk).collect(),
    });
    ReadyMachine {
        name: machine.name.clone(),
        moref: machine.id.clone(),
        disks: machine.disks.iter().filter_map(|disk| ready_disk(&disk.device)).collect(),
        snapshots: snapshots.collect(),
    }
}
