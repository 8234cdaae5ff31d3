//! NBD servers: where one is, as callers name it, and the two ways to an export of it.

use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::logging::Log;
use crate::net::nbd::client::Dial;
use crate::net::nbd::client::Options;
use crate::net::nbd::uri::NbdUri;
use crate::net::nbd::uri::PORT;
use crate::net::socket::Address;
use crate::net::tls::Tls;
use crate::net::tls::TlsSettings;
use crate::storage::Identity;
use crate::transport::Line;
use crate::transport::Mode;
use crate::transport::Remote;
use crate::transport::blocks::BlockStorage;
use crate::transport::choice;
use crate::transport::choice::Way;
use crate::transport::nbd_dial;
use crate::transport::readahead::ReadAhead;

/// A server that speaks NBD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdServer {
    uri: NbdUri,
    /// The fingerprint that the server's certificate must have.
    thumbprint: Option<String>,
}

/// How an export is opened.
#[derive(Clone, Debug)]
pub struct How {
    /// The caller's list of transports.
    pub modes: Option<String>,
    /// Timeouts and bounds.
    pub options: Options,
    /// Certificates and trust.
    pub tls: TlsSettings,
}

/// The port that programs put into the parameters which mean vCenter's.
const VCENTER: u32 = 443;

impl NbdServer {
    /// The server that the parameters of a connection name, if it is an NBD server. `port` counts where the name has none;
    /// 443, which programs fill in for vCenter, counts as none. A name that begins like an NBD URI and is wrong is
    /// `InvalidArgument`.
    pub fn named(server: &str, port: u32, thumbprint: Option<&str>) -> Result<Option<Self>> {
        let Some(mut uri) = NbdUri::parse(server.trim())? else { return Ok(None) };
        if let Address::Tcp { port: named, .. } = &mut uri.address
            && *named == PORT
            && !matches!(port, 0 | VCENTER)
        {
            *named = u16::try_from(port).map_err(|_| {
                Error::new(ErrorKind::InvalidArgument, format!("port {port} is not below 65536"))
            })?;
        }
        let thumbprint = thumbprint.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        Ok(Some(Self { uri, thumbprint }))
    }

    /// The server of a disk that is named by a whole URI where a path is expected.
    pub fn of_path(path: &Path, thumbprint: Option<&str>) -> Result<Option<Self>> {
        path.to_str().map_or(Ok(None), |text| Self::named(text, 0, thumbprint))
    }

    /// Opens the export `path`; without a path the one of the server's name, or the server's default.
    pub fn open(&self, path: &Path, how: &How, log: &Log) -> Result<Remote> {
        let export = self.export(path)?;
        let plain = NbdWay { server: self, export: &export, how, log, mode: Mode::Nbd };
        let tls = NbdWay { mode: Mode::NbdSsl, ..plain };
        // A name says what it wants; only who lists TLS first gets it on a server that is named without.
        let ways: &[&dyn Way<Opened = Remote>] = if self.uri.tls { &[&tls] } else { &[&plain, &tls] };
        choice::open(how.modes.as_deref(), ways, &self.label(&export, self.uri.tls), log)
    }

    fn export(&self, path: &Path) -> Result<String> {
        let path = path.to_str().ok_or_else(|| {
            Error::new(ErrorKind::NameInvalid, format!("the export name {} is not in UTF-8", path.display()))
        })?;
        Ok(match path {
            "" => self.uri.export.clone().unwrap_or_default(),
            path => path.to_owned(),
        })
    }

    /// The export's URI.
    pub fn label(&self, export: &str, tls: bool) -> String {
        let scheme = if tls { "nbds" } else { "nbd" };
        let export = quoted(export);
        match &self.uri.address {
            Address::Tcp { host, port } if host.contains(':') => {
                format!("{scheme}://[{host}]:{port}/{export}")
            }
            Address::Tcp { host, port } => format!("{scheme}://{host}:{port}/{export}"),
            Address::Unix(socket) => format!("{scheme}+unix:///{export}?socket={}", socket.display()),
        }
    }

    /// The name that the server's certificate must carry.
    fn host(&self) -> String {
        match (&self.uri.tls_host, &self.uri.address) {
            (Some(host), _) | (None, Address::Tcp { host, .. }) => host.clone(),
            (None, Address::Unix(_)) => "localhost".to_owned(),
        }
    }

    /// The URI may say more about TLS than the configuration: what it says counts.
    fn tls_settings(&self, configured: &TlsSettings) -> TlsSettings {
        let mut settings = TlsSettings { thumbprint: self.thumbprint.clone(), ..configured.clone() };
        if let Some(folder) = &self.uri.tls_certificates {
            settings.use_folder(folder);
        }
        settings.verify = self.uri.tls_verify.unwrap_or(settings.verify);
        settings
    }
}

/// An export name as it stands in a URI: nothing in it ends the URI or a line of the log.
fn quoted(export: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(byte);
    export.bytes().fold(String::new(), |mut text, byte| {
        match plain(&byte) {
            true => text.push(char::from(byte)),
            false => text += &format!("%{byte:02X}"),
        }
        text
    })
}

