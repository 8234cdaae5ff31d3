//! A simulator's NFC server over disks in memory, without its SOAP half: tickets are made by the test.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::RwLock;
use std::sync::RwLockWriteGuard;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use ring::digest;
use rustls::ServerConfig;
use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Level;
use vixDiskLib::logging::Log;
use vixDiskLib::logging::Sink;
use vixDiskLib::net::nfc::ticket::HostIdentity;
use vixDiskLib::net::nfc::ticket::Ticket;
use vixDiskLib::secret::Secret;
use vixDiskLib::sim::fault::Faults;
use vixDiskLib::sim::fault::Rule;
use vixDiskLib::sim::nfc::Grant;
use vixDiskLib::sim::nfc::House;
use vixDiskLib::sim::nfc::Knobs;
use vixDiskLib::sim::nfc::NfcServer;
use vixDiskLib::sim::nfc::Refusal;
use vixDiskLib::sim::nfc::Right;
use vixDiskLib::sim::nfc::Volume;
use vixDiskLib::sim::nfc::dialect::Dialect;

/// The path of the one disk that every [`Host`] has.
pub const PATH: &str = "[ds] vm/vm.vmdk";

/// Bytes that are allocated together.
pub const CLUSTER: usize = 64 << 10;

/// A disk in memory.
#[derive(Debug)]
pub struct MemoryDisk {
    capacity: u64,
    bytes: RwLock<Vec<u8>>,
    allocated: Mutex<Vec<bool>>,
    keys: HashMap<String, String>,
    /// Reads that touch this byte fail.
    bad: AtomicU64,
    /// Reads that have begun.
    pub reads: AtomicU64,
    /// Times that it was flushed.
    pub flushed: AtomicU64,
}

impl MemoryDisk {
    /// With this content; clusters of zeros are not allocated.
    pub fn new(bytes: Vec<u8>) -> Self {
        let allocated = bytes.chunks(CLUSTER).map(|c| c.iter().any(|b| *b != 0)).collect();
        let keys = [("adapterType", "lsilogic"), ("uuid", "60 00 C2 9a"), ("geometry.biosHeads", "255")];
        let keys = keys.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let capacity = bytes.len() as u64;
        let (bytes, bad) = (RwLock::new(bytes), AtomicU64::new(u64::MAX));
        Self {
            capacity,
            bytes,
            allocated: Mutex::new(allocated),
            keys,
            bad,
            reads: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
        }
    }

    /// Reads of this byte fail.
    pub fn spoil(&self, offset: u64) {
        self.bad.store(offset, Ordering::Relaxed);
    }

    /// Until this is dropped reads wait.
    pub fn hold(&self) -> RwLockWriteGuard<'_, Vec<u8>> {
        self.bytes.write().unwrap()
    }

    /// A copy of the content.
    pub fn content(&self) -> Vec<u8> {
        self.bytes.read().unwrap().clone()
    }
}

impl Volume for MemoryDisk {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn geometry(&self) -> (u32, u32, u32) {
        (2088, 255, 63)
    }

    fn sector_size(&self) -> u32 {
        512
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if (offset..offset + buf.len() as u64).contains(&self.bad.load(Ordering::Relaxed)) {
            return Err(Error::new(ErrorKind::Io, "a bad sector"));
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        let bytes = self.bytes.read().unwrap();
        buf.copy_from_slice(&bytes[offset as usize..offset as usize + buf.len()]);
        Ok(())
    }

    fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        let range = offset as usize..offset as usize + buf.len();
        self.bytes.write().unwrap()[range.clone()].copy_from_slice(buf);
        self.allocated.lock().unwrap()[range.start / CLUSTER..range.end.div_ceil(CLUSTER)].fill(true);
        Ok(())
    }

    fn allocated(&self, range: Range<u64>, tell: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        for (i, _) in self.allocated.lock().unwrap().iter().enumerate().filter(|(_, a)| **a) {
            let cluster = (i * CLUSTER) as u64..((i + 1) * CLUSTER) as u64;
            let part = cluster.start.max(range.start)..cluster.end.min(range.end);
            if !part.is_empty() {
                tell(part);
            }
        }
        Ok(())
    }

    fn key(&self, key: &str) -> Option<String> {
        self.keys.get(key).cloned()
    }

