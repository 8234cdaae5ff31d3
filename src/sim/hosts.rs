//! The hosts: one, or several under a vCenter.
//!
//! Each has its authd and NFC on a port of its own, its certificate, its settings, its limits, and its own idea of which
//! tickets are good: those that were made for machines that run on it.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::sim::certificate::Identity;
use crate::sim::fault::Faults;
use crate::sim::house::Estate;
use crate::sim::nfc::Cutter;
use crate::sim::nfc::Knobs;
use crate::sim::nfc::NfcServer;
use crate::sim::nfc::dialect::Dialect;
use crate::sim::options::Options;
use crate::sim::site::Site;

/// More hosts are refused: each has a port and threads.
const MOST: usize = 64; // as many as a cluster of the vendor's

/// A host.
#[derive(Debug)]
pub struct Host {
    /// Its certificate.
    pub identity: Identity,
    /// How its NFC server behaves.
    pub knobs: Arc<Knobs>,
    /// Where that is, and what ends its connections; empty until it serves.
    serving: OnceLock<(SocketAddr, Cutter)>,
}

impl Host {
    /// Where authd and NFC are served, once they are.
    pub fn address(&self) -> Option<SocketAddr> {
        self.serving.get().map(|(address, _)| *address)
    }

    /// The port of authd.
    pub fn port(&self) -> u16 {
        self.address().map_or(0, |address| address.port())
    }

    /// Ends the connections that are about a machine.
    pub fn cut_machine(&self, machine: &str) {
        if let Some((_, cutter)) = self.serving.get() {
            cutter.cut_machine(machine);
        }
    }
}

/// The hosts that the options ask for. The first one has the certificate of the vCenter, as it is the same machine; the others
/// have their own, unless the caller brought one.
pub fn new(options: &Options, first: &Identity, faults: &Arc<Faults>) -> Result<Vec<Host>> {
    let wrong = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
    match options.hosts {
        1 => {}
        _ if options.esxi => return wrong("a bare host is one host".to_owned()),
        count if !(1..=MOST).contains(&count) => return wrong(format!("{count} hosts, and not 1 to {MOST}")),
        _ => {}
    }
    let files = options.certificate.as_ref();
    (0..options.hosts)
        .map(|at| {
            let identity = match (at, files) {
                (0, _) | (_, Some(_)) => first.clone(),
                _ => Identity::new(None, options.nfc.ip())?,
            };
            let dialect = Dialect::named(options.release.personality().name).unwrap_or_else(Dialect::usual);
            let knobs = Knobs::new(dialect, faults.clone());
            options.nfc_settings.iter().try_for_each(|setting| knobs.set(setting))?;
            Ok(Host { identity, knobs: Arc::new(knobs), serving: OnceLock::new() })
        })
        .collect()
}

/// Lets every host serve: the first where the options say, the others on the same address and any port that is free.
pub fn serve(site: &Arc<Site>) -> Result<Vec<NfcServer>> {
    let given = site.options.nfc;
    let serve = |(at, host): (usize, &Host)| {
        let listen = if at == 0 { given } else { SocketAddr::new(given.ip(), 0) };
        let (tls, thumbprint) = (host.identity.config.clone(), host.identity.sha256.clone());
        let estate = Arc::new(Estate { site: site.clone(), host: at });
        let (knobs, log) = (host.knobs.clone(), site.log.clone());
        let server = NfcServer::start(listen, tls, thumbprint, estate, knobs, log);
        let server = server.context(|| format!("host {}", at + 1))?;
        let _ = host.serving.set((server.address(), server.cutter())); // it is empty until here
        Ok(server)
    };
    site.hosts.iter().enumerate().map(serve).collect()
}

/// An address as clients can use it.
pub fn reachable(ip: IpAddr) -> String {
    if ip.is_unspecified() { "127.0.0.1".to_owned() } else { ip.to_string() }
}
