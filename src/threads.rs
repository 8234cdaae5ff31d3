//! Named, registered, joinable threads with signals blocked.
//!
//! The only place where threads are born. A [`Threads`] belongs to one library instance; whoever
//! owns it calls [`Threads::join_all`] at shutdown.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};

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

/// The number of the calling thread, 0 if it was not born here.
pub fn here() -> u64 {
    ME.get()
}

/// Runs `body` on a thread of its own and waits for its result, no longer than `until`.
///
/// `Ok(None)`: time is up. The thread is then left behind, unregistered; it must touch nothing that a shutdown takes away.
/// `keep_code` runs before that and has to make sure that the code it runs stays in memory.
pub fn finish_until<T: Send + 'static>(
    shield: SignalShield,
    keep_code: fn(),
    name: &str,
    until: Instant,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>> {
    let result = Arc::new((Mutex::new((false, None)), Condvar::new()));
    let theirs = Arc::clone(&result);
    let handle = born(shield, name, move || {
        let over = Over(&theirs);
        let value = body();
        theirs.0.lock().1 = Some(value);
        drop(over);
    })?;
    let mut state = result.0.lock();
    while !state.0 {
        if result.1.wait_until(&mut state, until).timed_out() && !state.0 {
            keep_code();
            return Ok(None);
        }
    }
    let value = state.1.take();
    drop(state);
    let _ = handle.join(); // a panic shows as the missing value
    match value {
        Some(value) => Ok(Some(value)),
        None => Err(Error::new(ErrorKind::Internal, format!("thread {name} ended without a result"))),
    }
}

/// Says that a body is over, also when it panics.
struct Over<'a, T>(&'a (Mutex<(bool, Option<T>)>, Condvar));

impl<T> Drop for Over<'_, T> {
    fn drop(&mut self) {
        self.0.0.lock().0 = true;
        self.0.1.notify_all();
    }
}

/// Starts a thread with the host's signals blocked.
fn born(shield: SignalShield, name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let mut start = Some(std::thread::Builder::new().name(name.to_owned()).stack_size(STACK));
    let mut body = Some(body);
    let mut born = None;
    shield(&mut || {
        if let (Some(builder), Some(body)) = (start.take(), body.take()) {
            born = Some(builder.spawn(body));
        }
    });
    match born {
        Some(Ok(handle)) => Ok(handle),
        Some(Err(e)) => Err(Error::from_io(e, format!("starting thread {name}"))),
        None => Err(Error::new(ErrorKind::Internal, "the signal shield did not run its body")),
    }
}

impl Threads {
    /// A register without threads; `shield` keeps the host's signals away from the threads born here.
    pub fn new(shield: SignalShield) -> Self {
        Self { shield, running: Mutex::new(Vec::new()) }
    }

    /// Starts a thread called `vix-…` (at most 15 bytes are visible to debuggers).
    pub fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let handle = born(self.shield, name, move || {
            ME.set(number);
            body();
        })?;
        let mut running = self.running.lock();
        for (_, over) in running.extract_if(.., |(_, thread)| thread.is_finished()) {
            let _ = over.join(); // gives its stack back; at most the last instructions of the thread are waited for
        }
        running.push((number, handle));
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn no_shield(body: &mut dyn FnMut()) {
        body();
    }

    #[test]
    fn threads_that_ended_are_not_kept() {
        let threads = Threads::new(no_shield);
        for _ in 0..50 {
            threads.spawn("vix-test", || ()).unwrap();
            while threads.running.lock().iter().any(|(_, thread)| !thread.is_finished()) {
                std::thread::yield_now();
            }
        }
        assert_eq!(threads.running.lock().len(), 1);
    }

    #[test]
    fn a_result_in_time_is_handed_over() {
        let until = Instant::now() + Duration::from_secs(20);
        assert_eq!(finish_until(no_shield, || (), "vix-test", until, || 7).unwrap(), Some(7));
    }

    #[test]
    fn a_body_that_takes_too_long_is_left_behind() {
        let (go, gate) = mpsc::channel::<()>();
        let until = Instant::now() + Duration::from_millis(20);
        let late = finish_until(no_shield, || (), "vix-test", until, move || gate.recv().is_ok()).unwrap();
        assert_eq!(late, None);
        drop(go);
    }

    #[test]
    fn a_body_that_panics_gives_an_error() {
        let until = Instant::now() + Duration::from_secs(20);
        let e =
            finish_until(no_shield, || (), "vix-test", until, || -> u8 { panic!("on purpose") }).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Internal);
    }
}
