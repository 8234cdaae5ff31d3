//! What hosts are asked for, so that tests can be the host.

use std::fmt::Debug;
use std::sync::Arc;

use crate::error::Result;
use crate::format::geometry::Geometry;
use crate::net::nfc::Compression;
use crate::net::nfc::client::Buffers;
use crate::net::nfc::client::Options;
use crate::net::tls::TlsSettings;
use crate::transport::Chain;
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
    /// The host's buffers.
    pub buffers: Buffers,
    /// Times and bounds. The time to connect is also that to wait for room on a host.
    pub options: Options,
    /// How we call ourselves.
    pub client_name: String,
    /// The certificate of the second handshake need not be that of the first.
    pub any_second_certificate: bool,
    /// What counts for every TLS connection.
    pub tls: TlsSettings,
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
    /// The chain below it, where that was seen.
    pub chain: Option<Chain>,
}

/// Where disks are opened.
pub trait Hosts: Debug + Send + Sync {
    /// Connects and opens the disk.
    fn open(&self, errand: &Errand) -> Result<Served>;
}
