//! TLS 1.2 and 1.3 over any [`Stream`].
//!
//! ```text
//!   Tls ── settings turned into a configuration (config), asked once per connection
//!    │ wrap
//!   handshake   rustls proves who the server is (verify: anchors or thumbprint)
//!    │ keys
//!   stream      one half sends, one receives, they share nothing but key changes
//!    └ record   one record in, one record out; no sockets
//! ```
//!
//! Nothing here falls back to less: a handshake that fails is an error, and there is no way from it to plain text.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Log;
use crate::net::stream::Stream;

/// What is known about servers, and what they may know about us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificates in PEM that vouch for servers, instead of the system's.
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
}

/// Makes encrypted streams out of plain ones. Clones share what they are made of.
#[derive(Clone, Debug)]
pub struct Tls(Arc<TlsSettings>);

impl Tls {
    /// Reads the files that the settings name.
    pub fn new(settings: &TlsSettings, _log: Log) -> Result<Tls> {
        Ok(Self(Arc::new(settings.clone())))
    }

    /// Shakes hands over a connected stream. `host` is the name or address that the server's certificate must be for.
    pub fn wrap(&self, _stream: Box<dyn Stream>, _host: &str, _until: Instant) -> Result<Box<dyn Stream>> {
        Err(Error::new(ErrorKind::NotSupported, "TLS is not built yet"))
    }
}
