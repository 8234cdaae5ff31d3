//! A server and a host without a network, for tests.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::format::geometry::Geometry;
use crate::logging::Level;
use crate::logging::Log;
use crate::logging::Sink;
use crate::net::http::Hidden;
use crate::net::nfc::identity::Identity;
use crate::net::nfc::ticket::Ticket;
use crate::net::tls::TlsSettings;
use crate::net::vim::Adapter;
use crate::net::vim::Backing;
use crate::net::vim::Hardware;
use crate::net::vim::Login;
use crate::net::vim::MachineSpec;
use crate::net::vim::Moref;
use crate::net::vim::Power;
use crate::net::vim::Server;
use crate::net::vim::Times;
use crate::net::vim::VirtualDisk;
use crate::secret::Secret;
use crate::transfer::Finish;
use crate::transfer::Transfer;
use crate::transport::Line;
use crate::transport::Mode;
use crate::transport::blocks::Blocks;
use crate::transport::blocks::Reads;
use crate::transport::homes::Home;
use crate::transport::vsphere::host::Errand;
use crate::transport::vsphere::host::Hosts;
use crate::transport::vsphere::host::Served;
use crate::transport::vsphere::sessions::Entrance;
use crate::transport::vsphere::soap::Door;
use crate::transport::vsphere::soap::Soap;

/// Collects lines.
#[derive(Default)]
pub struct Lines(pub Mutex<Vec<String>>);

impl Sink for Lines {
    fn line(&self, _level: Level, text: &str) {
        self.0.lock().push(text.to_owned());
    }
}

impl Lines {
    /// A log that goes here.
    pub fn log() -> (Arc<Lines>, Log) {
        let lines = Arc::new(Lines::default());
        (lines.clone(), Log::new(lines, Level::Debug))
    }

    /// True when a line has this in it.
    pub fn has(&self, part: &str) -> bool {
        self.0.lock().iter().any(|line| line.contains(part))
    }
}

/// A vCenter, or a host with its own interface.
#[derive(Debug)]
pub struct FakeServer {
    /// What it was asked, a line each.
    pub asked: Mutex<Vec<String>>,
    changed: Condvar,
    /// It is a vCenter.
    pub vcenter: AtomicBool,
    /// Logins end with these faults, one after the other, before they succeed.
    pub refusals: Mutex<VecDeque<ErrorKind>>,
    /// A login waits until this is false.
    pub held: AtomicBool,
    /// What a call whose name stands here ends with.
    pub faults: Mutex<Vec<(&'static str, ErrorKind)>>,
    /// Where the machine is; counts upwards with each move.
    pub host: Mutex<&'static str>,
}

/// The chain of the machine's first disk, the newest link first.
pub const CHAIN: [&str; 3] = ["[ds] vm/a-000002.vmdk", "[ds] vm/a-000001.vmdk", "[ds] vm/a.vmdk"];

impl FakeServer {
    /// A vCenter where everything is well.
    pub fn new() -> Arc<FakeServer> {
        Arc::new(FakeServer {
            asked: Mutex::default(),
            changed: Condvar::new(),
            vcenter: AtomicBool::new(true),
            refusals: Mutex::default(),
            held: AtomicBool::new(false),
            faults: Mutex::default(),
            host: Mutex::new("esx1"),
        })
    }

    fn note(&self, what: String) {
        self.asked.lock().push(what);
        self.changed.notify_all();
    }

    /// Waits for a question that begins like this to have come so often.
    pub fn wait_for(&self, what: &str, times: usize) {
        let until = Instant::now() + Duration::from_secs(60);
        let mut asked = self.asked.lock();
        while asked.iter().filter(|line| line.starts_with(what)).count() < times {
            assert!(!self.changed.wait_until(&mut asked, until).timed_out(), "{what}: {asked:?}");
        }
    }

    /// How many questions began like this.
    pub fn count(&self, what: &str) -> usize {
        self.asked.lock().iter().filter(|line| line.starts_with(what)).count()
    }

    fn fault(&self, call: &str) -> Result<()> {
        match self.faults.lock().iter().find(|(name, _)| *name == call) {
            Some((_, kind)) => Err(Error::new(*kind, format!("{call} is refused"))),
            None => Ok(()),
        }
    }

