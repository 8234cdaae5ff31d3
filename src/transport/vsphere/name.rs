//! Names of servers, as callers spell them.

use crate::error::{Error, ErrorKind, Result};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// The port of its interface.
    pub port: u16,
}

/// The port where nothing else is said.
const PORT: u16 = 443;
/// The port of a host's NFC service. Programs of old put it where the server's port belongs; nothing of what is asked of a
/// server is answered there.
const NFC_PORT: u32 = 902;
/// The longest name of the domain name system.
const LONGEST_HOST: usize = 255;

impl ServerName {
    /// Understands `host`, `host:port`, `[address]:port`, a bare address, and `https://` in front of them with a path behind.
    /// `port` counts where the name has none; 0 means the default. `None`: nothing is named.
    pub fn parse(text: &str, port: u32) -> Result<Option<ServerName>> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => rest,
            Some(_) => return Err(refused(text, "only https leads to a server")),
            None => text,
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the server's name has an @ in it: user and password belong into the credentials",
            ));
        }
        let (host, named) = split(authority).ok_or_else(|| refused(text, "its brackets are not closed"))?;
        check_host(text, host)?;
        let port = match named {
            Some(digits) => match digits.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(refused(text, "its port is none")),
            },
            None => given(port)?,
        };
        Ok(Some(ServerName { host: host.to_owned(), port }))
    }
}

/// `server.example.org:443`, addresses of IPv6 in brackets.
impl std::fmt::Display for ServerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Host and port of an authority. `None`: it makes no sense.
fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after {
            "" => Some((host, None)),
            after => after.strip_prefix(':').map(|port| (host, Some(port))),
        };
    }
    match authority.split_once(':') {
        // More than one colon: an address of IPv6 without brackets, which cannot have a port.
        Some((_, after)) if after.contains(':') => Some((authority, None)),
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

fn check_host(text: &str, host: &str) -> Result<()> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "[]\\\"<>".contains(c);
    if host.is_empty() || host.len() > LONGEST_HOST || host.contains(odd) {
        return Err(refused(text, "its host is none"));
    }
    Ok(())
}

/// The port of the parameters.
fn given(port: u32) -> Result<u16> {
    match port {
        0 | NFC_PORT => Ok(PORT),
        port => u16::try_from(port)
            .map_err(|_| Error::new(ErrorKind::InvalidArgument, format!("port {port} is not below 65536"))),
    }
}

fn refused(text: &str, why: &str) -> Error {
    let text: String = text.chars().take(200).collect();
    Error::new(ErrorKind::InvalidArgument, format!("{text:?} names no server: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, port: u32) -> String {
        ServerName::parse(text, port).unwrap().unwrap().to_string()
    }

    #[test]
    fn every_spelling_of_a_server_is_understood() {
        for text in
            ["vc.example.org", " vc.example.org\n", "https://vc.example.org/sdk", "HTTPS://vc.example.org"]
        {
            assert_eq!(parsed(text, 0), "vc.example.org:443", "{text:?}");
            assert_eq!(parsed(text, 8443), "vc.example.org:8443", "{text:?}");
        }
        for text in ["vc:9443", "https://vc:9443/sdk?x", "vc:9443/sdk"] {
            assert_eq!(parsed(text, 1), "vc:9443", "the name's own port counts");
        }
        for text in ["[::1]", "::1", "https://[::1]/sdk"] {
            assert_eq!(parsed(text, 0), "[::1]:443");
        }
        assert_eq!(parsed("[fe80::1%eth0]:444", 0), "[fe80::1%eth0]:444");
        assert_eq!(parsed("10.0.0.1", 443), "10.0.0.1:443");
    }

    #[test]
    fn the_port_of_hosts_is_none_of_a_server() {
        assert_eq!(parsed("esx", 902), "esx:443");
        assert_eq!(parsed("esx:902", 0), "esx:902", "who writes it out means it");
    }

    #[test]
    fn nothing_is_no_server() {
        assert_eq!(ServerName::parse(" ", 443).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_without_repeating_a_password() {
        for text in
            ["http://vc", "nfs://vc", "vc:0", "vc:x", "vc:99999", "https://", "[::1", "[::1]x", "a b", "[]"]
        {
            let e = ServerName::parse(text, 0).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{text}");
        }
        let e = ServerName::parse("https://root:canary@vc", 0).unwrap_err();
        assert!(!e.to_string().contains("canary"), "{e}");
        assert_eq!(ServerName::parse("vc", 70000).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
