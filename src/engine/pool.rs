//! The queue of asynchronous requests and the threads that work on it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::disk::Disk;
use crate::engine::inflight::Gate;
use crate::error::{Error, ErrorKind, Result};
use crate::threads::Threads;
use crate::transfer::Finish;
use crate::transfer::Transfer;

/// What runs once when a request is done: a plain function and two words for it, so that a request needs no allocation.
/// Called without any lock held, on any thread.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// The function.
    pub call: fn([usize; 2], Result<()>),
    /// Handed to it as they are.
    pub words: [usize; 2],
}

impl Completion {
    /// Runs it on this thread.
    fn run(self, result: Result<()>) {
        COMPLETING.with(|depth| {
            depth.set(depth.get() + 1);
            let _ = std::panic::catch_unwind(AssertUnwindSafe(|| (self.call)(self.words, result)));
            depth.set(depth.get() - 1);
        });
    }

    /// Runs it for a request that never was one: it counts as in flight while the completion runs.
    pub fn run_inside(self, inflight: &Gate, result: Result<()>) {
        inflight.enter();
        self.run(result);
        inflight.leave();
    }
}

/// An asynchronous request. Completes exactly once: by [`Job::run`], [`Job::complete`], or when it is dropped.
#[derive(Debug)]
pub struct Job {
    /// Given up before the completion runs, so that nothing of the disk outlives the request.
    disk: Option<Arc<Disk>>,
    /// The buffer belongs to the request until its completion has run.
    transfer: Transfer,
    offset: u64,
    ending: Option<Ending>,
}

/// What is left to do when the work of a request is done.
enum Ending {
    /// Tell who asked; then the gate is left, which who made the job has entered.
    Tell(Completion, Arc<Gate>),
    /// Run what a storage gave back that does not start transfers.
    Finish(Finish),
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Ending::Tell(..) => "Tell",
            Ending::Finish(_) => "Finish",
        })
    }
}

thread_local! {
    /// How many completions are running on this thread. A plain cell without destructor.
    static COMPLETING: Cell<u32> = const { Cell::new(0) };
}

/// True while this thread is inside a completion.
pub fn is_completing() -> bool {
    COMPLETING.get() > 0
}

impl Job {
    /// A request on `disk`; `inflight` has been entered for it.
    pub fn new(
        disk: Arc<Disk>,
        inflight: Arc<Gate>,
        transfer: Transfer,
        offset: u64,
        done: Completion,
    ) -> Self {
        Self { disk: Some(disk), transfer, offset, ending: Some(Ending::Tell(done, inflight)) }
    }

    /// Bytes it transfers.
    pub fn len(&self) -> usize {
        self.transfer.len()
    }

    /// True when it transfers nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Does and completes a read if that needs no waiting; else hands the job on.
    pub fn run_cached_or(mut self, hand_on: impl FnOnce(Self)) {
        let (Some(buf), Some(disk)) = (self.transfer.to_fill(), &self.disk) else {
            return hand_on(self);
        };
        match disk.try_read(buf, self.offset) {
            Ok(false) => hand_on(self),
            Ok(true) => self.complete(Ok(())),
            Err(e) => self.complete(Err(e)),
        }
    }

    /// Has the storage below do it by itself, so that no thread waits for it. `Some`: that storage does not work so, the job
    /// is still to be done.
    pub fn start(mut self) -> Option<Self> {
        let disk = self.disk.take()?;
        if !disk.starts_transfers() {
            self.disk = Some(disk);
            return Some(self);
        }
        let (offset, transfer) = (self.offset, std::mem::replace(&mut self.transfer, Transfer::Write(&[])));
        // The job moves into the closure: whoever drops that without running it has the request cancelled.
        let finish: Finish = Box::new(move |_, result| self.complete(result));
        let (transfer, finish) = disk.start(transfer, offset, finish)?;
        Some(Self { disk: Some(disk), transfer, offset, ending: Some(Ending::Finish(finish)) })
    }

    /// Does it, waiting as needed, and completes it.
    pub fn run(mut self) {
        let offset = self.offset;
        let work = AssertUnwindSafe(|| match (&mut self.transfer, &self.disk) {
            (Transfer::Read(buf), Some(disk)) => disk.read(buf, offset),
            (Transfer::ReadOwned(buf), Some(disk)) => disk.read(buf, offset),
            (Transfer::Write(buf), Some(disk)) => disk.write(buf, offset),
            (_, None) => Err(Error::new(ErrorKind::Internal, "a request without a disk")),
        });
        let result = std::panic::catch_unwind(work)
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a defect: the request panicked")));
        self.complete(result);
    }

    /// Reports the result to whoever made the request.
    pub fn complete(mut self, result: Result<()>) {
        self.report(result);
    }

    fn report(&mut self, result: Result<()>) {
        self.disk = None;
        match self.ending.take() {
            Some(Ending::Tell(done, inflight)) => {
                done.run(result);
                inflight.leave();
            }
            Some(Ending::Finish(finish)) => {
                finish(std::mem::replace(&mut self.transfer, Transfer::Write(&[])), result);
            }
            None => {}
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.ending.is_some() {
            self.report(Err(Error::new(ErrorKind::Cancelled, "the request was dropped at shutdown")));
        }
    }
}

/// The queue.
#[derive(Debug)]
pub struct Pool {
    /// Most threads.
    limit: usize,
    /// Threads that copy and inflate at the same time: more than processors gain nothing.
    processors: usize,
    queue: Mutex<Queue>,
    work: Condvar,
}

/// What the lock of a pool protects.
#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Threads that exist.
    workers: usize,
    /// Threads that sleep.
    idle: usize,
    stopping: bool,
}

