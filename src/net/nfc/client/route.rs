//! How a connection to a disk is made, for the first time and again: with a ticket of its own each time.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Log;
use crate::net::nfc::Compression;
use crate::net::nfc::authd;
use crate::net::nfc::client::Buffers;
use crate::net::nfc::client::Dial;
use crate::net::nfc::client::Opened;
use crate::net::nfc::client::door;
use crate::net::nfc::client::session;
use crate::net::nfc::client::session::Session;
use crate::net::nfc::open;
use crate::net::nfc::ticket;
use crate::net::nfc::ticket::Ticket;
use crate::net::socket::Address;
use crate::net::socket::Socket;
use crate::net::stream::Stream;

/// The way to a disk.
#[derive(Debug)]
pub struct Route {
    pub(super) dial: Dial,
    log: Log,
    /// The host did not take the buffers that were configured.
    with_usual_buffers: AtomicBool,
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
    fn error(self) -> Error {
        match self {
            Failure::Ticket(error) | Failure::Buffers(error) | Failure::Other(error) => error,
        }
    }
}

/// The buffers, with what hosts are used to in place of zeros.
pub fn or_usual(buffers: Buffers) -> Buffers {
    let or = |wanted, usual| if wanted == 0 { usual } else { wanted };
    Buffers { bytes: or(buffers.bytes, open::USUAL_BUFFER), count: or(buffers.count, open::USUAL_BUFFERS) }
}

/// What is in front of a service's name where data are packed.
fn packing(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "",
        Compression::Zlib => "ZLIB-",
        Compression::Fastlz => "FASTLZ-",
        Compression::Skipz => "SKIPZ-",
    }
}

impl Route {
    /// To this disk.
    pub fn new(dial: Dial, log: Log) -> Route {
        Route { dial, log, with_usual_buffers: AtomicBool::new(false) }
    }

    /// Where it leads, for messages.
    pub fn label(&self) -> String {
        format!("{} over NFC", self.dial.path)
    }

    /// Makes the first connection.
    pub fn first(&self, until: Instant) -> Result<(Box<dyn Stream>, Session, Opened)> {
        let (stream, mut session, mut opened) = self.connect(until)?;
        let keys = session::keys(&*stream, &mut session, until);
        opened.keys = keys.context(|| "well-known values of the disk").context(|| self.label())?;
        Ok((stream, session, opened))
    }

    /// Makes another one.
    pub fn again(&self, until: Instant) -> Result<(Box<dyn Stream>, Session, Opened)> {
        self.connect(until)
    }

    fn connect(&self, until: Instant) -> Result<(Box<dyn Stream>, Session, Opened)> {
        let mut had_another_ticket = false;
        loop {
            match self.attempt(until) {
                Ok(found) => return Ok(found),
                Err(Failure::Ticket(error)) if !had_another_ticket => {
                    self.log.debug(|| format!("{}: {error}; trying with another ticket", self.label()));
                    had_another_ticket = true;
                }
                Err(Failure::Buffers(error)) if !self.with_usual_buffers.swap(true, Ordering::Relaxed) => {
                    self.log.warning(|| {
                        let Buffers { bytes, count } = or_usual(self.dial.buffers);
                        format!(
                            "{}: the host does not take {count} buffers of {bytes} bytes ({error}); \
                             trying with what hosts are used to",
                            self.label()
                        )
                    });
                }
                Err(failure) => return Err(failure.error().context(self.label())),
            }
        }
    }

    fn attempt(&self, until: Instant) -> Result<(Box<dyn Stream>, Session, Opened), Failure> {
        let dial = &self.dial;
        let ticket = dial.tickets.ticket(until).context(|| "asking for a ticket")?;
        let host = ticket.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&dial.login_host);
        let port = self.port(&ticket);
        let service = authd::service(&ticket.service, dial.ssl);
        let url = format!("{}{service}://{}@{host}:{port}", packing(dial.compression), dial.path);
        self.log.info(|| format!("NBD_ClientOpen: attempting to create connection to {url}"));
        let address = Address::Tcp { host: host.to_owned(), port };
        let socket = Socket::connect(&address, until)?;
        let stream = door::pass(socket, &ticket, host, &service, dial, &self.log, until)?;
        let version = session::shake_hands(&*stream, &dial.client_name, until)
            .context(|| format!("handshake with {address}"))?;
        let configured =
            dial.buffers != Buffers::default() && !self.with_usual_buffers.load(Ordering::Relaxed);
        let buffers = or_usual(if configured { dial.buffers } else { Buffers::default() });
        let (session, found) = session::open(&*stream, &dial.path, dial.write, buffers, until).map_err(
            |failure| match failure {
                Failure::Buffers(error) if !configured => Failure::Other(error),
                failure => failure,
            },
        )?;
        let opened = Opened {
            capacity: found.capacity,
            sector_size: found.sector_size,
            geometry: found.geometry,
            keys: Vec::new(),
            host: host.to_owned(),
            port,
            service,
            version,
            url,
        };
        Ok((stream, session, opened))
    }

    fn port(&self, ticket: &Ticket) -> u16 {
        let wanted = self.dial.nfc_port.filter(|port| *port != 0);
        wanted.unwrap_or(if ticket.port == 0 { ticket::PORT } else { ticket.port })
    }
}

/// The ticket of a refused connection tells nothing about the disk.
pub fn refused(message: String) -> Failure {
    Failure::Ticket(Error::new(ErrorKind::Protocol, message))
}
