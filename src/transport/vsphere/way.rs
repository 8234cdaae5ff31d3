//! The ways to a disk that a host serves.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::error::{Context, Result};
use crate::transport::Line;
use crate::transport::Mode;
use crate::transport::choice::Way;
use crate::transport::homes::Home;
use crate::transport::homes::Route;
use crate::transport::limits::Limits;
use crate::transport::vsphere::host::Errand;
use crate::transport::vsphere::host::Hosts;
use crate::transport::vsphere::host::Served;
use crate::transport::vsphere::tickets::DiskTickets;

/// A way that tells what it found.
pub trait DiskWay: Route {
    /// What was found when the disk was opened last, once.
    fn said(&self) -> Option<Served>;
}

/// A disk over NFC, encrypted or not.
#[derive(Debug)]
pub struct NfcWay {
    /// What to ask for.
    pub errand: Errand,
    /// Whom.
    pub hosts: Arc<dyn Hosts>,
    /// How many may ask.
    pub limits: Arc<Limits>,
    /// What the host said when it was opened last.
    pub said: Mutex<Option<Served>>,
}

impl Way for NfcWay {
    type Opened = Home;

    fn mode(&self) -> Mode {
        if self.errand.ssl { Mode::NbdSsl } else { Mode::Nbd }
    }

    fn open(&self) -> Result<Home> {
        let Errand { tickets, path, settings, .. } = &self.errand;
        let until = Instant::now() + settings.options.connect;
        let mut attempt = || {
            let opened = self.hosts.open(&self.errand);
            if opened.is_err() {
                tickets.stand_up();
            }
            opened
        };
        let others = || tickets.others();
        let served = self
            .limits
            .patiently(path, until, &others, &mut attempt)
            .context(|| format!("opening {path} over {}", self.mode().name()))?;
        let line = Arc::new(Counted { line: Arc::clone(&served.home.line), tickets: Arc::clone(tickets) });
        let home = Home { line, ..served.home.clone() };
        *self.said.lock() = Some(served);
        Ok(home)
    }
}

impl DiskWay for NfcWay {
    fn said(&self) -> Option<Served> {
        self.said.lock().take()
    }
}

/// The connection of a disk that counts as one of its host's.
#[derive(Debug)]
struct Counted {
    line: Arc<dyn Line>,
    tickets: Arc<DiskTickets>,
}

impl Line for Counted {
    fn mode(&self) -> Mode {
        self.line.mode()
    }

    fn cut(&self) {
        self.line.cut();
        self.tickets.end();
    }

    fn probe(&self, answered: Box<dyn FnOnce() + Send>) {
        self.line.probe(answered);
    }
}