/// Threads that wait for devices at the same time, unless the configuration says otherwise.
const WORKERS: usize = 16;

impl Pool {
    /// A queue for at most `workers` threads, 0 for the default.
    pub fn new(workers: usize) -> Self {
        let limit = if workers == 0 { WORKERS } else { workers };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { limit, processors, queue: Mutex::default(), work: Condvar::new() }
    }

    /// Queues a job and sees to it that somebody will take it.
    pub fn submit(self: &Arc<Self>, job: Job, threads: &Threads) {
        let mut queue = self.queue.lock();
        if queue.stopping {
            drop(queue);
            return job.run();
        }
        queue.jobs.push_back(job);
        if queue.idle >= queue.jobs.len() || queue.workers >= self.limit {
            drop(queue);
            self.work.notify_one();
            return;
        }
        queue.workers += 1;
        let number = queue.workers;
        drop(queue);
        if self.start_worker(number, threads).is_err() {
            let mut queue = self.queue.lock();
            queue.workers -= 1;
            if queue.workers == 0
                && let Some(job) = queue.jobs.pop_back()
            {
                drop(queue);
                job.run();
            }
        }
    }

    /// Gives the job to a thread that sleeps or can still be started beside the caller's; else back.
    pub fn try_hand_off(self: &Arc<Self>, job: Job, threads: &Threads) -> Option<Job> {
        let queue = self.queue.lock();
        let busy = queue.workers - queue.idle + queue.jobs.len();
        if queue.stopping || self.processors < 2 || busy + 1 >= self.processors {
            return Some(job);
        }
        drop(queue);
        self.submit(job, threads);
        None
    }

    fn start_worker(self: &Arc<Self>, number: usize, threads: &Threads) -> Result<()> {
        let pool = self.clone();
        threads.spawn(&format!("vix-io-{number}"), move || pool.work())
    }

    /// A worker's life.
    fn work(&self) {
        let mut queue = self.queue.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                job.run();
                queue = self.queue.lock();
            } else if queue.stopping {
                queue.workers -= 1;
                return;
            } else {
                queue.idle += 1;
                self.work.wait(&mut queue);
                queue.idle -= 1;
            }
        }
    }

    /// Lets the workers finish what is queued and end.
    pub fn stop(&self) {
        self.queue.lock().stopping = true;
        self.work.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    use crate::storage::Identity;
    use crate::storage::Storage;

    /// What a storage does with a transfer that it is to start.
    #[derive(Debug, Clone, Copy)]
    enum Does {
        Drops,
        GivesBack,
        Ends,
    }

    #[derive(Debug)]
    struct Fake(Does);

    impl Storage for Fake {
        fn size(&self) -> Result<u64> {
            Ok(4096)
        }
        fn read_at(&self, buf: &mut [u8], _offset: u64) -> Result<()> {
            buf.fill(7);
            Ok(())
        }
        fn start(&self, transfer: Transfer, _offset: u64, finish: Finish) -> Option<(Transfer, Finish)> {
            match self.0 {
                Does::Drops => None,
                Does::GivesBack => Some((transfer, finish)),
                Does::Ends => {
                    finish(transfer, Err(Error::new(ErrorKind::ConnectionLost, "gone")));
                    None
                }
            }
        }
        fn write_at(&self, _buf: &[u8], _offset: u64) -> Result<()> {
            Ok(())
        }
        fn flush(&self) -> Result<()> {
            Ok(())
        }
        fn label(&self) -> String {
            "fake".to_owned()
        }
    }

    static ENDED: AtomicUsize = AtomicUsize::new(0);

    /// Counts, and adds what the first word says for an end with that kind.
    fn count([cancelled, lost]: [usize; 2], result: Result<()>) {
        let step = match result.map_err(|e| e.kind()) {
            Ok(()) => 1,
            Err(ErrorKind::Cancelled) => cancelled,
            Err(ErrorKind::ConnectionLost) => lost,
            Err(_) => 0,
        };
        ENDED.fetch_add(step, Ordering::SeqCst);
    }

    #[test]
    fn a_started_request_ends_exactly_once_whatever_the_storage_does() {
        let inflight = Arc::new(Gate::default());
        for (does, step) in [(Does::Drops, 100), (Does::Ends, 10_000), (Does::GivesBack, 0)] {
            let disk = Arc::new(Disk::raw(Arc::new(Fake(does)), false, Identity(0, 0)).unwrap());
            inflight.enter();
            let done = Completion { call: count, words: [100, 10_000] };
            let buf = Transfer::Read(Vec::leak(vec![0; 512]));
            let before = ENDED.load(Ordering::SeqCst);
            let job = Job::new(disk, inflight.clone(), buf, 0, done).start();
            assert_eq!(ENDED.load(Ordering::SeqCst) - before, step, "{does:?}");
            assert_eq!(job.is_some(), step == 0, "{does:?}");
            if let Some(job) = job {
                assert_eq!((job.len(), inflight.inside()), (512, 1));
                job.run();
                assert_eq!(ENDED.load(Ordering::SeqCst) - before, 1);
            }
            assert_eq!(inflight.inside(), 0, "{does:?}");
        }
    }
}
