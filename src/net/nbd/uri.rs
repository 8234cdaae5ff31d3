//! NBD URIs, as `doc/uri.md` of the reference implementation describes them.
//!
//! ```text
//! nbd://host[:port][/export]              nbds://…        the same, never without TLS
//! nbd+unix:///[export]?socket=path        nbds+unix://…
//! ```

use std::net::Ipv6Addr;
use std::path::PathBuf;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nbd::options::LONGEST_NAME;
use crate::net::socket::Address;

/// The port that belongs to NBD.
pub const PORT: u16 = 10809;

/// Where an export is and how it may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdUri {
    /// The scheme demands TLS. Without it TLS is up to who connects.
    pub tls: bool,
    /// Where the server listens.
    pub address: Address,
    /// The export's name; `None` when the path is empty or `/`, which stands for the server's default export.
    pub export: Option<String>,
    /// Folder with `ca-cert.pem` and perhaps `client-cert.pem` and `client-key.pem`: `tls-certificates`.
    pub tls_certificates: Option<PathBuf>,
    /// The name the server's certificate must carry, if not the host's: `tls-hostname`.
    pub tls_host: Option<String>,
    /// `tls-verify-peer`, if given.
    pub tls_verify: Option<bool>,
}

impl NbdUri {
    /// Reads a URI. `None`: the text does not begin like one and may be a host or file name; a text that begins like one
    /// and is wrong is [`ErrorKind::InvalidArgument`].
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let Some((scheme, rest)) = text.split_once(':') else { return Ok(None) };
        let (tls, unix) = match scheme.to_ascii_lowercase().as_str() {
            "nbd" => (false, false),
            "nbds" => (true, false),
            "nbd+unix" => (false, true),
            "nbds+unix" => (true, true),
            other if other.starts_with("nbd+") || other.starts_with("nbds+") => {
                let message =
                    format!("NBD over {other:?}: the schemes are nbd, nbds, nbd+unix and nbds+unix");
                return Err(Error::new(ErrorKind::NotSupported, message));
            }
            _ => return Ok(None),
        };
        if !unix && !rest.starts_with("//") {
            return Ok(None); // a host called "nbd" with a port, or a file
        }
        parts(tls, unix, rest).map(Some).context(|| "the NBD URI of the disk or server")
    }
}

