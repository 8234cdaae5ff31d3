//! The lines that authd, the doorkeeper of a host, exchanges with a client.
//!
//! The server's first line comes in clear text, everything else inside of TLS. A line ends in CRLF; a reply is a number
//! of three digits, a blank and a text. Commands are answered one by one, except `SESSION`, which is not answered.

use std::fmt;

use zeroize::Zeroizing;

use crate::error::Result;
use crate::net::nfc::broken;
use crate::net::nfc::fields::printable;

/// Longest line that is taken from a peer, its end included.
pub const MOST_LINE: usize = 2048;

/// How long the first line is, its end included. `None`: its end is not there.
pub fn line_length(bytes: &[u8]) -> Result<Option<usize>> {
    let found = bytes.iter().take(MOST_LINE).position(|b| *b == b'\n');
    if found.is_none() && bytes.len() >= MOST_LINE {
        return Err(broken(format!("a line of more than {MOST_LINE} bytes")));
    }
    Ok(found.map(|at| at + 1))
}

/// What is in a line: everything before its end.
fn content(line: &[u8]) -> Result<&[u8]> {
    match line.strip_suffix(b"\n") {
        Some(line) if line.len() < MOST_LINE => Ok(line.strip_suffix(b"\r").unwrap_or(line)),
        Some(_) => Err(broken(format!("a line of more than {MOST_LINE} bytes"))),
        None => Err(broken("a line without an end")),
    }
}

/// A line of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 2xx is good news.
    pub code: u16,
    /// The rest, fit for a log.
    pub text: String,
}

impl Reply {
    /// Reads a line, its end included.
    pub fn parse(line: &[u8]) -> Result<Self> {
        let line = content(line)?;
        let unlike =
            || broken(format!("expected a number of three digits and a text, got {:?}", printable(line)));
        let (digits, text) = line.split_first_chunk::<3>().ok_or_else(unlike)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(unlike());
        }
        let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        match text {
            [] => Ok(Self { code, text: String::new() }),
            [b' ', text @ ..] => Ok(Self { code, text: printable(text) }),
            _ => Err(unlike()),
        }
    }

    /// The line, its end included.
    pub fn encode(&self) -> Vec<u8> {
        format!("{:03} {}\r\n", self.code % 1000, self.text).into_bytes()
    }

    /// The server agrees.
    pub fn is_good(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

/// What the server's first line says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Banner {
    /// Everything after this line is inside of TLS. The only way that is known.
    pub tls: bool,
    /// Data may go through a TLS of their own.
    pub secure_data: bool,
    /// It knows `THUMBPRINT_SHA2`.
    pub sha256: bool,
}

impl Banner {
    /// Reads the first line's text.
    pub fn of(reply: &Reply) -> Self {
        let says = |word: &str| reply.text.contains(word);
        Self {
            tls: says("SSL Required"),
            secure_data: says("NFCSSL supported"),
            sha256: says("SHA256 supported"),
        }
    }

    /// The line of a host of version 8, with what this one knows.
    pub fn reply(self) -> Reply {
        let mut text = String::from("VMware Authentication Daemon Version 1.10: ");
        if self.tls {
            text.push_str("SSL Required, ");
        }
        text.push_str("ServerDaemonProtocol:SOAP, MKSDisplayProtocol:VNC , VMXARGS supported");
        if self.secure_data {
            text.push_str(", NFCSSL supported/t");
        }
        if self.sha256 {
            text.push_str(", SHA256 supported");
        }
        Reply { code: 220, text }
    }
}

/// A line of the client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// The id of a ticket. Not answered.
    Session(&'a str),
    /// The first line once more.
    Banner,
    /// The SHA-256 thumbprint of the host's certificate.
    Thumbprint,
    /// Go on with this service.
    Proxy(&'a str),
    /// Something else.
    Other(&'a str),
}

impl<'a> Command<'a> {
    /// The line, its end included. It may hold a ticket's id, so that it is wiped after use.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>> {
        let (verb, argument) = match *self {
            Command::Session(id) => ("SESSION ", id),
            Command::Banner => ("BANNER ", ""), // the blank belongs to it
            Command::Thumbprint => ("THUMBPRINT_SHA2 ", "PlainText"),
            Command::Proxy(service) => ("PROXY ", service),
            Command::Other(line) => ("", line),
        };
        let mut line = Zeroizing::new(Vec::with_capacity(verb.len() + argument.len() + 2));
        if argument.bytes().any(|b| b.is_ascii_control()) || line.capacity() > MOST_LINE {
            return Err(broken(format!("what follows {:?} cannot be sent in a line", verb.trim_end())));
        }
        for part in [verb, argument, "\r\n"] {
            line.extend_from_slice(part.as_bytes());
        }
        Ok(line)
    }

    /// Reads a line, its end included.
    pub fn parse(line: &'a [u8]) -> Result<Self> {
        let line = std::str::from_utf8(content(line)?).map_err(|_| broken("a command that is no text"))?;
        if line.bytes().any(|b| b.is_ascii_control()) {
            return Err(broken("a command with control characters"));
        }
        Ok(match line.split_once(' ') {
            Some(("SESSION", id)) => Command::Session(id),
            Some(("BANNER", "")) => Command::Banner,
            Some(("THUMBPRINT_SHA2", "PlainText")) => Command::Thumbprint,
            Some(("PROXY", service)) => Command::Proxy(service),
            _ => Command::Other(line),
        })
    }
}

/// Everything but ids and what might be one.
impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Session(_) => f.write_str("SESSION"),
            Command::Banner => f.write_str("BANNER"),
            Command::Thumbprint => f.write_str("THUMBPRINT_SHA2"),
            Command::Proxy(service) => write!(f, "PROXY {service}"),
            Command::Other(line) => f.write_str(line.split(' ').next().unwrap_or_default()),
        }
    }
}

