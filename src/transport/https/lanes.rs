//! Threads that do jobs: as many as there are jobs at once, up to a bound. None is born before the first job.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::os;
use crate::threads::Threads;

/// Jobs and who does them.
pub struct Lanes<J> {
    shared: Arc<Shared<J>>,
    threads: Threads,
}

struct Shared<J> {
    state: Mutex<State<J>>,
    wake: Condvar,
    work: Box<dyn Fn(J) + Send + Sync>,
}

struct State<J> {
    jobs: VecDeque<J>,
    lanes: usize,
    idle: usize,
    over: bool,
}

/// Jobs done at once.
pub const MOST: usize = 8;

impl<J> fmt::Debug for Lanes<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("Lanes")
            .field("lanes", &state.lanes)
            .field("over", &state.over)
            .finish_non_exhaustive()
    }
}

impl<J: Send + 'static> Lanes<J> {
    /// Jobs are done by `work`, which does not panic.
    pub fn new(work: impl Fn(J) + Send + Sync + 'static) -> Self {
        let state = State { jobs: VecDeque::new(), lanes: 0, idle: 0, over: false };
        let shared = Shared { state: Mutex::new(state), wake: Condvar::new(), work: Box::new(work) };
        Self { shared: Arc::new(shared), threads: Threads::new(os::with_signals_blocked) }
    }

    /// Has a job done. The job comes back if there is nobody to do it.
    pub fn submit(&self, job: J) -> Option<J> {
        let mut state = self.shared.state.lock();
        if state.over {
            return Some(job);
        }
        let is_short_of_lanes = state.idle <= state.jobs.len() && state.lanes < MOST;
        if is_short_of_lanes {
            let shared = Arc::clone(&self.shared);
            let name = format!("vix-https-{}", state.lanes);
            match self.threads.spawn(&name, move || shared.run()) {
                Ok(()) => state.lanes += 1,
                Err(_) if state.lanes == 0 => return Some(job),
                Err(_) => {} // those that there are will do it
            }
        }
        state.jobs.push_back(job);
        drop(state);
        self.shared.wake.notify_one();
        None
    }

    /// Takes no more jobs and gives back those that nobody has begun.
    pub fn end(&self) -> VecDeque<J> {
        let mut state = self.shared.state.lock();
        state.over = true;
        let left = std::mem::take(&mut state.jobs);
        drop(state);
        self.shared.wake.notify_all();
        left
    }

    /// Waits for the threads to end, no longer than that.
    pub fn join_until(&self, until: Instant) -> bool {
        self.threads.join_until(until)
    }
}

impl<J> Shared<J> {
    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            match state.jobs.pop_front() {
                Some(job) => {
                    drop(state);
                    (self.work)(job);
                    state = self.state.lock();
                }
                None if state.over => return,
                None => {
                    state.idle += 1;
                    self.wake.wait(&mut state);
                    state.idle -= 1;
                }
            }
        }
    }
}
