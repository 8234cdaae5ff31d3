//! The clock: calls disks that keep something back, so that no more than a second of it can be lost.

use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::threads::Threads;

/// Something to be called now and then while it exists.
pub trait Watched: Send + Sync {
    /// Brings out what was kept back. Called on the clock's thread; reports its own errors.
    fn tick(&self);
}

/// Twice a second: with the work itself, what is acknowledged reaches the file within the second that is promised.
const PERIOD: Duration = Duration::from_millis(400);

/// The clock of one engine.
#[derive(Default)]
pub struct Ticker {
    state: Mutex<State>,
    wake: Condvar,
}

/// What the lock protects.
#[derive(Default)]
struct State {
    watched: Vec<Weak<dyn Watched>>,
    running: bool,
    stopping: bool,
}

impl std::fmt::Debug for Ticker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticker").field("watched", &self.state.lock().watched.len()).finish()
    }
}

impl Ticker {
    /// Calls `watched` from now on. Starts the clock if it does not run.
    pub(super) fn watch(self: &Arc<Self>, watched: &Arc<dyn Watched>, threads: &Threads) {
        let mut state = self.state.lock();
        state.watched.push(Arc::downgrade(watched));
        if state.running || state.stopping {
            return;
        }
        state.running = true;
        drop(state);
        let clock = self.clone();
        if threads.spawn("vix-tick", move || clock.run()).is_err() {
            self.state.lock().running = false; // the next one tries again; Flush and Close publish anyway
        }
    }

    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            state.watched.retain(|w| w.strong_count() > 0);
            if state.stopping || state.watched.is_empty() {
                state.running = false;
                return;
            }
            self.wake.wait_for(&mut state, PERIOD);
            let due: Vec<_> = state.watched.iter().filter_map(Weak::upgrade).collect();
            drop(state);
            due.iter().for_each(|w| w.tick());
            drop(due);
            state = self.state.lock();
        }
    }

    /// Ends the clock.
    pub(super) fn stop(&self) {
        self.state.lock().stopping = true;
        self.wake.notify_all();
    }
}
