//! Past authd, the doorkeeper of a host: its TLS, the ticket, the service; then the bare socket, or another TLS over it.

use std::fmt::Debug;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Instant;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Log;
use crate::net::nfc::Compression;
use crate::net::nfc::authd;
use crate::net::nfc::authd::Banner;
use crate::net::nfc::authd::Command;
use crate::net::nfc::authd::Reply;
use crate::net::nfc::broken;
use crate::net::nfc::client::Dial;
use crate::net::nfc::ticket;
use crate::net::nfc::ticket::HostIdentity;
use crate::net::nfc::ticket::Ticket;
use crate::net::socket::Address;
use crate::net::socket::Socket;
use crate::net::stream::Patience;
use crate::net::stream::Ready;
use crate::net::stream::Stream;
use crate::net::talk;
use crate::net::tls::Accepted;
use crate::net::tls::Tls;
use crate::net::tls::TlsSettings;

/// Gets to a host's service: called for each connection that is made.
pub trait Door: Debug + Send + Sync {
    /// A stream on which the host waits for the handshake.
    fn pass(&self, until: Instant) -> Result<Passed, Failure>;
}

/// What is behind the door.
#[derive(Debug)]
pub struct Passed {
    /// The host waits for the client's first message.
    pub stream: Box<dyn Stream>,
    /// The host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The service that was asked for.
    pub service: String,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum Failure {
    /// The ticket was refused; another one may do.
    Ticket(Error),
    /// The buffers were refused; the usual ones may do, on another connection.
    Buffers(Error),
    /// Anything else.
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Other(error)
    }
}

impl Failure {
    /// What went wrong.
    pub fn error(self) -> Error {
        match self {
            Failure::Ticket(error) | Failure::Buffers(error) | Failure::Other(error) => error,
        }
    }
}

/// The door of a real host, which takes a ticket.
#[derive(Debug)]
pub struct Authd {
    dial: Dial,
    log: Log,
}

impl Authd {
    /// The way to a disk's host.
    pub fn new(dial: Dial, log: Log) -> Authd {
        Authd { dial, log }
    }

    fn port(&self, ticket: &Ticket) -> u16 {
        let wanted = self.dial.nfc_port.filter(|port| *port != 0);
        wanted.unwrap_or(if ticket.port == 0 { ticket::PORT } else { ticket.port })
    }
}

impl Door for Authd {
    fn pass(&self, until: Instant) -> Result<Passed, Failure> {
        let dial = &self.dial;
        let ticket = dial.tickets.ticket(until).context(|| "asking for a ticket")?;
        let host = ticket.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&dial.login_host);
        let (host, port) = (host.to_owned(), self.port(&ticket));
        let service = authd::service(&ticket.service, dial.ssl);
        self.log.info(|| {
            let url = url(&service, dial.compression, &dial.path, &host, port);
            format!("NBD_ClientOpen: attempting to create connection to {url}")
        });
        let socket = Socket::connect(&Address::Tcp { host: host.clone(), port }, until)?;
        let way = Way { ticket: &ticket, host: &host, service: &service, dial, log: &self.log, until };
        Ok(Passed { stream: way.pass(socket)?, host, port, service })
    }
}

/// How programs know a connection to a disk.
pub fn url(service: &str, compression: Compression, path: &str, host: &str, port: u16) -> String {
    let packing = match compression {
        Compression::None => "",
        Compression::Zlib => "ZLIB-",
        Compression::Fastlz => "FASTLZ-",
        Compression::Skipz => "SKIPZ-",
    };
    format!("{packing}{service}://{path}@{host}:{port}")
}

/// The ticket of a refused connection tells nothing about the disk.
fn refused(message: String) -> Failure {
    Failure::Ticket(Error::new(ErrorKind::TicketRefused, message))
}

/// A socket that is lent to a TLS and taken back.
#[derive(Clone, Debug)]
struct Bare(Arc<Socket>);

impl Stream for Bare {
    fn send(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<Option<usize>> {
        self.0.send(parts, patience)
    }

    fn recv(&self, parts: &mut [IoSliceMut<'_>], patience: Patience) -> Result<Option<usize>> {
        self.0.recv(parts, patience)
    }

    fn wait(&self, wanted: Ready, until: Instant) -> Result<Ready> {
        self.0.wait(wanted, until)
    }

    fn shutdown(&self) {
        self.0.shutdown();
    }

    fn label(&self) -> String {
        self.0.label()
    }
}

/// What was learned about the host inside of the first TLS.
struct Known {
    certificate: Vec<u8>,
    /// SHA-256, as the host says it.
    thumbprint: Option<String>,
}

/// What a passage is about.
#[derive(Clone, Copy)]
struct Way<'a> {
    ticket: &'a Ticket,
    host: &'a str,
    service: &'a str,
    dial: &'a Dial,
    log: &'a Log,
    until: Instant,
}

impl Way<'_> {
    /// Gets from a connected socket to the service that the ticket is for.
    fn pass(self, socket: Socket) -> Result<Box<dyn Stream>, Failure> {
        let Way { dial, until, .. } = self;
        let bare = Bare(Arc::new(socket));
        let label = bare.label();
        let greeting = greeting(&bare, until).context(|| format!("the first line of {label}"))?;
        let banner = Banner::of(&greeting);
        if !greeting.is_good() {
            return Err(broken(format!("{label} greets with {}", said(&greeting))).into());
        }
        supported(banner, dial.ssl, &label)?;
        let known = self.show_ticket(&bare, banner)?;
        if !dial.ssl {
            return Ok(Box::new(bare));
        }
        let tls = self.second_tls(&known)?;
        Ok(tls.wrap(Box::new(bare), self.host, until).context(|| "the TLS of the data")?)
    }

