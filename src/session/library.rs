//! One instance of the library: its log, configuration, workers and connections.

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use parking_lot::RwLock;

use crate::config::Config;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::logging::Log;
use crate::os;
use crate::session::close::close_all;
use crate::session::close::end_all;
use crate::session::connect::ConnectParams;
use crate::session::connect::Connection;
use crate::session::connect::PARTING;
use crate::storage::file_system::FileSystem;
use crate::storage::file_system::Host;
use crate::transport;
use crate::transport::vsphere::Vsphere;

/// One instance of the library. Tests run many in one process; the C interface holds one.
#[derive(Debug)]
pub struct Library {
    log: Log,
    files: Arc<dyn FileSystem>,
    /// Replaced whole when the library is initialised again.
    config: RwLock<Arc<Config>>,
    engine: Engine,
    vsphere: Vsphere,
    connections: Mutex<Vec<Weak<Connection>>>,
    stopped: AtomicBool,
}

impl Library {
    /// A library that says what it does to `log`. Starts no thread.
    pub fn new(log: Log, config: Config) -> Arc<Self> {
        Self::on_file_system(log, config, Arc::new(Host))
    }

    /// A library whose local disks are on `files`, which shows the files of this machine by their paths.
    pub fn on_file_system(log: Log, config: Config, files: Arc<dyn FileSystem>) -> Arc<Self> {
        let vsphere = Vsphere::on_network(log.clone());
        Self::with(log, config, files, vsphere)
    }

    /// A library of these parts.
    pub(super) fn with(log: Log, config: Config, files: Arc<dyn FileSystem>, vsphere: Vsphere) -> Arc<Self> {
        let engine = Engine::new(os::with_signals_blocked, config.worker_threads());
        Arc::new(Self {
            log,
            files,
            config: RwLock::new(Arc::new(config)),
            engine,
            vsphere,
            connections: Mutex::default(),
            stopped: AtomicBool::new(false),
        })
    }

    /// Where it says what it does.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Where its local disks are.
    pub(super) fn files(&self) -> &Arc<dyn FileSystem> {
        &self.files
    }

    /// Its settings.
    pub fn config(&self) -> Arc<Config> {
        self.config.read().clone()
    }

    /// Replaces the settings; disks opened from now on see them.
    pub fn set_config(&self, config: Config) {
        *self.config.write() = Arc::new(config);
    }

    /// Its workers.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What its connections to vSphere share.
    pub(super) fn vsphere(&self) -> &Vsphere {
        &self.vsphere
    }

    /// The transports this build can use, in the order of preference, colon separated.
    pub fn transport_modes() -> &'static str {
        transport::MODES
    }

    /// Makes a connection. Nothing is sent over a network; a transport that cannot be used shows in
    /// [`Connection::open`]. `snapshot` and `modes` that are empty mean none and default.
    pub fn connect(
        self: &Arc<Self>,
        params: ConnectParams,
        read_only: bool,
        snapshot: Option<String>,
        modes: Option<String>,
    ) -> Result<Arc<Connection>> {
        if self.is_stopped() {
            return Err(Error::new(ErrorKind::NotInitialised, "the library is being shut down"));
        }
        let connection = Arc::new(Connection::new(self.clone(), params, read_only, snapshot, modes)?);
        let mut connections = self.connections.lock();
        connections.retain(|known| known.strong_count() > 0);
        connections.push(Arc::downgrade(&connection));
        Ok(connection)
    }

    /// True once [`Library::shut_down`] has begun.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Closes every disk and connection and ends every thread; what was acknowledged is in the files afterwards. Calls on
    /// what was handed out answer with errors. May be called twice.
    pub fn shut_down(&self) {
        self.stopped.store(true, Ordering::Release);
        let until = Instant::now() + PARTING;
        self.vsphere.end();
        let connections = std::mem::take(&mut *self.connections.lock());
        let connections: Vec<_> = connections.iter().filter_map(Weak::upgrade).collect();
        let disks: Vec<_> = connections.iter().flat_map(|connection| connection.retire()).collect();
        if let Err(e) = close_all(&disks) {
            self.log.warning(|| format!("closing what was left open: {e}"));
        }
        let leases = connections.iter().filter_map(|connection| connection.part()).collect();
        end_all(leases, until);
        self.engine.stop();
    }
}