/// What follows the scheme.
fn parts(tls: bool, unix: bool, rest: &str) -> Result<NbdUri> {
    if rest.contains('#') {
        return Err(wrong("a '#' in it must be written %23"));
    }
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = match before.strip_prefix("//") {
        Some(after) => after.split_at(after.find('/').unwrap_or(after.len())),
        None => ("", before),
    };
    let query = Query::parse(query)?;
    let address = match (unix, query.socket) {
        (true, Some(socket)) if host_of(authority)?.is_empty() => Address::Unix(socket),
        (true, Some(_)) => return Err(wrong("a host and a Unix socket exclude each other")),
        (true, None) => return Err(wrong("the parameter 'socket' is missing")),
        (false, Some(_)) => return Err(wrong("'socket' belongs to nbd+unix and nbds+unix")),
        (false, None) => tcp(host_of(authority)?)?,
    };
    Ok(NbdUri {
        tls,
        address,
        export: export_of(path)?,
        tls_certificates: query.certificates,
        tls_host: query.host,
        tls_verify: query.verify,
    })
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// The authority without the user, who means something to pre-shared keys only. A password is refused, for URIs end up
/// in logs.
fn host_of(authority: &str) -> Result<&str> {
    match authority.rsplit_once('@') {
        Some((user, _)) if user.contains(':') => Err(wrong("NBD has no passwords, and here is one")),
        Some((_, host)) => Ok(host),
        None => Ok(authority),
    }
}

/// `host`, `host:port`, `[address]` or `[address]:port`; without a host this machine.
fn tcp(text: &str) -> Result<Address> {
    let (host, port) = match text.strip_prefix('[') {
        Some(inside) => {
            let (host, after) = inside.split_once(']').ok_or_else(|| wrong("a '[' without its ']'"))?;
            let host = decoded(host, "host")?;
            let address = host.split_once('%').map_or(host.as_str(), |(address, _zone)| address);
            address.parse::<Ipv6Addr>().map_err(|_| wrong(format!("{host:?} is no IPv6 address")))?;
            let port = after.strip_prefix(':').or(after.is_empty().then_some(""));
            (host, port.ok_or_else(|| wrong(format!("{after:?} after the address")))?)
        }
        None => {
            let (host, port) = text.split_once(':').unwrap_or((text, ""));
            if port.contains(':') {
                return Err(wrong("an IPv6 address must stand in brackets"));
            }
            (decoded(host, "host")?, port)
        }
    };
    let host = if host.is_empty() { "localhost".to_owned() } else { host };
    Ok(Address::Tcp { host, port: port_of(port)? })
}

fn port_of(text: &str) -> Result<u16> {
    if text.is_empty() {
        return Ok(PORT);
    }
    match text.parse() {
        Ok(port) if port != 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(wrong(format!("the port {text:?} is none of 1 to 65535"))),
    }
}

/// The path without its first `/`.
fn export_of(path: &str) -> Result<Option<String>> {
    let name = decoded(path.strip_prefix('/').unwrap_or(path), "export name")?;
    if name.len() > LONGEST_NAME {
        return Err(wrong(format!("the export name has {} bytes of at most {LONGEST_NAME}", name.len())));
    }
    Ok((!name.is_empty()).then_some(name))
}

/// The parameters after the `?`.
#[derive(Debug, Default)]
struct Query {
    socket: Option<PathBuf>,
    certificates: Option<PathBuf>,
    host: Option<String>,
    verify: Option<bool>,
}

impl Query {
    fn parse(text: &str) -> Result<Self> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded(name, "parameter")?;
            let value = decoded(value, &name)?;
            query.take(&name, value)?;
        }
        Ok(query)
    }

    /// What is not understood is an error: a misspelt parameter must not weaken what was asked for.
    fn take(&mut self, name: &str, value: String) -> Result<()> {
        match name {
            "socket" => once(&mut self.socket, name, PathBuf::from(filled(name, value)?)),
            "tls-certificates" => once(&mut self.certificates, name, PathBuf::from(filled(name, value)?)),
            "tls-hostname" => once(&mut self.host, name, filled(name, value)?),
            "tls-verify-peer" => match value.as_str() {
                "0" | "false" => once(&mut self.verify, name, false),
                "1" | "true" => once(&mut self.verify, name, true),
                _ => Err(wrong(format!("{name}={value:?} is neither 0 nor 1"))),
            },
            "tls-type" if value == "x509" => Ok(()),
            "tls-type" | "tls-psk-file" => {
                let message = format!("{name}={value:?}: TLS with pre-shared keys or without certificates");
                Err(Error::new(ErrorKind::NotSupported, message))
            }
            _ => Err(wrong(format!("the parameter {name:?} is unknown"))),
        }
    }
}

fn filled(name: &str, value: String) -> Result<String> {
    if value.is_empty() { Err(wrong(format!("the parameter '{name}' is empty"))) } else { Ok(value) }
}

fn once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(wrong(format!("the parameter '{name}' is there twice"))),
    }
}

/// Percent-decoded text. A NUL has no meaning anywhere in a URI: names end at it, and sockets outside the file system,
/// which begin with one, are not supported.
fn decoded(text: &str, what: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => hex(rest.next())
                .zip(hex(rest.next()))
                .map(|(high, low)| high << 4 | low)
                .ok_or_else(|| wrong(format!("the {what} {text:?} has a '%' without two digits")))?,
            _ => byte,
        };
        if byte == 0 {
            return Err(wrong(format!("the {what} {text:?} has a NUL in it")));
        }
        bytes.push(byte);
    }
    String::from_utf8(bytes).map_err(|_| wrong(format!("the {what} {text:?} is not UTF-8")))
}

