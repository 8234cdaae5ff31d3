//! How a connection to a disk is made, for the first time and again.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::Mutex;

use crate::error::Context;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Log;
use crate::net::nfc::client::Buffers;
use crate::net::nfc::client::Opened;
use crate::net::nfc::client::Wanted;
use crate::net::nfc::client::door;
use crate::net::nfc::client::door::Door;
use crate::net::nfc::client::door::Failure;
use crate::net::nfc::client::session;
use crate::net::nfc::client::session::Session;
use crate::net::nfc::ddb;
use crate::net::nfc::open;
use crate::net::stream::Stream;

/// The way to a disk.
#[derive(Debug)]
pub struct Route {
    door: Arc<dyn Door>,
    pub(super) wanted: Wanted,
    log: Log,
    /// The host did not take the buffers that were configured.
    with_usual_buffers: AtomicBool,
    /// The host that served the disk last, and its port.
    last: Mutex<Option<(String, u16)>>,
}

/// The buffers, with what hosts are used to in place of zeros.
pub fn or_usual(buffers: Buffers) -> Buffers {
    let or = |wanted, usual| if wanted == 0 { usual } else { wanted };
    Buffers { bytes: or(buffers.bytes, open::USUAL_BUFFER), count: or(buffers.count, open::USUAL_BUFFERS) }
}

impl Route {
    /// To this disk.
    pub fn new(door: Arc<dyn Door>, wanted: Wanted, log: Log) -> Route {
        Route { door, wanted, log, with_usual_buffers: AtomicBool::new(false), last: Mutex::default() }
    }

    /// Where it leads, for messages.
    pub fn label(&self) -> String {
        format!("{} over NFC", self.wanted.path)
    }

    /// Makes the first connection. One that is lost on the way is made once more: a machine that moves just then is found at
    /// its next host.
    pub fn first(&self, until: Instant) -> Result<(Box<dyn Stream>, Session, Opened)> {
        match self.with_keys(ddb::KNOWN_KEYS, until) {
            Err(e) if e.kind() == ErrorKind::ConnectionLost && Instant::now() < until => {
                self.log.info(|| format!("{e}; trying once more"));
                self.with_keys(ddb::KNOWN_KEYS, until)
            }
            done => done,
        }
    }

    /// Makes another one. What is asked of the disk are the values of these keys.
    pub fn again(&self, keys: &[&str], until: Instant) -> Result<(Box<dyn Stream>, Session, Opened)> {
        self.with_keys(keys, until)
    }

    fn with_keys(&self, keys: &[&str], until: Instant) -> Result<(Box<dyn Stream>, Session, Opened)> {
        let (stream, mut session, mut opened) = self.connect(until)?;
        if !keys.is_empty() {
            let values = session::keys(&*stream, &mut session, keys, until);
            opened.keys = values.context(|| "well-known values of the disk").context(|| self.label())?;
        }
        Ok((stream, session, opened))
    }

    fn connect(&self, until: Instant) -> Result<(Box<dyn Stream>, Session, Opened)> {
        let mut had_another_ticket = false;
        loop {
            match self.attempt(until) {
                Ok(found) => {
                    self.note_host(&found.2);
                    return Ok(found);
                }
                Err(Failure::Ticket(error)) if !had_another_ticket => {
                    self.log.debug(|| format!("{}: {error}; trying with another ticket", self.label()));
                    had_another_ticket = true;
                }
                Err(Failure::Buffers(error)) if !self.with_usual_buffers.swap(true, Ordering::Relaxed) => {
                    self.log.warning(|| {
                        let Buffers { bytes, count } = or_usual(self.wanted.buffers);
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

    /// Says when the disk is found at another host than before: its machine moved.
    fn note_host(&self, opened: &Opened) {
        let here = (opened.host.clone(), opened.port);
        let before = self.last.lock().replace(here.clone());
        if let Some((host, port)) = before.filter(|before| *before != here) {
            self.log.info(|| {
                let (new_host, new_port) = here;
                format!("{}: served by host {new_host}:{new_port} instead of {host}:{port}", self.label())
            });
        }
    }

    fn attempt(&self, until: Instant) -> Result<(Box<dyn Stream>, Session, Opened), Failure> {
        let Wanted { path, write, compression, client_name, .. } = &self.wanted;
        let door::Passed { stream, host, port, service } = self.door.pass(until)?;
        let shaken = session::shake_hands(&*stream, client_name, until);
        let version = shaken.context(|| format!("handshake with {}", stream.label()))?;
        let configured = self.wanted.buffers;
        let fallen_back = self.with_usual_buffers.load(Ordering::Relaxed);
        let configured = if fallen_back { Buffers::default() } else { configured };
        let (session, found) =
            session::open(&*stream, path, *write, or_usual(configured), until).map_err(|failure| {
                match failure {
                    Failure::Buffers(error) if configured == Buffers::default() => Failure::Other(error),
                    failure => failure,
                }
            })?;
        let url = door::url(&service, *compression, path, &host, port);
        let session::Found { capacity, sector_size, geometry } = found;
        let keys = Vec::new();
        let opened = Opened { capacity, sector_size, geometry, keys, host, port, service, version, url };
        Ok((stream, session, opened))
    }
}