    fn flush(&self) -> Result<()> {
        self.flushed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Tickets and disks.
#[derive(Debug, Default)]
pub struct Shelf {
    disks: Mutex<HashMap<String, Arc<dyn Volume>>>,
    tickets: Mutex<HashMap<String, Grant>>,
    made: AtomicU64,
}

impl House for Shelf {
    fn redeem(&self, ticket: &str) -> Option<Grant> {
        self.tickets.lock().unwrap().remove(ticket)
    }

    fn open(&self, _: &Grant, path: &str, _: bool) -> Result<Arc<dyn Volume>, Refusal> {
        self.disks.lock().unwrap().get(path).cloned().ok_or_else(|| Refusal {
            code: 11,
            text: "NfcAioProcessOpenFileMsg: permission check failed".to_owned(),
        })
    }
}

/// Lines of a log.
#[derive(Default)]
pub struct Lines(Mutex<Vec<String>>);

impl Sink for Lines {
    fn line(&self, _: Level, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

impl Lines {
    /// What was said.
    pub fn all(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

/// A running server with one disk.
pub struct Host {
    pub server: NfcServer,
    pub shelf: Arc<Shelf>,
    pub knobs: Arc<Knobs>,
    pub disk: Arc<MemoryDisk>,
    pub sha1: String,
    pub sha256: String,
    pub lines: Arc<Lines>,
}

impl Host {
    /// A host of version 8 with a disk of this content.
    pub fn new(content: Vec<u8>) -> Self {
        Self::of("8.0", content, &[&rustls::version::TLS12, &rustls::version::TLS13])
    }

    /// A host of this release.
    pub fn of(release: &str, content: Vec<u8>, tls: &[&'static rustls::SupportedProtocolVersion]) -> Self {
        let (config, sha1, sha256) = certificate(tls);
        let shelf = Arc::new(Shelf::default());
        let disk = Arc::new(MemoryDisk::new(content));
        shelf.disks.lock().unwrap().insert(PATH.to_owned(), Arc::clone(&disk) as Arc<dyn Volume>);
        let knobs = Arc::new(Knobs::new(Dialect::named(release).unwrap(), Arc::new(Faults::new())));
        let lines = Arc::new(Lines::default());
        let log = Log::new(Arc::clone(&lines) as Arc<dyn Sink>, Level::Debug);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let house = Arc::clone(&shelf) as Arc<dyn House>;
        let server =
            NfcServer::start(address, config, sha256.clone(), house, Arc::clone(&knobs), log).unwrap();
        Self { server, shelf, knobs, disk, sha1, sha256, lines }
    }

    /// Puts another disk at a path.
    pub fn add(&self, path: &str, disk: Arc<dyn Volume>) {
        self.shelf.disks.lock().unwrap().insert(path.to_owned(), disk);
    }

    /// Adds a rule.
    pub fn fault(&self, rule: &str) {
        self.knobs.faults.add(Rule::parse(rule).unwrap());
    }

    /// Changes a setting.
    pub fn set(&self, setting: &str) {
        self.knobs.set(setting).unwrap();
    }

    /// A ticket for one connection.
    pub fn ticket(&self, right: Right) -> Ticket {
        let id = format!("52cdebc5-canary-{}", self.shelf.made.fetch_add(1, Ordering::Relaxed));
        let grant = Grant { machine: "vm-1".to_owned(), right };
        self.shelf.tickets.lock().unwrap().insert(id.clone(), grant);
        Ticket {
            host: Some(self.server.address().ip().to_string()),
            port: self.server.address().port(),
            identity: Some(HostIdentity::Thumbprint(self.sha1.clone())),
            service: "vpxa-nfc".to_owned(),
            id: Secret::from(id),
        }
    }
}

/// A self-signed certificate of the server, and its thumbprints.
pub fn certificate(
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> (Arc<ServerConfig>, String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let der = made.cert.der().clone();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], key)
        .unwrap();
    let hex = |algorithm: &'static digest::Algorithm| {
        let digest = digest::digest(algorithm, &der);
        digest.as_ref().iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":")
    };
    (Arc::new(config), hex(&digest::SHA1_FOR_LEGACY_USE_ONLY), hex(&digest::SHA256))
}
