//! Named, registered, joinable threads with signals blocked.
//!
//! The only place where threads are born. A [`Threads`] belongs to one library instance; whoever
//! owns it calls [`Threads::join_all`] at shutdown.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::error::{Error, Result};

/// Runs its argument with all signals blocked in the calling thread, so that a thread born inside inherits that.
pub type SignalShield = fn(&mut dyn FnMut());

/// The threads of one library instance.
#[derive(Debug)]
pub struct Threads {
    shield: SignalShield,
    running: Mutex<Vec<(u64, JoinHandle<()>)>>,
}

/// Numbers threads; 0 is every thread that was not born here.
static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// This thread's number. A plain cell without destructor: readable from an `atexit` handler.
    static ME: Cell<u64> = const { Cell::new(0) };
}

/// Enough for a worker that calls a host's completion function.
const STACK: usize = 512 * 1024;

/// True on a thread that was born here.
pub fn here_is_ours() -> bool {
    ME.get() != 0
}

impl Threads {
    /// A register without threads; `shield` keeps the host's signals away from the threads born here.
    pub fn new(shield: SignalShield) -> Self {
        Self { shield, running: Mutex::new(Vec::new()) }
    }

    /// Starts a thread called `vix-…` (at most 15 bytes are visible to debuggers).
    pub fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let body = move || {
            ME.set(number);
            body();
        };
        let mut start = Some((builder, body));
        let mut born = None;
        (self.shield)(&mut || {
            if let Some((builder, body)) = start.take() {
                born = Some(builder.spawn(body));
            }
        });
        match born {
            Some(Ok(handle)) => {
                self.running.lock().push((number, handle));
                Ok(())
            }
            Some(Err(e)) => Err(Error::from_io(e, format!("starting thread {name}"))),
            None => {
                Err(Error::new(crate::error::ErrorKind::Internal, "the signal shield did not run its body"))
            }
        }
    }

    /// Waits for every thread to end. A thread that asks for its own end is left to end by itself.
    pub fn join_all(&self) {
        loop {
            let Some((number, handle)) = self.running.lock().pop() else { return };
            if number != ME.get() {
                let _ = handle.join(); // a panic was caught and reported inside the thread
            }
        }
    }
}
