//! What hosts are asked for, so that tests can be the host.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::format::geometry::Geometry;
use crate::net::tls::TlsSettings;
use crate::transport::homes::Home;
use crate::transport::vsphere::tickets::DiskTickets;

/// A disk to be opened with a host.
#[derive(Debug)]
pub struct Errand {
    /// What lets us in, to the host that it names.
    pub tickets: Arc<DiskTickets>,
    /// The host where a ticket names none.
    pub login_host: String,
    /// The port of hosts, where it is not the one that tickets name.
    pub nfc_port: Option<u16>,
    /// `[datastore] folder/disk.vmdk`.
    pub path: String,
    /// Writes will come.
    pub write: bool,
    /// Encrypted.
    pub ssl: bool,
    /// The rest.
    pub settings: NfcSettings,
}

/// How disks of hosts are talked about.
#[derive(Clone, Debug)]
pub struct NfcSettings {
    /// What is done to data on the wire.
    pub compression: Compression,
    /// Bytes and number of the session's buffers, where the configuration says something about them.
    pub buffers: Option<(u64, u64)>,
    /// Most operations under way at once; 0 finds.
    pub operations: u32,
    /// Time to make a connection, and to wait for room on a host.
    pub connect: Duration,
    /// Time for an answer.
    pub request: Duration,
    /// Time to make up for a lost connection.
    pub reconnect: Duration,
    /// How we call ourselves; `None`: as every client does.
    pub client_name: Option<String>,
    /// The certificate of the second handshake has to be that of the first.
    pub same_certificate: bool,
    /// What counts for every TLS connection.
    pub tls: TlsSettings,
}

/// What is done to data on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    Off,
    /// zlib.
    Zlib,
    /// FastLZ.
    FastLz,
    /// Runs of zeros are left out.
    SkipZ,
}

/// A disk that a host serves.
#[derive(Debug)]
pub struct Served {
    /// Its bytes.
    pub home: Home,
    /// Its name for the log: `vpxa-nfcssl://[datastore] folder/disk.vmdk@host:902`.
    pub url: String,
    /// Its geometry, unless the host says nothing of it.
    pub geometry: Option<Geometry>,
    /// The pairs of its database that were asked for and exist.
    pub database: Vec<(String, String)>,
}

/// Where disks are opened.
pub trait Hosts: Debug + Send + Sync {
    /// Connects and opens the disk.
    fn open(&self, errand: &Errand) -> Result<Served>;
}