    /// The conversation inside of the first TLS, which is left without a word.
    fn show_ticket(self, bare: &Bare, banner: Banner) -> Result<Known, Failure> {
        let Way { ticket, dial, log, until, .. } = self;
        let tls = match identity(ticket) {
            Some(identity) => Tls::pinned(&dial.tls, vec![identity], log.clone())?,
            None => Tls::new(&dial.tls, log.clone())?,
        };
        let episode = tls.wrap_for_a_while(Box::new(bare.clone()), self.host, until)?;
        let (stream, label) = (episode.stream(), bare.label());
        let id = ticket.id.expose_text().ok_or_else(|| broken("a ticket that is no text"))?;
        say(stream, Command::Session(id), until)?; // not answered
        let greeting = ask(stream, Command::Banner, until)?;
        if !greeting.is_good() {
            return Err(refused(format!("{label} answers a ticket with {}", said(&greeting))));
        }
        let thumbprint = match banner.sha256 {
            true => Some(ask(stream, Command::Thumbprint, until)?).filter(Reply::is_good),
            false => None,
        };
        let answer = ask(stream, Command::Proxy(self.service), until)?;
        if !answer.is_good() {
            let service = self.service;
            return Err(refused(format!("{label} answers the wish for {service} with {}", said(&answer))));
        }
        let certificate = episode.certificate().to_vec();
        episode.leave()?;
        Ok(Known { certificate, thumbprint: thumbprint.map(|reply| reply.text) })
    }

    /// The data's own TLS: its certificate has to be one that is known by then.
    fn second_tls(self, known: &Known) -> Result<Tls> {
        let Way { ticket, dial, log, .. } = self;
        if dial.any_second_certificate {
            let settings = TlsSettings { thumbprint: None, verify: false, ..dial.tls.clone() };
            return Tls::new(&settings, log.clone());
        }
        let mut accepted = vec![Accepted::Certificate(known.certificate.clone())];
        accepted.extend(known.thumbprint.clone().map(Accepted::Thumbprint));
        accepted.extend(identity(ticket));
        Tls::pinned(&dial.tls, accepted, log.clone())
    }
}

/// The host can do what is wanted.
fn supported(banner: Banner, ssl: bool, label: &str) -> Result<()> {
    let missing = match banner {
        Banner { tls: false, .. } => "does not ask for TLS, as hosts have done since version 5",
        Banner { secure_data: false, .. } if ssl => "has no TLS for data",
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::NotSupported, format!("{label} {missing}")))
}

fn identity(ticket: &Ticket) -> Option<Accepted> {
    Some(match ticket.identity.clone()? {
        HostIdentity::Thumbprint(text) => Accepted::Thumbprint(text),
        HostIdentity::Certificate(der) => Accepted::Certificate(der),
    })
}

fn said(reply: &Reply) -> String {
    format!("{} {}", reply.code, reply.text)
}

fn say(stream: &dyn Stream, command: Command<'_>, until: Instant) -> Result<()> {
    talk::send(stream, &command.encode()?, until).context(|| format!("saying {command:?}"))
}

fn ask(stream: &dyn Stream, command: Command<'_>, until: Instant) -> Result<Reply> {
    say(stream, command, until)?;
    line(stream, until).context(|| format!("waiting for the answer to {command:?}"))
}

/// What a host says first. One that says nothing and ends the connection does not take it, as when it serves as many as it
/// can: who can wait may be served later, which a port that nobody listens on does not promise.
fn greeting(stream: &dyn Stream, until: Instant) -> Result<Reply> {
    let mut first = [0];
    match talk::fill(stream, &mut first, until) {
        Ok(()) => rest_of_line(stream, first.to_vec(), until),
        Err(e) if e.kind() == ErrorKind::ConnectionLost => {
            let what = "the host closes the connection without a greeting";
            Err(e.with_kind(ErrorKind::HostFull).context(what))
        }
        Err(e) => Err(e),
    }
}

/// Receives a line and nothing of what follows it.
fn line(stream: &dyn Stream, until: Instant) -> Result<Reply> {
    rest_of_line(stream, Vec::with_capacity(256), until)
}

fn rest_of_line(stream: &dyn Stream, mut bytes: Vec<u8>, until: Instant) -> Result<Reply> {
    loop {
        let may_end = bytes.ends_with(b"\n") || bytes.len() >= authd::MOST_LINE;
        if may_end && authd::line_length(&bytes)?.is_some() {
            return Reply::parse(&bytes);
        }
        let mut byte = [0];
        talk::fill(stream, &mut byte, until)?;
        bytes.extend_from_slice(&byte);
    }
}