fn hex(digit: Option<u8>) -> Option<u8> {
    char::from(digit?).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> NbdUri {
        NbdUri::parse(text).unwrap().unwrap()
    }

    fn at(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn hosts_ports_and_exports_are_told_apart() {
        for (text, address, export) in [
            ("nbd://example.com", at("example.com", PORT), None),
            ("NBD://example.com/", at("example.com", PORT), None),
            ("nbd://example.com:/", at("example.com", PORT), None),
            ("nbd://example.com:1234/disk", at("example.com", 1234), Some("disk")),
            ("nbd://example.com//disk", at("example.com", PORT), Some("/disk")),
            ("nbd://example.com/hello%20world%2f+%3F", at("example.com", PORT), Some("hello world/+?")),
            ("nbd://example.com/d%C3%A4/é", at("example.com", PORT), Some("dä/é")),
            ("nbd://[::1]", at("::1", PORT), None),
            ("nbd://[fe80::1%25eth0]:7/x", at("fe80::1%eth0", 7), Some("x")),
            ("nbd://alice@[::1]:8", at("::1", 8), None),
            ("nbd:///x", at("localhost", PORT), Some("x")),
            ("nbd://h?tls-verify-peer=0", at("h", PORT), None),
            ("nbd://h/a@b:c", at("h", PORT), Some("a@b:c")),
        ] {
            let uri = parsed(text);
            assert_eq!((uri.address, uri.export.as_deref()), (address, export), "{text}");
            assert!(!uri.tls, "{text}");
        }
    }

    #[test]
    fn sockets_and_tls_parameters_are_read() {
        let uri = parsed(
            "nbds+unix:///e?socket=/tmp/a%20b&tls-certificates=certs&tls-hostname=h&tls-verify-peer=1",
        );
        assert!(uri.tls);
        assert_eq!(uri.address, Address::Unix("/tmp/a b".into()));
        assert_eq!(uri.export.as_deref(), Some("e"));
        assert_eq!(uri.tls_certificates, Some("certs".into()));
        assert_eq!((uri.tls_host.as_deref(), uri.tls_verify), (Some("h"), Some(true)));
        for text in
            ["nbd+unix:?socket=s", "nbd+unix:/?socket=s", "nbd+unix:///?socket=s", "nbd+unix://u@/?socket=s"]
        {
            assert_eq!(parsed(text).address, Address::Unix("s".into()), "{text}");
        }
        assert_eq!(parsed("nbd+unix:/e?socket=s").export.as_deref(), Some("e"));
    }

    #[test]
    fn what_is_no_nbd_uri_is_left_to_others() {
        for text in
            ["", "nbd", "esx1.example.com", "/vmfs/a.vmdk", "nbd:902", "nbdx://h", "https://h", "[ds] a/b:c"]
        {
            assert_eq!(NbdUri::parse(text).unwrap(), None, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for text in [
            "nbd://h:0",
            "nbd://h:65536",
            "nbd://h:+1",
            "nbd://h:x",
            "nbd://[::1",
            "nbd://[::1]x",
            "nbd://[::g]",
            "nbd://::1",
            "nbd://u:secret@h",
            "nbd://h/%",
            "nbd://h/%2",
            "nbd://h/%zz",
            "nbd://h/%00",
            "nbd://h/%ff",
            "nbd://h/a#b",
            "nbd://h?socket=s",
            "nbd+unix:///e",
            "nbd+unix:///e?socket=",
            "nbd+unix://h/e?socket=s",
            "nbd+unix:///?socket=%00a",
            "nbd+unix:///?socket=a&socket=b",
            "nbd://h?tls-verify=1",
            "nbds://h?tls-verify-peer=2",
            "nbds://h?tls-certificates=",
        ] {
            let error = NbdUri::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let long = format!("nbd://h/{}", "x".repeat(LONGEST_NAME + 1));
        assert_eq!(NbdUri::parse(&long).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn what_exists_elsewhere_is_refused_by_name() {
        for (text, name) in [
            ("nbds://h?tls-psk-file=keys", "tls-psk-file"),
            ("nbds://h?tls-type=psk", "tls-type"),
            ("nbds://h?tls-type=anon", "tls-type"),
            ("nbd+vsock:///", "nbd+vsock"),
            ("nbds+ssh://h", "nbds+ssh"),
        ] {
            let error = NbdUri::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotSupported, "{text}");
            assert!(error.to_string().contains(name), "{error}");
        }
        assert!(NbdUri::parse("nbds://h?tls-type=x509").unwrap().unwrap().tls);
    }
}
