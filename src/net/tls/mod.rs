//! TLS 1.2 and 1.3 over any [`Stream`].
//!
//! ```text
//!   Tls ── settings turned into a configuration (config), asked once per connection
//!    │ wrap
//!   handshake   rustls proves who the server is (verify: anchors or pinned certificates)
//!    │ keys
//!   stream      one half sends, one receives, they share nothing but key changes
//!    └ record   one record in, one record out; no sockets
//! ```
//!
//! Nothing here falls back to less: a handshake that fails is an error, and there is no way from it to plain text.

mod config;
mod der;
mod episode;
mod handshake;
mod inbox;
mod key;
mod odd;
mod record;
mod refusal;
mod server;
mod stream;
mod target;
mod thumbprint;
mod verify;

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Log;
use crate::net::stream::Stream;
pub use crate::net::tls::episode::Episode;
use crate::net::tls::inbox::Inbox;
pub use crate::net::tls::server::TlsServer;
use crate::net::tls::stream::TlsStream;
use crate::net::tls::thumbprint::Thumbprint;
use crate::net::tls::verify::Pin;

/// What is known about servers, and what they may know about us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificates in PEM that vouch for servers, instead of the system's. A server may also have one of them itself.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its chain in PEM, for servers that ask.
    pub certificate_file: Option<PathBuf>,
    /// The private key of our certificate in PEM, not encrypted.
    pub key_file: Option<PathBuf>,
    /// SHA-1 or SHA-256 of the one certificate that is accepted, in hexadecimal. It replaces the checks of issuer, name
    /// and dates, and holds even without [`TlsSettings::verify`].
    pub thumbprint: Option<String>,
    /// Servers without a thumbprint have to be vouched for.
    pub verify: bool,
    /// Only algorithms that FIPS 140 approves are offered. The module that computes them is not a validated one.
    pub approved_only: bool,
}

/// The system's anchors, everything checked, no certificate of our own.
impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            ca_file: None,
            certificate_file: None,
            key_file: None,
            thumbprint: None,
            verify: true,
            approved_only: false,
        }
    }
}

impl TlsSettings {
    /// The files of a folder under the names that other NBD programs use: `ca-cert.pem`, and `client-cert.pem` with
    /// `client-key.pem` where the folder has them.
    pub fn use_folder(&mut self, folder: &Path) {
        self.ca_file = Some(folder.join("ca-cert.pem"));
        let (certificate, key) = (folder.join("client-cert.pem"), folder.join("client-key.pem"));
        if certificate.exists() || key.exists() {
            (self.certificate_file, self.key_file) = (Some(certificate), Some(key));
        }
    }

    /// The thumbprint, unless it is empty.
    fn pin(&self) -> Option<&str> {
        self.thumbprint.as_deref().filter(|t| !t.trim().is_empty())
    }
}

/// A certificate that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The one with this SHA-1 or SHA-256 in hexadecimal.
    Thumbprint(String),
    /// This one, in DER.
    Certificate(Vec<u8>),
}

/// Makes encrypted streams out of plain ones. Clones share what they are made of.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    config: Arc<ClientConfig>,
    /// The server's name is part of what is checked.
    names_count: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files that the settings name, and the system's trust anchors where they are needed.
    pub fn new(settings: &TlsSettings, log: Log) -> Result<Tls> {
        let names_count = settings.verify && settings.pin().is_none();
        if !settings.verify && settings.pin().is_none() {
            log.warning(|| "the certificates of servers are not checked: anybody can be the server");
        }
        let config = config::build(settings, Vec::new(), log).context(|| "settings of TLS")?;
        Ok(Self(Arc::new(Shared { config, names_count })))
    }

    /// The same for servers with one of these certificates, whatever else the settings say about trust. There has to be
    /// one.
    pub fn pinned(settings: &TlsSettings, accepted: Vec<Accepted>, log: Log) -> Result<Tls> {
        if accepted.is_empty() {
            return Err(Error::new(ErrorKind::CertificateRefused, "no certificate is accepted"));
        }
        let pins = accepted.into_iter().map(|accepted| match accepted {
            Accepted::Thumbprint(given) => Pin::Thumbprint(Thumbprint::parse(&given)),
            Accepted::Certificate(der) => Pin::Certificate(der),
        });
        let config = config::build(settings, pins.collect(), log).context(|| "settings of TLS")?;
        Ok(Self(Arc::new(Shared { config, names_count: false })))
    }

    /// Shakes hands over a connected stream. `host` is the name or address that the server's certificate must be for.
    ///
    /// The kinds of errors: `CertificateRefused` (the server is not the right one), `Unauthorised` (the server does not
    /// take our certificate; with TLS 1.3 that may show only when the first bytes are received), `Protocol`, `TimedOut`,
    /// `ConnectionLost`.
    pub fn wrap(&self, stream: Box<dyn Stream>, host: &str, until: Instant) -> Result<Box<dyn Stream>> {
        self.shake(stream, host, until).map(|(stream, _)| Box::new(stream) as Box<dyn Stream>)
    }

    /// The same for a conversation after which the stream goes on without this TLS. What `stream` sends and receives on is
    /// to be kept by the caller.
    pub fn wrap_for_a_while(&self, stream: Box<dyn Stream>, host: &str, until: Instant) -> Result<Episode> {
        self.shake(stream, host, until).map(|(stream, certificate)| Episode::new(stream, certificate))
    }

    /// The encrypted stream, and the server's certificate.
    fn shake(&self, stream: Box<dyn Stream>, host: &str, until: Instant) -> Result<(TlsStream, Vec<u8>)> {
        let label = stream.label();
        let wrapped = self.name(host).and_then(|name| {
            let mut tls = UnbufferedClientConnection::new(Arc::clone(&self.0.config), name)
                .map_err(|e| handshake::failure(&e))?;
            let mut inbox = Inbox::new();
            handshake::shake(&mut tls, &*stream, &mut inbox, until)?;
            let certificate = tls.peer_certificates().and_then(|chain| chain.first());
            let certificate = certificate.map(|leaf| leaf.to_vec()).unwrap_or_default();
            Ok((TlsStream::new(tls.dangerous_into_kernel_connection(), stream, inbox)?, certificate))
        });
        wrapped.context(|| format!("TLS with {label}"))
    }

    fn name(&self, host: &str) -> Result<ServerName<'static>> {
        let host = host.strip_suffix('.').unwrap_or(host);
        match ServerName::try_from(host.to_owned()) {
            Ok(name) => Ok(name),
            // An address is not told to the server, so that any does where names do not count.
            Err(_) if !self.0.names_count => Ok(ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
            Err(_) => {
                let what = format!("{host:?} is no name or address that a certificate could be for");
                Err(Error::new(ErrorKind::CertificateRefused, what))
            }
        }
    }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod narrow;
#[cfg(test)]
mod pins;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trusted;