    fn ticket(&self) -> Ticket {
        Ticket {
            host: self.vcenter.load(Ordering::SeqCst).then(|| (*self.host.lock()).to_owned()),
            port: 902,
            identity: None,
            service: "vpxa-nfc".to_owned(),
            id: Secret::from("ticket-canary".to_owned()),
        }
    }
}

impl Door for Arc<FakeServer> {
    fn open(&self, server: &Server, login: &Login, _: Times, _: &Log) -> Result<Arc<dyn Soap>> {
        self.note(format!("login {} {login:?}", server.host));
        while self.held.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        match self.refusals.lock().pop_front() {
            Some(kind) => {
                Err(Error::new(kind, "Cannot complete login due to an incorrect user name or password."))
            }
            None => Ok(Arc::new(FakeSoap(Arc::clone(self)))),
        }
    }
}

/// A session with it.
#[derive(Debug)]
pub struct FakeSoap(Arc<FakeServer>);

fn disk(key: i32, chain: &[&str], mode: &str) -> VirtualDisk {
    VirtualDisk {
        key,
        label: format!("Hard disk {}", key - 1999),
        chain: chain.iter().map(|&link| link.to_owned()).collect(),
        capacity: 4096,
        mode: mode.to_owned(),
        uuid: None,
        change_id: None,
        controller: 1000,
        unit: Some(0),
        adapter: Adapter::LsiLogic,
        backing: Backing::Flat,
        datastore: Some(Moref::new("Datastore", "datastore-1")),
        first_class: None,
    }
}

impl Soap for FakeSoap {
    fn is_vcenter(&self) -> bool {
        self.0.vcenter.load(Ordering::SeqCst)
    }
    fn machine(&self, spec: &MachineSpec) -> Result<Moref> {
        self.0.note(format!("machine {spec:?}"));
        self.0.fault("machine")?;
        Ok(Moref::machine("vm-1"))
    }
    fn hardware(&self, machine: &Moref, snapshot: Option<&Moref>, _: Option<Instant>) -> Result<Hardware> {
        self.0.note(format!("hardware {machine} {}", snapshot.map_or("-", |snapshot| &snapshot.id)));
        self.0.fault("hardware")?;
        let chain = if snapshot.is_some() { &CHAIN[1..] } else { &CHAIN[..] };
        Ok(Hardware {
            name: "vm".to_owned(),
            power: Power::Off,
            host: Some(Moref::new("HostSystem", *self.0.host.lock())),
            disks: vec![
                disk(2000, chain, "persistent"),
                disk(2001, &["[ds] vm/b.vmdk"], "independent_persistent"),
                disk(2002, &["[ds] fcd/f.vmdk"], "persistent"),
            ],
        })
    }
    fn ticket_for_files(&self, machine: &Moref, _: Instant) -> Result<Ticket> {
        self.0.note(format!("files {machine}"));
        self.0.fault("files")?;
        Ok(self.0.ticket())
    }
    fn ticket_for_disk(
        &self,
        machine: &Moref,
        key: i32,
        host: Option<&Moref>,
        write: bool,
        _: Instant,
    ) -> Result<Ticket> {
        self.0.note(format!("disk {machine} {key} {} {write}", host.map_or("-", |host| &host.id)));
        self.0.fault("disk")?;
        Ok(self.0.ticket())
    }
    fn disable_relocation(&self, machine: &Moref, identity: &str) -> Result<()> {
        self.0.note(format!("disable {machine} {identity}"));
        self.0.fault("disable")
    }
    fn enable_relocation(&self, machine: &Moref, identity: &str) -> Result<()> {
        self.0.note(format!("enable {machine} {identity}"));
        self.0.fault("enable")
    }
    fn datastore_name(&self, datastore: &Moref) -> Result<String> {
        self.0.note(format!("name {datastore}"));
        self.0.fault("name").map(|()| "ds".to_owned())
    }
    fn first_class_disk(&self, id: &str, datastore: &Moref, snapshot: Option<&str>) -> Result<String> {
        self.0.note(format!("fcd {id} {datastore} {snapshot:?}"));
        self.0.fault("fcd").map(|()| format!("[ds] fcd/{id}.vmdk"))
    }
    fn datacenter_path(&self, inside: &Moref) -> Result<String> {
        self.0.note(format!("datacenter {inside}"));
        self.0.fault("datacenter").map(|()| "Nord/DC".to_owned())
    }
    fn cookie(&self) -> Secret {
        Secret::from("cookie-canary".to_owned())
    }
    fn renew(&self, _stale: &Secret) -> Result<Option<Secret>> {
        self.0.note("renew".to_owned());
        self.0.fault("renew").map(|()| None)
    }
    fn hidden(&self) -> Hidden {
        Hidden::default()
    }
    fn idle_for(&self) -> Duration {
        Duration::from_secs(3600)
    }
    fn keep_alive(&self) -> Result<()> {
        self.0.note("alive".to_owned());
        self.0.fault("alive")
    }
    fn close(&self) -> Result<()> {
        self.0.note("logout".to_owned());
        Ok(())
    }
}

/// Credentials for a server.
pub fn entrance(host: &str, password: &str) -> Entrance {
    Entrance {
        server: Server { host: host.to_owned(), port: 443, tls: TlsSettings::default() },
        login: Login::User { name: "root".to_owned(), password: Secret::from(password.to_owned()) },
        times: Times::default(),
        keep_alive: Duration::ZERO,
    }
}

/// Hosts with 4096 bytes of sevens behind every path.
#[derive(Debug, Default)]
pub struct FakeHosts {
    /// What opening ends with, one after the other, before it succeeds.
    pub faults: Mutex<VecDeque<ErrorKind>>,
    /// Connections that were made: mode, path, host of the ticket.
    pub made: Mutex<Vec<(Mode, String, String)>>,
    /// The lines of those that succeeded.
    pub lines: Mutex<Vec<Arc<FakeLine>>>,
}

/// The bytes of a disk.
#[derive(Debug)]
pub struct FakeLine {
    mode: Mode,
    /// Every call ends with it.
    pub fault: Mutex<Option<ErrorKind>>,
    /// It was cut.
    pub cut: AtomicBool,
}

impl Hosts for FakeHosts {
    fn open(&self, errand: &Errand) -> Result<Served> {
        let ticket = errand.tickets.ticket(Instant::now() + errand.settings.options.connect)?;
        let host = ticket.host.clone().unwrap_or_else(|| errand.login_host.clone());
        let mode = if errand.ssl { Mode::NbdSsl } else { Mode::Nbd };
        self.made.lock().push((mode, errand.path.clone(), host.clone()));
        if let Some(kind) = self.faults.lock().pop_front() {
            return Err(Error::new(kind, format!("{host} refuses {}", errand.path)));
        }
        let line = Arc::new(FakeLine { mode, fault: Mutex::new(None), cut: AtomicBool::new(false) });
        self.lines.lock().push(line.clone());
        Ok(Served {
            home: Home { blocks: line.clone(), line, identity: Identity::default() },
            url: format!("vpxa-nfcssl://{}@{host}:902", errand.path),
            geometry: Some(Geometry { cylinders: 1, heads: 2, sectors: 3 }),
            database: [("adapterType", "ide"), ("longContentID", "bd746094172e7bea0b3805d81234abcd")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .to_vec(),
            chain: None,
        })
    }
}

impl FakeLine {
    fn result(&self) -> Result<()> {
        match *self.fault.lock() {
            Some(kind) => Err(Error::new(kind, "the host is gone")),
            None => Ok(()),
        }
    }
}

impl Blocks for FakeLine {
    fn size(&self) -> u64 {
        4096
    }
    fn read(&self, buf: &mut [u8], _offset: u64) -> Result<()> {
        buf.fill(7);
        self.result()
    }
    fn write(&self, _buf: &[u8], _offset: u64) -> Result<()> {
        self.result()
    }
    fn zero(&self, _range: Range<u64>) -> Result<bool> {
        Ok(false)
    }
    fn flush(&self) -> Result<()> {
        self.result()
    }
    fn allocation(&self, _range: Range<u64>, _sink: &mut dyn FnMut(Range<u64>, Reads)) -> Result<bool> {
        Ok(false)
    }
    fn start(&self, transfer: Transfer, _offset: u64, finish: Finish) -> Option<(Transfer, Finish)> {
        Some((transfer, finish))
    }
    fn key(&self, key: &str) -> Result<Option<String>> {
        Ok((key == "live").then(|| "asked".to_owned()))
    }
}

impl Line for FakeLine {
    fn mode(&self) -> Mode {
        self.mode
    }
    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }
    fn probe(&self, answered: Box<dyn FnOnce() + Send>) {
        answered();
    }
}
