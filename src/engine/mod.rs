//! Asynchronous requests: workers, the barrier that waits for them, and the clock of disks that keep something back.
//!
//! ```text
//!   submit ──▶ try at once on this thread (cached data) ──▶ completion
//!         └──▶ queue ──▶ vix-io-N ──▶ completion            every job ends exactly once, also at shutdown
//! ```
#![forbid(unsafe_code)]

pub mod inflight;
pub mod pool;
pub mod ticker;

use std::sync::Arc;

use crate::engine::pool::Pool;
use crate::engine::ticker::Ticker;
use crate::threads::SignalShield;
use crate::threads::Threads;

/// The workers of one library instance. Starts no thread before there is work for one.
#[derive(Debug)]
pub struct Engine {
    threads: Arc<Threads>,
    pool: Arc<Pool>,
    ticker: Arc<Ticker>,
}

impl Engine {
    /// An engine of at most `workers` threads, 0 for as many as suit this machine.
    pub fn new(shield: SignalShield, workers: usize) -> Self {
        Self {
            threads: Arc::new(Threads::new(shield)),
            pool: Arc::new(Pool::new(workers)),
            ticker: Arc::new(Ticker::default()),
        }
    }

    /// The queue and its workers.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Puts a job into the queue; a worker is started if all are busy. Without any worker (no thread could be started)
    /// the job runs here.
    pub fn submit(&self, job: pool::Job) {
        self.pool.submit(job, &self.threads);
    }

    /// Hands the job to a worker only if one can take it at once; else gives it back.
    pub fn try_hand_off(&self, job: pool::Job) -> Option<pool::Job> {
        self.pool.try_hand_off(job, &self.threads)
    }

    /// Has `disk` published about twice a second while it exists.
    pub fn watch(&self, disk: &Arc<dyn ticker::Watched>) {
        self.ticker.watch(disk, &self.threads);
    }

    /// Finishes what is queued and ends every thread. Later submissions run on the submitting thread.
    pub fn stop(&self) {
        self.ticker.stop();
        self.pool.stop();
        self.threads.join_all();
    }
}
