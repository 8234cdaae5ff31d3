//! What a session has to answer, by the time at which it is due.
//!
//! The thread that reads requests puts jobs in, the thread that sends takes them out. Delays overlap: ten operations of a
//! millisecond are due in a millisecond, not in ten.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::net::nfc::io::Io;
use crate::sim::fault::Action;
use crate::sim::nfc::Volume;

/// More jobs make the reading thread wait.
const MOST: usize = 1024;

/// Jobs that are taken at once.
const BATCH: usize = 64;

/// Something to answer.
#[derive(Debug)]
pub struct Job {
    /// The operation.
    pub op: u32,
    /// What it is answered with.
    pub answer: Answer,
    /// What goes wrong with the answer.
    pub action: Option<Action>,
    /// Memory that is free again after it.
    pub memory: Option<Reserved>,
}

/// What an operation is answered with.
#[derive(Debug)]
pub enum Answer {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The content of a volume.
    Read {
        /// The request.
        io: Io,
        /// The volume.
        volume: Arc<dyn Volume>,
        /// Longest fragment.
        buffer: u32,
    },
}

/// A part of a server's memory, given back when it is dropped.
#[derive(Debug)]
pub struct Reserved {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Reserved {
    /// Takes memory, unless that makes more than `limit`.
    pub fn take(used: &Arc<AtomicU64>, bytes: u64, limit: Option<u64>) -> Option<Self> {
        use std::sync::atomic::Ordering::Relaxed;
        let fits =
            |before: u64| before.checked_add(bytes).filter(|after| limit.is_none_or(|limit| *after <= limit));
        used.fetch_update(Relaxed, Relaxed, fits).ok().map(|_| Self { used: Arc::clone(used), bytes })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Jobs, the one that is due first on top; those that are due together in the order in which they came.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: BinaryHeap<Entry>,
    next: u64,
    /// Nobody puts anything in any more, or nobody takes anything out.
    closed: bool,
    /// What was taken out last is being worked on.
    busy: bool,
}

#[derive(Debug)]
struct Entry {
    due: Instant,
    number: u64,
    job: Job,
}

impl Ord for Entry {
    /// The greatest is on top.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl Queue {
    /// Puts a job in; waits while there are too many. False: the queue is closed.
    pub fn put(&self, due: Instant, job: Job) -> bool {
        let mut state = self.state.lock();
        while state.jobs.len() >= MOST && !state.closed {
            self.wake.wait(&mut state);
        }
        if state.closed {
            return false;
        }
        let number = state.next;
        state.next += 1;
        state.jobs.push(Entry { due, number, job });
        drop(state);
        self.wake.notify_all();
        true
    }

    /// Waits until everything was taken out and worked on, or the time is up.
    pub fn drain(&self, until: Instant) {
        let mut state = self.state.lock();
        while (state.busy || !state.jobs.is_empty()) && !state.closed {
            if self.wake.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
    }

    /// Waits for jobs that are due and takes them. Nothing: the queue is closed.
    pub fn take(&self, into: &mut Vec<Job>) -> bool {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.busy) {
            self.wake.notify_all();
        }
        loop {
            if state.closed {
                return false;
            }
            let now = Instant::now();
            while into.len() < BATCH && state.jobs.peek().is_some_and(|entry| entry.due <= now) {
                into.extend(state.jobs.pop().map(|entry| entry.job));
            }
            if !into.is_empty() {
                state.busy = true;
                drop(state);
                self.wake.notify_all();
                return true;
            }
            match state.jobs.peek().map(|entry| entry.due) {
                Some(due) => drop(self.wake.wait_until(&mut state, due)),
                None => self.wake.wait(&mut state),
            }
        }
    }

    /// Wakes both sides for the last time; what is left is dropped.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let left = std::mem::take(&mut state.jobs);
        drop(state);
        self.wake.notify_all();
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn job(op: u32) -> Job {
        Job { op, answer: Answer::Bytes(Vec::new()), action: None, memory: None }
    }

    fn taken(queue: &Queue) -> Vec<u32> {
        let mut jobs = Vec::new();
        assert!(queue.take(&mut jobs));
        jobs.iter().map(|job| job.op).collect()
    }

    #[test]
    fn jobs_come_out_when_they_are_due_and_else_as_they_came() {
        let (queue, now) = (Queue::default(), Instant::now());
        for (op, later) in [(1, 30), (2, 0), (3, 20), (4, 0), (5, 20)] {
            assert!(queue.put(now + Duration::from_millis(later), job(op)));
        }
        let mut order = Vec::new();
        while order.len() < 5 {
            order.extend(taken(&queue));
        }
        assert_eq!(order, [2, 4, 3, 5, 1]);
        assert!(now.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn draining_waits_for_the_work_too() {
        let queue = Arc::new(Queue::default());
        queue.put(Instant::now(), job(1));
        assert_eq!(taken(&queue), [1]);
        queue.drain(Instant::now() + Duration::from_millis(10)); // nobody says that it is done
        assert!(queue.state.lock().busy);
        let theirs = Arc::clone(&queue);
        let taker = std::thread::spawn(move || theirs.take(&mut Vec::new()));
        queue.drain(Instant::now() + Duration::from_secs(20));
        assert!(!queue.state.lock().busy);
        queue.close();
        assert!(!taker.join().unwrap());
    }

    #[test]
    fn a_closed_queue_wakes_both_sides() {
        let queue = Arc::new(Queue::default());
        let theirs = Arc::clone(&queue);
        let taker = std::thread::spawn(move || theirs.take(&mut Vec::new()));
        queue.close();
        assert!(!taker.join().unwrap());
        assert!(!queue.put(Instant::now(), job(1)));
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let used = Arc::new(AtomicU64::new(0));
        let first = Reserved::take(&used, 60, Some(100)).unwrap();
        assert!(Reserved::take(&used, 60, Some(100)).is_none());
        assert!(Reserved::take(&used, u64::MAX, None).is_none(), "too much for any count");
        drop(first);
        assert!(Reserved::take(&used, 100, Some(100)).is_some());
    }
}
