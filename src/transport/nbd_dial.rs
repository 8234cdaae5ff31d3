//! The protocol client joined to this side: a dialled export as [`Blocks`] and as a [`Line`].

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::logging::Log;
use crate::net::socket::Address;
use crate::storage::os;
use crate::threads::Threads;
use crate::transfer::Transfer;
use crate::transport::Line;
use crate::transport::nbd_export::Blocks;
use crate::transport::nbd_server::Settings;
use crate::transport::nbd_server::TlsFiles;
use crate::units::SECTOR;

/// Whom to dial and for what.
#[derive(Debug)]
pub(super) struct Target {
    pub address: Address,
    pub export: String,
    /// `None`: plain text.
    pub tls: Option<TlsWish>,
    pub write: bool,
}

/// TLS that is demanded.
#[derive(Debug)]
pub(super) struct TlsWish {
    pub files: TlsFiles,
    pub thumbprint: Option<String>,
    /// The name that the certificate must carry.
    pub host: String,
}

/// A dialled export.
#[derive(Debug)]
pub(super) struct NbdLine {
    blocks: Arc<dyn Blocks>,
    /// Those of this export alone: they end with it.
    threads: Arc<Threads>,
}

/// Connects and negotiates.
pub(super) fn dial(target: Target, settings: &Settings, log: &Log) -> Result<NbdLine> {
    let threads = Arc::new(Threads::new(os::with_signals_blocked));
    let _ = (target, settings, log, threads);
    Err(Error::new(ErrorKind::NotSupported, "not yet"))
}

impl NbdLine {
    pub fn blocks(&self) -> &Arc<dyn Blocks> {
        &self.blocks
    }
}

impl Line for NbdLine {
    fn cut(&self) {
        self.blocks.close();
        self.threads.join_all();
    }

    /// Reads the beginning of the export. An export without any answers for itself.
    fn probe(&self, answered: Box<dyn FnOnce() + Send>) {
        let len = self.blocks.size().min(SECTOR) as usize;
        if len == 0 {
            return answered();
        }
        let finish = Box::new(move |_: Transfer, result: Result<()>| {
            if result.is_ok_and(|()| true) {
                answered();
            }
        });
        self.blocks.start(Transfer::ReadOwned(vec![0; len]), 0, finish);
    }
}