/// What to ask for with `PROXY`: a ticket's service, or its sibling with data inside of TLS.
pub fn service(of_ticket: &str, secure: bool) -> String {
    match secure && !of_ticket.ends_with("ssl") {
        true => format!("{of_ticket}ssl"),
        false => of_ticket.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: &str = "220 VMware Authentication Daemon Version 1.10: SSL Required, ServerDaemonProtocol:SOAP, \
                        MKSDisplayProtocol:VNC , VMXARGS supported, NFCSSL supported/t, SHA256 supported\r\n";

    #[test]
    fn the_banner_of_a_real_host_is_read_and_made() {
        let reply = Reply::parse(SEEN.as_bytes()).unwrap();
        let banner = Banner::of(&reply);
        assert_eq!((reply.code, banner), (220, Banner { tls: true, secure_data: true, sha256: true }));
        assert_eq!(banner.reply().encode(), SEEN.as_bytes());
        let less = Banner { secure_data: false, sha256: false, ..banner };
        assert_eq!(Banner::of(&less.reply()), less);
    }

    #[test]
    fn commands_are_the_lines_that_hosts_take() {
        for (command, line) in [
            (Command::Session("52cdebc5-b7ee"), "SESSION 52cdebc5-b7ee\r\n"),
            (Command::Banner, "BANNER \r\n"),
            (Command::Thumbprint, "THUMBPRINT_SHA2 PlainText\r\n"),
            (Command::Proxy("vpxa-nfc"), "PROXY vpxa-nfc\r\n"),
            (Command::Other("USER root"), "USER root\r\n"),
        ] {
            assert_eq!(command.encode().unwrap().as_slice(), line.as_bytes());
            assert!(Command::parse(line.as_bytes()).unwrap() == command);
        }
    }

    #[test]
    fn a_ticket_cannot_smuggle_a_second_line() {
        for id in ["a\r\nPROXY x", "a\nb", "\0", &"x".repeat(MOST_LINE)] {
            assert!(Command::Session(id).encode().is_err());
        }
        let e = Command::Session("canary\n").encode().unwrap_err();
        assert!(!e.to_string().contains("canary"));
        assert!(!format!("{:?}", Command::Session("canary")).contains("canary"));
    }

    #[test]
    fn lines_are_bounded() {
        assert_eq!(line_length(b"220 x").unwrap(), None);
        assert_eq!(line_length(b"220 x\r\nmore\n").unwrap(), Some(7));
        let mut endless = vec![b'x'; MOST_LINE - 1];
        assert_eq!(line_length(&endless).unwrap(), None);
        endless.push(b'\n');
        assert_eq!(line_length(&endless).unwrap(), Some(MOST_LINE));
        endless.insert(0, b'x');
        assert!(line_length(&endless).is_err() && Reply::parse(&endless).is_err());
    }

    #[test]
    fn replies_are_three_digits_and_a_text() {
        assert_eq!(Reply::parse(b"200\n").unwrap(), Reply { code: 200, text: String::new() });
        assert!(Reply::parse(b"200 Connect ha-nfc\r\n").unwrap().is_good());
        assert!(!Reply::parse(b"530 Login incorrect\r\n").unwrap().is_good());
        assert_eq!(Reply::parse(b"530 a\x1b[2Jb\xff\r\n").unwrap().text, "a[2Jb\u{fffd}");
        for wrong in [
            &b""[..],
            b"\n",
            b"20\n",
            b"2000 x\n",
            b"-20 x\n",
            b"+20 x\n",
            b"220-x\n",
            b"220 x",
            b"abc d\r\n",
        ] {
            assert!(Reply::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn secure_services_end_in_ssl_once() {
        for (of_ticket, plain, secure) in [
            ("vpxa-nfc", "vpxa-nfc", "vpxa-nfcssl"),
            ("nfc", "nfc", "nfcssl"),
            ("nfcssl", "nfcssl", "nfcssl"),
        ] {
            assert_eq!(service(of_ticket, false), plain);
            assert_eq!(service(of_ticket, true), secure);
        }
    }
}
