//! Packing on several threads: batches come back in the order in which they were given.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::stream::write_pack::Batch;
use crate::format::stream::write_pack::PackOptions;
use crate::format::stream::write_pack::Packer;
use crate::threads::Threads;

/// Threads that pack, and the batches they have. Ends its threads when it is dropped.
#[derive(Debug)]
pub struct Crew {
    shared: Arc<Shared>,
    threads: Threads,
    options: PackOptions,
    /// Threads that were started.
    started: usize,
    /// Used while there is no thread.
    own: Packer,
    /// The number of the next batch to be given.
    given: u64,
    /// The number of the next batch to come back.
    taken: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is a job, or the end.
    work: Condvar,
    /// A batch is done.
    done: Condvar,
}

/// What the lock of a crew protects. Nobody packs while holding it.
#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<(u64, Batch)>,
    results: BTreeMap<u64, Result<Batch>>,
    stopping: bool,
}

impl Crew {
    /// A crew without threads: they start with the first batches.
    pub fn new(options: PackOptions) -> Result<Crew> {
        let shared = Shared { state: Mutex::default(), work: Condvar::new(), done: Condvar::new() };
        Ok(Crew {
            shared: Arc::new(shared),
            threads: Threads::new(options.shield),
            own: Packer::new(options.level)?,
            options,
            started: 0,
            given: 0,
            taken: 0,
        })
    }

    /// True when a batch should be taken back before the next is given: so many keep every thread busy, and no more than
    /// about half a MiB each is in memory.
    pub fn is_full(&self) -> bool {
        self.in_work() >= 2 * self.started.max(1) as u64 + 2
    }

    /// Batches that did not come back yet.
    pub fn in_work(&self) -> u64 {
        self.given - self.taken
    }

    /// Gives a batch to be packed.
    pub fn give(&mut self, mut batch: Batch) {
        if self.started < self.options.workers && self.in_work() >= self.started as u64 {
            self.start_thread();
        }
        let number = self.given;
        self.given += 1;
        if self.started == 0 {
            let result = self.own.pack(&mut batch).map(|()| batch);
            self.shared.state.lock().results.insert(number, result);
            return;
        }
        self.shared.state.lock().jobs.push_back((number, batch));
        self.shared.work.notify_one();
    }

    /// The oldest batch, packed; waits for it. `None`: there is none.
    pub fn take(&mut self) -> Option<Result<Batch>> {
        if self.in_work() == 0 {
            return None;
        }
        let mut state = self.shared.state.lock();
        let result = loop {
            match state.results.remove(&self.taken) {
                Some(result) => break result,
                None => self.shared.done.wait(&mut state),
            }
        };
        self.taken += 1;
        Some(result)
    }

    /// Starts one more thread; without any the work is done here.
    fn start_thread(&mut self) {
        let (shared, level) = (self.shared.clone(), self.options.level);
        let Ok(mut packer) = Packer::new(level) else { return };
        let name = format!("vix-pack-{}", self.started + 1);
        match self.threads.spawn(&name, move || shared.work(&mut packer)) {
            Ok(()) => self.started += 1,
            Err(_) => self.options.workers = self.started, // as many as the machine allows
        }
    }

    /// Ends the threads; what they have not begun is dropped.
    pub fn stop(&mut self) {
        let mut state = self.shared.state.lock();
        state.stopping = true;
        state.jobs.clear();
        drop(state);
        self.shared.work.notify_all();
        self.threads.join_all();
        self.started = 0;
        self.options.workers = 0;
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// A thread's life.
    fn work(&self, packer: &mut Packer) {
        let mut state = self.state.lock();
        while !state.stopping {
            let Some((number, mut batch)) = state.jobs.pop_front() else {
                self.work.wait(&mut state);
                continue;
            };
            drop(state);
            let packed = catch_unwind(AssertUnwindSafe(|| packer.pack(&mut batch)));
            let result = packed
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a defect: packing panicked")))
                .map(|()| batch);
            state = self.state.lock();
            state.results.insert(number, result);
            self.done.notify_one();
        }
    }
}