/// One of the two ways.
#[derive(Clone, Copy)]
struct NbdWay<'a> {
    server: &'a NbdServer,
    export: &'a str,
    how: &'a How,
    log: &'a Log,
    mode: Mode,
}

impl Way for NbdWay<'_> {
    type Opened = Remote;

    fn mode(&self) -> Mode {
        self.mode
    }

    fn open(&self) -> Result<Remote> {
        let label = self.server.label(self.export, self.mode == Mode::NbdSsl);
        self.open_as(&label).context(|| format!("opening {label}"))
    }
}

impl NbdWay<'_> {
    fn open_as(&self, label: &str) -> Result<Remote> {
        let tls = match self.mode {
            Mode::NbdSsl => {
                let settings = self.server.tls_settings(&self.how.tls);
                Some((Tls::new(&settings, self.log.clone())?, self.server.host()))
            }
            _ => {
                if self.server.thumbprint.is_some() {
                    self.log.warning(|| {
                        format!(
                            "{label}: the thumbprint is of no use here: without TLS there is no certificate"
                        )
                    });
                }
                None
            }
        };
        let target = Dial { address: self.server.uri.address.clone(), export: self.export.to_owned(), tls };
        let line = Arc::new(nbd_dial::dial(target, self.mode, &self.how.options, self.log)?);
        let write = self.how.options.write;
        let disk = BlockStorage::new(line.blocks(), label.to_owned(), write, self.log.clone())
            .map(|export| ReadAhead::new(Arc::new(export)))
            .and_then(|export| Disk::raw(Arc::new(export), write, identity(label)))
            .inspect_err(|_| line.cut())?;
        Ok(Remote { disk, kind: "raw", label: label.to_owned(), line, facts: None })
    }
}

/// Exports are told apart by their names: no two links of a chain are exports.
fn identity(label: &str) -> Identity {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    label.hash(&mut hasher);
    Identity(u64::MAX, hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, port: u32) -> NbdServer {
        NbdServer::named(name, port, Some(" AA:BB ")).unwrap().unwrap()
    }

    #[test]
    fn only_nbd_names_are_nbd_servers() {
        for other in ["esx.example.org", "https://vc/sdk", "", "/nbd/disk.vmdk", "10.0.0.1"] {
            assert_eq!(NbdServer::named(other, 0, None).unwrap(), None, "{other:?}");
        }
        assert_eq!(NbdServer::named("nbd+unix:///", 0, None).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert!(NbdServer::of_path(Path::new("nbd://h/e"), None).unwrap().is_some());
        assert!(NbdServer::of_path(Path::new("/vm/disk.vmdk"), None).unwrap().is_none());
    }

    #[test]
    fn the_port_of_the_parameters_counts_where_the_name_has_none() {
        let port = |name, port| server(name, port).label("", false);
        assert_eq!(port("nbd://h", 0), "nbd://h:10809/");
        assert_eq!(port("nbd://h", 10000), "nbd://h:10000/");
        assert_eq!(port("nbd://h", 443), "nbd://h:10809/");
        assert_eq!(port("nbd://h:9", 10000), "nbd://h:9/");
        assert_eq!(NbdServer::named("nbd://h", 70000, None).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn the_path_names_the_export_and_without_one_the_server_does() {
        let export = |name, path| server(name, 0).export(Path::new(path)).unwrap();
        assert_eq!(export("nbd://h/of-the-name", "of the path"), "of the path");
        assert_eq!(export("nbd://h/of-the-name", ""), "of-the-name");
        assert_eq!(export("nbd://h", ""), "");
    }

    #[test]
    fn a_label_is_one_line_and_a_uri() {
        let label = server("nbds://[::1]:1/", 0).label("a b\n?é/x", true);
        assert_eq!(label, "nbds://[::1]:1/a%20b%0A%3F%C3%A9/x");
        assert_eq!(server("nbd+unix:///e?socket=/run/s", 0).label("e", false), "nbd+unix:///e?socket=/run/s");
    }

    #[test]
    fn what_the_uri_says_about_tls_counts_more_than_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let configured = TlsSettings { ca_file: Some("/ca".into()), ..TlsSettings::default() };
        let name = format!("nbds://h?tls-certificates={}&tls-verify-peer=false", folder.path().display());
        let settings = server(&name, 0).tls_settings(&configured);
        assert_eq!(settings.ca_file, Some(folder.path().join("ca-cert.pem")));
        assert_eq!((settings.thumbprint.as_deref(), settings.verify), (Some("AA:BB"), false));
        let settings = server("nbds://h", 0).tls_settings(&configured);
        assert_eq!((settings.ca_file, settings.verify), (configured.ca_file, true));
    }

    #[test]
    fn the_certificate_must_carry_the_host_of_the_name() {
        assert_eq!(server("nbds://h", 0).host(), "h");
        assert_eq!(server("nbds://h?tls-hostname=other", 0).host(), "other");
        assert_eq!(server("nbds+unix:///?socket=/s", 0).host(), "localhost");
    }
}
