//! The protocol client joined to this side: a dialled export as [`Blocks`] and as a [`Line`].

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::error::Result;
use crate::logging::Log;
use crate::net::nbd::client::Client;
use crate::net::nbd::client::Dial;
use crate::net::nbd::client::Options;
use crate::os;
use crate::threads::Threads;
use crate::transfer::Finish;
use crate::transfer::Transfer;
use crate::transport::Line;
use crate::transport::Mode;
use crate::transport::blocks::Blocks;
use crate::transport::blocks::Reads;
use crate::units::SECTOR;

/// A dialled export.
#[derive(Debug)]
pub(super) struct NbdLine {
    client: Arc<Client>,
    mode: Mode,
    /// Those of this export alone: they end with it.
    threads: Arc<Threads>,
}

/// How long the threads of a closed export are waited for. One that is connecting at that moment ends by itself.
const LAST_STEPS: Duration = Duration::from_millis(200);

/// Connects and negotiates.
pub(super) fn dial(target: Dial, mode: Mode, options: &Options, log: &Log) -> Result<NbdLine> {
    let threads = Arc::new(Threads::new(os::with_signals_blocked));
    let client = Client::connect(target, options, log.clone(), threads.clone())?;
    Ok(NbdLine { client, mode, threads })
}

impl NbdLine {
    /// The export.
    pub fn blocks(&self) -> Arc<dyn Blocks> {
        self.client.clone()
    }
}

impl Line for NbdLine {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn cut(&self) {
        self.client.close();
        if !self.threads.join_until(Instant::now() + LAST_STEPS) {
            os::stay_loaded();
        }
    }

    /// Reads the beginning of the export. An export without any answers for itself.
    fn probe(&self, answered: Box<dyn FnOnce() + Send>) {
        let len = usize::try_from(self.client.export().size.min(SECTOR)).unwrap_or(0);
        let finish: Finish = Box::new(move |_, result: Result<()>| {
            if result.is_ok() {
                answered();
            }
        });
        // A server whose blocks are larger than a sector gives the transfer back: a whole block is asked for then.
        if let Some((_, finish)) = self.client.start(Transfer::ReadOwned(vec![0; len]), 0, finish) {
            let export = self.client.export();
            let len = export.size.min(u64::from(export.blocks.minimum));
            let block = Transfer::ReadOwned(vec![0; usize::try_from(len).unwrap_or(0)]);
            let _ = self.client.start(block, 0, finish); // a whole block is taken
        }
    }
}

impl Blocks for Client {
    fn size(&self) -> u64 {
        self.export().size
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        Client::read(self, buf, offset)
    }

    fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        Client::write(self, buf, offset)
    }

    fn zero(&self, range: Range<u64>) -> Result<bool> {
        Client::zero(self, range)
    }

    fn trim(&self, range: Range<u64>) -> Result<bool> {
        Client::trim(self, range)
    }

    fn flush(&self) -> Result<()> {
        Client::flush(self)
    }

    fn allocation(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>, Reads)) -> Result<bool> {
        Client::allocation(self, range, &mut |part| {
            sink(part.range, if part.zero { Reads::Zeros } else { Reads::Anything });
        })
    }

    fn start(&self, transfer: Transfer, offset: u64, finish: Finish) -> Option<(Transfer, Finish)> {
        Client::start(self, transfer, offset, finish)
    }
}
