//! One instance of the library: its log, configuration, workers and connections.

use std::sync::Arc;

use crate::config::Config;
use crate::error::Result;
use crate::logging::Log;
use crate::session::connect::{ConnectParams, Connection};

/// One instance of the library. Tests run many in one process; the C interface holds one.
#[derive(Debug)]
pub struct Library {
    log: Log,
    config: Config,
}

impl Library {
    /// A library that says what it does to `log`. Starts no thread.
    pub fn new(log: Log, config: Config) -> Arc<Self> {
        Arc::new(Self { log, config })
    }

    /// Where it says what it does.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The transports this build can use, in the order of preference, colon separated.
    pub fn transport_modes() -> &'static str {
        "file"
    }

    /// Makes a connection. Nothing is sent over a network; a transport that cannot be used shows in
    /// [`Connection::open`]. `snapshot` and `modes` that are empty mean none and default.
    pub fn connect(
        self: &Arc<Self>,
        _params: ConnectParams,
        _read_only: bool,
        _snapshot: Option<String>,
        _modes: Option<String>,
    ) -> Result<Arc<Connection>> {
        todo!()
    }

    /// Closes every disk and connection and ends every thread. Nothing runs afterwards; calls on what was handed out
    /// answer with [`crate::error::ErrorKind::NotInitialised`]-like errors of their kind. May be called twice.
    pub fn shut_down(&self) {
        todo!()
    }
}
