//! Everything that belongs to this process: the one library, its handles, who initialised it how often.
//!
//! A child of `fork` must not wait for locks that another thread held at that moment, nor for threads that stayed behind.
//! So all of it hangs on one pointer, and the child lets go of that: it starts with nothing, leaves the parent's state where
//! it is, and its handles carry another epoch. Looking things up costs one load.

use std::ptr;
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;

use crate::abi::handle::Kind;
use crate::abi::handle::Table;
use crate::abi::log_sink::HostFunctions;
use crate::abi::log_sink::HostSink;
use crate::abi::register::REGISTER;
use crate::config::Config;
use crate::logging::Level;
use crate::logging::Log;
use crate::session::Connection;
use crate::session::Library;
use crate::session::OpenDisk;

/// The state of this process, NULL before its first use.
static PROCESS: AtomicPtr<Process> = AtomicPtr::new(ptr::null_mut());

/// The parent's state in a child of `fork`: not used, not freed, but known, so that nobody takes it for lost memory.
static INHERITED: AtomicPtr<Process> = AtomicPtr::new(ptr::null_mut());

/// Forks between the first process and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Numbers initialisations, from 1.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// What a process has.
pub struct Process {
    running: RwLock<Initialised>,
    /// Open connections.
    pub connections: Table<Connection>,
    /// Open disks.
    pub disks: Table<OpenDisk>,
    /// Handles of a parent may come by.
    forked: bool,
    /// The parent's, if any.
    inherited: AtomicPtr<Process>,
}

#[derive(Default)]
struct Initialised {
    times: u64,
    running: Option<Arc<Running>>,
}

/// An initialised library.
pub struct Running {
    /// Number of this initialisation in the process.
    pub number: u64,
    /// The library.
    pub library: Arc<Library>,
    /// Where lines go.
    pub sink: Arc<HostSink>,
    /// Interface version the host was written for.
    declared: AtomicU32,
}

impl Running {
    /// Major number of the interface version that the host was written for.
    pub fn declared_major(&self) -> u32 {
        self.declared.load(Ordering::Relaxed)
    }
}

/// This process's state, made at the first use and never taken away.
#[inline]
pub fn process() -> &'static Process {
    let process = PROCESS.load(Ordering::Acquire);
    if process.is_null() {
        return begin();
    }
    // SAFETY: what was stored there is never freed, not even after a fork.
    unsafe { &*process }
}

#[cold]
fn begin() -> &'static Process {
    prepare_for_fork();
    let forks = FORKS.load(Ordering::Relaxed);
    let fresh = Box::into_raw(Box::new(Process {
        running: RwLock::new(Initialised::default()),
        connections: Table::new(Kind::Connection, u64::from(forks)),
        disks: Table::new(Kind::Disk, u64::from(forks)),
        forked: forks > 0,
        inherited: AtomicPtr::new(INHERITED.load(Ordering::Acquire)),
    }));
    match PROCESS.compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: `fresh` was just made and is never freed.
        Ok(_) => unsafe { &*fresh },
        Err(other) => {
            // SAFETY: `fresh` was made above and nobody else has seen it.
            drop(unsafe { Box::from_raw(fresh) });
            // SAFETY: what is stored there is never freed.
            unsafe { &*other }
        }
    }
}

/// Has the handlers below run around every fork. The library is linked so that it is never unloaded.
fn prepare_for_fork() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers are functions without arguments that stay in memory.
        unsafe {
            libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child))
        };
    });
}

unsafe extern "C" fn before_fork() {
    REGISTER.lock();
}

unsafe extern "C" fn after_fork_in_parent() {
    REGISTER.unlock();
}

unsafe extern "C" fn after_fork_in_child() {
    REGISTER.unlock();
    FORKS.fetch_add(1, Ordering::Relaxed);
    let parent = PROCESS.swap(ptr::null_mut(), Ordering::AcqRel);
    if !parent.is_null() {
        INHERITED.store(parent, Ordering::Release);
    }
}

impl Process {
    /// The running library, `None` before the first InitEx and after the last Exit.
    pub fn running(&self) -> Option<Arc<Running>> {
        self.running.read().running.clone()
    }

    /// True where a handle that names nothing may be one from before a fork.
    pub fn may_see_foreign_handles(&self) -> bool {
        self.forked || !self.inherited.load(Ordering::Relaxed).is_null()
    }

    /// Initialises the library, once more if it is.
    pub fn start(&self, major: u32, functions: HostFunctions, config: Config) -> Arc<Running> {
        let mut state = self.running.write();
        state.times += 1;
        if let Some(running) = &state.running {
            running.sink.update(functions, &config);
            running.declared.store(major, Ordering::Relaxed);
            running.library.set_config(config);
            return Arc::clone(running);
        }
        let sink = Arc::new(HostSink::new(functions, &config));
        let log = Log::new(Arc::clone(&sink) as Arc<dyn crate::logging::Sink>, Level::Debug);
        let running = Arc::new(Running {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            library: Library::new(log, config),
            sink,
            declared: AtomicU32::new(major),
        });
        state.running = Some(Arc::clone(&running));
        running
    }

    /// Takes one initialisation back; the last one closes everything and ends every thread.
    pub fn stop(&self) {
        let running = {
            let mut state = self.running.write();
            state.times = state.times.saturating_sub(1);
            if state.times > 0 {
                return;
            }
            let Some(running) = state.running.take() else { return };
            running
        };
        // From here on handles name nothing. Calls that are under way hold what they work on.
        let disks = self.disks.drain(running.number);
        let connections = self.connections.drain(running.number);
        running.library.shut_down();
        drop((disks, connections));
        running.sink.close();
    }
}
