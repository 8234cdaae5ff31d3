//! The client of hosts joined to this side: a disk of a host as [`Blocks`] and as a [`Line`].

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::error::{ErrorKind, Result};
use crate::format::geometry::Geometry;
use crate::logging::Log;
use crate::net::nfc::client::Client;
use crate::net::nfc::client::Dial;
use crate::net::nfc::client::Tickets;
use crate::net::nfc::identity::Identity;
use crate::os;
use crate::threads::Threads;
use crate::transfer::Finish;
use crate::transfer::Transfer;
use crate::transport::Line;
use crate::transport::Mode;
use crate::transport::blocks::Blocks;
use crate::transport::blocks::Reads;
use crate::transport::homes::Home;
use crate::transport::vsphere::host::Errand;
use crate::transport::vsphere::host::Hosts;
use crate::transport::vsphere::host::Served;

/// Hosts on the network.
#[derive(Debug)]
pub struct NfcHosts {
    /// Where is said what they do.
    pub log: Log,
}

/// The connection to a host.
#[derive(Debug)]
struct NfcLine {
    client: Arc<Client>,
    mode: Mode,
    /// Those of this disk alone: they end with it.
    threads: Arc<Threads>,
}

/// How long the threads of a closed disk are waited for. One that is connecting at that moment ends by itself.
const LAST_STEPS: Duration = Duration::from_millis(200);

impl Hosts for NfcHosts {
    fn open(&self, errand: &Errand) -> Result<Served> {
        let threads = Arc::new(Threads::new(os::with_signals_blocked));
        let settings = &errand.settings;
        let dial = Dial {
            tickets: Arc::clone(&errand.tickets) as Arc<dyn Tickets>,
            login_host: errand.login_host.clone(),
            nfc_port: errand.nfc_port,
            path: errand.path.clone(),
            write: errand.write,
            ssl: errand.ssl,
            compression: settings.compression,
            buffers: settings.buffers,
            tls: settings.tls.clone(),
            any_second_certificate: settings.any_second_certificate,
            client_name: settings.client_name.clone(),
        };
        let client = Client::connect(dial, &settings.options, self.log.clone(), threads.clone())?;
        let opened = client.opened();
        let (cylinders, heads, sectors) = opened.geometry;
        let geometry = Geometry { cylinders, heads, sectors };
        Ok(Served {
            url: opened.url.clone(),
            geometry: (cylinders > 0 && heads > 0 && sectors > 0).then_some(geometry),
            database: opened.keys.clone(),
            chain: None,
            home: Home {
                identity: Identity::of(&opened.keys, errand.write),
                blocks: client.clone(),
                line: Arc::new(NfcLine {
                    client,
                    mode: if errand.ssl { Mode::NbdSsl } else { Mode::Nbd },
                    threads,
                }),
            },
        })
    }
}

impl Line for NfcLine {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn cut(&self) {
        self.client.close();
        if !self.threads.join_until(Instant::now() + LAST_STEPS) {
            os::stay_loaded();
        }
    }

    /// Reads the beginning of the disk.
    fn probe(&self, answered: Box<dyn FnOnce() + Send>) {
        let opened = self.client.opened();
        let len = opened.capacity.min(u64::from(opened.sector_size));
        let finish: Finish = Box::new(move |_, result: Result<()>| {
            if result.is_ok() {
                answered();
            }
        });
        let sector = Transfer::ReadOwned(vec![0; usize::try_from(len).unwrap_or(0)]);
        let _ = self.client.start(sector, 0, finish); // whole sectors are taken
    }
}

impl Blocks for Client {
    fn size(&self) -> u64 {
        self.opened().capacity
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        Client::read(self, buf, offset)
    }

    fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        Client::write(self, buf, offset)
    }

    /// No message is known for it.
    fn zero(&self, _range: Range<u64>) -> Result<bool> {
        Ok(false)
    }

    fn flush(&self) -> Result<()> {
        Client::flush(self)
    }

    /// Hosts tell what may hold data; what is between that reads as zeros.
    fn allocation(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>, Reads)) -> Result<bool> {
        let mut at = range.start;
        let told = Client::allocation(self, range.clone(), &mut |part| {
            if at < part.start {
                sink(at..part.start, Reads::Zeros);
            }
            at = at.max(part.end);
            sink(part, Reads::Anything);
        })?;
        if told && at < range.end {
            sink(at..range.end, Reads::Zeros);
        }
        Ok(told)
    }

    fn start(&self, transfer: Transfer, offset: u64, finish: Finish) -> Option<(Transfer, Finish)> {
        Client::start(self, transfer, offset, finish)
    }

    /// A name that no key can have is that of none.
    fn key(&self, key: &str) -> Result<Option<String>> {
        match Client::key(self, key) {
            Err(e) if e.kind() == ErrorKind::InvalidArgument => Ok(None),
            value => value,
        }
    }
}
